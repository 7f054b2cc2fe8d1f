"""Sockets: one connection pool, one exchange at a time, and a verdict on how far a failed one got.

Everything that decides about money rests on one question: had a connection been obtained when the exchange failed?
Exception types do not answer it (a garbage reply to a delivered POST looks like "400 Bad Request", a plain
`TimeoutError` may mean anything), the moment aiohttp hands a request to a connection does. So each exchange is a
`_Passage`, which is marked in that moment, and a failure becomes `NotSentError` or `LostError` by that mark alone.

Three habits of aiohttp shape this file. It repeats an idempotent request once by itself when a kept-alive connection
turns out dead, so a server may count one status call twice; a POST is never repeated. Its `total` timeout can swallow
a cancellation that lands in the same turn of the loop, so it is off and deadlines are set around it. And it stores
request headers in its exceptions, so the key is attached late, removed early, and no aiohttp exception leaves this
file.
"""

from __future__ import annotations

import hashlib
import io
import ipaddress
import math
import platform
import weakref
from contextvars import ContextVar
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import aiohttp
import anyio
import msgspec
from yarl import URL

from mirage_async._bodies import READ_BUFFER, Bodies, TooLongError, read_at_once
from mirage_async._clock import SystemClock
from mirage_async._deadlines import Deadlines
from mirage_async.exceptions import ConfigurationError, MirageError
from mirage_async.wire import Form, PictureReader, Reply

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping
    from types import SimpleNamespace

    from aiohttp.connector import Connection

    from mirage_async._clock import Clock
    from mirage_async.wire import Call

__all__ = ["Endpoint", "LostError", "NotSentError", "Transport"]

CONNECT_TIMEOUT = 15.0  # seconds for TCP and TLS together with the proxy; nothing has been sent by then
# Servers commonly drop an idle connection after 5 s (Node's default). Leaving first means a POST practically never
# goes out on a connection that is being closed at that moment, which could not be told from a lost reply.
KEEP_ALIVE = 4.0
PAID_POSTS_AT_ONCE = 512  # well below the common limit of 1,024 open files, leaving room for polls and downloads
SHORT_READ = 1 << 14  # bytes asked of a socket at a time: answers are short, but for those that bring pictures
STREAMED_FROM = 1 << 16  # bytes of an answer; below, reading it whole is as quick and takes no memory to speak of
SHORTEST_SECRET = 8  # characters; a shorter "key" is a placeholder and might be an ordinary word of an answer
LONGEST_QUOTE = 1 << 16  # bytes; an answer longer than this is a picture, not a complaint about a key
_NO_PICTURES: Mapping[bytes, bytes | None] = MappingProxyType({})
_LARGE_BODY = 1 << 20  # aiohttp warns about larger `bytes` bodies; a payload object of its own does not
_USER_AGENT = f"mirage-async (python/{platform.python_version()}; aiohttp/{aiohttp.__version__})"


_HEADERS = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": _USER_AGENT}


class NotSentError(MirageError):
    """No connection was obtained: not a byte of the request left this machine."""


class LostError(MirageError):
    """A connection was obtained and no whole answer came: the server may have everything or nothing."""


class Endpoint:
    """A provider's address and the key for it; the key never leaves for another origin.

    Args:
        base_url: scheme, host and optional port and path prefix.
        credential: name and value of the header with the key.
    """

    __slots__ = ("_key", "_origin", "_prefix", "base_url", "credential", "loopback")

    def __init__(self, base_url: str, credential: tuple[str, str]) -> None:
        self.base_url = checked_base_url(base_url)
        self._origin = self.base_url.origin()
        self._prefix = str(self.base_url).rstrip("/")
        self.credential = credential
        key = credential[1].rpartition(" ")[2].encode()
        self._key = key if len(key) >= SHORTEST_SECRET else None
        self.loopback = is_loopback(base_url)

    def is_home(self, url: URL) -> bool:
        """Whether the key may travel to `url`."""
        return url.origin() == self._origin

    def without_key(self, body: bytes) -> bytes:
        """Return an answer with our key cut out, in case the provider quotes it back ("invalid key ...")."""
        if self._key is not None and len(body) <= LONGEST_QUOTE and self._key in body:
            return body.replace(self._key, b"<key>")
        return body

    @property
    def identity(self) -> tuple[URL, str, str]:
        """What makes it one account at one address; holds the key."""
        return self.base_url, *self.credential

    @property
    def alias(self) -> str:
        """A short name for that, 12 hexadecimal digits, which tells nothing of the key."""
        text = "\n".join((str(self.base_url), *self.credential))
        return hashlib.blake2b(text.encode(), digest_size=6, person=b"mirage_async").hexdigest()

    def same_as(self, other: Endpoint) -> bool:
        """Whether both are one account at one address."""
        return self.identity == other.identity

    def moved(self, base_url: str) -> Endpoint:
        """Return an endpoint with the same key at another address."""
        return Endpoint(base_url, self.credential)

    def url(self, path: str) -> URL:
        """Return the whole address of `path`, which codecs build from safe characters only."""
        return URL(self._prefix + path, encoded=True)

    def __repr__(self) -> str:
        return f"<Endpoint {self.base_url}>"


