"""Jobs that really finish, many at once: submitted, asked about by the default policy, their pictures read."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks._bare.process import StallWatch, peak_bytes
from benchmarks._bare.sides import KEY, PROMPT, check
from mirage_async import MirakoClient

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Finished", "finish"]

MAX_WAIT = 3600.0


@dataclass(frozen=True, kw_only=True)
class Finished:
    """One run. Seconds and bytes, except for the CPU: microseconds a job, status calls included."""

    jobs: int
    submitters: int
    seconds: float
    jobs_per_second: float
    submit_seconds: float
    most_at_once: int
    polls_per_job: float
    cpu: float
    peak_bytes: int
    longest_stall: float
    busiest: float
    busiest_beside_collections: float
    longest_collection: float
    failures: Mapping[str, int]


def finish(base_url: str, jobs: int, submitters: int) -> Finished:
    """Buy `jobs` pictures, each in a task of its own once it is accepted, and read every one."""
    return asyncio.run(_finish(base_url, jobs, submitters))


async def _finish(base_url: str, count: int, submitters: int) -> Finished:
    turns = iter(range(count))
    failures: Counter[str] = Counter()
    polls = 0
    waits: set[asyncio.Task[None]] = set()
    most = 0
    before = peak_bytes()

    async with MirakoClient(KEY, base_url=base_url) as client:

        async def fetch() -> None:
            nonlocal polls
            try:
                job = await client.submit(PROMPT, max_wait=MAX_WAIT)
            finally:
                accepted.release()
            generation = await job
            check(await generation.image.read())
            polls += generation.polls

        def ended(task: asyncio.Task[None]) -> None:
            waits.discard(task)
            if not waits:
                none_left.set()
            if (error := task.exception()) is not None:
                failures[type(error).__name__] += 1

        accepted, none_left = asyncio.Semaphore(submitters), asyncio.Event()
        async with StallWatch() as watch:
            began, cpu = time.monotonic(), time.process_time()
            for _ in turns:
                await accepted.acquire()
                task = asyncio.create_task(fetch())
                task.add_done_callback(ended)
                waits.add(task)
                most = max(most, len(waits))
            submitted = time.monotonic() - began
            while waits:
                none_left.clear()
                await none_left.wait()
            seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    return Finished(
        jobs=count,
        submitters=submitters,
        seconds=seconds,
        jobs_per_second=(count - failures.total()) / seconds,
        submit_seconds=submitted,
        most_at_once=most,
        polls_per_job=polls / count,
        cpu=1e6 * cpu / count,
        peak_bytes=peak_bytes() - before,
        longest_stall=watch.longest,
        busiest=watch.busiest,
        busiest_beside_collections=watch.busiest_beside_collections,
        longest_collection=watch.longest_collection,
        failures=dict(failures),
    )
