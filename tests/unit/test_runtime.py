"""What the clients of a hub share: one end for every wait, limits that change under way, orphans, and options."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import anyio.lowlevel
import pytest

from mirage_async import Job, JobStatus, Limits, MiladyClient, MiraClient, Mirage, MiragicClient, MirakoClient
from mirage_async.clients import _runtime
from mirage_async.clients._ledger import MOST_ORPHANS
from mirage_async.clients._runtime import Runtime
from mirage_async.exceptions import (
    ClosedError,
    ConfigurationError,
    InputError,
    InsufficientCreditsError,
    MirageError,
    RateLimitError,
    WaitTimeoutError,
)
from mirage_async.jobs import new_job
from mirage_async.sandbox import Fault, Sandbox
from mirage_async.scheduler import FixedInterval, Scheduler
from mirage_async.testing import FakeClock, sandboxed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

pytestmark = pytest.mark.anyio

T = TypeVar("T")

CLIENTS = (MirakoClient, MiragicClient, MiraClient, MiladyClient)
every_client = pytest.mark.parametrize("client", CLIENTS)


async def soon(work: Awaitable[T]) -> T:
    """Await something that must not take long."""
    with anyio.fail_after(30):
        return await work


async def until(condition: Callable[[], object]) -> None:
    """Let the loop run until `condition()` holds."""
    with anyio.fail_after(30):
        while not condition():  # noqa: ASYNC110 - conditions are about state that raises no events
            await anyio.sleep(0.001)


@asynccontextmanager
async def slow_sandbox(clock: FakeClock) -> AsyncIterator[tuple[Sandbox, MiragicClient]]:
    """Open a sandbox whose jobs take a minute, and a client that never asks about them."""
    async with (
        Sandbox(durations=60.0) as sandbox,
        MiragicClient(base_url=sandbox.url, scheduler=Scheduler(policy=FixedInterval(500), clock=clock)) as client,
    ):
        yield sandbox, client


# --- one end for every wait ---


async def test_a_wait_ends_when_everything_closes() -> None:
    """Any number of them, at once, with `ClosedError`."""
    runtime = Runtime()

    async def wait() -> None:
        with runtime.until_closed():
            await anyio.sleep_forever()

    waiting = [asyncio.ensure_future(wait()) for _ in range(3)]
    await until(lambda: len(runtime.waiting) == 3)
    await soon(runtime.aclose())
    for one in waiting:
        with pytest.raises(ClosedError, match="the client was closed"):
            await soon(one)
    assert not runtime.waiting
    with pytest.raises(ClosedError, match="the client is closed"), runtime.until_closed():
        pytest.fail("nothing begins to wait after the end")


async def test_a_wait_that_is_through_keeps_its_result() -> None:
    """Also what a wait raises by itself comes through, and a cancellation stays one."""
    runtime = Runtime()
    with runtime.until_closed():
        await anyio.lowlevel.checkpoint()
    error = MirageError("surprise")
    with pytest.raises(MirageError, match="surprise") as caught, runtime.until_closed():
        raise error
    assert caught.value is error

    async def wait() -> None:
        with runtime.until_closed():
            await anyio.sleep_forever()

    waiting = asyncio.ensure_future(wait())
    await until(lambda: len(runtime.waiting) == 1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(waiting)
    assert not runtime.waiting
    await soon(runtime.aclose())


@pytest.mark.parametrize("cancelled_first", [True, False])
async def test_cancelling_in_the_moment_of_the_end_cancels(*, cancelled_first: bool) -> None:
    """Who is cancelled and closed in one turn of the loop is cancelled: the end must not swallow it."""
    runtime = Runtime()

    async def wait() -> None:
        with runtime.until_closed():
            await anyio.sleep_forever()

    waiting = asyncio.ensure_future(wait())
    await until(lambda: len(runtime.waiting) == 1)
    end_all = runtime.waiting.end_all
    for end in (waiting.cancel, end_all) if cancelled_first else (end_all, waiting.cancel):
        end()
    with pytest.raises(asyncio.CancelledError):
        await soon(waiting)
    await soon(runtime.aclose())


async def test_sleeps_on_the_runtime_s_clock_end_with_it() -> None:
    """The clock that purchases wait on is the scheduler's, but for the end."""
    clock = FakeClock(start=7.0)
    runtime = Runtime(scheduler=Scheduler(clock=clock))
    assert (runtime.waits.monotonic(), runtime.waits.time()) == (clock.monotonic(), clock.time())
    called: list[str] = []
    runtime.waits.call_at(8.0, lambda: called.append("now"))
    through, cut = (asyncio.ensure_future(runtime.waits.sleep(seconds)) for seconds in (1, 60))
    await until(lambda: "3 timers" in repr(clock))
    await clock.advance(1)
    await soon(through)
    assert called == ["now"]
    assert not cut.done()
    await soon(runtime.aclose())
    with pytest.raises(ClosedError, match="the client was closed"):
        await soon(cut)
    with pytest.raises(ClosedError, match="the client is closed"):
        await runtime.waits.sleep(1)


