"""Doing in an event loop what a command does there, and hearing what is to end it: between two steps, never within one.

A handler that raises does so in the middle of anything: of the loop itself, of a poller, or of what would have told how
to come back to an accepted job. So none does while there is something to lose.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any, TypeVar, cast

from mirage_async.cli._exits import CommandError, ExitCode
from mirage_async.cli._lines import AdvisedError, complain
from mirage_async.cli._streams import silence_unless_read
from mirage_async.exceptions import SubmissionUncertainError, WaitTimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator

__all__ = ["Signals", "run_in_loop", "signals"]

T = TypeVar("T")

PATIENCE = 1.0  # seconds for a slow reader of stderr, once a command is to end
RUDE = 3  # the signal that ends the process at once, whatever it does, even where its event loop stands still
_ENDING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Signals:
    """Ctrl-C and the polite ends from outside: SIGTERM (a container's stop), SIGHUP (the terminal is closed).

    Before anything runs in an event loop, the first raises `KeyboardInterrupt`. While something runs, the first cancels
    it, and the second leaves it the time to end well, some two seconds. Afterwards they are passed over: all that is
    left is to tell what has happened. The third ends the process at once.

    Where the event loop stands still, as while it writes to what nobody reads, only the third is heard.

    One that is ignored stays so: a shell has its reasons for what it starts with "&", and so has nohup.

    Attributes:
        listener: is told of each, in the event loop, in place of what is said above; None for nobody.
    """

    def __init__(self) -> None:
        self.listener: Callable[[int], object] | None = None
        self._count = 0
        self._set_up = self._cancelled = self._over = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[object] | None = None

    def set_up(self) -> dict[int, Any]:
        """Hear them from now on; return who has heard them until now. For the main thread alone, as signals are."""
        self._count, self._set_up, self._cancelled, self._over = 0, True, False, False
        self._loop = self._task = self.listener = None
        heard = [number for number in _ENDING if signal.getsignal(number) is not signal.SIG_IGN]
        return {number: signal.signal(number, self._hear) for number in heard}

    def pass_over(self) -> None:
        """Hear none of them any more, while the interpreter tidies up."""
        for number in _ENDING:
            signal.signal(number, signal.SIG_IGN)

    @contextlib.contextmanager
    def heard(self) -> Generator[None]:
        """Hear them until the block ends, where that is not so anyway."""
        if self._set_up or threading.current_thread() is not threading.main_thread():
            yield
            return
        before = self.set_up()
        try:
            yield
        finally:
            self._set_up, self._count = False, 0
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextlib.contextmanager
    def ending_in(self, loop: asyncio.AbstractEventLoop, task: asyncio.Task[object]) -> Generator[None]:
        """Have a task ended by them from now on; once that is over, the process has nothing more to do."""
        if not self._set_up or threading.current_thread() is not threading.main_thread():
            yield
            return
        self._loop, self._task, self._over = loop, task, False
        try:
            yield
        finally:
            self._over = True

    @property
    def have_come(self) -> bool:
        """Whether somebody wants the process to end."""
        return self._count > 0

    @property
    def have_cancelled(self) -> bool:
        """Whether one has cancelled what ran."""
        return self._cancelled

    def _hear(self, number: int, _frame: object) -> None:
        self._count += 1
        if self._count >= RUDE:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        elif self._loop is None:
            raise KeyboardInterrupt
        elif not self._over:
            self._loop.call_soon_threadsafe(self._end, number)

    def _end(self, number: int) -> None:
        if self.listener is not None:
            self.listener(number)
        elif not self._cancelled and self._task is not None:
            self._cancelled = True
            self._task.cancel()


signals = Signals()
"""Those of this process."""


def run_in_loop(work: Coroutine[Any, Any, T]) -> T:
    """Do what a command does in an event loop of its own, and return what came of it.

    Raises:
        CommandError: a signal has ended it. An error that was on its way then, and tells how to come back to what was
            bought, has been told.
    """
    with signals.heard():
        try:
            return _run(work)
        except asyncio.CancelledError as cancelled:
            if not signals.have_cancelled:
                raise
            _tell_of_what_it_cut_short(cancelled)
            raise CommandError("interrupted", code=ExitCode.INTERRUPTED) from None


async def _minded(work: Coroutine[Any, Any, T]) -> T:
    with signals.ending_in(asyncio.get_running_loop(), cast("asyncio.Task[object]", asyncio.current_task())):
        return await work


def _run(work: Coroutine[Any, Any, T]) -> T:
    try:
        return asyncio.run(_minded(work))
    finally:
        if signals.have_come:  # then what is still to be told must not hold anybody up
            silence_unless_read(sys.stderr, PATIENCE)


def _tell_of_what_it_cut_short(cancelled: BaseException) -> None:
    error = cancelled.__context__
    while error is not None:
        if isinstance(error, AdvisedError | SubmissionUncertainError | WaitTimeoutError):
            complain(error)
            return
        error = error.__context__
