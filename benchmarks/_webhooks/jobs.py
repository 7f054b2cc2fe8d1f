"""Jobs at a sandbox in another process, resolved by deliveries to a receiver in this one."""

from __future__ import annotations

import asyncio
import multiprocessing
import socket
import statistics
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import aiohttp
from aiohttp import web

from benchmarks._webhooks.throughput import BODY, SECRET
from mirage_async import Mirage
from mirage_async.sandbox import Sandbox
from mirage_async.scheduler import FixedInterval, Scheduler
from mirage_async.webhooks import WebhookReceiver

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from multiprocessing.connection import Connection

    from mirage_async import Generation, Job

__all__ = ["Latency", "Waiting", "measure_latency", "measure_waiting"]

PROMPT = "a lighthouse in the fog"  # one prompt, so that the sandbox draws one picture and serves many
NEVER = 3600.0  # seconds between status calls of the scheduler's own, where only deliveries shall count
START_LIMIT = 30.0  # seconds for the sandbox's process to come up
AT_ONCE = 64  # purchases at a time


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Milliseconds, one for each repeat.

    Attributes:
        resolved: from the moment a delivery leaves its sender to the moment the waiter of the job has the result.
        round_trip: of one status call about the same job, answered with the same picture.
    """

    resolved: Sequence[float]
    round_trip: Sequence[float]


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """Many jobs that wait together.

    Attributes:
        jobs: how many.
        most_waiting: the most that were under way at once.
        polls_per_job: status calls, the verifying ones included.
        delay_median: seconds from the moment the sandbox begins to deliver to the waiter having the result.
        delay_p99: seconds that one in a hundred exceeds.
        cpu_ms_per_job: CPU time of this process: submitting, taking the delivery, asking, reading the result.
        refused: deliveries that were not answered with 204.
    """

    jobs: int
    most_waiting: int
    polls_per_job: float
    delay_median: float
    delay_p99: float
    cpu_ms_per_job: float
    refused: int


def _serve(connection: Connection, seed: int, durations: tuple[float, float]) -> None:
    """Be the sandbox's process until the pipe is closed."""

    async def until_closed() -> None:
        async with Sandbox(seed=seed, durations=durations) as sandbox:
            connection.send(sandbox.base_urls)
            await asyncio.to_thread(connection.poll, None)

    asyncio.run(until_closed())


@asynccontextmanager
async def _wired(
    seed: int, durations: tuple[float, float], scheduler: Scheduler | None = None
) -> AsyncIterator[tuple[Mirage, WebhookReceiver, str]]:
    """Wire hub and receiver to a sandbox; yield all three, the sandbox as its address."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    child = context.Process(target=_serve, args=(theirs, seed, durations), daemon=True)
    child.start()
    theirs.close()
    try:
        if not await asyncio.to_thread(ours.poll, START_LIMIT):
            msg = f"the sandbox's process did not come up within {START_LIMIT:g} s"
            raise TimeoutError(msg)
        base_urls: Mapping[str, str] = ours.recv()
        listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        port = listener.getsockname()[1]
        receiver = WebhookReceiver(public_url=f"http://127.0.0.1:{port}/hooks", secret=SECRET)
        app = web.Application()
        app.add_subapp("/hooks", receiver.aiohttp_app())
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.SockSite(runner, listener, backlog=1024).start()
        async with Mirage(base_urls=base_urls, webhooks=receiver, scheduler=scheduler) as mirage:
            yield mirage, receiver, base_urls["mirako"]
        await runner.cleanup()
    finally:
        ours.close()
        await asyncio.to_thread(child.join, 5)
        if child.is_alive():
            child.terminate()
            child.join()


async def measure_latency(*, repeats: int, seed: int) -> Latency:
    """Deliver the news of finished jobs one by one, and make a status call about each for comparison."""
    resolved: list[float] = []
    round_trip: list[float] = []
    scheduler = Scheduler(policy=FixedInterval(NEVER))
    async with _wired(seed, (0.0, 0.0), scheduler) as (mirage, receiver, sandbox), aiohttp.ClientSession() as session:
        # Only our own deliveries shall come, at a moment we know.
        rule = {"operation": "mirako.webhook", "fault": "undelivered", "times": None}
        async with session.post(f"{sandbox}/_sandbox/faults", json=rule) as answer:
            answer.raise_for_status()
        for number in range(repeats + 5):
            job = await mirage.mirako.submit(PROMPT)
            url, bearer = receiver.callback("mirako", job.key)
            waiter = asyncio.create_task(job.result())
            await asyncio.sleep(0)
            began = time.perf_counter()
            async with session.post(url, data=BODY, headers={"Authorization": f"Bearer {bearer}"}) as answer:
                answer.raise_for_status()
            await waiter
            spent = time.perf_counter() - began
            began = time.perf_counter()
            await job.kind.look(job)
            asked = time.perf_counter() - began
            if number >= 5:  # noqa: PLR2004 - the first few open connections and fill caches
                resolved.append(1000 * spent)
                round_trip.append(1000 * asked)
    return Latency(resolved=resolved, round_trip=round_trip)


async def measure_waiting(*, jobs: int, durations: tuple[float, float], seed: int) -> Waiting:
    """Have many jobs wait together after a few have shown how long they take, with the hub's default schedule."""
    async with _wired(seed, durations) as (mirage, receiver, sandbox):
        room = asyncio.Semaphore(AT_ONCE)
        under_way = most = 0
        polls: list[int] = []
        resolved: dict[str, float] = {}

        async def one() -> None:
            nonlocal under_way, most
            async with room:
                job: Job[Generation] = await mirage.mirako.submit(PROMPT, max_wait=1800)
            under_way += 1
            most = max(most, under_way)
            generation = await job
            resolved[job.id or ""] = time.monotonic()
            under_way -= 1
            polls.append(generation.polls)

        await asyncio.gather(*(one() for _ in range(AT_ONCE)))
        polls.clear()
        resolved.clear()
        most = 0
        before = time.process_time()
        await asyncio.gather(*(one() for _ in range(jobs)))
        spent = time.process_time() - before
        delivered = await _deliveries(sandbox)
        replies = receiver.statistics().replies
    delays = sorted(resolved[job_id] - delivered[job_id] for job_id in resolved if job_id in delivered)
    return Waiting(
        jobs=jobs,
        most_waiting=most,
        polls_per_job=statistics.fmean(polls),
        delay_median=statistics.median(delays),
        delay_p99=delays[int(0.99 * (len(delays) - 1))],
        cpu_ms_per_job=1000 * spent / jobs,
        refused=sum(count for status, count in replies.items() if status != 204),  # noqa: PLR2004 - HTTP's own number
    )


async def _deliveries(sandbox: str) -> dict[str, float]:
    """Return when the sandbox began to deliver the news of each job, on this process's monotonic clock."""
    async with aiohttp.ClientSession(f"{sandbox}/_sandbox/") as session:
        async with session.get("clock") as answer:
            ahead = (await answer.json())["monotonic"] - time.monotonic()
        async with session.get("deliveries") as answer:
            deliveries = (await answer.json())["deliveries"]
    return {one["job_id"]: one["attempts"][0]["at"] - ahead for one in deliveries if one["attempts"]}
