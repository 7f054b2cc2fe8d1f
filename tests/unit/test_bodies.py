"""Long answers past aiohttp's queue, over real sockets: whole or an error, and the connection is as good as before."""

from __future__ import annotations

import asyncio
import base64
import gc
import io
import json
import random
import socket
import ssl
import struct
from asyncio import sslproto
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import aiohttp
import anyio
import pytest
import trustme
from aiohttp.client_proto import ResponseHandler
from raw_server import RawServer, serving

from mirage_async import _bodies
from mirage_async._bodies import LEAST_ROOM, MOST_ROOM, SHARE, Bodies, Body, TooLongError, _Passing, read_at_once
from mirage_async._clock import SystemClock
from mirage_async._transport import Endpoint, LostError, Transport
from mirage_async.downloads import Downloader
from mirage_async.wire import Call, Piece, Reply

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.anyio


def answer(picture: bytes, *headers: str) -> bytes:
    """Return a whole answer that holds a picture."""
    body = json.dumps({"data": [{"b64_json": base64.b64encode(picture).decode()}]}).encode()
    lines = ["HTTP/1.1 200 OK", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


LIMIT = 1 << 24
WHOLE_PICTURE = b"\xff\xd8\xff\xda\x00\x02" + bytes(1_000_000) + b"\xff\xd9"  # a JPEG, as far as its ends tell
PICTURES = [b"\x89PNG\r\n\x1a\n" + random.Random(size).randbytes(size) for size in (100_000, 4_000_000, 1_000_000)]


async def asked_for(server: RawServer, reader: asyncio.StreamReader) -> int:
    """Read a request for /N, and return the number."""
    return int((await server.read(reader)).split()[1].strip(b"/"))


async def pictures(server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer each request for /N with the picture of that number."""
    while True:
        writer.write(answer(PICTURES[await asked_for(server, reader)]))
        await writer.drain()


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    """Return a transport and close it afterwards."""
    made = Transport(SystemClock())
    yield made
    await made.aclose()


async def exchanged(transport: Transport, url: str, path: str = "/0", **options: Any) -> Reply:
    """Make one exchange that may bring a picture, and does not last."""
    call = Call(method="GET", path=path, max_reply_bytes=1 << 24, picture_fields=("b64_json",))
    with anyio.fail_after(20):
        return await transport.exchange(Endpoint(url, ("X-API-Key", "none")), call, **options)


def brought(reply: Reply) -> bytes | None:
    """Return the one picture of an answer."""
    (picture,) = reply.pictures.values()
    return picture


async def settled(server: RawServer) -> None:
    """Wait until a connection has ended, but not for its being idle, which is after four seconds."""
    with anyio.fail_after(3):
        await server.gone.wait()


async def in_turn(transport: Transport, server: RawServer) -> None:
    """Ask for pictures that never come whole with their heads, and hold the answers against them."""
    for number in (2, 1, 2):
        assert brought(await exchanged(transport, server.url, f"/{number}")) == PICTURES[number]
    assert server.connections == 1


def certified() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return what a server on `localhost` and its client need for TLS."""
    authority = trustme.CA()
    theirs, ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(theirs)
    authority.configure_trust(ours)
    return theirs, ours


@pytest.fixture
def passed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return how many bytes of each body passed by aiohttp; nothing stands there for those that did not."""
    lengths: list[int] = []
    begin = _Passing.__init__

    def noted(self: _Passing, *args: Any) -> None:
        begin(self, *args)
        lengths.append(self._left)

    monkeypatch.setattr(_Passing, "__init__", noted)
    return lengths


async def whole(body: Body) -> None:
    """Read a body to its end, every piece of which is taken."""
    with anyio.fail_after(20), body:
        assert await body.refused() == b""


async def test_a_connection_is_used_again_and_so_is_the_room(transport: Transport, passed: list[int]) -> None:
    """Pictures of all sizes come home over one connection, and through one room that is made larger where it must."""
    async with serving(pictures) as server:
        await in_turn(transport, server)
    assert len(passed) == 3
    (room,) = transport._bodies._rooms
    assert len(room) == MOST_ROOM


async def test_a_body_gets_as_much_room_as_it_is_worth(transport: Transport) -> None:
    """A share of a short one; never less than what makes for few turns."""
    async with serving(pictures) as server:
        await exchanged(transport, server.url, "/0")
        assert [len(room) for room in transport._bodies._rooms] == [LEAST_ROOM]
        await exchanged(transport, server.url, "/2")
        body = answer(PICTURES[2]).partition(b"\r\n\r\n")[2]
        assert [len(room) for room in transport._bodies._rooms] == [len(body) // SHARE]


async def test_many_at_once_do_not_share_their_room(transport: Transport) -> None:
    """Each gets its own picture; a few rooms are kept for later."""
    arrived = 0
    everybody = asyncio.Event()

    async def together(server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal arrived
        number = await asked_for(server, reader)
        whole = answer(PICTURES[number])
        for start in range(0, len(whole), 50_000):
            writer.write(whole[start : start + 50_000])
            await writer.drain()
            if start == 50_000:  # all of them are in the middle of it at the same time
                arrived += 1
                if arrived == 9:
                    everybody.set()
                await everybody.wait()

    numbers = [0, 1, 2] * 3
    async with serving(together) as server:
        replies = await asyncio.gather(*(exchanged(transport, server.url, f"/{number}") for number in numbers))
    assert [brought(reply) for reply in replies] == [PICTURES[number] for number in numbers]
    assert len(transport._bodies._rooms) == 4


@pytest.mark.parametrize("anyio_backend", [("asyncio", {"use_uvloop": True})])
async def test_it_is_the_same_on_uvloop(
    anyio_backend: tuple[str, dict[str, bool]], transport: Transport, passed: list[int]
) -> None:
    """Whose transports know both kinds of protocol, too."""
    assert "uvloop" in type(asyncio.get_running_loop()).__module__, anyio_backend
    async with serving(pictures) as server:
        await in_turn(transport, server)
    assert len(passed) == 3


@pytest.mark.parametrize("anyio_backend", ["asyncio", ("asyncio", {"use_uvloop": True})], ids=["asyncio", "uvloop"])
async def test_it_is_the_same_over_tls(anyio_backend: object, passed: list[int]) -> None:
    """Where asyncio decrypts into the room."""
    assert anyio_backend
    theirs, ours = certified()
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=ours)) as session,
        serving(pictures, theirs) as server,
    ):
        await in_turn(Transport(SystemClock(), session=session), server)
    assert len(passed) == 3


async def test_a_callers_session_that_reads_in_large_pieces_may_be_paused_in_the_middle(
    passed: list[int],
) -> None:
    """What aiohttp holds back since its queue is full comes first."""
    async with aiohttp.ClientSession(read_bufsize=1 << 12) as session, serving(pictures) as server:
        await in_turn(Transport(SystemClock(), session=session), server)
    assert len(passed) == 3


@pytest.mark.parametrize("how", ["closed", "reset"])
async def test_a_body_that_breaks_off_is_lost(transport: Transport, how: str) -> None:
    """Whether the server hangs up politely or not; the next exchange has a connection of its own."""
    broken = True

    async def breaking(server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal broken
        await server.read(reader)
        writer.write(answer(PICTURES[2])[: 900_000 if broken else None])
        await writer.drain()
        if how == "reset" and broken:
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        broken = False

    async with serving(breaking) as server:
        with pytest.raises(LostError):
            await exchanged(transport, server.url)
        assert transport._bodies._rooms == []  # an event loop may still hold it
        assert brought(await exchanged(transport, server.url)) == PICTURES[2]
        assert server.connections == 2


async def stopping(server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send most of an answer, and wait until the client leaves."""
    await server.read(reader)
    writer.write(answer(PICTURES[2])[:900_000])
    await writer.drain()
    await reader.read()


async def test_silence_in_the_middle_is_lost(transport: Transport) -> None:
    """It is counted from the last byte, as aiohttp counts it."""
    async with serving(stopping) as server:
        with pytest.raises(LostError, match=r"no answer within 0\.05 s"):
            await exchanged(transport, server.url, silence=0.05)
        await settled(server)


async def test_each_piece_begins_the_silence_anew() -> None:
    """And the end of what the server sends ends it: the connection is lost in the next moment."""
    loop = asyncio.get_running_loop()
    handler = ResponseHandler(loop)
    handler.set_response_params(read_timeout=60)
    pieces: list[bytes] = []
    room = memoryview(bytearray(b"abcdef"))
    response = SimpleNamespace(content=aiohttp.StreamReader(handler, 1 << 16, loop=loop))
    body = Body(Bodies(), cast("Any", response), lambda piece: pieces.append(bytes(piece)), limit=LIMIT)
    passing = _Passing(body, handler, asyncio.Transport(), 9, room)
    for size in (6, 2):
        before = handler._read_timeout_handle
        passing.get_buffer(-1)
        passing.buffer_updated(size)
        assert handler._read_timeout_handle not in {None, before}
    assert pieces == [b"abcdef", b"ab"]
    assert len(passing.get_buffer(-1)) == len(room)  # for what must not wait for the next answer
    passing.eof_received()
    assert handler._read_timeout_handle is None


async def test_after_the_block_a_closing_connection_brings_nothing_any_more() -> None:
    """TLS may still have something decrypted; another attempt has begun by then, and writes to the same file."""
    loop = asyncio.get_running_loop()
    handler = ResponseHandler(loop)
    response = SimpleNamespace(content=aiohttp.StreamReader(handler, 1 << 16, loop=loop))
    pieces: list[bytes] = []
    bodies = Bodies()
    with Body(bodies, cast("Any", response), lambda piece: pieces.append(bytes(piece)), limit=LIMIT) as body:
        body.comes(memoryview(b"before"))
    body.comes(memoryview(b"after"))
    assert pieces == [b"before"]
    assert bodies._rooms == []


async def test_cancelling_in_the_middle_drops_the_connection() -> None:
    """Nobody will read the rest."""
    bodies, seen = Bodies(), 0

    def take(piece: bytes | memoryview) -> None:
        nonlocal seen
        seen += len(piece)
        if seen > 500_000:
            scope.cancel()

    async with aiohttp.ClientSession() as session, serving(stopping) as server:
        with anyio.CancelScope() as scope:
            async with session.get(server.url) as response:
                await whole(bodies.of(response, take, limit=LIMIT))
        assert scope.cancelled_caught
        await settled(server)
        assert bodies._rooms == []  # an event loop may still hold it


async def test_a_session_that_its_owner_closes_in_the_middle_loses_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was paid for all the same; nobody is told of an error of the program."""
    session = aiohttp.ClientSession()
    transport = Transport(SystemClock(), session=session)
    refused = Body.refused

    async def closed_before(body: Body) -> bytes:
        await session.close()
        return await refused(body)

    monkeypatch.setattr(Body, "refused", closed_before)
    async with serving(stopping) as server:
        with pytest.raises(LostError, match="RuntimeError"):
            await exchanged(transport, server.url)


async def test_a_connection_that_is_to_be_closed_is_closed(transport: Transport) -> None:
    """The server said so in the head."""

    async def parting(server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.read(reader)
        writer.write(answer(PICTURES[0], "Connection: close"))
        await reader.read()

    async with serving(parting) as server:
        assert brought(await exchanged(transport, server.url)) == PICTURES[0]
        await settled(server)


@pytest.mark.parametrize("surplus", [b"by the way\r\n\r\n", answer(PICTURES[1])], ids=["garbage", "an answer"])
@pytest.mark.parametrize("number", [0, 2])
async def test_what_comes_with_the_end_of_a_body_unasked_is_nobodys_answer(
    transport: Transport, surplus: bytes, number: int
) -> None:
    """It ends the connection, and the next request, in the same turn of the event loop, has another one."""

    async def chatty(server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.read(reader)
        writer.write(answer(PICTURES[number]) + surplus)
        await reader.read()

    async with serving(chatty) as server:
        for _ in range(8):
            assert brought(await exchanged(transport, server.url)) == PICTURES[number]
        assert server.connections == 8
        await transport.aclose()


async def test_what_comes_later_unasked_ends_the_connection(transport: Transport) -> None:
    """It is neither a part of that picture nor of the next answer."""
    home = asyncio.Event()

    async def chatty(server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.read(reader)
        writer.write(answer(PICTURES[2]))
        await home.wait()
        writer.write(b"by the way\r\n\r\n")
        await reader.read()

    async with serving(chatty) as server:
        assert brought(await exchanged(transport, server.url)) == PICTURES[2]
        home.set()
        await settled(server)
        assert brought(await exchanged(transport, server.url)) == PICTURES[2]
        assert server.connections == 2


async def test_a_line_end_after_a_body_is_forgiven(transport: Transport, passed: list[int]) -> None:
    """As between any two answers."""

    async def tidy(server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await server.read(reader)
            writer.write(answer(PICTURES[2]) + b"\r\n")

    async with serving(tidy) as server:
        for _ in range(4):
            assert brought(await exchanged(transport, server.url)) == PICTURES[2]
        assert server.connections == 1
        await transport.aclose()
    assert len(passed) == 4


async def test_an_answer_may_begin_before_the_request_has_ended() -> None:
    """What is still to be sent stops and goes on as it would without a picture coming the other way."""
    picture_comes = asyncio.Event()
    body, reply = bytes(12 << 20), answer(PICTURES[2])

    async def hasty(server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        await reader.readuntil(b"\r\n\r\n")
        connection = writer.transport
        assert isinstance(connection, asyncio.ReadTransport)
        connection.pause_reading()  # the client cannot send everything
        writer.write(reply[:500_000])
        await picture_comes.wait()
        connection.resume_reading()
        server.requests.append(await reader.readexactly(len(body)))
        writer.write(reply[500_000:])
        await reader.read()

    def take(piece: bytes | memoryview) -> None:
        picture_comes.set()
        pieces.append(bytes(piece))

    pieces: list[bytes] = []
    async with (
        aiohttp.ClientSession() as session,
        serving(hasty) as server,
        session.post(server.url, data=io.BytesIO(body)) as response,
    ):
        await whole(Bodies().of(response, take, limit=LIMIT))
    assert server.requests == [body]
    assert reply.endswith(b"".join(pieces))


@pytest.mark.parametrize("header", ["Content-Encoding: identity", "Transfer-Encoding: chunked"])
async def test_what_is_not_plain_is_left_to_aiohttp(transport: Transport, passed: list[int], header: str) -> None:
    """Bodies in chunks or encodings say in their own way where they end."""

    async def unplain(server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.read(reader)
        head, _, body = answer(PICTURES[0], header).partition(b"\r\n\r\n")
        if "chunked" in header:
            head = b"\r\n".join(line for line in head.split(b"\r\n") if not line.startswith(b"Content-Length"))
            body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        writer.write(head + b"\r\n\r\n" + body)
        await reader.read()

    async with serving(unplain) as server:
        assert brought(await exchanged(transport, server.url)) == PICTURES[0]
        await transport.aclose()
    assert passed == []


async def test_an_answer_that_came_whole_with_its_head_is_left_to_aiohttp(passed: list[int]) -> None:
    """There is nothing to wait for."""
    async with (
        aiohttp.ClientSession(read_bufsize=1 << 22) as session,
        serving(pictures) as server,
        session.get(f"{server.url}/0") as response,
    ):
        await response.content.wait_eof()
        pieces: list[bytes] = []
        await whole(Bodies().of(response, lambda piece: pieces.append(bytes(piece)), limit=LIMIT))
        assert len(b"".join(pieces)) == response.content_length
    assert passed == []


async def test_every_piece_is_seen_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the room is tiny and most pieces fill it."""
    monkeypatch.setattr(_bodies, "MOST_ROOM", 1 << 10)
    monkeypatch.setattr(_bodies, "LEAST_ROOM", 1 << 10)
    pieces: list[bytes] = []
    async with (
        aiohttp.ClientSession() as session,
        serving(pictures) as server,
        session.get(f"{server.url}/0") as response,
    ):
        body = Bodies().of(response, lambda piece: pieces.append(bytes(piece)), limit=LIMIT)
        await whole(body)
        assert body.received == response.content_length
        assert response.content.total_bytes == response.content_length
    assert b"".join(pieces) == answer(PICTURES[0]).partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize("refused", [range(1, 10_000), range(1, 10_000, 3), range(5, 10_000)], ids=str)
async def test_what_is_refused_waits_and_keeps_its_place(
    refused: range, passed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is refused, the first piece or the last one, and however slowly it is taken then."""
    monkeypatch.setattr(_bodies, "MOST_ROOM", 1 << 14)  # for many pieces
    monkeypatch.setattr(_bodies, "LEAST_ROOM", 1 << 14)
    offered = 0
    pieces: list[bytes] = []

    def take(piece: bytes | memoryview) -> bool:
        nonlocal offered
        offered += 1
        if offered in refused:
            return True
        pieces.append(bytes(piece))
        return False

    async with (
        aiohttp.ClientSession(read_bufsize=1 << 14) as session,
        serving(pictures) as server,
        session.get(f"{server.url}/1") as response,
    ):
        body = Bodies().of(response, take, limit=LIMIT)
        with anyio.fail_after(20), body:
            while piece := await body.refused():
                pieces.append(piece)
                for _ in range(20):  # meanwhile more comes, and then aiohttp has the server wait
                    await asyncio.sleep(0)
        assert body.received == response.content.total_bytes == response.content_length
        async with session.get(f"{server.url}/0") as after:
            assert await after.read() == answer(PICTURES[0]).partition(b"\r\n\r\n")[2]
        assert server.connections == 1
    assert b"".join(pieces) == answer(PICTURES[1]).partition(b"\r\n\r\n")[2]
    assert len(passed) == (refused != range(1, 10_000))  # where nothing is taken at once, the queue is never empty


async def test_a_body_that_is_announced_too_long_is_not_read(passed: list[int]) -> None:
    """Its connection is closed: the rest is still on its way."""
    length = len(answer(PICTURES[1]).partition(b"\r\n\r\n")[2])
    async with aiohttp.ClientSession() as session, serving(pictures) as server:
        async with session.get(f"{server.url}/1") as response:
            with pytest.raises(TooLongError, match=f"larger than {length - 1} bytes"):
                await Bodies().of(response, lambda _: pytest.fail("a piece"), limit=length - 1).refused()
        async with session.get(f"{server.url}/1") as response:
            await whole(Bodies().of(response, lambda _: None, limit=length))
        assert server.connections == 2
    assert len(passed) == 1


async def test_room_for_reading_is_set_where_it_is_made() -> None:
    """Over TLS that is not in the transport; and where nobody knows the number, nothing happens."""
    context, loop = ssl.create_default_context(), asyncio.get_running_loop()
    encrypted = sslproto.SSLProtocol(loop, asyncio.Protocol(), context, loop.create_future(), server_hostname="a.test")
    over_tls = encrypted._app_transport
    over_tls._closed = True  # it was never open
    read_at_once(over_tls, 4711)
    assert (encrypted.max_size, sslproto.SSLProtocol.max_size) == (4711, 1 << 18)
    nothing = object()
    read_at_once(nothing, 4711)
    assert not hasattr(nothing, "max_size")


@pytest.mark.parametrize("anyio_backend", ["asyncio", ("asyncio", {"use_uvloop": True})], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "tls"])
async def test_nothing_holds_a_body_that_was_read(anyio_backend: object, encrypted: bool) -> None:
    """Neither a cycle, nor asyncio's TLS and uvloop, which keep the methods of a protocol they do not use any more."""
    assert anyio_backend
    theirs, ours = certified()
    connector = aiohttp.TCPConnector(ssl=ours)
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        serving(pictures, theirs if encrypted else None) as server,
    ):
        transport = Transport(SystemClock(), session=session)
        gc.collect()
        gc.disable()
        try:
            await in_turn(transport, server)
            left = [each for each in gc.get_objects() if isinstance(each, Body | aiohttp.ClientResponse)]
            assert left == []
        finally:
            gc.enable()


@pytest.mark.parametrize("how", ["read", "save"])
async def test_no_cycle_holds_a_picture_that_was_read(how: str, tmp_path: Path) -> None:
    """Megabytes would wait for the garbage collector, and memory be asked of the system again for each picture."""

    async def linked(server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while b"/picture" in (await server.read(reader)).partition(b"\r\n")[0]:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(WHOLE_PICTURE) + WHOLE_PICTURE)

    async with serving(linked) as server:
        downloader = Downloader(clock=SystemClock())
        image = downloader.image(Piece(url=f"{server.url}/picture"), name="x", provider="mira", allow_private=True)
        gc.collect()
        gc.disable()
        try:
            if how == "read":
                assert await downloader.read(image) == WHOLE_PICTURE
            else:
                assert (await downloader.save(image, tmp_path / "x", overwrite=False)).read_bytes() == WHOLE_PICTURE
            assert [each for each in gc.get_objects() if isinstance(each, Body | _Passing)] == []
        finally:
            gc.enable()
        await downloader.aclose()
