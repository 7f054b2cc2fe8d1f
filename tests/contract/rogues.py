"""Servers that misbehave below HTTP, where the sandbox cannot: they speak raw bytes and count what they were sent."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import re
import socket
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

__all__ = ["Act", "Rogue", "Seen", "answer", "closed_port", "json_answer", "rogue", "stalled_port"]

_LENGTH = re.compile(rb"^content-length: *([0-9]+)", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Act:
    """What a rogue does with one connection.

    Attributes:
        write: bytes it sends.
        then: how the connection goes on: closed, reset, held until the client leaves, one byte every few milliseconds
            without end, or not read from any more.
        read: whether the request is read first.
        gate: what it waits for between reading and writing.
    """

    write: bytes = b""
    then: Literal["fin", "rst", "hold", "drip", "deaf"] = "fin"
    read: bool = True
    gate: asyncio.Event | None = None


@dataclass(frozen=True, kw_only=True, repr=False)
class Seen:
    """One request that arrived whole; header names are lower-case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    def __repr__(self) -> str:
        return f"<{self.method} {self.path.partition('?')[0]}>"  # a traceback with locals must not find keys in here

    @property
    def fields(self) -> dict[str, Any]:
        """The body as JSON."""
        fields: dict[str, Any] = json.loads(self.body)
        return fields


Script: TypeAlias = "Act | Callable[[Seen], Act]"


@dataclass(repr=False)
class Rogue:
    """A running rogue.

    Attributes:
        url: "http://127.0.0.1:port".
        connections: accepted so far.
        requests: read so far.
        inputs: the raw bytes of each request read.
    """

    script: Script
    url: str = ""
    connections: int = 0
    requests: list[Seen] = field(default_factory=list)
    inputs: list[bytes] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"<Rogue {self.url} {len(self.requests)} requests>"

    @property
    def posts(self) -> list[Seen]:
        """The POSTs among the requests."""
        return [request for request in self.requests if request.method == "POST"]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Act once."""
        self.connections += 1
        act = self.script if isinstance(self.script, Act) else None
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            if act is None or act.read:
                seen = await self._read(reader)
                act = self.script if isinstance(self.script, Act) else self.script(seen)
            if act.gate is not None:
                await act.gate.wait()
            writer.write(act.write)
            if act.then == "hold":
                await reader.read()
            elif act.then == "deaf":
                writer.transport.pause_reading()  # type: ignore[attr-defined]  # a socket's transport can read, too
                await asyncio.get_running_loop().create_future()
            elif act.then == "drip":
                while not writer.is_closing():
                    writer.write(b"x")
                    await writer.drain()
                    await asyncio.sleep(0.005)
            elif act.then == "rst":
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    async def _read(self, reader: asyncio.StreamReader) -> Seen:
        head = await reader.readuntil(b"\r\n\r\n")
        length = _LENGTH.search(head)
        body = await reader.readexactly(int(length[1])) if length else b""
        first, *lines = head.decode("latin-1").splitlines()
        method, path, _ = first.split(" ")
        headers = dict(line.split(": ", 1) for line in lines if line)
        seen = Seen(method=method, path=path, headers={key.lower(): headers[key] for key in headers}, body=body)
        self.requests.append(seen)
        self.inputs.append(head + body)
        return seen


@contextlib.asynccontextmanager
async def rogue(script: Script) -> AsyncIterator[Rogue]:
    """Run a rogue on a free port; its connections end with it."""
    running = Rogue(script)
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(running.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(lambda _: writer.close())

    server = await asyncio.start_server(accept, "127.0.0.1", 0, limit=1 << 26)
    running.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield running
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)


def answer(status: int, body: bytes = b"", headers: dict[str, str] | None = None, *, reason: str = "Any") -> bytes:
    """Return a whole answer as bytes; the connection closes after it."""
    fields = {"Content-Length": str(len(body)), "Connection": "close", **(headers or {})}
    lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def json_answer(value: object, status: int = 200, headers: dict[str, str] | None = None) -> bytes:
    """Return a whole JSON answer as bytes."""
    return answer(status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})


@functools.cache
def closed_port() -> str:
    """Return an address nobody listens at; the port stays taken, so that no other program gets it meanwhile."""
    taken = socket.socket()
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a test may still listen there itself
    taken.bind(("127.0.0.1", 0))
    port = taken.getsockname()[1]
    taken.detach()  # open until the process ends
    return f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def stalled_port() -> Iterator[str]:
    """Give an address where a connection is neither made nor refused: its queue is full and nobody accepts."""
    with contextlib.ExitStack() as sockets:
        listener = sockets.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(8):
            filler = sockets.enter_context(socket.socket())
            filler.settimeout(0)
            filler.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
