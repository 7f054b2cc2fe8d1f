"""When to look at something that finishes at a random moment: the optimum checking procedure on a grid of times.

A look costs 1, a second between the end and the look that sees it costs `delay_cost`. Barlow, Hunter and Proschan
(1963) posed the problem; their recursion needs a log-concave density, which durations of jobs do not have. On a grid
the optimum is a dynamic program that is right for any distribution. With F the share finished by a time and G its
integral, the cost still to come at time t, weighted with the chance of getting there, is

    W(t) = min over s > t of  (1 - F(t)) + delay_cost * (G(s) - G(t) - F(t) * (s - t)) + W(s)

The first term is the look at s, the second the delay it will find on average. What the second term costs only grows
with s, so the search for the best s ends as soon as that alone is as dear as the best choice so far.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["areas", "plan", "windows"]


def areas(times: Sequence[float], finished: Sequence[float]) -> list[float]:
    """Return the integral of `finished` from the first time to each, `finished` being straight in between."""
    area, total = [0.0], 0.0
    before_time, before = times[0], finished[0]
    for time, share in zip(times[1:], finished[1:], strict=True):
        total += (time - before_time) * (before + share) * 0.5
        area.append(total)
        before_time, before = time, share
    return area


def windows(times: Sequence[float], *, minimum: float, maximum: float) -> list[tuple[int, int]]:
    """Return for each time but the last the range of times a look may follow at.

    Where the grid is too coarse for `minimum` and `maximum`, the nearest later time is allowed.
    """
    last = len(times) - 1
    allowed: list[tuple[int, int]] = []
    for number, time in enumerate(times[:-1]):
        low = min(last, max(number + 1, bisect_left(times, time + minimum)))
        allowed.append((low, max(low + 1, bisect_right(times, time + maximum))))
    return allowed


def plan(
    times: Sequence[float],
    finished: Sequence[float],
    area: Sequence[float],
    allowed: Sequence[tuple[int, int]],
    delay_cost: float,
) -> tuple[list[int], float]:
    """Return for each time the number of the time to look at next, and the cost expected from the first time on.

    Args:
        times: strictly increasing.
        finished: share finished by each time, never falling, 0 to 1.
        area: what `areas` returns for them.
        allowed: what `windows` returns for the times.
        delay_cost: looks that one second of delay is worth, above 0.

    Returns:
        The last time follows itself. What is unfinished there is taken to need one more look.
    """
    last = len(times) - 1
    following = [last] * (last + 1)
    ahead = [0.0] * last + [1.0 - finished[last]]
    for number in range(last - 1, -1, -1):
        share = finished[number]
        base = 1.0 - share - delay_cost * (area[number] - share * times[number])
        best, choice = math.inf, number + 1
        low, high = allowed[number]
        for candidate in range(low, high):
            cost = base + delay_cost * (area[candidate] - share * times[candidate])
            if cost >= best:
                break
            cost += ahead[candidate]
            if cost < best:
                best, choice = cost, candidate
        following[number], ahead[number] = choice, best
    return following, ahead[0]
