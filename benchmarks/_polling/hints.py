"""Jobs that take much less or more than the provider's document says: how many it takes to find out."""

from __future__ import annotations

import random
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from benchmarks._polling.laws import Law, lognormal
from benchmarks._polling.trials import Desk
from mirage_async.scheduler import AdaptiveInterval
from mirage_async.wire import miragic, mirako

if TYPE_CHECKING:
    from mirage_async.models import Pace

__all__ = ["FACTORS", "PACES", "Lesson", "lesson"]

FACTORS = {"1/50": 1 / 50, "1/10": 1 / 10, "1/3": 1 / 3, "right": 1.0, "x3": 3.0, "x10": 10.0}
PACES = {"miragic": miragic.PACE, "mirako": mirako.IMAGE_PACE, "avatars": mirako.AVATAR_PACE}
_SIGMA = 0.4
_JOBS = 60
_GOOD = 1.5  # times the delay of the best schedule
_SMOOTH = 3  # jobs whose mean has to be good


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """What jobs of one kind cost one after the other, from the first of a new process on.

    Attributes:
        jobs: jobs before the mean delay of three in a row is at most one and a half times that of the best schedule.
        first_polls: status calls of the very first job.
        first_delay: seconds its end was noticed late.
        best_delay: seconds, of the best schedule that asks no more often than the policy may.
    """

    jobs: int
    first_polls: float
    first_delay: float
    best_delay: float


def lesson(pace: Pace, factor: float, seeds: int) -> Lesson:
    """Return how jobs fare that take `factor` times what the document says."""
    assert pace.typical is not None  # noqa: S101 - for the type checker
    median = factor * pace.typical
    law = Law("", "", lognormal(median, _SIGMA))
    delays, polls = [0.0] * _JOBS, [0.0] * _JOBS
    for seed in range(seeds):
        source, desk = random.Random(f"{median} {seed}"), Desk(AdaptiveInterval(seed=seed))
        desk.pace = pace
        durations = [law.quantile(source.uniform(1e-6, 1 - 1e-6)) for _ in range(_JOBS)]
        for number, (calls, late) in enumerate(desk.run(durations)):
            polls[number] += calls / seeds
            delays[number] += late / seeds
    best = law.optimum(law.favourite_price, minimum=0.25).delay
    good = (number for number in range(_JOBS - _SMOOTH) if fmean(delays[number : number + _SMOOTH]) <= _GOOD * best)
    return Lesson(jobs=next(good, _JOBS), first_polls=polls[0], first_delay=delays[0], best_delay=best)
