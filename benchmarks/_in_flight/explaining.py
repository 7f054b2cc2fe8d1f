"""Where the bytes of a waiting job are: by line, and by the objects that the garbage collector walks through."""

from __future__ import annotations

import asyncio
import gc
import sys
import tracemalloc
from collections import Counter

import aiohttp

from benchmarks._bare.sides import KEY, PROMPT
from benchmarks._in_flight.holding import CLIENTS, INTERVAL, MAX_WAIT, gathered
from mirage_async.scheduler import FixedInterval, Scheduler

__all__ = ["explain"]

COUNT = 5000
LINES = 24
SELDOM = 0.25  # objects a job; fewer do not matter


def explain(provider: str, base_url: str) -> str:
    """Return the tables for `COUNT` jobs, each with a task that awaits it."""
    return asyncio.run(_explain(provider, base_url))


async def _explain(provider: str, base_url: str) -> str:
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=MAX_WAIT)
    async with aiohttp.ClientSession(connector=connector) as session:
        scheduler = Scheduler(policy=FixedInterval(INTERVAL))
        async with CLIENTS[provider](KEY, base_url=base_url, session=session, scheduler=scheduler) as client:
            early = await gathered(lambda: client.submit(PROMPT, max_wait=MAX_WAIT), 256, 16)
            gc.collect()
            objects = _kinds()
            tracemalloc.start()
            before = tracemalloc.take_snapshot()
            jobs = await gathered(lambda: client.submit(PROMPT, max_wait=MAX_WAIT), COUNT, 16)
            tasks = [asyncio.create_task(job.result()) for job in jobs]
            await asyncio.sleep(0)
            gc.collect()
            after = tracemalloc.take_snapshot()
            tracemalloc.stop()
            more = _kinds()
            one = jobs[0]
            sizes = {name: sys.getsizeof(getattr(one, name)) for name in ("id", "key", "ticket", "_waiters")}
            sizes["the job itself"] = sys.getsizeof(one)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            del early
    lines = [f"{provider}: bytes a job by the line that asked for them, {COUNT} jobs, each awaited by a task"]
    differences = after.compare_to(before, "lineno")
    lines += [
        f"{d.size_diff / COUNT:8.1f}  {d.count_diff / COUNT:6.2f} blocks  {d.traceback}" for d in differences[:LINES]
    ]
    lines.append(f"{sum(d.size_diff for d in differences) / COUNT:8.1f}  in all")
    lines.append("objects a job that the garbage collector walks through")
    found = ((kind, (more[kind] - objects[kind]) / COUNT) for kind in more)
    lines += [f"{share:8.2f}  {kind}" for kind, share in sorted(found, key=lambda pair: -pair[1]) if share >= SELDOM]
    lines.append("sys.getsizeof: " + ", ".join(f"{name} {size}" for name, size in sizes.items()))
    return "\n".join(lines)


def _kinds() -> Counter[str]:
    return Counter(f"{type(thing).__module__}.{type(thing).__qualname__}" for thing in gc.get_objects())
