"""A queue of things by the moment they are due, with cheap withdrawal."""

from __future__ import annotations

import heapq
import itertools
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["DueQueue"]

T = TypeVar("T")

_COMPACT_ABOVE = 64  # stale entries are not worth sweeping out below this


class DueQueue(Generic[T]):
    """A heap that is never searched: an item that was moved or withdrawn leaves a stale entry, skipped when reached.

    Stale entries are swept out once they outnumber the live ones, so the queue stays within twice its live size and
    each operation within amortised O(log n).

    Args:
        current: tells whether the item is still due at the moment its entry was made for.
    """

    __slots__ = ("_current", "_heap", "_order", "_stale")

    def __init__(self, current: Callable[[T, float], bool]) -> None:
        self._current = current
        self._heap: list[tuple[float, int, T]] = []
        self._order = itertools.count()  # equal moments come out in the order they went in
        self._stale = 0

    def __len__(self) -> int:
        return len(self._heap) - self._stale

    def push(self, when: float, item: T) -> None:
        """Add `item`, due at `when`."""
        heapq.heappush(self._heap, (when, next(self._order), item))

    def withdrawn(self) -> None:
        """Note that one entry has become stale: its item moved or is gone."""
        self._stale += 1
        if self._stale > _COMPACT_ABOVE and self._stale * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if self._current(entry[2], entry[0])]
            heapq.heapify(self._heap)
            self._stale = 0

    def next_at(self) -> float | None:
        """Return when the earliest live item is due, or None when there is none."""
        while self._heap:
            when, _, item = self._heap[0]
            if self._current(item, when):
                return when
            heapq.heappop(self._heap)
            self._stale -= 1
        return None

    def pop_due(self, now: float) -> Iterator[T]:
        """Take out every live item due at or before `now`, earliest first."""
        while (when := self.next_at()) is not None and when <= now:
            yield heapq.heappop(self._heap)[2]
