"""The page about the journal: its programs run as printed, and its tables leave nothing out."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING

import pytest
from page_programs import ROOT, run

from mirage_async.journal import Entry, EntryState, Journal, journal_entries

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio

PAGE = (ROOT / "mirage_async/journal/README.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


async def test_the_first_program_gets_back_what_it_paid_for(tmp_path: Path) -> None:
    """One purchase, whose picture comes in the second life."""
    assert await run(PROGRAMS[0], tmp_path) == "mirako image/jpeg\n{'mirako': 1}\n"
    (entry,) = journal_entries(tmp_path / "journal")
    assert (entry.state, entry.handed_over) == (EntryState.SUCCEEDED, True)


async def test_the_second_program_settles_what_is_uncertain_and_nothing_else(tmp_path: Path) -> None:
    """What it says of the rest is not changed."""
    await run(PROGRAMS[0], tmp_path)
    (before,) = journal_entries(tmp_path / "journal")
    uncertain = PROGRAMS[0].replace(
        "async with Mirage", 'sandbox.fail("mirako.create", Fault(reset=True))\n        async with Mirage', 1
    )
    uncertain = uncertain.replace("import Sandbox", "import Fault, Sandbox")
    with pytest.raises(AssertionError, match="SubmissionUncertainError"):
        await run(uncertain, tmp_path)
    assert await run(PROGRAMS[1], tmp_path) == ""
    after: dict[str, Entry] = {entry.key: entry for entry in journal_entries(tmp_path / "journal")}
    assert after.pop(before.key) == before
    assert [entry.state for entry in after.values()] == [EntryState.ABANDONED]


def test_the_table_of_settings_has_all_of_them_with_their_defaults() -> None:
    """Of the constructor, in its order."""
    listed = re.findall(r"^\| `(\w+)=(\S+)` \|", PAGE, re.MULTILINE)
    parameters = list(inspect.signature(Journal).parameters.values())[1:]
    assert listed == [(each.name, repr(each.default).replace("'", '"')) for each in parameters]
    assert {program.count("asyncio.run(main())") for program in PROGRAMS} == {1}


def test_the_page_fits_on_a_few_screens() -> None:
    """A hundred lines or so."""
    assert len(PAGE.splitlines()) <= 100
