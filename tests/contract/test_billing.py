"""What an error says about money: never "no" where something may have been bought, and never "yes" on a guess."""

from __future__ import annotations

import asyncio
import itertools
import logging
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from impatient import ImpatientClock, until
from purchases import KEY, PROMPT, PURCHASES, Purchase, buying, honest, quick
from rogues import Act, Seen, answer, closed_port, json_answer, rogue

from mirage_async import Limits, MiladyClient, MiraClient, MiragicClient, MirakoClient
from mirage_async.exceptions import (
    APIError,
    AuthenticationError,
    ClosedError,
    ConfigurationError,
    ConnectionFailedError,
    InsufficientCreditsError,
    JournalError,
    MirageError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    SubmissionUncertainError,
    WaitTimeoutError,
)
from mirage_async.jobs import NullRecorder
from mirage_async.sandbox import Fault, Sandbox
from mirage_async.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mirage_async import Job
    from mirage_async.clients import ProviderClient
    from mirage_async.jobs import Intent

pytestmark = pytest.mark.anyio

every_purchase = pytest.mark.parametrize("purchase", PURCHASES, ids=repr)
every_job = pytest.mark.parametrize("purchase", [one for one in PURCHASES if not one.blocking], ids=repr)
every_submit = pytest.mark.parametrize("client", [MiraClient, MiladyClient])

TROUBLE = {"success": False, "error": {"code": "TROUBLE", "message": "no luck today"}}
LOST = Fault(reset=True, when="after")
HOUR = 3600.0


class FastClock(ImpatientClock):
    """Two hundred seconds a second, for the patience after trouble with a status call."""

    def monotonic(self) -> float:
        """Return a fast moment."""
        return super().monotonic() * 200

    def call_at(self, when: float, callback: Callable[[], object]) -> Any:
        """Arrange a call sooner."""
        return asyncio.get_running_loop().call_later(max(0.0, when - self.monotonic()) / 200, callback)


# -- waits that are over ---------------------------------------------------------------------------------------------


@every_job
async def test_a_wait_that_ends_before_anything_was_sent_cost_nothing(purchase: Purchase) -> None:
    """It ended in the queue for a place among the jobs in flight."""
    with anyio.fail_after(30):
        async with (
            Sandbox(durations=60.0) as sandbox,
            buying(purchase, sandbox.url, limits=Limits(jobs=1)) as client,
        ):
            await purchase.buy(client)
            with pytest.raises(WaitTimeoutError, match="was not sent") as caught:
                await purchase.buy(client, max_wait=0.03)
            assert (caught.value.billed, caught.value.token) == ("no", None)
            assert sandbox.statistics().purchases == {purchase.provider: 1}


@every_submit
async def test_a_wait_for_a_blocking_job_says_whether_it_was_sent(client: type[Any]) -> None:
    """Nothing is known of the job whose request is on the wire; the one behind it in the queue cost nothing."""
    gate = asyncio.Event()
    with anyio.fail_after(30):
        async with (
            rogue(lambda seen: Act(write=honest(seen).write, gate=gate)) as server,
            client(KEY, base_url=server.url, limits=Limits(jobs=1), scheduler=quick()) as buyer,
        ):
            first = await buyer.submit(PROMPT)
            await until(lambda: server.posts)
            second = await buyer.submit(PROMPT)
            with pytest.raises(WaitTimeoutError, match="has no id to attach to: keep the handle") as sent:
                await first.result(max_wait=0.03)
            with pytest.raises(WaitTimeoutError, match="was not sent") as waiting:
                await second.result(max_wait=0.03)
            assert (sent.value.billed, sent.value.token) == ("unknown", None)
            assert (waiting.value.billed, waiting.value.token) == ("no", None)
            gate.set()
            assert (await first).images
            assert (await second).images


@every_job
async def test_a_wait_for_a_job_with_an_id_was_billed(purchase: Purchase) -> None:
    """The provider has accepted the job; the token finds it again, whichever wait ended."""
    with anyio.fail_after(30):
        async with Sandbox(durations=60.0) as sandbox, buying(purchase, sandbox.url) as client:
            watched = await purchase.buy(client, max_wait=0.05)
            waited = await purchase.buy(client)
            with pytest.raises(WaitTimeoutError, match="lives on") as by_the_client:
                await watched
            with pytest.raises(WaitTimeoutError, match="lives on") as by_the_waiter:
                await waited.result(max_wait=0.03)
            for job, error in ((watched, by_the_client.value), (waited, by_the_waiter.value)):
                assert (error.billed, error.token, error.job_id) == ("yes", job.token(), job.id)