async def test_closing_again_is_nothing() -> None:
    """One after the other, and at the same time."""
    runtime = Runtime()
    await soon(asyncio.gather(runtime.aclose(), runtime.aclose()))
    began = time.monotonic()
    await soon(runtime.aclose())
    assert time.monotonic() - began < 1


def test_a_runtime_belongs_to_the_loop_it_is_first_used_in() -> None:
    """Making one binds it to none."""
    runtime = Runtime()

    async def use() -> None:
        runtime.check_open()

    asyncio.run(use())
    with pytest.raises(ConfigurationError, match="make another one for this loop"):
        asyncio.run(use())
    asyncio.run(runtime.aclose())
    with pytest.raises(ClosedError, match="the client is closed"):
        asyncio.run(use())


# --- accounts ---


async def test_all_clients_of_a_key_at_an_address_share_one_account() -> None:
    """Its limits, pauses and unfinished jobs, by whatever way one came to the client; another key has its own."""
    async with Mirage({"mira": "key", "mirako": "key"}, limits=Limits(jobs=3)) as hub:
        mira = hub.mira
        same = [
            mira.with_options(api_key="key"),
            mira.with_options(timeout=9),
            mira.with_options(limits=Limits(jobs=3)),
        ]
        assert {client._desk.account for client in same} == {mira._desk.account}
        tenant, again = (mira.with_options(api_key="tenant") for _ in range(2))
        back = tenant.with_options(api_key="key")
        assert tenant._desk.ledger is again._desk.ledger
        assert back._desk.ledger is mira._desk.ledger
        assert len({client._desk.account for client in (mira, tenant, hub.mirako)}) == 3
        assert tenant._desk.account.limits == Limits(jobs=3)
        tenant.set_limits(Limits(jobs=1))
        assert again._desk.account.limits == Limits(jobs=1)
        assert mira._desk.account.limits == Limits(jobs=3)


async def test_other_limits_or_another_address_are_another_account() -> None:
    """A copy with limits of its own is counted apart, together with all that ask for the same."""
    async with MiraClient("key") as mira:
        apart, too = (mira.with_options(limits=Limits(jobs=1)) for _ in range(2))
        moved = mira.with_options(base_url="https://elsewhere.example")
        assert apart._desk.account is too._desk.account
        assert len({client._desk.account for client in (mira, apart, moved)}) == 3
        assert mira.with_options(api_key="key")._desk.account is mira._desk.account


async def test_copies_with_other_limits_pause_together() -> None:
    """The key is throttled, not the copy, also where the copy that was told so is gone; no other key is."""
    clock = FakeClock()
    async with slow_sandbox(clock) as (sandbox, client):
        wide, narrow = client.with_options(limits=Limits(jobs=99)), client.with_options(limits=Limits(polls=8))
        other = client.with_options(api_key="tenant")
        sandbox.fail("miragic.create", Fault(status=429, retry_after=90.0))
        with pytest.raises(RateLimitError):
            await soon(wide.submit("a cat"))
        accounts = [one._desk.account for one in (client, wide, narrow, other)]
        assert len(set(accounts)) == 4
        assert [account.statistics(clock.monotonic()).paused_for for account in accounts] == [60, 60, 60, 0]
        assert [account.throttles for account in accounts] == [0, 1, 0, 0]
        with pytest.raises(WaitTimeoutError) as caught:
            await soon(narrow.submit("a cat", max_wait=59))
        assert caught.value.waited_for == "pause"
        del wide, accounts
        late = narrow.with_options(limits=Limits(jobs=7))
        assert late._desk.account.statistics(clock.monotonic()).paused_for == 60


async def test_a_wait_for_a_place_that_ran_out_is_called_that() -> None:
    """Whether the purchase gives up or only one caller does; it counts in the client's own time."""
    clock = FakeClock()
    async with MiragicClient("key", limits=Limits(jobs=1), scheduler=Scheduler(clock=clock)) as client:
        account = client._desk.account
        await account.take_place(unsent_job(client))
        buying = asyncio.ensure_future(client.submit("a cat", max_wait=20))
        await until(lambda: account.statistics(0).jobs_waiting == 1)
        (job,) = client.jobs
        caller = asyncio.ensure_future(job.result(max_wait=5))
        await clock.advance(5)
        with pytest.raises(WaitTimeoutError, match=r"for a place .* \(Limits\.jobs\) ran out after 5\.0 s") as early:
            await soon(caller)
        await clock.advance(15)
        with pytest.raises(WaitTimeoutError, match=r"\(Limits\.jobs\) ran out after 20\.0 s.* was not sent") as late:
            await soon(buying)
        assert {early.value.waited_for, late.value.waited_for} == {"place"}
        assert account.statistics(0).jobs_waiting == 0