def checked_base_url(text: str) -> URL:
    """Return a provider's address; `ConfigurationError` unless it is absolute http(s) without user, query, fragment."""
    try:
        url = URL(text)
    except (ValueError, TypeError):
        url = URL()
    if url.scheme not in {"http", "https"} or not url.host or url.user is not None or url.query_string or url.fragment:
        shown = (
            repr(text) if isinstance(text, str) and not set("@?#") & set(text) else "one with parts that may be secret"
        )
        msg = f"base_url must be an absolute http(s) address without user, query and fragment; got {shown}"
        raise ConfigurationError(msg)
    return url


def is_loopback(base_url: str) -> bool:
    """Whether an address names this very machine, as a sandbox's does.

    Raises:
        ConfigurationError: it is no address.
    """
    host = checked_base_url(base_url).host or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _Passage(msgspec.Struct, eq=False, gc=False):
    """One exchange on its way: has the key put into the request as it leaves, and knows whether it has left.

    The key is set only when the request really goes to the endpoint's origin, and taken away again once it is written,
    so that neither the response nor an exception carries it.
    """

    endpoint: Endpoint
    url: URL
    connected: bool = False

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Be client middleware, in a session whose class of requests is not ours to choose."""
        if not self.endpoint.is_home(request.url):
            return await handler(request)
        name, value = self.endpoint.credential
        request.headers[name] = value
        try:
            return await handler(request)
        finally:
            request.headers.pop(name, None)


_passage: ContextVar[_Passage] = ContextVar("passage")


class _Request(aiohttp.ClientRequest):
    """A request of a session of our own, which meets its passage in the moment it is handed to a connection.

    Tracing would tell that moment, too, together with a dozen things nobody asked about, and cost a third of the call.
    """

    async def send(self, conn: Connection) -> aiohttp.ClientResponse:
        passage = _passage.get()
        passage.connected = True
        read_at_once(conn.transport, SHORT_READ)
        if self.url is not passage.url and not passage.endpoint.is_home(self.url):
            return await super().send(conn)
        name, value = passage.endpoint.credential
        self.headers[name] = value
        try:
            return await super().send(conn)
        finally:
            self.headers.pop(name, None)


async def _mark(_session: aiohttp.ClientSession, context: SimpleNamespace, _params: object) -> None:
    passage = getattr(context, "trace_request_ctx", None)
    if isinstance(passage, _Passage):
        passage.connected = True


def _tracing() -> aiohttp.TraceConfig:
    """Return what marks the passages of a session we did not make, whose class of requests is not ours to choose."""
    tracing = aiohttp.TraceConfig()
    tracing.on_connection_create_end.append(_mark)
    tracing.on_connection_reuseconn.append(_mark)
    tracing.freeze()
    return tracing


class Transport:
    """The pool every client of one hub shares.

    Args:
        clock: for the moment an answer arrived.
        session: a caller's own session, used as it is and never closed; it gets one tracing hook, which stays silent
            for requests that are not ours. None makes a session on first use.
        proxy: address of an HTTP proxy for every request, or None.
    """

    def __init__(self, clock: Clock, *, session: aiohttp.ClientSession | None = None, proxy: str | None = None) -> None:
        self._clock = clock
        self._given = session
        self._session: aiohttp.ClientSession | None = None
        self._closed = False
        self._deadlines = Deadlines(SystemClock())  # sockets know no other time
        self._bodies = Bodies()
        self.proxy = proxy
        self.paid_posts = anyio.CapacityLimiter(PAID_POSTS_AT_ONCE)

    def _ready_session(self) -> aiohttp.ClientSession:
        if self._closed:
            msg = "the connection pool is closed"
            raise NotSentError(msg)
        if self._given is not None and self._given.closed:
            msg = "the session passed to the client is closed"
            raise NotSentError(msg)
        if self._session is None:
            if self._given is not None:
                _equip(self._given)
                self._session = self._given
            else:
                self._session = aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE),
                    cookie_jar=aiohttp.DummyCookieJar(),
                    headers=_HEADERS,
                    request_class=_Request,
                    proxy=self.proxy,
                    trust_env=False,
                    read_bufsize=READ_BUFFER,
                )
        return self._session

    async def exchange(
        self, endpoint: Endpoint, call: Call, *, silence: float | None = None, deadline: float | None = None
    ) -> Reply:
        """Send one request and read its answer whole; redirects are returned, not followed.

        Cancelling raises through at once; what had been sent by then stays sent.

        Args:
            endpoint: where to, and with which key.
            call: what.
            silence: seconds without a byte after which the answer counts as lost, or None.
            deadline: seconds for the whole exchange, or None. A caller that gives neither watches over it itself.

        Raises:
            NotSentError: no connection was obtained.
            LostError: the connection broke, stayed silent, or carried something that is no answer.
        """
        passage = _Passage(endpoint, endpoint.url(call.path))
        try:
            with self._deadlines.within(deadline):
                response = await self._request(call, passage, silence)
                body, pictures = _body_at_hand(response, call), _NO_PICTURES
                if body is None:
                    async with response:
                        body, pictures = await self._read_body(response, call)
            return Reply(
                status=response.status,
                headers=response.headers,
                body=endpoint.without_key(body),
                received_at=self._clock.time(),
                pictures=pictures,
            )
        except TimeoutError:
            waited = min(each for each in (silence, deadline, math.inf) if each is not None)
            if passage.connected:
                reason = f"no answer within {waited:g} s"
            else:
                reason = f"no connection within {min(CONNECT_TIMEOUT, waited):g} s"
        except (aiohttp.ClientError, OSError, ValueError, AssertionError, RuntimeError) as error:
            # Names only: texts and attributes of these may repeat the request, key and all.
            reason = _reason(error)
        except TooLongError as error:
            reason = f"the answer is {error}"
        # Raised outside the handlers so that the original, which knows the request, is not dragged along.
        if passage.connected:
            raise LostError(reason)
        raise NotSentError(reason)

    def _request(self, call: Call, passage: _Passage, silence: float | None) -> Awaitable[aiohttp.ClientResponse]:
        session = self._session
        if session is None or session is self._given:
            session = self._ready_session()
        if session is self._given:
            return self._request_in(session, call, passage, silence)
        _passage.set(passage)
        return session.request(
            call.method,
            passage.url,
            data=None if call.body is None else _payload(call.body, call.content_type),
            headers=None if call.content_type is None else {"Content-Type": call.content_type},
            allow_redirects=False,
            timeout=_timeouts(silence),
        )

    def _request_in(
        self, session: aiohttp.ClientSession, call: Call, passage: _Passage, silence: float | None
    ) -> Awaitable[aiohttp.ClientResponse]:
        """Make a request in a caller's session, which has headers, middlewares and habits of its own."""
        headers = _HEADERS if call.content_type is None else {**_HEADERS, "Content-Type": call.content_type}
        return session.request(
            call.method,
            passage.url,
            data=None if call.body is None else _payload(call.body, call.content_type),
            headers=headers,
            allow_redirects=False,
            raise_for_status=False,  # the session may raise; a refusal must not look like a lost answer
            proxy=self.proxy,
            timeout=_timeouts(silence),
            trace_request_ctx=passage,
            # The session's own would be replaced by ours.
            middlewares=(*(getattr(session, "_middlewares", ()) or ()), passage),
        )

    async def _read_body(
        self, response: aiohttp.ClientResponse, call: Call
    ) -> tuple[bytes, Mapping[bytes, bytes | None]]:
        """Read the answer; the pictures of a good one are decoded while they come in."""
        length, limit = response.content_length, call.max_reply_bytes
        good = 200 <= response.status < 300  # noqa: PLR2004 - HTTP's own numbers
        if good and call.picture_fields and (length is None or length >= STREAMED_FROM):
            reader = PictureReader(call.picture_fields, length=min(length or 0, limit))
            with self._bodies.of(response, reader.feed, limit=limit) as body:
                await body.refused()  # nothing is
            return reader.finish()
        pieces: list[bytes] = []
        with self._bodies.of(response, lambda piece: pieces.append(bytes(piece)), limit=limit) as body:
            await body.refused()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces), _NO_PICTURES

    async def aclose(self) -> None:
        """Close the pool for good; a caller's own session stays open."""
        self._closed = True
        session, self._session = self._session, None
        if session is not None and session is not self._given:
            await session.close()


