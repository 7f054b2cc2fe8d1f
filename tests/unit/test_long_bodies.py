"""Long answers past aiohttp's queue, over real sockets: whole or an error, and the connection is as good as before."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import random
import socket
import ssl
import struct
from typing import TYPE_CHECKING, Any

import aiohttp
import anyio
import pytest
import trustme
from aiohttp.client_proto import ResponseHandler
from raw_server import RawServer, serving

from mirage_async import _long_bodies
from mirage_async._clock import SystemClock
from mirage_async._long_bodies import LEAST_ROOM, MOST_ROOM, LongBodies, _Passing
from mirage_async._transport import Endpoint, LostError, Transport
from mirage_async.wire import Call, Reply

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

pytestmark = pytest.mark.anyio


def answer(picture: bytes, *headers: str) -> bytes:
    """Return a whole answer that holds a picture."""
    body = json.dumps({"data": [{"b64_json": base64.b64encode(picture).decode()}]}).encode()
    lines = ["HTTP/1.1 200 OK", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


PICTURES = [b"\x89PNG\r\n\x1a\n" + random.Random(size).randbytes(size) for size in (100_000, 3_000_000, 1_000_000)]


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


@pytest.fixture
def handed_over(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Return what `LongBodies.read` says, time after time: whether a body was read past aiohttp."""
    said: list[bool] = []
    read = LongBodies.read

    async def told(self: LongBodies, response: aiohttp.ClientResponse, take: Callable[..., object]) -> bool:
        said.append(await read(self, response, take))
        return said[-1]

    monkeypatch.setattr(LongBodies, "read", told)
    return said


async def test_a_connection_is_used_again_and_so_is_the_room(transport: Transport, handed_over: list[bool]) -> None:
    """Pictures of all sizes come home over one connection, and through one room that is made larger where it must."""
    async with serving(pictures) as server:
        await in_turn(transport, server)
    assert handed_over == [True] * 3
    (room,) = transport._long_bodies._rooms
    assert len(room) == MOST_ROOM


async def test_a_body_gets_as_much_room_as_it_is_worth(transport: Transport) -> None:
    """An eighth of a short one; never less than what makes for few turns."""
    async with serving(pictures) as server:
        await exchanged(transport, server.url, "/0")
        assert [len(room) for room in transport._long_bodies._rooms] == [LEAST_ROOM]
        await exchanged(transport, server.url, "/2")
        body = answer(PICTURES[2]).partition(b"\r\n\r\n")[2]
        assert [len(room) for room in transport._long_bodies._rooms] == [len(body) // 8]


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
    assert len(transport._long_bodies._rooms) == 4


@pytest.mark.parametrize("anyio_backend", [("asyncio", {"use_uvloop": True})])
async def test_it_is_the_same_on_uvloop(
    anyio_backend: tuple[str, dict[str, bool]], transport: Transport, handed_over: list[bool]
) -> None:
    """Whose transports know both kinds of protocol, too."""
    assert "uvloop" in type(asyncio.get_running_loop()).__module__, anyio_backend
    async with serving(pictures) as server:
        await in_turn(transport, server)
    assert handed_over == [True] * 3


@pytest.mark.parametrize("anyio_backend", ["asyncio", ("asyncio", {"use_uvloop": True})], ids=["asyncio", "uvloop"])
async def test_it_is_the_same_over_tls(anyio_backend: object, handed_over: list[bool]) -> None:
    """Where asyncio decrypts into the room."""
    assert anyio_backend
    authority = trustme.CA()
    theirs, ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(theirs)
    authority.configure_trust(ours)
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=ours)) as session,
        serving(pictures, theirs) as server,
    ):
        await in_turn(Transport(SystemClock(), session=session), server)
    assert handed_over == [True] * 3


async def test_a_callers_session_that_reads_in_large_pieces_may_be_paused_in_the_middle(
    handed_over: list[bool],
) -> None:
    """What aiohttp holds back since its queue is full comes first."""
    async with aiohttp.ClientSession(read_bufsize=1 << 12) as session, serving(pictures) as server:
        await in_turn(Transport(SystemClock(), session=session), server)
    assert handed_over == [True] * 3


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
        assert transport._long_bodies._rooms == []  # an event loop may still hold it
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
    stream, transport = aiohttp.StreamReader(handler, 1 << 16, loop=loop), asyncio.Transport()
    pieces: list[bytes] = []
    room = memoryview(bytearray(b"abcdef"))
    passing = _Passing(handler, transport, stream, take=lambda piece: pieces.append(bytes(piece)), left=9, room=room)
    for size in (6, 2):
        before = handler._read_timeout_handle
        passing.get_buffer(-1)
        passing.buffer_updated(size)
        assert handler._read_timeout_handle not in {None, before}
    assert pieces == [b"abcdef", b"ab"]
    assert len(passing.get_buffer(-1)) == 1
    passing.eof_received()
    assert handler._read_timeout_handle is None