async def test_purchases_that_waited_for_a_pause_are_not_sent_all_at_once() -> None:
    """They go out 50 ms apart, and a pause that has come meanwhile holds for those that are left."""
    clock = FakeClock()
    async with slow_sandbox(clock) as (sandbox, client):
        account = client._desk.account
        account.pause(clock.monotonic(), 5.0)
        buying = [asyncio.ensure_future(client.submit("a cat", max_wait=30)) for _ in range(3)]
        await until(lambda: "2 timers" in repr(clock))  # the first's own, and one for the deadlines of the others
        await clock.advance(5)
        await soon(buying[0])
        assert sandbox.statistics().purchases == {"miragic": 1}
        await clock.advance(0.04)
        account.pause(clock.monotonic(), 20.0)
        await clock.advance(15)
        assert sandbox.statistics().purchases == {"miragic": 1}
        await clock.advance(5.2)
        await soon(asyncio.gather(*buying))
        assert sandbox.statistics().purchases == {"miragic": 3}


async def test_a_place_and_a_pause_together_take_no_longer_than_the_wait() -> None:
    """What the wait for a place has used up is not there for a refused purchase to be sent again."""
    clock = FakeClock()
    async with slow_sandbox(clock) as (sandbox, client):
        client.set_limits(Limits(jobs=1))
        first = await soon(client.submit("a cat", max_wait=20))
        waiter = asyncio.ensure_future(first.result())
        sandbox.fail("miragic.create", Fault(status=429, headers={"Retry-After": "15"}))
        buying = asyncio.ensure_future(client.submit("a dog", max_wait=30))
        await until(lambda: client._desk.account.statistics(0).jobs_waiting == 1)
        await clock.advance(20.1)  # the first wait is over, and its place free; ten seconds are left
        with pytest.raises(WaitTimeoutError):
            await soon(waiter)
        with pytest.raises(RateLimitError) as caught:
            await soon(buying)
        assert caught.value.billed == "no"
        assert clock.monotonic() < 21
        assert sandbox.statistics().purchases == {"miragic": 1}


async def test_a_pause_holds_for_the_next_client_of_the_key() -> None:
    """A service makes a copy for each request; the last one may be gone when the next comes, the pause is not."""
    clock = FakeClock()
    async with slow_sandbox(clock) as (_, client):
        tenant = client.with_options(api_key="tenant")
        tenant._desk.account.pause(clock.monotonic(), 30.0)
        account = weakref.ref(tenant._desk.account)
        del tenant
        gc.collect()
        assert account() is None
        assert client.with_options(api_key="other")._desk.account.statistics(clock.monotonic()).paused_for == 0
        tenant = client.with_options(api_key="tenant")
        assert tenant._desk.account.statistics(clock.monotonic()).paused_for == 30
        with pytest.raises(WaitTimeoutError) as caught:
            await soon(tenant.submit("a cat", max_wait=10))
        assert caught.value.waited_for == "pause"


