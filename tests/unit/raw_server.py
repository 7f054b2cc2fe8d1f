"""A TCP server that does to each connection what a test says."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable

__all__ = ["RawServer", "serving"]


class RawServer:
    """A TCP server that does to each connection what the test says, and keeps what it read.

    Args:
        behave: gets the connection, returns when it is done with it; then the connection is closed.
    """

    def __init__(
        self, behave: Callable[[RawServer, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
    ) -> None:
        self._behave = behave
        self.connections = 0
        self.requests: list[bytes] = []
        self.url = ""
        self.asked = asyncio.Event()
        self.gone = asyncio.Event()
        self.turn = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Handle one connection."""
        self.connections += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await self._behave(self, reader, writer)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        self.gone.set()

    async def read(self, reader: asyncio.StreamReader) -> bytes:
        """Read one request whole and keep it."""
        head = await reader.readuntil(b"\r\n\r\n")
        length = 0
        for line in head.split(b"\r\n"):
            if line.lower().startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        request = head + await reader.readexactly(length)
        self.requests.append(request)
        self.asked.set()
        return request


@contextlib.asynccontextmanager
async def serving(
    behave: Callable[[RawServer, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[RawServer]:
    """Run a raw server on a free port; one with a certificate is `localhost`."""
    raw = RawServer(behave)
    server = await asyncio.start_server(raw.serve, "127.0.0.1", 0, limit=1 << 23, ssl=tls)
    async with server:
        origin = "http://127.0.0.1" if tls is None else "https://localhost"
        raw.url = f"{origin}:{server.sockets[0].getsockname()[1]}"
        yield raw
