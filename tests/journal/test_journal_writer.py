"""The one thread that writes: in which groups, in which order, and what becomes of a row that the disk refuses."""

from __future__ import annotations

import asyncio
import gc
import logging
import multiprocessing
import os
import sqlite3
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from journal_bench import KEY, crashed, filled, generation, intent, job, journaling, picture, soon, until

from mirage_async import Mirage
from mirage_async.exceptions import ConfigurationError, InputError, JobCancelledError, JournalError, MirageError
from mirage_async.journal import EntryState, Journal, journal_entries
from mirage_async.journal import _journal as journal_module
from mirage_async.journal import _writer as writer_module
from mirage_async.journal._writer import Writer
from mirage_async.models import GeneratedImage, Generation

if TYPE_CHECKING:
    from pathlib import Path

    from mirage_async.jobs import Job

pytestmark = pytest.mark.anyio


class Gate:
    """Holds the writer's thread back, so that rows queue up."""

    def __init__(self, journal: Journal) -> None:
        self._free = threading.Event()
        journal._writer.soon(lambda _: self._free.wait(10))

    def open(self) -> None:
        """Let it go on."""
        self._free.set()


class Trouble:
    """A disk that refuses every commit as long as it is told to."""

    def __init__(self, journal: Journal, monkeypatch: pytest.MonkeyPatch, error: Exception | None = None) -> None:
        self.on = True
        journal._writer._retry = 0.01
        write = Writer._write
        raised = error or sqlite3.OperationalError("database or disk is full")

        def refuse(writer: Writer, writes: Any) -> None:
            if self.on:
                raise raised
            write(writer, writes)

        monkeypatch.setattr(Writer, "_write", refuse)
        monkeypatch.setattr(writer_module, "FIRST_RETRY", 0.01)


async def _intended(journal: Journal, owner: Job[Any]) -> None:
    await journal.intended(owner, intent())


# -- groups and order ------------------------------------------------------------------------------------------------


async def test_many_waiters_share_a_commit(tmp_path: Path) -> None:
    """What queues up while one group is being written is the next group."""
    async with journaling(tmp_path) as journal:
        gate = Gate(journal)
        jobs = [job(journal) for _ in range(500)]
        waiting = [asyncio.ensure_future(journal.intended(each, intent())) for each in jobs]
        await asyncio.sleep(0)
        gate.open()
        await soon(asyncio.gather(*waiting))
        statistics = journal.statistics()
        assert (statistics.rows, statistics.commits, statistics.failures) == (500, 1, 0)
    assert len(journal_entries(tmp_path)) == 500


async def test_many_moves_of_each_kind_fit_into_a_group(tmp_path: Path) -> None:
    """More of them than a statement takes."""
    async with journaling(tmp_path) as journal:
        jobs = [job(journal) for _ in range(700)]
        await soon(asyncio.gather(*(journal.intended(each, intent()) for each in jobs)))
        for number, each in enumerate(jobs):
            each.id = f"task-{number}"
        await soon(asyncio.gather(*(journal.accepted(each) for each in jobs)))
        await soon(asyncio.gather(*(journal.settled(each, generation(each)) for each in jobs)))
        for each in jobs:
            journal.handed_over(each)
    entries = {entry.key: entry for entry in journal_entries(tmp_path)}
    assert len(entries) == len(jobs)
    for each in jobs:
        entry = entries[each.key]
        assert (entry.id, entry.state, entry.handed_over) == (each.id, EntryState.SUCCEEDED, True)


async def test_what_is_written_is_held_no_longer(tmp_path: Path) -> None:
    """A thread that has nothing to do keeps no job until there is more, nor the pictures of one."""
    async with journaling(tmp_path) as journal:
        owner = job(journal)
        await soon(journal.intended(owner, intent()))
        gone = weakref.ref(owner)
        del owner
        await until(lambda: gone() is None)


async def test_an_intent_goes_before_what_withdraws_it(tmp_path: Path) -> None:
    """Whatever else the group begins with."""
    async with journaling(tmp_path) as journal:
        first, second = job(journal), job(journal)
        await soon(journal.intended(first, intent()))
        withdrawn = asyncio.ensure_future(journal.withdrawn(first))
        await asyncio.sleep(0)
        begun = journal.intended(second, intent())
        await soon(asyncio.gather(withdrawn, begun, journal.withdrawn(second)))
        assert journal.statistics().commits == 2
        assert {entry.state for entry in journal_entries(tmp_path)} == {EntryState.UNPAID}


