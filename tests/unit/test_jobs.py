"""The handle of a job: its waiters, its updates, its token and its three endings."""

from __future__ import annotations

import asyncio
import copy
import gc
import json
import traceback
import weakref
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import pytest

from mirage_async.exceptions import (
    AuthenticationError,
    ClosedError,
    InputError,
    JobFailedError,
    SubmissionUncertainError,
    WaitTimeoutError,
)
from mirage_async.jobs import Job, JobKind, NullRecorder, checked_wait, new_job, new_key, read_token
from mirage_async.jobs._sleepers import wake_all
from mirage_async.models import JobStatus, JobUpdate, Pace
from mirage_async.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from mirage_async.exceptions import MirageError, WaitedFor
    from mirage_async.wire import Report

pytestmark = pytest.mark.anyio

T = TypeVar("T")

PACE = Pace(first=1, interval=2, maximum=8, max_wait=100)


async def soon(work: Awaitable[T]) -> T:
    """Await something that must not take long."""
    with anyio.fail_after(30):
        return await work


class FakeWaker:
    """Notes what it is asked to watch."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.watched: list[tuple[float, bool]] = []
        self.looks: list[tuple[float, float, float]] = []
        self.closed_with: MirageError | None = None
        self.waited_for: WaitedFor = "job"

    def watch(self, job: Job[Any], deadline: float, *, at_once: bool = False) -> None:
        """Note the wait, or stop the job as a closed scheduler does."""
        self.watched.append((deadline, at_once))
        if self.closed_with is not None:
            job.stop(self.closed_with)

    def look_before(self, job: Job[Any], end: float, since: float) -> None:  # noqa: ARG002 - the port's signature
        """Note when that was asked for."""
        self.looks.append((self.clock.monotonic(), end, since))

    def wake(self, job: Job[Any]) -> None:
        """Nothing here gives hints."""

    def forget(self, job: Job[Any]) -> None:
        """Nothing is remembered."""

    def waits_for(self, job: Job[Any]) -> WaitedFor:
        """Say what a job of this bench waits for."""
        return self.waited_for if job.id is not None else "job"


class FakeRecorder(NullRecorder):
    """Counts hand-overs."""

    def __init__(self) -> None:
        self.handed: list[str | None] = []
        self.fails = False

    def handed_over(self, job: Job[Any]) -> None:
        """Note the job's id."""
        if self.fails:
            msg = "the disk is full"
            raise OSError(msg)
        self.handed.append(job.id)


class Bench:
    """A clock, both ports and a kind to make jobs of."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.waker = FakeWaker(self.clock)
        self.recorder = FakeRecorder()
        self.ended: list[Job[Any]] = []
        self.kind: JobKind[str] = JobKind(
            provider="miragic",
            name="image",
            pace=PACE,
            clock=self.clock,
            recorder=self.recorder,
            waker=self.waker,
            look=self.never_look,
            redeem=self.never_redeem,
            ended=self.ended.append,
            account=None,
        )

    def job(self, **options: Any) -> Job[str]:
        """Make a queued job with an id, unless told otherwise."""
        return new_job(self.kind, **{"id": "j1", "status": JobStatus.QUEUED, **options})

    async def settle(self) -> None:
        """Let every task go as far as it can."""
        await self.clock.advance(0)

    async def never_look(self, job: Job[str]) -> Report:
        """Fail: these tests make no status calls."""
        raise NotImplementedError

    async def never_redeem(self, job: Job[str], report: Report) -> str:
        """Fail: these tests conclude nothing."""
        raise NotImplementedError


@pytest.fixture
def bench() -> Bench:
    """Return everything a job needs."""
    return Bench()


def waiters(job: Job[str], count: int) -> list[asyncio.Task[str]]:
    """Start tasks that wait for the result."""
    return [asyncio.ensure_future(job.result()) for _ in range(count)]


async def collect(job: Job[str], seen: list[JobUpdate]) -> None:
    """Read updates to their end."""
    async for update in job.updates():
        seen.append(update)  # noqa: PERF401 - the list fills while somebody looks at it


# --- waiting ---


async def test_all_waiters_get_the_one_result(bench: Bench) -> None:
    """A job awaited from several places resolves once for all of them, and for those who come later."""
    job = bench.job()
    tasks = waiters(job, 5)
    await bench.settle()
    job.resolve(JobStatus.SUCCEEDED, "picture", None)
    assert await soon(asyncio.gather(*tasks)) == ["picture"] * 5
    assert await soon(job) == "picture"
    assert bench.ended == [job]


async def test_cancelling_one_waiter_leaves_the_job_and_the_others(bench: Bench) -> None:
    """A waiter that leaves is nobody's business but its own."""
    job = bench.job()
    tasks = waiters(job, 3)
    await bench.settle()
    tasks[1].cancel()
    await bench.settle()
    assert tasks[1].cancelled()
    assert not job.done
    assert not bench.ended
    job.resolve(JobStatus.SUCCEEDED, "picture", None)
    assert [await soon(task) for task in (tasks[0], tasks[2])] == ["picture"] * 2


