"""What callers' own keys stand for, where a damaged file has it: taken over, or else nobody buys under a key again."""

# ruff: noqa: ASYNC240 - a test may look into its own folder

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from typing import TYPE_CHECKING

import pytest
from journal_bench import PROMPT, filled, hub, intent, job, journaling, leaves_of

from mirage_async import ImageRequest
from mirage_async._claims import Claim, Claims
from mirage_async.exceptions import InputError, JournalError
from mirage_async.journal import EntryState, Journal, _schema, journal_entries
from mirage_async.journal._salvage import salvage
from mirage_async.journal._seats import Seat
from mirage_async.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

pytestmark = pytest.mark.anyio

OWN = "0123456789abcdef0123456789abcdef"
FREE = "fedcba9876543210fedcba9876543210"
CLAIM = Claim(digest="0" * 64, keys=(FREE,))


def damaged(folder: Path, tree: str, *, places: tuple[int, ...] = (-1,), root: bool = False) -> Path:
    """Damage pages that rows of one table or index are on, or the one it begins with, and return the file."""
    (file,) = folder.glob("*.sqlite")
    with contextlib.closing(sqlite3.connect(file)) as connection:
        (first,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (tree,)).fetchone()
    data = bytearray(file.read_bytes())
    if tree == "notes" and not root:  # what is stored without a number is on inner pages, too
        assert len(leaves_of(data, first)) > 3
    pages = [first] if root else [leaves_of(data, first)[place][0] for place in places]
    for number in pages:
        data[(number - 1) * 4096 : number * 4096] = b"\xa5" * 4096
    file.write_bytes(data)
    return file


async def noting(folder: Path, notes: int = 0) -> list[str]:
    """Fill a journal with rows, a claim of a caller's own key and further notes, and return the keys of the rows."""
    keys = await filled(folder, rows=60)
    async with journaling(folder) as journal:
        await Claims(journal).make(OWN, CLAIM)
        for number in range(notes):
            await journal.note(f"number {number:03}", "x" * 100)
    return keys


async def refused(journal: Journal) -> bool:
    """Whether a key of which nothing is on record is refused, for one purchase, for several, and by the journal."""
    tries: tuple[Callable[[], Awaitable[None]], ...] = (
        lambda: Claims(journal).check_none(FREE),
        lambda: Claims(journal).make(FREE, CLAIM),
        lambda: journal.intended(job(journal, key=FREE), intent(own_key=True)),
    )
    found: list[str] = []
    for attempt in tries:
        try:
            await attempt()
        except InputError as error:
            found.append(f"{error} ({error.billed})")
    assert len(found) in {0, len(tries)}
    assert all(f"nobody knows what the key {FREE} stands for" in text and "move that file" in text for text in found)
    assert all("(no)" in text for text in found)
    return bool(found)


async def test_a_page_of_other_purchases_does_not_free_a_callers_own_key(tmp_path: Path) -> None:
    """The same key for other providers would buy a second time."""
    request = ImageRequest(prompt=PROMPT, providers=("miragic", "mira"), key=OWN)
    async with Sandbox(durations=0.01) as sandbox:
        async with hub(sandbox, tmp_path) as mirage:
            await (await mirage.submit(request))
        await filled(tmp_path, rows=60)
        damaged(tmp_path, "jobs")
        async with hub(sandbox, tmp_path) as mirage:
            with pytest.raises(InputError, match="stands for another request already"):
                await mirage.submit(ImageRequest(prompt=PROMPT, providers=("mira", "milady"), key=OWN))
            assert (await (await mirage.submit(request))).provider == "miragic"
        assert sandbox.statistics().purchases == {"miragic": 1}


