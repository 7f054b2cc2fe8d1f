"""The limiter against plain re-tellings of its rules, under whatever order of events chance comes up with."""

from __future__ import annotations

import asyncio
import itertools
import math
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirage_async.exceptions import RateLimitError, WaitTimeoutError
from mirage_async.jobs import Job, JobKind, NullRecorder, new_job
from mirage_async.models import JobStatus, Pace
from mirage_async.scheduler import Account, Limits, Scheduler
from mirage_async.scheduler._entry import Entry
from mirage_async.testing import FakeClock
from mirage_async.wire import Piece, Report

if TYPE_CHECKING:
    import random

    from mirage_async.scheduler import JobView, Sighting

RUNNING = Report(status=JobStatus.RUNNING, word="IN_PROGRESS")
DONE = Report(status=JobStatus.SUCCEEDED, pieces=(Piece(url="https://a.example/x.png"),))
PACE = Pace(first=3, interval=2, maximum=16, max_wait=100)
ROUNDING = 1e-6


def come(account: Account) -> Entry:
    """Let one more status call be due."""
    entry = Entry(cast("Job[Any]", object()), account)
    account.ready.append(entry)
    return entry


# --- who is next ---


class Line:
    """The line by its rules, without any cleverness: everything is looked for from the beginning each time."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Entry, int]] = []  # and the calls after which one is owed
        self.ranking: list[Entry] = []
        self.ranked_at = -math.inf
        self.taken = 0

    def come(self, entry: Entry) -> None:
        """Join at the end; owed a call after twelve for each that is in line now."""
        self.waiting.append((entry, self.taken + 12 * (len(self.waiting) + 1)))

    def take(self, now: float, urgency: dict[Entry, int]) -> Entry:
        """Every fourth call goes to the oldest if it is owed it, the others to the most urgent of the ranking."""
        entries = [entry for entry, _ in self.waiting]
        chosen = entries[0]
        owed = self.waiting[0][1] <= self.taken and self.taken % 4 == 0
        if not owed and len(entries) > 1:
            if now >= self.ranked_at + 0.05:
                self.ranking, self.ranked_at = sorted(entries, key=lambda entry: -urgency[entry]), now
            chosen = next((entry for entry in self.ranking if entry in entries), entries[0])
        self.leave(chosen)
        self.taken += 1
        return chosen

    def leave(self, entry: Entry) -> None:
        """Leave from wherever it is."""
        self.waiting = [(other, owed) for other, owed in self.waiting if other is not entry]


@settings(deadline=None, max_examples=300)
@given(
    steps=st.lists(st.tuples(st.sampled_from(["come", "come", "take", "take", "go"]), st.integers(0, 9)), max_size=200),
    pace=st.sampled_from([0.0, 0.02, 0.1]),
    flood=st.integers(0, 3),
)
def test_the_line_is_served_by_its_rules_and_starves_nobody(
    steps: list[tuple[str, int]], pace: float, flood: int
) -> None:
    """With never more than n calls ready none waits for more than 16n others, and the order is the documented one."""
    account = Account("mira", Limits(polls=1, polls_per_second=1e9))
    oracle, urgency, since = Line(), dict[Entry, int](), dict[Entry, int]()
    longest, now = 0, 0.0

    def arrive(value: int) -> None:
        entry = come(account)
        urgency[entry] = value
        since[entry] = oracle.taken
        oracle.come(entry)

    for step, value in [*steps, *[("take", 0)] * len(steps)]:
        now += pace + 1e-6
        if step == "come":
            arrive(value)
        elif step == "go" and oracle.waiting:
            entry = oracle.waiting[value % len(oracle.waiting)][0]
            account.ready.discard(entry)
            oracle.leave(entry)
        elif step == "take":
            longest = max(longest, len(oracle.waiting))
            found = account.take(now, urgency.__getitem__)
            if not oracle.waiting:
                assert found is None
                continue
            expected = oracle.take(now, urgency)
            assert found is expected
            assert oracle.taken - since[expected] <= 16 * longest
            for _ in range(min(flood, 12 - len(oracle.waiting))):
                arrive(10)  # whoever was there before is less urgent
        assert account.statistics(now).polls_ready == len(oracle.waiting)


@settings(deadline=None)
@given(values=st.lists(st.floats(0, 1e6), min_size=1, max_size=60), growth=st.floats(-1, 1))
def test_with_a_fresh_ranking_the_most_urgent_of_all_is_taken(values: list[float], growth: float) -> None:
    """Fifty milliseconds later urgencies may have changed; then it is the present ones that count."""
    account = Account("mira", Limits(polls=1))
    value = {come(account): each for each in values}
    for call in range(min(12, len(values))):
        now = 0.051 * call
        at = {entry: each + growth * now * number for number, (entry, each) in enumerate(value.items())}
        found = account.take(now, at.__getitem__)
        assert found is not None
        assert at[found] == max(at.values())
        del value[found]


# --- how often ---


def check_rate(begun: list[float], rate: float) -> None:
    """In any w seconds at most 1 + rate * (w + t) calls, t being 10 ms or one interval: look at every window."""
    lateness = min(0.01, 1 / rate)
    for (first, start), (last, end) in itertools.combinations(enumerate(begun), 2):
        assert last - first + 1 <= 1 + rate * (end - start + lateness) + ROUNDING


class ExpectedPause:
    """When the pauses end, told in other words than the account's."""

    def __init__(self) -> None:
        self.until = 0.0
        self.own = 1.0

    def pause(self, now: float, asked: float) -> None:
        """Pause for as long as is asked, but in a new burst at least for our own delay, which grows."""
        if now >= self.until:
            self.until, self.own = now + self.own, min(30.0, 2 * self.own)
        self.until = max(self.until, now + asked)

    def calm(self, asked: float) -> None:
        """Start small again, if that was asked after the pause."""
        if asked >= self.until:
            self.own = 1.0