async def test_a_waiter_cancelled_in_the_turn_of_the_result_is_cancelled(bench: Bench) -> None:
    """Cancellation is never swallowed, not even by a result that arrives in the same turn."""
    job = bench.job()
    tasks = waiters(job, 2)
    await bench.settle()
    tasks[0].cancel()
    job.resolve(JobStatus.SUCCEEDED, "picture", None)
    with pytest.raises(asyncio.CancelledError):
        await soon(tasks[0])
    assert await soon(tasks[1]) == "picture"


async def test_a_failed_job_raises_a_fresh_copy_to_each_waiter(bench: Bench) -> None:
    """No two waiters share an exception, so their tracebacks do not grow into each other."""
    job = bench.job()
    tasks = waiters(job, 3)
    await bench.settle()
    original = JobFailedError("it failed", provider="miragic", job_id="j1", token="t", billed="unknown")
    job.resolve(JobStatus.FAILED, None, original)
    raised = await soon(asyncio.gather(*tasks, return_exceptions=True))
    assert len({id(error) for error in [original, *raised]}) == 4
    assert all(type(error) is JobFailedError and vars(error) == vars(original) for error in raised)
    assert original.__traceback__ is None
    with pytest.raises(JobFailedError, match="it failed") as first:
        await soon(job)
    with pytest.raises(JobFailedError, match="it failed") as second:
        await soon(job)
    assert len(traceback.extract_tb(second.value.__traceback__)) <= len(traceback.extract_tb(first.value.__traceback__))


async def test_the_hand_over_is_noted_once(bench: Bench) -> None:
    """The recorder hears of the first waiter that took the outcome, and of no waiter that did not."""
    job = bench.job()
    tasks = waiters(job, 3)
    await bench.settle()
    tasks[0].cancel()
    assert bench.recorder.handed == []
    job.resolve(JobStatus.SUCCEEDED, "picture", None)
    await soon(asyncio.gather(*tasks, return_exceptions=True))
    assert bench.recorder.handed == ["j1"]
    failed = bench.job(id="j2")
    failed.resolve(JobStatus.FAILED, None, JobFailedError("it failed"))
    with pytest.raises(JobFailedError, match="it failed"):
        await soon(failed)
    assert bench.recorder.handed == ["j1", "j2"]


async def test_a_recorder_that_fails_at_the_hand_over_withholds_nothing(bench: Bench) -> None:
    """What `handed_over` raises is logged and never withholds a result."""
    job = bench.job()
    job.resolve(JobStatus.SUCCEEDED, "picture", None)
    bench.recorder.fails = True
    assert await soon(job) == "picture"


