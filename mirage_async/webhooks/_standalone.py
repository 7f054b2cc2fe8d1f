"""A server for the receiver alone, with the guard that aiohttp's server leaves to a proxy.

aiohttp waits an hour or longer for the rest of a head, or for the first byte of one, and takes any number of
connections. Here a connection has ten seconds for each head, and beyond 512 of them a new one is closed at once. Who
sends something that is no HTTP gets 400, and nobody's log a traceback.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from aiohttp import http_exceptions, web

from mirage_async.webhooks._aiohttp import LET_PASS, Handler

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncGenerator

    from mirage_async.webhooks._aiohttp import Told
    from mirage_async.webhooks._receiver import WebhookReceiver

__all__ = ["QuietServerLog", "serving"]

HEAD_TIME = 10.0  # seconds a connection may take for a request's head, or stay without one
MOST_CONNECTIONS = 512  # half of the usual limit of open files
_SHUTDOWN = 2.0  # seconds for answers that are on the way

_server_logger = logging.getLogger("mirage_async.webhooks.server")


class QuietServerLog(logging.Filter):
    """Keeps what strangers send out of a log: `logging.getLogger("aiohttp.server").addFilter(QuietServerLog())`.

    aiohttp's server tells of every request that is no HTTP, or whose body is badly encoded, with a traceback, and
    quotes it. Such a record is dropped; errors of handlers pass.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is to be logged."""
        error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        return not isinstance(error, http_exceptions.HttpProcessingError | web.RequestPayloadError)


class _Overfull(asyncio.Protocol):
    """What a connection too many gets."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


class _Guard:
    """Counts the connections of a server, and ends those that keep it waiting.

    Args:
        handler: answers requests.
        head_time: seconds for a request's head.
        most_connections: how many there may be.
    """

    def __init__(self, handler: Handler, *, head_time: float, most_connections: int) -> None:
        self._handler = handler
        self._head_time = head_time
        self._most = most_connections
        self._waiting: dict[web.RequestHandler, float] = {}  # for a head, since when
        self._timer: asyncio.TimerHandle | None = None
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self.runner = web.AppRunner(
            app,
            access_log=None,
            logger=_server_logger,
            lingering_time=LET_PASS,
            shutdown_timeout=_SHUTDOWN,
        )

    def connect(self) -> asyncio.Protocol:
        """Return what talks to a new connection."""
        server = self.runner.server
        if server is None or len(server.connections) >= self._most:
            return _Overfull()
        protocol: web.RequestHandler = server()
        self._waiting[protocol] = asyncio.get_running_loop().time()
        return protocol

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        since = self._waiting.pop(request.protocol, None)
        try:
            return await self._handler.answer(request)
        finally:
            if since is not None:
                self._waiting[request.protocol] = asyncio.get_running_loop().time()

    def sweep(self) -> None:
        """End the connections that have kept it waiting for too long, now and about ten times in that time."""
        loop = asyncio.get_running_loop()
        late = loop.time() - self._head_time
        for protocol, since in tuple(self._waiting.items()):
            if since < late:
                del self._waiting[protocol]
                protocol.force_close()  # harmless where it has ended by itself
        self._timer = loop.call_later(self._head_time / 10, self.sweep)

    def stop(self) -> None:
        """Sweep no more."""
        if self._timer is not None:
            self._timer.cancel()


@asynccontextmanager
async def serving(
    receiver: WebhookReceiver,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    listener: socket.socket | None = None,
    told: Told | None = None,
    head_time: float = HEAD_TIME,
    most_connections: int = MOST_CONNECTIONS,
) -> AsyncGenerator[int]:
    """Serve a receiver, at any path, and yield the port.

    Args:
        receiver: decides.
        host: address to listen on.
        port: 0 for any free one.
        listener: a socket that is bound already, in place of both.
        told: hears of every request and its answer.
        head_time: seconds a connection may take for a request's head, or stay without one.
        most_connections: how many there may be; one too many is closed at once.

    Raises:
        OSError: it cannot listen.
    """
    _server_logger.addFilter(_QUIET)
    guard = _Guard(Handler(receiver, told), head_time=head_time, most_connections=most_connections)
    await guard.runner.setup()
    try:
        loop = asyncio.get_running_loop()
        if listener is None:
            server = await loop.create_server(guard.connect, host, port)
        else:
            server = await loop.create_server(guard.connect, sock=listener)
        guard.sweep()
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            guard.stop()
            server.close()
    finally:
        await guard.runner.cleanup()


_QUIET = QuietServerLog()
