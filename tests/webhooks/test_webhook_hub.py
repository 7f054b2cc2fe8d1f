"""A hub with a receiver and a sandbox that delivers: what is sent, what comes back, and what it saves."""

from __future__ import annotations

import asyncio
import io
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import aiohttp
import anyio
import pytest
from PIL import Image
from webhook_bench import SECRET
from webhook_hosts import free_port

from mirage_async import Mirage, MirakoClient
from mirage_async.exceptions import ConfigurationError, InputError, SubmissionUncertainError
from mirage_async.sandbox import Sandbox
from mirage_async.scheduler import FixedInterval, Scheduler
from mirage_async.webhooks import WebhookReceiver, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

pytestmark = pytest.mark.anyio

T = TypeVar("T")


@asynccontextmanager
async def wired(
    durations: Any = 0.2, *, interval: float = 60.0
) -> AsyncIterator[tuple[Mirage, Sandbox, WebhookReceiver]]:
    """Wire a hub, a receiver that listens, and a sandbox, with status calls of the scheduler's own far apart."""
    port = free_port()
    receiver = WebhookReceiver(public_url=f"http://127.0.0.1:{port}/hooks", secret=SECRET)
    scheduler = Scheduler(policy=FixedInterval(interval))
    async with (
        Sandbox(durations=durations, webhook_interval=0.1) as sandbox,
        serving(receiver, port=port),
        Mirage(base_urls=sandbox.base_urls, webhooks=receiver, scheduler=scheduler) as mirage,
    ):
        yield mirage, sandbox, receiver


def sent(sandbox: Sandbox, operation: str) -> list[Mapping[str, Any]]:
    """Return the fields of the requests for an operation."""
    return [request.fields for request in sandbox.find_requests(operation=operation)]


async def soon(work: Awaitable[T]) -> T:
    """Await something that must not take long."""
    with anyio.fail_after(30):
        return await work


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that must not take long."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0.01)


async def test_a_job_is_submitted_with_an_address_of_its_own_and_a_token() -> None:
    """As Mirako's API description has it, and filled in by nobody but us."""
    async with wired() as (mirage, sandbox, receiver):
        jobs = [await mirage.mirako.submit("a fox") for _ in range(2)]
        await soon(asyncio.gather(*(job.result() for job in jobs)))
        webhooks = [fields["webhook"] for fields in sent(sandbox, "mirako.create")]
        for job, webhook in zip(jobs, webhooks, strict=True):
            assert webhook.keys() == {"url", "auth_token"}
            claim = receiver._tokens.read("mirako", webhook["url"].rpartition("/")[2])
            assert claim is not None
            assert (claim.key, claim.bearer) == (job.key, webhook["auth_token"].encode())
        assert [job.polls for job in jobs] == [1, 1]


async def test_a_portable_request_and_a_generation_with_a_wait_are_announced_as_well() -> None:
    """Every way to Mirako's job endpoint gives an address."""
    async with wired() as (mirage, sandbox, _):
        await soon(await mirage.submit("a fox", provider="mirako"))
        generation = await soon(mirage.generate("a fox", provider="mirako", max_wait=30))
        assert generation.polls == 1
        assert all("webhook" in fields for fields in sent(sandbox, "mirako.create"))


async def test_the_blocking_endpoint_avatars_and_other_providers_get_no_address() -> None:
    """Nothing is sent that nobody documents."""
    portrait = io.BytesIO()
    Image.new("RGB", (512, 512), "teal").save(portrait, "PNG")
    async with wired(0.05, interval=0.05) as (mirage, sandbox, receiver):
        await soon(mirage.mirako.generate("a fox"))
        await soon(await mirage.mirako.build_avatar("Ada", portrait.getvalue()))
        await soon(mirage.miragic.generate("a fox"))
        await soon(mirage.mira.generate("a fox"))
        await soon(mirage.milady.generate("a fox"))
        everything = " ".join(request.body.decode("latin-1") for request in sandbox.requests)
        assert "hooks" not in everything
        assert receiver.statistics().replies == {}


async def test_a_callers_own_webhook_stays_the_callers() -> None:
    """Then the receiver is not involved, and the scheduler asks as ever."""
    async with wired(interval=0.05) as (mirage, sandbox, receiver):
        job = await mirage.mirako.submit("a fox", webhook=("http://127.0.0.1:9/theirs", "their-token"))
        await soon(job)
        assert sent(sandbox, "mirako.create")[0]["webhook"] == {
            "url": "http://127.0.0.1:9/theirs",
            "auth_token": "their-token",
        }
        assert (receiver.statistics().expected, receiver.statistics().replies) == (0, {})


@pytest.mark.parametrize("webhook", [(), "", False, 0])
async def test_a_webhook_that_is_none_is_refused_and_not_left_out(webhook: Any) -> None:
    """Only None asks for one of ours; nothing that was given is dropped in silence."""
    async with wired() as (mirage, sandbox, _):
        with pytest.raises(InputError, match="webhook must be a pair of an address and a token or None"):
            await mirage.mirako.submit("a fox", webhook=webhook)
        assert sandbox.requests == []


