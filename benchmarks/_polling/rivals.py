"""How others decide when to ask: the documents' own loops, and the defaults of other client libraries."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    from benchmarks._polling.laws import Law

__all__ = ["RIVALS", "ROUND_TRIP", "Outcome", "Rival", "best_period", "measure", "periodic"]

ROUND_TRIP = 0.1  # seconds one status call takes; everybody's pauses begin after it


class Outcome(NamedTuple):
    """What a schedule achieves per job, on average."""

    polls: float
    delay: float

    def cost(self, delay_cost: float) -> float:
        """Return the cost in polls."""
        return self.polls + delay_cost * self.delay


class Rival(NamedTuple):
    """A schedule that does not learn.

    Attributes:
        name: for people.
        first: seconds until the first look.
        pause: seconds between the end of one look and the next, by its number from 0 on and a source of randomness.
        steady: the pause, where it is always the same.
        default: whether it is what a library or document does when nobody says otherwise.
    """

    name: str
    first: Callable[[random.Random], float]
    pause: Callable[[int, random.Random], float]
    steady: float | None = None
    default: bool = True


def _fixed(name: str, seconds: float, *, at_once: bool = False) -> Rival:
    first = 0.0 if at_once else seconds + ROUND_TRIP
    return Rival(name, lambda _: first, lambda _n, _r: seconds, seconds)


def _growing(name: str, pause: Callable[[int, random.Random], float], *, at_once: bool = False) -> Rival:
    def first(source: random.Random) -> float:
        return 0.0 if at_once else pause(0, source) + ROUND_TRIP

    return Rival(name, first, (lambda number, source: pause(number if at_once else number + 1, source)))


def _exponential(factor: float, longest: float) -> Callable[[int], float]:
    steps = math.ceil(math.log(longest, factor))
    return lambda number: min(longest, factor ** min(number, steps))


_slow, _fast, _google, _aws = _exponential(1.5, 30), _exponential(2, 30), _exponential(1.5, 20), _exponential(2, 60)

RIVALS: tuple[Rival, ...] = (
    _fixed("documents: every 2 s, at once", 2, at_once=True),
    _fixed("documents: every 5 s", 5),
    _fixed("documents: every 10 s", 10),
    _growing("backoff x1.5 to 30 s", lambda number, _: _slow(number)),
    _growing("backoff x1.5, full jitter", lambda number, source: source.uniform(0, _slow(number))),
    _growing("backoff x2, full jitter", lambda number, source: source.uniform(0, _fast(number))),
    _fixed("fal-client", 0.1, at_once=True),
    _fixed("replicate", 0.5),
    _growing("runwayml", lambda _, source: source.uniform(4.5, 7.5)),
    _growing("google-api-core", lambda number, source: source.uniform(0, _google(number)), at_once=True),
    _fixed("azure-core", 30, at_once=True),
    _fixed("AWS waiter 5 s", 5, at_once=True),
    _fixed("AWS waiter 15 s", 15, at_once=True),
    _growing("AWS waiter, jittered", lambda number, source: source.uniform(2, 2 * _aws(number))),
)


def periodic(durations: Sequence[float], first: float, period: float) -> Outcome:
    """Return what a look every `period` seconds achieves, the first after `first`."""
    polls = delay = 0.0
    for duration in durations:
        looks = max(0, math.ceil((duration - first) / period))
        polls += 1 + looks
        delay += first + looks * period - duration
    return Outcome(polls / len(durations), delay / len(durations))


def measure(rival: Rival, durations: Sequence[float], source: random.Random) -> Outcome:
    """Return what a rival achieves."""
    if rival.steady is not None:
        return periodic(durations, rival.first(source), rival.steady + ROUND_TRIP)
    polls = delay = 0.0
    for duration in durations:
        now, number = rival.first(source), 0
        while now < duration:
            now += rival.pause(number, source) + ROUND_TRIP
            number += 1
        polls += number + 1
        delay += now - duration
    return Outcome(polls / len(durations), delay / len(durations))


def best_period(law: Law, durations: Sequence[float], delay_cost: float) -> float:
    """Return the cost of the fixed period that would have been best for just this law and delay cost."""
    periods = [law.mean * 2 ** (number / 8) for number in range(-40, 17)]
    return min(periodic(durations, period, period).cost(delay_cost) for period in periods)