@settings(deadline=None, max_examples=300)
@given(
    events=st.lists(
        st.one_of(
            st.tuples(st.just("pass"), st.floats(0, 0.6)),
            st.tuples(st.just("late"), st.floats(0, 0.02)),
            st.tuples(st.just("rate"), st.sampled_from([0.5, 4.0, 50.0, 300.0, None])),
            st.tuples(st.just("pause"), st.floats(0, 2)),
            st.tuples(st.just("calm"), st.none()),
        ),
        max_size=80,
    )
)
def test_no_window_ever_holds_more_calls_than_the_rate_allows(events: list[tuple[str, float | None]]) -> None:
    """Whatever is changed and paused meanwhile; and a call that is ready waits for nothing but what it has to."""
    account, now, rate, paused = Account("mira", Limits(polls=None)), 0.0, None, ExpectedPause()
    begun = list[float]()
    for event, value in events:
        come(account)
        if event == "rate":
            if rate is not None:
                check_rate(begun, rate)
            begun, rate = begun[-1:], value
            account.set_limits(Limits(polls=None, polls_per_second=rate))
        elif event == "pause":
            account.pause(now, value)
            paused.pause(now, value or 0.0)
        elif event == "calm":
            account.pauses.calm(now)
            paused.calm(now)
        elif event == "pass":
            now += value or 0.0
        else:
            opens = account.opens_at(now)
            assert opens < math.inf
            now = max(now, opens) + (value or 0.0)
        opens = account.opens_at(now)
        assert opens < math.inf
        interval = 0.0 if rate is None else 1 / rate
        spacing = 2.0 if account.throttles else 0.0
        assert opens <= max(now, paused.until, (begun[-1] if begun else now) + max(interval, spacing)) + ROUNDING
        while account.take(now) is not None:
            assert now >= paused.until
            begun.append(now)
            come(account)
            if rate is None and len(begun) > 5 and begun[-5] == now:
                break
    if rate is not None:
        check_rate(begun, rate)


# --- the real scheduler ---


class Eager:
    """A policy that asks often and finds one job as urgent as another, or not."""

    def __init__(self, source: random.Random) -> None:
        self.source = source

    def next_interval(self, job: JobView) -> float:  # noqa: ARG002 - the protocol's signature
        """Ask after up to two seconds."""
        return self.source.uniform(0.1, 2.0)

    def observe(self, sighting: Sighting) -> None:
        """Learn nothing."""

    def urgency(self, job: JobView, last: float) -> float:
        """Find long waits urgent."""
        return (job.phase_elapsed or 0.0) - last


