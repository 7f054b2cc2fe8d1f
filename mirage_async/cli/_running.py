"""Doing in an event loop what a command does there, where a polite end comes between two steps, never within one."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator

__all__ = ["run_in_loop"]

T = TypeVar("T")


def run_in_loop(work: Coroutine[Any, Any, T]) -> T:
    """Do what a command does in an event loop of its own, and return what came of it.

    SIGTERM cancels it as Ctrl-C does, also where Ctrl-C is ignored, as in what a script's shell has started with "&".

    Raises:
        KeyboardInterrupt: a signal has ended it.
    """
    try:
        return asyncio.run(_minded(work))
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


async def _minded(work: Coroutine[Any, Any, T]) -> T:
    with _cancelled_by_sigterm():
        return await work


@contextlib.contextmanager
def _cancelled_by_sigterm() -> Generator[None]:
    """Have the first SIGTERM cancel this task until the block ends.

    A handler that raises does so in the middle of anything: of the loop itself, of a poller, or of what would have told
    how to come back to an accepted job. Only a main thread hears signals at all.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    task = cast("asyncio.Task[object]", asyncio.current_task())

    def end(_number: int, _frame: object) -> None:
        signal.signal(signal.SIGTERM, before)
        loop.call_soon_threadsafe(task.cancel)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
