"""Pictures, time and servers for the tests of downloads."""

from __future__ import annotations

import asyncio
import contextlib
import io
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import anyio.lowlevel
from aiohttp import web
from PIL import Image

from mirage_async.wire import Piece

if TYPE_CHECKING:
    from mirage_async._clock import Timer
    from mirage_async.downloads import Downloader
    from mirage_async.models import GeneratedImage


def encoded(kind: str, size: tuple[int, int] = (40, 30)) -> bytes:
    """Return a picture full of noise."""
    buffer = io.BytesIO()
    Image.frombytes("RGB", size, random.Random(3).randbytes(size[0] * size[1] * 3)).save(buffer, kind)
    return buffer.getvalue()


PNG = encoded("PNG")
JPEG = encoded("JPEG")
LARGE = encoded("PNG", (1200, 1000))  # 3.6 MB: several batches

Answer: TypeAlias = "tuple[int, bytes] | tuple[int, bytes, dict[str, str]] | Handler"
Handler: TypeAlias = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class QuickClock:
    """Time that passes only in `sleep`, which returns at once and is remembered."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        """Return the fake moment."""
        return self.now

    def time(self) -> float:
        """Return the fake moment."""
        return self.now

    def call_at(self, when: float, callback: Callable[[], object]) -> Timer:
        """Nothing here needs a timer."""
        raise NotImplementedError

    async def sleep(self, seconds: float) -> None:
        """Let the fake time pass."""
        self.slept.append(seconds)
        self.now += seconds
        await anyio.lowlevel.checkpoint()


class Server:
    """Answers one request after the other with what it was given; the last answer stays."""

    def __init__(self, *answers: Answer) -> None:
        self._answers = list(answers)
        self.requests: list[web.BaseRequest] = []
        self.url = ""

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Give the next answer."""
        self.requests.append(request)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, tuple):
            return web.Response(status=answer[0], body=answer[1], headers=answer[2] if len(answer) > 2 else None)
        return await answer(request)


@contextlib.asynccontextmanager
async def serving(*answers: Answer) -> AsyncIterator[Server]:
    """Run a server on a free port."""
    server = Server(*answers)
    runner = web.ServerRunner(web.Server(server.handle))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}/x.png?sig=secret"
    try:
        yield server
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def serving_raw(payload: bytes) -> AsyncIterator[str]:
    """Run a server that writes these bytes to whoever connects, and hangs up."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(payload)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/x.png"


class Gate:
    """An answer that sends half of a picture, then waits to be opened."""

    def __init__(self, data: bytes = PNG) -> None:
        self._data = data
        self.entered = asyncio.Event()
        self.opened = asyncio.Event()
        self.left = asyncio.Event()
        self.inside = self.most = 0

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        response = web.StreamResponse()
        response.content_length = len(self._data)
        await response.prepare(request)
        half = len(self._data) // 2
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            await response.write(self._data[:half])
            self.entered.set()
            await self.opened.wait()
            with contextlib.suppress(ConnectionError):
                await response.write(self._data[half:])
        finally:
            self.inside -= 1
            self.left.set()
        return response


def linked(downloader: Downloader, url: str, **options: Any) -> GeneratedImage:
    """Return a picture behind a link of a provider on this machine."""
    file_size = options.pop("file_size", None)
    mime_type = options.pop("mime_type", None)
    settings: dict[str, Any] = {
        "name": "milady-1",
        "provider": "milady",
        "allow_private": True,
        "renew": None,
    } | options
    return downloader.image(Piece(url=url, file_size=file_size, mime_type=mime_type), **settings)
