"""The six requests that cost money, and the samples they are made with."""

from __future__ import annotations

import base64
import contextlib
import functools
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from impatient import ImpatientClock
from PIL import Image
from rogues import Act, Seen, answer, json_answer

from mirage_async import MiladyClient, MiraClient, MiragicClient, MirakoClient
from mirage_async.scheduler import FixedInterval, Scheduler

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from mirage_async._clock import Clock
    from mirage_async.clients import ProviderClient

__all__ = ["KEY", "PROMPT", "PURCHASES", "Purchase", "buying", "honest", "picture", "portrait", "quick"]

KEY = "sk-test-0123456789"
PROMPT = "a lighthouse"


@functools.cache
def picture(kind: str = "PNG", size: tuple[int, int] = (64, 64)) -> bytes:
    """Return a plain picture's bytes."""
    buffer = io.BytesIO()
    Image.new("RGB", size, "teal").save(buffer, kind)
    return buffer.getvalue()


def portrait() -> bytes:
    """Return a picture an avatar can be built from."""
    return picture("PNG", (512, 512))


@dataclass(frozen=True)
class Purchase:
    """One way to spend money.

    Attributes:
        name: for the test's id.
        client: the client's class.
        operation: the sandbox's name for the request.
        buy: spends the money.
        blocking: whether the answer is the picture itself.
    """

    name: str
    client: type[Any]
    operation: str
    buy: Callable[..., Awaitable[Any]]
    blocking: bool

    @property
    def provider(self) -> str:
        """The provider's name."""
        return self.operation.partition(".")[0]

    def __repr__(self) -> str:
        return self.name


def _generate(client: Any, *, prompt: str = PROMPT, **options: Any) -> Awaitable[Any]:
    result: Awaitable[Any] = client.generate(prompt, **options)
    return result


def _submit(client: Any, *, prompt: str = PROMPT, **options: Any) -> Awaitable[Any]:
    result: Awaitable[Any] = client.submit(prompt, **options)
    return result


def _build(client: Any, *, prompt: str = PROMPT, **options: Any) -> Awaitable[Any]:
    result: Awaitable[Any] = client.build_avatar(prompt, portrait(), **options)
    return result


PURCHASES = (
    Purchase("mirako.generate", MirakoClient, "mirako.generate", _generate, blocking=True),
    Purchase("mirako.submit", MirakoClient, "mirako.create", _submit, blocking=False),
    Purchase("mirako.build_avatar", MirakoClient, "mirako.avatar_create", _build, blocking=False),
    Purchase("miragic.submit", MiragicClient, "miragic.create", _submit, blocking=False),
    Purchase("mira.generate", MiraClient, "mira.generate", _generate, blocking=True),
    Purchase("milady.generate", MiladyClient, "milady.generate", _generate, blocking=True),
)


def quick(clock: Clock | None = None) -> Scheduler:
    """Return a scheduler that asks every few milliseconds and never waits between attempts."""
    return Scheduler(policy=FixedInterval(0.004), clock=clock or ImpatientClock())


@contextlib.asynccontextmanager
async def buying(purchase: Purchase, url: str, clock: Clock | None = None, **options: Any) -> AsyncIterator[Any]:
    """Open the client a purchase needs."""
    client: ProviderClient = purchase.client(KEY, base_url=url, scheduler=quick(clock), **options)
    async with client:
        yield client


def honest(seen: Seen) -> Act:
    """Answer any request of any provider as if everything had gone well."""
    encoded = base64.b64encode(picture("JPEG")).decode()
    if seen.path.endswith(".jpg"):
        return Act(write=answer(200, picture("JPEG"), {"Content-Type": "image/jpeg"}))
    data: dict[str, Any] = {"id": "job-1", "jobId": "job-1", "task_id": "job-1", "avatar_id": "job-1", "name": PROMPT}
    if seen.method == "GET":
        link = f"http://{seen.headers['host']}/picture.jpg"
        word = "READY" if "/avatar/" in seen.path else "COMPLETED"
        data |= {"status": word, "image": encoded, "processedImageUrl": link}
    if seen.path.endswith("/image/generate"):
        data["image"] = encoded
    if seen.path.endswith("/images/generate"):
        return Act(write=json_answer({"data": [{"b64_json": encoded}]}))
    return Act(write=json_answer({"success": True, "data": data, "images": [{"image": encoded}]}))