async def test_what_was_lost_keeps_free_keys_from_buying_until_somebody_moves_the_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Also in the next process; what is on record goes on as ever."""
    keys = await noting(tmp_path)
    damaged(tmp_path, "jobs")
    for _ in range(2):
        async with journaling(tmp_path) as journal:
            assert await refused(journal)
            assert await journal.noted(f"claim {OWN}") is not None
            with pytest.raises(InputError, match="another process has bought"):
                await journal.intended(job(journal, key=keys[0]), intent(own_key=True))
            await journal.intended(job(journal), intent())  # what has no key of the caller's
    (aside,) = tmp_path.glob("*.damaged")
    assert f"until {aside} is moved elsewhere, no caller's own key buys that is not on record" in caplog.text
    async with journaling(tmp_path) as journal:
        aside.rename(tmp_path / "looked up")
        assert not await refused(journal)
        found = await journal.entry(FREE)
        assert found is not None
        assert found.state is EntryState.INTENDED


@pytest.mark.parametrize("looks_first", [True, False], ids=["looks", "buys"])
@pytest.mark.parametrize("free", ["unknown", "refused before"])
async def test_what_another_process_could_not_read_keeps_this_one_from_buying_a_second_time(
    free: str, looks_first: bool, tmp_path: Path
) -> None:
    """The process goes on, and the next one has set the file of a third aside."""
    folder, old = tmp_path / "journal", tmp_path / "old"
    keys = await filled(old, rows=60)
    file = damaged(old, "jobs")
    async with journaling(folder) as journal:
        if free == "refused before":
            for key in keys:
                owner = job(journal, key=key)
                await journal.intended(owner, intent(own_key=True))
                await journal.withdrawn(owner)
        file.rename(folder / "jobs-00000000.sqlite")
        async with journaling(folder):
            known = {entry.key for entry in journal_entries(folder) if entry.state is EntryState.ACCEPTED}
            lost = [key for key in keys if key not in known]
            assert lost
            if looks_first:
                assert await refused(journal)
            for key in keys:
                with pytest.raises(InputError, match="nobody knows" if key in lost else "another process has bought"):
                    await journal.intended(job(journal, key=key), intent(own_key=True))
            (aside,) = folder.glob("*.damaged")
            aside.rename(tmp_path / "looked up")
            assert not await refused(journal)
            await journal.intended(job(journal, key=lost[0]), intent(own_key=True))


async def test_a_file_that_is_read_whole_after_all_keeps_nobody_from_buying(tmp_path: Path) -> None:
    """As where only the index is damaged, in which nothing is that is not elsewhere."""
    await noting(tmp_path)
    damaged(tmp_path, "sqlite_autoindex_jobs_1")
    async with journaling(tmp_path) as journal:
        assert list(tmp_path.glob("*.damaged"))
        assert not await refused(journal)


async def test_an_index_that_is_another_one_hides_no_purchase(tmp_path: Path) -> None:
    """Nothing but the number of keys tells; all entries are there by their numbers."""
    keys = await noting(tmp_path, notes=300)
    (file,) = tmp_path.glob("*.sqlite")
    with contextlib.closing(sqlite3.connect(file)) as connection:
        roots = dict(connection.execute("SELECT name, rootpage FROM sqlite_master"))
    data = bytearray(file.read_bytes())
    leaf, root = leaves_of(data, roots["notes"])[1][0], roots[_schema.KEYS]
    data[(root - 1) * 4096 : root * 4096] = data[(leaf - 1) * 4096 : leaf * 4096]
    file.write_bytes(data)
    async with journaling(tmp_path) as journal:
        assert None not in [await journal.entry(key) for key in keys]
        assert list(tmp_path.glob("*.damaged"))
        assert not await refused(journal)


async def test_notes_are_read_from_both_ends(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What is between two damaged pages is lost, and that is said."""
    await noting(tmp_path, notes=300)
    damaged(tmp_path, "notes", places=(2, 4))
    async with journaling(tmp_path) as journal:
        there = [number for number in range(300) if await journal.noted(f"number {number:03}") == "x" * 100]
        assert await journal.noted(f"claim {OWN}") is not None
        assert await refused(journal)
    gap = sorted(set(range(300)) - set(there))
    assert gap == list(range(gap[0], gap[-1] + 1))
    assert there[0] == 0
    assert there[-1] == 299
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.CRITICAL]
    assert any("the notes of" in line and "cannot all be read" in line for line in lines)


