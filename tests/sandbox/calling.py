"""A client, a clock and sample pictures for the sandbox's tests."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from PIL import Image

from mirage_async.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from mirage_async.sandbox import VirtualClock

BEARER = {"Authorization": "Bearer sk-test"}
PATIENCE = aiohttp.ClientTimeout(total=30.0)
API_KEY = {"X-API-Key": "sk-test"}


@dataclass
class Reply:
    """A whole answer."""

    status: int
    headers: Any
    body: bytes
    json: Any


@dataclass
class Caller:
    """A sandbox, and a plain HTTP client for it."""

    sandbox: Sandbox
    http: aiohttp.ClientSession
    clock: VirtualClock
    began: float

    @property
    def elapsed(self) -> float:
        """Return the seconds the sandbox's clock has moved."""
        return round(self.clock.monotonic() - self.began, 6)

    async def get(self, path: str, headers: dict[str, str] | None = None, method: str = "GET") -> Reply:
        """Send a request without a body to a path or a whole URL."""
        return await self._send(method, path, headers=headers or {})

    async def post(
        self, path: str, fields: Any = None, headers: dict[str, str] | None = None, data: Any = None
    ) -> Reply:
        """Send JSON fields, or other data, with a bearer key unless told otherwise."""
        headers = BEARER if headers is None else headers
        if data is not None:
            return await self._send("POST", path, headers=headers, data=data)
        # A stream, because the client warns of large bodies given as bytes.
        body = io.BytesIO(json.dumps(fields).encode())
        return await self._send("POST", path, headers={"Content-Type": "application/json", **headers}, data=body)

    async def _send(self, method: str, path: str, **options: Any) -> Reply:
        url = path if path.startswith("http") else self.sandbox.url + path
        async with self.http.request(method, url, **options) as response:
            body = await response.read()
            is_json = response.content_type.endswith("json") and body
            decoded = await response.json(content_type=None) if is_json else None
            return Reply(response.status, response.headers, body, decoded)


@asynccontextmanager
async def calling(*, time: str = "frozen", **options: Any) -> AsyncIterator[Caller]:
    """Start a sandbox, with jobs of eight seconds and blocking calls of none, and a client for it.

    Its clock is "frozen", "jumping" to whatever somebody waits for, or "running".
    """
    durations = {"mirako": 8.0, "miragic": 8.0, "mira": 0.0, "milady": 0.0}
    sandbox = Sandbox(**{"durations": durations, **options})
    async with sandbox, aiohttp.ClientSession(timeout=PATIENCE) as http:
        if time == "frozen":
            sandbox.clock.freeze(at=1_700_001_000.0)
        elif time == "jumping":
            sandbox.clock.auto_advance(after=0.002)
        yield Caller(sandbox, http, sandbox.clock, sandbox.clock.monotonic())


def encoded(size: tuple[int, int] = (512, 512), colour: str = "red", kind: str = "PNG") -> bytes:
    """Return a plain picture's bytes."""
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, kind)
    return buffer.getvalue()


def plain_base64(data: bytes) -> str:
    """Return base64 text."""
    return base64.b64encode(data).decode()


def data_url(data: bytes, mime_type: str = "image/png") -> str:
    """Return a data URL."""
    return f"data:{mime_type};base64,{plain_base64(data)}"


def opened(data: bytes) -> Image.Image:
    """Return the decoded picture."""
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def average(data: bytes) -> tuple[int, int, int]:
    """Return a picture's average colour."""
    pixel = opened(data).convert("RGB").resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))
    assert isinstance(pixel, tuple)
    return int(pixel[0]), int(pixel[1]), int(pixel[2])


async def left_behind(request: Coroutine[Any, Any, object], seen: Callable[[], object]) -> None:
    """Send a request, and leave once the sandbox has got so far with it."""
    sending = asyncio.create_task(request)
    await until(seen)
    sending.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        pytest.fail(f"it was answered: {await sending!r}")


async def until(condition: Callable[[], object]) -> None:
    """Let the loop run until `condition()` holds; `TimeoutError` after half a minute."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - conditions are about state that raises no events
            await asyncio.sleep(0.001)
