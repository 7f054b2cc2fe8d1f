"""The transport against real sockets: how far an exchange got, what is read, and where the key goes."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import logging
import socket
import traceback
from typing import TYPE_CHECKING, Any, TypeVar

import aiohttp
import anyio
import pytest
from aiohttp import web
from raw_server import RawServer, serving

from mirage_async import _bodies, _transport
from mirage_async._clock import SystemClock
from mirage_async._deadlines import Deadlines
from mirage_async._transport import (
    Endpoint,
    LostError,
    NotSentError,
    Transport,
    _Passage,
    _passage,
    _Request,
    is_loopback,
)
from mirage_async.exceptions import ConfigurationError
from mirage_async.testing import FakeClock
from mirage_async.wire import Call, Form, Reply

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

pytestmark = pytest.mark.anyio

T = TypeVar("T")

KEY = "sk-very-secret-4711"
CREDENTIAL = ("X-API-Key", KEY)
GET = Call(method="GET", path="/status")
POST = Call(method="POST", path="/buy", body=b'{"prompt": "a cat"}', content_type="application/json")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def soon(work: Awaitable[T]) -> T:
    """Await something that must not take long."""
    with anyio.fail_after(30):
        return await work


def answering(
    payload: bytes,
) -> Callable[[RawServer, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    """Return a behaviour: read one request, send these bytes, close."""

    async def behave(server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.read(reader)
        writer.write(payload)
        await writer.drain()

    return behave


async def closing(server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Close the connection as soon as it is there."""


