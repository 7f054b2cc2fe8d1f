"""Clocks that are stepped, notes, and what is removed in the course of time."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import pytest
from journal_bench import (
    PROMPT,
    WRITING,
    crashed,
    generation,
    hub,
    intent,
    job,
    journaling,
    picture,
    program,
    soon,
    until,
)

from mirage_async import ImageRequest
from mirage_async.exceptions import InputError, SubmissionUncertainError
from mirage_async.journal import EntryState, Journal, _journal, journal_entries
from mirage_async.sandbox import Sandbox

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio

posix = pytest.mark.skipif(os.name != "posix", reason="this system has other rights and signals")


class WallClock:
    """A wall clock that somebody steps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_750_000_000.0
        monkeypatch.setattr(time, "time", lambda: self.now)


@pytest.mark.parametrize("step", [-3600.0, 3600.0])
async def test_a_stepped_clock_loses_and_confuses_nothing(
    tmp_path: Path, step: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between intent, id, outcome, recovery and pruning; versions are told apart by counting, not by time."""
    clock = WallClock(monkeypatch)
    async with journaling(tmp_path / "journal", retention=600) as journal:
        owner, owed = job(journal), job(journal)
        for each in (owner, owed):
            await journal.intended(each, intent())
            clock.now += step
            each.id = f"task-{each.key[:4]}"
            await journal.accepted(each)
            clock.now -= step
        clock.now += step
        await journal.settled(owner, generation(owner))
        copy = crashed(tmp_path / "journal", tmp_path / "copy")
    clock.now += step
    async with journaling(copy, retention=600) as heir:
        found = {entry.key: entry.state for entry in await heir.owed()}
        assert found == {owner.key: EntryState.SUCCEEDED, owed.key: EntryState.ACCEPTED}
        await heir.take(found)
        heir.handed_over(owner)
        clock.now -= 2 * step
        assert await heir.owed() == []
        assert await soon(heir.entry(owed.key)) is not None
        clock.now += abs(step) * 3 + 601
        await heir.owed()
        assert await heir.entry(owner.key) is None


async def test_only_what_is_over_is_ever_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its files; what is owed, or nobody knows the end of, stays for ever."""
    clock = WallClock(monkeypatch)
    async with journaling(tmp_path, retention=100, store_prompts=True) as journal:
        owners = {
            name: job(journal) for name in ("intended", "unpaid", "accepted", "owed", "over", "abandoned", "uncertain")
        }
        for owner in owners.values():
            await journal.intended(owner, intent(blocking=True))
        await journal.withdrawn(owners["unpaid"])
        owners["accepted"].id = "task-1"
        await journal.accepted(owners["accepted"])
        for name in ("owed", "over"):
            await journal.settled(owners[name], generation(owners[name], picture(), picture("red")))
        journal.handed_over(owners["over"])
        await journal.settled(owners["abandoned"], SubmissionUncertainError("who knows"))
        await journal.resolve(owners["abandoned"].key)
        await journal.settled(owners["uncertain"], OSError())
        await journal._writer.do(
            lambda connection: connection.execute(
                "UPDATE jobs SET state='uncertain', handed_over=1 WHERE key=?", (owners["uncertain"].key,)
            )
        )
        part = tmp_path / "pictures" / f".{owners['over'].key}-3.png.part"
        part.write_bytes(b"half")
        clock.now += 99
        await journal.owed()
        assert len(list((tmp_path / "pictures").iterdir())) == 5
        clock.now += 2
        await journal.owed()
        left = {name for name, owner in owners.items() if await journal.entry(owner.key) is not None}
        assert left == {"intended", "accepted", "owed", "uncertain"}
        keys = {owners[name].key for name in left}
        assert {path.name.partition(".")[0] for path in (tmp_path / "requests").iterdir()} == keys
        pictures = [path.name for path in (tmp_path / "pictures").iterdir()]
        assert sorted(pictures) == [f"{owners['owed'].key}-1.png", f"{owners['owed'].key}-2.png"]
        assert await journal.request(owners["over"].key) is None


async def test_what_is_over_is_removed_in_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much a journal holds, nobody waits for all of it to be looked through; each row has its turn."""
    monkeypatch.setattr(_journal, "_PRUNED_AT_A_TIME", 4)
    clock = WallClock(monkeypatch)
    async with journaling(tmp_path, retention=100) as journal:

        async def bought(count: int) -> None:
            for _ in range(count):
                owner = job(journal)
                await journal.intended(owner, intent())
                await journal.withdrawn(owner)

        async def left_after_a_turn() -> int:
            await journal._writer.do(journal._prune)
            return len(journal_entries(tmp_path))

        await bought(6)
        assert [await left_after_a_turn() for _ in range(3)] == [6, 6, 6]
        clock.now += 101
        await bought(3)
        assert [await left_after_a_turn() for _ in range(4)] == [7, 7, 3, 3]


@pytest.mark.parametrize("provider", ["miragic", "mira"])
async def test_a_callers_key_never_buys_again(provider: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its result goes after a while; then the provider is asked for it, or where nobody can be the key is refused."""
    request = ImageRequest(prompt=PROMPT, provider=provider, key="0123456789abcdef" * 2)
    async with Sandbox(durations=0.05) as sandbox:
        async with hub(sandbox, tmp_path) as mirage:
            await soon((await mirage.submit(request)).result())
        clock = WallClock(monkeypatch)
        clock.now = 4e9
        async with hub(sandbox, tmp_path) as mirage:
            for _ in range(2):
                assert await mirage.recover() == []
            assert list((tmp_path / "pictures").iterdir()) == []
            (entry,) = journal_entries(tmp_path)
            assert (entry.state, entry.outcome) == (EntryState.SUCCEEDED, None)
            if provider == "mira":
                with pytest.raises(InputError, match=r"was bought under the key .* no longer kept"):
                    await mirage.submit(request)
            else:
                assert (await soon((await mirage.submit(request)).result())).images
                await until(lambda: journal_entries(tmp_path)[0].outcome is not None)
                clock.now += 1e9
                assert await mirage.recover() == []
                assert journal_entries(tmp_path)[0].outcome is None
        assert sandbox.statistics().purchases == {provider: 1}


async def test_notes_are_kept_and_the_later_one_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when files are merged, in whatever order."""
    clock = WallClock(monkeypatch)
    async with journaling(tmp_path) as one, journaling(tmp_path) as other:
        assert await one.noted("learned") is None
        await one.note("learned", "old")
        await one.note("mine", "mine")
        clock.now += 1
        await other.note("learned", "new")
    async with journaling(tmp_path) as heir:
        await heir.owed()
        assert (await heir.noted("learned"), await heir.noted("mine")) == ("new", "mine")


def test_a_folder_can_be_listed_and_read_by_people(tmp_path: Path) -> None:
    """`file` shows what it is, by the number that SQLite keeps for that."""
    writer = Journal(tmp_path)._writer
    writer.close()
    writer.join()
    (file,) = tmp_path.glob("jobs-*.sqlite")
    assert file.read_bytes()[68:72] == b"Mirg"


@posix
def test_a_program_that_is_interrupted_leaves_a_journal_that_can_be_read(tmp_path: Path) -> None:
    """Whatever Python does in its last moments."""
    process = program(WRITING, tmp_path, 3)
    assert process.stdout is not None
    for _ in range(4):
        process.stdout.readline()
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert len(journal_entries(tmp_path)) == 3