class Provider:
    """An account whose calls take a while and are sometimes refused."""

    def __init__(self, source: random.Random, limits: Limits) -> None:
        self.source = source
        self.clock = FakeClock()
        self.scheduler = Scheduler(policy=Eager(source), clock=self.clock)
        self.account = self.scheduler.account("mira", limits)
        self.begun = list[float]()
        self.flying = dict[str, float]()
        self.paused_since = self.paused = 0.0
        self.broken = list[str]()
        self.kind: JobKind[str] = JobKind(
            provider="mira",
            name="image",
            pace=PACE,
            clock=self.clock,
            recorder=NullRecorder(),
            waker=self.scheduler,
            look=self.look,
            redeem=self.redeem,
            ended=self.account.give_place_back,
            account=self.account,
        )

    async def look(self, job: Job[str]) -> Report:
        """Check every promise at the moment a call begins."""
        now, limits = self.clock.monotonic(), self.account.limits
        assert job.id is not None
        if job.id in self.flying:
            self.broken.append(f"{job.id} is asked about twice at once")
        if self.paused_since < now < self.paused:  # what begins in the moment of the answer had been decided before
            self.broken.append(f"a call at {now} in a pause until {self.paused}")
        if limits.polls is not None and len(self.flying) >= limits.polls:
            self.broken.append(f"{len(self.flying) + 1} calls in flight, {limits.polls} allowed")
        self.begun.append(now)
        self.flying[job.id] = now
        try:
            await self.clock.sleep(self.source.choice([0.0, 0.0, 0.3, 1.0]))
        finally:
            del self.flying[job.id]
        answer = self.source.random()
        if answer < 0.05:
            wait = self.source.choice([0.0, 0.5, 3.0])
            if self.clock.monotonic() >= self.paused:  # a new burst, in which our own delay is a second at least
                self.paused_since = self.clock.monotonic()
                self.paused = self.paused_since + 1.0
            self.paused = max(self.paused, self.clock.monotonic() + wait)
            raise RateLimitError("429", status=429, retry_after=wait)
        return DONE if answer > 0.8 else RUNNING

    async def redeem(self, job: Job[str], report: Report) -> str:  # noqa: ARG002 - the kind's signature
        """Return the result."""
        return str(job.id)

    def check_rate(self) -> None:
        """Look at the calls since the last check; the limits may change afterwards."""
        if self.account.limits.polls_per_second is not None:
            check_rate(self.begun, self.account.limits.polls_per_second)
        self.begun.clear()


LIMITS = st.builds(
    lambda polls, rate, early: Limits(polls=polls, polls_per_second=rate, ask_early=early and rate is not None),
    st.sampled_from([1, 3, None]),
    st.sampled_from([1.0, 8.0, 40.0, None]),
    st.booleans(),
)


@settings(max_examples=15, deadline=None)
@given(first=LIMITS, changes=st.lists(st.tuples(st.integers(1, 15), LIMITS), max_size=4), source=st.randoms())
def test_a_scheduler_keeps_every_limit_while_limits_change_jobs_leave_and_the_provider_complains(
    first: Limits, changes: list[tuple[int, Limits]], source: random.Random
) -> None:
    """No call too many in flight, in a second or in a pause; every job is told its end; nothing is left over."""
    asyncio.run(_play(Provider(source, first), dict(changes), source))


async def _play(provider: Provider, plan: dict[int, Limits], source: random.Random) -> None:
    clock, scheduler, account = provider.clock, provider.scheduler, provider.account
    jobs = [new_job(provider.kind, id=f"j{number}", status=JobStatus.QUEUED) for number in range(12)]
    for job in jobs:
        scheduler.watch(job, 200.0, at_once=source.random() < 0.3)
    gone = {job for job in jobs if source.random() < 0.2}
    for second in range(220):
        if second == 4:
            for job in gone:
                scheduler.forget(job)
        if second in plan:
            provider.check_rate()
            scheduler.set_limits(account, plan[second])
        await clock.advance(1)
        if second > 4 and all(job.done or job in gone for job in jobs):
            break
    provider.check_rate()
    assert provider.broken == []
    assert all(job.done or job in gone or isinstance(job.stopped, WaitTimeoutError) for job in jobs)
    statistics = account.statistics(clock.monotonic())
    assert (statistics.polls_ready, statistics.jobs_watched) == (0, 0)
    await scheduler.aclose()


@pytest.mark.parametrize("rate", [2.0, 20.0])
def test_the_scheduler_uses_the_whole_rate_while_calls_are_waiting(rate: float) -> None:
    """A limit costs no more than it says."""

    async def run() -> None:
        clock = FakeClock()
        scheduler = Scheduler(clock=clock)
        account = scheduler.account("mira", Limits(polls_per_second=rate))

        async def look(job: Job[str]) -> Report:
            return RUNNING

        async def redeem(job: Job[str], report: Report) -> str:
            return ""

        kind: JobKind[str] = JobKind(
            provider="mira",
            name="image",
            pace=PACE,
            clock=clock,
            recorder=NullRecorder(),
            waker=scheduler,
            look=look,
            redeem=redeem,
            ended=account.give_place_back,
            account=account,
        )
        for number in range(400):
            scheduler.watch(new_job(kind, id=f"j{number}", status=JobStatus.QUEUED), 1000.0, at_once=True)
        await clock.advance(10)
        assert 10 * rate <= account.sent <= 10 * rate + 1
        await scheduler.aclose()

    asyncio.run(run())