@pytest.mark.parametrize("receiver", ["https://app.example/hooks", WebhookReceiver, {}])
def test_a_hub_takes_a_receiver_and_nothing_else(receiver: Any) -> None:
    """An address in its place is the mistake to expect."""
    with pytest.raises(InputError, match="webhooks must be a WebhookReceiver or None; got"):
        Mirage(webhooks=receiver)


async def test_a_client_alone_sends_no_address() -> None:
    """Only a hub has a receiver."""
    async with Sandbox(durations=0.05) as sandbox, MirakoClient(base_url=sandbox.base_urls["mirako"]) as mirako:
        await mirako.submit("a fox")
        assert "webhook" not in sent(sandbox, "mirako.create")[0]


@pytest.mark.parametrize(
    ("fault", "polls"),
    [("early", 1), ("duplicate", 1), ("late:0.3", 1), ("failed", 1), ("backwards", 1)],
)
async def test_whatever_the_sandbox_does_with_a_delivery_one_status_call_is_enough(fault: str, polls: int) -> None:
    """Before the reply, twice, late, or about a failure."""
    async with wired() as (mirage, _, _receiver):
        job = await mirage.mirako.submit(f"a fox [[fault:{fault}]]")
        ended = (await soon(asyncio.gather(job.result(), return_exceptions=True)))[0]
        assert isinstance(ended, Exception) == (fault == "failed")
        assert job.polls == polls


async def test_deliveries_that_overtake_each_other_each_wake_their_own_job() -> None:
    """The order of the news is nothing to go by."""
    async with wired() as (mirage, sandbox, _):
        sandbox.fail("mirako.webhook", "reordered", times=3)
        jobs = [await mirage.mirako.submit(f"fox {number}") for number in range(6)]
        generations = await soon(asyncio.gather(*(job.result() for job in jobs)))
        assert [generation.job_id for generation in generations] == [job.id for job in jobs]
        assert [job.polls for job in jobs] == [1] * 6


@pytest.mark.parametrize("fault", ["undelivered", "wrong-token"])
async def test_a_job_whose_delivery_never_comes_is_found_by_the_safety_poll(fault: str) -> None:
    """A delivery with a token nobody gave out is refused, and worth as much as none."""
    async with wired(interval=0.3) as (mirage, _, receiver):
        for number in range(3):
            await soon(await mirage.mirako.submit(f"fox {number}"))
        job = await mirage.mirako.submit(f"a fox [[fault:{fault}]]")
        await soon(job)
        assert job.polls >= 1
        if fault == "wrong-token":
            await until(lambda: 401 in receiver.statistics().replies)
        assert (401 in receiver.statistics().replies) == (fault == "wrong-token")
        assert receiver.expected.reliability_of("mirako") != 1.0


async def test_a_purchase_whose_caller_was_cancelled_is_announced_and_ends() -> None:
    """It goes on in the background, and its result is there for whoever asks."""
    async with wired() as (mirage, sandbox, _):
        sandbox.fail("mirako.create", "dribble:0.2")
        task = asyncio.create_task(mirage.mirako.submit("a fox"))
        await until(lambda: bool(sandbox.requests))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        (job,) = mirage.mirako.jobs
        generation = await soon(job.result())
        assert generation.polls == 1


async def test_a_lost_answer_is_uncertain_and_the_announcement_is_kept() -> None:
    """Nobody can say what was bought; the news, which carries our key and Mirako's id, waits for whoever reconciles."""
    async with wired() as (mirage, sandbox, receiver):
        with pytest.raises(SubmissionUncertainError) as lost:
            await mirage.mirako.submit("a fox [[fault:lost]]")
        await until(lambda: receiver.statistics().parked > 0)
        (job_id,) = sandbox.jobs
        hint = receiver.expected.inbox.take("mirako", lost.value.key or "", asyncio.get_running_loop().time())
        assert hint is not None
        assert hint.job_id == job_id


async def test_after_a_restart_the_webhook_finds_the_job_that_was_attached_by_token() -> None:
    """Another receiver with the same secret, another hub, the address that was given out before."""
    port = free_port()
    receivers = [WebhookReceiver(public_url=f"http://127.0.0.1:{port}", secret=SECRET) for _ in range(2)]
    async with Sandbox(progress="manual") as sandbox:
        async with Mirage(base_urls=sandbox.base_urls, webhooks=receivers[0]) as before:
            token = (await before.mirako.submit("a fox")).token()
        slow = Scheduler(policy=FixedInterval(60))
        async with (
            serving(receivers[1], port=port),
            Mirage(base_urls=sandbox.base_urls, webhooks=receivers[1], scheduler=slow) as after,
        ):
            job = after.job(token)
            await until(lambda: job.polls > 0 and not after.statistics().scheduler.polls_in_flight)
            sandbox.finish_job(job.id or "")
            generation = await soon(job.result())
    assert generation.polls == 2
    assert receivers[1].statistics().hints_woken == 1


