"""Receivers of webhooks: one that answers, and two that do not."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable


@dataclass
class Receiver:
    """A receiver on a port of its own.

    Attributes:
        url: where it takes deliveries.
        answers: statuses it answers with before it is content with everything.
        heads: the headers that came.
        bodies: the bodies that came.
        paths: the paths that were asked for.
        before_answer: awaited with each body before it is answered.
    """

    url: str = ""
    answers: deque[int] = field(default_factory=deque[int])
    heads: list[Any] = field(default_factory=list[Any])
    bodies: list[bytes] = field(default_factory=list[bytes])
    paths: list[str] = field(default_factory=list[str])
    before_answer: Callable[[bytes], Awaitable[None]] | None = None

    @property
    def news(self) -> list[dict[str, Any]]:
        """Return what was said, decoded."""
        return [msgspec.json.decode(body) for body in self.bodies]

    @property
    def job_ids(self) -> list[str]:
        """Return which jobs it was about, in order of arrival."""
        return [news["id"] for news in self.news]

    async def take(self, request: web.Request) -> web.Response:
        """Take one delivery."""
        body = await request.read()
        self.heads.append(request.headers)
        self.paths.append(request.path_qs)
        self.bodies.append(body)
        if self.before_answer is not None:
            await self.before_answer(body)
        status = self.answers.popleft() if self.answers else 204
        return web.Response(status=status, headers={"Location": "/elsewhere"})


@asynccontextmanager
async def receiving(*answers: int) -> AsyncIterator[Receiver]:
    """Start a receiver that gives these answers first."""
    receiver = Receiver(answers=deque(answers))
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", receiver.take)
    runner = web.AppRunner(application, shutdown_timeout=0.05)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook?secret=s"
        yield receiver
    finally:
        await runner.cleanup()


@asynccontextmanager
async def answering_never(*, reset: bool = False) -> AsyncIterator[str]:
    """Take connections and say nothing, or reset them at once; give the address."""

    async def take(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if reset:
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
        else:
            await left.wait()
            writer.close()

    left = asyncio.Event()
    server = await asyncio.start_server(take, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
    finally:
        left.set()
        server.close()
        await server.wait_closed()


def port_nobody_listens_on() -> int:
    """Return a port that refuses connections."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
