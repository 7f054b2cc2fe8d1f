"""What a type checker must conclude about the public API. Read by mypy and pyright, never run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, assert_type

import mirage_async
from mirage_async import (
    Avatar,
    Budget,
    GeneratedImage,
    Generation,
    ImageRequest,
    Job,
    JobStatus,
    JobUpdate,
    Limits,
    MiladyClient,
    MiraClient,
    Mirage,
    MiragicClient,
    MirakoClient,
    Outcome,
    Reference,
    exceptions,
)
from mirage_async.batch import Batch, BatchStatistics
from mirage_async.hub import MirageStatistics
from mirage_async.models import Timings, Tried
from mirage_async.sandbox import Fault, JobView, Sandbox, SeenRequest
from mirage_async.sandbox import Statistics as SandboxStatistics
from mirage_async.scheduler import BackoffInterval, FixedInterval, IntervalPolicy, Scheduler, SchedulerStatistics
from mirage_async.scheduler import JobView as PolicyView
from mirage_async.testing import FakeClock, sandboxed
from mirage_async.webhooks import (
    Hint,
    ReceiverStatistics,
    StandardWebhooks,
    WebhookReceiver,
    WebhookReply,
    serving,
)

if TYPE_CHECKING:
    from aiohttp import web
    from PIL.Image import Image as PILImage

assert_type(mirage_async.__version__, str)


async def mirako() -> None:
    """Mirako: pictures at once or as jobs, avatars as jobs."""
    async with MirakoClient("key", base_url="http://127.0.0.1:1", timeout=5.0, limits=Limits(jobs=2)) as client:
        assert_type(client, MirakoClient)
        reference = Reference(b"", label="chair")
        generation = await client.generate("a fox", aspect_ratio="1:1", seed=1, images=[b"", Path("a.png"), reference])
        assert_type(generation, Generation)
        job = await client.submit("a fox", webhook=("https://app.example", None), max_wait=60)
        assert_type(job, Job[Generation])
        assert_type(await job, Generation)
        build = await client.build_avatar("Nova", Path("nova.png"))
        assert_type(build, Job[Avatar])
        assert_type(await build, Avatar)
        assert_type(await build.result(max_wait=5), Avatar)
        assert_type(await client.get_avatar("id"), Avatar)
        assert_type(await client.list_avatars(), tuple[Avatar, ...])
        assert_type(client.with_options(resend_uncertain=True), MirakoClient)
        assert_type(client.job("id", kind="avatar"), Job[Any])
        assert_type(client.jobs, tuple[Job[Any], ...])


async def miragic() -> None:
    """Miragic: every picture is a job."""
    async with MiragicClient(multipart=False) as client:
        assert_type(client, MiragicClient)
        assert_type(await client.generate("a fox", model="turbo", width=512, height=512), Generation)
        job = await client.submit("a fox", model="kontext", image_url="https://a.example/b.png", max_wait=60)
        assert_type(job, Job[Generation])
        assert_type(await job, Generation)


async def mira() -> None:
    """Mira: one blocking request, as a result or as a job in the background."""
    async with MiraClient(path="/v1/images/generations") as client:
        assert_type(client, MiraClient)
        assert_type(await client.generate("a fox", size="auto", n=2, quality="low", reference_images=[b""]), Generation)
        assert_type(await client.submit("a fox"), Job[Generation])


async def milady() -> None:
    """Milady: as Mira, in words of its own."""
    async with MiladyClient() as client:
        assert_type(client, MiladyClient)
        generation = await client.generate("a fox", num_images=2, style_preset="origami", source_image=b"")
        assert_type(generation, Generation)
        assert_type(await client.submit("a fox", model="m", aspect_ratio="1:1"), Job[Generation])


async def hub() -> None:
    """Cover the hub: typed clients, portable requests."""
    scheduler = Scheduler(policy=FixedInterval(1.0))
    async with Mirage({"mira": "key"}, limits={"mira": Limits()}, scheduler=scheduler) as mirage:
        assert_type(mirage, Mirage)
        assert_type(mirage.mirako, MirakoClient)
        assert_type(mirage.miragic, MiragicClient)
        assert_type(mirage.mira, MiraClient)
        assert_type(mirage.milady, MiladyClient)
        assert_type(await mirage.generate("a fox", provider="mira", n=2, options={"quality": "low"}), Generation)
        assert_type(await mirage.submit("a fox", provider="miragic"), Job[Generation])
        request = ImageRequest(prompt="a fox", provider="miragic")
        assert_type(await mirage.submit(request), Job[Generation])
        assert_type(await mirage.generate("a fox", providers=["mira", "milady"]), Generation)
        assert_type(await mirage.submit("a fox", providers=("mira", "milady")), Job[Generation])
        assert_type(mirage.job("token", max_wait=5), Job[Any])
        assert_type(mirage.statistics(), MirageStatistics)
        assert_type(mirage.statistics().unfinished_jobs, Mapping[str, int])
        assert_type(mirage.statistics().scheduler, SchedulerStatistics)
        await mirage.aclose()


async def prompts() -> AsyncIterator[str]:
    """Give prompts to a batch, asynchronously."""
    yield "a fox"


async def batches(mirage: Mirage) -> None:
    """Cover batches: every kind of input, and what comes of it."""
    requests: list[ImageRequest | str] = [ImageRequest(prompt="a fox", providers=("mira", "milady")), "a cat"]
    budget = Budget(purchases=10, pictures=20, credits=5.5, price={"mira": 0.02})
    async with mirage.batch(requests, limit=2, budget=budget, ordered=True, split=True) as batch:
        assert_type(batch, Batch)
        async for outcome in batch:
            assert_type(outcome, Outcome)
            assert_type(outcome.index, int)
            assert_type((outcome.part, outcome.parts), tuple[int, int])
            assert_type(outcome.billed, exceptions.Billed)
            batch.stop()
        assert_type(batch.statistics(), BatchStatistics)
        assert_type(await anext(batch), Outcome)
        await batch.aclose()
    assert_type([each async for each in mirage.batch(prompts(), provider="mira")], list[Outcome])
    assert_type([each async for each in mirage.batch(("a fox" for _ in range(3)), providers=["mira"])], list[Outcome])


async def job_handle(job: Job[Generation]) -> None:
    """Cover the handle of a job."""
    assert_type(job.key, str)
    assert_type(job.id, str | None)
    assert_type(job.provider, str)
    assert_type(job.status, JobStatus)
    assert_type(job.status.terminal, bool)
    assert_type(job.progress, float | None)
    assert_type(job.polls, int)
    assert_type(job.done, bool)
    assert_type(job.token(), str)
    assert_type(job.updates(), AsyncIterator[JobUpdate])
    async for update in job.updates():
        assert_type(update.status, JobStatus)
        assert_type(update.progress, float | None)
        assert_type(update.elapsed, float)
        assert_type(update.polls, int)


async def values(generation: Generation, avatar: Avatar, outcome: Outcome) -> None:
    """Cover what was bought."""
    assert_type(generation.images, tuple[GeneratedImage, ...])
    assert_type(generation.image, GeneratedImage)
    assert_type(generation.provider, str)
    assert_type(generation.model, str | None)
    assert_type(generation.job_id, str | None)
    assert_type(generation.requested, int)
    assert_type(generation.credits, float | None)
    assert_type(generation.timings, Timings)
    assert_type(generation.timings.detected, float | None)
    assert_type(generation.polls, int)
    assert_type(generation.raw, Mapping[str, Any])
    assert_type(generation.tried, tuple[Tried, ...])
    assert_type(generation.tried[0].error, exceptions.MirageError | None)
    image = generation.image
    assert_type(await image.read(), bytes)
    assert_type(await image.save("picture", overwrite=True), Path)
    assert_type(image.url, str | None)
    assert_type(image.mime_type, str | None)
    assert_type(image.width, int | None)
    assert_type(image.height, int | None)
    assert_type(image.revised_prompt, str | None)
    assert_type(image.text, str | None)
    assert_type(image.data, bytes | None)
    picture: PILImage = image.to_pil()
    picture.close()
    assert_type(avatar.id, str)
    assert_type(avatar.name, str)
    assert_type(avatar.status, str)
    assert_type(avatar.created_at, datetime | None)
    assert_type(avatar.themes, tuple[Mapping[str, Any], ...])
    assert_type(outcome.request, ImageRequest)
    assert_type(outcome.generation, Generation | None)
    assert_type(outcome.error, exceptions.MirageError | None)


def errors(error: exceptions.MirageError) -> None:
    """Cover what went wrong, by attribute."""
    assert_type(error.billed, exceptions.Billed)
    assert_type(error.provider, str | None)
    assert_type(error.tried, tuple[Tried, ...])
    if isinstance(error, exceptions.InsufficientCreditsError):
        assert_type(error.status, int)
        assert_type(error.code, str | None)
        assert_type(error.retry_after, float | None)
        assert_type(error.request_id, str | None)
        assert_type(error.body, str)
        assert_type(error.required, float | None)
    if isinstance(error, exceptions.SubmissionUncertainError):
        assert_type(error.key, str | None)
    if isinstance(error, exceptions.WaitTimeoutError):
        assert_type(error.token, str | None)
        assert_type(error.job_id, str | None)
    if isinstance(error, exceptions.DownloadError):
        assert_type(error.url, str | None)


class Eager:
    """A policy of a user's own needs no base class."""

    def next_interval(self, job: PolicyView) -> float:
        """Ask sooner where there is progress."""
        return 1.0 if job.progress else 5.0


