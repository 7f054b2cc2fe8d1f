"""A day in the life of the policy: waves of jobs, drift, cold starts, an outage with a burst after it, a bar that lies.

A day is 24 hours of virtual time with some thousand jobs of five kinds under one policy, as it is when nobody sets
anything. What a second is worth is what the policy takes when nobody says otherwise, for the durations of that hour.
"""

from __future__ import annotations

import heapq
import math
import random
from dataclasses import dataclass, field
from functools import cache, partial
from operator import truediv
from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple

from benchmarks._polling.figures import Mark
from benchmarks._polling.laws import LAWS, Law
from benchmarks._polling.rivals import ROUND_TRIP, periodic
from benchmarks._polling.trials import REPORTING
from mirage_async.models import JobStatus, Pace
from mirage_async.scheduler import AdaptiveInterval, BackoffInterval, FixedInterval, JobView, Sighting
from mirage_async.wire import miragic, mirako

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from benchmarks._polling.trials import Reporter
    from mirage_async.scheduler import IntervalPolicy

__all__ = ["HOURS", "OURS", "PRIOR", "Day", "live"]

HOURS = 24
HOUR = 3600.0
OUTAGE = (13.5 * HOUR, 13.5 * HOUR + 240)
BURST = 200  # jobs submitted within a second when it is over
LYING_FROM = 12
OURS, PRIOR = "AdaptiveInterval, the default", "the same, which learns nothing"
BACKOFF, LOOPS = "BackoffInterval, the documents' schedule", "the documents' loops"
FIXED, _NO_BAR = "best fixed periods in hindsight", "no bar"
_BACKOFF = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)  # seconds to the next try after calls without answer, in a row


class Kind(NamedTuple):
    """One kind of job.

    Attributes:
        name: for people.
        pace: what its document says.
        jobs: in a day.
        law: by the hour.
        bar: whether it shows progress.
    """

    name: str
    pace: Pace
    jobs: int
    law: Callable[[int], Law]
    bar: bool = False


def _drifting(hour: int) -> Law:
    return _DOUBLED if 10 <= hour < 18 else _HALVED if hour >= 18 else LAWS[2]  # noqa: PLR2004 - hours of the day


_DOUBLED, _HALVED, _TRIPLED = LAWS[2].scaled(2.0), LAWS[2].scaled(0.5), LAWS[0].scaled(3.0)
KINDS = (
    Kind("steady", miragic.PACE, 1000, lambda _: LAWS[0]),
    Kind("cold starts", mirako.IMAGE_PACE, 600, lambda _: LAWS[3]),
    Kind("drift", mirako.IMAGE_PACE, 800, _drifting),
    Kind("with a bar", miragic.PACE, 800, lambda _: _TRIPLED, bar=True),
    Kind("avatars", mirako.AVATAR_PACE, 150, lambda _: LAWS[5]),
)


class Job:
    """One job of the day; the providers' side of it does not depend on who asks."""

    __slots__ = ("duration", "hour", "kind", "law", "misses", "polls", "price", "reporter", "seen", "shown", "started")

    def __init__(self, kind: Kind, started: float, source: random.Random) -> None:
        self.hour = int(started / HOUR)
        self.law = kind.law(self.hour)
        self.kind = kind
        self.started = started
        self.duration = self.law.quantile(source.uniform(1e-6, 1 - 1e-6))
        self.price = self.law.favourite_price
        honest = REPORTING["noisy"].of(self.duration, source)
        self.reporter: Reporter = _backwards(self.duration) if started >= LYING_FROM * HOUR else honest
        self.polls = self.misses = 0
        self.seen = 0.0
        self.shown: list[tuple[float, float]] = []


@dataclass(kw_only=True)
class Day:
    """What a day cost, in status calls.

    Attributes:
        policies: by policy and hour of submission, as a multiple of what the best schedules cost.
        overall: the same over the day.
        kinds: by policy and kind of job over the day.
        jobs: submitted in each hour, on average.
        lying: cost of the jobs whose bar runs backwards, by what the same jobs cost without one.
        honest: the same of the jobs whose bar is honest.
    """

    policies: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    overall: dict[str, float] = field(default_factory=dict[str, float])
    kinds: dict[str, dict[str, float]] = field(default_factory=dict[str, dict[str, float]])
    jobs: list[float] = field(default_factory=list[float])
    lying: float = 0.0
    honest: float = 0.0
    marks: list[Mark] = field(default_factory=list[Mark])


