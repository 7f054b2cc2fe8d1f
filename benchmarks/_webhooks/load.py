"""A load generator that is quick enough to keep one server busy: requests are bytes, answers are counted."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["post", "send_all"]

_END = b"\r\n\r\n"


def post(path: str, headers: dict[str, str], body: bytes) -> bytes:
    """Return a request as it goes over the wire."""
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", *(f"{name}: {value}" for name, value in headers.items())]
    head = "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""])
    return head.encode() + body


class _Connection(asyncio.Protocol):
    """Sends one request after the other, each when the answer to the one before has come."""

    def __init__(self, requests: deque[bytes], expected: bytes, done: asyncio.Future[None]) -> None:
        self._requests = requests
        self._expected = expected
        self._done = done
        self._received = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._next()

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._received.endswith(_END):  # none of the answers has a body
            if not self._received.startswith(self._expected):
                self._fail(f"unexpected answer {self._received[:60]!r}")
                return
            self._received = b""
            self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(f"the connection was lost: {exc!r}")

    def _fail(self, why: str) -> None:
        if not self._done.done():
            self._done.set_exception(RuntimeError(why))

    def _next(self) -> None:
        assert self._transport is not None  # noqa: S101 - set before anything is sent; for the type checker
        if self._requests:
            self._transport.write(self._requests.popleft())
        elif not self._done.done():
            self._done.set_result(None)
            self._transport.close()


async def send_all(port: int, requests: Sequence[bytes], *, connections: int, status: int) -> None:
    """Send all requests over so many kept-alive connections, and check that each is answered with `status`.

    Raises:
        RuntimeError: an answer is another one, or a connection is lost.
    """
    loop = asyncio.get_running_loop()
    left, expected = deque(requests), f"HTTP/1.1 {status} ".encode()
    ends: list[asyncio.Future[None]] = [loop.create_future() for _ in range(connections)]
    for end in ends:
        await loop.create_connection(lambda end=end: _Connection(left, expected, end), "127.0.0.1", port)  # type: ignore[misc]
    await asyncio.gather(*ends)
