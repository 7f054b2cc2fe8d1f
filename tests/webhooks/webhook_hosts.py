"""Services that a receiver is embedded in, and senders that talk to them over raw sockets."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import uvicorn
from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


def free_port() -> int:
    """Return a port that was free a moment ago: an address has to be known before its server can be built."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def aiohttp_host(app: web.Application, port: int = 0, **options: Any) -> AsyncIterator[int]:
    """Serve an aiohttp application as anybody would, and yield its port."""
    runner = web.AppRunner(app, shutdown_timeout=0.05, **options)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@asynccontextmanager
async def asgi_host(app: Any) -> AsyncIterator[int]:
    """Serve an ASGI application with uvicorn, and yield its port."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", access_log=False))
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]  # of versions before 0.29
    task = asyncio.create_task(server._serve())
    try:
        while not server.started:
            assert not task.done()
            await asyncio.sleep(0.01)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await task


def request(path: str, *, body: bytes = b"", head: str = "", method: str = "POST", version: str = "1.1") -> bytes:
    """Return a request as it goes over the wire; `head` holds further lines, each with its line break."""
    length = f"Content-Length: {len(body)}\r\n" if "Transfer-Encoding" not in head else ""
    return f"{method} {path} HTTP/{version}\r\nHost: a\r\n{length}{head}\r\n".encode() + body


async def exchange(port: int, *parts: bytes | float, patience: float = 5.0) -> bytes:
    """Send bytes, with pauses where there are numbers, and return all that comes until the server closes.

    A sender that is cut off while it still sends has what had come by then.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    received = bytearray()

    async def read() -> None:
        while chunk := await reader.read(65536):
            received.extend(chunk)

    reading = asyncio.create_task(read())
    try:
        for part in parts:
            if isinstance(part, bytes):
                writer.write(part)
                await writer.drain()
            else:
                await asyncio.sleep(part)
        await asyncio.wait([reading], timeout=patience)
    except ConnectionError:
        await asyncio.wait([reading], timeout=patience)
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        writer.close()
    return bytes(received)


def statuses(received: bytes) -> list[int]:
    """Return the statuses of the answers in what came, in order; none of them has a body that looks like one."""
    return [int(line.split()[1]) for line in received.split(b"\r\n") if line.startswith(b"HTTP/1.")]
