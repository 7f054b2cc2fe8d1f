"""Outcomes on their way from the provider's last word to the waiters."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from mirage_async.jobs import begin_to_conclude, part_from

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from mirage_async._tasks import TaskSet
    from mirage_async.jobs import Job
    from mirage_async.wire import Report

__all__ = ["Endings"]


class Endings:
    """Brings outcomes home, has them recorded, and lets nobody wait for ever for one that got stuck on the way.

    Args:
        tasks: where what takes its time is waited for in the end.
        forget: told that nobody asks about a job any more.

    Attributes:
        closed: everything closes; what gets stuck from now on stays so.
    """

    def __init__(self, tasks: TaskSet, forget: Callable[[Job[Any]], object]) -> None:
        self._tasks = tasks
        self._forget = forget
        self.closed = False
        self._on_record = self._recorded  # one for all, since there may be thousands of outcomes on their way

    def spawn(self, job: Job[Any], report: Report) -> None:
        """Conclude a job in the background."""
        task = self._tasks.spawn(self.conclude(job, report))
        task.add_done_callback(partial(self._over, job))

    async def conclude(self, job: Job[Any], report: Report) -> None:
        """Bring the outcome home and have it recorded; nobody waits here for that."""
        recorded: asyncio.Future[None] | None = None
        try:
            recorded = await begin_to_conclude(job, report, self._on_record)
        finally:
            if recorded is None:
                self._part(job)
            else:
                self._tasks.hold(recorded)

    def _over(self, job: Job[Any], task: asyncio.Task[None]) -> None:
        if task.cancelled() and job.claimed and not job.done:  # before it began
            self._part(job)

    def _recorded(self, job: Job[Any], recorded: asyncio.Future[None]) -> None:
        self._tasks.drop(recorded)
        self._part(job)

    def _part(self, job: Job[Any]) -> None:
        self._forget(job)
        part_from(job, closed=self.closed)