def policies() -> tuple[IntervalPolicy, ...]:
    """Cover everything that may be a policy."""
    Scheduler(policy=Eager(), clock=FakeClock())
    return (Eager(), FixedInterval(2.0, jitter=0.0), BackoffInterval(first=0, interval=1.0, maximum=8.0))


async def webhooks() -> None:
    """Cover the receiver: giving addresses out, taking deliveries, being mounted."""
    receiver = WebhookReceiver(
        public_url="https://app.example/hooks",
        secret=["new", b"old"],
        signing_secrets={"mirako": "whsec_", "mira": ["whsec_", b""]},
        lifetime=3600,
        max_body_bytes=1000,
        clock=FakeClock(),
    )
    assert_type(receiver.callback_url("mirako", "key"), str)
    assert_type(receiver.callback("mirako", "key"), tuple[str, str])
    reply = receiver.handle("POST", "/hooks/mirako/token", {"Authorization": "Bearer x"}, b"")
    receiver.handle("POST", "/hooks/mirako/token", [(b"authorization", b"Bearer x")], bytearray())
    assert_type(reply, WebhookReply)
    assert_type(reply.status, int)
    assert_type(reply.headers, Mapping[str, str])
    assert_type(reply.hint, Hint | None)
    assert_type(receiver.statistics(), ReceiverStatistics)
    application: web.Application = receiver.aiohttp_app()
    application.freeze()
    receiver.asgi_app()
    assert_type(StandardWebhooks("whsec_").verify({}, b""), str)
    async with serving(receiver, host="127.0.0.1", port=0) as port, Mirage(webhooks=receiver) as mirage:
        assert_type(port, int)
        await mirage.miragic.submit("a fox", callback_parameter="webhook_url")


async def sandbox() -> None:
    """Cover the sandbox and the helpers for test suites."""
    async with Sandbox(port=0, seed=1, strict=True, durations={"mirako.avatar": (1.0, 2.0)}) as running:
        assert_type(running, Sandbox)
        running.fail("mirako.create", Fault(status=429, headers={"Retry-After": "1"}), Fault(reset=True, when="after"))
        assert_type(running.url, str)
        assert_type(running.base_urls, dict[str, str])
        assert_type(running.requests, list[SeenRequest])
        assert_type(running.jobs, Mapping[str, JobView])
        assert_type(running.statistics(), SandboxStatistics)
        assert_type(running.statistics().purchases, Mapping[str, int])
    async with sandboxed(durations=0.1, limits=Limits(polls=1)) as (mirage, running):
        assert_type(mirage, Mirage)
        assert_type(running, Sandbox)
    clock = FakeClock(start=5.0)
    assert_type(clock.monotonic(), float)
    await clock.advance(1.0)
