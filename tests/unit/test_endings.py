"""Outcomes on their way to the waiters: recorded without a task, kept at closing, and never stuck for good."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from test_scheduler import DONE, Bench, Recorder, soon

from mirage_async.exceptions import ClosedError, ResponseError
from mirage_async.jobs import Job, conclude, new_job
from mirage_async.scheduler import _scheduler

if TYPE_CHECKING:
    from collections.abc import Awaitable

pytestmark = pytest.mark.anyio


class Disk(Recorder):
    """A recorder whose outcomes are durable once the test says so, or never, or fail."""

    # As the port, and unlike the recorder it inherits from, it returns what can be awaited.

    def __init__(self) -> None:
        self.waiting: list[asyncio.Future[None]] = []
        self.error: Exception | None = None

    def settled(self, job: Job[Any], outcome: object) -> Awaitable[None]:  # type: ignore[override]  # noqa: ARG002
        """Return what ends when the test wants it to."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.error is not None:
            future.set_exception(self.error)
        self.waiting.append(future)
        return future

    def write(self) -> None:
        """Have everything so far be durable."""
        for future in self.waiting:
            future.set_result(None)


def fetching(bench: Bench, disk: Disk, fetched: asyncio.Event, *, temporary: bool) -> Job[str]:
    """Return a job that is over once it is asked about, and whose picture is here once `fetched` is set."""

    async def redeem(job: Job[str], report: Any) -> str:
        await fetched.wait()
        return "picture"

    provider = bench.provider()
    provider.answers, provider.kind.recorder = [msgspec.structs.replace(DONE, temporary=temporary)], disk
    provider.kind.redeem = redeem
    return provider.watch(at_once=True)


async def closed_on_the_way(bench: Bench, fetched: asyncio.Event, begun: str) -> asyncio.Future[None]:
    """Begin to close, and have the record begin before or during that."""
    await bench.clock.advance(0)
    if begun == "before":
        fetched.set()
        await bench.clock.advance(0)
    closing = asyncio.ensure_future(bench.scheduler.aclose())
    await bench.clock.advance(0)
    fetched.set()
    return closing


@pytest.mark.parametrize("temporary", [False, True])
async def test_nobody_gets_an_outcome_before_it_is_recorded(temporary: bool) -> None:
    """Nor does a task or a place among the status calls wait for the record."""
    bench, disk = Bench(), Disk()
    provider = bench.provider()
    provider.answers, provider.kind.recorder = [msgspec.structs.replace(DONE, temporary=temporary)], disk
    before = asyncio.all_tasks()
    waiter = asyncio.ensure_future(provider.watch(at_once=True).result())
    await bench.clock.advance(0)
    assert len(disk.waiting) == 1
    assert provider.account.in_flight == 0
    assert len(asyncio.all_tasks() - before) == 2  # who waits, and the resting poller
    assert not waiter.done()
    disk.write()
    await soon(waiter)
    await bench.clock.advance(0)
    assert bench.scheduler.statistics().jobs_watched == 0
    await bench.scheduler.aclose()


@pytest.mark.parametrize("temporary", [False, True])
@pytest.mark.parametrize("begun", ["before", "during"])
async def test_closing_waits_for_a_record(temporary: bool, begun: str) -> None:
    """Also for one that began while it waited already; whoever waits gets the outcome, not the closing."""
    bench, disk, fetched = Bench(), Disk(), asyncio.Event()
    waiter = asyncio.ensure_future(fetching(bench, disk, fetched, temporary=temporary).result())
    closing = await closed_on_the_way(bench, fetched, begun)
    await bench.clock.advance(0)
    assert not closing.done()
    disk.write()
    await soon(closing)
    assert await soon(waiter) == "picture"