@lru_cache(maxsize=64)
def _timeouts(silence: float | None) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT, sock_read=silence)


def _body_at_hand(response: aiohttp.ClientResponse, call: Call) -> bytes | None:
    """Return a short answer that came whole with its head, as they do; None where there is more to it.

    Its connection is back in the pool by then, so there is nothing to tidy up.
    """
    content = response.content
    if response.connection is not None or not content.is_eof():
        return None
    length = content.total_bytes
    return content.read_nowait() if length < STREAMED_FROM and length <= call.max_reply_bytes else None


def _payload(body: bytes | Form, content_type: str | None) -> Any:
    if isinstance(body, Form):
        form = aiohttp.FormData(default_to_multipart=True)
        for name, value in body.fields:
            form.add_field(name, value)
        return form
    return body if len(body) < _LARGE_BODY else aiohttp.BytesIOPayload(io.BytesIO(body), content_type=content_type)


def _reason(error: BaseException) -> str:
    cause = getattr(error, "os_error", None)
    if isinstance(cause, OSError) and cause.strerror:
        return f"{type(error).__name__}: {cause.strerror}"
    return type(error).__name__


_equipped: weakref.WeakSet[aiohttp.ClientSession] = weakref.WeakSet()


def _equip(session: aiohttp.ClientSession) -> None:
    """Add our tracing hook to a caller's session, once."""
    if session not in _equipped:
        session.trace_configs.append(_tracing())
        _equipped.add(session)
