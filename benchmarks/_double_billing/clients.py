"""Everybody who buys, opened against one address with everything else as it comes.

fal-client has no setting for its address but the host of an https URL, so the constant that holds it is replaced; it
is one for all, so what tells its purchases apart stands in front of the application's name.
"""

from __future__ import annotations

import asyncio
import base64
import importlib
import inspect
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from benchmarks._bare.dialects import PICTURE
from benchmarks._bare.sides import KEY, PROMPT
from mirage_async import MiladyClient, MiraClient, MiragicClient, MirakoClient

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
    from contextlib import AbstractAsyncContextManager

    Buy: TypeAlias = Callable[[], Awaitable[object]]
    Opener: TypeAlias = Callable[[str, float | None], AbstractAsyncContextManager[Buy]]

__all__ = ["OURS", "Client", "peers"]


@dataclass(frozen=True)
class Client:
    """Somebody who buys.

    Attributes:
        opened: opens it for an address, and for seconds to wait for an answer or None; then each call is a purchase.
        success: the answer to a purchase.
    """

    opened: Opener
    success: bytes


def _json(value: object) -> bytes:
    body = json.dumps(value).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def _ours(kind: Callable[..., Any], buy: Callable[[Any], Awaitable[object]]) -> Opener:
    @asynccontextmanager
    async def opened(base_url: str, timeout: float | None) -> AsyncGenerator[Buy]:
        async with kind(KEY, base_url=base_url, timeout=timeout) as client:
            yield lambda: buy(client)

    return opened


_ENCODED = base64.b64encode(PICTURE).decode()
_IMAGES = _json({"created": 1700000000, "data": [{"b64_json": _ENCODED}]})
_MIRAKO = _json({"data": {"task_id": "task-1", "status": "IN_QUEUE", "image": None}})

OURS: Mapping[str, Client] = {
    "Mirako, job": Client(_ours(MirakoClient, lambda client: client.submit(PROMPT)), _MIRAKO),
    "Mirako": Client(_ours(MirakoClient, lambda client: client.generate(PROMPT)), _json({"data": {"image": _ENCODED}})),
    "Miragic": Client(
        _ours(MiragicClient, lambda client: client.submit(PROMPT)),
        _json({"success": True, "data": {"jobId": "job-1", "status": "PENDING"}}),
    ),
    "Mira": Client(_ours(MiraClient, lambda client: client.generate(PROMPT)), _IMAGES),
    "Milady": Client(
        _ours(MiladyClient, lambda client: client.generate(PROMPT)), _json({"images": [{"image": _ENCODED}]})
    ),
}
"""The ways of this library to spend money on a picture."""


Called: TypeAlias = "tuple[Any, Callable[[], Any]]"  # what has to be closed, and one purchase


def _openai(base_url: str, options: dict[str, float], *, blocking: bool) -> Called:
    openai = importlib.import_module("openai")
    kind = openai.OpenAI if blocking else openai.AsyncOpenAI
    client = kind(api_key=KEY, base_url=f"{base_url}/v1", **options)
    images = client.images  # loaded on first use, which is no matter for many threads at once
    return client, lambda: images.generate(model="gpt-image-1", prompt=PROMPT)


def _fal(base_url: str, options: dict[str, float], *, blocking: bool) -> Called:
    fal = importlib.import_module("fal_client")
    inside = importlib.import_module("fal_client.client")
    origin, _, script = base_url.rpartition("/")
    inside.QUEUE_URL_FORMAT = f"{origin}/"  # type: ignore[attr-defined]  # see above
    waits = {"default_timeout": options["timeout"]} if options else {}
    client = (fal.SyncClient if blocking else fal.AsyncClient)(key=KEY, **waits)
    return client._client, lambda: client.submit(f"{script}/fal-ai/any", {"prompt": PROMPT})  # noqa: SLF001 - to close


def _replicate(base_url: str, options: dict[str, float], *, blocking: bool) -> Called:
    client = importlib.import_module("replicate").Client(api_token=KEY, base_url=base_url)
    predictions = client.models.predictions
    create = predictions.create if blocking else predictions.async_create
    # Its client's timeout is not that of this request, which has none unless it is told how long the server may wait.
    waits = {"wait": int(options["timeout"])} if options else {}
    inside = client._client if blocking else client._async_client  # noqa: SLF001 - it has no other way to be closed
    return inside, lambda: create(model="owner/name", input={"prompt": PROMPT}, **waits)


def _runwayml(base_url: str, options: dict[str, float], *, blocking: bool) -> Called:
    runwayml = importlib.import_module("runwayml")
    client = (runwayml.RunwayML if blocking else runwayml.AsyncRunwayML)(api_key=KEY, base_url=base_url, **options)
    arguments = {"model": "gen4_image", "prompt_text": PROMPT, "ratio": "1920:1080"}
    return client, lambda: client.text_to_image.create(**arguments)


def _peer(called: Callable[..., Called], *, blocking: bool) -> Opener:
    @asynccontextmanager
    async def opened(base_url: str, timeout: float | None) -> AsyncGenerator[Buy]:
        client, call = called(base_url, {} if timeout is None else {"timeout": timeout}, blocking=blocking)
        client = await client if inspect.isawaitable(client) else client
        try:
            yield (lambda: asyncio.to_thread(call)) if blocking else call
        finally:
            closed = (client.aclose if hasattr(client, "aclose") else client.close)()
            if inspect.isawaitable(closed):
                await closed

    return opened


def peers(*, blocking: bool) -> dict[str, Client]:
    """Return the libraries to compare with, with their asynchronous or with their blocking clients."""
    queue = "https://127.0.0.1/requests/job-1"
    links = {"response_url": queue, "status_url": f"{queue}/status", "cancel_url": f"{queue}/cancel"}
    prediction = {
        "id": "job-1",
        "model": "owner/name",
        "version": "v1",
        "status": "starting",
        "input": {"prompt": PROMPT},
        "output": None,
        "logs": "",
        "error": None,
        "created_at": "2025-01-01T00:00:00Z",
        "urls": {"get": queue, "cancel": f"{queue}/cancel"},
    }
    return {
        "openai": Client(_peer(_openai, blocking=blocking), _IMAGES),
        "fal-client": Client(_peer(_fal, blocking=blocking), _json({"request_id": "job-1", **links})),
        "replicate": Client(_peer(_replicate, blocking=blocking), _json(prediction)),
        "runwayml": Client(_peer(_runwayml, blocking=blocking), _json({"id": "job-1"})),
    }
