"""Background work that outlives the call which started it.

A client is opened in one task and may be closed in another, so its background work cannot live in a task group, which
has to be entered and left by the same task. What a task group gives is kept: strong references, no failure unseen, and
an end that waits.
"""

from __future__ import annotations

import asyncio
import logging
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from contextvars import Context

__all__ = ["TaskSet", "fail", "fulfil"]

T = TypeVar("T")

_logger = logging.getLogger("mirage_async")


def fulfil(future: asyncio.Future[T], value: T) -> bool:
    """Give a future its result; False where it is done already.

    Nobody can look first: the handler of Ctrl-C that asyncio installs cancels the main task, and with it the future
    which that waits for, at any moment, also between a look and the next line.
    """
    try:
        future.set_result(value)
    except asyncio.InvalidStateError:
        return False
    return True


def fail(future: asyncio.Future[Any], error: BaseException) -> bool:
    """Give a future its error; False where it is done already, as for `fulfil`."""
    try:
        future.set_exception(error)
    except asyncio.InvalidStateError:
        return False
    return True


class TaskSet:
    """The background tasks of one owner."""

    __slots__ = ("_on_end", "_tasks")

    def __init__(self) -> None:
        self._tasks: set[asyncio.Future[Any]] = set()  # tasks, and what is held like one
        self._on_end = self._finished  # one for all, since there may be thousands of tasks

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(self, work: Coroutine[Any, Any, T], *, context: Context | None = None) -> asyncio.Task[T]:
        """Run `work` in the background and return its task; what it raises is logged, since nobody waits for it.

        Args:
            work: what is to be done.
            context: it runs in; None takes a copy of the one here.
        """
        if context is None:
            context = copy_context()  # one for both, where each would make its own
        task = asyncio.get_running_loop().create_task(work, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._on_end, context=context)
        return task

    def hold(self, future: asyncio.Future[Any]) -> None:
        """Wait in the end for a future as for a task, until it is dropped; its failure is the business of others."""
        self._tasks.add(future)

    def drop(self, future: asyncio.Future[Any]) -> None:
        """Wait for it no longer."""
        self._tasks.discard(future)

    def leave(self) -> None:
        """Take the running task out, which has nothing left to do but to return.

        It would be taken out anyway, in a turn of the event loop of its own; most work is not worth saving that.
        """
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - whoever runs this is a task; says so to the type checker
        task.remove_done_callback(self._on_end)
        self._tasks.discard(task)

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _logger.error("background work failed", exc_info=error)

    def cancel(self) -> None:
        """Have every task cancelled, without waiting for their end."""
        for task in tuple(self._tasks):
            task.cancel()

    async def aclose(self, *, grace: float) -> None:
        """Give the tasks `grace` seconds to finish, then cancel the rest and wait for their end.

        What they begin or have held meanwhile is waited for like themselves.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + grace
        while (unfinished := self._unfinished()) and (left := until - loop.time()) > 0:
            await asyncio.wait(unfinished, timeout=left)
        while unfinished := self._unfinished():
            for each in unfinished:
                each.cancel()
            await asyncio.wait(unfinished)

    def _unfinished(self) -> set[asyncio.Future[Any]]:
        current = asyncio.current_task()
        return {each for each in self._tasks if each is not current and not each.done()}