async def test_of_two_handles_that_tell_the_same_the_last_counts(tmp_path: Path) -> None:
    """Both may be made of one token, and end in one group."""
    async with journaling(tmp_path) as journal:
        owner = job(journal, id="task-1")
        await soon(journal.intended(owner, intent()))
        ends = [generation(owner, *[picture()] * number) for number in (1, 2)]
        await soon(asyncio.gather(*(journal.settled(owner, end) for end in ends)))
        entry = await soon(journal.entry(owner.key))
    assert entry is not None
    assert entry.outcome is not None
    assert len(entry.outcome.images) == 2


async def test_a_job_without_a_purchase_on_record_leaves_no_row(tmp_path: Path) -> None:
    """It was attached by a token of another journal's."""
    async with journaling(tmp_path) as journal:
        attached = job(journal, id="task-1")
        await soon(asyncio.gather(journal.accepted(attached), journal.settled(attached, generation(attached))))
        journal.handed_over(attached)
    assert journal_entries(tmp_path) == []


async def test_rows_that_keep_coming_are_handed_over_all_the_same(tmp_path: Path) -> None:
    """After so many turns of the event loop, however steadily they come."""
    async with journaling(tmp_path) as journal:
        first = asyncio.ensure_future(journal.intended(job(journal), intent()))
        others = []
        for _ in range(writer_module._TURNS + 2):
            others.append(asyncio.ensure_future(journal.intended(job(journal), intent())))
            await asyncio.sleep(0)
        assert journal._writer._thread is not None  # which is begun for the first group
        await soon(asyncio.gather(first, *others))


async def test_rows_are_handed_over_where_the_event_loop_is_slow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its turns are not waited for once they have taken their time."""
    monkeypatch.setattr(writer_module, "_GATHERING", 0.0)
    async with journaling(tmp_path) as journal:
        waiting = asyncio.ensure_future(journal.intended(job(journal), intent()))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert journal._writer._thread is not None
        await soon(waiting)


async def test_a_lone_write_waits_for_no_timer(tmp_path: Path) -> None:
    """Each of ten that follow each other is a group of its own, and the queue is asked without any timeout."""
    async with journaling(tmp_path) as journal:
        asked: list[float | None] = []
        inner = journal._writer._queue

        class Noting:
            def get(self, timeout: float | None = None) -> Any:
                asked.append(timeout)
                return inner.get(timeout=timeout)

            def __getattr__(self, name: str) -> Any:
                return getattr(inner, name)

        journal._writer._queue = Noting()  # type: ignore[assignment]
        for _ in range(10):
            await soon(journal.intended(job(journal), intent()))
        assert journal.statistics().commits == 10
        assert set(asked) == {None}


async def test_a_group_has_a_largest_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that nobody's wait grows without end while others go on queueing."""
    monkeypatch.setattr(writer_module, "_MOST_IN_GROUP", 10)
    async with journaling(tmp_path) as journal:
        gate = Gate(journal)
        waiting = []
        for _ in range(30):
            waiting.append(asyncio.ensure_future(journal.intended(job(journal), intent())))
            for _ in range(writer_module._QUIET_TURNS + 1):  # so that each is handed over by itself
                await asyncio.sleep(0)
        gate.open()
        await soon(asyncio.gather(*waiting))
        assert 3 <= journal.statistics().commits <= 4  # the thread may have begun before the last rows had come


async def test_a_jobs_rows_keep_their_order_within_a_group(tmp_path: Path) -> None:
    """The next move is made only after the last one is durable, but for a hand-over, which any group may hold."""
    async with journaling(tmp_path) as journal:
        owner = job(journal)
        await journal.intended(owner, intent())
        owner.id = "task-1"
        await journal.accepted(owner)
        gate = Gate(journal)
        settled = asyncio.ensure_future(journal.settled(owner, generation(owner)))
        await asyncio.sleep(0)
        journal.handed_over(owner)
        gate.open()
        await soon(settled)
        entry = await soon(journal.entry(owner.key))
        assert (entry.state, entry.handed_over, entry.id) == (EntryState.SUCCEEDED, True, "task-1")


