"""What is on record is looked up for all who ask at a time, and each gets an answer of his own."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import threading
from typing import TYPE_CHECKING

import pytest
from journal_bench import intent, job, journaling

from mirage_async.exceptions import JournalError
from mirage_async.journal import Entry, EntryState, Journal, _folder, _seats
from mirage_async.journal._together import MOST

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator
    from multiprocessing.connection import Connection
    from pathlib import Path

    from mirage_async.journal._seats import Seat

OWN = "0123456789abcdef0123456789abcdef"


async def together(journal: Journal, *asking: Awaitable[object]) -> list[object]:
    """Have all of them asked before the journal's thread gets to any."""
    gate = threading.Event()
    journal._writer.soon(lambda _: gate.wait(10))
    asked = asyncio.gather(*asking, return_exceptions=True)
    await asyncio.sleep(0)
    gate.set()
    return await asked


@pytest.mark.anyio
async def test_those_who_ask_together_share_a_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more than SQLite takes in one go, half of which are on record; in our file and in that of a living process."""
    looks: list[Path] = []
    from_seats = _seats.free_seats

    def looking(folder: Path, but: Path | None = None) -> Iterator[Seat]:
        looks.append(folder)
        return from_seats(folder, but)

    keys = [f"{number:032x}" for number in range(MOST + 100)]
    async with journaling(tmp_path) as journal, journaling(tmp_path) as other:
        for place, key in enumerate(keys[::2]):
            owner = (journal, other)[place % 2]
            await owner.intended(job(owner, key=key), intent(own_key=True))
        monkeypatch.setattr(_folder, "free_seats", looking)
        found = await together(journal, *map(journal.entry, keys))
        assert [entry.key if isinstance(entry, Entry) else entry for entry in found] == [
            None if place % 2 else key for place, key in enumerate(keys)
        ]
        assert len(looks) == 2


@pytest.mark.anyio
async def test_entries_and_notes_are_asked_for_together(tmp_path: Path) -> None:
    """Each gets what was asked for, and nothing of the others."""
    async with journaling(tmp_path) as journal:
        await journal.intended(job(journal, key=OWN), intent(own_key=True))
        await journal.note("one", "first")
        await journal.note("two", "second")
        entry, both, no_note, note, none = await together(
            journal,
            journal.entry(OWN),
            journal.entry_and_note(OWN, "one"),
            journal.entry_and_note("f" * 32, "three"),
            journal.noted("two"),
            journal.noted("three"),
        )
        assert isinstance(entry, Entry)
        assert entry.state is EntryState.INTENDED
        assert (both, no_note, note, none) == ((entry, "first"), (None, None), "second", None)


@pytest.mark.anyio
async def test_notes_are_kept_together(tmp_path: Path) -> None:
    """In one transaction, the last of a name; and the others where one of them cannot be kept."""
    async with journaling(tmp_path) as journal:
        statements: list[str] = []
        await journal._writer.do(lambda connection: connection.set_trace_callback(statements.append))
        names = [f"name {number}" for number in range(40)]
        assert await together(journal, *(journal.note(name, "text") for name in names)) == [None] * 40
        await together(journal, journal.note("twice", "first"), journal.note("twice", "second"))
        assert statements.count("COMMIT") == 2
        bad = await together(
            journal, journal.note("good", "kept"), journal.note("bad", "\ud800"), journal.note("x", "y")
        )
        assert [type(end) for end in bad] == [type(None), UnicodeEncodeError, type(None)]
        assert await together(journal, *map(journal.noted, [*names[:2], "twice", "good", "bad", "x"])) == [
            *["text"] * 2,
            *("second", "kept", None, "y"),
        ]


@pytest.mark.anyio
async def test_an_entry_that_cannot_be_read_spoils_only_its_own_answer(tmp_path: Path) -> None:
    """The others get theirs, in the same moment."""
    async with journaling(tmp_path) as journal:
        for key in (OWN, "b" * 32):
            await journal.intended(job(journal, key=key), intent(own_key=True))
        await journal._writer.do(
            lambda connection: (
                connection.execute("UPDATE jobs SET state = 'nonsense' WHERE key = ?", ("b" * 32,)) and None
            )
        )
        good, bad, missing = await together(journal, *map(journal.entry, (OWN, "b" * 32, "c" * 32)))
        assert isinstance(good, Entry)
        assert isinstance(bad, JournalError)
        assert "is damaged" in str(bad)
        assert missing is None


def test_a_loop_that_ended_keeps_nobody_in_the_next_one_waiting(tmp_path: Path) -> None:
    """Whoever asks next asks anew, though the thread has not got to the first question."""
    journal, gate = Journal(tmp_path), threading.Event()

    async def asked_and_left() -> None:
        journal._writer.soon(lambda _: gate.wait(10))
        asking = asyncio.ensure_future(journal.entry(OWN))
        await asyncio.sleep(0)
        assert not asking.done()

    async def asked() -> None:
        asking = asyncio.ensure_future(journal.noted("one"))
        await asyncio.sleep(0)
        gate.set()
        assert await asyncio.wait_for(asking, 30) is None
        await journal.aclose()

    asyncio.run(asked_and_left())
    asyncio.run(asked())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_that_is_forked_while_somebody_is_answered_is_told_so(tmp_path: Path) -> None:
    """The lock of that moment, which nobody lets go of in a child, is not waited for."""
    journal = Journal(tmp_path)

    async def asked() -> str:
        try:
            await journal.entry(OWN)
        except JournalError as error:
            return str(error)
        return "nothing"

    def child(answers: Connection) -> None:
        answers.send(asyncio.run(asked()))

    context = multiprocessing.get_context("fork")
    answers, theirs = context.Pipe(duplex=False)
    with journal._lookups._together._lock:
        process = context.Process(target=child, args=(theirs,))
        process.start()
    theirs.close()
    answered = answers.poll(10)
    if not answered:
        process.kill()
    process.join()
    assert answered
    assert "the journal belongs to process" in answers.recv()
    asyncio.run(journal.aclose())
