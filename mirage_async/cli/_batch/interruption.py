"""Ctrl-C in two steps: the first stops the buying and lets everything in flight come home, the second leaves it.

What is on the wire then gets two seconds; a third Ctrl-C ends the process at once.

A polite end from outside (SIGTERM: a container's stop, the end of a session; SIGHUP: the terminal is closed) has no
time for the first step.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import TYPE_CHECKING

from mirage_async.cli._running import signals

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
    """Have what is to end the process go to `interruption` until the block ends; a third ends it rudely."""
    signals.listener = lambda number: interruption.once_more(at_once=number != signal.SIGINT)
    try:
        yield
    finally:
        signals.listener = None
