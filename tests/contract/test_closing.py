"""Closing: every wait ends, what is on the wire gets its grace, and what was paid for stays within reach."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from impatient import until
from purchases import KEY, PROMPT, PURCHASES, Purchase, buying, honest, quick
from rogues import Act, Rogue, Seen, closed_port, json_answer, rogue

from mirage_async import Generation, Limits, MiladyClient, MiraClient, Mirage, MiragicClient, MirakoClient
from mirage_async.exceptions import (
    ClosedError,
    ConfigurationError,
    InsufficientCreditsError,
    JournalError,
    MirageError,
    RateLimitError,
    SubmissionUncertainError,
)
from mirage_async.journal import Journal
from mirage_async.sandbox import Sandbox
from mirage_async.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mirage_async import Job

pytestmark = pytest.mark.anyio

every_purchase = pytest.mark.parametrize("purchase", PURCHASES, ids=repr)
every_job = pytest.mark.parametrize("purchase", [one for one in PURCHASES if not one.blocking], ids=repr)
every_blocking = pytest.mark.parametrize("purchase", [one for one in PURCHASES if one.blocking], ids=repr)
every_submit = pytest.mark.parametrize("client", [MiraClient, MiladyClient])

TROUBLE = {"success": False, "error": {"code": "TROUBLE", "message": "no luck today"}}


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody wait long for what does not come."""
    monkeypatch.setattr("mirage_async.clients._runtime.POST_GRACE", 0.05)
    monkeypatch.setattr("mirage_async.scheduler._scheduler.CLOSING_GRACE", 0.05)


def behind(gate: asyncio.Event, method: str = "POST", ending: str = "") -> Callable[[Seen], Act]:
    """Answer honestly, requests of one method and with one ending of their path not before the gate is open."""

    def script(seen: Seen) -> Act:
        waits = seen.method == method and seen.path.endswith(ending)
        return Act(write=honest(seen).write, gate=gate if waits else None)

    return script


async def closed_with(waiter: asyncio.Future[Any], billed: str) -> ClosedError:
    """Check that a waiter is told about the end, and what is known about money."""
    with pytest.raises(ClosedError, match="was closed while") as caught:
        await waiter
    assert caught.value.billed == billed
    return caught.value


# -- purchases that have not begun, or only wait ----------------------------------------------------------------------