async def test_a_waiting_job_holds_no_waiter_that_left(bench: Bench) -> None:
    """Ten thousand cancelled waits leave nothing behind on the job."""
    job = bench.job()
    tasks = waiters(job, 50)
    await bench.settle()
    for task in tasks:
        task.cancel()
    await bench.settle()
    assert job._waiters is None


async def test_a_waiting_job_holds_no_waiter_that_was_closed(bench: Bench) -> None:
    """A coroutine that is thrown away in the middle of its wait is forgotten like one that was cancelled."""
    job = bench.job()

    async def wait() -> str:
        return await job

    waiter = wait()
    waiter.send(None)
    assert job._waiters is not None
    waiter.close()
    assert job._waiters is None


async def test_an_uncertain_job_is_done_and_raises(bench: Bench) -> None:
    """Awaiting a job whose purchase is uncertain says so at once."""
    job = bench.job(id=None, status=JobStatus.SUBMITTING)
    job.resolve(JobStatus.UNCERTAIN, None, SubmissionUncertainError("nobody knows", key=job.key))
    assert job.done
    assert not job.status.terminal
    with pytest.raises(SubmissionUncertainError, match="nobody knows") as caught:
        await soon(job)
    assert caught.value.key == job.key


async def test_a_job_that_was_uncertain_may_stay_so(bench: Bench) -> None:
    """A job found uncertain and resolved as that makes no move."""
    job = bench.job(id=None, status=JobStatus.UNCERTAIN)
    job.resolve(JobStatus.UNCERTAIN, None, SubmissionUncertainError("nobody knows"))
    with pytest.raises(SubmissionUncertainError, match="nobody knows"):
        await soon(job)


# --- max_wait ---


async def test_a_wait_that_is_over_raises_for_that_call_only(bench: Bench) -> None:
    """`result(max_wait=)` limits its own call: the other waiters go on waiting."""
    job = bench.job()
    others = waiters(job, 1)
    impatient = asyncio.ensure_future(job.result(max_wait=5))
    await bench.clock.advance(4.9)
    assert not impatient.done()
    await bench.clock.advance(0.1)
    with pytest.raises(WaitTimeoutError, match=r"is over after 5\.0 s; .* j1 is queued and lives on") as caught:
        await soon(impatient)
    assert (caught.value.job_id, caught.value.token, caught.value.billed) == ("j1", job.token(), "yes")
    assert job.status is JobStatus.QUEUED
    assert job.stopped is None
    job.resolve(JobStatus.SUCCEEDED, "picture", None)
    assert await soon(others[0]) == "picture"


async def test_a_result_in_time_calls_the_timer_off(bench: Bench) -> None:
    """A limited wait that was answered leaves no timer behind."""
    job = bench.job()
    patient = asyncio.ensure_future(job.result(max_wait=5))
    await bench.settle()
    job.resolve(JobStatus.SUCCEEDED, "picture", None)
    assert await soon(patient) == "picture"
    assert repr(bench.clock).endswith("0 timers>")


async def test_a_limited_wait_extends_the_watching_and_asks_at_once(bench: Bench) -> None:
    """`result(max_wait=)` has the job watched for as long, beginning with a status call now."""
    await bench.clock.advance(10)
    task = asyncio.ensure_future(bench.job().result(max_wait=30))
    await bench.settle()
    assert bench.waker.watched == [(40, True)]
    task.cancel()


@pytest.mark.parametrize(("wait", "span"), [(30.0, 2.0), (4.0, 1.0), (0.4, 0.1)])
async def test_a_limited_wait_has_a_last_look_made_before_its_end(bench: Bench, wait: float, span: float) -> None:
    """One or two seconds before, or a quarter to an eighth; once, and not for a job that has ended by then."""
    job, other = bench.job(), bench.job(id="other")
    tasks = [asyncio.ensure_future(each.result(max_wait=wait)) for each in (job, other)]
    await bench.clock.advance(wait / 2)
    other.resolve(JobStatus.SUCCEEDED, "picture", None)
    await bench.clock.advance(wait)
    ((moment, end, since),) = bench.waker.looks
    assert (end, since) == pytest.approx((wait, wait - span))
    assert since <= moment <= wait - span / 2
    with pytest.raises(WaitTimeoutError):
        await soon(tasks[0])
    assert await soon(tasks[1]) == "picture"
    assert repr(bench.clock).endswith("0 timers>")


