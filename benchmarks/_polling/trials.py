"""The library's own policy on virtual time: learning, drift, progress, bursts. Nothing here sleeps."""

from __future__ import annotations

import copy
import heapq
import math
import random
import time
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from benchmarks._polling.rivals import ROUND_TRIP, Outcome
from mirage_async.models import JobStatus, Pace
from mirage_async.scheduler import AdaptiveInterval, JobView, Sighting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from benchmarks._polling.laws import Law

    Reporter = Callable[[float], float | None]
    """What a job shows as its progress after so many seconds."""

_Outcome: TypeAlias = Literal["pending", "done"]

__all__ = ["MAXIMUM", "REPORTING", "Desk", "Reporting", "average", "burst", "cpu", "fresh"]

MAXIMUM = 3600.0  # seconds; the policy's default of 600 s is measured beside it


class Reporting(NamedTuple):
    """How a provider's progress relates to the truth.

    Attributes:
        bend: standard deviation of the logarithm of each job's exponent; 0 is even progress.
        queue: the longest share of a job that passes before its progress moves.
        step: what progress is rounded down to.
        chance: whether it has nothing to do with the truth.
    """

    bend: float
    queue: float
    step: float
    chance: bool = False

    def of(self, duration: float, source: random.Random) -> Reporter:
        """Return what one job shows."""
        if self.chance:
            return lambda _: source.random()
        exponent, queue = math.exp(source.gauss(0.0, self.bend)), source.uniform(0.0, self.queue)

        def shown(elapsed: float) -> float:
            share = math.pow(max(0.0, (elapsed / duration - queue) / (1 - queue)), exponent)
            return self.step * math.floor(share / self.step + 1e-9)

        return shown


REPORTING = {
    "exact": Reporting(bend=0.0, queue=0.0, step=0.01),
    "noisy": Reporting(bend=0.25, queue=0.2, step=0.05),
    "poor": Reporting(bend=0.6, queue=0.5, step=0.1),
    "random": Reporting(bend=0.0, queue=0.0, step=0.01, chance=True),
}


class _Watched:
    """One job in the simulation."""

    __slots__ = ("duration", "polls", "reporter", "seen", "shown", "started")

    def __init__(self, duration: float, started: float, reporter: Reporter | None) -> None:
        self.duration = duration
        self.started = started
        self.reporter = reporter
        self.seen = 0.0
        self.polls = 0
        self.shown: list[tuple[float, float]] = []


class Desk:
    """Asks about jobs as the scheduler would, and keeps the bill.

    Args:
        policy: what decides.
        hint: the typical duration the provider's document would name, or None.
    """

    def __init__(self, policy: AdaptiveInterval, *, hint: float | None = None) -> None:
        self.policy = policy
        self.pace = Pace(first=1, interval=2, maximum=15, max_wait=3600, typical=hint)
        self.now = 0.0

    def one(self, job: _Watched, elapsed: float, *, learn: bool) -> float:
        """Ask about a job from `elapsed` on until it is found finished; return the delay."""
        while True:
            elapsed += self.policy.next_interval(self.view(job, elapsed))
            if (late := self.look(job, elapsed, learn=learn)) is not None:
                self.now = job.started + elapsed
                return late
            elapsed += ROUND_TRIP

    def run(
        self, durations: Iterable[float], *, learn: bool = True, reporters: Iterable[Reporter] | None = None
    ) -> list[tuple[int, float]]:
        """Ask about one job after the other; return polls and seconds of delay of each."""
        telling = iter(reporters) if reporters is not None else None
        bill = list[tuple[int, float]]()
        for duration in durations:
            job = _Watched(duration, self.now, next(telling) if telling is not None else None)
            late = self.one(job, 0.0, learn=learn)
            bill.append((job.polls, late))
        return bill

    def tried(self, durations: Iterable[float]) -> list[tuple[int, float]]:
        """Return what jobs would cost by now, and leave everything as it is; the policy learns nothing on the way."""
        return copy.deepcopy(self).run(durations, learn=False)

    def view(self, job: _Watched, elapsed: float) -> JobView:
        """Return what the policy may know."""
        return JobView(
            provider="simulated",
            kind="image",
            model=None,
            pace=self.pace,
            status=JobStatus.RUNNING,
            progress=job.shown[-1][1] if job.shown else None,
            elapsed=elapsed,
            polls=job.polls,
        )

    def look(self, job: _Watched, elapsed: float, *, learn: bool) -> float | None:
        """Look at a job; return the delay if it was found finished."""
        job.polls += 1
        pending = elapsed < job.duration
        if learn:
            outcome: _Outcome = "pending" if pending else "done"
            shown = () if pending else tuple(job.shown)
            self.policy.observe(_sighting(self, (job.seen, elapsed), outcome, job.started + elapsed, shown))
        if not pending:
            return elapsed - job.duration
        job.seen = elapsed
        if job.reporter is not None and (progress := job.reporter(elapsed)) is not None:
            job.shown.append((elapsed, progress))
        return None