async def test_the_pauses_of_so_many_keys_are_remembered_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service with a key for each of its users grows no further; who has a client is never forgotten."""
    monkeypatch.setattr(_runtime, "MOST_PAUSES", 2)
    clock = FakeClock()
    async with slow_sandbox(clock) as (_, client):
        kept = client.with_options(api_key="kept")
        for name in ("kept", "first", "second", "third"):
            client.with_options(api_key=name)._desk.account.pause(clock.monotonic(), 30.0)
        gc.collect()
        paused = {
            name: client.with_options(api_key=name)._desk.account.statistics(0).paused_for
            for name in ("kept", "third", "second", "first")
        }
        assert paused == {"kept": 30, "third": 30, "second": 30, "first": 0}
        assert kept._desk.account.pauses.uneasy


def _asked(sandbox: Sandbox, times: int) -> bool:
    return sandbox.statistics().requests.get("mirako.avatar_list", 0) == times


async def test_a_question_waits_for_the_end_of_a_pause() -> None:
    """The provider asked the whole account to slow down; a question that cannot wait so long says so at once."""
    clock = FakeClock()
    async with (
        Sandbox() as sandbox,
        MirakoClient(base_url=sandbox.url, scheduler=Scheduler(clock=clock)) as client,
    ):
        client._desk.account.pause(clock.monotonic(), 25.0)
        sandbox.fail("mirako.avatar_list", Fault(status=429, headers={"Retry-After": "7"}))
        asking = asyncio.ensure_future(client.list_avatars())
        for seconds, calls in ((24.9, 0), (0.2, 1), (6.8, 1), (5.0, 2)):
            await until(lambda: "0 timers" not in repr(clock))
            await clock.advance(seconds)
            await until(partial(_asked, sandbox, calls))
        assert await soon(asking) == ()
        client._desk.account.pause(clock.monotonic(), 60.0)
        with pytest.raises(RateLimitError, match="of which 60 s are left; nothing was sent") as caught:
            await soon(client.list_avatars())
        assert caught.value.retry_after == pytest.approx(60)
        assert caught.value.billed == "no"
        assert sandbox.statistics().requests["mirako.avatar_list"] == 2


@pytest.mark.parametrize(
    ("provider", "working"),
    [
        ("miragic", {"success": True, "data": {"status": "processing"}}),
        ("mirako", {"data": {"status": "IN_PROGRESS"}}),
    ],
)
async def test_a_status_answer_may_say_when_to_come_back(provider: str, working: dict[str, Any]) -> None:
    """A good answer's Retry-After is honoured for its job, in whatever way the provider writes it."""
    clock = FakeClock()
    headers = {"Date": "Mon, 01 Jan 2024 00:00:00 GMT", "Retry-After": "Mon, 01 Jan 2024 00:00:20 GMT"}
    async with (
        Sandbox(durations=600.0) as sandbox,
        Mirage(scheduler=Scheduler(policy=FixedInterval(5, jitter=0), clock=clock), base_urls=sandbox.base_urls) as hub,
    ):
        answers = [Fault(status=200, headers=told, body=working) for told in ({"Retry-After": "30"}, headers, {})]
        sandbox.fail(f"{provider}.status", *answers)
        job = await soon(hub.submit("a cat", provider=provider, max_wait=500))
        moments = list[float]()
        while len(moments) < 4:
            polls = job.polls
            await clock.advance(1)
            await until(lambda: hub.statistics().scheduler.polls_in_flight == 0)
            if job.polls > polls:
                moments.append(clock.monotonic())
        assert [after - before for before, after in pairwise(moments)] == [30, 20, 5]


def test_limits_are_set_in_the_loop_of_the_client_or_before_it_is_used() -> None:
    """Between two runs of the loop, or in a thread, nobody could begin what other limits allow."""
    clock = FakeClock()
    scheduler = Scheduler(policy=FixedInterval(5, jitter=0), clock=clock)
    with asyncio.Runner() as runner:
        sandbox = Sandbox(durations=60.0)
        runner.run(sandbox.__aenter__())
        client = MiragicClient(base_url=sandbox.url, scheduler=scheduler)
        client.set_limits(Limits(polls=1))

        async def buy_two() -> list[Job[Any]]:
            return [await client.submit("a cat"), await client.submit("a dog")]

        jobs = runner.run(buy_two())
        with pytest.raises(ConfigurationError, match="in its event loop alone"):
            client.set_limits(Limits(polls=2))
        with ThreadPoolExecutor() as pool, pytest.raises(ConfigurationError, match="belongs to the event loop"):
            pool.submit(asyncio.run, limits_in_a_loop(client)).result()
        assert client._desk.account.limits == Limits(polls=1)

        async def both_are_asked_about() -> None:
            client.set_limits(Limits(polls=2))
            for _ in range(3):
                await clock.advance(5)
                await until(lambda: client._desk.account.in_flight == 0)
            assert all(job.polls for job in jobs)
            await client.aclose()
            client.set_limits(Limits(polls=3))  # of no consequence any more

        runner.run(both_are_asked_about())
        client.set_limits(Limits(polls=4))
        runner.run(sandbox.__aexit__(None, None, None))


async def limits_in_a_loop(client: MiragicClient) -> None:
    """Set limits in whatever event loop this runs in."""
    client.set_limits(Limits(polls=2))