async def test_an_unlimited_wait_leaves_the_watching_alone(bench: Bench) -> None:
    """Awaiting a job neither extends nor restarts anything."""
    tasks = waiters(bench.job(), 1)
    await bench.settle()
    assert bench.waker.watched == []
    tasks[0].cancel()


async def test_after_a_timeout_awaiting_raises_the_same_again(bench: Bench) -> None:
    """Once the watching has stopped, a plain await repeats why, and the status stays."""
    job = bench.job()
    tasks = waiters(job, 2)
    await bench.settle()
    await bench.clock.advance(7)
    job.stop(job.wait_timeout())
    for work in (*tasks, job.result(), job.result()):
        with pytest.raises(WaitTimeoutError, match=r"the wait is over after 7\.0 s"):
            await soon(work)
    assert job.status is JobStatus.QUEUED
    assert isinstance(job.stopped, WaitTimeoutError)
    assert not job.done
    assert bench.ended == [job]


async def test_a_limited_wait_restarts_a_stopped_job(bench: Bench) -> None:
    """After a timeout `result(max_wait=)` starts the watching afresh and can still bring the result."""
    job = bench.job()
    job.stop(job.wait_timeout())
    again = asyncio.ensure_future(job.result(max_wait=20))
    await bench.settle()
    assert job.stopped is None
    assert bench.waker.watched == [(20, True)]
    job.resolve(JobStatus.SUCCEEDED, "picture", None)
    assert await soon(again) == "picture"


async def test_a_job_that_is_being_settled_is_not_watched_again(bench: Bench) -> None:
    """Between the claim and the result there is nothing left to ask."""
    job = bench.job()
    assert job.claim()
    task = asyncio.ensure_future(job.result(max_wait=20))
    await bench.settle()
    assert bench.waker.watched == []
    job.resolve(JobStatus.SUCCEEDED, "picture", None)
    assert await soon(task) == "picture"


async def test_a_finished_job_answers_a_limited_wait_without_watching(bench: Bench) -> None:
    """A finished job needs no watching."""
    job = bench.job()
    job.resolve(JobStatus.SUCCEEDED, "picture", None)
    assert await soon(job.result(max_wait=1)) == "picture"
    assert bench.waker.watched == []


async def test_a_job_without_an_id_can_only_be_waited_for(bench: Bench) -> None:
    """Where the provider gives no id, a limited wait waits, asks nobody, and says there is nothing to attach to."""
    job = bench.job(id=None, status=JobStatus.SUBMITTING)
    task = asyncio.ensure_future(job.result(max_wait=5))
    await bench.clock.advance(5)
    with pytest.raises(WaitTimeoutError, match="was not sent") as caught:
        await soon(task)
    assert bench.waker.watched == []
    assert (caught.value.token, caught.value.billed) == (None, "no")


async def test_a_job_of_a_closed_client_stays_closed(bench: Bench) -> None:
    """`ClosedError` is final for this handle: a limited wait does not restart the watching."""
    job = bench.job()
    job.stop(ClosedError("closed", token=job.token()))
    with pytest.raises(ClosedError, match="closed") as caught:
        await soon(job.result(max_wait=5))
    assert caught.value.token == job.token()
    assert bench.waker.watched == []


