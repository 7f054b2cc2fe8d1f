"""Asking about jobs: when, how many at once, through every kind of trouble, and when to stop."""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import sys
import traceback
import weakref
from collections import Counter
from contextvars import ContextVar
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar, cast

import anyio
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirage_async._clock import SystemClock
from mirage_async.exceptions import (
    APIError,
    AuthenticationError,
    ClosedError,
    ConfigurationError,
    ConnectionFailedError,
    JobFailedError,
    MirageError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    ResponseError,
    ServerError,
    WaitTimeoutError,
)
from mirage_async.jobs import Job, JobKind, NullRecorder, new_job
from mirage_async.models import JobStatus, Pace
from mirage_async.scheduler import (
    AdaptiveInterval,
    BackoffInterval,
    FixedInterval,
    JobView,
    Limits,
    Scheduler,
    _learning,
    _scheduler,
)
from mirage_async.scheduler._scheduler import MANY, MOST_DUE
from mirage_async.scheduler._waits import SLICE
from mirage_async.scheduler._wheel import TICK
from mirage_async.testing import FakeClock
from mirage_async.wire import Piece, Report

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable

    from mirage_async.jobs import Intent
    from mirage_async.scheduler import Account, IntervalPolicy

pytestmark = pytest.mark.anyio

T = TypeVar("T")

PACE = Pace(first=3, interval=2, maximum=16, max_wait=100)
QUEUED = Report(status=JobStatus.QUEUED, word="IN_QUEUE")
RUNNING = Report(status=JobStatus.RUNNING, word="IN_PROGRESS")
DONE = Report(status=JobStatus.SUCCEEDED, pieces=(Piece(url="https://a.example/x.png"),))
HOLLOW = Report(status=JobStatus.SUCCEEDED, reason="no link")
NOT_FOUND = NotFoundError("no such job", status=404, body='{"error": "no such job"}')


async def soon(work: Awaitable[T]) -> T:
    """Await something that must not take long."""
    with anyio.fail_after(30):
        return await work


class Provider:
    """One provider account whose status calls are answered as the test says.

    Args:
        bench: the bench it stands on.
        name: the provider's name.
        limits: the account's limits.
    """

    def __init__(self, bench: Bench, name: str, limits: Limits) -> None:
        self.bench = bench
        self.account: Account = bench.scheduler.account(name, limits)
        self.asked: list[tuple[float, str | None]] = []
        self.in_flight = 0
        self.most_in_flight = 0
        self.answers: list[Report | Exception] = [RUNNING]
        self.gate: asyncio.Event | None = None
        self.kind: JobKind[str] = JobKind(
            provider=name,
            name="image",
            pace=PACE,
            clock=bench.clock,
            recorder=NullRecorder(),
            waker=bench.scheduler,
            look=self.look,
            redeem=self.redeem,
            ended=bench.ended.append,
            account=self.account,
        )

    @property
    def times(self) -> list[float]:
        """When status calls were made."""
        return [round(moment, 6) for moment, _ in self.asked]

    async def look(self, job: Job[str]) -> Report:
        """Answer with the next prepared answer, the last of which stays; wait at the gate before, if there is one."""
        self.asked.append((self.bench.clock.monotonic(), job.id))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            if self.gate is not None:
                await self.gate.wait()
        finally:
            self.in_flight -= 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def redeem(self, job: Job[str], report: Report) -> str:  # noqa: ARG002 - the kind's signature
        """Return the result."""
        return f"picture of {job.id}"

    def job(self, job_id: str = "j1") -> Job[str]:
        """Make an accepted job."""
        return new_job(self.kind, id=job_id, status=JobStatus.QUEUED)

    def watch(self, job_id: str = "j1", *, wait: float = 1000, at_once: bool = False) -> Job[str]:
        """Make an accepted job and have it watched."""
        job = self.job(job_id)
        self.bench.scheduler.watch(job, self.bench.clock.monotonic() + wait, at_once=at_once)
        return job


class Recorder:
    """A recorder that writes nothing down, and is not known to."""

    async def intended(self, job: Job[Any], intent: Intent) -> None:
        """Allow every purchase."""

    async def withdrawn(self, job: Job[Any]) -> None:
        """Forget the refusal."""

    async def accepted(self, job: Job[Any]) -> None:
        """Forget the id."""

    async def settled(self, job: Job[Any], outcome: object) -> None:
        """Forget the outcome."""

    def handed_over(self, job: Job[Any]) -> None:
        """Forget the hand-over."""


class Bench:
    """A clock and a scheduler that asks every ten seconds, unless told otherwise."""

    def __init__(self, policy: IntervalPolicy | None = None) -> None:
        self.clock = FakeClock()
        self.scheduler = Scheduler(policy=policy or FixedInterval(10, jitter=0), clock=self.clock)
        self.ended: list[Job[Any]] = []

    def provider(self, name: str = "miragic", limits: Limits | None = None) -> Provider:
        """Open an account."""
        return Provider(self, name, limits or Limits())


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    """Return a bench and close its scheduler afterwards."""
    made = Bench()
    yield made
    await made.scheduler.aclose()


# --- when ---


async def test_the_first_call_comes_after_the_policys_first_interval(bench: Bench) -> None:
    """A job that was just accepted is asked about after the first interval, not at once."""
    provider = bench.provider()
    provider.watch()
    await bench.clock.advance(9.9)
    assert provider.times == []
    await bench.clock.advance(20.1)
    assert provider.times == [10, 20, 30]


async def test_an_attached_job_is_asked_about_at_once(bench: Bench) -> None:
    """Nobody knows how long an attached job has been finished."""
    provider = bench.provider()
    provider.job().attach(None)
    await bench.clock.advance(10)
    assert provider.times == [0, 10]


async def test_intervals_grow_as_the_policy_says() -> None:
    """`BackoffInterval` follows the document: first wait, interval, growth, ceiling."""
    bench = Bench(BackoffInterval(jitter=0))
    provider = bench.provider()
    provider.watch()
    await bench.clock.advance(60)
    gaps = [after - before for before, after in zip([0, *provider.times], provider.times, strict=False)]
    assert gaps == pytest.approx([3, 2, 3, 4.5, 6.75, 10.125, 15.1875], abs=TICK)
    await bench.scheduler.aclose()


async def test_jitter_keeps_jobs_apart_that_were_submitted_together() -> None:
    """A hundred jobs of one moment are not asked about in one moment, and never more than a tenth off."""
    bench = Bench(FixedInterval(10))
    provider = bench.provider()
    for number in range(100):
        provider.watch(str(number))
    await bench.clock.advance(11)
    assert len(set(provider.times)) > 50  # of the hundred ticks there are
    assert 9 <= min(provider.times) <= max(provider.times) <= 11
    await bench.scheduler.aclose()