@every_job
async def test_nothing_is_sent_when_the_wait_ends_in_a_pause(purchase: Purchase) -> None:
    """A pause that outlasts the deadline is not slept out, and one that has grown meanwhile is noticed."""
    clock = FakeClock()
    with anyio.fail_after(30):
        async with rogue(honest) as server, buying(purchase, server.url, clock) as client:
            account = client._desk.account
            account.pause(clock.monotonic(), 30.0)
            with pytest.raises(WaitTimeoutError, match="the end of a pause the provider asked for ran out") as caught:
                await purchase.buy(client, max_wait=20)
            assert caught.value.billed == "no"
            growing = asyncio.ensure_future(purchase.buy(client, max_wait=50))
            await until(lambda: "1 timers" in repr(clock))
            account.pause(clock.monotonic(), 60.0)
            await clock.advance(30)
            with pytest.raises(WaitTimeoutError, match="was not sent") as late:
                await growing
            assert late.value.billed == "no"
            await clock.advance(100)
            assert server.connections == 0
            assert client.jobs == ()


@every_job
async def test_nothing_is_sent_when_the_wait_ends_in_the_queue_for_a_slot(purchase: Purchase) -> None:
    """The wait for a slot ends at the deadline, not when the slot comes; whoever has time left gets it."""
    clock, gate = FakeClock(), asyncio.Event()
    with anyio.fail_after(30):
        async with (
            rogue(lambda seen: Act(write=honest(seen).write, gate=gate)) as server,
            buying(purchase, server.url, clock) as client,
        ):
            slots = client._desk.runtime.transport.paid_posts
            slots.total_tokens = 1
            first = asyncio.ensure_future(purchase.buy(client))
            await until(lambda: server.posts)
            late = asyncio.ensure_future(purchase.buy(client, max_wait=5))
            patient = asyncio.ensure_future(purchase.buy(client, max_wait=500))
            await until(lambda: slots.statistics().tasks_waiting == 2)
            await clock.advance(5)
            with pytest.raises(WaitTimeoutError, match="for an HTTP slot to send the request ran out") as caught:
                await late
            assert (caught.value.billed, caught.value.waited_for) == ("no", "slot")
            gate.set()
            assert (await first).id
            assert (await patient).id
            assert slots.borrowed_tokens == 0
            assert len(server.posts) == 2


# -- a purchase that is sent again -----------------------------------------------------------------------------------


@every_purchase
@pytest.mark.parametrize(
    ("status", "kind", "posts"),
    [(402, InsufficientCreditsError, 2), (308, ConfigurationError, 2), (429, RateLimitError, 3)],
)
async def test_a_refused_re_send_does_not_undo_the_first_attempt(
    purchase: Purchase, status: int, kind: type[MirageError], posts: int
) -> None:
    """The reply that was lost may have been that of a job: what comes after it proves nothing about money."""
    with anyio.fail_after(30):
        async with (
            Sandbox(durations=0.0) as sandbox,
            buying(purchase, sandbox.url, resend_uncertain=True) as client,
        ):
            sandbox.fail(purchase.operation, LOST, *[Fault(status=status)] * (posts - 1))
            with pytest.raises(kind) as caught:
                await purchase.buy(client)
            assert caught.value.billed == "unknown"
            assert sandbox.statistics().purchases == {purchase.provider: 1}
            assert sandbox.statistics().requests[purchase.operation] == posts
            assert client.jobs == ()


