"""A caller's own key buys once, whichever processes of a folder are asked for it; and what two histories become."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import logging
import sqlite3
import tempfile
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import ANY

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from journal_bench import PROMPT, crashed, hub, intent, job, journaling, soon, until

from mirage_async import ImageRequest, Limits, _disk
from mirage_async._disk import only_one
from mirage_async.exceptions import (
    InputError,
    JournalError,
    MirageError,
    SubmissionUncertainError,
    WaitTimeoutError,
)
from mirage_async.journal import EntryState, Journal, journal_entries
from mirage_async.journal._writer import Write, Writer
from mirage_async.sandbox import Fault, Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mirage_async.jobs import Job

pytestmark = pytest.mark.anyio

OWN = "0123456789abcdef0123456789abcdef"
every_kind = pytest.mark.parametrize(
    ("provider", "operation"), [("miragic", "miragic.create"), ("mira", "mira.generate")]
)


def request(provider: str) -> ImageRequest:
    """Return a request with the caller's own key."""
    return ImageRequest(prompt=PROMPT, provider=provider, key=OWN)


@every_kind
async def test_a_refusal_here_does_not_hide_what_another_process_bought(
    provider: str, operation: str, tmp_path: Path
) -> None:
    """The key was free once; since then it has been bought under."""
    async with (
        Sandbox(durations=0.1) as sandbox,
        hub(sandbox, tmp_path) as one,
        hub(sandbox, tmp_path) as other,
    ):
        sandbox.fail(operation, Fault(status=402))
        with pytest.raises(MirageError):
            await soon((await one.submit(request(provider))).result())
        bought = await other.submit(request(provider))
        await soon(bought.result())
        again = await one.submit(request(provider))
        assert (await soon(again.result())).images
        assert again.id == bought.id
        assert sandbox.statistics().purchases == {provider: 1}