@every_submit
@pytest.mark.parametrize("grace", [0.0, 2.0])
async def test_a_purchase_that_has_not_begun_ends_with_the_client(
    client: type[Any], grace: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its background task had no turn before the end; awaiting the job does not hang and nothing was sent."""
    monkeypatch.setattr("mirage_async.clients._runtime.POST_GRACE", grace)
    with anyio.fail_after(30):
        async with rogue(honest) as server, client(KEY, base_url=server.url, scheduler=quick()) as owner:
            job = await owner.submit(PROMPT)
            await owner.aclose()
            await closed_with(asyncio.ensure_future(job.result()), "no")
            assert server.connections == 0


async def test_waits_for_an_http_slot_end_at_once() -> None:
    """A purchase in the queue for a connection is told before the one that holds it is through."""
    gate = asyncio.Event()
    with anyio.fail_after(30):
        async with rogue(behind(gate)) as server, buying(PURCHASES[4], server.url) as client:
            slots = client._desk.runtime.transport.paid_posts
            slots.total_tokens = 1
            first = asyncio.ensure_future(client.generate(PROMPT))
            await until(lambda: server.posts)
            second = asyncio.ensure_future(client.generate(PROMPT))
            third = await client.submit(PROMPT)
            await until(lambda: slots.statistics().tasks_waiting == 2)
            closing = asyncio.ensure_future(client.aclose())
            await closed_with(second, "no")
            await closed_with(asyncio.ensure_future(third.result()), "no")
            assert not first.done()
            assert not closing.done()
            gate.set()
            await closing
            assert (await first).images
            assert slots.borrowed_tokens == 0
        assert len(server.posts) == 1


async def test_waits_for_a_place_end_at_once() -> None:
    """So does a purchase in the queue under `Limits(jobs=1)`, also of an account with jobs."""
    with anyio.fail_after(30):
        async with rogue(pending) as server, buying(PURCHASES[3], server.url, limits=Limits(jobs=1)) as client:
            first = await client.submit(PROMPT)
            second = asyncio.ensure_future(client.submit(PROMPT))
            await until(lambda: client._desk.account.statistics(0.0).jobs_waiting == 1)
            await client.aclose()
            await closed_with(second, "no")
            await closed_with(asyncio.ensure_future(first.result()), "yes")
        assert len(server.posts) == 1


@every_purchase
@pytest.mark.parametrize("headers", [{"Retry-After": "50"}, {}], ids=["asked for", "our own"])
async def test_waits_between_two_attempts_end_at_once(purchase: Purchase, headers: dict[str, str]) -> None:
    """Between two attempts nothing is under way, and a 429 bought nothing."""
    clock = FakeClock()
    with anyio.fail_after(30):
        async with (
            rogue(Act(write=json_answer(TROUBLE, 429, headers))) as server,
            buying(purchase, server.url, clock) as client,
        ):
            buyer = asyncio.ensure_future(purchase.buy(client))
            await until(lambda: "1 timers" in repr(clock))
            await client.aclose()
            await closed_with(buyer, "no")
            assert "0 timers" in repr(clock)
        assert len(server.posts) == 1


@every_purchase
async def test_waits_for_the_end_of_a_pause_end_at_once(purchase: Purchase) -> None:
    """A purchase that has not been sent because another one was throttled is told as well."""
    clock = FakeClock()
    with anyio.fail_after(30):
        async with rogue(honest) as server, buying(purchase, server.url, clock) as client:
            client._desk.account.pause(clock.monotonic(), 30.0)
            buyer = asyncio.ensure_future(purchase.buy(client))
            await until(lambda: "1 timers" in repr(clock))
            await client.aclose()
            await closed_with(buyer, "no")
        assert server.posts == []


async def test_a_question_between_two_tries_ends_with_the_client() -> None:
    """`list_avatars` waits for nobody after the end."""
    clock = FakeClock()
    with anyio.fail_after(30):
        async with (
            rogue(Act(write=json_answer(TROUBLE, 503))) as server,
            MirakoClient(KEY, base_url=server.url, scheduler=quick(clock)) as client,
        ):
            asking = asyncio.ensure_future(client.list_avatars())
            await until(lambda: "1 timers" in repr(clock))
            await client.aclose()
            with pytest.raises(ClosedError, match="the client was closed") as caught:
                await asking
            assert caught.value.billed == "no"
        assert len(server.requests) == 1


# -- purchases on the wire -------------------------------------------------------------------------------------------


@every_purchase
async def test_a_reply_within_the_grace_still_reaches_its_caller(purchase: Purchase) -> None:
    """Pictures are pictures; a job that was accepted at the last moment has its token."""
    gate = asyncio.Event()
    with anyio.fail_after(30):
        async with rogue(behind(gate)) as server, buying(purchase, server.url) as client:
            buyer = asyncio.ensure_future(purchase.buy(client))
            await until(lambda: server.posts)
            closing = asyncio.ensure_future(client.aclose())
            await until(lambda: client._desk.runtime.closed)
            gate.set()
            bought = await buyer
            if purchase.blocking:
                assert isinstance(bought, Generation)
                assert await bought.image.read()
            else:
                error = await closed_with(asyncio.ensure_future(bought.result()), "yes")
                assert error.token == bought.token()
            await closing
        assert len(server.requests) == 1


@every_purchase
@pytest.mark.usefixtures("short_grace")
async def test_after_the_grace_nobody_knows(purchase: Purchase) -> None:
    """A reply that does not come leaves the purchase unknown, not unpaid."""
    with anyio.fail_after(30):
        async with rogue(Act(then="hold")) as server, buying(purchase, server.url) as client:
            buyer = asyncio.ensure_future(purchase.buy(client))
            await until(lambda: server.posts)
            await client.aclose()
            error = await closed_with(buyer, "unknown")
            assert error.token is None
            assert client._desk.runtime.transport.paid_posts.borrowed_tokens == 0
            assert "closed" in repr(client)


@every_purchase
@pytest.mark.usefixtures("short_grace")
async def test_waiters_of_a_cancelled_caller_s_job_are_told(purchase: Purchase) -> None:
    """Somebody else may have taken the job from `jobs` while its request was on the wire."""
    with anyio.fail_after(30):
        async with rogue(Act(then="hold")) as server, buying(purchase, server.url) as client:
            caller = asyncio.ensure_future(purchase.buy(client))
            await until(lambda: server.posts)
            waiter = asyncio.ensure_future(client.jobs[0].result())
            await until(lambda: client.jobs[0]._waiters)
            caller.cancel()
            with pytest.raises(asyncio.CancelledError):
                await caller
            await client.aclose()
            await closed_with(waiter, "unknown")


@pytest.mark.usefixtures("short_grace")
async def test_a_job_of_a_blocking_submit_on_the_wire_is_told() -> None:
    """Its waiters hear of the end, and so does whoever comes later."""
    with anyio.fail_after(30):
        async with rogue(Act(then="hold")) as server, buying(PURCHASES[5], server.url) as client:
            job = await client.submit(PROMPT)
            waiter = asyncio.ensure_future(job.result())
            await until(lambda: server.posts)
            await client.aclose()
            await closed_with(waiter, "unknown")
            await closed_with(asyncio.ensure_future(job.result(max_wait=5)), "unknown")


# -- results on their way --------------------------------------------------------------------------------------------


async def downloading(server: Rogue, client: MiragicClient) -> tuple[Job[Generation], asyncio.Future[Any]]:
    """Bring a job so far that its picture is being read."""
    job = await client.submit(PROMPT)
    waiter = asyncio.ensure_future(job.result())
    await until(lambda: any(seen.path.endswith(".jpg") for seen in server.requests))
    return job, waiter


async def test_results_on_their_way_still_arrive() -> None:
    """A picture that is being read when everything closes reaches its waiters within the grace."""
    gate = asyncio.Event()
    with anyio.fail_after(30):
        async with rogue(behind(gate, "GET", ".jpg")) as server, buying(PURCHASES[3], server.url) as client:
            job, waiter = await downloading(server, client)
            closing = asyncio.ensure_future(client.aclose())
            await until(lambda: client._desk.runtime.closed)
            gate.set()
            generation = await waiter
            await closing
            assert await generation.image.read()
            assert job.status == "succeeded"


@pytest.mark.usefixtures("short_grace")
async def test_results_that_take_longer_than_the_grace_can_be_had_elsewhere() -> None:
    """The waiters get `ClosedError` with the token."""
    gate = asyncio.Event()
    with anyio.fail_after(30):
        async with rogue(behind(gate, "GET", ".jpg")) as server:
            async with buying(PURCHASES[3], server.url) as client:
                job, waiter = await downloading(server, client)
                await client.aclose()
                error = await closed_with(waiter, "yes")
                assert error.token == job.token()
            gate.set()
            async with buying(PURCHASES[3], server.url) as other:
                assert await (await other.job(error.token)).image.read()
        assert len(server.posts) == 1


# -- closing itself --------------------------------------------------------------------------------------------------


def pending(seen: Seen) -> Act:
    """Accept every job and never finish one."""
    waiting = {"success": True, "data": {"status": "PENDING", "jobId": "job-1"}}
    return honest(seen) if seen.method == "POST" else Act(write=json_answer(waiting))


async def test_every_call_of_aclose_returns_once_all_is_closed() -> None:
    """The second one does not return early, while the first still waits for a request on the wire."""
    gate = asyncio.Event()
    with anyio.fail_after(30):
        async with rogue(behind(gate)) as server:
            mirage = Mirage({"mira": KEY}, base_urls={"mira": server.url}, scheduler=quick())
            buyer = asyncio.ensure_future(mirage.generate(PROMPT, provider="mira"))
            await until(lambda: server.posts)
            session = mirage._runtime.transport._session
            assert session is not None
            both = [asyncio.ensure_future(mirage.aclose()) for _ in range(2)]
            await anyio.sleep(0.03)
            assert [one.done() for one in both] == [False, False]
            gate.set()
            await both[1]
            assert session.closed
            await both[0]
            assert (await buyer).images


@pytest.mark.parametrize("others", [0, 1])
async def test_cancelling_a_close_does_not_stop_it(others: int) -> None:
    """Nothing stays open, whether or not somebody else waits for the end as well."""
    gate = asyncio.Event()
    with anyio.fail_after(30):
        async with rogue(behind(gate)) as server:
            mirage = Mirage({"mira": KEY}, base_urls={"mira": server.url}, scheduler=quick())
            buyer = asyncio.ensure_future(mirage.generate(PROMPT, provider="mira"))
            await until(lambda: server.posts)
            session = mirage._runtime.transport._session
            assert session is not None
            first, *rest = [asyncio.ensure_future(mirage.aclose()) for _ in range(1 + others)]
            await until(lambda: mirage._runtime.closed)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            assert not session.closed
            gate.set()
            assert (await buyer).images
            await asyncio.gather(*rest)
            await until(lambda: session.closed)
            assert mirage._runtime.transport._session is None
            await mirage.aclose()


def test_a_close_that_the_end_of_the_loop_cuts_short_leaves_nothing_open() -> None:
    """A deadline around the block abandons the closing; then the loop ends and cancels what is left, as it does."""

    async def run() -> bool:
        async with rogue(Act(then="hold")) as server:
            with anyio.CancelScope() as deadline:
                async with buying(PURCHASES[4], server.url) as client:
                    runtime, buyer = client._desk.runtime, asyncio.ensure_future(client.generate(PROMPT))
                    await until(lambda: server.posts)
                    session = runtime.transport._session
                    deadline.cancel()
                    await buyer
            left = asyncio.all_tasks() - {asyncio.current_task()}
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
            closed: bool = session.closed
            await session.close()
            return closed

    assert asyncio.run(run())


async def test_a_close_that_is_cancelled_half_way_still_closes_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the loop ends while the pools are being closed; what is queued for the disk gets there."""
    mirage = Mirage({"mira": KEY}, journal=Journal(tmp_path), scheduler=quick())
    runtime, stuck = mirage._runtime, asyncio.Event()

    async def hold(_: object) -> None:
        stuck.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(type(runtime.downloader), "aclose", hold)
    closing = asyncio.ensure_future(mirage.aclose())
    with anyio.fail_after(30):
        await stuck.wait()
        assert runtime._closing is not None
        runtime._closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
    with pytest.raises(JournalError, match="the journal is closed"):
        await runtime.journal.noted("anything")  # type: ignore[union-attr]


@every_purchase
def test_a_client_belongs_to_one_event_loop(purchase: Purchase) -> None:
    """In a second loop every door is closed, with a word about why, and nothing is sent."""
    client = purchase.client(KEY, base_url=closed_port(), scheduler=quick())

    async def first() -> None:
        with pytest.raises(MirageError, match="nothing was sent"):
            await purchase.buy(client)

    async def second() -> None:
        with pytest.raises(ConfigurationError, match="belongs to the event loop it is first used in") as caught:
            await purchase.buy(client)
        assert caught.value.billed == "no"
        with pytest.raises(ConfigurationError, match="belongs to the event loop"):
            client.job("job-1")
        await client.aclose()

    asyncio.run(asyncio.wait_for(first(), 30))
    asyncio.run(asyncio.wait_for(second(), 30))


@every_job
def test_a_job_belongs_to_the_event_loop_of_its_client(purchase: Purchase) -> None:
    """Nothing would ever wake whoever waits in another one; what has come by then can be had anywhere."""

    async def two_loops() -> None:
        async with Sandbox(durations=60.0) as sandbox:
            client = purchase.client(KEY, base_url=sandbox.url, scheduler=quick())
            waiting, done = await purchase.buy(client), await purchase.buy(client)
            assert done.id is not None
            sandbox.finish_job(done.id)
            value = await done

            async def other() -> None:
                async def read() -> None:
                    async for _ in waiting.updates():
                        pass

                for work in (waiting.result(), waiting.result(max_wait=1), read()):
                    with pytest.raises(ConfigurationError, match="belongs to the event loop"):
                        await asyncio.wait_for(work, 30)
                assert await done is await done.result(max_wait=1) is value

            polls = waiting.polls
            await asyncio.to_thread(lambda: asyncio.run(other()))
            await until(lambda: waiting.polls > polls)
            await client.aclose()

    asyncio.run(asyncio.wait_for(two_loops(), 20))


# -- orphans ---------------------------------------------------------------------------------------------------------


async def orphaned(purchase: Purchase, client: Any, server: Rogue) -> Job[Any]:
    """Buy, and cancel the caller while the request is on the wire."""
    caller = asyncio.ensure_future(purchase.buy(client))
    await until(lambda: server.posts)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    job: Job[Any]
    (job,) = client.jobs
    return job


@every_purchase
async def test_what_a_cancelled_caller_bought_is_kept_until_somebody_takes_it(purchase: Purchase) -> None:
    """The finished job stays in `jobs`, can be awaited, and leaves."""
    gate = asyncio.Event()
    with anyio.fail_after(30):
        async with rogue(behind(gate)) as server, buying(purchase, server.url) as client:
            job = await orphaned(purchase, client, server)
            gate.set()
            await until(lambda: job.done)
            assert client.jobs == (job,)
            assert await job
            assert client.jobs == ()
            assert client._desk.runtime.transport.paid_posts.borrowed_tokens == 0
        assert len(server.posts) == 1


@every_purchase
@pytest.mark.parametrize(("status", "kind"), [(402, InsufficientCreditsError), (429, RateLimitError)])
async def test_a_refused_purchase_of_a_cancelled_caller_leaves_at_once(
    purchase: Purchase, status: int, kind: type[MirageError]
) -> None:
    """It cost nothing, so there is nothing to keep; it is not sent again either."""
    gate = asyncio.Event()
    with anyio.fail_after(30):
        async with (
            rogue(Act(write=json_answer(TROUBLE, status), gate=gate)) as server,
            buying(purchase, server.url) as client,
        ):
            job = await orphaned(purchase, client, server)
            gate.set()
            await until(lambda: job.done)
            assert client.jobs == ()
            with pytest.raises(kind) as caught:
                await job
            assert caught.value.billed == "no"
        assert len(server.posts) == 1


@every_purchase
async def test_an_uncertain_purchase_of_a_cancelled_caller_is_kept_and_logged(
    purchase: Purchase, caplog: pytest.LogCaptureFixture
) -> None:
    """It may have cost something: that is said aloud, and once more to whoever awaits the job."""
    gate = asyncio.Event()
    with anyio.fail_after(30):
        async with rogue(Act(gate=gate, then="rst")) as server, buying(purchase, server.url) as client:
            job = await orphaned(purchase, client, server)
            with caplog.at_level(logging.WARNING, logger="mirage_async.clients"):
                gate.set()
                await until(lambda: job.done and caplog.records)
            assert "may have been bought" in caplog.text
            assert job.key in caplog.text
            assert client.jobs == (job,)
            with pytest.raises(SubmissionUncertainError, match=job.key) as caught:
                await job
            assert caught.value.billed == "unknown"
            assert client.jobs == ()
        assert len(server.posts) == 1


@every_blocking
async def test_the_newest_hundred_orphans_are_kept(purchase: Purchase, caplog: pytest.LogCaptureFixture) -> None:
    """The oldest is let go with a warning that names it, so a service that cancels a lot does not fill up."""
    gate = asyncio.Event()
    with anyio.fail_after(20):
        async with rogue(behind(gate)) as server, buying(purchase, server.url) as client:
            callers = [asyncio.ensure_future(purchase.buy(client)) for _ in range(101)]
            await until(lambda: len(server.posts) == 101)
            bought = set(client.jobs)
            for caller in callers:
                caller.cancel()
            await asyncio.gather(*callers, return_exceptions=True)
            gate.set()
            await until(lambda: all(job.done for job in bought))
            (gone,) = bought - set(client.jobs)
            assert len(client.jobs) == 100
            assert f"key {gone.key}" in caplog.text
            assert caplog.text.count("is let go") == 1