async def test_unfinished_jobs_are_counted_as_they_are_listed() -> None:
    """In every state: being bought, waiting for a place, watched, given up, left behind, taken."""
    clock = FakeClock()
    async with slow_sandbox(clock) as (sandbox, client):

        def counted() -> int:
            assert client.unfinished_jobs == len(client.jobs)
            return client.unfinished_jobs

        assert counted() == 0
        client.set_limits(Limits(jobs=2))
        jobs = [await soon(client.submit("a cat", max_wait=wait)) for wait in (20, 400)]
        waiting = asyncio.ensure_future(client.submit("a dog", max_wait=900))
        await until(lambda: client._desk.account.statistics(0).jobs_waiting == 1)
        assert counted() == 3
        await clock.advance(30)
        with pytest.raises(WaitTimeoutError):
            await soon(jobs[0])
        third = await soon(waiting)
        assert counted() == 3
        leaving = asyncio.ensure_future(client.generate("a bird", max_wait=900))
        await until(lambda: client._desk.account.statistics(0).jobs_waiting == 1)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await soon(leaving)
        assert counted() == 3
        assert third.id is not None
        sandbox.finish_job(third.id)
        client._desk.ledger.adopt(third)
        waiter = asyncio.ensure_future(third.result(max_wait=60))
        await until(lambda: third._waiters is not None)
        await clock.advance(0.1)
        await until(lambda: third.done)
        assert counted() in {2, 3}
        await soon(waiter)
        assert counted() == 2


async def test_purchases_held_up_by_a_pause_go_out_faster_as_the_provider_accepts_them() -> None:
    """At the pace of the beginning the last would have gone out after 80 seconds, and some not at all."""
    clock = FakeClock()
    async with slow_sandbox(clock) as (sandbox, client):
        account = client._desk.account
        account.pause(clock.monotonic(), 0.0)
        account.pauses.spacing = 2.0  # as after seven throttles in a row
        posts = client._desk.runtime.transport.paid_posts
        buying = [asyncio.ensure_future(client.submit("a cat", max_wait=60)) for _ in range(40)]
        sent = 0
        while clock.monotonic() < 50 and not all(task.done() for task in buying):
            await clock.advance(0.05)
            purchased = sandbox.statistics().purchases.get("miragic", 0)
            assert purchased <= sent + 3
            sent = purchased
            await until(lambda: posts.borrowed_tokens == 0)
        assert all(task.done() and task.exception() is None for task in buying)
        assert 15 < clock.monotonic() < 30


async def test_a_purchase_whose_time_is_over_before_its_turn_is_not_sent() -> None:
    """It says whether that was in the pause or after it, and the turn goes to the next."""
    clock = FakeClock()
    async with slow_sandbox(clock) as (sandbox, client):
        account = client._desk.account
        account.pause(clock.monotonic(), 5.0)
        account.pauses.spacing = 2.0
        waits = [30.0, 6.0, 6.5, 30.0, 30.0]
        buying = [asyncio.ensure_future(client.submit("a cat", max_wait=wait)) for wait in waits]
        await until(lambda: "2 timers" in repr(clock))
        buying[3].cancel()
        told = list[str | None]()
        for moment, number in ((5.0, 0), (1.0, 1), (0.5, 2)):
            await clock.advance(moment)
            error = (await soon(asyncio.gather(buying[number], return_exceptions=True)))[0]
            told.append(error.waited_for if isinstance(error, WaitTimeoutError) else None)
        assert told == [None, "spacing", "spacing"]
        paused = asyncio.ensure_future(client.submit("a cat", max_wait=10))
        await until(lambda: account.pauses.turns.statistics().tasks_waiting == 1)
        account.pause(clock.monotonic(), 20.0)
        await clock.advance(10)
        with pytest.raises(WaitTimeoutError) as caught:
            await soon(paused)
        assert caught.value.waited_for == "pause"
        await clock.advance(20)
        await soon(buying[4])
        assert sandbox.statistics().purchases == {"miragic": 2}


async def test_purchases_sent_before_a_throttle_do_not_undo_it() -> None:
    """One of 32 requests on the wire together is throttled, the others buy: the next ones still go out gently."""
    clock = FakeClock()
    async with slow_sandbox(clock) as (sandbox, client):
        account = client._desk.account
        sandbox.fail("miragic.create", Fault(status=429, retry_after=5.0))
        buying = [asyncio.ensure_future(client.submit("a cat", max_wait=60)) for _ in range(32)]
        await until(lambda: sum(task.done() for task in buying) == 31)
        assert (account.throttles, account.statistics(0).spacing) == (1, 0.05)
        assert sandbox.statistics().purchases == {"miragic": 31}
        # The one that is sent again after the pause counts.
        await until(lambda: "2 timers" in repr(clock))
        await clock.advance(8)
        await soon(asyncio.gather(*buying))
        assert account.statistics(clock.monotonic()).spacing == pytest.approx(0.045)


async def test_a_caller_whose_scope_is_cancelled_already_buys_nothing() -> None:
    """Not even where nothing on the way to the request would have waited."""
    async with Sandbox(durations=0.0) as sandbox, MiragicClient(base_url=sandbox.url) as client:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await client.submit("a cat")
        assert scope.cancelled_caught
        await asyncio.sleep(0)  # a task that has ended is told so in the next turn
        assert not client._desk.runtime.posts
        assert not client.jobs
        assert sandbox.statistics().purchases == {}


