"""Ctrl-C in two steps: the first stops the buying and lets everything in flight come home, the second ends at once.

A polite end from outside (SIGTERM: a container's stop, the end of a session; SIGHUP: the terminal is closed) has no
time for the first step.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

__all__ = ["Interruption", "minding_signals"]


class Interruption:
    """What signals have asked for so far.

    Args:
        stop: called at the first.
        leave: called at the second, just before the task is cancelled.

    Attributes:
        task: what the second cancels: the one that has made this.
        stopping: whether the first has come.
        leaving: whether the second has come, too.
        over: whether there is nothing left to interrupt.
    """

    def __init__(self, stop: Callable[[], object], leave: Callable[[], object]) -> None:
        self._stop = stop
        self._leave = leave
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine of the command makes it; says so to the type checker
        self.task: asyncio.Task[object] = task
        self.stopping = False
        self.leaving = False
        self.over = False

    def once_more(self, *, at_once: bool = False) -> None:
        """Take the next step, or both."""
        if self.over:
            return
        if not self.stopping and not at_once:
            self.stopping = True
            self._stop()
        elif not self.leaving:
            self.stopping = self.leaving = True
            self._leave()
            self.task.cancel()


@contextlib.contextmanager
def minding_signals(interruption: Interruption) -> Generator[None]:
    """Have Ctrl-C and a polite end go to `interruption` until the block ends; a third Ctrl-C ends the process rudely.

    Where Ctrl-C is ignored, as in what a script starts with "&", it stays so. Only a main thread hears signals at all.
    """
    loop = asyncio.get_running_loop()
    before: dict[signal.Signals, Any] = {}

    def interrupted(_number: int, _frame: object) -> None:
        if interruption.stopping:
            _restore(before)
        loop.call_soon_threadsafe(interruption.once_more)

    def ended(_number: int, _frame: object) -> None:
        _restore(before)
        loop.call_soon_threadsafe(lambda: interruption.once_more(at_once=True))

    heard = [(signal.SIGINT, interrupted), (signal.SIGTERM, ended)]
    heard += [(signal.SIGHUP, ended)] if sys.platform != "win32" else []
    for number, handler in heard if threading.current_thread() is threading.main_thread() else ():
        if signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        interruption.over = True
        _restore(before)


def _restore(before: dict[signal.Signals, Any]) -> None:
    while before:
        signal.signal(*before.popitem())