async def test_an_outcome_can_be_asked_for_again_only_after_what_was_queued_before(tmp_path: Path) -> None:
    """A question waits its turn behind the rows, even in the middle of a batch of both."""
    async with journaling(tmp_path) as journal:
        gate = Gate(journal)
        owner, other = job(journal), job(journal)
        first = asyncio.ensure_future(journal.intended(owner, intent()))
        await asyncio.sleep(0)
        asked = asyncio.ensure_future(journal.entry(owner.key))
        await asyncio.sleep(0)
        second = asyncio.ensure_future(journal.intended(other, intent()))
        await asyncio.sleep(0)
        gate.open()
        await soon(asyncio.gather(first, asked, second))
        assert asked.result() is not None
        assert journal.statistics().commits == 2


# -- a disk that refuses ---------------------------------------------------------------------------------------------


async def test_an_intent_that_cannot_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And is not written later, when the disk is well again: nothing was sent for it."""
    async with journaling(tmp_path) as journal:
        trouble = Trouble(journal, monkeypatch)
        with pytest.raises(JournalError, match=r"cannot be written \(database or disk is full\), so nothing was sent"):
            await soon(journal.intended(job(journal), intent()))
        trouble.on = False
        await soon(journal.intended(job(journal), intent()))
        assert journal.statistics().failures == 1
        assert journal.statistics().unwritten == 0
    assert len(journal_entries(tmp_path)) == 1


async def test_a_fact_is_said_once_kept_and_written_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With everything that is needed to find it by hand; meanwhile nothing more is bought."""
    async with journaling(tmp_path) as journal:
        owner = job(journal)
        await soon(journal.intended(owner, intent()))
        trouble = Trouble(journal, monkeypatch)
        owner.id = "task-1"
        await soon(journal.accepted(owner))
        await soon(journal.settled(owner, generation(owner)))
        journal.handed_over(owner)
        critical = [record for record in caplog.records if record.levelno == logging.CRITICAL]
        assert len(critical) == 1
        said = critical[0].getMessage()
        assert all(text in said for text in ("provider mirako", "kind image", f"key {owner.key}", "id task-1"))
        assert KEY not in said
        with pytest.raises(JournalError, match="cannot be written at present, so nothing more is bought"):
            await journal.intended(job(journal), intent())
        trouble.on = False
        await until(lambda: not journal.statistics().unwritten)
        entry = await soon(journal.entry(owner.key))
        assert (entry.state, entry.id, entry.handed_over) == (EntryState.SUCCEEDED, "task-1", True)
        await soon(journal.intended(job(journal), intent()))
        assert "writes again" in caplog.text


async def test_a_refused_disk_is_tried_less_and_less_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Doubling, up to half a minute."""
    async with journaling(tmp_path) as journal:
        await soon(journal.intended(owner := job(journal), intent()))
        trouble = Trouble(journal, monkeypatch)
        owner.id = "task-1"
        await soon(journal.accepted(owner))
        await until(lambda: journal._writer._retry >= 0.1)
        monkeypatch.setattr(writer_module, "LONGEST_RETRY", 0.2)
        await until(lambda: journal._writer._retry == 0.2)
        trouble.on = False
        await until(lambda: not journal.statistics().unwritten)
        assert journal._writer._retry == 0.01


async def test_a_damaged_database_is_trouble_with_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No row is to blame for it, so no fact is thrown away."""
    async with journaling(tmp_path) as journal:
        await soon(journal.intended(owner := job(journal), intent()))
        trouble = Trouble(journal, monkeypatch, sqlite3.DatabaseError("database disk image is malformed"))
        owner.id = "task-1"
        await soon(journal.accepted(owner))
        assert journal.statistics().unwritten == 1
        trouble.on = False
        await until(lambda: not journal.statistics().unwritten)