def average(bill: Sequence[tuple[int, float]]) -> Outcome:
    """Return polls and delay per job."""
    return Outcome(sum(polls for polls, _ in bill) / len(bill), sum(delay for _, delay in bill) / len(bill))


def _sighting(
    desk: Desk, look: tuple[float, float], outcome: _Outcome, at: float, shown: tuple[tuple[float, float], ...] = ()
) -> Sighting:
    return Sighting(
        provider="simulated",
        kind="image",
        model=None,
        phase="running",
        pace=desk.pace,
        seen=look[0],
        now=look[1],
        outcome=outcome,
        progress=None,
        shown=shown,
        at=at,
    )


def fresh(delay_cost: float, seed: int, *, maximum: float = MAXIMUM, hint: float | None = None) -> Desk:
    """Return a desk whose policy knows nothing yet."""
    return Desk(AdaptiveInterval(delay_cost=delay_cost, maximum=maximum, seed=seed), hint=hint)


def burst(law: Law, delay_cost: float, jobs: int, seed: int, *, learn: bool = True) -> list[tuple[int, float]]:
    """Submit jobs within half a second to a policy that knows nothing; return polls and delay of each."""
    source = random.Random(seed)
    desk = fresh(delay_cost, seed)
    watched = [
        _Watched(law.quantile(source.uniform(1e-6, 1 - 1e-6)), source.uniform(0, 0.5), None) for _ in range(jobs)
    ]
    due = [(job.started + desk.policy.next_interval(desk.view(job, 0.0)), number) for number, job in enumerate(watched)]
    heapq.heapify(due)
    bill = list[tuple[int, float]]()
    while due:
        now, number = heapq.heappop(due)
        job = watched[number]
        elapsed = now - job.started
        if (late := desk.look(job, elapsed, learn=learn)) is not None:
            bill.append((job.polls, late))
            continue
        elapsed += ROUND_TRIP
        heapq.heappush(due, (job.started + elapsed + desk.policy.next_interval(desk.view(job, elapsed)), number))
    return bill


def cpu(repeats: int) -> dict[str, float]:
    """Return the policy's own CPU time in microseconds: of a poll, and of a finished job that brings new tables."""
    return {
        "poll": 1e6 * min(_poll_seconds(2000) for _ in range(repeats)),
        "new tables": 1e6 * min(_tables_seconds(8) for _ in range(repeats)),
    }


def _poll_seconds(count: int) -> float:
    desk = fresh(4.0, 0)
    view = desk.view(_Watched(1e9, 0.0, None), 4.0)
    pending = _sighting(desk, (0.0, 4.0), "pending", 0.0)  # time stands still: no new tables
    began = time.process_time()
    for _ in range(count):
        desk.policy.observe(pending)
        desk.policy.next_interval(view)
    return (time.process_time() - began) / count


def _tables_seconds(count: int) -> float:
    desk = fresh(4.0, 0)
    sightings = [_sighting(desk, (4.0, 5.0), "done", float(number)) for number in range(count)]
    began = time.process_time()
    for sighting in sightings:
        desk.policy.observe(sighting)
    return (time.process_time() - began) / count
