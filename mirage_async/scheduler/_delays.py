"""How late the ends of jobs were noticed: what can be said about it from the looks alone."""

from __future__ import annotations

import math
from bisect import bisect_left

__all__ = ["DelayBounds"]

COUNTERS = 64
_SHORTEST = 0.001  # seconds; the first counter takes everything up to this
_GROWTH = 1.25  # from one counter to the next; the last begins above twenty minutes
_BOUNDS = tuple(_SHORTEST * _GROWTH**step for step in range(COUNTERS - 1))  # the most that each but the last takes
_PERCENTILE = 0.95


class DelayBounds:
    """Bounds of the delay between the end of a job and the look that saw it: exact mean, counted 95th percentile."""

    __slots__ = ("_count", "_counters", "_largest", "_total")

    def __init__(self) -> None:
        self._count = 0
        self._total = 0.0
        self._largest = 0.0
        self._counters = [0] * COUNTERS

    def add(self, seconds: float) -> None:
        """Count one bound; one that is no number of seconds from 0 on is passed over."""
        if not 0.0 <= seconds < math.inf:
            return
        self._count += 1
        self._total += seconds
        self._largest = max(self._largest, seconds)
        self._counters[bisect_left(_BOUNDS, seconds)] += 1

    @property
    def mean(self) -> float | None:
        """The mean in seconds, or None before there is any."""
        return self._total / self._count if self._count else None

    @property
    def p95(self) -> float | None:
        """Seconds that at least 95 % of the bounds do not exceed, at most a quarter too many; None before any."""
        if not self._count:
            return None
        missing = math.ceil(_PERCENTILE * self._count)
        for bound, count in zip(_BOUNDS, self._counters, strict=False):
            missing -= count
            if missing <= 0:
                return min(self._largest, bound)
        return self._largest