async def test_what_is_left_at_the_end_is_tried_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And named where that fails as well."""
    journal = Journal(tmp_path)
    await soon(journal.intended(owner := job(journal), intent()))
    trouble = Trouble(journal, monkeypatch)
    monkeypatch.setattr(writer_module, "FIRST_RETRY", 60.0)
    journal._writer._retry = 60.0
    owner.id = "task-1"
    await soon(journal.accepted(owner))
    trouble.on = False
    await soon(journal.aclose())
    assert journal_entries(tmp_path)[0].id == "task-1"

    journal = Journal(tmp_path)
    await soon(journal.intended(owner := job(journal), intent()))
    trouble.on = True
    owner.id = "task-2"
    await soon(journal.accepted(owner))
    await soon(journal.aclose())
    assert "closed with 1 facts that are not on disk" in caplog.text
    (line,) = [line for line in caplog.messages if line.startswith("not on disk")]
    assert f"mirako, {owner.key}, accepted, id task-2" in line


async def test_reading_does_not_keep_facts_from_being_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often somebody asks: they are due at a moment, and not after a silence."""
    moment = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: moment[0])
    async with journaling(tmp_path) as journal:
        await soon(journal.intended(owner := job(journal), intent()))
        trouble = Trouble(journal, monkeypatch)
        owner.id = "task-1"
        journal._writer._retry = 5.0
        await soon(journal.accepted(owner))
        trouble.on = False
        for _ in range(3):
            await soon(journal.entry(owner.key))
            assert journal.statistics().unwritten == 1
        moment[0] += 5.0
        await soon(journal.entry(owner.key))
        found = await soon(journal.entry(owner.key))  # after what came with the first
        assert found.id == "task-1"
        assert journal.statistics().unwritten == 0


async def test_what_cannot_be_written_is_named_with_its_links_and_once_more_after_the_disk_was_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without what makes such a link a key."""
    async with journaling(tmp_path) as journal:
        await soon(journal.intended(owner := job(journal, provider="mira"), intent(blocking=True)))
        trouble = Trouble(journal, monkeypatch)
        image = GeneratedImage(None, url="https://cdn.example/a.png?sig=secret")  # type: ignore[arg-type]
        outcome = Generation(images=(image,), provider="mira", model=None, job_id=None, key=owner.key)
        for _ in range(2):
            caplog.clear()
            trouble.on = True
            for _ in range(2):
                await soon(journal.settled(owner, outcome))
            (line,) = [record.getMessage() for record in caplog.records if record.levelno == logging.CRITICAL]
            assert line.endswith(f"key {owner.key}, id None, state succeeded, links https://cdn.example/a.png")
            trouble.on = False
            await until(lambda: not journal.statistics().unwritten)
    assert "secret" not in caplog.text


async def test_a_refusal_after_the_end_alarms_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is owed of it; it will only be doubtful."""
    async with journaling(tmp_path) as journal:
        await journal.intended(owner := job(journal), intent())
    await journal.withdrawn(owner)
    await journal.settled(owner, MirageError("no"))
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []


async def test_a_journal_belongs_to_one_hub(tmp_path: Path) -> None:
    """The other would close it under the feet of the first."""
    journal = Journal(tmp_path)
    async with Mirage({"mirako": "k"}, journal=journal):
        with pytest.raises(ConfigurationError, match="a journal belongs to one hub"):
            Mirage({"mirako": "k"}, journal=journal)


async def test_a_journal_that_nobody_has_any_more_keeps_no_file(tmp_path: Path) -> None:
    """As where the hub it was made for was refused."""
    (key,) = await filled(tmp_path)
    with pytest.raises(InputError):
        Mirage({"nobody": "k"}, journal=Journal(tmp_path))
    gc.collect()
    async with journaling(tmp_path) as heir:
        assert [entry.key for entry in await heir.owed()] == [key]
        assert len(list(tmp_path.glob("*.sqlite"))) == 1  # noqa: ASYNC240 - a test may look into its own folder


async def test_a_journal_that_is_at_work_is_not_ended_by_that(tmp_path: Path) -> None:
    """Nor one whose rows are on their way to the thread, nor in the middle of it, nor by a child."""
    journal = Journal(tmp_path)
    with journal._writer._lock:
        journal._writer.abandon()
    assert not journal._writer.closed
    write = asyncio.ensure_future(journal.intended(job(journal), intent()))
    await asyncio.sleep(0)
    journal._writer.abandon()
    await write
    journal._writer.abandon()
    assert not journal._writer.closed
    await journal.aclose()
    journal._writer._process += 1
    journal._writer.abandon()


