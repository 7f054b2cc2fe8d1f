"""The sandbox's own time: it follows the machine's, stands still, or jumps."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from mirage_async._clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from mirage_async._clock import Clock, Timer

__all__ = ["VirtualClock"]

_QUIET = 0.005  # seconds
_LAST_DATE = 2.2e11  # seconds since 1970: in the year 8941, with room for what will happen before dates end in 9999


class _Pending:
    __slots__ = ("callback", "when")

    def __init__(self, when: float, callback: Callable[[], object]) -> None:
        self.when = when
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        self.callback = None


class _Cancellable(Protocol):
    def cancel(self) -> None: ...


class VirtualClock:
    """A clock that can be stopped and moved forward, never back.

    It starts out following the machine's clock. Whatever waits for it (jobs, stalls, deliveries, and your own code if
    you hand it this clock, for example as `Scheduler(clock=sandbox.clock)`) is woken in order when it jumps. One
    process, one event loop; not safe to use from other threads.

    Args:
        base: the clock to follow; None for the machine's.
    """

    def __init__(self, base: Clock | None = None) -> None:
        self._base: Clock = base or SystemClock()
        self._ahead = 0.0
        # One moment on both scales. A machine whose wall clock is set meanwhile does not disturb the sandbox.
        self._known = (self._base.monotonic(), self._base.time())
        self._frozen_at: float | None = None
        self._quiet: float | None = None
        self._timers: list[tuple[float, int, _Pending]] = []
        self._order = itertools.count()
        self._alarm: tuple[float, Timer] | None = None
        self._busy = 0
        self._stirs = 0
        self._watch: _Cancellable | None = None

    def __repr__(self) -> str:
        mode = "auto-advancing" if self.auto_advancing else "frozen" if self.frozen else "running"
        return f"<{type(self).__name__} {self.monotonic():.3f} s, {mode}, {self.waiting} waiting>"

    @property
    def frozen(self) -> bool:
        """Whether it stands still until it is told to move."""
        return self._frozen_at is not None

    @property
    def auto_advancing(self) -> bool:
        """Whether it stands still, but jumps to whatever is next when nothing else happens."""
        return self._quiet is not None

    @property
    def waiting(self) -> int:
        """How many timers have not gone off yet."""
        return sum(pending.callback is not None for _, _, pending in self._timers)

    def monotonic(self) -> float:
        """Return the seconds it shows; only differences mean anything."""
        return self._base.monotonic() + self._ahead if self._frozen_at is None else self._frozen_at

    def time(self) -> float:
        """Return the same moment as seconds since 1970."""
        moment, epoch = self._known
        # Microseconds: what lies below is noise of the subtraction, and would make two equal runs differ.
        return round(epoch + (self.monotonic() - moment), 6)

    def freeze(self, *, at: float | None = None) -> None:
        """Stand still from now on.

        Args:
            at: what `time()` shall say, in seconds since 1970, so that two runs show the same times; None leaves it.
        """
        if at is not None and not 0 <= at <= _LAST_DATE:
            raise ValueError(f"at must be 0 to {_LAST_DATE:.0f} seconds since 1970, got {at!r}")
        self._frozen_at = self.monotonic()
        self._quiet = None
        if at is not None:
            self._known = (self._frozen_at, at)
        self._rearm()

    def resume(self) -> None:
        """Run on at the machine's pace, from the moment it stands at."""
        if self._frozen_at is not None:
            self._ahead = self._frozen_at - self._base.monotonic()
            self._frozen_at = None
        self._quiet = None
        self._rearm()

    def advance(self, seconds: float) -> None:
        """Jump forward, and wake in order whoever waited for a moment on the way.

        Args:
            seconds: 0 or more; 0 wakes only what is due already.

        Raises:
            ValueError: a negative number, or one that leads beyond the dates that answers can show.
        """
        if not seconds >= 0:
            raise ValueError(f"seconds must be 0 or more, since this clock never goes back, got {seconds!r}")
        if self.time() + seconds > _LAST_DATE:
            raise ValueError(f"seconds must lead to no later than {_LAST_DATE:.0f} since 1970, got {seconds!r}")
        target = self.monotonic() + seconds
        while self._timers and self._timers[0][0] <= target:
            when, _, pending = heapq.heappop(self._timers)
            self._move_to(when)
            self._fire(pending)
        self._move_to(target)
        self._rearm()

    def auto_advance(self, *, after: float = _QUIET) -> None:
        """Stand still, and jump to the next moment anybody waits for whenever nothing has happened for a while.

        With this a build of 45 minutes is over as soon as nobody does anything but wait for it.

        Args:
            after: real seconds without a request, an answer or a delivery, above 0.

        Raises:
            ValueError: `after` is not above 0.
        """
        if not 0 < after < math.inf:
            raise ValueError(f"after must be more than 0 seconds, got {after!r}")
        self.freeze()
        self._quiet = after
        self._rearm()

    def call_at(self, when: float, callback: Callable[[], object]) -> Timer:
        """Arrange `callback()` for the moment the clock reaches `when`; needs a running event loop."""
        pending = _Pending(when, callback)
        heapq.heappush(self._timers, (when, next(self._order), pending))
        self._rearm()
        return pending

    async def sleep(self, seconds: float) -> None:
        """Wait until the clock has moved by `seconds`; zero or less only gives other tasks a turn."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def wake() -> None:
            if not woken.done():
                woken.set_result(None)

        timer = self.call_at(self.monotonic() + seconds, wake)
        try:
            await woken
        finally:
            timer.cancel()

    @contextmanager
    def at_work(self) -> Generator[None, None, None]:
        """Keep an auto-advancing clock from jumping while this block does something other than wait for it."""
        self._busy += 1
        self._stirs += 1
        try:
            yield
        finally:
            self._busy -= 1
            self._stirs += 1

    @contextmanager
    def at_rest(self) -> Generator[None, None, None]:
        """Let it jump again, inside a block of `at_work`, while this block waits for the clock."""
        self._busy -= 1
        try:
            yield
        finally:
            self._busy += 1

    def close(self) -> None:
        """Forget every timer and stop watching; `monotonic` and `time` go on."""
        self._timers.clear()
        self._quiet = None
        self._rearm()

    def _move_to(self, moment: float) -> None:
        """Show `moment`, unless the clock is past it already."""
        ahead = moment - self.monotonic()
        if ahead <= 0:
            return
        if self._frozen_at is None:
            self._ahead += ahead
        else:
            self._frozen_at = moment

    def _rearm(self) -> None:
        """Have the machine's clock, or the watch for quiet, wake us for the next timer."""
        while self._timers and self._timers[0][2].callback is None:
            heapq.heappop(self._timers)
        self._watch_for_quiet()
        due = self._timers[0][0] - self._ahead if self._timers and not self.frozen else None
        if self._alarm is not None and self._alarm[0] == due:
            return
        if self._alarm is not None:
            self._alarm[1].cancel()
        self._alarm = None if due is None else (due, self._base.call_at(due, self._ring))

    def _ring(self) -> None:
        self._alarm = None
        now = self.monotonic()
        while self._timers and self._timers[0][0] <= now:
            self._fire(heapq.heappop(self._timers)[2])
        self._rearm()

    @staticmethod
    def _fire(pending: _Pending) -> None:
        callback, pending.callback = pending.callback, None
        if callback is not None:
            callback()

    def _watch_for_quiet(self) -> None:
        if self._quiet is None or not self._timers:
            if self._watch is not None:
                self._watch.cancel()
                self._watch = None
        elif self._watch is None:
            loop = asyncio.get_running_loop()
            self._watch = loop.call_later(self._quiet, self._look, self._stirs)

    def _look(self, stirs: int) -> None:
        """Jump if nothing has stirred since the last look."""
        self._watch = None
        if not self._busy and stirs == self._stirs and self._timers:
            self.advance(max(0.0, self._timers[0][0] - self.monotonic()))
        else:
            self._watch_for_quiet()
