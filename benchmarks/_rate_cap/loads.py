"""What is bought in the simulation: kinds of jobs, their durations, and what a second of delay is worth for each."""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from functools import cached_property
from typing import NamedTuple

from benchmarks._polling.laws import LAWS, TIMES, Law, lognormal
from mirage_async.scheduler import _looks

__all__ = ["KINDS", "LOADS", "Arrival", "Kind", "draw"]

SHORTEST = 0.25  # seconds, the policy's own minimum


class Arrival(NamedTuple):
    """One job: when it is submitted, as what, and how long it takes."""

    at: float
    kind: str
    duration: float


class Kind:
    """One kind of job, for somebody who knows its law.

    Args:
        law: how long such jobs take.
        price: status calls that a second of delay is worth.
    """

    def __init__(self, law: Law, price: float) -> None:
        self.law = law
        self.price = price

    @cached_property
    def _areas(self) -> list[float]:
        return _looks.areas(TIMES, self.law.shares)

    @cached_property
    def _targets(self) -> list[float]:
        allowed = _looks.windows(TIMES, minimum=SHORTEST, maximum=math.inf)
        following, _ = _looks.plan(TIMES, self.law.shares, self._areas, allowed, self.price)
        return [TIMES[number] for number in following]

    def interval(self, elapsed: float) -> float:
        """Return the interval of the schedule that is best where there is no limit."""
        return max(SHORTEST, self._targets[bisect_right(TIMES, elapsed) - 1] - elapsed)

    def index(self, last: float, now: float) -> float:
        """Return what not having asked since `last` is expected to have cost by `now`, in status calls."""
        share, area = self._at(last)
        late = self._at(now)[1] - area - share * (now - last)
        return self.price * max(0.0, late) / max(1 - share, 1e-12)

    def _at(self, elapsed: float) -> tuple[float, float]:
        number = bisect_right(TIMES, elapsed) - 1
        low, high = TIMES[number], TIMES[number + 1]
        share = self.law.shares[number]
        share += (self.law.shares[number + 1] - share) * (elapsed - low) / (high - low)
        return share, self._areas[number] + (elapsed - low) * (self.law.shares[number] + share) / 2


_BY_NAME = {law.name: law for law in LAWS}
KINDS = {
    "picture A": Kind(_BY_NAME["A"], 3.0),
    "picture C": Kind(_BY_NAME["C"], 2.0),
    "video": Kind(Law("V", "video: lognormal, median 120 s, sigma 0.4", lognormal(120, 0.4)), 0.15),
    "avatar": Kind(_BY_NAME["F"], 0.03),
}
LOADS = {
    "images": {"picture A": 0.5, "picture C": 0.5},
    "mixed": {"picture A": 0.4, "picture C": 0.4, "video": 0.1, "avatar": 0.1},
}


def draw(load: str, jobs: int, seed: int) -> list[Arrival]:
    """Return jobs submitted at random moments, one a second on average."""
    source = random.Random(f"{load} {seed}")
    shares = LOADS[load]
    arrivals, now = list[Arrival](), 0.0
    for _ in range(jobs):
        now += source.expovariate(1.0)
        (kind,) = source.choices(list(shares), list(shares.values()))
        arrivals.append(Arrival(now, kind, KINDS[kind].law.quantile(source.uniform(1e-6, 1 - 1e-6))))
    return arrivals
