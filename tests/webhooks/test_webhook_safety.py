"""The slow poll behind an expected webhook: how long it waits, and how that adapts to what really comes."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import pytest
from webhook_bench import DONE, PACE, RUNNING, Bench

from mirage_async.jobs import Job, NullHints, new_job
from mirage_async.models import JobStatus
from mirage_async.scheduler import AdaptiveInterval, BackoffInterval, FixedInterval, Scheduler
from mirage_async.scheduler._wheel import TICK
from mirage_async.webhooks._expected import IN_TIME
from mirage_async.webhooks._reliability import Reliability

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from mirage_async.scheduler import IntervalPolicy
    from mirage_async.wire import Report

pytestmark = pytest.mark.anyio

T = TypeVar("T")


async def soon(work: Awaitable[T]) -> T:
    """Await something that must not take long."""
    with anyio.fail_after(30):
        return await work


# --- what is learned ---


def test_before_the_first_webhook_nobody_waits_for_one() -> None:
    """However long jobs are known to take: an address that leads nowhere must not cost anybody time."""
    reliability = Reliability()
    assert (reliability.patience, reliability.share) == (0.0, 1.0)
    reliability.missed(10.0)
    assert reliability.patience == 0.0
    reliability.came(10.0)
    assert reliability.patience > 10.0


def test_a_job_whose_webhook_did_not_come_teaches_how_long_jobs_take() -> None:
    """Unless it was found late because the webhook was waited for: then only that it did not last longer."""
    reliability, same = Reliability(), Reliability()
    reliability.missed(10.0)
    reliability.came_after_all()
    same.came(10.0)
    assert reliability.patience == same.patience == 20.0
    reliability.missed(20.0, held_back=True)
    assert reliability.patience == 20.0
    reliability.missed(2.0, held_back=True)
    assert reliability.patience == 18.0  # two means of 9 s


def test_patience_follows_the_durations_as_tcps_does() -> None:
    """Mean plus four deviations, computed by the rules of RFC 6298 here, and never more than two means."""
    reliability = Reliability()
    reliability.came(10.0)
    assert reliability.patience == 20.0  # three means are cut to two
    mean, deviation = 10.0, 5.0
    for duration in [12.0, 9.0, 11.0, 10.0, 10.0, 9.5, 10.5, 10.0, 10.0, 10.0, 10.0]:
        reliability.came(duration)
        deviation += (abs(duration - mean) - deviation) / 4
        mean += (duration - mean) / 8
    assert reliability.patience == pytest.approx(mean + 4 * deviation)
    assert reliability.patience < 2 * mean


def test_some_webhooks_that_do_not_come_end_the_patience_and_some_that_do_restore_it() -> None:
    """Without a history it takes three, after a long good one nine; then three or four good ones win it back."""
    fresh, proven = Reliability(), Reliability()
    for _ in range(100):
        proven.came(10.0)
    counts = []
    for reliability in (fresh, proven):
        missed = 0
        while not reliability.fails:
            reliability.missed(20.0, held_back=True)
            missed += 1
        counts.append(missed)
    assert counts == [3, 9]
    assert 0 < proven.share <= 0.5
    assert proven.patience == 0.0
    came = 0
    while not proven.patience:
        proven.came(10.0)
        came += 1
    assert came <= 4
    assert "%" in repr(proven)


def test_a_webhook_that_came_after_all_counts() -> None:
    """Polling was a moment quicker; that is not the webhook's fault."""
    reliability = Reliability()
    for _ in range(20):
        reliability.missed(10.0)
        reliability.came_after_all()
    assert reliability.share > 0.9


# --- what the scheduler does with it ---


async def announced(bench: Bench, *, after: float) -> None:
    """Let a job take so long and be announced, so that the next webhook is counted on."""
    job = await bench.accepted()
    await bench.clock.advance(after)
    bench.answer = DONE
    bench.deliver(job)
    await bench.clock.advance(0)
    await soon(job.result())
    bench.answer = RUNNING
    bench.asked.clear()


