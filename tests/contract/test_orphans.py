"""What was paid for on behalf of a caller who is gone is kept until somebody takes it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from impatient import until

from mirage_async import Job, Mirage
from mirage_async.exceptions import ConfigurationError, InputError, SubmissionUncertainError
from mirage_async.jobs import NullRecorder
from mirage_async.sandbox import Fault, Sandbox
from mirage_async.scheduler import FixedInterval, Scheduler
from mirage_async.testing import sandboxed

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from mirage_async.jobs import Intent

pytestmark = pytest.mark.anyio

WAITS: dict[str, Callable[[Mirage], Coroutine[Any, Any, Any]]] = {
    "miragic": lambda hub: hub.miragic.generate("a red boat at dusk"),
    "mirako": lambda hub: hub.generate("a red boat at dusk", provider="mirako", max_wait=30),
}


@pytest.mark.parametrize("scoped", [True, False])
@pytest.mark.parametrize("provider", WAITS)
async def test_a_caller_cancelled_before_the_request_leaves_buys_nothing(provider: str, *, scoped: bool) -> None:
    """The request is in other hands by then, which drop it; no job is left, and no place among the jobs in flight."""
    with anyio.fail_after(30):
        async with sandboxed(durations=0.1) as (hub, sandbox):
            if scoped:
                with anyio.CancelScope() as scope:
                    scope.cancel()
                    await WAITS[provider](hub)
            else:
                caller = asyncio.ensure_future(WAITS[provider](hub))
                await asyncio.sleep(0)
                assert len(hub._runtime.posts) == 1
                caller.cancel()
                await asyncio.wait([caller])
                assert caller.cancelled()
            assert hub.client(provider).jobs == ()
            assert hub._runtime.transport.paid_posts.borrowed_tokens == 0
            assert sandbox.statistics().requests == {}
            await WAITS[provider](hub)
            assert sandbox.statistics().purchases == {provider: 1}


@pytest.mark.parametrize("provider", WAITS)
async def test_a_job_whose_caller_was_cancelled_while_it_ran_keeps_its_result(provider: str) -> None:
    """The caller leaves while the job is being asked about; the result waits in `jobs` until somebody takes it."""
    with anyio.fail_after(30):
        async with sandboxed(durations=0.1) as (hub, sandbox):
            caller = asyncio.ensure_future(WAITS[provider](hub))
            client = hub.client(provider)
            await until(lambda: any(job.id is not None for job in client.jobs))
            caller.cancel()
            await asyncio.wait([caller])
            (job,) = client.jobs
            await until(lambda: job.done)
            assert job in client.jobs
            assert (await job).images
            assert not client.jobs
            assert sandbox.statistics().purchases == {provider: 1}


async def test_a_caller_cancelled_between_an_uncertain_attempt_and_its_re_send_leaves_a_trace(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The first attempt may have been bought, so the job stays and says so."""
    with anyio.fail_after(30):
        async with Sandbox(durations=0.0) as sandbox, Mirage(base_urls=sandbox.base_urls) as hub:
            sandbox.fail("mira.generate", Fault(reset=True, when="after"))
            caller = asyncio.ensure_future(hub.mira.generate("a red boat at dusk", resend_uncertain=True))
            await until(lambda: sandbox.statistics().purchases == {"mira": 1} and not hub._runtime.posts)
            caller.cancel()
            await asyncio.wait([caller])
            (job,) = hub.mira.jobs
            with pytest.raises(SubmissionUncertainError, match="may or may not have taken the job"):
                await job
            assert sandbox.statistics().purchases == {"mira": 1}
    assert "which may have been bought" in caplog.text


class SlowRecorder(NullRecorder):
    """A recorder that is slow to note that something may be sent from now on."""

    def __init__(self, *, quick: int = 0) -> None:
        self.quick = quick
        self.asked = 0
        self.ready = asyncio.Event()

    async def intended(self, job: Job[Any], intent: Intent) -> None:  # noqa: ARG002 - the port's signature
        """Allow every purchase, all but the first few after a while."""
        self.asked += 1
        if self.asked > self.quick:
            await self.ready.wait()