@every_purchase
async def test_a_re_send_that_is_not_sent_does_not_undo_the_first_attempt(
    purchase: Purchase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither does a provider that cannot be reached any more."""
    with anyio.fail_after(30):
        async with rogue(Act(then="rst")) as server, buying(purchase, server.url, resend_uncertain=True) as client:
            buyer = client._desk._buyer
            sleep = client._desk.runtime.clock.sleep

            async def moving(seconds: float) -> None:
                buyer._endpoint = buyer._endpoint.moved(closed_port())
                await sleep(seconds)

            monkeypatch.setattr(client._desk.runtime.clock, "sleep", moving)
            with pytest.raises(ConnectionFailedError) as caught:
                await purchase.buy(client)
            assert caught.value.billed == "unknown"
            assert len(server.posts) == 1


@every_purchase
async def test_a_refusal_after_a_refusal_for_load_cost_nothing(purchase: Purchase) -> None:
    """Two answers by which the provider says that it did not take the request."""
    with anyio.fail_after(30):
        async with Sandbox(durations=0.0) as sandbox, buying(purchase, sandbox.url) as client:
            sandbox.fail(purchase.operation, Fault(status=429), Fault(status=402))
            with pytest.raises(InsufficientCreditsError) as caught:
                await purchase.buy(client)
            assert caught.value.billed == "no"
            assert sandbox.statistics().purchases == {}


@every_purchase
async def test_the_pause_after_a_refusal_for_load_starts_small_again(purchase: Purchase) -> None:
    """Purchases an hour apart, each refused once, each pause for the first step: a success in between calms down."""
    clock = FakeClock()
    with anyio.fail_after(30):
        async with Sandbox(durations=0.0) as sandbox, buying(purchase, sandbox.url, clock) as client:
            account = client._desk.account
            for _ in range(4):
                before = account.throttles
                sandbox.fail(purchase.operation, Fault(status=429))
                buyer = asyncio.ensure_future(purchase.buy(client))
                await until(lambda: account.throttles > before)  # noqa: B023 - called before the next round
                assert account.pauses.until == clock.monotonic() + 1.0
                await clock.advance(2)
                await buyer
                await clock.advance(HOUR)
            assert sandbox.statistics().purchases == {purchase.provider: 4}


async def ended(clock: FakeClock, tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Let time pass until all of them have ended."""
    while not all(task.done() for task in tasks):
        await clock.advance(0.1)
        await asyncio.sleep(0.001)


@every_purchase
async def test_a_refusal_for_load_that_straggles_in_after_the_pause_is_of_the_same_burst(purchase: Purchase) -> None:
    """It answers what was sent before the first refusal was here, and so tells nothing new."""
    clock, late, numbers = FakeClock(), asyncio.Event(), itertools.count()

    def respond(seen: Seen) -> Act:
        number = next(numbers) if seen.method == "POST" else 2
        if number > 1:
            return honest(seen)
        return Act(write=json_answer(TROUBLE, 429), gate=late if number == 1 else None)

    with anyio.fail_after(30):
        async with rogue(respond) as server, buying(purchase, server.url, clock) as client:
            account = client._desk.account
            buyers = [asyncio.ensure_future(purchase.buy(client)) for _ in range(2)]
            await until(lambda: account.throttles == 1 and len(server.posts) == 2)
            await clock.advance(1.0)
            late.set()
            await until(lambda: account.throttles == 2)
            assert account.statistics(clock.monotonic()).paused_for == 0
            await ended(clock, buyers)


async def test_a_question_refused_for_load_after_a_pause_is_of_the_same_burst() -> None:
    """As a purchase."""
    clock, late, numbers = FakeClock(), asyncio.Event(), itertools.count()

    def respond(_: Seen) -> Act:
        if (number := next(numbers)) > 1:
            return Act(write=json_answer({"data": []}))
        return Act(write=json_answer(TROUBLE, 429), gate=late if number == 1 else None)

    with anyio.fail_after(30):
        async with rogue(respond) as server, MirakoClient(KEY, base_url=server.url, scheduler=quick(clock)) as client:
            account = client.desk.account
            askers = [asyncio.ensure_future(client.list_avatars()) for _ in range(2)]
            await until(lambda: account.throttles == 1 and len(server.requests) == 2)
            await clock.advance(1.0)
            late.set()
            await until(lambda: account.throttles == 2)
            assert account.statistics(clock.monotonic()).paused_for == 0
            await ended(clock, askers)
            assert [await asker for asker in askers] == [(), ()]


# -- the end ----------------------------------------------------------------------------------------------------------


@every_purchase
async def test_closing_before_a_re_send_does_not_forget_the_first_attempt(purchase: Purchase) -> None:
    """The attempt that ended uncertain may have been bought, whatever did not come after it."""
    clock = FakeClock()
    with anyio.fail_after(30):
        async with (
            rogue(Act(then="rst")) as server,
            buying(purchase, server.url, clock, resend_uncertain=True) as client,
        ):
            buyer = asyncio.ensure_future(purchase.buy(client))
            await until(lambda: "1 timers" in repr(clock))
            await client.aclose()
            with pytest.raises(ClosedError, match="was closed while the") as caught:
                await buyer
            assert caught.value.billed == "unknown"
        assert len(server.posts) == 1


class SlowRecorder(NullRecorder):
    """Never finishes noting an id."""

    async def accepted(self, job: Job[Any]) -> None:  # noqa: ARG002 - the port's signature
        """Hang."""
        await asyncio.get_running_loop().create_future()


@every_job
async def test_an_id_that_is_home_is_told_though_it_could_not_be_recorded_in_time(
    purchase: Purchase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The grace ends while the id is being written down: the caller gets the token."""
    monkeypatch.setattr("mirage_async.clients._runtime.POST_GRACE", 0.05)
    with anyio.fail_after(30):
        async with rogue(honest) as server, buying(purchase, server.url) as client:
            for kind in client._kinds.values():
                kind.recorder = SlowRecorder()
            buyer = asyncio.ensure_future(purchase.buy(client))
            await until(lambda: client.jobs and client.jobs[0].id)
            token = client.jobs[0].token()
            await client.aclose()
            with pytest.raises(ClosedError, match="was closed while the") as caught:
                await buyer
            assert (caught.value.billed, caught.value.token) == ("yes", token)
        assert len(server.requests) == 1


# -- status calls that are refused -----------------------------------------------------------------------------------


@every_job
@pytest.mark.parametrize(
    ("status", "kind"), [(401, AuthenticationError), (403, PermissionDeniedError), (308, ConfigurationError)]
)
async def test_who_may_not_ask_about_a_job_has_paid_for_it_all_the_same(
    purchase: Purchase, status: int, kind: type[MirageError]
) -> None:
    """The refusal of a status call says so, with a note that names the token, to every waiter and reader."""

    def refusing(seen: Seen) -> Act:
        headers = {"Location": "/elsewhere"}
        return honest(seen) if seen.method == "POST" else Act(write=json_answer(TROUBLE, status, headers))

    with anyio.fail_after(30):
        async with rogue(refusing) as server, buying(purchase, server.url) as client:
            job = await purchase.buy(client)
            with pytest.raises(kind) as by_waiter:
                await job
            with pytest.raises(kind) as by_reader:
                async for _ in job.updates():
                    pass
            with pytest.raises(kind) as again:
                await job.result(max_wait=5)
            for error in (by_waiter.value, by_reader.value, again.value):
                assert error.billed == "yes"
                assert error.__notes__ == [f"the job lives on; attach with {job.token()}"]
            assert len(server.posts) == 1


async def attached(client: ProviderClient) -> Job[Any]:
    """Attach to a job by its bare id."""
    return client.job("job-1", max_wait=100_000)


@pytest.mark.parametrize("client", [MirakoClient, MiragicClient])
async def test_the_fourth_no_such_job_in_a_row_is_believed(client: type[Any]) -> None:
    """A bare id may be anybody's or nobody's, so nobody knows whether it was paid for."""
    with anyio.fail_after(30):
        async with (
            rogue(Act(write=json_answer(TROUBLE, 404))) as server,
            client(KEY, base_url=server.url, scheduler=quick(FastClock())) as asking,
        ):
            with pytest.raises(NotFoundError) as caught:
                await (await attached(asking))
            assert caught.value.billed == "unknown"
            assert len(server.requests) == 4


@pytest.mark.parametrize("client", [MirakoClient, MiragicClient])
async def test_only_no_such_job_counts_as_no_such_job(client: type[Any]) -> None:
    """Three answers of a server in trouble and one "no such job" are no reason to give a job up."""
    script = [500, 500, 500, 404, 500, 404, 404, 404]

    def troubled(seen: Seen) -> Act:
        polls = len([one for one in server.requests if not one.path.endswith(".jpg")])
        return Act(write=json_answer(TROUBLE, script[polls - 1])) if polls <= len(script) else honest(seen)

    with anyio.fail_after(30):
        async with (
            rogue(troubled) as server,
            client(KEY, base_url=server.url, scheduler=quick(FastClock())) as asking,
        ):
            job = await attached(asking)
            assert (await job).images
            assert job.polls == len(script) + 1


# -- what nobody foresaw ---------------------------------------------------------------------------------------------


class FullDisk(NullRecorder):
    """Fails to note an intent, after so many it could note."""

    def __init__(self, after: int = 0) -> None:
        self.left = after

    async def intended(self, job: Job[Any], intent: Intent) -> None:  # noqa: ARG002 - the port's signature
        """Fail once the disk is full."""
        self.left -= 1
        if self.left < 0:
            msg = "no space left on device"
            raise OSError(msg)


@every_purchase
async def test_what_cannot_be_recorded_is_not_bought(purchase: Purchase) -> None:
    """Whatever the recorder raises, the caller gets `JournalError` and the provider no request."""
    with anyio.fail_after(30):
        async with Sandbox(durations=0.0) as sandbox, buying(purchase, sandbox.url) as client:
            client._desk.runtime.recorder = FullDisk()
            with pytest.raises(JournalError, match=r"was not made: it cannot be recorded \(no space left") as caught:
                await purchase.buy(client)
            assert (caught.value.billed, caught.value.provider) == ("no", purchase.provider)
            assert sandbox.requests == []
            assert client.jobs == ()
            assert client._desk.runtime.transport.paid_posts.borrowed_tokens == 0


@every_purchase
async def test_a_re_send_that_cannot_be_recorded_does_not_undo_the_first_attempt(purchase: Purchase) -> None:
    """The first one was recorded and sent, and its reply was lost."""
    with anyio.fail_after(30):
        async with (
            Sandbox(durations=0.0) as sandbox,
            buying(purchase, sandbox.url, resend_uncertain=True) as client,
        ):
            client._desk.runtime.recorder = FullDisk(after=1)
            sandbox.fail(purchase.operation, LOST)
            with pytest.raises(JournalError) as caught:
                await purchase.buy(client)
            assert caught.value.billed == "unknown"
            assert sandbox.statistics().purchases == {purchase.provider: 1}


@every_purchase
async def test_an_unforeseen_failure_while_sending_is_uncertain(
    purchase: Purchase, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody hangs, nothing is sent twice, and the log has the traceback."""
    attempts: list[str] = []
    settled: list[Job[Any]] = []

    async def fail(*_: object) -> None:
        attempts.append("sent")
        msg = "surprise"
        raise RuntimeError(msg)

    class Noting(NullRecorder):
        async def settled(self, job: Job[Any], outcome: object) -> None:
            assert isinstance(outcome, SubmissionUncertainError)
            settled.append(job)

    monkeypatch.setattr("mirage_async.clients._buyer.attempt", fail)
    with anyio.fail_after(30), caplog.at_level(logging.ERROR, logger="mirage_async.clients"):
        async with rogue(honest) as server, buying(purchase, server.url) as client:
            client._desk.runtime.recorder = Noting()
            for kind in (client._desk.answers, *client._kinds.values()):
                kind.recorder = client._desk.runtime.recorder
            with pytest.raises(SubmissionUncertainError, match="an unforeseen RuntimeError") as caught:
                await purchase.buy(client)
            assert caught.value.billed == "unknown"
            assert attempts == ["sent"]
            (job,) = settled
            assert (job.done, job.status, job.key) == (True, "uncertain", caught.value.key)
            assert client.jobs == ()
            assert client._desk.runtime.transport.paid_posts.borrowed_tokens == 0
    assert "failed in an unforeseen way" in caplog.text
    assert "RuntimeError: surprise" in caplog.text


@every_submit
async def test_an_unforeseen_failure_reaches_whoever_awaits_the_job(
    client: type[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when the purchase was left to the background."""

    async def fail(*_: object) -> None:
        raise KeyError

    monkeypatch.setattr("mirage_async.clients._buyer.attempt", fail)
    with anyio.fail_after(30):
        async with client(KEY, base_url=closed_port(), scheduler=quick()) as buyer:
            job = await buyer.submit(PROMPT)
            with pytest.raises(SubmissionUncertainError, match="an unforeseen KeyError") as caught:
                await job
            assert (caught.value.billed, job.status) == ("unknown", "uncertain")
            assert buyer.jobs == ()


async def test_a_refused_status_call_of_a_generate_names_the_token() -> None:
    """Whoever never saw the job's handle can still get at what was paid for."""

    def refusing(seen: Seen) -> Act:
        return honest(seen) if seen.method == "POST" else Act(write=answer(401))

    with anyio.fail_after(30):
        async with rogue(refusing) as server, MiragicClient(KEY, base_url=server.url, scheduler=quick()) as client:
            with pytest.raises(APIError) as caught:
                await client.generate(PROMPT)
            (job,) = client.jobs or (None,)
            assert caught.value.billed == "yes"
            (note,) = caught.value.__notes__
            assert '"id":"job-1"' in note
            assert job is None or job.token() in note
