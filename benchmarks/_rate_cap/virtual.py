"""An event loop whose time is virtual: where it would sleep, its clock jumps."""

from __future__ import annotations

import asyncio
import selectors
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from mirage_async._clock import Timer

__all__ = ["LoopClock", "run"]

T = TypeVar("T")


class _Jumping(selectors.DefaultSelector):
    """Waits for nothing: the seconds a loop wants to sleep pass at once."""

    def __init__(self) -> None:
        super().__init__()
        self.passed = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout > 0:
            self.passed += timeout
        return super().select(0)


class _VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.passed


class LoopClock:
    """The running loop's own time as the clock of a scheduler."""

    def monotonic(self) -> float:
        """Return the loop's seconds."""
        return asyncio.get_running_loop().time()

    def time(self) -> float:
        """Return the same, for want of a calendar."""
        return self.monotonic()

    def call_at(self, when: float, callback: Callable[[], object]) -> Timer:
        """Arrange `callback()`."""
        return asyncio.get_running_loop().call_at(when, callback)

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(max(seconds, 0.0))


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` to its end in a loop of its own, at whatever speed the machine has."""
    with asyncio.Runner(loop_factory=_VirtualLoop) as runner:
        return runner.run(work)