async def test_a_row_that_can_never_be_written_keeps_no_other_from_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A lone half of a surrogate pair is no text to SQLite; its neighbours are written one by one."""
    async with journaling(tmp_path) as journal:
        gate = Gate(journal)
        good, bad, late = job(journal), job(journal, model="\ud800"), job(journal)
        waiting = [asyncio.ensure_future(journal.intended(each, intent())) for each in (good, bad, late)]
        await asyncio.sleep(0)
        gate.open()
        ended = await soon(asyncio.gather(*waiting, return_exceptions=True))
        assert [type(each) for each in ended] == [type(None), JournalError, type(None)]
        assert isinstance(ended[1], JournalError)
        assert isinstance(ended[1].__cause__, UnicodeEncodeError)
        assert "so nothing was sent" in str(ended[1])
        assert "a row of the journal can never be written" in caplog.text
        assert repr(bad.key) in caplog.text
        assert journal.statistics().unwritten == 0
    assert {entry.key for entry in journal_entries(tmp_path)} == {good.key, late.key}


async def test_a_row_that_cannot_be_made_is_told_without_what_came_with_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The result reaches its waiter all the same, and the log says whose it is."""
    async with journaling(tmp_path) as journal:
        owner = job(journal)
        await soon(journal.intended(owner, intent()))
        result = generation(owner, picture())
        result.images[0].text = "\ud800 secret words"
        await soon(journal.settled(owner, result))
        assert "that was not even made" in caplog.text
        assert f"key {owner.key}" in caplog.text
        assert "secret words" not in "".join(record.getMessage() for record in caplog.records)


# -- waiters, loops, threads and children ----------------------------------------------------------------------------


async def test_a_cancelled_waiter_leaves_its_row_in_place(tmp_path: Path) -> None:
    """What was queued is written; nobody is told."""
    async with journaling(tmp_path) as journal:
        gate = Gate(journal)
        waiting = asyncio.ensure_future(journal.intended(owner := job(journal), intent()))
        asked = asyncio.ensure_future(journal.entry(owner.key))
        failing = journal._writer.do(lambda connection: connection.execute("nonsense"))
        everybody: list[asyncio.Future[Any]] = [waiting, asked, failing]
        await asyncio.sleep(0)
        for each in everybody:
            each.cancel()
        await asyncio.wait(everybody)
        gate.open()
        assert (await soon(journal.entry(owner.key))).state is EntryState.INTENDED


def test_an_event_loop_that_ends_while_it_waits_harms_nobody(tmp_path: Path) -> None:
    """The row is written, and the journal serves the next loop."""
    journal = Journal(tmp_path)
    owner = job(journal)
    loop = asyncio.new_event_loop()
    gate = Gate(journal)
    waiting = loop.create_task(_intended(journal, owner))
    loop.run_until_complete(asyncio.sleep(0))
    waiting.cancel()
    loop.run_until_complete(asyncio.wait([waiting]))
    loop.close()
    gate.open()

    async def later() -> None:
        entry = await journal.entry(owner.key)
        assert entry is not None
        await journal.aclose()

    asyncio.run(later())
    assert len(journal_entries(tmp_path)) == 1


def test_what_a_loop_had_gathered_when_it_ended_goes_with_the_next(tmp_path: Path) -> None:
    """Nobody of the next loop waits for one that is gone."""
    journal = Journal(tmp_path)
    owner = job(journal)

    async def leave() -> None:
        journal.handed_over(owner)
        waiter = asyncio.ensure_future(journal.intended(owner, intent()))
        loop = asyncio.get_running_loop()
        loop.call_soon(loop.stop)
        await waiter

    loop = asyncio.new_event_loop()
    journal._writer._gathered_in = loop  # as if its turn had been cut short
    task = loop.create_task(leave())
    with pytest.raises(RuntimeError, match="stopped before"):
        loop.run_until_complete(task)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(task)
    loop.close()

    async def later() -> None:
        await soon(journal.intended(job(journal), intent()))
        await journal.aclose()

    asyncio.run(later())
    assert len(journal_entries(tmp_path)) == 2