async def test_watching_that_stops_at_once_is_told_at_once(bench: Bench) -> None:
    """A waker that closed meanwhile ends the wait instead of leaving it asleep."""
    bench.waker.closed_with = ClosedError("closed meanwhile")
    with pytest.raises(ClosedError, match="closed meanwhile"):
        await soon(bench.job().result(max_wait=5))


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), 30 * 24 * 3600 + 1, True, "5"])
async def test_a_wait_that_is_no_positive_number_of_seconds_is_refused(bench: Bench, seconds: Any) -> None:
    """`max_wait` is above 0 and at most 30 days; the message shows what was given."""
    with pytest.raises(InputError, match="max_wait must be above 0 and at most 2592000 seconds; got"):
        await soon(bench.job().result(max_wait=seconds))


def test_a_checked_wait_is_a_float() -> None:
    """Whole numbers are welcome, the limits included."""
    assert [checked_wait(value) for value in (1, 0.5, 30 * 24 * 3600)] == [1.0, 0.5, 2592000.0]
    assert isinstance(checked_wait(1), float)


async def test_attaching_watches_at_once_for_the_default_wait_or_the_one_given(bench: Bench) -> None:
    """`attach` asks now and takes the wait of its kind unless told otherwise."""
    await bench.clock.advance(1)
    bench.job().attach(None)
    bench.job().attach(7)
    assert bench.waker.watched == [(101, True), (8, True)]
    with pytest.raises(InputError, match="max_wait must be above 0"):
        bench.job().attach(0)


# --- updates ---


async def test_updates_tell_the_present_first_and_end_after_the_last(bench: Bench) -> None:
    """An iteration begins with the state as it is and ends after the terminal one."""
    job = bench.job()
    seen: list[JobUpdate] = []
    reader = asyncio.ensure_future(collect(job, seen))
    await bench.clock.advance(2)
    job.move(JobStatus.RUNNING)
    await bench.clock.advance(3)
    job.advance(0.5)
    await bench.clock.advance(1)
    job.resolve(JobStatus.SUCCEEDED, "picture", None)
    await soon(reader)
    assert seen == [
        JobUpdate(status=JobStatus.QUEUED, elapsed=0),
        JobUpdate(status=JobStatus.RUNNING, elapsed=2),
        JobUpdate(status=JobStatus.RUNNING, progress=0.5, elapsed=5),
        JobUpdate(status=JobStatus.SUCCEEDED, progress=1.0, elapsed=6),
    ]


async def test_updates_faster_than_the_reader_are_merged(bench: Bench) -> None:
    """A slow reader gets the newest state, not a backlog, and never misses the end."""
    job = bench.job()
    updates = job.updates()
    assert (await soon(anext(updates))).status is JobStatus.QUEUED
    job.move(JobStatus.RUNNING)
    for percent in range(1, 100):
        job.advance(percent / 100)
    assert (await soon(anext(updates))).progress == 0.99
    job.resolve(JobStatus.SUCCEEDED, "picture", None)
    assert (await soon(anext(updates))).status is JobStatus.SUCCEEDED
    with pytest.raises(StopAsyncIteration):
        await soon(anext(updates))


async def test_what_changes_nothing_is_no_update(bench: Bench) -> None:
    """The same status and the same progress again wake no reader."""
    job = bench.job()
    seen: list[JobUpdate] = []
    reader = asyncio.ensure_future(collect(job, seen))
    await bench.settle()
    job.move(JobStatus.QUEUED)
    job.advance(None)
    await bench.settle()
    assert len(seen) == 1
    job.advance(0.4)
    job.advance(0.4)
    await bench.settle()
    job.advance(0.2)
    await bench.settle()
    assert [update.progress for update in seen] == [None, 0.4, 0.2]
    reader.cancel()


async def test_updates_of_a_failed_job_end_without_raising(bench: Bench) -> None:
    """Reading the state of a failed job is no failure; awaiting it is."""
    job = bench.job()
    job.resolve(JobStatus.FAILED, None, JobFailedError("it failed"))
    seen: list[JobUpdate] = []
    await soon(collect(job, seen))
    assert [update.status for update in seen] == [JobStatus.FAILED]
    assert bench.recorder.handed == []