class Service:
    """Jobs that last some time each, whose webhooks come or do not.

    Args:
        policy: of the scheduler.
        mean: seconds jobs last on average, or None for the typical duration.
    """

    def __init__(self, policy: IntervalPolicy, mean: float = 60.0) -> None:
        self.bench = Bench()
        self.bench.scheduler = Scheduler(policy=policy, clock=self.bench.clock)
        self.bench.kind = self.bench.make_kind(waker=self.bench.scheduler, look=self._look)
        self._dice = random.Random(3)
        self._mean = mean
        self._ends: dict[str, float] = {}
        self.oldest = 0.0  # of the last run's jobs when they were seen finished, in seconds
        self.patience = 0.0  # the most that one of them was begun with
        self.overdue = 0.0  # the most by which one was seen finished after both its end and its patience

    async def _look(self, job: Job[Any]) -> Report:
        return DONE if self.bench.clock.monotonic() >= self._ends[job.key] else RUNNING

    async def run(self, number: int, *, webhooks: bool, gap: float = 5.0) -> tuple[float, float]:
        """Run so many jobs, one begun after the other; return their mean number of polls and their mean delay."""
        bench, clock = self.bench, self.bench.clock
        jobs: list[Job[str]] = []
        asked_from: dict[str, float] = {}
        for _ in range(number):
            job = await bench.accepted()
            asked_from[job.key] = clock.monotonic() + bench.receiver.expected.patience(job)
            duration = self._dice.lognormvariate(0.0, 0.3) * self._mean
            self._ends[job.key] = clock.monotonic() + duration
            if webhooks:
                clock.call_at(clock.monotonic() + duration + 0.1, lambda job=job: bench.deliver(job))  # type: ignore[misc]
            jobs.append(job)
            await clock.advance(gap)
        await clock.advance(600)
        for job in jobs:
            await soon(job.result())
        delays = [(job.detected_at or 0.0) - self._ends[job.key] for job in jobs]
        self.patience = max(asked_from[job.key] - job.submitted_at for job in jobs)
        due = [max(self._ends[job.key], asked_from[job.key]) for job in jobs]
        self.overdue = max((job.detected_at or 0.0) - at for job, at in zip(jobs, due, strict=True))
        self.oldest = max((job.detected_at or 0.0) - job.submitted_at for job in jobs)
        return sum(job.polls for job in jobs) / number, sum(delays) / number

    async def aclose(self) -> None:
        """End it."""
        await self.bench.scheduler.aclose()


POLICIES: dict[str, Any] = {
    "fixed": lambda: FixedInterval(5, jitter=0),
    "backoff": lambda: BackoffInterval(jitter=0),
    "adaptive": lambda: AdaptiveInterval(seed=1),
}


@pytest.mark.parametrize("policy", POLICIES)
async def test_where_webhooks_come_there_is_hardly_a_poll_beside_the_verifying_one(policy: str) -> None:
    """Whatever the policy, which alone would ask several times for each job."""
    service = Service(POLICIES[policy]())
    await service.run(20, webhooks=True)
    polls, delay = await service.run(60, webhooks=True)
    assert 1.0 <= polls <= 1.1
    assert delay < 0.5
    await service.aclose()


@pytest.mark.parametrize("policy", POLICIES)
async def test_where_they_stop_coming_polling_takes_over_within_one_expected_duration(policy: str) -> None:
    """The first jobs are asked about within a fifth of two mean durations, later ones as if there were no webhooks."""
    service = Service(POLICIES[policy]())
    await service.run(30, webhooks=True)
    await service.run(15, webhooks=False)
    assert service.oldest <= 1.2 * 2.1 * 60.0 * math.exp(0.3**2 / 2)
    alone = Service(POLICIES[policy]())
    alone.bench.kind.hints = NullHints()
    await alone.run(45, webhooks=False)
    usual, delay = await alone.run(30, webhooks=False)
    polls, delay_by_now = await service.run(30, webhooks=False)
    assert delay_by_now <= 2.0 * delay
    assert polls <= 1.5 * usual
    await service.aclose()
    await alone.aclose()


async def test_where_they_come_back_polling_goes_back() -> None:
    """Nobody has to tell it."""
    service = Service(FixedInterval(5, jitter=0))
    await service.run(20, webhooks=False)
    await service.run(20, webhooks=True)
    polls, _ = await service.run(40, webhooks=True)
    assert polls <= 1.2  # it was some eight before
    await service.aclose()


async def test_a_job_with_little_time_is_asked_about_while_there_is_some() -> None:
    """However patient the receiver is, half of a wait, and a fifth of that, is the most that goes by unasked."""
    bench = Bench(interval=1)
    await announced(bench, after=30)
    began = bench.clock.monotonic()
    job = await bench.accepted(wait=20)
    bench.answer = DONE
    await bench.clock.advance(12)
    (asked,) = bench.asked
    assert 10 <= asked - began <= 12
    assert await soon(job.result()) == "picture of task-1"


