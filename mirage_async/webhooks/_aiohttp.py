"""The receiver as an aiohttp application.

Most of what a delivery costs on an aiohttp server is the framework's own, and much of that is reading and answering in
full generality. Two things are therefore done by hand, and everything else is left to aiohttp: a body that has come
whole with its head is taken as it lies there, and the one answer that is given all the time, "204 No Content" without
any headers, is written as the bytes it consists of. Where anybody could tell the difference (a middleware or a signal
of the application around this one that touches answers, an old HTTP version, a connection that ends) it goes the usual
way.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import TYPE_CHECKING, TypeAlias

import anyio
from aiohttp import HttpVersion11, hdrs, web

from mirage_async.webhooks._headers import finder
from mirage_async.webhooks._receiver import BODY_TIME, CUT_SHORT, TIMED_OUT, WebhookReply

if TYPE_CHECKING:
    from aiohttp import StreamReader
    from aiohttp.abc import AbstractStreamWriter

    from mirage_async.webhooks._headers import Find
    from mirage_async.webhooks._receiver import WebhookReceiver

__all__ = ["Handler", "Told", "application"]

Told: TypeAlias = Callable[[web.BaseRequest, WebhookReply], object]
"""Hears of every request and its answer."""

LET_PASS = 2.0  # seconds
_NO_CONTENT = 204


def application(receiver: WebhookReceiver) -> web.Application:
    """Return an application that answers every request it gets."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", Handler(receiver).answer)
    return app


class Handler:
    """Answers requests.

    Args:
        receiver: decides.
        told: hears of every answer before it is sent; None where nobody does.
    """

    __slots__ = ("_receiver", "_told")

    def __init__(self, receiver: WebhookReceiver, told: Told | None = None) -> None:
        self._receiver = receiver
        self._told = told

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Read a request as far as it deserves, and answer it."""
        headers = request.headers
        find: Find = headers.get
        if len(headers.getall(hdrs.CONTENT_ENCODING, ())) > 1:
            find = finder(headers)
        reply = self._receiver.admit(request.method, request.rel_url.raw_path, find)
        if not isinstance(reply, WebhookReply):
            content = request.content
            body: bytes | bytearray | WebhookReply
            if content.is_eof() and content.exception() is None:
                body = content.read_nowait()
            else:
                body = await _read(content, self._receiver.max_body_bytes)
            reply = body if isinstance(body, WebhookReply) else self._receiver.finish(reply, find, body)
        if self._told is not None:
            self._told(request, reply)
        if reply.status == _NO_CONTENT:
            return _NoContent(status=_NO_CONTENT)
        answer = web.Response(status=reply.status, headers=reply.headers)
        if not request.content.is_eof():
            await _let_pass(request)
            answer.force_close()
        return answer


async def _read(content: StreamReader, most: int) -> bytearray | WebhookReply:
    """Return the body, or a little more than `most` bytes of it; or what to answer if it does not come."""
    body = bytearray()
    try:
        with anyio.fail_after(BODY_TIME):
            async for chunk in content.iter_any():
                body += chunk
                if len(body) > most:
                    break
    except TimeoutError:
        return TIMED_OUT
    except (web.RequestPayloadError, ConnectionError):
        return CUT_SHORT
    return body


async def _let_pass(request: web.BaseRequest) -> None:
    """Give a sender the time to get rid of a body nobody wants, so that it reads the answer, and end the body then.

    aiohttp would do so itself after the answer, but logs a traceback where the rest is cut or badly encoded.
    """
    content = request.content
    with anyio.move_on_after(LET_PASS), contextlib.suppress(web.RequestPayloadError, ConnectionError):
        while not content.is_eof():
            await content.readany()
    if not content.is_eof():
        request.protocol.close()  # what comes from now on is not read any more
        content.feed_eof()


class _NoContent(web.StreamResponse):
    """An answer that is written in one piece, as long as it is still the answer that was made."""

    _written = False

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Write it, unless somebody has changed it or wants to."""
        if self._written:
            return None
        if not self._is_plain(request):
            return await super().prepare(request)
        self._written = True
        self._keep_alive = True
        await request.writer.write(_head())
        return request.writer

    async def write_eof(self, data: bytes = b"") -> None:
        """End it."""
        if not self._written:
            await super().write_eof(data)

    def _is_plain(self, request: web.BaseRequest) -> bool:
        if self.headers or self._cookies or self._keep_alive is False or self.status != _NO_CONTENT:
            return False
        if request.version != HttpVersion11 or not request.keep_alive or not isinstance(request, web.Request):
            return False
        for app in request.match_info.apps:  # noqa: SIM110 - a generator for every delivery shows in the benchmark
            if app.on_response_prepare:
                return False
        return True


class _Heads:
    """The head of the answer, which changes once a second."""

    __slots__ = ("_head", "_second")

    def __init__(self) -> None:
        self._second = -1
        self._head = b""

    def __call__(self) -> bytes:
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._head = f"HTTP/1.1 204 No Content\r\nDate: {formatdate(second, usegmt=True)}\r\n\r\n".encode()
        return self._head


_head = _Heads()