@pytest.mark.parametrize(
    "error",
    [WaitTimeoutError("the wait is over"), ClosedError("closed"), AuthenticationError("wrong key", status=401)],
    ids=["timeout", "closed", "refused"],
)
async def test_updates_raise_when_the_watching_stops(bench: Bench, error: MirageError) -> None:
    """Silence for ever would be worse: whatever stops the watching is raised to the readers, each a copy."""
    job = bench.job()
    seen: list[JobUpdate] = []
    reader = asyncio.ensure_future(collect(job, seen))
    await bench.settle()
    job.stop(error)
    with pytest.raises(type(error), match=str(error)) as caught:
        await soon(reader)
    assert caught.value is not error
    with pytest.raises(type(error), match=str(error)):
        await soon(collect(job, seen))
    assert [update.status for update in seen] == [JobStatus.QUEUED] * 3


async def test_several_readers_and_waiters_live_side_by_side(bench: Bench) -> None:
    """Readers of updates and waiters for the result do not disturb each other, whoever leaves."""
    job = bench.job()
    logs: list[list[JobUpdate]] = [[], [], []]
    readers = [asyncio.ensure_future(collect(job, log)) for log in logs]
    tasks = waiters(job, 1)
    await bench.settle()
    readers[0].cancel()
    await bench.settle()
    job.move(JobStatus.RUNNING)
    await bench.settle()
    job.resolve(JobStatus.SUCCEEDED, "picture", None)
    await soon(asyncio.gather(*readers[1:], *tasks))
    assert [len(log) for log in logs] == [1, 3, 3]
    assert job._readers is None


# --- state ---


def test_an_illegal_move_raises(bench: Bench) -> None:
    """A move outside the table is a mistake of this library and changes nothing."""
    job = bench.job()
    job.move(JobStatus.RUNNING)
    with pytest.raises(RuntimeError, match="a job cannot go from running to queued"):
        job.move(JobStatus.QUEUED)
    assert job.status is JobStatus.RUNNING
    job.resolve(JobStatus.SUCCEEDED, "picture", None)
    with pytest.raises(RuntimeError, match="a job cannot go from succeeded to failed"):
        job.resolve(JobStatus.FAILED, None, JobFailedError("late"))


def test_the_first_sight_of_running_is_remembered(bench: Bench) -> None:
    """`running_at` is the moment of the first move to running."""
    job = bench.job()
    assert job.running_at is None
    job.move(JobStatus.RUNNING)
    assert job.running_at == 0.0


async def test_the_claim_belongs_to_the_first_who_takes_it(bench: Bench) -> None:
    """Exactly one path settles a job; the moment of its claim is when the end was detected."""
    job = bench.job()
    await bench.clock.advance(3)
    assert [job.claim() for _ in range(3)] == [True, False, False]
    assert job.detected_at == 3


def test_stopping_a_finished_job_changes_nothing(bench: Bench) -> None:
    """A job that is done cannot be stopped."""
    job = bench.job()
    job.resolve(JobStatus.SUCCEEDED, "picture", None)
    version = job.version
    job.stop(ClosedError("closed"))
    assert (job.stopped, job.version, bench.ended) == (None, version, [job])


def test_success_completes_the_progress_only_where_there_is_one(bench: Bench) -> None:
    """A provider without progress keeps None; one with progress ends at 1, and a failure keeps what it was."""
    silent, talking, failing = bench.job(), bench.job(), bench.job()
    talking.advance(0.4)
    failing.advance(0.4)
    silent.resolve(JobStatus.SUCCEEDED, "picture", None)
    talking.resolve(JobStatus.SUCCEEDED, "picture", None)
    failing.resolve(JobStatus.FAILED, None, JobFailedError("it failed"))
    assert [job.progress for job in (silent, talking, failing)] == [None, 1.0, 0.4]