async def test_a_slot_that_comes_too_late_buys_nothing() -> None:
    """A clock that has passed the deadline when the slot is there leaves the request unsent and the slot free."""
    clock = FakeClock()
    async with (
        Sandbox(durations=0.0) as sandbox,
        MiragicClient(base_url=sandbox.url, scheduler=Scheduler(clock=clock)) as client,
    ):
        slots = client._desk.runtime.transport.paid_posts
        slots.total_tokens = 1
        slots.acquire_on_behalf_of_nowait("somebody")
        buying = asyncio.ensure_future(client.submit("a cat", max_wait=20))
        await until(lambda: slots.statistics().tasks_waiting == 1)
        clock._now += 20  # the loop was held up: the slot becomes free before the timer can run
        slots.release_on_behalf_of("somebody")
        with pytest.raises(WaitTimeoutError, match=r"HTTP slot .* ran out") as caught:
            await soon(buying)
        assert (caught.value.waited_for, caught.value.billed) == ("slot", "no")
        assert slots.borrowed_tokens == 0
        assert sandbox.statistics().purchases == {}


async def test_a_question_that_is_throttled_slows_the_whole_account() -> None:
    """Not only the next such question: purchases and status calls wait as well."""
    clock = FakeClock()
    async with Sandbox() as sandbox, MirakoClient(base_url=sandbox.url, scheduler=Scheduler(clock=clock)) as client:
        sandbox.fail("mirako.avatar_list", "429:7", "500")
        asking = asyncio.ensure_future(client.list_avatars())
        account = client._desk.account
        await until(lambda: account.throttles)
        assert account.statistics(clock.monotonic()).paused_for == 7
        await clock.advance(8)
        await until(lambda: len(sandbox.requests) == 2)
        await until(lambda: "1 timers" in repr(clock))
        await clock.advance(8)
        assert await soon(asking) == ()
        assert account.throttles == 1


# --- orphans ---


def unsent_job(client: MirakoClient | MiragicClient) -> Job[Any]:
    """Return a job nobody has sent."""
    return new_job(client._images)


def test_the_oldest_orphan_makes_room(caplog: pytest.LogCaptureFixture) -> None:
    """A hundred are kept, in the order of their callers' cancellation; each further one is said aloud."""
    client = MirakoClient("key")
    ledger = client._desk.ledger
    jobs = [unsent_job(client) for _ in range(MOST_ORPHANS + 2)]
    assert MOST_ORPHANS == 100
    for job in jobs[:MOST_ORPHANS]:
        ledger.adopt(job)
    assert not caplog.records
    for job in jobs[MOST_ORPHANS:]:
        ledger.adopt(job)
    assert ledger.jobs([]) == tuple(jobs[2:])
    assert [f"key {job.key}" in record.getMessage() for job, record in zip(jobs, caplog.records, strict=False)] == [
        True,
        True,
    ]


@pytest.mark.parametrize("status", [JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.EXPIRED])
def test_an_orphan_without_worth_is_not_kept(status: JobStatus) -> None:
    """Neither is one whose outcome somebody was given; one that is watched as well is listed once."""
    client = MirakoClient("key")
    ledger = client._desk.ledger
    worthless, taken, kept = (unsent_job(client) for _ in range(3))
    for job in (worthless, taken, kept):
        ledger.adopt(job)
    worthless.status = status
    taken.taken = True
    assert ledger.jobs([kept]) == (kept,)
    assert list(ledger.orphans) == [kept]


# --- limits that change under way ---


@pytest.mark.parametrize("limits", [Limits(jobs=3), Limits(jobs=None)], ids=["three", "no limit"])
async def test_more_places_let_waiting_purchases_in_at_once(limits: Limits) -> None:
    """Nobody waits for a job to end who has a place now."""
    async with Sandbox(durations=60.0) as sandbox, MiragicClient(base_url=sandbox.url, limits=Limits(jobs=1)) as client:
        await soon(client.submit("a cat"))
        waiting = [asyncio.ensure_future(client.submit("a cat")) for _ in range(2)]
        await until(lambda: client._desk.account.statistics(0.0).jobs_waiting == 2)
        assert sandbox.statistics().purchases == {"miragic": 1}
        client.set_limits(limits)
        jobs = await soon(asyncio.gather(*waiting))
        assert all(job.id for job in jobs)
        assert sandbox.statistics().purchases == {"miragic": 3}
        assert client._desk.runtime.scheduler.statistics().accounts[0].limits == limits


