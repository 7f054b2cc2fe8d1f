"""A server in a process of its own that reads a POST to its end, counts it, and then does what it is told."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

from benchmarks._bare.server import whole_request
from benchmarks._child import serving_in_child

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence
    from multiprocessing.connection import Connection

    from benchmarks._double_billing.faults import Act

__all__ = ["KEYED", "misbehaving_server"]

KEYED = "keyed"
_BACKLOG = 1024
_NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
_RESET = struct.pack("ii", 1, 0)  # linger for no time at all


@contextmanager
def misbehaving_server(acts: Mapping[str, Sequence[Act]]) -> Generator[tuple[str, Callable[[], Counter[str]]]]:
    """Run the server, which ends with the block.

    Args:
        acts: by the first segment of the path, what follows each POST; the last one follows all further ones.

    Yields:
        Its address, and what tells how many POSTs have come by the first segment of their paths; under `KEYED`, how
        many of all had an idempotency key.
    """
    with serving_in_child(_serve, acts) as (origin, connection):

        def posts() -> Counter[str]:
            connection.send("posts")
            counted: Counter[str] = connection.recv()
            return counted

        yield origin, posts


def _serve(connection: Connection, acts: Mapping[str, Sequence[Act]]) -> None:
    asyncio.run(_until_closed(connection, acts))


async def _until_closed(connection: Connection, acts: Mapping[str, Sequence[Act]]) -> None:
    posts: Counter[str] = Counter()
    open_ones: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(_converse(reader, writer, acts, posts))
        open_ones.add(task)
        task.add_done_callback(open_ones.discard)

    listener = socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG)
    server = await asyncio.start_server(accept, sock=listener, backlog=_BACKLOG)
    connection.send(f"http://127.0.0.1:{listener.getsockname()[1]}")
    with contextlib.suppress(EOFError):
        while await asyncio.to_thread(connection.recv):
            connection.send(posts)
    server.close()
    for task in open_ones:
        task.cancel()


async def _converse(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, acts: Mapping[str, Sequence[Act]], posts: Counter[str]
) -> None:
    """Serve one connection, one request after the other."""
    buffer = b""
    with contextlib.suppress(ConnectionError):
        while received := await reader.read(1 << 16):
            buffer += received
            while (taken := whole_request(buffer)) is not None:
                head, buffer = taken
                method, path, _ = head.split(b" ", 2)
                script = path.decode().split("/")[1]
                if method != b"POST" or script not in acts:
                    writer.write(_NOT_FOUND)
                    continue
                posts[script] += 1
                posts[KEYED] += b"\r\nidempotency-key:" in head.lower()
                act = acts[script][min(posts[script], len(acts[script])) - 1]
                writer.write(act.write or b"")
                if act.then == "silent":
                    await reader.read()  # until the client leaves
                if act.then != "open":
                    _end(writer, reset=act.then == "reset")
                    return
    writer.close()


def _end(writer: asyncio.StreamWriter, *, reset: bool) -> None:
    if reset:
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        writer.transport.abort()
    else:
        writer.close()