class _Ledger:
    """Costs by hour and kind, summed over days."""

    def __init__(self) -> None:
        self.cells: dict[tuple[int, str], float] = {}

    def add(self, job: Job, cost: float) -> None:
        """Book what a job cost in the hour it was submitted in."""
        cell = (job.hour, job.kind.name)
        self.cells[cell] = self.cells.get(cell, 0.0) + cost

    def over(self, best: _Ledger, chosen: Callable[[int, str], bool]) -> float:
        """Return the cost of the chosen hours and kinds as a multiple of another ledger's."""
        cells = [cell for cell in best.cells if chosen(*cell)]
        return sum(self.cells[cell] for cell in cells) / sum(best.cells[cell] for cell in cells)


def live(seed: int, days: int, *, others: bool = True) -> Day:
    """Live through so many days, each from a new process on.

    Args:
        seed: makes it repeatable.
        days: their costs are added up.
        others: False leaves out all but the policy and the one that learns nothing.
    """
    names = [OURS, _NO_BAR, PRIOR, *((BACKOFF, LOOPS, FIXED) if others else ())]
    best, ledgers = _Ledger(), {name: _Ledger() for name in names}
    counts = [0] * HOURS
    for number in range(days):
        ways: dict[str, tuple[Callable[[Kind], IntervalPolicy], bool, bool]] = {
            OURS: (_one(AdaptiveInterval(seed=number)), True, True),
            _NO_BAR: (_one(AdaptiveInterval(seed=number)), True, False),
            PRIOR: (_one(AdaptiveInterval(seed=number)), False, True),
            BACKOFF: (_one(BackoffInterval()), False, False),
            LOOPS: (_loops, False, False),
        }
        for name, (policy, learns, bars) in ways.items():
            if name in ledgers:
                _pass(_jobs(seed + number), policy, ledgers[name], learns=learns, bars=bars)
        jobs = _jobs(seed + number)
        for job in jobs:
            best.add(job, _optimum(job.law))
            counts[job.hour] += 1
        if others:
            for kind in KINDS:
                _hindsight([job for job in jobs if job.kind is kind], ledgers[FIXED])
    return _report(best, ledgers, [count / days for count in counts])


@cache
def _optimum(law: Law) -> float:
    return law.optimum(law.favourite_price).cost


def _report(best: _Ledger, ledgers: dict[str, _Ledger], jobs: list[float]) -> Day:
    report = Day(jobs=jobs)
    barred = {kind.name for kind in KINDS if kind.bar}
    ours, bare = ledgers[OURS], ledgers.pop(_NO_BAR)
    report.lying = ours.over(bare, lambda hour, kind: kind in barred and hour >= LYING_FROM)
    report.honest = ours.over(bare, lambda hour, kind: kind in barred and hour < LYING_FROM)
    for name, ledger in ledgers.items():
        report.policies[name] = [ledger.over(best, partial(_at, hour)) for hour in range(HOURS)]
        report.kinds[name] = {kind.name: ledger.over(best, partial(_of, kind.name)) for kind in KINDS}
        report.overall[name] = ledger.over(best, lambda _hour, _kind: True)
    report.marks = [
        Mark(name="cost of the day", figure=report.overall[OURS], bound=1.15),
        Mark(
            name="worst hour by the same hour without learning",
            figure=max(map(truediv, report.policies[OURS], report.policies[PRIOR])),
            bound=1.05,
        ),
        Mark(name="a bar that runs backwards by none", figure=report.lying, bound=1.05),
    ]
    return report


def _at(chosen: int, hour: int, _kind: str) -> bool:
    return hour == chosen


def _of(chosen: str, _hour: int, kind: str) -> bool:
    return kind == chosen