async def test_fewer_places_hold_the_next_purchase_back() -> None:
    """What is under way goes on."""
    async with Sandbox(durations=60.0) as sandbox, MiragicClient(base_url=sandbox.url, limits=Limits(jobs=2)) as client:
        first, second = [await soon(client.submit("a cat")) for _ in range(2)]
        client.set_limits(Limits(jobs=1))
        third = asyncio.ensure_future(client.submit("a cat", max_wait=60))
        await until(lambda: client._desk.account.statistics(0.0).jobs_waiting == 1)
        first.stop(ClosedError("given up"))
        await anyio.wait_all_tasks_blocked()
        assert not third.done()
        second.stop(ClosedError("given up"))
        assert (await soon(third)).id
        assert sandbox.statistics().purchases == {"miragic": 3}


async def test_a_limit_that_comes_while_purchases_are_on_the_wire_counts_them() -> None:
    """Eight were begun when it came: the ninth waits until seven of them have ended."""
    async with Sandbox(durations=60.0) as sandbox, MiragicClient(base_url=sandbox.url) as client:
        buying = [asyncio.ensure_future(client.submit("a cat")) for _ in range(8)]
        await anyio.lowlevel.checkpoint()
        client.set_limits(Limits(jobs=2))
        account = client._desk.account
        assert account.statistics(0.0).jobs_in_flight == 8
        jobs = await soon(asyncio.gather(*buying))
        assert (account.statistics(0.0).jobs_watched, account.statistics(0.0).jobs_in_flight) == (8, 8)
        ninth = asyncio.ensure_future(client.submit("a cat", max_wait=60))
        await until(lambda: account.statistics(0.0).jobs_waiting == 1)
        for job in jobs[:6]:
            job.stop(ClosedError("given up"))
        await anyio.wait_all_tasks_blocked()
        assert not ninth.done()
        assert sandbox.statistics().purchases == {"miragic": 8}
        jobs[6].stop(ClosedError("given up"))
        assert (await soon(ninth)).id
        assert account.statistics(0.0).jobs_in_flight == 2


async def test_a_limit_that_comes_before_a_purchase_in_the_background_has_begun_counts_it() -> None:
    """It has its place then, does not wait for another, and gives it back when nothing is bought."""
    async with Sandbox(durations=0.0) as sandbox, MiraClient(base_url=sandbox.url) as client:
        sandbox.fail("mira.generate", Fault(status=402))
        jobs = [await client.submit("a cat") for _ in range(3)]
        client.set_limits(Limits(jobs=1))
        account = client._desk.account
        assert account.statistics(0.0).jobs_in_flight == 3
        ended = await soon(asyncio.gather(*jobs, return_exceptions=True))
        assert [type(one) for one in ended].count(InsufficientCreditsError) == 1
        assert sandbox.statistics().purchases == {"mira": 2}
        assert account.statistics(0.0).jobs_in_flight == 0


class Gated:
    """Holds every status call until it is told."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.asked = 0

    async def __call__(self, *_: object) -> Any:
        """Count, wait, and fail: what comes of the call is nobody's business here."""
        self.asked += 1
        await self.gate.wait()
        msg = "never mind"
        raise MirageError(msg)


@pytest.mark.parametrize("limits", [Limits(polls=3), Limits(polls=None)], ids=["three", "no limit"])
async def test_more_status_calls_let_waiting_ones_in_at_once(limits: Limits) -> None:
    """They were due and had no room."""
    clock = FakeClock()
    scheduler = Scheduler(policy=FixedInterval(1), clock=clock)
    async with MiragicClient("key", limits=Limits(polls=1), scheduler=scheduler) as client:
        look = Gated()
        client._images.look = look
        jobs = [client.job(f"job-{number}", max_wait=60) for number in range(3)]
        await clock.advance(2)
        account = client._desk.account
        assert (look.asked, account.in_flight, len(account.ready)) == (1, 1, 2)
        client.set_limits(limits)
        await until(lambda: look.asked == 3)
        assert (account.in_flight, len(account.ready)) == (3, 0)
        assert clock.monotonic() == 2
        assert not any(job.done for job in jobs)


@pytest.mark.parametrize("value", [5, "none", {"jobs": 1}], ids=repr)
async def test_limits_must_be_limits(value: Any) -> None:
    """What is none changes nothing."""
    async with MiraClient("key", limits=Limits(jobs=3)) as client:
        with pytest.raises(InputError, match=r"limits must be a Limits\(\.\.\.\); got"):
            client.set_limits(value)
        assert client._desk.account.limits == Limits(jobs=3)


# --- options of a client of a hub ---


