"""A server that costs next to nothing: it has its answers ready and sends them as fast as the other side takes them."""

from __future__ import annotations

import base64
import json
import socket
import struct
import threading
import zlib
from contextlib import contextmanager, suppress
from random import Random
from typing import TYPE_CHECKING

from benchmarks._child import serving_in_child

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from multiprocessing.connection import Connection

__all__ = ["serving"]

SIZES = (64 << 10, 1 << 20, 5 << 20, 20 << 20, 30 << 20)  # bytes of a picture; the smallest warms a client up


def png(size: int, seed: int) -> bytes:
    """Return a PNG of `size` bytes or a few more; its pixels are noise, stored without compression."""
    width = 1024
    row = 1 + 3 * width
    rows = Random(seed).randbytes(size // row * row)
    header = struct.pack(">IIBBBBB", width, len(rows) // row, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 0)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def answers(origin: str, seed: int) -> dict[str, bytes]:
    """Return every answer by its path, head and all; the size of a picture is a path in front of the provider's own."""
    found: dict[str, bytes] = {}
    for size in SIZES:
        picture = png(size, seed)
        text = base64.b64encode(picture).decode()
        front = f"/{size}"
        found[f"{front}/picture.png"] = _answer(picture, "image/png")
        found[f"{front}/link/v1/images/generate"] = _json({"data": [{"url": f"{origin}{front}/picture.png"}]})
        found[f"{front}/v1/images/generate"] = _json({"created": 1, "data": [{"b64_json": text}]})
        found[f"{front}/v1/images/generations"] = found[f"{front}/v1/images/generate"]
        found[f"{front}/v1/image/async_generate/t1/status"] = _json({"data": {"status": "COMPLETED", "image": text}})
    return found


def _json(value: object) -> bytes:
    return _answer(json.dumps(value).encode(), "application/json")


def _answer(body: bytes, kind: str) -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def _serve(connection: Connection, seed: int) -> None:
    """Be the server's process until the parent closes its end of the pipe."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        origin = f"http://127.0.0.1:{listener.getsockname()[1]}"
        prepared = answers(origin, seed)
        threading.Thread(target=_accept, args=(listener, prepared), daemon=True).start()
        connection.send(origin)
        with suppress(EOFError, OSError):
            connection.recv()


def _accept(listener: socket.socket, prepared: Mapping[str, bytes]) -> None:
    while True:
        taken, _ = listener.accept()
        threading.Thread(target=_converse, args=(taken, prepared), daemon=True).start()


def _converse(taken: socket.socket, prepared: Mapping[str, bytes]) -> None:
    """Answer one request after the other; as much of HTTP as the clients measured here speak."""
    request = b""
    with taken, suppress(OSError):
        taken.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while received := taken.recv(1 << 16):
            request += received
            head, end, body = request.partition(b"\r\n\r\n")
            if not end or len(body) < _declared(head):
                continue
            request = b""
            taken.sendall(prepared[head.split(b" ", 2)[1].decode()])


def _declared(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0


@contextmanager
def serving(seed: int) -> Generator[str]:
    """Run the server in a process of its own and yield its origin; it ends with the block, or with this process."""
    with serving_in_child(_serve, seed) as (address, _):
        yield address