async def test_jobs_whose_webhooks_are_expected_together_are_not_asked_about_together() -> None:
    """What a kind of job is given is one number for all of them; each waits up to a fifth longer, and none shorter."""
    moments: list[list[float]] = []
    for _ in range(2):
        bench = Bench()
        bench.scheduler = Scheduler(policy=AdaptiveInterval(seed=1), clock=bench.clock)
        bench.kind = bench.make_kind(waker=bench.scheduler)
        await announced(bench, after=30)
        began = bench.clock.monotonic()
        jobs = [await bench.accepted() for _ in range(200)]
        assert {bench.receiver.expected.patience(job) for job in jobs} == {60.0}
        await bench.clock.advance(75)
        moments.append([at - began for at in bench.asked[:200]])
        await bench.scheduler.aclose()
    first, again = moments
    assert min(first) >= 60.0
    assert max(first) <= 60.0 * 1.2 + TICK
    assert len(set(first)) > 100  # of the six hundred ticks there are
    assert first == again  # as the seed of the policy makes everything


async def test_a_job_nobody_announces_is_asked_about_as_ever() -> None:
    """With a receiver or without, a job that was submitted without an address is not waited for."""
    bench = Bench(interval=7)
    job: Job[str] = new_job(bench.kind, id="task-1", status=JobStatus.QUEUED)
    bench.scheduler.watch(job, 1000)
    await bench.clock.advance(15)
    assert bench.asked == [7, 14]


async def test_an_attached_job_is_asked_about_at_once_and_as_ever() -> None:
    """Nobody knows how old it is."""
    bench = Bench(interval=7)
    job: Job[str] = new_job(bench.kind, id="task-1", status=JobStatus.QUEUED)
    bench.receiver.expect(job)
    job.attach(1000)
    await bench.clock.advance(15)
    assert bench.asked == [0, 7, 14]


async def test_a_hint_that_proves_premature_does_not_count_as_the_webhook() -> None:
    """Forged ones would keep up a trust that nothing deserves."""
    bench = Bench(interval=50)
    for _ in range(5):
        job = await bench.accepted()
        bench.answer = RUNNING
        bench.deliver(job)
        await bench.clock.advance(45)
        bench.answer = DONE
        await bench.clock.advance(60)
        assert await soon(job.result()) == "picture of task-1"
    assert bench.receiver.expected.reliability_of("mirako") == pytest.approx(0.33, abs=0.02)


async def test_the_kinds_of_jobs_that_are_learned_about_are_bounded() -> None:
    """A model name is free text of the caller's."""
    bench = Bench()
    for number in range(600):
        job: Job[str] = new_job(bench.kind, model=str(number))
        bench.receiver.expect(job)
        bench.receiver.expected.accepted(job, 100.0)
    assert len(bench.receiver.expected._kinds) == 512


async def test_nothing_is_learned_from_a_job_that_has_not_ended() -> None:
    """Its wait is over, or everything was closed."""
    bench = Bench()
    job = bench.job()
    assert bench.receiver.expected.reliability_of("mirako") is None
    bench.receiver.expected.accepted(job, 1000.0)
    bench.receiver.expected.ended(job)
    assert bench.receiver.expected.reliability_of("mirako") == 1.0


@pytest.mark.parametrize("policy", POLICIES)
async def test_where_no_webhook_ever_comes_a_receiver_changes_nothing(policy: str) -> None:
    """From the very first job on, with a wrong address: the same status calls at the same moments as without."""
    results = []
    for hints in (True, False):
        service = Service(POLICIES[policy](), mean=2.0)
        if not hints:
            service.bench.kind.hints = NullHints()
        first = await service.run(1, webhooks=False)
        results.append((first, service.oldest, await service.run(20, webhooks=False), service.oldest))
        await service.aclose()
    assert results[0] == results[1]
    assert results[0][1] <= 5.0  # a job of some 2 s, which Mirako's document is taken to say lasts 60 s here


async def test_what_one_account_was_announced_nobody_else_counts_on() -> None:
    """Another key may be set up in another way."""
    bench = Bench(interval=1)
    await announced(bench, after=30)
    job = await bench.accepted()
    assert bench.receiver.expected.patience(job) == 60.0
    bench.kind = bench.make_kind()  # with an account of its own
    assert bench.receiver.expected.patience(await bench.accepted()) == 0.0


