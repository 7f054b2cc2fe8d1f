"""A timer wheel: things by the tick in which they are due, with cheap withdrawal."""

from __future__ import annotations

import heapq
import math
import sys
from itertools import islice
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["TICK", "TimerWheel"]

T = TypeVar("T")

TICK = 0.02  # seconds; what is due is taken out at the end of its tick
_EXACT = 1e-6  # of a tick: a moment that is a whole number of ticks but for rounding belongs to that tick
_COMPACT_ABOVE = 64  # stale items are not worth sweeping out below this


class _Slot(Generic[T]):
    """One tick: its items, and the one number that all of them know it by, so that none has a number of its own.

    The items are keys, since the garbage collector does not look through a dict that holds nothing it keeps track of,
    as it does through every list.
    """

    __slots__ = ("items", "tick")

    def __init__(self, tick: int, items: dict[T, None]) -> None:
        self.tick = tick
        self.items = items


class TimerWheel(Generic[T]):
    """Items by tick, and a heap of the ticks that have any.

    A hundred thousand items share a few thousand ticks, so adding and taking out cost next to nothing and an item
    occupies little more than its place in a dict. An item that was moved or withdrawn stays where it was and is
    skipped when its tick comes; once such items outnumber the live ones they are swept out. Items are told apart by
    identity or whatever else makes them equal.

    Args:
        tick_of: tells the tick in which an item is due; None, or another than the one it was added for, makes it stale.
    """

    __slots__ = ("_live", "_slots", "_stale", "_tick_of", "_ticks")

    def __init__(self, tick_of: Callable[[T], int | None]) -> None:
        self._tick_of = tick_of
        self._slots: dict[int, _Slot[T]] = {}
        self._ticks: list[int] = []
        self._live = 0
        self._stale = 0

    def __len__(self) -> int:
        return self._live

    def add(self, when: float, item: T, *, slack: float = 0.0) -> int:
        """Add `item`, due at `when`, and return its tick, which `tick_of` is to tell from now on.

        Args:
            when: seconds.
            item: what is due then.
            slack: seconds it may be late beyond its tick. What is due far from now is rarely needed to the tick, and
                items that may share one cost less: each tick in use costs more than an item.
        """
        tick = math.ceil(when / TICK - _EXACT)
        if slack > 2 * TICK:
            below = (1 << (int(slack / TICK).bit_length() - 1)) - 1  # of a power of two, so that many meet
            tick = (tick + below) & ~below
        slot = self._slots.get(tick)
        if slot is None:
            slot = self._slots[tick] = _Slot(tick, {item: None})
            heapq.heappush(self._ticks, tick)
        elif item in slot.items:  # it has moved away and back
            self._stale -= 1
        else:
            slot.items[item] = None
        self._live += 1
        return slot.tick

    def withdrawn(self) -> None:
        """Note that one item has become stale: it moved or is gone."""
        self._live -= 1
        self._stale += 1
        if self._stale > _COMPACT_ABOVE and self._stale > self._live:
            self._compact()

    def next_at(self) -> float:
        """Return when the earliest live item is taken out, infinity when there is none."""
        while self._ticks:
            tick = self._ticks[0]
            items = self._slots[tick].items
            while items and self._tick_of(next(reversed(items))) != tick:
                items.popitem()
                self._stale -= 1
            if items:
                return tick * TICK
            del self._slots[heapq.heappop(self._ticks)]
        return math.inf

    def pop_due(self, now: float, *, most: int = sys.maxsize) -> Iterator[T]:
        """Take out every live item whose tick has ended by `now`: tick by tick, within one in the order of adding.

        Args:
            now: seconds.
            most: items to take out, whereupon the rest stays; whoever gives it runs the iterator to its end.
        """
        while most > 0 and self.next_at() <= now:
            tick = self._ticks[0]
            items = self._slots[tick].items
            taken: Iterable[T] = items
            if len(items) <= most:
                del self._slots[heapq.heappop(self._ticks)]
            else:
                taken = tuple(islice(items, most))
                for item in taken:
                    del items[item]
            for item in taken:
                if self._tick_of(item) == tick:
                    self._live -= 1
                    most -= 1
                    yield item
                else:
                    self._stale -= 1

    def _compact(self) -> None:
        tick_of = self._tick_of
        for tick, slot in self._slots.items():
            slot.items = {item: None for item in slot.items if tick_of(item) == tick}
        self._slots = {tick: slot for tick, slot in self._slots.items() if slot.items}
        self._ticks = list(self._slots)
        heapq.heapify(self._ticks)
        self._stale = 0
