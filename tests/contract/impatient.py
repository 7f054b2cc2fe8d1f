"""Clocks for contract tests: real time or a hundred times that, and nobody ever waits between two attempts."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import anyio.lowlevel

if TYPE_CHECKING:
    from collections.abc import Callable

    from mirage_async._clock import Timer

__all__ = ["HastyClock", "ImpatientClock", "until"]


class ImpatientClock:
    """The machine's clock, moved on by every sleep, which returns at once and is remembered.

    Attributes:
        slept: seconds of every sleep, in order.
        wall: seconds by which `time()` is wrong.
    """

    _pace = 1  # seconds of this clock in one of the machine's

    def __init__(self) -> None:
        self.slept: list[float] = []
        self.wall = 0.0
        self._skipped = 0.0

    def monotonic(self) -> float:
        """Return the moment, with what was slept."""
        return time.monotonic() * self._pace + self._skipped

    def time(self) -> float:
        """Return the same as seconds since the epoch."""
        return time.time() + self._skipped + self.wall

    def call_at(self, when: float, callback: Callable[[], object]) -> Timer:
        """Arrange a call on the running loop."""
        return asyncio.get_running_loop().call_later(max(0.0, when - self.monotonic()) / self._pace, callback)

    async def sleep(self, seconds: float) -> None:
        """Move on by `seconds` at once."""
        self.slept.append(seconds)
        self._skipped += max(seconds, 0.0)
        await anyio.lowlevel.checkpoint()


class HastyClock(ImpatientClock):
    """The same with a hundred seconds a second, for what is waited for and not slept."""

    _pace = 100


async def until(condition: Callable[[], object]) -> None:
    """Let the loop run until `condition()` holds; `TimeoutError` after half a minute."""
    with anyio.fail_after(30):
        while not condition():  # noqa: ASYNC110 - conditions are about state that raises no events
            await anyio.sleep(0.001)
