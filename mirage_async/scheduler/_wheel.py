"""A timer wheel: things by the tick in which they are due, with cheap withdrawal."""

from __future__ import annotations

import heapq
import math
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["TICK", "TimerWheel"]

T = TypeVar("T")

TICK = 0.02  # seconds; what is due is taken out at the end of its tick
_EXACT = 1e-6  # of a tick: a moment that is a whole number of ticks but for rounding belongs to that tick
_COMPACT_ABOVE = 64  # stale items are not worth sweeping out below this


class TimerWheel(Generic[T]):
    """Lists of items by tick, and a heap of the ticks that have any.

    A hundred thousand items share a few thousand ticks, so adding and taking out cost next to nothing and an item
    occupies little more than its place in a list. An item that was moved or withdrawn stays where it was and is
    skipped when its tick comes; once such items outnumber the live ones they are swept out.

    Args:
        current: tells whether the item is still due in the tick it was added for.
    """

    __slots__ = ("_current", "_live", "_slots", "_stale", "_ticks")

    def __init__(self, current: Callable[[T, int], bool]) -> None:
        self._current = current
        self._slots: dict[int, list[T]] = {}
        self._ticks: list[int] = []
        self._live = 0
        self._stale = 0

    def __len__(self) -> int:
        return self._live

    def add(self, when: float, item: T) -> int:
        """Add `item`, due at `when`, and return its tick, by which `current` will know it."""
        tick = math.ceil(when / TICK - _EXACT)
        slot = self._slots.get(tick)
        if slot is None:
            self._slots[tick] = [item]
            heapq.heappush(self._ticks, tick)
        else:
            slot.append(item)
        self._live += 1
        return tick

    def withdrawn(self) -> None:
        """Note that one item has become stale: it moved or is gone."""
        self._live -= 1
        self._stale += 1
        if self._stale > _COMPACT_ABOVE and self._stale > self._live:
            self._compact()

    def next_at(self) -> float | None:
        """Return when the earliest live item is taken out, or None when there is none."""
        while self._ticks:
            tick = self._ticks[0]
            slot = self._slots[tick]
            while slot and not self._current(slot[-1], tick):
                slot.pop()
                self._stale -= 1
            if slot:
                return tick * TICK
            del self._slots[heapq.heappop(self._ticks)]
        return None

    def pop_due(self, now: float) -> Iterator[T]:
        """Take out every live item whose tick has ended by `now`: tick by tick, within one in the order of adding."""
        while (at := self.next_at()) is not None and at <= now:
            tick = heapq.heappop(self._ticks)
            for item in self._slots.pop(tick):
                if self._current(item, tick):
                    self._live -= 1
                    yield item
                else:
                    self._stale -= 1

    def _compact(self) -> None:
        for tick, slot in self._slots.items():
            # Once each: what moved away and back is in its list twice, and alive both times.
            slot[:] = dict.fromkeys(item for item in slot if self._current(item, tick))
        self._slots = {tick: slot for tick, slot in self._slots.items() if slot}
        self._ticks = list(self._slots)
        heapq.heapify(self._ticks)
        self._stale = 0
