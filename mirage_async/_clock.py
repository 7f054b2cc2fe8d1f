"""Time behind one seam.

Everything in the package that waits or measures asks a `Clock`, so a test (ours or a user's) can replace it with
`mirage_async.testing.FakeClock` and never sleep for real.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Clock", "SystemClock", "Timer"]


class Timer(Protocol):
    """A call that has been arranged and can still be called off."""

    def cancel(self) -> None:
        """Call it off; harmless after it ran."""


class Clock(Protocol):
    """What the package asks of time. Seconds are floats throughout."""

    def monotonic(self) -> float:
        """Return seconds on a clock that never steps; only differences mean anything."""
        ...

    def time(self) -> float:
        """Return seconds since the epoch; for records and HTTP dates, never for measuring."""
        ...

    def call_at(self, when: float, callback: Callable[[], object]) -> Timer:
        """Arrange `callback()` at the monotonic moment `when`, on the running event loop."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait `seconds`; a cancellation point even for zero or less."""


class SystemClock:
    """The machine's own clock and the running event loop's timers."""

    __slots__ = ()

    # Asked ten times and more for every job: the functions themselves, without a method around them.
    monotonic = staticmethod(time.monotonic)
    time = staticmethod(time.time)

    def call_at(self, when: float, callback: Callable[[], object]) -> Timer:
        """Arrange `callback()` on the running loop.

        The delay is recomputed against the loop's own clock, because another event loop may count from elsewhere.
        """
        loop = asyncio.get_running_loop()
        return loop.call_at(loop.time() + (when - self.monotonic()), callback)

    async def sleep(self, seconds: float) -> None:
        """Wait `seconds` on the running loop."""
        await asyncio.sleep(max(seconds, 0.0))
