"""Pictures inside answers, over real sockets: decoded on the way in, held once, and never at the cost of an answer."""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import random
import socket
import struct
import threading
import tracemalloc
import zlib
from typing import TYPE_CHECKING

import pytest

from mirage_async import MiraClient, MirakoClient
from mirage_async._clock import SystemClock
from mirage_async._transport import Endpoint, LostError, Transport
from mirage_async.wire import Call, Reply

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

pytestmark = pytest.mark.anyio

KEY = "sk-very-secret-4711"


def png(size: int) -> bytes:
    """Return a whole PNG of about `size` bytes."""
    noise = zlib.compress(random.Random(5).randbytes(size), 0)
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", 64, 64, 8, 2, 0, 0, 0)), (b"IDAT", noise), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


PICTURE = png(100_000)
TEXT = base64.b64encode(PICTURE).decode()


def mira_answer(text: str) -> bytes:
    """Return an answer in Mira's shape."""
    return json.dumps({"created": 1, "data": [{"b64_json": text, "revised_prompt": "a tower"}]}, indent=1).encode()


def framed(body: bytes, framing: str, sizes: Sequence[int], status: str = "200 OK") -> list[bytes]:
    """Return an HTTP answer in the parts in which it is to be sent."""
    parts: list[bytes] = []
    start = 0
    for number in range(len(body)):
        size = sizes[number % len(sizes)]
        parts.append(body[start : start + size])
        start += size
        if start >= len(body):
            break
    head = {"length": f"Content-Length: {len(body)}", "chunked": "Transfer-Encoding: chunked", "close": "X: 1"}[framing]
    if framing == "chunked":
        parts = [b"%x\r\n%b\r\n" % (len(part), part) for part in parts] + [b"0\r\n\r\n"]
    return [f"HTTP/1.1 {status}\r\nConnection: close\r\n{head}\r\n\r\n".encode(), *parts]


@contextlib.contextmanager
def serving(parts: Sequence[bytes]) -> Iterator[str]:
    """Run a server in threads, whose own memory is all there before the test begins, and yield its address."""

    def answer(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            request = b""
            while b"\r\n\r\n" not in request:
                request += connection.recv(1 << 16)
            length = request.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
            while len(request.partition(b"\r\n\r\n")[2]) < int(length or 0):
                request += connection.recv(1 << 16)
            for part in parts:
                connection.sendall(part)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                talk = threading.Thread(target=answer, args=(connection,))
                talk.start()
                talking.append(talk)

    talking: list[threading.Thread] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join()
            for talk in talking:
                talk.join()


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    """Return a transport that is closed after the test."""
    transport = Transport(SystemClock())
    yield transport
    await transport.aclose()


async def exchanged(transport: Transport, url: str, limit: int = 1 << 20) -> Reply:
    """Send a call that may bring a picture."""
    call = Call(method="GET", path="/", max_reply_bytes=limit, picture_fields=("b64_json",))
    return await transport.exchange(Endpoint(url, ("X-API-Key", KEY)), call, silence=5, deadline=20)


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
@pytest.mark.parametrize("sizes", [[1 << 20], [65_537], [1, 999], [7, 1, 3000, 2]], ids=str)
@pytest.mark.parametrize("prefix", ["", "data:image/png;base64,"])
async def test_a_picture_arrives_however_its_answer_is_cut(framing: str, sizes: list[int], prefix: str) -> None:
    """Network chunks end where they like."""
    with serving(framed(mira_answer(prefix + TEXT), framing, sizes)) as url:
        async with MiraClient(base_url=url) as mira:
            generation = await mira.generate("a lighthouse")
    assert await generation.image.read() == PICTURE
    assert generation.image.revised_prompt == "a tower"
    assert generation.raw == {"created": 1, "data": [{"revised_prompt": "a tower"}]}


async def test_escaped_slashes_are_slashes() -> None:
    """PHP writes them so, and a chunk may end between backslash and slash."""
    body = json.dumps({"data": {"status": "COMPLETED", "image": TEXT}}).replace("/", "\\/").encode()
    with serving(framed(body, "chunked", [1001])) as url:
        async with MirakoClient(base_url=url) as mirako:
            generation = await mirako.job("t1")
    assert await generation.image.read() == PICTURE


async def test_a_picture_in_an_answer_is_held_once() -> None:
    """Twenty megabytes cost little more than twenty megabytes: there is no second copy, and none of the text."""
    picture = png(20 << 20)
    parts = framed(mira_answer(base64.b64encode(picture).decode()), "length", [1 << 30])
    with serving(parts) as url:
        async with MiraClient(base_url=url) as mira:
            tracemalloc.start()
            try:
                data = await (await mira.generate("a lighthouse")).image.read()
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
    assert data == picture
    assert peak <= 1.3 * len(picture)


async def test_only_good_answers_are_decoded_on_the_way(transport: Transport) -> None:
    """What an error says is read as it is."""
    body = mira_answer(TEXT)
    with serving(framed(body, "length", [1 << 20], status="400 Bad Request")) as url:
        reply = await exchanged(transport, url)
    assert (reply.status, reply.body, reply.pictures) == (400, body, {})


async def test_a_short_answer_is_left_as_it_is(transport: Transport) -> None:
    """Most status answers hold no picture, and cost nothing extra."""
    body = mira_answer("abcd")
    for framing in ("length", "close"):
        with serving(framed(body, framing, [1 << 20])) as url:
            reply = await exchanged(transport, url)
        assert (reply.body, reply.pictures) == (body, {})


async def test_the_cap_counts_what_the_network_brings(transport: Transport) -> None:
    """To the byte, although hardly anything is left of the answer."""
    body = mira_answer(TEXT)
    with serving(framed(body, "chunked", [5000])) as url:
        assert list((await exchanged(transport, url, len(body))).pictures.values()) == [PICTURE]
        with pytest.raises(LostError, match=f"the answer is larger than {len(body) - 1} bytes"):
            await exchanged(transport, url, len(body) - 1)


async def test_the_key_is_cut_out_of_what_is_left(transport: Transport) -> None:
    """A provider that quotes the key beside a picture is not listened to either."""
    body = json.dumps({"key": KEY, "data": [{"b64_json": TEXT}]}).encode()
    with serving(framed(body, "length", [1 << 20])) as url:
        reply = await exchanged(transport, url)
    assert KEY.encode() not in reply.body
    assert b"<key>" in reply.body
    assert list(reply.pictures.values()) == [PICTURE]


async def test_an_answer_that_breaks_off_inside_a_picture_is_lost(transport: Transport) -> None:
    """As any answer that breaks off; half a picture is none."""
    parts = framed(mira_answer(TEXT), "length", [1000])
    with serving(parts[:50]) as url, pytest.raises(LostError):
        await exchanged(transport, url)


async def test_a_compressed_answer_is_decoded_on_the_way_as_well(transport: Transport) -> None:
    """Its declared length says nothing about the picture's."""
    body = gzip.compress(mira_answer(TEXT))
    head, *rest = framed(body, "length", [5000])
    with serving([head.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n"), *rest]) as url:
        assert list((await exchanged(transport, url)).pictures.values()) == [PICTURE]