async def test_a_bare_id_is_attached_without_an_address() -> None:
    """Nobody knows under which key it was announced."""
    async with wired(interval=0.3) as (mirage, _, receiver):
        job = await mirage.mirako.submit("a fox")
        twin = mirage.mirako.job(job.id or "")
        await soon(asyncio.gather(job.result(), twin.result()))
        assert receiver.statistics().expected == 1


async def test_nothing_that_identifies_a_token_reaches_a_log(caplog: pytest.LogCaptureFixture) -> None:
    """Of all that the library logs at its lowest level, over a whole story with refusals."""
    caplog.set_level(logging.DEBUG, "mirage_async")
    async with wired(interval=0.2) as (mirage, sandbox, _):
        await soon(await mirage.mirako.submit("a fox"))
        await soon(await mirage.mirako.submit("a fox [[fault:wrong-token]]"))
        webhooks = [fields["webhook"] for fields in sent(sandbox, "mirako.create")]
    ours = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("mirage_async"))
    for webhook in webhooks:
        assert webhook["url"].rpartition("/")[2][:10] not in ours
        assert webhook["auth_token"][:10] not in ours


async def test_miragic_is_given_an_address_under_the_name_an_account_supports() -> None:
    """In either encoding of its form, and by a portable request as well; a delivery there wakes the job."""
    async with wired(0.3) as (mirage, sandbox, receiver):
        jobs = [
            await mirage.miragic.submit("a fox", callback_parameter="webhookUrl"),
            await mirage.miragic.with_options(multipart=False).submit("a fox", callback_parameter="webhookUrl"),
            await mirage.submit("a fox", provider="miragic", options={"callback_parameter": "webhookUrl"}),
        ]
        drawing = asyncio.create_task(mirage.miragic.generate("a fox", callback_parameter="webhookUrl"))
        await until(lambda: len(sent(sandbox, "miragic.create")) == 4)
        urls = [fields["webhookUrl"] for fields in sent(sandbox, "miragic.create")]
        await until(lambda: all(job.status == "COMPLETED" for job in sandbox.jobs.values()))
        async with aiohttp.ClientSession() as session:
            for url in urls:
                async with session.post(url, data=b"") as answer:
                    assert answer.status == 204
        generations = await soon(asyncio.gather(*(job.result() for job in jobs), drawing))
        assert [generation.polls for generation in generations] == [1, 1, 1, 1]
        assert receiver.statistics().hints_woken == 4


async def test_a_blocking_provider_can_be_given_one_too_and_answers_with_the_pictures_all_the_same() -> None:
    """A delivery about it is taken, and there is nothing to do."""
    async with wired(0.3) as (mirage, sandbox, receiver):
        jobs = [
            await mirage.mira.submit("a fox", callback_parameter="callback"),
            await mirage.milady.submit("a fox", callback_parameter="callback"),
        ]
        await until(lambda: len(sandbox.requests) == 2)
        urls = [request.fields["callback"] for request in sandbox.requests]
        async with aiohttp.ClientSession() as session:
            for url in urls:
                async with session.post(url, data=b"") as answer:
                    assert answer.status == 204
            await soon(asyncio.gather(*(job.result() for job in jobs)))
            async with session.post(urls[0], data=b"") as answer:
                assert answer.status == 204
        statistics = receiver.statistics()
        assert (statistics.hints_early, statistics.hints_late) == (2, 1)


async def test_an_address_needs_somebody_who_listens() -> None:
    """Without a receiver nothing is bought."""
    async with Sandbox() as sandbox, Mirage(base_urls=sandbox.base_urls) as mirage:
        for submit in (mirage.miragic.submit, mirage.mira.submit, mirage.milady.submit):
            with pytest.raises(ConfigurationError, match="callback_parameter needs a hub with a receiver"):
                await submit("a fox", callback_parameter="callback")
        assert sandbox.requests == []


async def test_hundreds_of_jobs_are_resolved_with_one_status_call_each() -> None:
    """Under load, with the clients' own default schedule behind them."""
    port = free_port()
    receiver = WebhookReceiver(public_url=f"http://127.0.0.1:{port}", secret=SECRET)
    async with (
        Sandbox(durations=(0.5, 2.0)) as sandbox,
        serving(receiver, port=port),
        Mirage(base_urls=sandbox.base_urls, webhooks=receiver) as mirage,
    ):
        async with anyio.create_task_group() as group:
            for _ in range(150):
                group.start_soon(_buy, mirage)
        scheduler = mirage.statistics().scheduler
    assert scheduler.jobs_concluded == 150
    assert scheduler.polls_sent <= 165


async def _buy(mirage: Mirage) -> None:
    await (await mirage.mirako.submit("a fox"))