async def test_closing_writes_what_is_queued_and_ends_the_use(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Closing twice is fine; everything else then says so."""
    caplog.set_level(logging.INFO)
    journal = Journal(tmp_path)
    gate = Gate(journal)
    waiting = [asyncio.ensure_future(journal.intended(job(journal), intent())) for _ in range(20)]
    await asyncio.sleep(0)
    closing = asyncio.ensure_future(journal.aclose())
    await asyncio.sleep(0)
    gate.open()
    await soon(asyncio.gather(*waiting, closing))
    await journal.aclose()
    assert len(journal_entries(tmp_path)) == 20
    late = job(journal)
    for use in (journal.entry("0" * 32), journal.owed(), _intended(journal, late)):
        with pytest.raises(JournalError, match="the journal is closed"):
            await use
    await journal.accepted(late)
    assert f"key {late.key}" in caplog.records[-1].getMessage()
    journal.handed_over(late)
    assert "the journal is closed" in caplog.records[-1].getMessage()


async def test_a_journal_that_was_never_used_is_closed_as_well(tmp_path: Path) -> None:
    """It has no thread to end, and lets go of its file."""
    journal = Journal(tmp_path)
    await journal.aclose()
    await journal.aclose()
    async with journaling(tmp_path) as again:
        assert again._seat.path == journal._seat.path


async def test_nobody_waits_for_ever_for_a_thread_that_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As when a log handler raises in it: waiters are turned away, and so are later ones."""
    journal = Journal(tmp_path)

    def broken(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Writer, "_commit", broken)
    gate = Gate(journal)
    waiting = [asyncio.ensure_future(journal.intended(job(journal), intent())) for _ in "ab"]
    waiting.append(asyncio.ensure_future(journal.note("a", "b")))
    await asyncio.sleep(0)
    gate.open()
    for ended in await soon(asyncio.gather(*waiting, return_exceptions=True)):
        assert isinstance(ended, JournalError)
    assert "the journal's thread has ended" in caplog.text
    with pytest.raises(JournalError, match="closed"):
        await journal.intended(job(journal), intent())
    await journal.aclose()


async def test_what_is_queued_when_the_thread_ends_is_turned_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not only what it was just dealing with."""
    monkeypatch.setattr(writer_module, "_MOST_IN_GROUP", 1)
    journal = Journal(tmp_path)
    gate = Gate(journal)
    monkeypatch.setattr(Writer, "_deal_with", lambda *_: 1 / 0)
    waiting: list[asyncio.Future[Any]] = []
    for _ in "abc":
        waiting += [
            asyncio.ensure_future(_intended(journal, job(journal))),  # raises at once where the thread is gone already
            asyncio.ensure_future(journal.owed()),
        ]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    gate.open()
    for ended in await soon(asyncio.gather(*waiting, return_exceptions=True)):
        assert isinstance(ended, JournalError)
    await journal.aclose()


async def test_what_is_handed_over_after_the_thread_has_ended_is_turned_away(tmp_path: Path) -> None:
    """It may end between the putting of a row and the end of that turn of the loop."""
    journal = Journal(tmp_path)
    waiting = asyncio.ensure_future(journal.intended(job(journal), intent()))
    asyncio.get_running_loop().call_soon(setattr, journal._writer, "_ended", True)  # noqa: FBT003 - setattr's own
    with pytest.raises(JournalError, match="the journal is closed"):
        await soon(waiting)
    journal._writer._ended = False
    await journal.aclose()


async def test_work_nobody_waits_for_is_logged_where_it_fails(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Tidying up costs nobody anything."""
    async with journaling(tmp_path) as journal:
        journal._writer.soon(lambda connection: connection.execute("nonsense"))
        await until(lambda: "could not be tidied" in caplog.text)


def _use_in_child(journal: Journal, answers: Any) -> None:
    said = []
    for use in (journal.entry("0" * 32), _intended(journal, job(journal))):
        try:
            asyncio.run(use)
        except JournalError as error:
            said.append(str(error))
    asyncio.run(journal.aclose())
    journal.__dict__.clear()
    gc.collect()
    answers.put((said, os.getpid()))


async def test_another_process_than_the_one_that_opened_it_is_refused(tmp_path: Path) -> None:
    """As a forked child is, whose number is another; there nothing is closed either."""
    journal = Journal(tmp_path)
    journal._writer._process = -1
    for use in (journal.entry("0" * 32), _intended(journal, job(journal))):
        with pytest.raises(JournalError, match="the journal belongs to process -1"):
            await use
    await journal.aclose()
    assert not journal._writer.closed
    journal._writer._process = os.getpid()
    await journal.aclose()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
async def test_a_forked_child_neither_writes_nor_closes(tmp_path: Path) -> None:
    """It is told to open a journal of its own, and its end harms nothing of its parent's."""
    context = multiprocessing.get_context("fork")
    journal = Journal(tmp_path)
    await soon(journal.intended(job(journal), intent()))
    answers = context.SimpleQueue()
    child = context.Process(target=_use_in_child, args=(journal, answers))
    child.start()
    said, pid = await asyncio.to_thread(answers.get)
    await asyncio.to_thread(child.join, 10)
    assert child.exitcode == 0
    assert said == [f"the journal belongs to process {os.getpid()}, not to its child {pid}: open another one"] * 2
    await soon(journal.intended(job(journal), intent()))
    await journal.aclose()
    assert len(journal_entries(tmp_path)) == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
async def test_a_forked_child_does_not_keep_its_parents_lock(tmp_path: Path) -> None:
    """A worker that outlives its parent must not keep others from adopting what the parent left."""
    context = multiprocessing.get_context("fork")
    journal = Journal(tmp_path)
    path = journal._seat.path
    end = context.Event()
    ready = context.Event()

    def outlive() -> None:
        ready.set()
        end.wait(30)

    child = context.Process(target=outlive)
    child.start()
    await asyncio.to_thread(ready.wait, 10)
    await journal.aclose()
    async with journaling(tmp_path) as heir:
        assert heir._seat.path == path
    end.set()
    await asyncio.to_thread(child.join, 10)


# -- what is written -------------------------------------------------------------------------------------------------


async def test_every_move_of_a_purchase_leaves_the_state_of_the_table(tmp_path: Path) -> None:
    """From the intent to the end, and what is said of attempts before the last."""
    async with journaling(tmp_path) as journal:

        async def state(of: Any) -> tuple[EntryState, int, int]:
            entry = await soon(journal.entry(of.key))
            return entry.state, entry.attempts, entry.doubtful

        owner = job(journal)
        await journal.intended(owner, intent())
        await journal.withdrawn(owner)
        assert await state(owner) == (EntryState.UNPAID, 1, 0)
        await journal.intended(owner, intent())
        assert await state(owner) == (EntryState.INTENDED, 2, 0)
        await journal.intended(owner, intent())
        await journal.withdrawn(owner)
        assert await state(owner) == (EntryState.UNCERTAIN, 3, 1)
        await journal.intended(owner, intent())
        assert await state(owner) == (EntryState.INTENDED, 4, 2)
        owner.id = "task-1"
        await journal.accepted(owner)
        assert await state(owner) == (EntryState.ACCEPTED, 4, 2)
        await journal.settled(owner, JobCancelledError("no", provider="mirako", job_id="task-1"))
        assert await state(owner) == (EntryState.CANCELLED, 4, 2)


async def test_a_key_that_is_free_again_takes_the_next_request_whole(tmp_path: Path) -> None:
    """Whatever that is: of the one that bought nothing, only the count is left."""
    async with journaling(tmp_path) as journal:
        key = "a" * 32
        await journal.intended(first := job(journal, key=key, model="one"), intent())
        await journal.withdrawn(first)
        second = job(journal, key=key, provider="mira", kind="image", model="two", requested=3)
        await journal.intended(second, intent("else", blocking=True, announced=True, label="Ada", account="f" * 12))
        entry = await soon(journal.entry(key))
        assert (entry.provider, entry.model, entry.requested, entry.blocking) == ("mira", "two", 3, True)
        assert (entry.announced, entry.account, entry.is_called("Ada"), entry.attempts) == (True, "f" * 12, True, 2)


async def test_pruning_happens_by_itself_after_many_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that runs for months keeps a week, not everything."""
    monkeypatch.setattr(journal_module, "_PRUNE_EVERY", 3)
    async with journaling(tmp_path, retention=0) as journal:
        for _ in range(3):
            owner = job(journal)
            await journal.intended(owner, intent())
            await journal.settled(owner, generation(owner, picture()))
            journal.handed_over(owner)
            await soon(journal.entry(owner.key))
        owner = job(journal)
        await journal.intended(owner, intent())
        await journal.settled(owner, generation(owner, picture()))
        journal.handed_over(owner)
        await until(lambda: len(list((tmp_path / "pictures").iterdir())) <= 1)
    assert len(journal_entries(tmp_path)) <= 1


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"durability": "none"}, r"durability must be 'power' or 'process'; got 'none'"),
        ({"retention": -1}, r"retention must be at least 0 seconds; got -1"),
        ({"retention": True}, r"got True"),
        ({"retention": float("nan")}, r"got nan"),
        ({"retention": "week"}, r"got 'week'"),
        ({"store_prompts": 1}, r"store_prompts must be True or False; got 1"),
    ],
)
def test_an_argument_out_of_range_is_refused(tmp_path: Path, options: dict[str, Any], why: str) -> None:
    """And no folder is made."""
    with pytest.raises(InputError, match=why):
        Journal(tmp_path / "journal", **options)
    assert not (tmp_path / "journal").exists()


@pytest.mark.parametrize(("durability", "level"), [("power", 2), ("process", 1)])
async def test_durability_decides_what_is_flushed(
    tmp_path: Path, durability: Any, level: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FULL and flushed files, or NORMAL and neither; both survive the end of the process."""
    flushed: list[int] = []
    monkeypatch.setattr(os, "fsync", flushed.append)
    async with journaling(tmp_path / "journal", durability=durability) as journal:
        ask = journal._writer.do
        assert await ask(lambda connection: connection.execute("PRAGMA synchronous").fetchone()[0]) == level
        assert await ask(lambda connection: connection.execute("PRAGMA journal_mode").fetchone()[0]) == "wal"
        flushed.clear()  # of the new folder, which is always flushed
        await journal.intended(owner := job(journal), intent(blocking=True))
        await journal.settled(owner, generation(owner, picture()))
        assert bool(flushed) is (durability == "power")
        async with journaling(crashed(tmp_path / "journal", tmp_path / "copy")) as heir:
            (entry,) = await soon(heir.owed())
            assert entry.outcome is not None
            assert heir.picture_path(entry.outcome.images[0].file or "").read_bytes() == picture()


async def test_a_journal_describes_itself(tmp_path: Path) -> None:
    """By its folder and its file."""
    async with journaling(tmp_path) as journal:
        assert repr(journal) == f"<Journal {str(tmp_path)!r} {journal._seat.path.name}>"
        assert repr(journal._seat) == f"<Seat {journal._seat.path.name}>"


async def test_each_waiter_has_an_error_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which two tasks raise with tracebacks of their own, on a bad disk and at the end of the journal alike."""
    async with journaling(tmp_path) as journal:
        trouble = Trouble(journal, monkeypatch)
        refused = await soon(
            asyncio.gather(*(_intended(journal, job(journal)) for _ in range(2)), return_exceptions=True)
        )
        trouble.on = False
        waiting = [asyncio.ensure_future(_intended(journal, job(journal))) for _ in range(2)]
        await asyncio.sleep(0)
        journal._writer._ended = True
        refused += await soon(asyncio.gather(*waiting, return_exceptions=True))
        journal._writer._ended = False
    assert {type(error) for error in refused} == {JournalError}
    assert len({id(error) for error in refused}) == 4
    assert {error.provider for error in refused if isinstance(error, JournalError)} == {"mirako"}


async def test_a_log_handler_that_raises_lets_nobody_wait_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was to tell of an id that could not be written."""

    class Raising(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise RuntimeError(record.getMessage())

    trouble: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: trouble.append(context))
    async with journaling(tmp_path) as journal:
        owner = job(journal, id="task-1")
        await soon(journal.intended(owner, intent()))
        disk = Trouble(journal, monkeypatch)
        handler = Raising(level=logging.CRITICAL)
        logging.getLogger("mirage_async.journal").addHandler(handler)
        try:
            with pytest.raises(sqlite3.OperationalError):
                await soon(journal.accepted(owner))
        finally:
            logging.getLogger("mirage_async.journal").removeHandler(handler)
        disk.on = False
        await until(lambda: not journal.statistics().unwritten)
    assert [type(each["exception"]) for each in trouble] == [RuntimeError]


async def test_a_journal_that_ends_with_facts_unwritten_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once they are told, nothing holds it together."""
    # Whoever keeps its records keeps the errors in them, whose tracebacks know everything.
    monkeypatch.setattr(logging.getLogger("mirage_async.journal"), "disabled", True)

    def refuse(_: Writer, writes: Any) -> None:
        msg = "database or disk is full"
        raise sqlite3.OperationalError(msg)

    journal = Journal(tmp_path)
    owner = job(journal, id="task-1")
    await soon(journal.intended(owner, intent()))
    monkeypatch.setattr(Writer, "_write", refuse)
    await soon(journal.accepted(owner))
    await journal.aclose()
    gone = weakref.ref(journal)
    del journal, owner
    await asyncio.sleep(0)
    gc.collect()
    assert gone() is None