def _jobs(seed: int) -> list[Job]:
    """Return the jobs of a day in the order they are submitted: few at night, many in the afternoon.

    Nobody can submit during the outage; who wanted to does so right after it, and so do some more.
    """
    source = random.Random(seed)
    jobs = list[Job]()
    for kind in KINDS:
        weights = [1 + 0.9 * math.sin(2 * math.pi * (hour - 9) / HOURS) for hour in range(HOURS)]
        hours = source.choices(range(HOURS), weights, k=kind.jobs)
        for hour in hours:
            started = HOUR * (hour + source.random())
            if OUTAGE[0] <= started < OUTAGE[1]:
                started = OUTAGE[1] + source.random()
            jobs.append(Job(kind, started, source))
    jobs += [Job(KINDS[0], OUTAGE[1] + source.random(), source) for _ in range(BURST)]
    return sorted(jobs, key=lambda job: job.started)


def _pass(
    jobs: Sequence[Job], policy_for: Callable[[Kind], IntervalPolicy], ledger: _Ledger, *, learns: bool, bars: bool
) -> None:
    """Ask about all jobs as a policy says, and book what that costs."""
    due = [(job.started, number, job) for number, job in enumerate(jobs)]
    heapq.heapify(due)
    begun = set[int]()
    while due:
        now, number, job = heapq.heappop(due)
        policy, wait = policy_for(job.kind), ROUND_TRIP
        if number not in begun:
            begun.add(number)
            wait = 0.0
        elif (delay := _look(policy, job, now, learns=learns, bars=bars)) is not None:
            ledger.add(job, job.polls + job.price * delay)
            continue
        interval = policy.next_interval(_view(job, now + wait - job.started))
        if job.misses:
            interval = max(interval, _BACKOFF[min(job.misses, len(_BACKOFF)) - 1])
        heapq.heappush(due, (now + wait + interval, number, job))


def _look(policy: IntervalPolicy, job: Job, now: float, *, learns: bool, bars: bool) -> float | None:
    """Ask about a job; return the delay if it was found finished, counted from when anybody could have known."""
    job.polls += 1
    if OUTAGE[0] <= now < OUTAGE[1]:
        job.misses += 1
        return None
    job.misses = 0
    elapsed = now - job.started
    done = elapsed >= job.duration
    if learns and isinstance(policy, AdaptiveInterval):
        policy.observe(_sighting(job, elapsed, now, done=done))
    if not done:
        job.seen = elapsed
        if bars and job.kind.bar:
            job.shown.append((elapsed, job.reporter(elapsed) or 0.0))
        return None
    ended = job.started + job.duration
    return now - (OUTAGE[1] if OUTAGE[0] <= ended < OUTAGE[1] else ended)


def _view(job: Job, elapsed: float) -> JobView:
    return JobView(
        provider="simulated",
        kind="image",
        model=job.kind.name,
        pace=job.kind.pace,
        status=JobStatus.RUNNING,
        progress=job.shown[-1][1] if job.shown else None,
        elapsed=elapsed,
        polls=job.polls,
    )


def _sighting(job: Job, elapsed: float, now: float, *, done: bool) -> Sighting:
    return Sighting(
        provider="simulated",
        kind="image",
        model=job.kind.name,
        phase="running",
        pace=job.kind.pace,
        seen=job.seen,
        now=elapsed,
        outcome="done" if done else "pending",
        progress=None,
        at=now,
        shown=tuple(job.shown) if done else (),
        polls=job.polls,
    )


def _backwards(duration: float) -> Reporter:
    return lambda elapsed: max(0.0, 1 - elapsed / duration)


def _one(policy: IntervalPolicy) -> Callable[[Kind], IntervalPolicy]:
    return lambda _: policy


_LOOPS = {kind.name: FixedInterval(kind.pace.interval, jitter=0) for kind in KINDS}


def _loops(kind: Kind) -> IntervalPolicy:
    return _LOOPS[kind.name]


def _hindsight(jobs: Iterable[Job], ledger: _Ledger) -> None:
    """Book what the fixed period costs that would have been best for a kind of job on that very day, outage apart."""
    jobs = list(jobs)
    mean = fmean(job.duration for job in jobs)

    def costs(period: float) -> list[float]:
        return [periodic([job.duration], period, period).cost(job.price) for job in jobs]

    for job, cost in zip(jobs, min((costs(mean * 2 ** (step / 8)) for step in range(-40, 17)), key=sum), strict=True):
        ledger.add(job, cost)