@pytest.mark.parametrize("policy", POLICIES)
async def test_jobs_that_wait_together_when_webhooks_stop_are_found_within_one_expected_duration(policy: str) -> None:
    """Each was begun when webhooks were trusted, and none of them is announced."""
    service = Service(POLICIES[policy]())
    await service.run(30, webhooks=True)
    polls, delay = await service.run(100, webhooks=False, gap=0.1)
    expected = 60.0 * math.exp(0.3**2 / 2)
    assert expected < service.patience <= 2.2 * expected  # two means, as well as they are known after thirty jobs
    # the longest that polling alone would leave it, and what keeps those apart that wait together
    assert service.overdue <= 1.2 * PACE.maximum + 0.2 * service.patience
    assert delay <= 1.3 * expected
    assert polls < 3
    await service.aclose()


# --- what is said about it ---


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what the receiver has warned of."""
    return [record.getMessage() for record in caplog.records if record.name == "mirage_async.webhooks"]


async def test_three_jobs_without_a_webhook_are_told_of_once_with_the_address(caplog: pytest.LogCaptureFixture) -> None:
    """And with nothing of it that is secret."""
    service = Service(FixedInterval(1, jitter=0), mean=2.0)
    await service.run(2, webhooks=False)
    assert warnings_in(caplog) == []
    await service.run(1, webhooks=False)
    (warning,) = warnings_in(caplog)
    assert "webhooks of mirako do not seem to arrive at https://app.example/hooks:" in warning
    await service.run(20, webhooks=False)
    assert len(warnings_in(caplog)) == 1
    await service.aclose()


async def test_trust_that_is_lost_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    """One that does not come is no reason."""
    service = Service(FixedInterval(5, jitter=0))
    await service.run(30, webhooks=True)
    await service.run(3, webhooks=False)
    assert warnings_in(caplog) == []
    await service.run(15, webhooks=False)
    assert len(warnings_in(caplog)) == 1
    await service.aclose()


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "gone"])
async def test_webhooks_that_are_only_slower_than_polling_prove_themselves(
    caplog: pytest.LogCaptureFixture, *, kept: bool
) -> None:
    """Each comes after a status call has told the end, and for a job that may be gone by then."""
    bench = Bench(interval=1)
    jobs: list[Job[str]] = []
    for _ in range(10):
        job = await bench.accepted()
        twin: Job[str] = new_job(bench.kind, key=job.key, id="task-1", status=JobStatus.QUEUED)  # to deliver about
        bench.answer = DONE
        while not job.done:
            await bench.clock.advance(0.1)
        if kept:
            jobs.append(job)
        del job
        await bench.clock.advance(IN_TIME - 0.2)
        assert bench.deliver(twin).status == 204
        bench.answer = RUNNING
    await bench.clock.advance(100)
    assert bench.receiver.expected.reliability_of("mirako") == 1.0
    assert bench.receiver.expected.patience(await bench.accepted()) > 0
    assert bench.receiver.statistics().hints_late == 10
    assert warnings_in(caplog) == []


async def test_of_two_handles_on_one_job_each_ends_for_itself() -> None:
    """The webhook that comes after both is late for the one that ended last."""
    bench = Bench(interval=1)
    first = await bench.accepted()
    bench.answer = DONE
    await bench.clock.advance(1)
    await soon(first.result())
    second: Job[str] = new_job(bench.kind, key=first.key)
    bench.receiver.expect(second)
    await bench.accept(second)
    await bench.clock.advance(IN_TIME - 0.5)
    await soon(second.result())
    await bench.clock.advance(1)  # the webhook of the first is given up
    bench.deliver(second)
    assert bench.receiver.expected.reliability_of("mirako") == pytest.approx((1 + 2) / (1 + 0.9 + 2))


async def test_a_webhook_that_is_far_too_late_is_as_good_as_none() -> None:
    """Nobody can count on it."""
    bench = Bench(interval=1)
    job = await bench.accepted()
    bench.answer = DONE
    await bench.clock.advance(1)
    await soon(job.result())
    await bench.clock.advance(IN_TIME + 0.1)
    bench.deliver(job)
    assert bench.receiver.expected.reliability_of("mirako") == pytest.approx(2 / 3)
    assert bench.receiver.expected.patience(await bench.accepted()) == 0.0
