"""Who works when: jobs wait for a worker, are worked on, and end. All of it follows from the clock.

A small simulation of discrete events. Whoever asks where a job stands has the workshop catch up first, so what is said
is exact to the moment even when the timer that belongs to it is late.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
from collections import Counter, defaultdict, deque
from typing import TYPE_CHECKING

from mirage_async.sandbox.jobs import Station

if TYPE_CHECKING:
    from collections.abc import Callable

    from mirage_async._clock import Clock, Timer
    from mirage_async.sandbox.jobs import Job

__all__ = ["Workshop"]


class Workshop:
    """Jobs of all providers, in the order of their ends.

    Args:
        clock: where time comes from.
        workers: how many jobs of a provider are worked on at a time, by its name; who is not in it has no limit.
        on_end: called with every job that ends, once, as it ends.
    """

    def __init__(self, clock: Clock, *, workers: dict[str, int], on_end: Callable[[Job], None]) -> None:
        self._clock = clock
        self._workers = workers
        self._on_end = on_end
        self._waiting: defaultdict[str, deque[Job]] = defaultdict(deque)
        self._working: Counter[str] = Counter()
        self._ends: list[tuple[float, int, Job]] = []
        self._order = itertools.count()
        self._ended: dict[Job, asyncio.Future[None]] = {}
        self._alarm: Timer | None = None
        self._alarm_at = math.inf

    def set_workers(self, provider: str, workers: int | None) -> None:
        """Let so many jobs of a provider be worked on at a time from now on; None is no limit."""
        self.catch_up()
        if workers is None:
            self._workers.pop(provider, None)
        else:
            self._workers[provider] = workers
        self._fill(provider, self._clock.monotonic())
        self._rearm()

    def open(self, job: Job) -> None:
        """Take a job in; a free worker begins at once."""
        self.catch_up()
        self._waiting[job.provider].append(job)
        self._fill(job.provider, job.started_at)
        self.catch_up()

    def catch_up(self) -> None:
        """Let everything happen that is due by now, in its order."""
        now = self._clock.monotonic()
        while self._ends and self._ends[0][0] <= now:
            moment, _, job = heapq.heappop(self._ends)
            if job.end is None and job.ends_at == moment:
                self._end(job, job.destiny, moment)
        self._rearm()

    def end(self, job: Job, station: Station, *, reason: str = "") -> bool:
        """End a job by hand, whether it was worked on or still waiting; False when it has ended before."""
        self.catch_up()
        if job.end is not None:
            return False
        job.reason = reason or job.reason
        self._end(job, station, self._clock.monotonic())
        self._rearm()
        return True

    async def wait(self, job: Job) -> None:
        """Wait until `job` has ended, however it does."""
        self.catch_up()
        if job.end is None:
            future = self._ended.setdefault(job, asyncio.get_running_loop().create_future())
            await asyncio.shield(future)

    def clear(self) -> None:
        """Drop every job; whoever waits for one does so no longer."""
        for queue in self._waiting.values():
            queue.clear()
        self._ends.clear()
        self._working.clear()
        for job, future in self._ended.items():
            job.end = Station.CANCELLED
            if not future.done():
                future.set_result(None)
        self._ended.clear()
        self._rearm()

    def _fill(self, provider: str, moment: float) -> None:
        """Give waiting jobs to free workers, oldest first."""
        queue = self._waiting[provider]
        limit = self._workers.get(provider, math.inf)
        while queue and self._working[provider] < limit:
            job = queue.popleft()
            self._working[provider] += 1
            job.work_at = moment
            if not job.held and job.polls_needed is None:
                job.ends_at = moment + job.duration
                heapq.heappush(self._ends, (job.ends_at, next(self._order), job))

    def _end(self, job: Job, station: Station, moment: float) -> None:
        if job.work_at is None:
            self._waiting[job.provider].remove(job)
        else:
            self._working[job.provider] -= 1
        job.end, job.ended_at = station, moment
        future = self._ended.pop(job, None)
        if future is not None and not future.done():
            future.set_result(None)
        self._fill(job.provider, moment)
        self._on_end(job)

    def _rearm(self) -> None:
        """Have the clock call when the next job ends, so that whoever waits for it learns of it."""
        due = self._ends[0][0] if self._ends else math.inf
        if due == self._alarm_at:
            return
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at = due
        self._alarm = None if math.isinf(due) else self._clock.call_at(due, self._ring)

    def _ring(self) -> None:
        self._alarm, self._alarm_at = None, math.inf
        self.catch_up()
