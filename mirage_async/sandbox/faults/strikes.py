"""How a fault meets the connection: raw bytes, silence, resets.

The HTTP server would never send half an answer, so these write to the transport behind its back. Once the transport is
closing the server finds nobody to answer, which it takes for a client that left.
"""

from __future__ import annotations

import asyncio
import math
import socket
import struct
from decimal import Decimal
from email.utils import formatdate
from typing import TYPE_CHECKING

import msgspec

from mirage_async.sandbox.answers import Answer, RefusalError, phrase

if TYPE_CHECKING:
    from mirage_async._clock import Clock
    from mirage_async.sandbox.dialects.provider import Provider
    from mirage_async.sandbox.faults.fault import Fault

__all__ = ["fault_answer", "strike"]

_FIRST_ERROR = 400
_TOO_MANY = 429
_BROKEN_OFF = 10  # bytes, after which a status line has only begun with its number
_PIECES = 20


def fault_answer(fault: Fault, provider: Provider, clock: Clock) -> Answer | None:
    """Return the whole answer a fault with a status stands for; None for the faults that strike the connection."""
    if fault.status is None:
        return None
    if fault.body is None and fault.status >= _FIRST_ERROR:
        answer = provider.refuse(_refusal(fault.status, fault))
        body, content_type = answer.body, answer.content_type
    else:
        body, content_type = _encode(fault.body)
    headers = {**_retry_header(fault, clock), **(fault.headers or {})}
    for name in [name for name in headers if name.lower() == "content-type"]:
        content_type = headers.pop(name)
    return Answer(status=fault.status, body=body, content_type=content_type, headers=headers)


def _refusal(status: int, fault: Fault) -> RefusalError:
    """Return the refusal to be worded; too many requests are told exactly as where a limit is met."""
    if status != _TOO_MANY:
        return RefusalError(status, f"{phrase(status)} (ordered from the sandbox)")
    wait = fault.retry_at if fault.retry_after is None else fault.retry_after
    return RefusalError(status, "Too many requests", retry_after=math.ceil(wait or 0))


def _retry_header(fault: Fault, clock: Clock) -> dict[str, str]:
    if fault.retry_at is not None:
        # HTTP dates have whole seconds; a client that waits until then has waited long enough.
        return {"Retry-After": formatdate(math.ceil(clock.time() + fault.retry_at), usegmt=True)}
    return {} if fault.retry_after is None else {"Retry-After": _plain(fault.retry_after)}


def _plain(seconds: float) -> str:
    """Return a number without an exponent, and without a fraction where it has none."""
    return str(int(seconds)) if seconds == int(seconds) else f"{Decimal(repr(seconds)):f}"


async def strike(fault: Fault, transport: asyncio.Transport, answer: Answer, clock: Clock) -> int | None:
    """Let `fault` happen to a connection; return the status the client could read, if any.

    Args:
        fault: any fault without a status.
        transport: the connection; it is closed when this returns.
        answer: the genuine answer, or what its head would look like.
        clock: times a stall, and the pauses between pieces.
    """
    if fault.stall is not None:
        await _stall(fault.stall, clock)
    elif fault.reset:
        _reset(transport)
    elif fault.garbage is not None:
        transport.write(fault.garbage)
    elif fault.dribble is not None:
        await _dribble(_head(answer) + answer.body, fault.dribble, transport, clock)
        transport.close()
        return answer.status
    else:
        head = _head(answer)
        if fault.cut is None:
            # Lines that are whole would pass for an answer with some tools.
            transport.write(head[:_BROKEN_OFF])
        else:
            transport.write(head + answer.body[: max(0, min(fault.cut, len(answer.body) - 1))])
            transport.close()
            return answer.status
    transport.close()
    return None


async def _stall(seconds: float, clock: Clock) -> None:
    """Wait; when the client leaves, the server cancels this."""
    if math.isinf(seconds):
        await asyncio.get_running_loop().create_future()
    await clock.sleep(seconds)


async def _dribble(raw: bytes, seconds: float, transport: asyncio.Transport, clock: Clock) -> None:
    """Send bytes in pieces of one size, with a pause before each."""
    size = max(1, math.ceil(len(raw) / _PIECES))
    pieces = [raw[start : start + size] for start in range(0, len(raw), size)]
    for piece in pieces:
        await clock.sleep(seconds / len(pieces))
        transport.write(piece)


def _reset(transport: asyncio.Transport) -> None:
    """Close with a TCP reset: a socket that may not linger throws away what it holds and says so."""
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def _head(answer: Answer) -> bytes:
    lines = [
        f"HTTP/1.1 {answer.status} {phrase(answer.status)}",
        f"Content-Type: {answer.content_type}",
        f"Content-Length: {len(answer.body)}",
        *(f"{name}: {value}" for name, value in answer.headers.items()),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _encode(body: object) -> tuple[bytes, str]:
    """Return the bytes of a fault's body and the content type that suits them."""
    if body is None:
        return b"", "application/json"
    if isinstance(body, bytes):
        return body, "application/octet-stream"
    if isinstance(body, str):
        looks_like_html = body.lstrip().startswith("<")
        return body.encode(), f"text/{'html' if looks_like_html else 'plain'}; charset=utf-8"
    return msgspec.json.encode(body), "application/json"