async def test_cancelling_in_the_middle_drops_the_connection() -> None:
    """Nobody will read the rest."""
    bodies, seen = LongBodies(), 0

    def take(piece: bytes | memoryview) -> None:
        nonlocal seen
        seen += len(piece)
        if seen > 500_000:
            scope.cancel()

    async with aiohttp.ClientSession() as session, serving(stopping) as server:
        with anyio.CancelScope() as scope:
            async with session.get(server.url) as response:
                await bodies.read(response, take)
        assert scope.cancelled_caught
        await settled(server)
        assert bodies._rooms == []  # an event loop may still hold it


async def test_a_connection_that_is_to_be_closed_is_closed(transport: Transport) -> None:
    """The server said so in the head."""

    async def parting(server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.read(reader)
        writer.write(answer(PICTURES[0], "Connection: close"))
        await reader.read()

    async with serving(parting) as server:
        assert brought(await exchanged(transport, server.url)) == PICTURES[0]
        await settled(server)


async def test_what_comes_after_a_body_unasked_ends_the_connection(transport: Transport) -> None:
    """It is neither a part of that picture nor of the next answer."""

    async def chatty(server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.read(reader)
        writer.write(answer(PICTURES[0]) + b"by the way")
        await reader.read()

    async with serving(chatty) as server:
        assert brought(await exchanged(transport, server.url)) == PICTURES[0]
        await settled(server)
        assert brought(await exchanged(transport, server.url)) == PICTURES[0]
        assert server.connections == 2


async def test_an_answer_may_begin_before_the_request_has_ended() -> None:
    """What is still to be sent stops and goes on as it would without a picture coming the other way."""
    picture_comes = asyncio.Event()
    body, whole = bytes(12 << 20), answer(PICTURES[2])

    async def hasty(server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        await reader.readuntil(b"\r\n\r\n")
        connection = writer.transport
        assert isinstance(connection, asyncio.ReadTransport)
        connection.pause_reading()  # the client cannot send everything
        writer.write(whole[:500_000])
        await picture_comes.wait()
        connection.resume_reading()
        server.requests.append(await reader.readexactly(len(body)))
        writer.write(whole[500_000:])
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
        with anyio.fail_after(20):
            assert await LongBodies().read(response, take)
    assert server.requests == [body]
    assert whole.endswith(b"".join(pieces))


@pytest.mark.parametrize("header", ["Content-Encoding: identity", "Transfer-Encoding: chunked"])
async def test_what_is_not_plain_is_left_to_aiohttp(transport: Transport, handed_over: list[bool], header: str) -> None:
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
    assert handed_over == [False]


async def test_an_answer_that_came_whole_with_its_head_is_left_to_aiohttp(handed_over: list[bool]) -> None:
    """There is nothing to wait for."""
    async with (
        aiohttp.ClientSession(read_bufsize=1 << 22) as session,
        serving(pictures) as server,
        session.get(f"{server.url}/0") as response,
    ):
        await response.content.wait_eof()
        pieces: list[bytes] = []
        assert not await LongBodies().read(response, lambda piece: pieces.append(bytes(piece)))
        assert pieces == []
        assert len(await response.read()) == response.content_length
    assert handed_over == [False]


async def test_every_piece_is_seen_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the room is tiny and most pieces fill it."""
    monkeypatch.setattr(_long_bodies, "MOST_ROOM", 1 << 10)
    monkeypatch.setattr(_long_bodies, "LEAST_ROOM", 1 << 10)
    pieces: list[bytes] = []
    async with (
        aiohttp.ClientSession() as session,
        serving(pictures) as server,
        session.get(f"{server.url}/0") as response,
    ):
        assert await LongBodies().read(response, lambda piece: pieces.append(bytes(piece)))
        assert response.content.total_bytes == response.content_length
    assert b"".join(pieces) == answer(PICTURES[0]).partition(b"\r\n\r\n")[2]