@pytest.mark.parametrize("begun", ["before", "during"])
async def test_a_record_that_never_comes_is_given_up_at_the_end_of_the_grace(
    begun: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And whoever waits is told that everything was closed."""
    monkeypatch.setattr(_scheduler, "CLOSING_GRACE", 0.05)
    bench, disk, fetched = Bench(), Disk(), asyncio.Event()
    job = fetching(bench, disk, fetched, temporary=True)
    waiter = asyncio.ensure_future(job.result())
    await soon(await closed_on_the_way(bench, fetched, begun))
    with pytest.raises(ClosedError):
        await soon(waiter)
    assert disk.waiting[0].cancelled()
    assert not job.done


@pytest.mark.parametrize("kind", ["future", "coroutine"])
async def test_a_recorder_that_fails_withholds_nothing(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged with all that is needed to find the job by hand."""
    bench, disk = Bench(), Disk()
    disk.error = OSError("no space left")
    recorder: Recorder = disk

    class Failing(Recorder):
        async def settled(self, job: Job[Any], outcome: object) -> None:
            await disk.settled(job, outcome)

    if kind == "coroutine":
        recorder = Failing()
    provider = bench.provider()
    provider.answers, provider.kind.recorder = [DONE], recorder
    job = provider.watch(at_once=True)
    waiter = asyncio.ensure_future(job.result())
    await bench.clock.advance(0)
    await soon(waiter)
    (said,) = [line for line in caplog.messages if line.endswith("is not recorded")]
    assert job.key in said
    assert bench.scheduler.statistics().jobs_watched == 0
    await bench.scheduler.aclose()


async def test_a_log_handler_that_raises_withholds_nothing() -> None:
    """Not even together with a recorder that fails."""
    bench = Bench()

    class Failing(Recorder):
        async def settled(self, job: Job[Any], outcome: object) -> None:  # noqa: ARG002 - the port's signature
            await asyncio.sleep(0)
            msg = "no space left"
            raise OSError(msg)

    class Raising(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise RuntimeError(record.getMessage())

    trouble: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: trouble.append(context))
    provider = bench.provider()
    provider.answers, provider.kind.recorder = [DONE], Failing()
    handler = Raising(level=logging.CRITICAL)
    logging.getLogger("mirage_async.jobs").addHandler(handler)
    try:
        waiter = asyncio.ensure_future(provider.watch(at_once=True).result())
        await bench.clock.advance(0)
        await soon(waiter)
    finally:
        logging.getLogger("mirage_async.jobs").removeHandler(handler)
    assert [type(each["exception"]) for each in trouble] == [RuntimeError]
    assert bench.scheduler.statistics().jobs_watched == 0
    await bench.scheduler.aclose()


async def test_what_is_recorded_already_is_concluded_at_once() -> None:
    """Whoever has concluded a job may count on its being done."""
    bench = Bench()
    provider = bench.provider()

    class Closed(Disk):
        def settled(self, job: Job[Any], outcome: object) -> Awaitable[None]:  # type: ignore[override]
            future = super().settled(job, outcome)
            self.write()
            return future

    provider.kind.recorder = Closed()
    job = new_job(provider.kind, id="j1")
    assert job.claim()
    await soon(conclude(job, DONE))
    assert job.done


async def test_one_that_is_cancelled_before_it_began_can_be_waited_for_anew() -> None:
    """As where somebody cancels all tasks there are."""
    bench = Bench()
    provider = bench.provider()
    gate = provider.gate = asyncio.Event()
    provider.answers = [msgspec.structs.replace(DONE, temporary=True)]
    job = provider.watch(at_once=True)
    waiter = asyncio.ensure_future(job.result())
    await bench.clock.advance(0)
    before = asyncio.all_tasks()
    gate.set()
    while not job.claimed:  # noqa: ASYNC110 - what it waits for is a moment that no event marks
        await asyncio.sleep(0)
    (begun,) = asyncio.all_tasks() - before
    begun.cancel()
    with pytest.raises(ResponseError, match="wait for it anew"):
        await soon(waiter)
    assert bench.scheduler.statistics().jobs_watched == 0
    await bench.scheduler.aclose()