async def test_whoever_waited_for_a_place_meanwhile_does_not_buy(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """He is told so, nobody else is, nothing is sent, and asking again returns what the other has bought."""
    async with (
        Sandbox(durations=0.5) as sandbox,
        hub(sandbox, tmp_path, limits=Limits(jobs=1)) as one,
        hub(sandbox, tmp_path) as other,
    ):
        first = await one.miragic.submit(PROMPT)
        waiting = asyncio.ensure_future(one.submit(request("miragic")))
        await until(lambda: any(each.buying == "place" for each in one.miragic.jobs))
        bought = await other.submit(request("miragic"))
        with pytest.raises(
            InputError, match=f"another process has bought, or is buying, under the key {OWN}"
        ) as caught:
            await soon(waiting)
        assert caught.value.billed == "no"
        assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
        assert (await one.submit(request("miragic"))).id == bought.id
        assert sandbox.statistics().purchases == {"miragic": 2}
        await soon(asyncio.gather(first.result(), bought.result()))
    assert {entry.state for entry in journal_entries(tmp_path)} == {EntryState.SUCCEEDED}


async def test_what_was_taken_over_meanwhile_is_not_bought_again(tmp_path: Path) -> None:
    """Nor is the row of the one who bought written over."""
    async with journaling(tmp_path) as one:
        async with journaling(tmp_path) as other:
            owner = job(other, key=OWN)
            await other.intended(owner, intent(own_key=True))
            owner.id = "task-1"
            await other.accepted(owner)
        await one.owed()
        mine = job(one, key=OWN)
        with pytest.raises(InputError) as caught:
            await one.intended(mine, intent(own_key=True))
        await one.settled(mine, caught.value)
        (entry,) = journal_entries(tmp_path)
        assert (entry.state, entry.id, entry.attempts) == (EntryState.ACCEPTED, "task-1", 1)


async def test_a_purchase_that_is_sent_again_keeps_its_key(tmp_path: Path) -> None:
    """After a proven refusal, and after an attempt whose end nobody knows."""
    async with journaling(tmp_path) as journal:
        owner = job(journal, key=OWN)
        await journal.intended(owner, intent(own_key=True))
        await journal.intended(owner, intent(own_key=True))
        await journal.settled(owner, SubmissionUncertainError("who knows"))
        (entry,) = journal_entries(tmp_path)
        assert (entry.attempts, entry.doubtful) == (2, 1)


async def test_of_many_processes_at_the_same_moment_one_buys(tmp_path: Path) -> None:
    """The others are refused, and nothing is on record of them."""
    journals = [Journal(tmp_path) for _ in range(6)]
    owners = [job(each, key=OWN) for each in journals]
    ends = await asyncio.gather(
        *(each.intended(owner, intent(own_key=True)) for each, owner in zip(journals, owners, strict=True)),
        return_exceptions=True,
    )
    for each, owner, end in zip(journals, owners, ends, strict=True):
        if end is not None:
            assert isinstance(end, InputError)
            await each.settled(owner, end)
    assert ends.count(None) == 1
    assert [entry.state for entry in journal_entries(tmp_path)] == [EntryState.INTENDED]
    for each in journals:
        await each.aclose()


async def asked_together(journal: Journal, keys: Sequence[str]) -> list[BaseException | None]:
    """Ask for keys while another process holds the folder, and return how each ended."""
    with only_one(journal.directory / "keys.lock"):
        asking: list[asyncio.Future[None]] = [
            asyncio.ensure_future(journal.intended(job(journal, key=key), intent(own_key=True))) for key in keys
        ]
        await asyncio.sleep(0)
    return await asyncio.gather(*asking, return_exceptions=True)


async def test_those_who_ask_together_share_a_flush(tmp_path: Path) -> None:
    """Not each of them waits for a disk and a lock of its own."""
    async with journaling(tmp_path) as journal:
        assert await asked_together(journal, [f"{number:032x}" for number in range(50)]) == [None] * 50
        counts = journal.statistics()
        assert counts.rows == 50
        assert counts.commits <= 2
    assert len(journal_entries(tmp_path)) == 50


async def test_of_those_who_ask_together_none_spoils_it_for_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One key is asked for twice, one has an entry that cannot be read, one cannot be written."""
    commit, full, broken = Writer.commit_now, "f" * 32, "b" * 32

    def refusing(writer: Writer, writes: Sequence[Write]) -> None:
        if any(write.about.key == full for write in writes):  # type: ignore[attr-defined]
            raise sqlite3.OperationalError("database or disk is full")
        commit(writer, writes)

    async with journaling(tmp_path) as journal:
        await journal.intended(job(journal, key=broken), intent(own_key=True))
        await journal._writer.do(lambda connection: connection.execute("UPDATE jobs SET state = 'nonsense'") and None)
        monkeypatch.setattr(Writer, "commit_now", refusing)
        ends = await asked_together(journal, [OWN, full, OWN, broken, "a" * 32])
        assert [type(end) for end in ends] == [type(None), JournalError, InputError, JournalError, type(None)]
        assert "disk is full" in str(ends[1])
        assert "is damaged" in str(ends[3])
        await journal._writer.do(
            lambda connection: connection.execute("DELETE FROM jobs WHERE key = ?", (broken,)) and None
        )
    assert {entry.key for entry in journal_entries(tmp_path)} == {OWN, "a" * 32}


@pytest.mark.parametrize("end", ["together", "intended", "uncertain", "accepted", "found", "failed", "unpaid"])
async def test_of_keys_of_which_one_may_buy_the_next_one_does_after_a_bad_end(end: str, tmp_path: Path) -> None:
    """Whichever process has bought under the first; other keys have nothing to do with it."""
    first, second = OWN, "a" * 32
    async with journaling(tmp_path) as journal, journaling(tmp_path) as other:
        await journal.note("claim", "both", one_of=(first, second))
        if end == "together":
            asked = await asked_together(journal, [first, second, "b" * 32])
            assert [type(each) for each in asked] == [type(None), InputError, type(None)]
            return
        await lived(other, (end, 0, "task-1"))
        (refused,) = await asked_together(journal, [second])
        assert (refused is None) == (end in {"failed", "unpaid"})
        assert await asked_together(journal, ["b" * 32]) == [None]


async def test_who_leaves_while_several_ask_takes_nobody_along(tmp_path: Path) -> None:
    """The others get their keys; what was written for the one who left is withdrawn by whoever cancelled it."""
    async with journaling(tmp_path) as journal:
        with only_one(tmp_path / "keys.lock"):
            asking = [
                asyncio.ensure_future(journal.intended(job(journal, key=key), intent(own_key=True)))
                for key in (OWN, "a" * 32)
            ]
            await asyncio.sleep(0)
            asking[0].cancel()
            await asyncio.sleep(0)
        assert await asyncio.gather(*asking, return_exceptions=True) == [ANY, None]
        assert asking[0].cancelled()
    assert len(journal_entries(tmp_path)) == 2


@pytest.mark.parametrize("leaves", [True, False], ids=["leaves", "fails"])
@pytest.mark.parametrize("end", ["intended", "accepted"])
async def test_who_did_not_get_a_key_says_nothing_of_what_was_bought_under_it(
    end: str, leaves: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is gone has bought, and ours has taken that over while a job waited for its place."""
    if not leaves:
        monkeypatch.setattr(_disk, "LONGEST_TURN", 0.01)
    async with journaling(tmp_path) as journal:
        async with journaling(tmp_path) as other:
            await lived(other, (end, 0, "task-1"))
        await journal.owed()
        mine, late = job(journal, key=OWN), WaitTimeoutError("too late", billed="no")
        with only_one(tmp_path / "keys.lock"):
            asking = asyncio.ensure_future(journal.intended(mine, intent(own_key=True)))
            await asyncio.sleep(0)
            if leaves:
                asking.cancel()
            await asyncio.wait([asking])
            noted = asyncio.gather(journal.withdrawn(mine), journal.settled(mine, late))
            await asyncio.sleep(0)
        await noted
        assert asking.cancelled() == leaves
        assert leaves or isinstance(asking.exception(), JournalError)
        entry = await journal.entry(OWN)
        assert entry is not None
        assert (entry.state, entry.outcome) == (end, None)


async def test_what_was_written_for_who_left_is_withdrawn(tmp_path: Path) -> None:
    """The key is free again, for whoever asks next."""
    async with journaling(tmp_path) as journal:
        owner = job(journal, key=OWN)
        with only_one(tmp_path / "keys.lock"):
            asking = asyncio.ensure_future(journal.intended(owner, intent(own_key=True)))
            await asyncio.sleep(0)
            asking.cancel()
            await asyncio.wait([asking])
            noted = asyncio.ensure_future(journal.withdrawn(owner))
        await noted
        (entry,) = journal_entries(tmp_path)
        assert (entry.state, entry.attempts) == (EntryState.UNPAID, 1)


@pytest.mark.parametrize("end", ["refused", "left"])
async def test_a_job_that_did_not_get_its_key_is_not_kept(end: str, tmp_path: Path) -> None:
    """Nor is its request, with the pictures in it."""
    async with journaling(tmp_path) as journal, journaling(tmp_path) as other:
        if end == "refused":
            await lived(other, ("accepted", 0, "task-1"))

        async def asked() -> weakref.ref[Job[Any]]:
            mine = job(journal, key=OWN)
            with only_one(tmp_path / "keys.lock"):
                asking = asyncio.ensure_future(journal.intended(mine, intent(own_key=True)))
                await asyncio.sleep(0)
                if end == "left":
                    asking.cancel()
                    await asyncio.wait([asking])
            with contextlib.suppress(InputError, JournalError, asyncio.CancelledError):
                await asking
            await journal.withdrawn(mine)
            await journal.settled(mine, InputError("no"))
            return weakref.ref(mine)

        left = await asked()
        await journal.noted("anything")
        gc.collect()
        assert left() is None


async def test_a_key_that_nobody_can_claim_in_time_buys_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where another process was stopped in the middle of it."""
    monkeypatch.setattr(_disk, "LONGEST_TURN", 0.01)
    async with journaling(tmp_path) as journal:
        with only_one(tmp_path / "keys.lock"):  # noqa: SIM117 - the order matters
            with pytest.raises(JournalError, match=r"another process holds keys\.lock .* nothing was sent"):
                await journal.intended(job(journal, key=OWN), intent(own_key=True))
        await journal.intended(job(journal), intent())  # and a key of ours waits for nobody
        await journal.intended(job(journal, key=OWN), intent(own_key=True))


async def test_what_this_process_is_sending_cannot_be_settled_by_hand(tmp_path: Path) -> None:
    """It would be bought a second time under its key."""
    async with journaling(tmp_path) as journal:
        owner = job(journal, key=OWN)
        await journal.intended(owner, intent(own_key=True))
        with pytest.raises(InputError, match="is being made at this moment by this very process"):
            await journal.resolve(OWN, unpaid=True)
        await journal.settled(owner, SubmissionUncertainError("who knows"))
        assert (await journal.resolve(OWN, unpaid=True)).state is EntryState.UNPAID


# -- two histories of one key ----------------------------------------------------------------------------------------

ENDS = {
    "unpaid": MirageError("no"),
    "failed": MirageError("no", billed="yes"),
    "uncertain": SubmissionUncertainError("who knows"),
}
ends = st.sampled_from(["intended", "unpaid", "uncertain", "accepted", "failed", "found"])
histories = st.tuples(ends, st.integers(0, 4), st.sampled_from(["task-1", "task-2"]))


async def lived(journal: Journal, history: tuple[str, int, str]) -> Job[Any]:
    """Write what became of a purchase after so many refused attempts."""
    end, refusals, number = history
    owner = job(journal, key=OWN)
    for _ in range(refusals):
        await journal.intended(owner, intent())
        await journal.withdrawn(owner)
    await journal.intended(owner, intent())
    if end in {"accepted", "failed", "found"}:
        owner.id = number
        await journal.accepted(owner)
    if end == "found":
        await journal.settled(owner, object())
    elif end in ENDS:
        await journal.settled(owner, ENDS[end])
    return owner


def summary(folder: Path) -> list[tuple[str, EntryState, str | None]]:
    """Return what a folder says."""
    return sorted((entry.key, entry.state, entry.id) for entry in journal_entries(folder))


@given(histories, histories)
@settings(max_examples=30, deadline=None)
def test_no_history_hides_what_another_one_paid_for(one: tuple[str, int, str], other: tuple[str, int, str]) -> None:
    """In whatever order they are read, taken over, and taken over once more after a crash in between."""

    async def live(root: Path) -> None:
        first, second = Journal(root / "j", durability="process"), Journal(root / "j", durability="process")
        await lived(first, one)
        await lived(second, other)
        read = summary(root / "j")
        left = crashed(root / "j", root / "left")
        for each in (first, second):
            await each.aclose()
        paid = {number for end, _, number in (one, other) if end in {"accepted", "failed", "found"}}
        assert {number for *_, number in read if number} == paid
        doubtful = sum(end in {"intended", "uncertain"} for end, *_ in (one, other))
        assert sum(state in {"intended", "uncertain"} for _, state, _ in read) == doubtful
        (best,) = [state for key, state, _ in read if key == OWN]
        for folder in (root / "j", left):
            for _ in range(2):
                before = crashed(folder, root / f"again-{next(numbers)}")
                async with journaling(folder, durability="process") as heir:
                    await heir.owed()
                    if doubtful or paid:
                        found = await heir.entry(OWN)
                        assert found is not None
                        assert found.state is best
                assert summary(folder) == read
                for number, path in enumerate(sorted(before.glob("*.sqlite"))):  # a crash before they were removed
                    path.rename(folder / f"jobs-f{number}.sqlite")
                    if (log := path.with_name(f"{path.name}-wal")).exists():
                        log.rename(folder / f"jobs-f{number}.sqlite-wal")
                assert summary(folder) == read

    numbers = itertools.count()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(live(Path(folder)))


async def test_a_second_purchase_of_a_key_is_named_and_stays_owed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As from two machines that shared a folder after all."""
    async with journaling(tmp_path) as one, journaling(tmp_path) as other:
        await lived(one, ("accepted", 0, "task-1"))
        await lived(other, ("accepted", 3, "task-2"))
    async with journaling(tmp_path) as heir:
        assert {entry.id for entry in await heir.owed()} == {"task-1", "task-2"}
        (line,) = critical(caplog.records)
        assert f"two processes bought under the key {OWN}" in line
        assert "state accepted, id task-1" in line


def critical(records: Iterable[logging.LogRecord]) -> list[str]:
    """Return the lines that somebody has to act on."""
    return [record.getMessage() for record in records if record.levelno == logging.CRITICAL]
