"""Deadlines of many short pieces of work, behind one timer.

Nearly every exchange ends long before its deadline. A timer of its own, arranged and called off again, would be one of
the dearest things about it. Here a deadline is an entry in a set, and one timer looks through the set when the earliest
may have come.
"""

from __future__ import annotations

import asyncio
import math
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Deadline", "Deadlines"]

_NONE = nullcontext()


class Deadlines:
    """Ends what takes too long, in the one event loop it is used in."""

    __slots__ = ("_looks_at", "_running")

    def __init__(self) -> None:
        self._running: set[Deadline] = set()
        self._looks_at = math.inf

    def within(self, seconds: float | None) -> AbstractContextManager[object, None]:
        """Return a context manager that ends its block with `TimeoutError` after `seconds`; None never does.

        It does so as `asyncio.timeout` does, by cancelling the task; a cancellation from elsewhere stays one, also
        where both come at once.
        """
        return _NONE if seconds is None else Deadline(self, seconds)

    def movable(self, seconds: float) -> Deadline:
        """Return the same for a block that may move its end."""
        return Deadline(self, seconds)

    def begin(self, deadline: Deadline) -> None:
        """Watch over a block."""
        self._running.add(deadline)
        self.look_at(deadline.at)

    def end(self, deadline: Deadline) -> None:
        """Watch over it no longer; a timer that comes too early costs less than one that is called off."""
        self._running.discard(deadline)

    def look_at(self, at: float) -> None:
        """Look through all of them at that moment."""
        if at < self._looks_at:
            self._looks_at = at
            asyncio.get_running_loop().call_at(at, self._look, at)

    def _look(self, at: float) -> None:
        if at != self._looks_at:
            return  # another has been set since, for an earlier moment
        self._looks_at = math.inf
        for deadline in tuple(self._running):
            if deadline.at <= at:
                deadline.passes()
        self.look_at(min((deadline.at for deadline in self._running if not deadline.passed), default=math.inf))


class Deadline:
    """One block and its end."""

    __slots__ = ("_all", "_cancelling", "_seconds", "_task", "at", "passed")

    def __init__(self, all_: Deadlines, seconds: float) -> None:
        self._all = all_
        self._seconds = seconds

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        assert task is not None  # noqa: S101 - whatever awaits runs in a task; says so to the type checker
        self._task = task
        self._cancelling = task.cancelling()
        self.at = loop.time() + self._seconds
        self.passed = False
        self._all.begin(self)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._all.end(self)
        if self.passed and self._task.uncancel() <= self._cancelling and exc_type is asyncio.CancelledError:
            raise TimeoutError from exc

    def renew(self, seconds: float) -> None:
        """Let the block end so many seconds from now; costs no timer, but where it is to end earlier than any other."""
        self.at = asyncio.get_running_loop().time() + seconds
        self._all.look_at(self.at)

    def rest(self) -> None:
        """Let the block last until it is renewed, for what takes its time without being late."""
        self.at = math.inf

    def passes(self) -> None:
        """Cut the block short."""
        self.passed = True
        self._task.cancel()
