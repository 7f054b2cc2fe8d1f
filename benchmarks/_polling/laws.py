"""How long jobs take in the simulation: six laws, and what the best possible schedule costs under each."""

from __future__ import annotations

import math
from bisect import bisect_left
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from mirage_async.scheduler import _looks

if TYPE_CHECKING:
    from collections.abc import Callable

    Cdf = Callable[[float], float]

__all__ = ["LAWS", "TIMES", "UNSEEN", "Law", "Optimum", "lognormal"]

_FINENESS = 48  # points to the octave, six times as many as the policy has
TIMES = [0.0, *(0.1 * 2 ** (number / _FINENESS) for number in range(19 * _FINENESS))]  # 0.1 s to 14 h


class Optimum(NamedTuple):
    """What the best schedule of all achieves for one who knows the law and may look at any moment."""

    cost: float
    polls: float
    delay: float


class Law:
    """A distribution of durations.

    Args:
        name: a letter.
        title: for people.
        cdf: share of jobs finished by so many seconds.
    """

    def __init__(self, name: str, title: str, cdf: Cdf) -> None:
        self.name = name
        self.title = title
        self.cdf = cdf

    @cached_property
    def shares(self) -> list[float]:
        """Share finished at each point of the grid; at the last, all."""
        return [*(self.cdf(time) for time in TIMES[:-1]), 1.0]

    @cached_property
    def mean(self) -> float:
        """Mean duration in seconds."""
        return TIMES[-1] - _looks.areas(TIMES, self.shares)[-1]

    @property
    def favourite_price(self) -> float:
        """What the policy takes a second to be worth where nobody says otherwise, once it knows the law."""
        return min(4.0, max(1 / 30, 20 / self.quantile(0.5)))

    def quantile(self, share: float) -> float:
        """Return the duration that `share` of the jobs stay within; above 0, below 1."""
        number = bisect_left(self.shares, share)
        low, high = self.shares[number - 1], self.shares[number]
        position = (share - low) / (high - low) if high > low else 1.0
        return TIMES[number - 1] + position * (TIMES[number] - TIMES[number - 1])

    def sample(self, count: int) -> list[float]:
        """Return `count` durations spread evenly over the law: the mean of a function over them has little noise."""
        return [self.quantile((number + 0.5) / count) for number in range(count)]

    def scaled(self, factor: float) -> Law:
        """Return the law of jobs that take `factor` times as long."""
        cdf = self.cdf
        return Law(self.name, f"{self.title}, times {factor:g}", lambda time: cdf(time / factor))

    def optimum(self, delay_cost: float, *, minimum: float = 0.0) -> Optimum:
        """Return what the best schedule costs, in looks and in seconds of delay per job."""
        shares = self.shares
        allowed = _looks.windows(TIMES, minimum=minimum, maximum=math.inf)
        following, cost = _looks.plan(TIMES, shares, _looks.areas(TIMES, shares), allowed, delay_cost)
        polls, number = 0.0, 0
        while number < len(TIMES) - 1:
            polls += 1.0 - shares[number]
            number = following[number]
        return Optimum(cost=cost, polls=polls, delay=(cost - polls) / delay_cost)


def lognormal(median: float, sigma: float) -> Cdf:
    """Return the law of durations whose logarithm is normal."""
    return lambda time: 0.5 * math.erfc(-math.log(time / median) / sigma * math.sqrt(0.5)) if time > 0 else 0.0


def _gamma4(mean: float) -> Cdf:
    def cdf(time: float) -> float:
        x = 4 * time / mean
        return 1 - math.exp(-x) * (1 + x + x * x / 2 + x**3 / 6)

    return cdf


def _mixed(share: float, first: Cdf, second: Cdf) -> Cdf:
    return lambda time: share * first(time) + (1 - share) * second(time)


def _after(warm: Cdf, cold: Cdf) -> Cdf:
    """Return the law of a cold start with warm work after it."""
    works = Law("", "", warm).sample(41)
    return lambda time: sum(cold(time - work) for work in works if work < time) / len(works)


def _clipped(cdf: Cdf, low: float, high: float) -> Cdf:
    return lambda time: 0.0 if time < low else 1.0 if time >= high else cdf(time)


LAWS = (
    Law("A", "lognormal, median 5 s, sigma 0.5", lognormal(5, 0.5)),
    Law("B", "lognormal, median 5 s, sigma 0.25", lognormal(5, 0.25)),
    Law("C", "gamma, shape 4, mean 8 s", _gamma4(8)),
    Law(
        "D",
        "lognormal, median 6 s, sigma 0.35; 15 % cold starts of 40 s more",
        _mixed(0.85, lognormal(6, 0.35), _after(lognormal(6, 0.35), lognormal(40, 0.5))),
    ),
    Law("E", "half 4 s, half 25 s, sigma 0.3, under one name", _mixed(0.5, lognormal(4, 0.3), lognormal(25, 0.3))),
    Law(
        "F",
        "avatars: lognormal, median 480 s, sigma 0.7, within 2 to 45 min",
        _clipped(lognormal(480, 0.7), 120, 2700),
    ),
)

UNSEEN = (
    Law("G", "Weibull, shape 1.5, mean 10 s", lambda time: 1 - math.exp(-((time / 11.08) ** 1.5)) if time > 0 else 0.0),
    Law("H", "uniform, 5 to 15 s", lambda time: min(1.0, max(0.0, (time - 5) / 10))),
    Law("I", "5 s and an exponential of 5 s", lambda time: 1 - math.exp(-(time - 5) / 5) if time > 5 else 0.0),  # noqa: PLR2004
    Law("J", "lognormal, median 12 s, sigma 0.4", lognormal(12, 0.4)),
    Law("K", "lognormal, median 90 s, sigma 0.6", lognormal(90, 0.6)),
    Law("L", "half 3 s, half 60 s, sigma 0.3, under one name", _mixed(0.5, lognormal(3, 0.3), lognormal(60, 0.3))),
)
"""Laws at which nobody looked when the policy's constants were chosen."""