async def test_a_hub_s_mira_can_be_sent_elsewhere() -> None:
    """The copy has the path, the original keeps its own, and an impossible one is refused."""
    async with sandboxed(durations=0.0) as (hub, sandbox):
        copied = hub.mira.with_options(path="/v1/images/generations")
        again = copied.with_options(timeout=30)
        for client in (copied, again, hub.mira):
            await soon(client.generate("a cat"))
        with pytest.raises(InputError, match="path must be a path"):
            hub.mira.with_options(path="no slash")
        other, default = "/v1/images/generations", "/v1/images/generate"
        assert [seen.path for seen in sandbox.requests] == [other, other, default]


async def test_a_hub_s_miragic_can_encode_its_form_otherwise() -> None:
    """The copy sends urlencoded fields, and the original goes on with multipart."""
    async with sandboxed(durations=0.0) as (hub, sandbox):
        copied = hub.miragic.with_options(multipart=False)
        for client in (copied, copied.with_options(timeout=30), copied.with_options(multipart=True), hub.miragic):
            await soon(client.submit("a cat"))
        posts = [seen for seen in sandbox.requests if seen.method == "POST"]
        types = [seen.headers["content-type"].partition(";")[0] for seen in posts]
        assert types == ["application/x-www-form-urlencoded"] * 2 + ["multipart/form-data"] * 2
        assert all(seen.fields == posts[0].fields for seen in posts)


# --- arguments that are none ---

WRONG_OPTIONS: tuple[tuple[dict[str, Any], str], ...] = (
    ({"timeout": -1}, "timeout must be above 0 .*; got -1"),
    ({"timeout": "60"}, "timeout must be above 0 .*; got '60'"),
    ({"timeout": True}, "timeout must be above 0 .*; got True"),
    ({"max_retry_after": -1}, "max_retry_after must be 0 to .*; got -1"),
    ({"max_retry_after": float("nan")}, "max_retry_after must be 0 to .*; got nan"),
    ({"resend_uncertain": "x"}, "resend_uncertain must be True or False; got 'x'"),
    ({"resend_uncertain": 1}, "resend_uncertain must be True or False; got 1"),
)


@pytest.mark.parametrize(("options", "message"), WRONG_OPTIONS, ids=lambda one: str(one)[:40])
def test_an_option_out_of_range_is_refused_by_hub_and_clients(options: dict[str, Any], message: str) -> None:
    """By the constructor already, with the value, before anything is made."""
    with pytest.raises(InputError, match=message):
        Mirage(**options)
    for client in CLIENTS:
        with pytest.raises(InputError, match=message):
            client("key", **options)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"mira": 5}, r"limits must be a Limits\(\.\.\.\); got 5"),
        ({"mirror": Limits()}, "limits must be by provider, one of .*; got 'mirror'"),
        (5, "limits must be a mapping by provider; got 5"),
    ],
)
def test_a_hub_s_limits_are_limits(limits: Any, message: str) -> None:
    """One for all, or one each by the provider's name."""
    with pytest.raises(InputError, match=message):
        Mirage(limits=limits)


@pytest.mark.parametrize("message", ["token must be text, .*; got None"])
async def test_a_token_is_text(message: str) -> None:
    """At the hub and at every client."""
    async with Mirage(dict.fromkeys(("mirako", "miragic"), "key")) as hub:
        for owner in (hub, hub.mirako, hub.miragic):
            with pytest.raises(InputError, match=rf"{message}\Z"):
                owner.job(None)  # type: ignore[arg-type]


@pytest.mark.parametrize("provider", ["mirako", "miragic", "mira", "milady"])
@pytest.mark.parametrize(
    "message",
    ["options must be a mapping .*; got 'abc'"],
)
async def test_options_are_a_mapping(provider: str, message: str) -> None:
    """Text is refused before anything is sent."""
    async with sandboxed(durations=0.0) as (hub, sandbox):
        for door in (hub.generate, hub.submit):
            with pytest.raises(InputError, match=message):
                await soon(door("a cat", provider=provider, options="abc"))  # type: ignore[arg-type]
        assert sandbox.requests == []


@every_client
async def test_a_call_s_own_flag_is_true_or_false(client: type[Any]) -> None:
    """Nothing but a bool may turn on what can make somebody pay twice."""
    async with client("key", base_url="http://127.0.0.1:9") as buyer:
        with pytest.raises(InputError, match="resend_uncertain must be True, False or None; got 'x'"):
            await soon(buyer.submit("a cat", resend_uncertain="x"))


@pytest.mark.parametrize(
    "client",
    [MirakoClient, MiragicClient, MiraClient, MiladyClient],
)
async def test_a_call_that_was_refused_leaves_no_job(client: type[Any]) -> None:
    """What was never begun is not among the jobs something may still come of."""
    async with client("key", base_url="http://127.0.0.1:9") as buyer:
        with pytest.raises(InputError):
            await soon(buyer.submit("a cat", resend_uncertain="x"))
        assert buyer.jobs == ()
