"""A provider in a process of its own that costs far less than any client: HTTP/1.1 read by hand, answers prepared."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

from benchmarks._bare.dialects import Book, Plan, router
from benchmarks._child import START_LIMIT, serving_in_child

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from multiprocessing.connection import Connection

__all__ = ["bare_server", "counts", "new_fast_loop", "whole_request"]

_BACKLOG = 4096
_END_OF_HEAD = b"\r\n\r\n"


class _Exchange(asyncio.Protocol):
    """One connection. Requests may come in pieces or several at a time; answers go out in their order."""

    def __init__(self, answer: Callable[[bytes, bytes], bytes | None]) -> None:
        self._answer = answer
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is not a subclass

    def data_received(self, data: bytes) -> None:
        """Answer every request that is there as a whole."""
        self._buffer = self._buffer + data if self._buffer else data
        answers = []
        while (taken := whole_request(self._buffer)) is not None:
            head, self._buffer = taken
            method, _, rest = head.partition(b" ")
            answer = self._answer(method, rest.partition(b" ")[0])
            if answer is not None:
                answers.append(answer)
        if answers and self._transport is not None:
            self._transport.write(answers[0] if len(answers) == 1 else b"".join(answers))


def whole_request(buffer: bytes) -> tuple[bytes, bytes] | None:
    """Return the head of the first request and what follows its body; None while it is not whole."""
    end = buffer.find(_END_OF_HEAD)
    if end < 0:
        return None
    after = end + len(_END_OF_HEAD)
    head = buffer[:end]
    if not head.startswith(b"GET "):
        fields = head.lower()
        if (at := fields.find(b"\r\ncontent-length:")) >= 0:
            after += int(fields[at + 17 :].partition(b"\r\n")[0])
        elif b"\r\ntransfer-encoding: chunked" in fields:
            after = _end_of_chunks(buffer, after)
        if not end < after <= len(buffer):
            return None
    return head, buffer[after:]


def _end_of_chunks(buffer: bytes, at: int) -> int:
    """Return where a chunked body without trailers ends, or -1 while it is not whole."""
    while (line_end := buffer.find(b"\r\n", at)) >= 0:
        size = int(buffer[at:line_end].partition(b";")[0], 16)
        at = line_end + 2 + size + 2
        if size == 0:
            return at
    return -1


@contextmanager
def bare_server(plan: Plan) -> Generator[str]:
    """Run the server in a child process and yield its address; it ends with the block, or with this process."""
    with serving_in_child(_serve, plan) as (address, _):
        yield address


def _serve(connection: Connection, plan: Plan) -> None:
    """Be the child process: serve until the parent closes its end of the pipe."""
    with asyncio.Runner(loop_factory=new_fast_loop) as runner:
        runner.run(_until_closed(connection, plan))


async def _until_closed(connection: Connection, plan: Plan) -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG)
    base_url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    answer = router(Book(plan), base_url)
    server = await asyncio.get_running_loop().create_server(lambda: _Exchange(answer), sock=listener, backlog=_BACKLOG)
    connection.send(base_url)
    await asyncio.to_thread(connection.poll, None)
    server.close()


def new_fast_loop() -> asyncio.AbstractEventLoop:
    """Return uvloop's event loop where it is installed, else the standard library's."""
    try:
        import uvloop  # noqa: PLC0415 - an extra; without it the server is slower, and no client is faster for it
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def counts(base_url: str) -> dict[str, int]:
    """Ask a server how many requests, jobs, looks at jobs and blocking pictures there were; this is not counted."""
    connection = http.client.HTTPConnection(base_url.removeprefix("http://"), timeout=START_LIMIT)
    connection.request("GET", "/counts")
    found: dict[str, int] = json.loads(connection.getresponse().read())
    connection.close()
    return found