# --- token and repr ---


def test_the_token_of_a_job_names_it_again(bench: Bench) -> None:
    """A token holds provider, kind, id, key and model, and no more than that."""
    job = bench.job(model="flux")
    token = read_token(job.token())
    assert token is not None
    assert (token.provider, token.kind, token.id, token.key, token.model) == ("miragic", "image", "j1", job.key, "flux")
    assert set(json.loads(job.token())) == {"mirage", "provider", "kind", "id", "key", "model"}
    assert job.token_or_none() == job.token()


def test_a_job_without_an_id_has_no_token(bench: Bench) -> None:
    """Nobody can ask for a job the provider gave no id."""
    job = bench.job(id=None)
    assert job.token_or_none() is None
    with pytest.raises(InputError, match="a token needs the provider's id, and this miragic job has none"):
        job.token()


def test_every_job_mints_a_key_of_its_own(bench: Bench) -> None:
    """Keys are 32 hexadecimal digits, minted before anything is sent; one that is given is kept."""
    keys = {bench.job().key for _ in range(100)}
    assert len(keys) == 100
    assert all(len(key) == 32 and int(key, 16) >= 0 for key in keys)
    assert bench.job(key="mine").key == "mine"


def test_keys_sort_by_age(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever two are made in different seconds, as long as eight digits hold these: until 2106."""
    moments = [0, 1_700_000_000.9, 1_700_000_001.0, 2**32 - 1]
    keys = []
    for moment in moments:
        monkeypatch.setattr("time.time", lambda moment=moment: moment)
        keys.append(new_key())
    assert keys == sorted(keys)
    assert [int(key[:8], 16) for key in keys] == [0, 1_700_000_000, 1_700_000_001, 2**32 - 1]
    assert {len(key) for key in keys} == {32}


def test_the_repr_tells_where_a_job_stands(bench: Bench) -> None:
    """A repr has provider, kind, id or key, status and progress."""
    job = bench.job()
    assert repr(job) == "<Job miragic image j1 queued>"
    job.advance(0.42)
    assert repr(job) == "<Job miragic image j1 queued 42%>"
    nameless = bench.job(id=None, key="mine", status=JobStatus.SUBMITTING)
    assert repr(nameless) == "<Job miragic image mine submitting>"
    assert repr(bench.kind) == "<JobKind miragic image>"


def test_a_token_survives_in_errors_of_the_wait(bench: Bench) -> None:
    """A timeout carries the token, also after copying."""
    error = copy.copy(bench.job().wait_timeout())
    assert error.token is not None
    assert read_token(error.token) is not None


async def test_a_finished_job_is_not_kept_alive(bench: Bench) -> None:
    """When the last holder lets go, the job and its result are gone."""
    job = bench.job()
    tasks = waiters(job, 2)
    await bench.settle()
    job.resolve(JobStatus.SUCCEEDED, "picture", None)
    await soon(asyncio.gather(*tasks))
    bench.ended.clear()
    gone = weakref.ref(job)
    del job, tasks
    gc.collect()
    assert gone() is None


class Ambushed(asyncio.Future[None]):
    """A future that is cancelled just after somebody has looked whether it is done, as asyncio's Ctrl-C may do."""

    def done(self) -> bool:
        """Say whether it is done, and be cancelled."""
        done = super().done()
        self.cancel()
        return done


async def test_a_waiter_cancelled_in_the_moment_of_waking_keeps_nobody_asleep() -> None:
    """Ctrl-C cancels the main task at any moment, and the other waiters are to hear of the end all the same."""
    sly, left, other = Ambushed(), Ambushed(), asyncio.get_running_loop().create_future()
    left.cancel()
    wake_all({sly: None, left: None, other: None})
    assert other.done()
    wake_all(None)