class EveryTick:
    """Has a job asked about after one tick more than the one before it."""

    def __init__(self, jobs_a_tick: int) -> None:
        self.asked = 0
        self.jobs_a_tick = jobs_a_tick

    def next_interval(self, job: JobView) -> float:
        """Return seconds until the next status call: none comes after the first."""
        self.asked += 1
        return 1 + TICK * ((self.asked - 1) // self.jobs_a_tick) if job.polls == 0 else 1000.0


async def moments(bench: Bench, provider: Provider, jobs: int) -> list[int]:
    """Return in which ticks, from one second on, so many jobs are asked about."""
    for number in range(jobs):
        provider.watch(str(number))
    await bench.clock.advance(10)
    assert len(provider.times) == jobs
    return sorted({round((moment - 1) / TICK) for moment in provider.times})


async def test_few_calls_are_made_in_their_own_tick() -> None:
    """Where fewer than eight fall due at once, each has a wake-up of its tick."""
    bench = Bench(EveryTick(MANY - 1))
    assert await moments(bench, bench.provider(), 10 * (MANY - 1)) == list(range(10))
    await bench.scheduler.aclose()


async def test_many_calls_are_made_in_every_other_tick() -> None:
    """Where eight or more fall due at once, those of the next tick come one tick later, with those of theirs."""
    bench = Bench(EveryTick(MANY))
    assert await moments(bench, bench.provider(), 10 * MANY) == [0, 2, 4, 6, 8, 10]
    await bench.scheduler.aclose()


async def test_a_deadline_does_not_wait_for_calls_that_share_a_wake_up() -> None:
    """Waits end in the tick they are due, however many calls there are, and what is due by then is asked about."""
    bench = Bench(EveryTick(MANY))
    provider = bench.provider()
    for number in range(2 * MANY):
        provider.watch(str(number))
    job = provider.watch("short", wait=1 + TICK)
    await bench.clock.advance(1)
    await bench.clock.advance(TICK)
    with pytest.raises(WaitTimeoutError):
        await soon(job)
    assert len(provider.times) == 2 * MANY + 1  # and the last look at the short one
    await bench.scheduler.aclose()


async def test_the_policy_sees_the_job_as_it_stands() -> None:
    """A policy is told provider, kind, pace, status, progress, age and how often the job was asked about."""
    seen: list[JobView] = []

    class Curious:
        def next_interval(self, job: JobView) -> float:
            seen.append(job)
            return 5.0

    bench = Bench(Curious())
    provider = bench.provider()
    provider.answers = [Report(status=JobStatus.RUNNING, progress=0.5)]
    provider.watch()
    await bench.clock.advance(5)
    assert [(view.status, view.progress, view.elapsed, view.polls) for view in seen] == [
        (JobStatus.QUEUED, None, 0, 0),
        (JobStatus.RUNNING, 0.5, 5, 1),
    ]
    assert (seen[0].provider, seen[0].kind, seen[0].model, seen[0].pace) == ("miragic", "image", None, PACE)
    await bench.scheduler.aclose()


@pytest.mark.parametrize(
    "interval",
    [
        math.nan,
        -1,
        math.inf,
        -math.inf,
        ValueError("surprise"),
        "soon",
        None,
    ],
)
async def test_a_faulty_policy_falls_back_to_the_documents_interval(
    interval: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A policy that raises, or gives no number of seconds, strands no job; it is logged, once for all jobs."""

    class Faulty:
        def next_interval(self, job: JobView) -> float:  # noqa: ARG002 - the policy's signature
            if isinstance(interval, Exception):
                raise interval
            return cast("float", interval)

    bench = Bench(Faulty())
    provider = bench.provider()
    job = provider.watch()
    await bench.clock.advance(4)
    assert provider.times == [2, 4]
    assert not job.done
    (error,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert error.getMessage().startswith("next_interval of the interval policy ")
    assert error.exc_info is not None
    assert isinstance(error.exc_info[1], ValueError | TypeError)
    await bench.scheduler.aclose()


@pytest.mark.parametrize("interval", [Decimal("2.5"), Fraction(5, 2)])
async def test_a_policy_may_count_in_other_numbers_than_floats(interval: Any) -> None:
    """Whatever is a number of seconds is taken as one."""

    class Exact:
        def next_interval(self, job: JobView) -> float:  # noqa: ARG002 - the policy's signature
            return cast("float", interval)

    bench = Bench(Exact())
    provider = bench.provider()
    provider.watch()
    await bench.clock.advance(5)
    assert provider.times == [2.5, 5]
    await bench.scheduler.aclose()


async def test_a_policy_may_say_never(caplog: pytest.LogCaptureFixture) -> None:
    """The longest interval there is means that nobody asks until the wait is over, or a hint comes."""

    class Never:
        def next_interval(self, job: JobView) -> float:  # noqa: ARG002 - the policy's signature
            return sys.float_info.max

    bench = Bench(Never())
    provider = bench.provider()
    job = provider.watch(wait=1000)
    await bench.clock.advance(500)
    bench.scheduler.wake(job)
    await bench.clock.advance(500)
    assert isinstance(job.stopped, WaitTimeoutError)
    assert provider.times == [500]
    assert not caplog.records
    await bench.scheduler.aclose()


async def test_a_policy_may_ask_again_at_once() -> None:
    """An interval of 0 asks in the next turn, without starving anybody."""
    bench = Bench(BackoffInterval(first=0, interval=1, jitter=0))
    provider = bench.provider()
    provider.watch()
    await bench.clock.advance(0)
    assert provider.times == [0]
    await bench.scheduler.aclose()


# --- the end of a job ---


async def test_success_reaches_the_waiters(bench: Bench) -> None:
    """The report of a finished job is redeemed and handed to everyone who waits."""
    provider = bench.provider()
    provider.answers = [QUEUED, RUNNING, DONE]
    job = provider.watch()
    waiters = [asyncio.ensure_future(job.result()) for _ in range(3)]
    await bench.clock.advance(30)
    assert list(await soon(asyncio.gather(*waiters))) == ["picture of j1"] * 3
    assert (job.polls, job.running_at, job.detected_at) == (3, 20, 30)
    await bench.clock.advance(100)
    assert len(provider.asked) == 3
    statistics = bench.scheduler.statistics()
    assert (statistics.jobs_watched, statistics.jobs_concluded, statistics.polls_sent) == (0, 1, 3)
    assert bench.ended == [job]


async def test_a_failed_job_raises_to_its_waiters(bench: Bench) -> None:
    """The provider's verdict on the job is believed at once."""
    provider = bench.provider()
    provider.answers = [Report(status=JobStatus.FAILED, reason="no luck")]
    job = provider.watch(at_once=True)
    await bench.clock.advance(0)
    with pytest.raises(JobFailedError, match="no luck"):
        await soon(job)
    assert len(provider.asked) == 1


async def test_a_hollow_success_is_asked_about_three_times(bench: Bench) -> None:
    """Success without a result is believed the third time: a failure that was paid for."""
    provider = bench.provider()
    provider.answers = [HOLLOW]
    job = provider.watch()
    await bench.clock.advance(20)
    assert not job.done
    await bench.clock.advance(80)
    with pytest.raises(JobFailedError, match="is finished without a usable result: no link") as caught:
        await soon(job)
    assert caught.value.billed == "yes"
    assert provider.times == [10, 20, 30]


async def test_a_hollow_success_may_still_fill(bench: Bench) -> None:
    """A provider that announces success a moment too early is given that moment."""
    provider = bench.provider()
    provider.answers = [HOLLOW, HOLLOW, DONE]
    job = provider.watch()
    await bench.clock.advance(30)
    assert await soon(job) == "picture of j1"


async def test_a_picture_that_is_cut_short_is_asked_for_again_and_then_delivered(bench: Bench) -> None:
    """Half a picture is asked for twice more; then it is what was paid for, and better than nothing."""
    cut = Report(status=JobStatus.SUCCEEDED, pieces=(Piece(data=b"\x89PNG\r\n\x1a\n" + bytes(40)),))
    provider = bench.provider()
    provider.answers = [cut]
    job = provider.watch()
    await bench.clock.advance(100)
    assert await soon(job) == "picture of j1"
    assert provider.times == [10, 20, 30]


async def test_a_word_nobody_knows_does_not_end_the_wait(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """A status this version does not know is logged, shortened, and asked about again."""
    caplog.set_level(logging.INFO)
    provider = bench.provider()
    provider.answers = [Report(status=None, word="PONDERING" * 20), DONE]
    job = provider.watch()
    await bench.clock.advance(10)
    assert job.status is JobStatus.QUEUED
    assert "unknown status 'PONDERING" in caplog.text
    assert max(len(record.getMessage()) for record in caplog.records) < 200
    await bench.clock.advance(10)
    assert await soon(job) == "picture of j1"


async def test_a_job_that_somebody_else_settles_is_not_settled_again(bench: Bench) -> None:
    """A status call that learns of the end too late changes nothing."""
    provider = bench.provider()
    provider.answers = [DONE]
    job = provider.watch(at_once=True)
    assert job.claim()
    await bench.clock.advance(0)
    assert not job.done
    job.resolve(JobStatus.SUCCEEDED, "theirs", None)
    bench.scheduler.forget(job)
    assert await soon(job) == "theirs"
    assert bench.scheduler.statistics().jobs_concluded == 0


async def test_a_status_call_that_fails_after_the_end_is_nobodys_business(bench: Bench) -> None:
    """Whoever learned of the end meanwhile hands the result over; nobody asks any more."""
    provider = bench.provider()
    provider.gate = asyncio.Event()
    provider.answers = [ServerError("502", status=502)]
    job = provider.watch(at_once=True)
    await bench.clock.advance(0)
    assert job.claim()
    provider.gate.set()
    await bench.clock.advance(100)
    assert len(provider.times) == 1
    job.resolve(JobStatus.SUCCEEDED, "from elsewhere", None)
    assert await soon(job) == "from elsewhere"


async def test_an_unfinished_report_after_the_end_is_ignored(bench: Bench) -> None:
    """A late "running" does not move a job that has ended meanwhile."""
    provider = bench.provider()
    provider.gate = asyncio.Event()
    job = provider.watch(at_once=True)
    await bench.clock.advance(0)
    job.claim()
    job.resolve(JobStatus.SUCCEEDED, "theirs", None)
    provider.gate.set()
    await bench.clock.advance(0)
    assert job.status is JobStatus.SUCCEEDED


# --- deadlines ---


async def test_a_deadline_ends_the_wait_in_the_turn_it_is_due(bench: Bench) -> None:
    """At the deadline, not at the next status call, the waiters get `WaitTimeoutError` and the asking ends."""
    provider = bench.provider()
    job = provider.watch(wait=25)
    waiter = asyncio.ensure_future(job.result())
    await bench.clock.advance(24.999)
    assert not waiter.done()
    await bench.clock.advance(0.001)
    with pytest.raises(WaitTimeoutError, match=r"the wait is over after 25\.0 s") as caught:
        await soon(waiter)
    assert (caught.value.token, caught.value.billed) == (job.token(), "yes")
    assert job.status is JobStatus.RUNNING
    await bench.clock.advance(100)
    assert provider.times[:2] == [10, 20]
    assert len(provider.times) == 3  # with the last look
    statistics = bench.scheduler.statistics()
    assert (statistics.jobs_watched, statistics.waits_expired) == (0, 1)


async def test_a_short_wait_ends_in_time_where_nothing_else_is_due_before(bench: Bench) -> None:
    """A deadline is kept although the timer was set for a later moment when it came."""
    provider = bench.provider()
    provider.watch("first")
    job = provider.watch("second", wait=3)
    await bench.clock.advance(3)
    assert isinstance(job.stopped, WaitTimeoutError)


async def test_a_deadline_ends_the_wait_in_the_ready_queue(bench: Bench) -> None:
    """A job that never got its turn is told so, at its deadline."""
    provider = bench.provider(limits=Limits(polls=1))
    provider.gate = asyncio.Event()
    provider.watch("slow", at_once=True)
    hungry = provider.watch("hungry", wait=5, at_once=True)
    waiter = asyncio.ensure_future(hungry.result())
    await bench.clock.advance(4)
    assert provider.asked == [(0, "slow")]
    assert bench.scheduler.statistics().accounts[0].polls_ready == 1
    await bench.clock.advance(1)
    with pytest.raises(WaitTimeoutError, match=r"the status calls in flight \(Limits.polls\), ran out"):
        await soon(waiter)
    provider.gate.set()
    await bench.clock.advance(5)
    assert provider.asked == [(0, "slow")]


@pytest.mark.parametrize("waits", ["the job", "a caller"])
@pytest.mark.parametrize(
    ("limits", "waited_for", "words"),
    [
        (Limits(polls_per_second=0.01), "polls_per_second", r"under Limits\.polls_per_second, ran out"),
        (Limits(polls=None), "pause", "the end of a pause the provider asked for ran out"),
        (Limits(polls=1), "polls", r"the status calls in flight \(Limits\.polls\), ran out"),
        (Limits(polls=2), "job", "the wait is over"),
    ],
)
async def test_a_timeout_says_which_wait_it_was(
    bench: Bench, limits: Limits, waited_for: str, words: str, waits: str
) -> None:
    """The provider's pause, a turn among the calls in flight or under the rate, or the job itself."""
    provider = bench.provider(limits=limits)
    provider.gate = asyncio.Event()
    provider.watch("first", at_once=True)
    await bench.clock.advance(0)
    if waited_for == "pause":
        provider.account.pause(bench.clock.monotonic(), 50.0)
    job = provider.watch("second", wait=5 if waits == "the job" else 500, at_once=True)
    waiter = asyncio.ensure_future(job.result() if waits == "the job" else job.result(max_wait=5))
    await bench.clock.advance(5)
    with pytest.raises(WaitTimeoutError, match=words) as caught:
        await soon(waiter)
    assert caught.value.waited_for == waited_for


async def test_a_timeout_says_that_it_was_the_gentle_pace_after_a_pause(bench: Bench) -> None:
    """Some pauses later calls begin two seconds apart."""
    provider = bench.provider(limits=Limits(polls=None))
    provider.answers = [ResponseError("unreadable")]
    for moment in range(8):
        provider.account.pause(50.0 * moment - 400, 0.0)  # the last of these pauses is over
    jobs = [provider.watch(str(number), wait=3, at_once=True) for number in range(9)]
    await bench.clock.advance(3)
    with pytest.raises(WaitTimeoutError, match="at the gentle pace after a pause") as caught:
        await soon(jobs[-1])
    assert caught.value.waited_for == "spacing"


class Impatient:
    """Asks every hundred seconds and finds that too seldom from the second second on."""

    def next_interval(self, job: JobView) -> float:  # noqa: ARG002 - the protocol's signature
        """Ask seldom."""
        return 100.0

    def observe(self, sighting: Any) -> None:
        """Learn nothing."""

    def urgency(self, job: JobView, last: float) -> float:
        """Find it urgent a second after the last look."""
        return (job.phase_elapsed or 0.0) - last - 1


async def test_spare_calls_are_made_before_they_are_due_where_that_is_asked_for() -> None:
    """Never faster than the rate, each job when it is worth it, and none twice for being due as well."""
    bench = Bench(Impatient())
    provider = bench.provider(limits=Limits(polls_per_second=4, ask_early=True))
    jobs = [provider.watch(str(number)) for number in range(2)]
    await bench.clock.advance(10)
    gaps = [after - before for before, after in zip(provider.times, provider.times[1:], strict=False)]
    assert min(gaps) >= 0.25 - 1e-6
    assert 14 <= len(provider.times) <= 18  # two jobs, once in 1.1 seconds or a little later
    statistics = bench.scheduler.statistics().accounts[0]
    assert statistics.polls_early == statistics.polls_sent == len(provider.times)
    provider.answers = [DONE]
    await bench.clock.advance(3)
    assert all(job.done for job in jobs)
    asked = len(provider.times)
    await bench.clock.advance(200)
    assert (len(provider.times), repr(bench.clock)) == (asked, "<FakeClock 213 s, 0 timers>")
    await bench.scheduler.aclose()


async def test_asking_early_can_be_turned_on_and_off_while_jobs_wait() -> None:
    """The limits of the moment count."""
    bench = Bench(Impatient())
    provider = bench.provider()
    provider.watch()
    await bench.clock.advance(10)
    assert provider.times == []
    bench.scheduler.set_limits(provider.account, Limits(polls_per_second=1, ask_early=True))
    await bench.clock.advance(2)
    asked = len(provider.times)
    assert asked in {1, 2}
    bench.scheduler.set_limits(provider.account, Limits(polls_per_second=1))
    await bench.clock.advance(50)
    assert len(provider.times) == asked
    await bench.scheduler.aclose()


async def test_a_policy_that_cannot_tell_asks_nobody_early(bench: Bench) -> None:
    """Then the option changes nothing, and costs nothing."""
    provider = bench.provider(limits=Limits(polls_per_second=4, ask_early=True))
    provider.watch()
    await bench.clock.advance(35)
    assert provider.times == [10, 20, 30]


async def test_another_rate_holds_for_calls_that_wait_already(bench: Bench) -> None:
    """Raised, the next call comes at the new rate; it does not wait for the old one's turn."""
    provider = bench.provider(limits=Limits(polls_per_second=0.01))
    for number in range(5):
        provider.watch(str(number), at_once=True)
    await bench.clock.advance(7)
    assert provider.times == [0]
    bench.scheduler.set_limits(provider.account, Limits(polls_per_second=2))
    await bench.clock.advance(1.1)
    assert provider.times == [0, 7, 7.5, 8]
    bench.scheduler.set_limits(provider.account, Limits(polls_per_second=0.1))
    await bench.clock.advance(9.8)
    assert provider.times == [0, 7, 7.5, 8]
    await bench.clock.advance(0.2)
    assert provider.times == [0, 7, 7.5, 8, 18]


async def test_a_deadline_ends_the_wait_while_a_call_is_under_way(bench: Bench) -> None:
    """A silent server does not hold the waiters beyond their deadline."""
    provider = bench.provider()
    provider.gate = asyncio.Event()
    job = provider.watch(wait=15)
    waiter = asyncio.ensure_future(job.result())
    await bench.clock.advance(15)
    with pytest.raises(WaitTimeoutError, match="the wait is over"):
        await soon(waiter)
    provider.gate.set()
    await bench.clock.advance(100)
    assert provider.times == [10]


async def test_a_late_success_still_counts(bench: Bench) -> None:
    """A call that was under way at the deadline and brings the result resolves the job after all."""
    provider = bench.provider()
    provider.gate = asyncio.Event()
    provider.answers = [DONE]
    job = provider.watch(wait=15)
    await bench.clock.advance(15)
    with pytest.raises(WaitTimeoutError, match="the wait is over"):
        await soon(job)
    provider.gate.set()
    await bench.clock.advance(0)
    assert await soon(job) == "picture of j1"


async def test_a_late_success_ends_the_wait_that_was_begun_meanwhile(bench: Bench) -> None:
    """While its result is handed over the new wait cannot run out, and nobody asks about the job again."""
    provider = bench.provider()
    provider.gate = asyncio.Event()
    provider.answers = [DONE, RUNNING]
    redeeming = asyncio.Event()

    async def redeem(job: Job[str], report: Report) -> str:
        await redeeming.wait()
        return "picture"

    provider.kind.redeem = redeem
    job = provider.watch(wait=15)
    await bench.clock.advance(15)
    assert isinstance(job.stopped, WaitTimeoutError)
    waiter = asyncio.ensure_future(job.result(max_wait=5))
    plain = asyncio.ensure_future(job.result())
    await bench.clock.advance(0)
    provider.gate.set()
    await bench.clock.advance(4)
    assert job.claimed
    longer = asyncio.ensure_future(job.result(max_wait=100))
    await bench.clock.advance(30)
    assert job.stopped is None
    with pytest.raises(WaitTimeoutError, match="the wait is over"):  # it asked for no more than that
        await soon(waiter)
    redeeming.set()
    assert await soon(plain) == await soon(longer) == "picture"
    assert bench.scheduler.statistics().waits_expired == 1
    assert provider.times == [10, 15]


async def test_a_late_failure_to_answer_is_nobodys_business(bench: Bench) -> None:
    """A call that fails after the wait was over is counted and changes nothing."""
    provider = bench.provider()
    provider.gate = asyncio.Event()
    provider.answers = [AuthenticationError("wrong key", status=401)]
    job = provider.watch(wait=15)
    await bench.clock.advance(15)
    provider.gate.set()
    await bench.clock.advance(50)
    with pytest.raises(WaitTimeoutError, match="the wait is over"):
        await soon(job)
    assert bench.scheduler.statistics().accounts[0].polls_failed == 1
    assert len(provider.asked) == 1


async def test_a_longer_wait_moves_the_deadline_and_a_shorter_one_does_not(bench: Bench) -> None:
    """Watching again extends the wait, never shortens it."""
    provider = bench.provider()
    job = provider.watch(wait=15)
    bench.scheduler.watch(job, 40)
    bench.scheduler.watch(job, 5)
    await bench.clock.advance(39)
    assert job.stopped is None
    assert provider.times[:3] == [10, 20, 30]
    assert 38 <= provider.times[3] <= 39 + TICK  # the last look
    await bench.clock.advance(1)
    assert isinstance(job.stopped, WaitTimeoutError)


async def test_an_extended_wait_asks_at_once_and_keeps_the_job(bench: Bench) -> None:
    """`result(max_wait=)` asks now and extends the one watch there is."""
    provider = bench.provider()
    job = provider.watch(wait=15)
    await bench.clock.advance(4)
    waiter = asyncio.ensure_future(job.result(max_wait=30))
    await bench.clock.advance(1)
    assert provider.times == [4]
    assert bench.scheduler.statistics().jobs_watched == 1
    await bench.clock.advance(28.9)
    assert not waiter.done()
    await bench.clock.advance(0.1)
    with pytest.raises(WaitTimeoutError, match="the wait is over"):
        await soon(waiter)


async def test_an_extended_wait_makes_no_second_call_while_one_is_under_way(bench: Bench) -> None:
    """Whoever only wants to know is told by the answer that is on its way; a hint, though, may be newer than that."""
    provider = bench.provider()
    provider.gate = asyncio.Event()
    job = provider.watch()
    await bench.clock.advance(10)
    waiters = [asyncio.ensure_future(job.result(max_wait=30)) for _ in range(3)]
    await bench.clock.advance(1)
    provider.gate.set()
    await bench.clock.advance(1)
    assert provider.times == [10]
    for waiter in waiters:
        waiter.cancel()


async def test_a_stopped_job_can_be_watched_again(bench: Bench) -> None:
    """After a timeout `result(max_wait=)` begins afresh with an immediate status call."""
    provider = bench.provider()
    job = provider.watch(wait=15)
    await bench.clock.advance(30)
    provider.answers = [DONE]
    waiter = asyncio.ensure_future(job.result(max_wait=5))
    await bench.clock.advance(0)
    assert await soon(waiter) == "picture of j1"
    assert [provider.times[0], *provider.times[2:]] == [10, 30]  # and the last look of the first wait
    assert 13 <= provider.times[1] <= 14 + TICK


async def test_a_wait_that_is_over_before_it_began_ends_at_once(bench: Bench) -> None:
    """A deadline in the past ends the wait in the next turn."""
    job = bench.provider().watch(wait=-5)
    await bench.clock.advance(0)
    assert isinstance(job.stopped, WaitTimeoutError)


# --- the last look ---


@pytest.mark.parametrize(("wait", "earliest", "latest"), [(180, 178, 179), (4, 3, 3.5), (1, 0.75, 0.875)])
async def test_before_a_wait_ends_there_is_a_last_look(wait: float, earliest: float, latest: float) -> None:
    """One or two seconds before the end, or a quarter to an eighth of a short wait, and not all in one moment."""
    bench = Bench(FixedInterval(100))
    provider = bench.provider(limits=Limits(polls=None))
    provider.answers = [*[RUNNING] * (50 if wait > 100 else 0), DONE]
    jobs = [provider.watch(str(number), wait=wait) for number in range(50)]
    await bench.clock.advance(wait)
    assert {job.status for job in jobs} == {JobStatus.SUCCEEDED}
    looks = provider.times[-50:]
    assert earliest <= min(looks) <= max(looks) <= latest + 2 * TICK + 1e-6
    assert len(set(looks)) >= 3
    await bench.scheduler.aclose()


@pytest.mark.parametrize(
    ("interval", "wait", "times"),
    [
        (10, 20.6, [10, 20]),  # late enough by itself
        (10, 11.5, [10]),  # the look just made was the last one
        (10, 12.2, [10]),  # less than the least interval before the time for it
        (0.5, 2.9, [0.5, 1, 1.5, 2, 2.5]),
        (100_000, 40, [39]),
    ],
)
async def test_a_last_look_is_made_only_where_the_next_would_be_too_late(
    interval: float, wait: float, times: list[float]
) -> None:
    """And not sooner after the look before than any policy would ask; slack does not make it late."""
    bench = Bench(FixedInterval(interval, jitter=0))
    provider = bench.provider()
    provider.watch(wait=wait)
    await bench.clock.advance(wait + 5)
    assert provider.times == pytest.approx(times, abs=1.0 if times == [39] else TICK)
    await bench.scheduler.aclose()


async def test_the_minimum_of_the_policy_holds_for_the_last_look() -> None:
    """Where the next look comes too late and the last one would come too soon, there is none."""
    bench = Bench(AdaptiveInterval(minimum=30, maximum=600, seed=1))
    provider = bench.provider()
    job = provider.watch(wait=50)
    await bench.clock.advance(50)
    assert provider.times == [30]
    assert isinstance(job.stopped, WaitTimeoutError)
    await bench.scheduler.aclose()


@pytest.mark.parametrize(("wait", "earliest", "latest"), [(20, 18, 19), (4, 3, 3.5)])
async def test_before_a_callers_own_wait_ends_there_is_a_last_look(wait: float, earliest: float, latest: float) -> None:
    """What has ended meanwhile is delivered although the watching, and so the next look, goes on much longer."""
    bench = Bench(FixedInterval(100))
    provider = bench.provider(limits=Limits(polls=None))
    jobs = [provider.watch(str(number)) for number in range(50)]
    waiters = [asyncio.ensure_future(job.result(max_wait=wait)) for job in jobs]
    await bench.clock.advance(1)
    provider.answers = [DONE]
    await bench.clock.advance(wait - 1)
    assert {await soon(waiter) for waiter in waiters} == {f"picture of {job.id}" for job in jobs}
    looks = provider.times[50:]
    assert len(looks) == 50
    assert earliest <= min(looks) <= max(looks) <= latest + 2 * TICK + 1e-6
    assert len(set(looks)) >= 3
    await bench.scheduler.aclose()


@pytest.mark.parametrize(
    ("interval", "wait", "times"),
    [
        (10, 20.6, [0, 10, 20, 30]),  # late enough by itself
        (19.9, 20, [0, 18.5]),  # too late for an answer: earlier
        (18, 20, [0, 18, 36]),  # looked at as the time for the last look began
        (9.9, 10, [0, 8.5, 18.4, 28.3]),
        (100, 0.3, [0]),  # less than the least interval after the look at the beginning
    ],
)
async def test_a_callers_last_look_is_made_only_where_the_next_would_be_too_late(
    bench: Bench, interval: float, wait: float, times: list[float]
) -> None:
    """And the interval that follows is the usual one."""
    provider = bench.provider()
    bench.scheduler._policy._seconds = interval  # type: ignore[attr-defined]
    job = provider.watch()
    waiter = asyncio.ensure_future(job.result(max_wait=wait))
    await bench.clock.advance(36.5)
    assert provider.times == pytest.approx(times, abs=0.5 + TICK)
    with pytest.raises(WaitTimeoutError):
        await soon(waiter)


async def test_a_callers_last_look_needs_a_job_that_waits_for_one(bench: Bench) -> None:
    """One that is in line, being asked about or not watched any more is left alone."""
    provider = bench.provider(limits=Limits(polls=1))
    provider.gate = asyncio.Event()
    flying, ready, forgotten = [provider.watch(name, at_once=True) for name in ("flying", "ready", "forgotten")]
    await bench.clock.advance(0)
    bench.scheduler.forget(forgotten)
    for job in (flying, ready, forgotten):
        bench.scheduler.look_before(job, 2, 1)
    await bench.clock.advance(2)
    provider.gate.set()
    await bench.clock.advance(5)
    assert provider.asked == [(0, "flying"), (2, "ready")]


def stop(bench: Bench, seconds: float) -> None:
    """Let time go by as for a process that is stopped: nothing happens meanwhile, and all of it afterwards."""
    bench.clock._now += seconds


async def test_a_process_that_was_stopped_beyond_the_deadline_makes_one_call_first(bench: Bench) -> None:
    """What ended meanwhile is delivered; for the rest the wait is over as soon as the answer says that it goes on."""
    provider = bench.provider()
    asked: list[str | None] = []

    async def look(job: Job[str]) -> Report:
        asked.append(job.id)
        if job.id == "failing":
            message = "500"
            raise ServerError(message, status=500)
        return DONE if job.id == "done" else RUNNING

    provider.kind.look = look
    done, *others = [provider.watch(name, wait=4) for name in ("done", "running", "failing")]
    stop(bench, 5)
    waiter = asyncio.ensure_future(done.result())
    await bench.clock.advance(0)
    assert await soon(waiter) == "picture of done"
    for job in others:
        with pytest.raises(WaitTimeoutError, match=r"the wait is over after 5\.0 s"):
            await soon(job)
    await bench.clock.advance(100)
    assert sorted(map(str, asked)) == ["done", "failing", "running"]
    statistics = bench.scheduler.statistics()
    assert (statistics.jobs_watched, statistics.waits_expired) == (0, 2)


async def test_the_call_after_a_stop_is_waited_for_ten_seconds_and_under_all_limits(bench: Bench) -> None:
    """One that gets no turn until then is told so; another that was extended meanwhile waits as long as that says."""
    provider = bench.provider(limits=Limits(polls=2))
    provider.gate = asyncio.Event()
    jobs = [provider.watch(str(number), wait=4) for number in range(3)]
    stop(bench, 5)
    await bench.clock.advance(1)
    asked = [job_id for _, job_id in provider.asked]
    assert len(asked) == 2
    jobs.sort(key=lambda job: asked.index(job.id) if job.id in asked else 2)
    bench.scheduler.watch(jobs[1], 12)
    await bench.clock.advance(5.9)
    assert [job.stopped for job in jobs] == [None] * 3
    await bench.clock.advance(0.1)
    assert isinstance(jobs[1].stopped, WaitTimeoutError)
    await bench.clock.advance(2.9)
    assert jobs[0].stopped is jobs[2].stopped is None
    await bench.clock.advance(0.1)
    waited_for = [job.stopped.waited_for for job in jobs if isinstance(job.stopped, WaitTimeoutError)]
    assert waited_for == ["job", "job", "polls"]


async def test_an_answer_that_came_while_the_process_was_stopped_is_read_first(bench: Bench) -> None:
    """A call that began before the stop is not made again; if it brings nothing, the wait ends."""
    provider = bench.provider()
    provider.gate = asyncio.Event()
    job = provider.watch(wait=15)
    await bench.clock.advance(12)
    stop(bench, 20)
    provider.answers = [DONE]
    await bench.clock.advance(0)
    assert job.stopped is None
    provider.gate.set()
    await bench.clock.advance(0)
    assert await soon(job) == "picture of j1"
    assert provider.times == [10]


async def test_a_wait_without_a_look_to_come_ends_after_a_stop_as_well(bench: Bench) -> None:
    """Where the last look had been made, the next one was to come after the end."""
    provider = bench.provider()
    provider.watch(wait=11.5)
    await bench.clock.advance(11)
    stop(bench, 50)
    await bench.clock.advance(0)
    assert provider.times == [10]
    assert bench.scheduler.statistics().waits_expired == 1


async def test_a_stop_of_minutes_cuts_no_call_whose_answer_has_come_meanwhile(bench: Bench) -> None:
    """The sweep lets it be read first; a call that got no answer is cut short by the next one."""
    provider = bench.provider()
    provider.gate = asyncio.Event()
    over, going_on = provider.watch("over", wait=15), provider.watch("going on")
    await bench.clock.advance(12)
    stop(bench, 600)
    provider.answers = [DONE]
    await bench.clock.advance(1)
    assert (provider.in_flight, over.stopped) == (2, None)
    provider.gate.set()
    await bench.clock.advance(0)
    assert [await soon(over), await soon(going_on)] == ["picture of over", "picture of going on"]
    assert provider.times == [10, 10]
    provider.gate = asyncio.Event()
    provider.watch("unanswered", at_once=True)
    await bench.clock.advance(1)
    stop(bench, 600)
    await bench.clock.advance(5)
    assert provider.in_flight == 0


@pytest.mark.parametrize("by", ["a longer wait", "a hint and a longer wait"])
async def test_a_wait_that_is_over_and_goes_on_after_all_is_asked_about(bench: Bench, by: str) -> None:
    """While so many others are told that theirs is over that it takes more than one turn."""
    provider = bench.provider(limits=Limits(polls=None))
    jobs = [provider.watch(str(number), wait=11.5) for number in range(2 * SLICE)]
    await bench.clock.advance(11)  # asked at 10, and to be asked at 20, which was after the end
    stop(bench, 50)
    last = jobs[-1]

    def go_on(_: object) -> None:
        assert last.stopped is None
        if by != "a longer wait":
            bench.scheduler.wake(last)
        bench.scheduler.watch(last, 200, at_once=True)

    first = asyncio.ensure_future(jobs[0].result())
    first.add_done_callback(go_on)
    provider.answers = [DONE]
    await bench.clock.advance(0)
    with pytest.raises(WaitTimeoutError):
        await soon(first)
    assert await soon(last) == f"picture of {last.id}"
    assert provider.times[2 * SLICE :] == [61]


async def test_a_flood_of_calls_after_a_stop_is_made_ready_in_parts(bench: Bench) -> None:
    """No wait ends before it is known whom a look is owed."""
    provider = bench.provider(limits=Limits(polls=None))
    provider.answers = [DONE]
    jobs = [provider.watch(str(number), wait=4) for number in range(2 * MOST_DUE + 1)]
    stop(bench, 5)
    assert MOST_DUE / 2 < await largest_step(provider.asked, bench.clock.advance(0)) <= MOST_DUE
    assert {job.status for job in jobs} == {JobStatus.SUCCEEDED}


# --- trouble ---


@pytest.mark.parametrize(
    "trouble",
    [
        ServerError("500", status=500),
        ServerError("503", status=503),
        RateLimitError("429", status=429),
        ResponseError("unreadable"),
        ConnectionFailedError("refused"),
        PermissionDeniedError("403", status=403, body="<html>Access denied</html>"),
        APIError("409", status=409),
        NOT_FOUND,
        KeyError("surprise"),
        RuntimeError("surprise"),
    ],
    ids=lambda error: f"{type(error).__name__} {error}",
)
async def test_a_bad_status_call_never_fails_a_job(bench: Bench, trouble: Exception) -> None:
    """One bad answer costs one interval, and nothing else."""
    provider = bench.provider()
    provider.answers = [trouble, DONE]
    job = provider.watch()
    await bench.clock.advance(10)
    assert (job.done, job.stopped) == (False, None)
    await bench.clock.advance(10)
    assert await soon(job) == "picture of j1"
    assert bench.scheduler.statistics().accounts[0].polls_failed == 1


async def test_an_unforeseen_exception_is_logged_with_its_traceback(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """A mistake of ours in a status call is not hidden, and not the job's problem."""
    provider = bench.provider()
    provider.answers = [KeyError("surprise"), DONE]
    provider.watch(at_once=True)
    await bench.clock.advance(0)
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "failed in an unforeseen way" in record.getMessage()
    assert record.exc_info is not None


def assert_about(gaps: list[float], least: list[float]) -> None:
    """Compare seconds between calls with the least they may be: up to a quarter more comes by chance after a miss."""
    for gap, seconds in zip(gaps[: len(least)], least, strict=True):
        assert seconds - TICK <= gap <= 1.25 * seconds + TICK, gaps


async def test_trouble_is_asked_about_ever_less_often() -> None:
    """Misses in a row stretch a short interval: 1, 2, 4 ... at most 30 s and a quarter; an answer ends that."""
    bench = Bench(FixedInterval(0.5, jitter=0))
    provider = bench.provider()
    provider.answers = [*[ServerError("502", status=502)] * 8, RUNNING, ServerError("502", status=502)]
    provider.watch(at_once=True)
    await bench.clock.advance(158)
    gaps = [after - before for before, after in zip(provider.times, provider.times[1:], strict=False)]
    assert_about(gaps, [1, 2, 4, 8, 16, 30, 30, 30, 0.5, 1])
    await bench.scheduler.aclose()


async def test_jobs_that_failed_together_are_not_repeated_together() -> None:
    """A server that comes back does not get all of them in one moment, whatever the policy."""
    bench = Bench(FixedInterval(1, jitter=0))
    provider = bench.provider(limits=Limits(polls=None))
    provider.answers = [ConnectionFailedError("reset")]
    for number in range(200):
        provider.watch(f"j{number}")
    await bench.clock.advance(10)
    moments = Counter(moment for moment in provider.times if moment > 4)
    assert max(moments.values()) < 40
    await bench.scheduler.aclose()


@pytest.mark.parametrize("asked_for", [20.0, 500.0])
async def test_an_answer_may_say_when_to_come_back(asked_for: float, bench: Bench) -> None:
    """What a good answer's Retry-After says holds for its job, up to a minute, and for no other one."""
    provider = bench.provider()
    provider.answers = [
        Report(status=JobStatus.RUNNING, word="IN_PROGRESS", retry_after=asked_for),
        Report(status=JobStatus.RUNNING, word="IN_PROGRESS", retry_after=0.5),
        RUNNING,
    ]
    provider.watch("patient")
    await bench.clock.advance(5)
    provider.watch("other")
    await bench.clock.advance(80)
    assert [moment for moment, job in provider.asked if job == "patient"][:2] == [10, 10 + min(asked_for, 60)]
    assert [moment for moment, job in provider.asked if job == "other"][:3] == [15, 25, 35]
    assert bench.scheduler.statistics().accounts[0].throttles == 0


async def test_no_early_look_comes_before_what_an_answer_asked_for() -> None:
    """What the provider wants to be left alone is not asked about to use up what the rate allows."""
    bench = Bench(AdaptiveInterval(seed=1))
    provider = bench.provider(limits=Limits(polls_per_second=1, ask_early=True))
    provider.answers = [Report(status=JobStatus.RUNNING, word="IN_PROGRESS", retry_after=60.0)]
    provider.watch(at_once=True)
    await bench.clock.advance(200)
    assert len(provider.times) == 4
    assert all(after - before >= 60 for before, after in pairwise(provider.times))
    await bench.scheduler.aclose()


async def test_a_hint_comes_before_what_an_answer_asked_for(bench: Bench) -> None:
    """Whoever has called back has something to say sooner than it had thought."""
    provider = bench.provider()
    provider.answers = [Report(status=JobStatus.RUNNING, word="IN_PROGRESS", retry_after=50.0), RUNNING]
    job = provider.watch()
    await bench.clock.advance(12)
    bench.scheduler.wake(job)
    await bench.clock.advance(1)
    assert provider.times == [10, 12]


async def test_a_poller_does_not_live_in_the_context_of_the_request_that_began_it(bench: Bench) -> None:
    """It asks about everybody's jobs, and outlives the request; what that knows must neither show nor stay."""
    request: ContextVar[str] = ContextVar("request", default="nobody's")
    seen: list[str] = []

    class Watched(Provider):
        async def look(self, job: Job[str]) -> Report:
            seen.append(request.get())
            return await super().look(job)

    provider = Watched(bench, "miragic", Limits())
    request.set("the first")
    provider.watch("j1", at_once=True)
    await bench.clock.advance(1)
    request.set("the second")
    provider.watch("j2")
    await bench.clock.advance(30)
    assert len(seen) > 3
    assert set(seen) == {"nobody's"}


# --- counting ---


async def test_counts_never_go_back_when_an_account_is_gone(bench: Bench) -> None:
    """Status calls of a client that nobody has any more were made all the same."""
    provider = bench.provider()
    provider.answers = [DONE]
    job = provider.watch(at_once=True)
    await bench.clock.advance(1)
    assert await soon(job) == "picture of j1"
    assert bench.scheduler.statistics().polls_sent == 1
    del provider, job
    bench.ended.clear()
    await bench.clock.advance(12)  # and the poller that has rested goes home
    gc.collect()
    statistics = bench.scheduler.statistics()
    assert (statistics.accounts, statistics.polls_sent, statistics.jobs_concluded) == ((), 1, 1)


async def test_a_call_that_was_not_made_is_not_counted(bench: Bench) -> None:
    """A job may be forgotten between being taken from the line and being asked about."""
    provider = bench.provider()
    job = provider.watch(at_once=True)
    bench.scheduler.forget(job)
    await bench.clock.advance(1)
    statistics = bench.scheduler.statistics()
    assert (provider.asked, statistics.polls_sent, statistics.accounts[0].polls_sent) == ([], 0, 0)


async def test_jobs_and_calls_are_counted_by_kind() -> None:
    """Per model as per account: jobs that somebody asks about, and status calls begun."""
    bench = Bench(AdaptiveInterval(seed=1))
    provider = bench.provider()
    jobs = []
    for number, model in enumerate(["flux", "flux", "sdxl"]):
        jobs.append(new_job(provider.kind, id=f"j{number}", model=model, status=JobStatus.QUEUED))
        bench.scheduler.watch(jobs[-1], 1000)
    await bench.clock.advance(30)
    made = Counter(job.model for job in jobs for _ in range(job.polls))
    bench.scheduler.forget(jobs[0])
    statistics = bench.scheduler.statistics()
    found = {each.model: (each.jobs_watched, each.polls_sent) for each in statistics.models if each.phase == "queued"}
    assert found == {"flux": (1, made["flux"]), "sdxl": (1, made["sdxl"])}
    assert sum(made.values()) == statistics.polls_sent > 4
    assert statistics.accounts[0].jobs_in_flight == 2
    await bench.scheduler.aclose()


async def test_kinds_without_jobs_are_forgotten_when_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that takes the model from its users counts for as many kinds as have jobs, and not for ever."""
    monkeypatch.setattr(_learning, "MOST_KINDS", 3)
    bench = Bench(AdaptiveInterval(seed=1))
    provider = bench.provider()
    kept = new_job(provider.kind, id="j", model="kept", status=JobStatus.QUEUED)
    bench.scheduler.watch(kept, 1000)
    for number in range(20):
        job = new_job(provider.kind, id=f"j{number}", model=f"m{number}", status=JobStatus.QUEUED)
        bench.scheduler.watch(job, 1000, at_once=True)
        await bench.clock.advance(0.01)
        bench.scheduler.forget(job)
    models = {each.model: each.jobs_watched for each in bench.scheduler.statistics().models}
    assert models["kept"] == 1
    assert len(bench.scheduler._learning._counts) <= 3
    assert bench.scheduler.statistics().polls_sent == len(provider.asked) >= 20
    await bench.scheduler.aclose()


class Telling(FixedInterval):
    """A policy whose statistics are its own."""

    def statistics(self) -> tuple[str, ...]:
        """Say something."""
        return ("well",)


async def test_what_a_policy_of_ones_own_tells_is_passed_on() -> None:
    """Whatever it is made of."""
    bench = Bench(Telling(10))
    assert cast("Any", bench.scheduler.statistics().models) == ("well",)
    await bench.scheduler.aclose()


@pytest.mark.parametrize(
    "refusal",
    [
        AuthenticationError("wrong key", status=401, body='{"error": "wrong key"}'),
        PermissionDeniedError("not yours", status=403, body='{"error": "not yours"}'),
        ConfigurationError("its address has moved"),
    ],
    ids=["401", "403", "moved"],
)
async def test_a_clear_refusal_stops_the_waiting(bench: Bench, refusal: MirageError) -> None:
    """The waiters get the refusal, the status stays, and the job can be watched again."""
    provider = bench.provider()
    provider.answers = [RUNNING, refusal]
    job = provider.watch()
    waiter = asyncio.ensure_future(job.result())
    await bench.clock.advance(20)
    with pytest.raises(type(refusal), match=str(refusal)):
        await soon(waiter)
    assert (job.status, job.done) == (JobStatus.RUNNING, False)
    await bench.clock.advance(100)
    assert len(provider.asked) == 2
    assert bench.scheduler.statistics().jobs_watched == 0
    provider.answers = [DONE]
    again = asyncio.ensure_future(job.result(max_wait=5))
    await bench.clock.advance(0)
    assert await soon(again) == "picture of j1"


async def test_three_times_unknown_is_not_believed(bench: Bench) -> None:
    """Three answers "no such job" in a row are waited out."""
    provider = bench.provider()
    provider.answers = [NOT_FOUND, NOT_FOUND, NOT_FOUND, DONE]
    job = provider.watch()
    await bench.clock.advance(40)
    assert await soon(job) == "picture of j1"


async def test_four_times_unknown_in_a_row_stops_the_waiting(bench: Bench) -> None:
    """The fourth answer in a row is believed; the status stays."""
    provider = bench.provider()
    provider.answers = [NOT_FOUND]
    job = provider.watch()
    await bench.clock.advance(100)
    with pytest.raises(NotFoundError, match="no such job"):
        await soon(job)
    assert provider.times == [10, 20, 30, 40]
    assert job.status is JobStatus.QUEUED


async def test_unknown_counts_in_a_row_only(bench: Bench) -> None:
    """A good answer in between starts the count afresh."""
    provider = bench.provider()
    provider.answers = [*[NOT_FOUND] * 3, RUNNING, *[NOT_FOUND] * 3, DONE]
    job = provider.watch()
    await bench.clock.advance(80)
    assert await soon(job) == "picture of j1"


# --- pauses ---


async def test_throttling_pauses_the_whole_account_and_no_other(bench: Bench) -> None:
    """A 429 for one job stops the calls for all jobs of its account for as long as was asked; others go on."""
    throttled, other = bench.provider("miragic"), bench.provider("mirako")
    throttled.answers = [RateLimitError("429", status=429, retry_after=35.0), RUNNING]
    throttled.watch("first")
    await bench.clock.advance(1)
    throttled.watch("second")
    other.watch("third")
    await bench.clock.advance(43)
    assert throttled.asked == [(10, "first")]
    assert other.times == [11, 21, 31, 41]
    assert bench.scheduler.statistics().accounts[0].paused_for == 1
    await bench.clock.advance(1)
    assert throttled.asked[1:] == [(45, "second")]
    await bench.clock.advance(0.05)
    assert [job_id for _, job_id in throttled.asked] == ["first", "second", "first"]
    assert throttled.times[2] == 45.045
    assert bench.scheduler.statistics().accounts[0].throttles == 1


async def test_a_pause_lasts_at_most_a_minute(bench: Bench) -> None:
    """A provider that asks for an hour is asked again after a minute, since a job waits."""
    provider = bench.provider()
    provider.answers = [RateLimitError("429", status=429, retry_after=3600.0), DONE]
    job = provider.watch()
    await bench.clock.advance(69.9)
    assert not job.done
    await bench.clock.advance(0.1)
    assert await soon(job) == "picture of j1"


async def test_a_server_error_with_a_wish_pauses_as_well(bench: Bench) -> None:
    """503 with Retry-After is the same wish in other words."""
    provider = bench.provider()
    provider.answers = [ServerError("503", status=503, retry_after=20.0), RUNNING]
    provider.watch()
    await bench.clock.advance(40)
    assert provider.times == [10, 30, 40]


async def test_pauses_without_a_wish_grow_until_an_answer_comes() -> None:
    """Without Retry-After the account pauses 1, 2, 4 ... seconds; a good answer starts them small again."""
    bench = Bench(FixedInterval(0.5, jitter=0))
    provider = bench.provider()
    throttle = RateLimitError("429", status=429)
    provider.answers = [throttle, throttle, throttle, RUNNING, throttle, RUNNING]
    provider.watch(at_once=True)
    await bench.clock.advance(12)
    gaps = [after - before for before, after in zip(provider.times, provider.times[1:], strict=False)]
    assert_about(gaps, [1, 2, 4, 0.5, 1, 0.5])
    await bench.scheduler.aclose()


async def test_one_burst_of_throttling_counts_as_one() -> None:
    """Calls in flight together that are all throttled tell the same news: the account pauses for the first step."""
    bench = Bench()
    provider = bench.provider()
    provider.answers = [RateLimitError("429", status=429)]
    for number in range(32):
        provider.watch(str(number), at_once=True)
    await bench.clock.advance(0)
    assert bench.scheduler.statistics().accounts[0].paused_for <= 2
    await bench.scheduler.aclose()


async def test_one_burst_of_throttling_that_asks_for_nothing_counts_as_one_and_pauses(bench: Bench) -> None:
    """A `Retry-After` of 0, or a date just past, is a floor under our own pause, not a replacement for it."""
    provider = bench.provider()
    provider.answers = [RateLimitError("429", status=429, retry_after=0.0)]
    for number in range(32):
        provider.watch(str(number), at_once=True)
    await bench.clock.advance(0)
    account = bench.scheduler.statistics().accounts[0]
    assert (account.paused_for, account.spacing) == (1, 0.05)
    await bench.clock.advance(0.99)
    assert len(provider.asked) == 32


async def test_a_throttle_that_straggles_in_after_the_pause_is_of_the_same_burst(bench: Bench) -> None:
    """It was the answer to a call from before; what it asks for is granted, and nothing is doubled."""
    provider = bench.provider()
    gates, answers = {name: asyncio.Event() for name in "abc"}, {"c": 7.0}

    async def look(job: Job[str]) -> Report:
        provider.asked.append((bench.clock.monotonic(), job.id))
        assert job.id is not None
        await gates[job.id].wait()
        message = "429"
        raise RateLimitError(message, status=429, retry_after=answers.get(job.id))

    provider.kind.look = look
    for name in gates:
        provider.watch(name, at_once=True)
    await bench.clock.advance(0)
    told = list[tuple[float, float]]()
    for gate in gates.values():
        gate.set()
        await bench.clock.advance(0)
        account = bench.scheduler.statistics().accounts[0]
        told.append((account.spacing, account.paused_for))
        await bench.clock.advance(2)
    assert told == [(0.05, 1), (0.05, 0), (0.05, 7)]
    await bench.clock.advance(100)  # asked after the pause and throttled again: that is news
    assert bench.scheduler.statistics().accounts[0].spacing > 0.05


async def test_answers_to_questions_from_before_a_throttle_do_not_undo_it(bench: Bench) -> None:
    """One of 32 calls in flight together is throttled, the others are answered: what waits comes back gently."""
    provider = bench.provider()
    provider.answers = [RateLimitError("429", status=429, retry_after=5.0), RUNNING]
    provider.gate = asyncio.Event()
    for number in range(100):
        provider.watch(str(number), at_once=True)
    await bench.clock.advance(0)
    assert provider.in_flight == 32
    provider.gate.set()
    await bench.clock.advance(0)
    account = bench.scheduler.statistics().accounts[0]
    assert (account.throttles, account.spacing, account.polls_in_flight) == (1, 0.05, 0)
    await bench.clock.advance(5.17)
    assert provider.times[32:] == pytest.approx([5, 5.045, 5.0855, 5.12195, 5.154755])
    # Each of these was asked after the pause, and its good answer takes back a tenth.
    assert bench.scheduler.statistics().accounts[0].spacing == pytest.approx(0.05 * 0.9**5)


# --- limits ---


@pytest.mark.parametrize("polls", [1, 3, 32])
async def test_no_more_calls_are_in_flight_than_allowed(bench: Bench, polls: int) -> None:
    """With hundreds of due jobs exactly as many calls are under way as the limit says, and every job gets its turn."""
    provider = bench.provider(limits=Limits(polls=polls))
    provider.gate = asyncio.Event()
    provider.answers = [DONE]
    jobs = [provider.watch(str(number), at_once=True) for number in range(300)]
    await bench.clock.advance(0)
    account = bench.scheduler.statistics().accounts[0]
    assert (account.polls_in_flight, account.polls_ready, account.polls_sent) == (polls, 300 - polls, polls)
    provider.gate.set()
    for _ in range(20):
        await bench.clock.advance(0)
    assert all(job.done for job in jobs)
    assert [job_id for _, job_id in provider.asked] == [str(number) for number in range(300)]
    assert provider.most_in_flight == polls
    assert bench.scheduler.statistics().accounts[0].most_polls_in_flight == polls


async def test_without_a_limit_all_due_calls_are_made_together(bench: Bench) -> None:
    """`Limits(polls=None)` means what it says."""
    provider = bench.provider(limits=Limits(polls=None))
    provider.gate = asyncio.Event()
    for number in range(300):
        provider.watch(str(number), at_once=True)
    await bench.clock.advance(0)
    assert bench.scheduler.statistics().polls_in_flight == 300
    provider.gate.set()


async def test_a_rate_is_spread_evenly(bench: Bench) -> None:
    """`polls_per_second=4` begins a call every quarter of a second, without a burst at the start."""
    provider = bench.provider(limits=Limits(polls_per_second=4))
    for number in range(40):
        provider.watch(str(number), at_once=True)
    await bench.clock.advance(5)
    assert provider.times == [number / 4 for number in range(21)]


async def test_a_rate_holds_for_pollers_that_carry_on(bench: Bench) -> None:
    """A poller that finishes early does not take the next job before its moment."""
    provider = bench.provider(limits=Limits(polls=1, polls_per_second=2))
    provider.answers = [DONE]
    jobs = [provider.watch(str(number), at_once=True) for number in range(4)]
    await bench.clock.advance(1.5)
    assert provider.times == [0, 0.5, 1, 1.5]
    assert all(job.done for job in jobs)


async def test_limits_can_be_changed_at_run_time(bench: Bench) -> None:
    """Raising lets more calls begin, lowering lets those under way finish and begins no more."""
    provider = bench.provider(limits=Limits(polls=2))
    provider.gate = asyncio.Event()
    for number in range(20):
        provider.watch(str(number), at_once=True)
    await bench.clock.advance(0)
    provider.account.set_limits(Limits(polls=5))
    provider.watch("late", at_once=True)
    await bench.clock.advance(0)
    assert provider.in_flight == 5
    provider.account.set_limits(Limits(polls=1))
    old, provider.gate = provider.gate, asyncio.Event()
    old.set()
    await bench.clock.advance(0)
    assert provider.in_flight == 1
    assert bench.scheduler.statistics().accounts[0].limits == Limits(polls=1)
    provider.gate.set()


@settings(max_examples=12, deadline=None)
@given(
    polls=st.integers(1, 5),
    rate=st.none() | st.sampled_from([0.5, 2.0, 10.0]),
    jobs=st.integers(1, 30),
    seed=st.randoms(use_true_random=False),
)
def test_no_mixture_of_answers_breaks_a_limit_or_loses_a_job(
    polls: int, rate: float | None, jobs: int, seed: Any
) -> None:
    """Whatever comes back, limits hold and every job ends as a result or a timeout at its deadline."""

    async def run() -> None:
        bench = Bench(FixedInterval(1))
        provider = bench.provider(limits=Limits(polls=polls, polls_per_second=rate))
        choices = [RUNNING, QUEUED, DONE, HOLLOW, RateLimitError("429", status=429), ResponseError("x")]
        provider.answers = [*(seed.choice(choices) for _ in range(200)), DONE]
        watched = [provider.watch(str(number), wait=300) for number in range(jobs)]
        for _ in range(300):
            await bench.clock.advance(1)
        assert all(job.done or isinstance(job.stopped, WaitTimeoutError) for job in watched)
        assert provider.most_in_flight <= polls
        if rate is not None:
            gaps = [after - before for before, after in zip(provider.times, provider.times[1:], strict=False)]
            assert all(gap >= 1 / rate - 0.01 - 1e-5 for gap in gaps)
        statistics = bench.scheduler.statistics()
        assert (statistics.jobs_watched, statistics.polls_in_flight) == (0, 0)
        assert statistics.jobs_concluded + statistics.waits_expired >= jobs
        await bench.scheduler.aclose()

    asyncio.run(run())


# --- hints ---


async def test_a_hint_asks_now(bench: Bench) -> None:
    """A webhook's hint brings the next call forward, and the interval starts from there."""
    provider = bench.provider()
    job = provider.watch()
    await bench.clock.advance(4)
    bench.scheduler.wake(job)
    await bench.clock.advance(10)
    assert provider.times == [4, 14]


async def test_a_hint_during_a_call_asks_right_after_it(bench: Bench) -> None:
    """The call under way may have been answered before the change: one more follows at once, and one only."""
    provider = bench.provider()
    provider.gate = asyncio.Event()
    job = provider.watch(at_once=True)
    await bench.clock.advance(2)
    bench.scheduler.wake(job)
    bench.scheduler.wake(job)
    await bench.clock.advance(1)
    assert provider.times == [0]
    provider.gate.set()
    await bench.clock.advance(10)
    assert provider.times == [0, 3, 13]


async def test_a_hint_for_a_job_in_line_changes_nothing(bench: Bench) -> None:
    """A job that already waits for its turn is asked about once."""
    provider = bench.provider(limits=Limits(polls=1))
    provider.gate = asyncio.Event()
    provider.watch("slow", at_once=True)
    job = provider.watch("ready", at_once=True)
    await bench.clock.advance(0)
    bench.scheduler.wake(job)
    provider.gate.set()
    await bench.clock.advance(0)
    assert provider.asked == [(0, "slow"), (0, "ready")]


async def test_a_hint_about_a_job_nobody_watches_is_ignored(bench: Bench) -> None:
    """Late hints are harmless."""
    provider = bench.provider()
    bench.scheduler.wake(provider.job())
    await bench.clock.advance(100)
    assert provider.asked == []


async def test_a_flood_of_hints_within_one_tick_leaves_nothing_behind(bench: Bench) -> None:
    """The wheel stays within twice its live size, and knows it, however many hints come in one tick."""
    provider = bench.provider()
    job = provider.watch()
    for _ in range(1000):
        bench.scheduler.wake(job)
    assert sum(len(slot.items) for slot in bench.scheduler._due._slots.values()) <= 2 + 65
    await bench.clock.advance(1)
    assert len(provider.asked) == 1
    assert len(bench.scheduler._due) == 1


async def test_a_forgotten_job_is_asked_about_no_more(bench: Bench) -> None:
    """Forgetting works for a job that waits, one in line, one being asked about, and one that is forgotten."""
    provider = bench.provider(limits=Limits(polls=1))
    provider.gate = asyncio.Event()
    flying = provider.watch("flying", at_once=True)
    in_line = provider.watch("in line", at_once=True)
    waiting = provider.watch("waiting")
    await bench.clock.advance(0)
    for job in (flying, in_line, waiting, waiting, provider.job("stranger")):
        bench.scheduler.forget(job)
    provider.gate.set()
    await bench.clock.advance(100)
    assert provider.asked == [(0, "flying")]
    assert bench.scheduler.statistics().jobs_watched == 0
    assert bench.scheduler.watched(provider.account) == []


async def test_a_job_forgotten_between_being_taken_and_being_asked_about_costs_nothing(bench: Bench) -> None:
    """Its poller goes on to the next job without a call."""
    provider = bench.provider(limits=Limits(polls=1))
    first = provider.watch("first", at_once=True)
    provider.watch("second", at_once=True)
    bench.scheduler._turn()
    bench.scheduler.forget(first)
    await bench.clock.advance(0)
    assert provider.asked == [(0, "second")]


# --- the sweep ---


async def test_a_call_that_drags_on_is_cancelled_and_made_again(bench: Bench) -> None:
    """After 90 seconds, give or take a sweep, the call is given up, counted as a miss, and the job asked about anew."""
    provider = bench.provider()
    provider.gate = asyncio.Event()
    job = provider.watch("stuck", at_once=True)
    await bench.clock.advance(0)
    provider.gate = None
    provider.watch("other")
    await bench.clock.advance(90)
    assert provider.in_flight == 1
    await bench.clock.advance(6)
    assert provider.in_flight == 0
    assert bench.scheduler.statistics().accounts[0].polls_failed == 1
    assert job.stopped is None
    provider.answers = [DONE]
    await bench.clock.advance(15)
    assert await soon(job) == "picture of stuck"


async def test_the_only_call_there_is_is_swept_as_well(bench: Bench) -> None:
    """The sweep needs no other job to come along."""
    provider = bench.provider()
    provider.gate = asyncio.Event()
    provider.watch("stuck", at_once=True)
    await bench.clock.advance(100)
    assert provider.in_flight == 0


async def test_the_sweep_leaves_younger_calls_alone(bench: Bench) -> None:
    """Only the call that drags on is cancelled."""
    provider = bench.provider()
    provider.gate = asyncio.Event()
    provider.watch("old", at_once=True)
    await bench.clock.advance(60)
    provider.watch("young", at_once=True)
    await bench.clock.advance(36)
    assert provider.in_flight == 1
    assert bench.scheduler.statistics().polls_in_flight == 1
    provider.gate.set()


@pytest.mark.parametrize("kept", ["a picture behind a link", "a record"])
async def test_no_place_is_held_while_a_result_is_handed_over(bench: Bench, kept: str) -> None:
    """Fetching a picture or writing the outcome down may take long; others are asked about meanwhile."""
    provider = bench.provider(limits=Limits(polls=1))
    provider.answers = [msgspec.structs.replace(DONE, temporary=kept != "a record"), RUNNING]
    ready = asyncio.Event()

    class Slow(Recorder):
        async def settled(self, job: Job[Any], outcome: object) -> None:  # noqa: ARG002 - the port's signature
            await ready.wait()

    async def redeem(job: Job[str], report: Report) -> str:
        await ready.wait()
        return "picture"

    if kept == "a record":
        provider.kind.recorder = Slow()
    else:
        provider.kind.redeem = redeem
    first = provider.watch("first", at_once=True)
    await bench.clock.advance(0)
    assert first.claimed
    assert bench.scheduler.statistics().polls_in_flight == 0
    provider.watch("second", at_once=True)
    await bench.clock.advance(0)
    assert [name for _, name in provider.asked] == ["first", "second"]
    assert not first.done
    ready.set()
    assert await soon(first)


# --- closing ---


async def test_closing_tells_the_waiters_and_stops_everything() -> None:
    """Waiters of unfinished jobs get `ClosedError` with the token; no task and no timer is left."""
    bench = Bench()
    provider = bench.provider()
    provider.gate = asyncio.Event()
    before = asyncio.all_tasks()
    asking, waiting = provider.watch("asking", at_once=True), provider.watch("waiting")
    waiters = [asyncio.ensure_future(job.result()) for job in (asking, waiting)]
    await bench.clock.advance(1)
    await soon(bench.scheduler.aclose())
    for job, waiter in zip((asking, waiting), waiters, strict=True):
        with pytest.raises(ClosedError, match=f"the client was closed while the miragic job {job.id}") as caught:
            await soon(waiter)
        assert (caught.value.token, caught.value.billed) == (job.token(), "yes")
        assert not job.done
    assert asyncio.all_tasks() == before
    assert repr(bench.clock).endswith("0 timers>")
    await bench.clock.advance(1000)
    assert provider.asked == [(0, "asking")]
    assert bench.scheduler.statistics().polls_in_flight == 0


async def test_watching_after_the_end_stops_the_job() -> None:
    """A job accepted while everything closes is not lost: its waiters get the token."""
    bench = Bench()
    provider = bench.provider()
    await soon(bench.scheduler.aclose())
    job = provider.watch()
    with pytest.raises(ClosedError, match="the client was closed") as caught:
        await soon(job)
    assert caught.value.token == job.token()
    await soon(bench.scheduler.aclose())


async def test_a_result_being_handed_over_is_given_time_to_arrive() -> None:
    """Closing waits for conclusions that are under way."""
    bench = Bench()
    provider = bench.provider()
    provider.answers = [DONE]
    redeeming = asyncio.Event()

    async def redeem(job: Job[str], report: Report) -> str:
        await redeeming.wait()
        return "picture"

    provider.kind.redeem = redeem
    job = provider.watch(at_once=True)
    await bench.clock.advance(0)
    assert bench.scheduler.watched(provider.account) == [job]
    closing = asyncio.ensure_future(bench.scheduler.aclose())
    await bench.clock.advance(0)
    assert not closing.done()
    redeeming.set()
    await soon(closing)
    assert await soon(job) == "picture"


async def test_a_result_that_does_not_arrive_in_time_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing does not wait for ever."""
    monkeypatch.setattr(_scheduler, "CLOSING_GRACE", 0.01)
    bench = Bench()
    provider = bench.provider()
    provider.answers = [DONE]

    async def redeem(job: Job[str], report: Report) -> str:
        await asyncio.Event().wait()
        return "never"

    provider.kind.redeem = redeem
    job = provider.watch(at_once=True)
    await bench.clock.advance(0)
    await soon(bench.scheduler.aclose())
    with pytest.raises(ClosedError, match="the client was closed"):
        await soon(job)


@pytest.mark.parametrize("parked", [False, True])
async def test_closing_takes_back_calls_that_have_not_begun(*, parked: bool) -> None:
    """A poller that was given a job in the very turn of the closing makes no call and leaves no count behind."""
    bench = Bench()
    provider = bench.provider()
    provider.answers = [DONE]
    if parked:
        assert await soon(provider.watch("before", at_once=True)) == "picture of before"
    asked = len(provider.asked)
    job = provider.watch(at_once=True)
    await soon(bench.scheduler.aclose())
    with pytest.raises(ClosedError, match="the client was closed"):
        await soon(job)
    assert bench.scheduler.statistics().polls_in_flight == 0
    assert len(provider.asked) == asked


@pytest.mark.parametrize("turns", [0, 1, 2])
async def test_a_poller_that_was_cancelled_by_a_stranger_strands_no_job(bench: Bench, turns: int) -> None:
    """Whoever cancels all tasks there are may come before a parked poller is given a job, or right after."""
    provider = bench.provider()
    provider.answers = [DONE]
    before = asyncio.all_tasks()
    assert await soon(provider.watch("before", at_once=True)) == "picture of before"
    (poller,) = asyncio.all_tasks() - before
    if turns == 0:
        job = provider.watch(at_once=True)
        poller.cancel()
    else:
        poller.cancel()
        for _ in range(turns - 1):
            await asyncio.sleep(0)
        job = provider.watch(at_once=True)
    await bench.clock.advance(10)
    assert await soon(job) == "picture of j1"
    assert bench.scheduler.statistics().polls_in_flight == 0


async def test_a_poller_that_was_cancelled_before_it_began_strands_no_job(bench: Bench) -> None:
    """A task that never ran cannot tidy up, so others do."""
    provider = bench.provider()
    before = asyncio.all_tasks()
    job = provider.watch(at_once=True)
    (poller,) = asyncio.all_tasks() - before
    poller.cancel()
    await bench.clock.advance(0)
    statistics = bench.scheduler.statistics()
    assert (statistics.polls_in_flight, provider.times) == (0, [])
    provider.answers = [DONE]
    await bench.clock.advance(10)
    assert await soon(job) == "picture of j1"


async def test_calls_begin_within_the_timers_own_callback() -> None:
    """By the system's clock a parked poller needs no round of the event loop to go on, and keeps to the limit."""
    clock = SystemClock()
    scheduler = Scheduler(policy=FixedInterval(0.02, jitter=0), clock=clock)
    account = scheduler.account("miragic", Limits(polls=3))
    answered = asyncio.Event()
    callers: set[str] = set()
    polls = under_way = most = 0

    async def look(job: Job[str]) -> Report:
        nonlocal polls, under_way, most
        callers.update(frame.name for frame in traceback.extract_stack())
        polls, under_way = polls + 1, under_way + 1
        most = max(most, under_way)
        await asyncio.sleep(0)
        under_way -= 1
        if polls >= 40:
            answered.set()
        return RUNNING

    async def redeem(job: Job[str], report: Report) -> str:
        raise AssertionError

    kind: JobKind[str] = JobKind(
        provider="miragic",
        name="image",
        pace=PACE,
        clock=clock,
        recorder=NullRecorder(),
        waker=scheduler,
        look=look,
        redeem=redeem,
        ended=lambda _: None,
        account=account,
    )
    for number in range(5):
        scheduler.watch(new_job(kind, id=str(number), status=JobStatus.QUEUED), clock.monotonic() + 1000)
    await soon(answered.wait())
    assert most == 3
    assert "_on_timer" in callers
    await soon(scheduler.aclose())


async def test_closing_during_a_pause_leaves_no_timer() -> None:
    """A pause that would last longer does not keep a timer alive."""
    bench = Bench()
    provider = bench.provider()
    provider.answers = [RateLimitError("429", status=429, retry_after=60.0)]
    provider.watch("first", at_once=True)
    await bench.clock.advance(0)
    provider.watch("second", at_once=True)
    await bench.clock.advance(0)
    await soon(bench.scheduler.aclose())
    assert repr(bench.clock).endswith("0 timers>")


async def test_closing_an_idle_scheduler_is_nothing() -> None:
    """A scheduler that was never used can be closed, twice."""
    scheduler = Scheduler(clock=FakeClock())
    await soon(scheduler.aclose())
    await soon(scheduler.aclose())
    assert scheduler.statistics().accounts == ()


# --- weight ---


async def test_a_waiting_job_costs_no_task(bench: Bench) -> None:
    """Two thousand watched jobs share the pollers, of which there are as many as calls may be in flight."""
    provider = bench.provider()
    jobs = [provider.watch(str(number)) for number in range(2000)]
    await bench.clock.advance(5)
    assert len(asyncio.all_tasks()) < 32 + 5
    await bench.clock.advance(5)
    assert len(asyncio.all_tasks()) < 32 + 5
    statistics = bench.scheduler.statistics()
    assert (statistics.jobs_watched, statistics.polls_sent, statistics.polls_in_flight) == (2000, 2000, 0)
    assert statistics.accounts[0].most_polls_in_flight == 32
    assert not any(job.done for job in jobs)


async def test_pollers_without_work_go_home(bench: Bench) -> None:
    """They are kept for the next calls, but not for ever; calls that come later are made all the same."""
    provider = bench.provider()
    provider.gate = asyncio.Event()
    for number in range(20):
        provider.watch(str(number))
    await bench.clock.advance(10)
    assert bench.scheduler.statistics().polls_in_flight == 20
    provider.gate.set()
    await bench.clock.advance(0)
    assert bench.scheduler.statistics().polls_in_flight == 0
    assert len(asyncio.all_tasks()) > 20
    await bench.clock.advance(9)
    assert len(asyncio.all_tasks()) < 5
    await bench.clock.advance(1)
    assert bench.scheduler.statistics().polls_sent == 40


async def test_a_throttle_told_about_a_forgotten_job_pauses_the_account(bench: Bench) -> None:
    """It is the account that is asked to slow down."""
    provider = bench.provider()
    provider.answers, provider.gate = [RateLimitError("slow down", status=429, retry_after=30.0)], asyncio.Event()
    job = provider.watch(at_once=True)
    await bench.clock.advance(1)
    bench.scheduler.forget(job)
    provider.gate.set()
    await bench.clock.advance(1)
    assert bench.scheduler.statistics().accounts[0].paused_for > 20


async def test_an_idle_scheduler_holds_one_timer(bench: Bench) -> None:
    """However many jobs wait, one timer stands for all of them."""
    provider = bench.provider()
    for number in range(100):
        provider.watch(str(number))
    assert repr(bench.clock).endswith("1 timers>")


@pytest.mark.parametrize("end", ["finished", "expired", "forgotten"])
async def test_queues_keep_no_finished_job_alive(bench: Bench, end: str) -> None:
    """Stale notes in the queues do not hold the jobs they were about."""
    provider = bench.provider()
    provider.answers = [DONE if end == "finished" else RUNNING]
    keeper = provider.watch("keeper", wait=10_000)
    jobs = [provider.watch(str(number), wait=15) for number in range(20)]
    gone = [weakref.ref(job) for job in jobs]
    if end == "forgotten":
        while jobs:
            bench.scheduler.forget(jobs.pop())
    await bench.clock.advance(20)
    bench.ended.clear()
    jobs.clear()
    gc.collect()
    assert [ref() for ref in gone] == [None] * 20
    assert keeper.id == "keeper"


async def test_statistics_add_up_over_accounts(bench: Bench) -> None:
    """The totals are the sums; accounts keep the order they were opened in."""
    first, second = bench.provider("miragic"), bench.provider("mirako")
    first.watch()
    second.watch("a", at_once=True)
    second.watch("b", at_once=True)
    await bench.clock.advance(0)
    statistics = bench.scheduler.statistics()
    assert [account.provider for account in statistics.accounts] == ["miragic", "mirako"]
    assert [account.jobs_watched for account in statistics.accounts] == [1, 2]
    assert (statistics.jobs_watched, statistics.polls_sent) == (3, 2)


async def test_the_defaults_learn_on_the_systems_clock() -> None:
    """Without arguments: intervals that are learned, real time."""
    scheduler = Scheduler()
    assert isinstance(scheduler.policy, AdaptiveInterval)
    assert scheduler.clock.monotonic() > 0
    await soon(scheduler.aclose())


async def test_a_failing_callback_keeps_no_other_job_waiting(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever else is due in that turn is told or asked about, and the timer goes on."""
    provider = bench.provider()
    jobs = [provider.watch(str(number), wait=5) for number in range(3)]
    kept = provider.watch("kept")

    def ended(job: Job[Any]) -> None:
        message = f"no more {job.id}"
        raise RuntimeError(message)

    provider.kind.ended = ended
    await bench.clock.advance(30)
    assert [type(job.stopped) for job in jobs] == [WaitTimeoutError] * 3
    assert caplog.text.count("was not told to everybody") == 3
    assert [asked for _, asked in provider.asked if asked == "kept"] == ["kept"] * 3
    bench.scheduler.forget(kept)


# --- many waits that end together ---


async def largest_step(counted: list[Any], work: Awaitable[object]) -> int:
    """Return the most by which a list has grown in one turn of the event loop until some work was done."""
    task, largest = asyncio.ensure_future(work), 0
    while not task.done():
        before = len(counted)
        await asyncio.sleep(0)
        largest = max(largest, len(counted) - before)
    await task
    return largest


async def test_many_waits_that_end_together_end_in_slices_and_nobody_is_asked_about_meanwhile(bench: Bench) -> None:
    """The others get their turn in between, and whoever waits is told in the order of beginning, at the same moment."""
    provider = bench.provider(limits=Limits(polls=1))
    provider.gate = asyncio.Event()
    provider.watch("asking", at_once=True)
    ready = [provider.watch(f"ready {number}", wait=5, at_once=True) for number in range(2 * SLICE)]
    waiting = [provider.watch(f"waiting {number}", wait=5) for number in range(2 * SLICE)]
    await bench.clock.advance(4)
    provider.gate.set()
    provider.gate = asyncio.Event()
    await bench.clock.advance(0)  # one of those in line has got the turn
    assert SLICE / 2 < await largest_step(bench.ended, bench.clock.advance(1)) <= SLICE
    assert bench.ended == [*ready, *waiting]
    assert {type(job.stopped) for job in bench.ended} == {WaitTimeoutError}
    assert len(provider.asked) == 2
    provider.gate.set()
    await bench.clock.advance(10)
    assert [asked for _, asked in provider.asked] == ["asking", "ready 0", "asking"]


async def test_turns_for_other_reasons_end_no_more_waits_at_one_go(bench: Bench) -> None:
    """A thousand jobs that are begun meanwhile have a turn taken each."""
    provider = bench.provider()
    for number in range(3 * SLICE):
        provider.watch(str(number), wait=5)
    began: list[int] = []

    def begin() -> None:
        for number in range(3):
            provider.watch(f"late {number}", at_once=True)
        began.append(len(bench.ended))

    bench.clock.call_at(5, begin)
    await bench.clock.advance(5)
    assert began == [SLICE]
    assert len(bench.ended) == 3 * SLICE
    assert provider.times[-3:] == [5] * 3


def closing_bench(jobs: int) -> tuple[Bench, Provider, list[Job[str]]]:
    """Return jobs to be closed, one of which is being asked about, and another whose wait is over then."""
    bench = Bench()
    provider = bench.provider(limits=Limits(polls=1))
    provider.gate = asyncio.Event()
    watched = [provider.watch("asking", at_once=True), provider.watch("ending", wait=1)]
    watched += [provider.watch(str(number), at_once=number % 2 == 0) for number in range(jobs)]
    return bench, provider, watched


async def test_closing_tells_many_in_slices_and_asks_nobody_meanwhile() -> None:
    """Jobs that end, are watched, hinted at or forgotten meanwhile are told once or not at all, as ever."""
    bench, provider, jobs = closing_bench(4 * SLICE)
    await bench.clock.advance(0)
    closing = asyncio.ensure_future(largest_step(bench.ended, bench.scheduler.aclose()))
    for _ in range(2):
        await asyncio.sleep(0)
    assert SLICE <= len(bench.ended) < 2 * SLICE
    bench.scheduler.forget(jobs[-1])
    bench.scheduler.watch(jobs[-2], 1000)
    assert jobs[-2].claim()
    bench.scheduler.wake(jobs[-3])
    bench.scheduler.set_limits(provider.account, Limits(polls=None))
    await bench.clock.advance(1)  # the wait for one of them would be over
    assert SLICE / 2 < await soon(closing) <= SLICE + 1
    assert len(bench.ended) == len(set(map(id, bench.ended))) == len(jobs) - 1
    assert {type(job.stopped) for job in jobs[:-1]} == {ClosedError}
    assert jobs[-1].stopped is None
    assert provider.asked == [(0, "asking")]
    assert repr(bench.clock).endswith("0 timers>")


async def test_a_closing_that_is_cancelled_has_told_everybody_and_can_be_asked_for_again() -> None:
    """Nobody waits for ever because whoever closed was in a hurry."""
    bench, provider, jobs = closing_bench(4 * SLICE)
    await bench.clock.advance(0)
    first, second = (asyncio.ensure_future(bench.scheduler.aclose()) for _ in range(2))
    await asyncio.sleep(0)
    assert len(bench.ended) < len(jobs)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(first)
    assert bench.ended[-1] is jobs[-1]
    await soon(second)
    await soon(bench.scheduler.aclose())
    assert len(bench.ended) == len(set(map(id, bench.ended))) == len(jobs)
    assert {type(job.stopped) for job in jobs} == {ClosedError}
    assert provider.asked == [(0, "asking")]
    assert repr(bench.clock).endswith("0 timers>")


async def test_closing_goes_on_where_the_end_of_one_job_is_not_told(caplog: pytest.LogCaptureFixture) -> None:
    """As the ends of waits do."""
    bench, provider, jobs = closing_bench(2)

    def ended(job: Job[Any]) -> None:
        raise RuntimeError(job.id)

    provider.kind.ended = ended
    await bench.clock.advance(0)
    await soon(bench.scheduler.aclose())
    assert {type(job.stopped) for job in jobs} == {ClosedError}
    assert caplog.text.count("was not told to everybody") == len(jobs)


async def test_a_result_whose_handing_over_is_cut_short_can_be_had_anew(bench: Bench) -> None:
    """The job was paid for: it is given back, says so, and a new wait asks about it again."""
    provider = bench.provider()
    provider.answers = [DONE]
    redeem, provider.kind.redeem = provider.kind.redeem, cancelled
    job = provider.watch(at_once=True)
    await bench.clock.advance(1)
    with pytest.raises(ResponseError, match="was not handed over; wait for it anew") as caught:
        await soon(job)
    assert caught.value.billed == "yes"
    provider.kind.redeem = redeem
    anew = asyncio.ensure_future(job.result(max_wait=10))
    await bench.clock.advance(1)
    assert await soon(anew) == "picture of j1"
    assert bench.scheduler.statistics().polls_in_flight == 0


async def cancelled(job: Job[str], report: Report) -> str:
    """Be cut short by somebody else's cancellation."""
    raise asyncio.CancelledError
