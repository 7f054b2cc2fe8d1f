"""The receiver as an ASGI application, for whatever serves those."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any, TypeAlias

import anyio

from mirage_async.webhooks._headers import finder
from mirage_async.webhooks._receiver import BODY_TIME, CUT_SHORT, TIMED_OUT, WebhookReply

if TYPE_CHECKING:
    from mirage_async.webhooks._receiver import WebhookReceiver

__all__ = ["ASGIApp", "application"]

_Message: TypeAlias = MutableMapping[str, Any]
_Receive: TypeAlias = Callable[[], Awaitable[_Message]]
_Send: TypeAlias = Callable[[_Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[MutableMapping[str, Any], _Receive, _Send], Awaitable[None]]
"""An application as the ASGI specification has it, version 3."""


def application(receiver: WebhookReceiver) -> ASGIApp:
    """Return an application that answers every request it gets, wherever it is mounted."""

    async def app(scope: MutableMapping[str, Any], receive: _Receive, send: _Send) -> None:
        if scope["type"] == "http":
            await _answer(receiver, scope, receive, send)
        elif scope["type"] == "lifespan":
            await _live(receive, send)
        else:  # a websocket, which is refused before it is opened
            await send({"type": "websocket.close"})

    return app


async def _answer(receiver: WebhookReceiver, scope: _Message, receive: _Receive, send: _Send) -> None:
    find = finder(scope["headers"])
    reply = receiver.admit(scope["method"], scope["path"], find)
    if not isinstance(reply, WebhookReply):
        body = await _read(receive, receiver.max_body_bytes)
        reply = body if isinstance(body, WebhookReply) else receiver.finish(reply, find, body)
    headers = [(name.lower().encode(), value.encode()) for name, value in reply.headers.items()]
    if reply.status != 204:  # noqa: PLR2004 - HTTP's own number: it alone has no body, and so no length
        headers.append((b"content-length", b"0"))
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


async def _read(receive: _Receive, most: int) -> bytearray | WebhookReply:
    """Return the body, or a little more than `most` bytes of it; or what to answer if it does not come."""
    body = bytearray()
    try:
        with anyio.fail_after(BODY_TIME):
            while len(body) <= most:
                message = await receive()
                if message["type"] != "http.request":
                    return CUT_SHORT  # nobody is there to read it
                body += message.get("body", b"")
                if not message.get("more_body", False):
                    break
    except TimeoutError:
        return TIMED_OUT
    return body


async def _live(receive: _Receive, send: _Send) -> None:
    """Agree to everything a server asks of an application's life; there is nothing to open or to close."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
