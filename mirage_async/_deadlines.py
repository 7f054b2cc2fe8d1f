"""Deadlines of many short pieces of work, behind one timer.

Nearly every exchange ends long before its deadline. A timer or a cancel scope of its own, arranged and called off
again, would be one of the dearest things about it. Here a deadline is an entry in a set, and one timer looks through
the set when the earliest may have come.
"""

from __future__ import annotations

import asyncio
import math
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from types import TracebackType

    from mirage_async._clock import Clock, Timer

__all__ = ["Deadline", "Deadlines", "Timeout"]

_LATE: Final = 0.25  # seconds after its moment; a look that comes later finds an event loop that stood still
_RESPITE: Final = 1.0  # seconds that those who are over by then get to take what has come meanwhile
_NONE = nullcontext()


class Deadlines:
    """Ends what takes too long, in the one event loop it is used in.

    An answer that is there is not thrown away. Who got it in the very turn in which the deadline passes still takes
    it; and after an event loop has stood still, as while a process is stopped, what lies in the sockets is read first.

    Args:
        clock: whose time counts.
    """

    __slots__ = ("_looks_at", "_respite_until", "_running", "_timer", "clock")

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._running: set[Deadline] = set()
        self._looks_at = math.inf
        self._respite_until: float | None = None  # while there is one
        self._timer: Timer | None = None

    def __len__(self) -> int:
        return len(self._running)

    def within(self, seconds: float | None) -> AbstractContextManager[object, bool | None]:
        """Return a context manager that ends its block with `TimeoutError` after `seconds`; None never does.

        It does so as `asyncio.timeout` does, by cancelling the task; a cancellation from elsewhere stays one, also
        where both come at once.
        """
        return _NONE if seconds is None else self.movable(seconds)

    def movable(self, seconds: float) -> Timeout:
        """Return the same for a block that may move its end."""
        return Timeout(self, self.clock.monotonic() + seconds)

    def end_all(self) -> None:
        """Cut every block short, whatever its deadline."""
        for deadline in tuple(self._running):
            deadline.passes()

    def begin(self, deadline: Deadline) -> None:
        """Watch over a block."""
        self._running.add(deadline)
        if deadline.at < self._looks_at:
            self._look_at(deadline.at)

    def end(self, deadline: Deadline) -> None:
        """Watch over it no longer; a timer that comes too early costs less than one that is called off."""
        self._running.discard(deadline)

    def move(self, deadline: Deadline, at: float) -> None:
        """Let a block that is watched end at another moment."""
        deadline.at = at
        if at < self._looks_at:
            self._look_at(at)

    def _look_at(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._looks_at, self._timer = at, self.clock.call_at(at, self._look)

    def _look(self) -> None:
        # By now others may be over as well: many that end at nearly the same time must not take a look each.
        now = max(self._looks_at, self.clock.monotonic())
        late = now - self._looks_at > _LATE
        self._looks_at, self._timer = math.inf, None
        if late and self._respite_until is None:
            self._respite_until = now + _RESPITE  # one, even if the next look is late again
        if self._respite_until is not None and now < self._respite_until:
            self._look_at(self._respite_until)
            return
        self._respite_until = None
        over = [deadline for deadline in self._running if deadline.at <= now]
        if over:  # in the next turn, after those whose wait has ended in this one
            asyncio.get_running_loop().call_soon(self._cut, over, now)
        earliest = min((deadline.at for deadline in self._running if deadline.at > now), default=math.inf)
        if earliest < math.inf:
            self._look_at(earliest)

    def _cut(self, over: list[Deadline], now: float) -> None:
        for deadline in over:
            if deadline.at <= now and deadline in self._running:
                deadline.passes()


class Deadline:
    """One block and its end: what those that are context managers share.

    Args:
        all_: those that are watched together.
        at: when the block is cut short, in the seconds of their clock; infinity for never.
    """

    __slots__ = ("_all", "_cancelling", "_task", "at", "passed")

    def __init__(self, all_: Deadlines, at: float) -> None:
        self._all = all_
        self.at = at

    def begin(self) -> None:
        """Enter the block, in the task that runs it."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - whatever awaits runs in a task; says so to the type checker
        self._task = task
        self._cancelling = task.cancelling()
        self.passed = False
        self._all.begin(self)

    def has_ended(self, exc_type: type[BaseException] | None) -> bool:
        """Leave the block with this exception, and return whether that is the work of the deadline alone."""
        self._all.end(self)
        return self.passed and self._task.uncancel() <= self._cancelling and exc_type is asyncio.CancelledError

    def passes(self) -> None:
        """Cut the block short; once is enough."""
        if not self.passed:
            self.passed = True
            self._task.cancel()


class Timeout(Deadline):
    """A block that ends with `TimeoutError`."""

    __slots__ = ()

    def __enter__(self) -> Self:
        self.begin()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.has_ended(exc_type):
            raise TimeoutError from exc

    def renew(self, seconds: float) -> None:
        """Let the block end so many seconds from now; costs no timer, but where it is to end earlier than any other."""
        self._all.move(self, self._all.clock.monotonic() + seconds)

    def rest(self) -> None:
        """Let the block last until it is renewed, for what takes its time without being late."""
        self.at = math.inf
