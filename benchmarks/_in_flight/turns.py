"""What it costs to have many jobs asked about in time, without the asking: our scheduler beside a task for each job."""

from __future__ import annotations

import asyncio
import gc
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mirage_async._clock import SystemClock
from mirage_async.jobs import Job, JobKind, NullRecorder, new_job
from mirage_async.models import JobStatus, Pace
from mirage_async.scheduler import FixedInterval, Limits, Scheduler
from mirage_async.wire import Report

if TYPE_CHECKING:
    from mirage_async.scheduler import JobView

__all__ = ["Turns", "by_scheduler", "by_tasks"]

POLLS_AT_ONCE = 64
JITTER = 0.1
_PENDING = Report(status=JobStatus.RUNNING, word="IN_PROGRESS")
_PACE = Pace(first=1.0, interval=1.0, maximum=1.0, max_wait=3600.0)


@dataclass(frozen=True, kw_only=True)
class Turns:
    """CPU in microseconds: of one status call that costs nothing itself, and of having one job watched."""

    jobs: int
    polls: int
    cpu_per_poll: float
    cpu_per_start: float


class _Staggered(FixedInterval):
    """First at a random moment of the interval, so that the jobs come evenly, then by the interval."""

    def next_interval(self, job: JobView) -> float:
        """Return seconds until the next status call."""
        return random.uniform(0.0, self._seconds) if job.polls == 0 else super().next_interval(job)


class _Counter:
    """A look that costs next to nothing, and counts.

    Args:
        waits: the answer comes with the next round of the event loop, as real ones come later than they are asked for.
    """

    def __init__(self, *, waits: bool) -> None:
        self.polls = 0
        self._waits = waits

    async def look(self, job: Job[None]) -> Report:  # noqa: ARG002 - says the same of every job
        """Return the same report each time."""
        self.polls += 1
        if self._waits:
            await asyncio.sleep(0)
        return _PENDING


def by_scheduler(jobs: int, interval: float, waits: bool) -> Turns:
    """Have the real scheduler ask about `jobs` jobs, each every `interval` seconds."""
    return asyncio.run(_by_scheduler(jobs, interval, _Counter(waits=waits)))


async def _by_scheduler(jobs: int, interval: float, counter: _Counter) -> Turns:
    scheduler = Scheduler(policy=_Staggered(interval, jitter=JITTER))
    kind: JobKind[None] = JobKind(
        provider="mirako",
        name="image",
        pace=_PACE,
        clock=SystemClock(),
        recorder=NullRecorder(),
        waker=scheduler,
        look=counter.look,
        redeem=_nothing,
        ended=_no_more,
        account=scheduler.account("mirako", Limits(polls=POLLS_AT_ONCE)),
    )
    held = [new_job(kind, id=str(number), status=JobStatus.QUEUED) for number in range(jobs)]
    deadline = time.monotonic() + _PACE.max_wait
    began = time.process_time()
    for job in held:
        scheduler.watch(job, deadline)
    start = time.process_time() - began
    turns = await _measured(counter, jobs, interval, start)
    await scheduler.aclose()
    return turns


def by_tasks(jobs: int, interval: float, waits: bool) -> Turns:
    """Have a task for each job that sleeps, takes a place and looks: what most programs do."""
    return asyncio.run(_by_tasks(jobs, interval, _Counter(waits=waits)))


async def _by_tasks(jobs: int, interval: float, counter: _Counter) -> Turns:
    places = asyncio.Semaphore(POLLS_AT_ONCE)
    rng = random.Random()

    async def poll(job: Job[None] | None) -> None:
        await asyncio.sleep(rng.uniform(0.0, interval))
        while True:
            async with places:
                report = await counter.look(job)  # type: ignore[arg-type]  # it does not look at it
            if report.status is not None and report.status.terminal:
                return
            await asyncio.sleep(interval * rng.uniform(1 - JITTER, 1 + JITTER))

    began = time.process_time()
    tasks = [asyncio.create_task(poll(None)) for _ in range(jobs)]
    await asyncio.sleep(0)
    start = time.process_time() - began
    turns = await _measured(counter, jobs, interval, start)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return turns


async def _measured(counter: _Counter, jobs: int, interval: float, start: float) -> Turns:
    await asyncio.sleep(interval)
    gc.collect()
    polls, cpu = counter.polls, time.process_time()
    await asyncio.sleep(max(interval, 4.0))
    polls, cpu = counter.polls - polls, time.process_time() - cpu
    return Turns(jobs=jobs, polls=polls, cpu_per_poll=1e6 * cpu / polls, cpu_per_start=1e6 * start / jobs)


async def _nothing(job: Job[None], report: Report) -> None:
    """Redeem a job; none ends here."""


def _no_more(job: Job[None]) -> None:
    """Hear of a job's end; none ends here."""
