"""For your own test suite: a clock that moves when told, and a hub wired to a running sandbox.

::

    from mirage_async.testing import sandboxed

    async def test_my_service_stores_the_picture():
        async with sandboxed() as (mirage, sandbox):
            await my_service(mirage)
            assert sandbox.statistics().purchases == {"miragic": 1}
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from mirage_async.exceptions import InputError
from mirage_async.hub import Mirage
from mirage_async.sandbox import Sandbox
from mirage_async.scheduler import FixedInterval, Scheduler

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from mirage_async.scheduler import Limits

__all__ = ["FakeClock", "sandboxed"]

_TURNS_TO_SETTLE = 50  # turns of the event loop that tasks woken by a timer get to go as far as they can


class _FakeTimer:
    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        self.callback = None


class FakeClock:
    """A clock that stands still until `advance` moves it. Give it to `Scheduler(clock=...)`.

    Args:
        start: first value of `monotonic()`, in seconds.
        epoch: first value of `time()`, in seconds since 1970.
    """

    def __init__(self, *, start: float = 0.0, epoch: float = 1_750_000_000.0) -> None:
        self._now = start
        self._epoch = epoch - start
        self._timers: list[tuple[float, int, _FakeTimer]] = []
        self._order = itertools.count()

    def monotonic(self) -> float:
        """Return the seconds this clock shows."""
        return self._now

    def time(self) -> float:
        """Return the same moment as seconds since 1970."""
        return self._epoch + self._now

    def call_at(self, when: float, callback: Callable[[], object]) -> _FakeTimer:
        """Arrange `callback()` for the moment the clock passes `when`; it runs inside `advance`."""
        timer = _FakeTimer(callback)
        heapq.heappush(self._timers, (when, next(self._order), timer))
        return timer

    async def sleep(self, seconds: float) -> None:
        """Wait until the clock has moved by `seconds`; zero or less only gives other tasks a turn."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def wake() -> None:
            if not woken.done():
                woken.set_result(None)

        timer = self.call_at(self._now + seconds, wake)
        try:
            await woken
        finally:
            timer.cancel()

    async def advance(self, seconds: float) -> None:
        """Move the clock, running what falls due on the way in order, and let the woken tasks go as far as they can.

        Tasks that wait for a socket need real time: wait for what they bring about instead of advancing again.

        Args:
            seconds: 0 or more; 0 only runs what is due already.

        Raises:
            InputError: a negative number.
        """
        if seconds < 0:
            msg = f"seconds must be 0 or more, since clocks of this kind never go back; got {seconds!r}"
            raise InputError(msg)
        target = self._now + seconds
        await self._settle()
        while self._timers and self._timers[0][0] <= target:
            when, _, timer = heapq.heappop(self._timers)
            self._now = max(self._now, when)
            if timer.callback is not None:
                timer.callback()
                await self._settle()
        self._now = target
        await self._settle()

    @staticmethod
    async def _settle() -> None:
        for _ in range(_TURNS_TO_SETTLE):
            await asyncio.sleep(0)

    def __repr__(self) -> str:
        waiting = sum(timer.callback is not None for _, _, timer in self._timers)
        return f"<FakeClock {self._now:g} s, {waiting} timers>"


@asynccontextmanager
async def sandboxed(
    *,
    durations: Any = 0.05,
    seed: int = 0,
    strict: bool = False,
    poll_interval: float = 0.02,
    limits: Limits | None = None,
) -> AsyncGenerator[tuple[Mirage, Sandbox]]:
    """Run a sandbox on a free port of this machine and yield a hub wired to it, and the sandbox.

    Needs the `sandbox` extra. Both are closed at the end.

    Args:
        durations: seconds the sandbox's jobs take; see `Sandbox`.
        seed: the same seed draws the same pictures and ids.
        strict: have the sandbox enforce every documented rule.
        poll_interval: seconds between status calls.
        limits: the hub's limits.
    """
    scheduler = Scheduler(policy=FixedInterval(poll_interval))
    async with Sandbox(durations=durations, seed=seed, strict=strict) as sandbox:
        keys = dict.fromkeys(sandbox.base_urls, "sandbox")  # a real one in the environment is none of its business
        async with Mirage(keys, base_urls=sandbox.base_urls, limits=limits, scheduler=scheduler) as mirage:
            yield mirage, sandbox
