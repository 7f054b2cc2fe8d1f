"""Jobs that wait and never end: what holding them takes, and what submitting them does to the event loop."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import aiohttp

from benchmarks._bare.process import StallWatch, private_bytes
from benchmarks._bare.raw import raw_session
from benchmarks._bare.sides import KEY, PROMPT
from mirage_async import MiragicClient, MirakoClient
from mirage_async.scheduler import FixedInterval, Scheduler

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mirage_async import Job

__all__ = ["CLIENTS", "Held", "Submitted", "control", "gathered", "jobs_in_flight", "raw_submits"]

T = TypeVar("T")

INTERVAL = 300.0  # seconds between status calls: none falls into the minute or two that a measurement takes
MAX_WAIT = 3600.0
CLIENTS = {"mirako": MirakoClient, "miragic": MiragicClient}


@dataclass(frozen=True, kw_only=True)
class Submitted:
    """One run of submits; see `StallWatch`. Seconds, except for the CPU: microseconds a job."""

    submitters: int
    seconds: float
    cpu: float
    longest_stall: float
    busiest: float
    busiest_beside_collections: float
    longest_collection: float
    collections: float
    full_collections: int


@dataclass(frozen=True, kw_only=True)
class Held:
    """What `count` waiting jobs take: bytes a job, the first figure before anybody awaits them."""

    count: int
    alone: float
    awaited: float
    submits: Submitted


def jobs_in_flight(provider: str, base_url: str, count: int, submitters: int) -> Held:
    """Submit `count` jobs through the public client, then await each of them in a task of its own."""
    return asyncio.run(_jobs_in_flight(provider, base_url, count, submitters))


async def _jobs_in_flight(provider: str, base_url: str, count: int, submitters: int) -> Held:
    # The caller's own session, with connections that stay open, so that they weigh the same before and after.
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=MAX_WAIT)
    async with aiohttp.ClientSession(connector=connector) as session:
        scheduler = Scheduler(policy=FixedInterval(INTERVAL))
        async with CLIENTS[provider](KEY, base_url=base_url, session=session, scheduler=scheduler) as client:

            async def submit() -> Job[Any]:
                job: Job[Any] = await client.submit(PROMPT, max_wait=MAX_WAIT)
                return job

            early = await gathered(submit, 4 * submitters, submitters)
            before = private_bytes()
            jobs, submits = await _watched(submit, count, submitters)
            alone = private_bytes()
            tasks = [asyncio.create_task(_awaiting(job)) for job in jobs]
            await asyncio.sleep(0)
            awaited = private_bytes()
            _check_waiting(jobs, tasks)
            await _cancel(tasks)
            del early
    return Held(count=count, alone=(alone - before) / count, awaited=(awaited - before) / count, submits=submits)


def control(count: int) -> float:
    """Return bytes a task, for `count` tasks that all await one future: what callers bring along themselves."""
    return asyncio.run(_control(count))


async def _control(count: int) -> float:
    shared: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    before = private_bytes()
    tasks = [asyncio.create_task(_awaiting(shared)) for _ in range(count)]
    await asyncio.sleep(0)
    after = private_bytes()
    await _cancel(tasks)
    return (after - before) / count


def raw_submits(base_url: str, count: int, submitters: int) -> Submitted:
    """Send the same POSTs with aiohttp by hand and keep the ids."""
    return asyncio.run(_raw_submits(base_url, count, submitters))


async def _raw_submits(base_url: str, count: int, submitters: int) -> Submitted:
    body = b'{"prompt":"a lighthouse in the fog","aspect_ratio":"16:9"}'
    headers = {"Content-Type": "application/json"}
    async with raw_session() as session:

        async def submit() -> bytes:
            async with session.post(f"{base_url}/v1/image/async_generate", data=body, headers=headers) as response:
                return await response.read()

        await gathered(submit, 4 * submitters, submitters)
        _, submits = await _watched(submit, count, submitters)
    return submits


async def _awaiting(thing: Awaitable[object]) -> None:
    await thing


async def gathered(work: Callable[[], Awaitable[T]], count: int, at_once: int) -> list[T]:
    """Do the work `count` times, `at_once` of them under way at any time."""
    turns = iter(range(count))
    done: list[T] = []

    async def worker() -> None:
        for _ in turns:
            done.append(await work())  # noqa: PERF401 - workers share the list

    await asyncio.gather(*(worker() for _ in range(at_once)))
    return done


async def _watched(work: Callable[[], Awaitable[T]], count: int, submitters: int) -> tuple[list[T], Submitted]:
    """Do the work and watch the event loop meanwhile."""
    async with StallWatch() as watch:
        began, cpu = time.monotonic(), time.process_time()
        done = await gathered(work, count, submitters)
        seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    return done, Submitted(
        submitters=submitters,
        seconds=seconds,
        cpu=1e6 * cpu / count,
        longest_stall=watch.longest,
        busiest=watch.busiest,
        busiest_beside_collections=watch.busiest_beside_collections,
        longest_collection=watch.longest_collection,
        collections=watch.collections,
        full_collections=watch.full_collections,
    )


def _check_waiting(jobs: list[Job[Any]], tasks: list[asyncio.Task[None]]) -> None:
    ended = sum(job.done for job in jobs) + sum(task.done() for task in tasks)
    if ended:
        msg = f"{ended} jobs or waits ended although nothing ends here"
        raise RuntimeError(msg)


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