@pytest.mark.parametrize("tree", ["jobs", "notes"])
@pytest.mark.parametrize("how", ["twice", "swapped", "shortened", "root"])
async def test_what_is_missing_without_an_error_keeps_free_keys_from_buying(
    tree: str, how: str, tmp_path: Path
) -> None:
    """As where a disk writes a page in the place of another one: that reads as if all were well."""
    keys = await noting(tmp_path, notes=300)
    (file,) = tmp_path.glob("*.sqlite")
    with contextlib.closing(sqlite3.connect(file)) as connection:
        (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (tree,)).fetchone()
    data = bytearray(file.read_bytes())
    one, two = (slice((number - 1) * 4096, number * 4096) for number in (leaves_of(data, root)[2][0], root))
    if how == "swapped":
        data[one], data[two] = data[two], data[one]
    elif how == "root":
        data[two] = data[one]
    elif how == "twice":
        other = leaves_of(data, root)[1][0]
        data[one] = data[(other - 1) * 4096 : other * 4096]
    else:
        data[one.start + 4] -= 1  # the number of rows on it
    file.write_bytes(data)
    async with journaling(tmp_path) as journal:
        there = [await journal.entry(key) for key in keys], [await journal.noted(f"number {n:03}") for n in range(300)]
        assert None in there[tree == "notes"]
        assert await refused(journal)


@pytest.mark.parametrize("what", ["notes", "all"])
async def test_without_any_notes_no_key_is_free(tmp_path: Path, what: str, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody can tell which one had a claim; also of a file that is found later, beside one that has been opened."""
    await noting(tmp_path / "old")
    if what == "notes":
        file = damaged(tmp_path / "old", "notes", root=True)
    else:
        (file,) = (tmp_path / "old").glob("*.sqlite")
        file.write_bytes(os.urandom(20_000))
    async with journaling(tmp_path / "journal") as journal:
        file.rename(tmp_path / "journal" / "jobs-00000000.sqlite")
        assert await refused(journal)
        assert len(await journal.owed()) == (60 if what == "notes" else 0)
    guess = "the rows 1 to 201 (an estimate by its size, there may be fewer) of"
    assert (guess in caplog.text) == (what == "all")


async def test_a_name_that_is_no_text_is_damage_like_any_other(tmp_path: Path) -> None:
    """SQLite quotes it, and Python cannot read what it says; also in the file of another process."""
    async with journaling(tmp_path / "journal") as journal:
        await noting(tmp_path / "old")
        (file,) = (tmp_path / "old").glob("*.sqlite")
        data = file.read_bytes()
        file.write_bytes(data.replace(b"sqlite_autoindex_jobs", b"sqlite_autoindex_job\xf4"))
        file.rename(held := tmp_path / "journal" / "jobs-00000000.sqlite")
        seat = Seat.take(held)
        assert seat is not None
        with pytest.raises(JournalError, match="cannot be read"):
            await journal.entry(FREE)
        seat.release()
        assert await refused(journal)


async def test_what_only_looks_like_a_note_is_not_taken_over(tmp_path: Path) -> None:
    """Nor does it stand in the place of one that was written later."""
    await noting(tmp_path / "old")
    (file,) = (tmp_path / "old").glob("*.sqlite")
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute("INSERT INTO notes VALUES ('both', 'old', 5.0)")
        connection.execute("INSERT INTO notes VALUES ('k', X'00', 5.0)")
        connection.execute("INSERT INTO notes VALUES ('last', 'text', 5.0)")
        connection.commit()
    async with journaling(tmp_path / "journal") as journal:
        await journal.note("both", "new")
        await journal._writer.do(lambda connection: salvage(connection, file))
        assert await journal.noted("both") == "new"
        assert await journal.noted("last") == "text"
        assert await journal.noted("k") is None
        assert await journal._writer.do(_schema.lost) == [file.with_suffix(".damaged").name]