@pytest.mark.parametrize("provider", ["miragic", "mira"])
async def test_a_caller_cancelled_before_the_request_has_left_buys_nothing(provider: str) -> None:
    """What is still being recorded at that moment is not sent, and leaves no job behind."""
    with anyio.fail_after(30):
        async with Sandbox(durations=0.0) as sandbox, Mirage(base_urls=sandbox.base_urls) as hub:
            recorder = hub._runtime.recorder = SlowRecorder()
            caller = asyncio.ensure_future(hub.generate("a red boat at dusk", provider=provider))
            await until(lambda: recorder.asked)
            caller.cancel()
            await asyncio.wait([caller])
            recorder.ready.set()
            await until(lambda: not hub._runtime.posts)
            assert not hub.client(provider).jobs
            assert hub.statistics().paid_posts_in_flight == 0
            assert not sandbox.requests


async def test_a_re_send_that_is_called_off_in_time_leaves_the_first_attempt_uncertain() -> None:
    """Nothing is sent again, and the job does not claim that nothing was bought."""
    with anyio.fail_after(30):
        async with Sandbox(durations=0.0) as sandbox, Mirage(base_urls=sandbox.base_urls) as hub:
            recorder = hub._runtime.recorder = SlowRecorder(quick=1)
            sandbox.fail("mira.generate", Fault(reset=True, when="after"))
            caller = asyncio.ensure_future(hub.mira.generate("a red boat at dusk", resend_uncertain=True))
            await until(lambda: recorder.asked == 2)
            caller.cancel()
            await asyncio.wait([caller])
            recorder.ready.set()
            await until(lambda: not hub._runtime.posts)
            (job,) = hub.mira.jobs
            with pytest.raises(SubmissionUncertainError, match="may or may not have taken the job"):
                await job
            assert sandbox.statistics().purchases == {"mira": 1}


async def test_a_scheduler_serves_one_hub(anyio_backend: str) -> None:
    """Closing one hub would end the asking of the other, which went on buying."""
    scheduler = Scheduler(policy=FixedInterval(0.1))
    async with Mirage(scheduler=scheduler):
        with pytest.raises(ConfigurationError, match="a scheduler belongs to one hub or client"):
            Mirage(scheduler=scheduler)
    with pytest.raises(ConfigurationError, match="a scheduler belongs to one hub or client"):
        Mirage(scheduler=scheduler)  # it was closed along with the first


async def test_a_job_that_is_finished_when_announced_is_returned_before_its_picture_is_here() -> None:
    """`submit` returns with the acceptance, however long the picture behind the link takes."""
    with anyio.fail_after(30):
        async with sandboxed(durations=0.0) as (hub, sandbox):
            link = f"{sandbox.url}/uploads/slow.jpg"
            done = {"jobId": "job-1", "id": "job-1", "status": "COMPLETED", "processedImageUrl": link}
            sandbox.fail("miragic.create", Fault(status=200, body={"success": True, "data": done}))
            sandbox.fail("miragic.download", Fault(stall=float("inf")))
            job = await hub.miragic.submit("a red boat at dusk")
            assert job.id == "job-1"
            assert hub.statistics().paid_posts_in_flight == 0


@pytest.mark.parametrize("webhook", ["http://a.example/", 5, ("http://a.example/",), ["http://a.example/", None]])
async def test_a_webhook_is_a_pair(webhook: Any) -> None:
    """Anything else is refused before anything is sent."""
    async with sandboxed() as (hub, sandbox):
        with pytest.raises(InputError, match="webhook must be a pair of an address and a token or None; got a "):
            await hub.mirako.submit("a red boat", webhook=webhook)
        assert sandbox.requests == []
