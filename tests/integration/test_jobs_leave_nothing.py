"""A job is gone when nobody holds it any more, however it ended, and so is a client that kept some."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from mirage_async import JobStatus, MirakoClient
from mirage_async.exceptions import MirageError
from mirage_async.jobs import new_job
from mirage_async.sandbox import Fault, Sandbox
from mirage_async.scheduler import FixedInterval, Scheduler

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mirage_async import Job

pytestmark = pytest.mark.anyio

ENDS = {
    "succeeded": JobStatus.SUCCEEDED,
    "failed": JobStatus.FAILED,
    "uncertain": JobStatus.UNCERTAIN,
    "refused": JobStatus.FAILED,
    "wait over": JobStatus.QUEUED,
    "waiter cancelled": JobStatus.QUEUED,
    "caller cancelled": JobStatus.SUBMITTING,
    "unawaited": JobStatus.QUEUED,
}


@contextlib.asynccontextmanager
async def buying(sandbox: Sandbox) -> AsyncIterator[MirakoClient]:
    """Give a client that asks often, and close it."""
    scheduler = Scheduler(policy=FixedInterval(0.05))
    async with MirakoClient("key", base_url=sandbox.url, scheduler=scheduler) as client:
        yield client


async def live_through(end: str, client: MirakoClient, sandbox: Sandbox) -> None:
    """Buy a picture, and let the job come to this end."""
    if end == "failed":
        sandbox.fail("mirako.status", Fault(status=200, body={"data": {"status": "FAILED"}}))
    elif end in {"uncertain", "refused"}:
        sandbox.fail("mirako.create", Fault(status=402) if end == "refused" else Fault(reset=True, when="after"))
    with contextlib.suppress(MirageError, TimeoutError, asyncio.CancelledError):
        if end == "caller cancelled":
            buying = asyncio.ensure_future(client.submit("a fox"))
            while not client._desk.ledger.posting:  # noqa: ASYNC110 - that raises no event
                await asyncio.sleep(0)
            buying.cancel()
            await buying
        job = await client.submit("a fox", max_wait=0.1 if end == "wait over" else 10)
        if end == "waiter cancelled":
            with anyio.fail_after(0.01):
                await job
        elif end not in {"unawaited", "caller cancelled"}:
            await job


@pytest.mark.parametrize("end", ENDS)
async def test_a_client_and_its_jobs_are_gone(end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Closed and let go, it leaves none of its jobs, nor itself."""
    jobs: list[Job[Any]] = []

    def noted(*arguments: Any, **options: Any) -> Job[Any]:
        jobs.append(new_job(*arguments, **options))
        return jobs[-1]

    monkeypatch.setattr("mirage_async.clients._desk.new_job", noted)
    with anyio.fail_after(20):
        async with Sandbox(durations=0.0 if end in {"succeeded", "failed"} else 60.0) as sandbox:
            async with buying(sandbox) as client:
                await asyncio.gather(*(live_through(end, client, sandbox) for _ in range(5)))
            assert len(jobs) >= 5
            assert ENDS[end] in {job.status for job in jobs}
            gone: list[weakref.ref[Any]] = [weakref.ref(client._desk.runtime), *(weakref.ref(job) for job in jobs)]
            jobs.clear()
            del client
            await asyncio.sleep(0)
            gc.collect()
            assert [one() for one in gone] == [None] * len(gone)
