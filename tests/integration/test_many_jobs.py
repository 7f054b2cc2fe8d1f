"""A thousand jobs at once over all four providers: none fails, no limit is passed, nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from mirage_async import Generation, JobStatus, Limits, Mirage
from mirage_async.sandbox import Sandbox
from mirage_async.scheduler import FixedInterval, Scheduler

if TYPE_CHECKING:
    from aiohttp import web

pytestmark = pytest.mark.anyio

JOBS = 1000
POLLS = 8
ORDERS: list[dict[str, Any]] = [
    {"provider": "mirako", "aspect_ratio": "1:1"},
    {"provider": "miragic", "size": "256x256"},
    {"provider": "mira", "size": "1024x1024"},
    {"provider": "milady", "aspect_ratio": "1:1"},
]


class Observer:
    """Counts, on the server's side, how many status calls of each provider are being served at once."""

    def __init__(self, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self._serve = sandbox._exchange.serve
        monkeypatch.setattr(sandbox._exchange, "serve", self.serve)

    async def serve(self, request: web.Request, route: Any) -> web.StreamResponse:
        """Serve a request and count it while it lasts."""
        name = "" if route is None or route.operation is None else route.operation.name
        if not name.endswith(".status"):
            return await self._serve(request, route)
        self.now[name] += 1
        self.most[name] = max(self.most[name], self.now[name])
        try:
            return await self._serve(request, route)
        finally:
            self.now[name] -= 1


def open_sockets() -> int:
    """Return how many sockets this process has; counted as transports where there is no /proc."""
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        gc.collect()
        return sum(isinstance(thing, asyncio.Transport) and not thing.is_closing() for thing in gc.get_objects())
    count = 0
    for entry in folder.iterdir():
        with contextlib.suppress(OSError):
            count += str(entry.readlink()).startswith("socket:")
    return count


async def test_a_thousand_jobs_at_once_finish_within_their_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every job is bought once and delivered; `Limits(polls=8)` holds on both sides; no task and no socket is left."""
    async with Sandbox(durations=0.05) as sandbox:
        observer = Observer(sandbox, monkeypatch)
        tasks, sockets, began = asyncio.all_tasks(), open_sockets(), time.monotonic()
        scheduler = Scheduler(policy=FixedInterval(0.1))
        async with Mirage(base_urls=sandbox.base_urls, limits=Limits(polls=POLLS), scheduler=scheduler) as mirage:
            with anyio.fail_after(30):
                jobs = await asyncio.gather(
                    *(mirage.submit("a lighthouse", **ORDERS[number % len(ORDERS)]) for number in range(JOBS))
                )
                generations = await asyncio.gather(*jobs)
            statistics = mirage.statistics()
        took = time.monotonic() - began
        with anyio.fail_after(30):  # the server's half of the connections and its handlers end a moment later
            while open_sockets() > sockets or not asyncio.all_tasks() <= tasks:  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0.01)

        assert all(job.status is JobStatus.SUCCEEDED for job in jobs)
        assert all(isinstance(generation, Generation) for generation in generations)
        assert Counter(generation.provider for generation in generations) == dict.fromkeys(
            (order["provider"] for order in ORDERS), JOBS // len(ORDERS)
        )
        assert len({job.key for job in jobs}) == JOBS
        assert len({job.id for job in jobs if job.id is not None}) == JOBS // 2
        assert sandbox.statistics().purchases == {order["provider"]: JOBS // len(ORDERS) for order in ORDERS}

        accounts = {account.provider: account for account in statistics.scheduler.accounts}
        for provider in ("mirako", "miragic"):
            assert accounts[provider].most_polls_in_flight == POLLS
            assert 1 <= observer.most[f"{provider}.status"] <= POLLS
            assert accounts[provider].polls_failed == 0
        assert statistics.scheduler.jobs_concluded == JOBS // 2
        assert (statistics.scheduler.jobs_watched, statistics.paid_posts_in_flight) == (0, 0)
        assert not any(statistics.unfinished_jobs.values())

        assert asyncio.all_tasks() <= tasks
        assert open_sockets() <= sockets
        assert took < 20
