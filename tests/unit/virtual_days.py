"""Jobs on virtual time that an interval policy is asked and told about."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, Literal

from mirage_async.models import JobStatus, Pace
from mirage_async.scheduler import AdaptiveInterval, IntervalPolicy, JobView, Sighting

if TYPE_CHECKING:
    from collections.abc import Callable

SCOUTS = 6
PACE = Pace(first=1, interval=2, maximum=15, max_wait=300)


def view(
    elapsed: float,
    *,
    polls: int = 1,
    progress: float | None = None,
    model: str | None = None,
    phase: str = "running",
    phase_elapsed: float | None = None,
    pace: Pace = PACE,
) -> JobView:
    """Return what the policy sees of a job."""
    return JobView(
        provider="miragic",
        kind="image",
        model=model,
        pace=pace,
        status=JobStatus.RUNNING,
        progress=progress,
        elapsed=elapsed,
        polls=polls,
        phase=phase,
        phase_elapsed=phase_elapsed,
    )


def sighting(
    seen: float,
    now: float,
    outcome: Literal["pending", "done", "lost"] = "pending",
    *,
    at: float = 0.0,
    model: str | None = None,
    phase: str = "running",
    shown: tuple[tuple[float, float], ...] = (),
    pace: Pace = PACE,
) -> Sighting:
    """Return what a look told."""
    return Sighting(
        provider="miragic",
        kind="image",
        model=model,
        phase=phase,
        pace=pace,
        seen=seen,
        now=now,
        outcome=outcome,
        progress=None,
        at=at,
        shown=shown,
    )


class Day:
    """Jobs that come one after the other, asked about on virtual time."""

    def __init__(self, policy: IntervalPolicy, *, pace: Pace = PACE) -> None:
        self.policy = policy
        self.pace = pace
        self.now = 0.0
        self.looks = 0
        self.delay = 0.0

    def job(self, duration: float, bar: Callable[[float], float] | None = None, *, model: str | None = None) -> None:
        """Ask about one job until it is found finished."""
        seen, shown, polls = 0.0, list[tuple[float, float]](), 0
        while True:
            progress = shown[-1][1] if shown else None
            now = seen + self.policy.next_interval(
                view(seen, polls=polls, progress=progress, model=model, pace=self.pace)
            )
            polls += 1
            done = now >= duration
            if isinstance(self.policy, AdaptiveInterval):
                self.policy.observe(
                    sighting(
                        seen,
                        now,
                        "done" if done else "pending",
                        at=self.now + now,
                        model=model,
                        shown=tuple(shown) if done else (),
                        pace=self.pace,
                    )
                )
            if done:
                break
            seen = now
            if bar is not None:
                shown.append((seen, bar(seen)))
        self.now += now
        self.looks += polls
        self.delay += now - duration

    def bill(self, delay_cost: float) -> float:
        """Return what the jobs since the last bill cost."""
        cost = self.looks + delay_cost * self.delay
        self.looks, self.delay = 0, 0.0
        return cost


def trained(jobs: int = 50, *, median: float = 8.0, jitter: float = 0.0) -> AdaptiveInterval:
    """Return a policy that saw so many jobs of eight seconds or so."""
    policy, source = AdaptiveInterval(jitter=jitter, seed=1), random.Random(2)
    day = Day(policy)
    for _ in range(jobs):
        day.job(source.lognormvariate(math.log(median), 0.4))
    return policy


def schedule(policy: AdaptiveInterval, count: int = 12) -> list[float]:
    """Return the intervals of a job that never ends."""
    elapsed, intervals = 0.0, list[float]()
    for polls in range(count):
        intervals.append(policy.next_interval(view(elapsed, polls=polls)))
        elapsed += intervals[-1]
    return intervals


def regular(policy: AdaptiveInterval, *, pace: Pace = PACE, model: str | None = None, phase: str = "running") -> float:
    """Return the first interval of a job after all that are looked at early because nothing is known."""
    for _ in range(SCOUTS):
        policy.next_interval(view(0, polls=0, pace=pace, model=model, phase=phase))
    return policy.next_interval(view(0, polls=0, pace=pace, model=model, phase=phase))
