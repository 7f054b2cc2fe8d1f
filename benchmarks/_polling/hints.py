"""Jobs that take much less or more than the provider's document says: how many it takes to find out."""

from __future__ import annotations

import math
import random
from statistics import fmean
from typing import TYPE_CHECKING

from benchmarks._polling.laws import Law
from benchmarks._polling.trials import Desk
from mirage_async.scheduler import AdaptiveInterval

if TYPE_CHECKING:
    from mirage_async.models import Pace

__all__ = ["FACTORS", "Lesson", "lesson"]

FACTORS = {"a 50th": 1 / 50, "a 10th": 1 / 10, "a third": 1 / 3, "right": 1.0, "3 times": 3.0, "10 times": 10.0}
_SIGMA = 0.4
_JOBS = 60
_GOOD = 1.5  # times the delay of the best schedule
_SMOOTH = 3  # jobs whose mean has to be good


class Lesson:
    """What jobs of one kind cost one after the other, from the first of a new process on.

    Attributes:
        jobs: jobs before the delay of the next three stays within one and a half times the best one on average.
        first_polls: status calls of the first job.
        first_delay: seconds its end was noticed late.
        best_delay: seconds, of the best schedule.
    """

    def __init__(self, delays: list[float], polls: list[float], best: float) -> None:
        self.best_delay = best
        self.first_polls = polls[0]
        self.first_delay = delays[0]
        windows = [fmean(delays[at : at + _SMOOTH]) for at in range(len(delays) - _SMOOTH)]
        good = [delay <= _GOOD * best for delay in windows]
        self.jobs = next((number for number in range(len(good)) if good[number] and fmean(good[number:]) > 0.8), _JOBS)


def lesson(pace: Pace, factor: float, seeds: int) -> Lesson:
    """Return how jobs fare that take `factor` times what the document says."""
    assert pace.typical is not None  # noqa: S101 - for the type checker
    median = factor * pace.typical
    law = Law("", "", lambda time: 0.5 * math.erfc(-math.log(time / median) / _SIGMA * math.sqrt(0.5)) if time else 0.0)
    delays, polls = [0.0] * _JOBS, [0.0] * _JOBS
    for seed in range(seeds):
        source, desk = random.Random(f"{median} {seed}"), Desk(AdaptiveInterval(seed=seed), hint=pace.typical)
        desk.pace = pace
        bill = desk.run([law.quantile(source.uniform(1e-6, 1 - 1e-6)) for _ in range(_JOBS)])
        for number, (calls, late) in enumerate(bill):
            polls[number] += calls / seeds
            delays[number] += late / seeds
    price = min(4.0, max(1 / 30, 20 / median))
    return Lesson(delays, polls, law.optimum(price, minimum=0.25).delay)