async def silent(server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read the request and say nothing until the client leaves."""
    await server.read(reader)
    await reader.read()


async def half_a_head(server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Begin an answer and say no more until the client leaves."""
    await server.read(reader)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Le")
    await writer.drain()
    await reader.read()


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    """Return a transport and close it afterwards."""
    made = Transport(SystemClock())
    yield made
    await made.aclose()


async def exchanged(transport: Transport, url: str, call: Call = POST, **options: Any) -> Reply:
    """Make one exchange with short deadlines."""
    return await soon(transport.exchange(Endpoint(url, CREDENTIAL), call, **{"silence": 4.0, **options}))


def unused_port() -> int:
    """Return a port nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


# --- how far it got ---


async def test_a_refused_connection_was_not_sent(transport: Transport) -> None:
    """Nobody listens: not a byte left."""
    with pytest.raises(NotSentError, match="Connect"):
        await exchanged(transport, f"http://127.0.0.1:{unused_port()}")


async def test_a_name_nobody_knows_was_not_sent(transport: Transport) -> None:
    """No address, no connection."""
    with pytest.raises(NotSentError, match="Client"):
        await exchanged(transport, "http://no-such-host.invalid")


async def test_a_tls_handshake_that_fails_was_not_sent(transport: Transport) -> None:
    """A server that speaks no TLS has seen a handshake, not the request."""

    async def plain(server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(OK)
        await writer.drain()

    async with serving(plain) as server:
        with pytest.raises(NotSentError, match="Client"):
            await exchanged(transport, server.url.replace("http:", "https:"))


async def test_a_proxy_that_refuses_was_not_sent() -> None:
    """Without the proxy there is no connection."""
    transport = Transport(SystemClock(), proxy=f"http://127.0.0.1:{unused_port()}")
    with pytest.raises(NotSentError, match="Connect"):
        await exchanged(transport, "http://provider.example")
    await transport.aclose()


async def test_a_connection_that_never_comes_was_not_sent(
    transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connect that takes too long says so; the deadline of the whole exchange may strike first."""

    async def resolve(*_: Any) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(aiohttp.TCPConnector, "_create_connection", resolve)
    with pytest.raises(NotSentError, match="no connection within"):
        await exchanged(transport, "http://provider.example", deadline=0.05)


@pytest.mark.parametrize(
    "behave",
    [
        closing,
        answering(b""),
        answering(b"HTTP/1.1 200"),
        answering(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n"),
        answering(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"),
        answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"),
        answering(b"SSH-2.0-OpenSSH_9.6\r\n"),
        answering(b"\x00\xff" * 500),
        answering(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nContent-Length: 11\r\n\r\n"),
        answering(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n"),
        answering(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 7\r\n\r\nno gzip"),
    ],
    ids=[
        "accept then close",
        "read then close",
        "cut status line",
        "half head",
        "cut body",
        "cut chunks",
        "other protocol",
        "noise",
        "two lengths",
        "huge header",
        "broken gzip",
    ],
)
async def test_whatever_happens_on_a_connection_is_lost(
    transport: Transport, behave: Callable[..., Awaitable[None]]
) -> None:
    """Once a connection was obtained the server may have everything: a garbage reply to a POST is no 400."""
    async with serving(behave) as server:
        with pytest.raises(LostError):
            await exchanged(transport, server.url)
        assert server.connections == 1


@pytest.mark.parametrize("behave", [silent, half_a_head])
async def test_silence_is_lost(transport: Transport, behave: Callable[..., Awaitable[None]]) -> None:
    """A server that says nothing for `silence` seconds has lost the exchange."""
    async with serving(behave) as server:
        with pytest.raises(LostError, match=r"no answer within 0\.05 s"):
            await exchanged(transport, server.url, silence=0.05)
        await soon(server.gone.wait())


async def test_a_deadline_bounds_an_answer_that_trickles(transport: Transport) -> None:
    """A byte every now and then is no silence, but the deadline holds, and the connection is dropped."""

    async def trickling(server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.read(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while not reader.at_eof():
            writer.write(b"x")
            await writer.drain()
            with contextlib.suppress(TimeoutError), anyio.fail_after(0.01):
                await reader.read()

    async with serving(trickling) as server:
        with pytest.raises(LostError, match=r"no answer within 0\.1 s"):
            await exchanged(transport, server.url, deadline=0.1)
        await soon(server.gone.wait())


async def test_an_answer_that_came_while_the_loop_stood_still_is_read(transport: Transport) -> None:
    """A process that was stopped, or blocked by its own work, finds it in the socket: that is no lost answer."""
    clock = FakeClock()
    transport._deadlines = Deadlines(clock)

    async def answering_late(server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.read(reader)
        writer.write(OK)
        clock._now += 100.0
        transport._deadlines._look()  # what the event loop comes to first when it goes on

    async with serving(answering_late) as server:
        assert (await exchanged(transport, server.url, silence=None, deadline=3.0)).body == b"ok"


async def test_a_cancelled_exchange_raises_through(transport: Transport) -> None:
    """Cancellation is neither swallowed nor translated, and the connection is dropped."""
    async with serving(silent) as server:
        task = asyncio.ensure_future(exchanged(transport, server.url))
        await soon(server.asked.wait())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await soon(task)
        await soon(server.gone.wait())


async def test_after_closing_nothing_is_sent(transport: Transport) -> None:
    """A closed pool stays closed: no session is opened behind everybody's back."""
    async with serving(answering(OK)) as server:
        await exchanged(transport, server.url)
        await transport.aclose()
        with pytest.raises(NotSentError, match="closed"):
            await exchanged(transport, server.url)
        assert server.connections == 1


# --- answers ---


async def test_an_answer_is_read_whole_with_status_and_headers(transport: Transport) -> None:
    """Status, headers without regard to case, body, and the moment it came."""
    async with serving(answering(b"HTTP/1.1 418 Teapot\r\nX-One: 1\r\nContent-Length: 5\r\n\r\nshort")) as server:
        reply = await exchanged(transport, server.url)
    assert (reply.status, reply.body) == (418, b"short")
    assert (reply.headers.get("x-one"), reply.headers.get("X-ONE")) == ("1", "1")
    assert abs(reply.received_at - SystemClock().time()) < 5


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_returned_not_followed(transport: Transport, status: int) -> None:
    """A keyed request goes nowhere else."""
    answer = f"HTTP/1.1 {status} Moved\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n".encode()
    async with serving(answering(answer)) as server:
        assert (await exchanged(transport, server.url)).status == status
        assert len(server.requests) == 1


async def test_an_answer_may_be_as_large_as_its_cap_and_no_larger(transport: Transport) -> None:
    """The cap counts the body, to the byte."""

    def capped(limit: int) -> Call:
        return Call(method="GET", path="/", max_reply_bytes=limit)

    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b"x" * 1000
    async with serving(answering(answer)) as server:
        assert len((await exchanged(transport, server.url, capped(1000))).body) == 1000
        with pytest.raises(LostError, match="the answer is larger than 999 bytes"):
            await exchanged(transport, server.url, capped(999))


async def test_a_gzip_bomb_stops_at_the_cap(transport: Transport) -> None:
    """The cap counts decoded bytes, also where a server compresses although it was asked not to."""
    bomb = gzip.compress(b"\0" * (200 << 20), 1)
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(bomb)}\r\n\r\n".encode()
    async with serving(answering(head + bomb)) as server:
        with pytest.raises(LostError, match="the answer is larger than 1048576 bytes"):
            await exchanged(transport, server.url, GET)
        await soon(server.gone.wait())
        assert b"accept-encoding: identity" in server.requests[0].lower()


async def test_a_compressed_answer_within_the_cap_is_read(transport: Transport) -> None:
    """Compression nobody asked for is forgiven."""
    body = gzip.compress(b"hello" * 100)
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    async with serving(answering(head + body)) as server:
        assert (await exchanged(transport, server.url)).body == b"hello" * 100


# --- requests ---


async def test_a_request_carries_what_the_codec_said_and_the_key(transport: Transport) -> None:
    """Method, path under the base URL, body, content type, key, and a name for the provider's log."""
    async with serving(answering(OK)) as server:
        await exchanged(transport, server.url + "/prefix/")
        (request,) = server.requests
    head, _, body = request.partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    assert head.startswith(b"POST /prefix/buy HTTP/1.1\r\n")
    assert b"content-type: application/json" in lines
    assert f"x-api-key: {KEY}".encode() in lines
    assert b"accept: application/json" in lines
    assert any(line.startswith(b"user-agent: mirage-async (python/") for line in lines)
    assert body == POST.body


async def test_a_form_travels_as_multipart(transport: Transport) -> None:
    """Fields become parts with their names, in order."""
    received: list[tuple[str, str]] = []

    async def handle(request: web.BaseRequest) -> web.Response:
        assert request.content_type == "multipart/form-data"
        received.extend((name, str(value)) for name, value in (await request.post()).items())
        return web.Response()

    runner = web.ServerRunner(web.Server(handle))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    fields = (("prompt", "zwei Kätzchen\r\n--x"), ("width", "512"))
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    await exchanged(transport, url, Call(method="POST", path="/", body=Form(fields)))
    await runner.cleanup()
    assert received == list(fields)


@pytest.mark.parametrize("size", [(1 << 20) - 1, 1 << 20, 3 << 20])
async def test_a_large_body_is_sent_whole_and_without_warning(transport: Transport, size: int) -> None:
    """Bodies around and above 1 MiB arrive byte for byte with their length; warnings would fail this test."""
    async with serving(answering(OK)) as server:
        call = Call(method="POST", path="/", body=b"\xff" * size, content_type="application/json")
        await exchanged(transport, server.url, call)
        (request,) = server.requests
    head, _, body = request.partition(b"\r\n\r\n")
    assert body == call.body
    assert head.lower().count(b"content-type: application/json") == 1


# --- dead connections ---


async def first_then_close(server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer the first request of a connection as if to keep it, and drop it when the next one comes."""
    await server.read(reader)
    writer.write(OK)
    await writer.drain()
    await server.read(reader)


async def test_a_post_on_a_dead_connection_is_lost_and_not_repeated(transport: Transport) -> None:
    """A kept connection that breaks under a POST: nobody can say whether it was bought, so it is not sent again."""
    async with serving(first_then_close) as server:
        await exchanged(transport, server.url, GET)
        with pytest.raises(LostError, match="ServerDisconnected"):
            await exchanged(transport, server.url, POST)
        assert [request.split(b" ")[0] for request in server.requests] == [b"GET", b"POST"]
        assert server.connections == 1


async def test_a_get_on_a_dead_connection_is_repeated_once(transport: Transport) -> None:
    """A question costs nothing, so it may be asked again on a new connection."""
    async with serving(first_then_close) as server:
        await exchanged(transport, server.url, GET)
        assert (await exchanged(transport, server.url, GET)).body == b"ok"
        assert server.connections == 2
        assert len(server.requests) == 3


async def keeping(server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer every request of a connection until the client leaves."""
    while await server.read(reader):
        writer.write(OK)
        await writer.drain()


async def test_a_short_answer_is_read_in_little_room_and_a_long_one_in_large_pieces(
    transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On one connection, in turns: asyncio makes as much room as it asks a socket for, whatever comes."""
    asked: list[int] = []

    class Recorded(socket.socket):
        def recv(self, size: int, flags: int = 0) -> bytes:
            asked.append(size)
            return super().recv(size, flags)

        def recv_into(self, room: Any, size: int = 0, flags: int = 0) -> int:
            asked.append(len(room))
            return super().recv_into(room, size, flags)

    monkeypatch.setattr(socket, "socket", Recorded)
    long = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + bytes(1_000_000)

    async def alternating(server: RawServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in (OK, long, OK):
            await server.read(reader)
            asked.clear()
            writer.write(answer)
            await writer.drain()
            await server.turn.wait()
            server.turn.clear()

    async with serving(alternating) as server:
        for size in (2, 1_000_000, 2):
            reply = await soon(exchanged(transport, server.url, GET))
            assert len(reply.body) == size
            sizes = {_transport.SHORT_READ, *([1_000_000 // _bodies.SHARE] if size > 2 else [])}
            assert {each for each in asked if each >= _transport.SHORT_READ} >= sizes  # less is the end of the long one
            assert max(asked) == max(sizes)
            server.turn.set()
    assert server.connections == 1


async def test_connections_are_kept_and_used_again(transport: Transport) -> None:
    """Calls after each other share one connection."""
    async with serving(keeping) as server:
        for call in (GET, POST, GET):
            await exchanged(transport, server.url, call)
        assert (server.connections, len(server.requests)) == (1, 3)
        await transport.aclose()


# --- the key ---


@pytest.mark.parametrize("ours", [True, False])
async def test_the_key_goes_to_its_own_origin_only(ours: bool) -> None:
    """A request that goes elsewhere after all, in our session or a caller's, travels without the key."""
    session = aiohttp.ClientSession(request_class=_Request if ours else aiohttp.ClientRequest)
    async with serving(answering(OK)) as home, serving(answering(OK)) as away, session:
        endpoint = Endpoint(home.url, CREDENTIAL)
        passage = _Passage(endpoint, endpoint.url("/"))
        _passage.set(passage)
        for url in (passage.url, home.url, away.url):
            async with session.get(url, middlewares=() if ours else (passage,)) as response:
                assert response.status == 200
                assert KEY not in str(response.request_info)
        assert [KEY.encode() in request for request in home.requests] == [True, True]
        assert [KEY.encode() in request for request in away.requests] == [False]


@pytest.mark.parametrize("behave", [closing, answering(b"garbage\r\n\r\n"), silent])
async def test_no_failure_repeats_the_key(
    transport: Transport, behave: Callable[..., Awaitable[None]], caplog: pytest.LogCaptureFixture
) -> None:
    """Neither the error, nor what it drags along, nor the log knows the key or the prompt."""
    caplog.set_level(logging.DEBUG)
    async with serving(behave) as server:
        with pytest.raises(LostError) as caught:
            await exchanged(transport, server.url, silence=0.05)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    text = "".join(traceback.format_exception(caught.value)) + repr(vars(caught.value)) + caplog.text
    assert KEY not in text
    assert "a cat" not in text


async def test_a_key_quoted_back_is_cut_out(transport: Transport) -> None:
    """A provider that answers "invalid key ..." does not carry the key into an error."""
    body = f'{{"error": "invalid key {KEY}"}}'.encode()
    async with serving(answering(b"HTTP/1.1 401 No\r\nContent-Length: %d\r\n\r\n" % len(body) + body)) as server:
        reply = await exchanged(transport, server.url)
    assert reply.body == b'{"error": "invalid key <key>"}'


def test_an_endpoint_does_not_show_its_key() -> None:
    """The repr has the address."""
    endpoint = Endpoint("https://a.example", CREDENTIAL)
    assert repr(endpoint) == "<Endpoint https://a.example>"
    assert repr(endpoint.moved("https://b.example/x")) == "<Endpoint https://b.example/x>"


# --- addresses ---


@pytest.mark.parametrize(
    "url",
    [
        "",
        "a.example",
        "//a.example",
        "/path",
        "ftp://a.example",
        "http://",
        "http://user@a.example",
        "http://user:pw@a.example",
        "http://a.example?x=1",
        "http://a.example:port",
        "http://[::1",
        "file:///etc/passwd",
        None,
    ],
)
def test_a_base_url_must_be_an_absolute_http_address(url: Any) -> None:
    """No scheme, other schemes, users and queries are refused with what was given."""
    with pytest.raises(ConfigurationError, match="base_url must be an absolute http"):
        Endpoint(url, CREDENTIAL)


def test_a_base_url_with_a_fragment_is_refused() -> None:
    """A fragment would swallow the path of every request."""
    with pytest.raises(ConfigurationError, match="base_url must be an absolute http"):
        Endpoint("https://a.example/#x", CREDENTIAL)


@pytest.mark.parametrize(
    ("base_url", "whole"),
    [
        ("https://a.example", "https://a.example/v1/x"),
        ("https://a.example/", "https://a.example/v1/x"),
        ("http://127.0.0.1:8080/prefix/", "http://127.0.0.1:8080/prefix/v1/x"),
        ("HTTPS://A.example:443", "https://a.example/v1/x"),
    ],
)
def test_a_path_is_appended_to_the_base_url(base_url: str, whole: str) -> None:
    """Slashes meet once, prefixes stay."""
    assert str(Endpoint(base_url, CREDENTIAL).url("/v1/x")) == whole


@pytest.mark.parametrize(
    ("url", "loopback"),
    [
        ("http://localhost:1", True),
        ("http://LOCALHOST", True),
        ("http://127.0.0.1", True),
        ("http://127.8.9.10:80", True),
        ("http://[::1]:80", True),
        ("http://10.0.0.1", False),
        ("https://a.example", False),
        ("http://localhost.a.example", False),
        ("http://0.0.0.0", False),
    ],
)
def test_only_this_machine_is_loopback(url: str, *, loopback: bool) -> None:
    """A sandbox's address is told from everybody else's."""
    assert is_loopback(url) is loopback
    assert Endpoint(url, CREDENTIAL).loopback is loopback


def test_a_name_that_begins_like_a_loopback_address_is_none() -> None:
    """127.a.example is somebody else's machine: it needs a key, and its results are guarded."""
    assert not is_loopback("https://127.a.example")


# --- sessions ---


async def test_a_callers_own_session_is_used_and_left_open() -> None:
    """It keeps its middlewares, gets our hook once, and is not closed."""
    seen: list[str] = []

    async def middleware(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        seen.append(request.url.path)
        return await handler(request)

    async with serving(keeping) as server, aiohttp.ClientSession(middlewares=(middleware,)) as session:
        for _ in range(2):
            transport = Transport(SystemClock(), session=session)
            assert (await exchanged(transport, server.url, GET)).body == b"ok"
            await transport.aclose()
        assert not session.closed
        assert seen == ["/status", "/status"]
        assert len(session.trace_configs) == 1
        async with session.get(server.url + "/theirs") as response:
            assert await response.read() == b"ok"
        assert KEY.encode() not in server.requests[-1]


async def test_a_callers_session_tells_the_phases_apart_as_well() -> None:
    """The hook works in a session that was made elsewhere."""
    async with serving(closing) as server, aiohttp.ClientSession() as session:
        transport = Transport(SystemClock(), session=session)
        with pytest.raises(LostError):
            await exchanged(transport, server.url)
        with pytest.raises(NotSentError):
            await exchanged(transport, f"http://127.0.0.1:{unused_port()}")
        await transport.aclose()


async def test_a_closed_session_of_the_caller_sends_nothing() -> None:
    """A session somebody closed fails before a connection."""
    session = aiohttp.ClientSession()
    await session.close()
    transport = Transport(SystemClock(), session=session)
    with pytest.raises(NotSentError):
        await exchanged(transport, "http://a.example")


async def test_a_session_is_made_on_first_use_and_closed_at_the_end() -> None:
    """Nothing is opened before the first request, and nothing is left."""
    transport = Transport(SystemClock())
    assert transport._session is None
    async with serving(answering(OK)) as server:
        await exchanged(transport, server.url)
        session = transport._session
        assert session is not None
        await transport.aclose()
        assert session.closed
    await transport.aclose()


def test_reasons_never_quote_an_exception() -> None:
    """A reason is a class name and the system's own words, since texts of aiohttp may repeat the request."""
    assert _transport._reason(ValueError(KEY)) == "ValueError"
    assert _transport._reason(OSError(111, "Connection refused")) == "ConnectionRefusedError"
