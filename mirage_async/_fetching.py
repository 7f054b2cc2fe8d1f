"""One attempt at one link: sockets without credentials, checked where no trick gets past, and bytes held to account.

A link is somebody else's text, so by default it is followed only over https and only to public addresses. Names and
redirects make that unknowable in advance; the check that counts happens when a socket is made, for every address.
"""

from __future__ import annotations

import contextlib
import errno
import math
import socket
from typing import TYPE_CHECKING, Any, Protocol

import aiohttp
import anyio
import anyio.lowlevel
from yarl import URL

from mirage_async import media
from mirage_async._addresses import check_link, is_public, without_query
from mirage_async._bodies import READ_BUFFER, Bodies, TooLongError, read_at_once
from mirage_async._clock import SystemClock
from mirage_async._deadlines import Deadline, Deadlines
from mirage_async.exceptions import ClosedError, DownloadError
from mirage_async.wire import Reply
from mirage_async.wire._retry_after import from_header

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from types import TracebackType

    from aiohttp.connector import Connection

    from mirage_async._bodies import Body
    from mirage_async._clock import Clock
    from mirage_async._deadlines import Timeout

__all__ = ["AgainError", "Fetcher", "GoneError", "Sink"]

ATTEMPT_BOUND = 300.0  # seconds for one attempt; only a body that drips in needs longer
HEAD_BOUND = 40.0  # seconds from dialling to the head of the answer
SILENCE_BOUND = 30.0  # seconds without a byte of the body
MAX_HOPS = 5  # redirects
# Bytes kept for the check: of the front as many as nearly every header fits in, many more where one does not (there
# may be a lot of metadata in it), and of the back those with the end markers.
_HEAD, _LONGEST_HEAD, _TAIL = 8 << 10, 256 << 10, 64
_FIRST_READ = 1 << 16  # bytes that may come with the head: they take aiohttp's way, where each is copied once more

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_EXPIRED = frozenset({401, 403, 404, 410})
_BUSY = frozenset({408, 425, 429})
_HEADERS = {"Accept": "image/*", "Accept-Encoding": "identity", "User-Agent": "mirage-async"}
# No `sock_read`: aiohttp would set a timer and call it off for every chunk.
_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=10)


class AgainError(Exception):
    """This attempt failed in a way the next one may not; `floor` is the server's Retry-After in seconds."""

    def __init__(self, reason: str, floor: float | None = None) -> None:
        super().__init__(reason)
        self.floor = floor


class GoneError(Exception):
    """The server no longer honours the link."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the server answers {status}")
        self.status = status


class _Request(aiohttp.ClientRequest):
    """A request that has its connection read little at first: the head, and what of the picture may come with it.

    Not over TLS, where a connection that was read from in large pieces goes on like that.
    """

    async def send(self, conn: Connection) -> aiohttp.ClientResponse:
        read_at_once(conn.transport, _FIRST_READ)
        return await super().send(conn)


class _PrivateAddressError(OSError):
    """The guard refused to dial; its text is always the same, so that several of them stay one error."""

    def __init__(self) -> None:
        super().__init__(errno.EACCES, "not a public address")


def _guard(info: tuple[Any, ...]) -> socket.socket:
    """Make the socket for one resolved address, or refuse.

    The one place every connection passes, whether its address came from a literal, a name or a redirect, and there is
    no second look-up between this check and the dialling that could give another answer.
    """
    family, kind, protocol, _, address = info
    if not is_public(address[0]):
        raise _PrivateAddressError
    return socket.socket(family, kind, protocol)


class Sink(Protocol):
    """Where the bytes of one download go."""

    async def restart(self) -> None:
        """Forget everything; another attempt begins."""

    def take(self, piece: bytes | memoryview, coming: int) -> bool:
        """Take the next bytes, if that is possible at once, and say whether; never raises.

        Args:
            piece: them; written over afterwards, where it is no `bytes`.
            coming: how many more will follow as far as announced, 0 where nobody knows.
        """
        ...

    async def wait_for(self, piece: bytes) -> None:
        """Take bytes that were not taken; raises what keeps it from that."""


class Fetcher:
    """A connection pool for result links; it never sees a key.

    Args:
        clock: for dates in Retry-After.
        proxy: address of an HTTP proxy, or None. A proxy resolves host names itself, so behind one no dialled address
            can be checked; links with a private literal address are still refused.
        limit: attempts at once, at least 1.
        max_bytes: the largest picture accepted.
    """

    def __init__(self, *, clock: Clock, proxy: str | None, limit: int, max_bytes: int) -> None:
        self._clock = clock
        self._proxy = proxy
        self._max_bytes = max_bytes
        # Two pools: a connection to a private address, rightly made, must never serve a link that may not reach one.
        self._sessions: dict[bool, aiohttp.ClientSession] = {}
        self._deadlines = Deadlines(SystemClock())  # sockets know no other time
        self._open = Deadlines(SystemClock())  # what ends when the pool is closed
        self._bodies = Bodies()
        self.slots = anyio.CapacityLimiter(limit)
        self.closed = False

    @property
    def state(self) -> str:
        """What a `repr` says about it."""
        return "closed" if self.closed else f"{self.slots.borrowed_tokens} of {self.slots.total_tokens:g} busy"

    def check_open(self) -> None:
        """Raise `ClosedError` after `aclose()`."""
        if self.closed:
            raise ClosedError("the client was closed before this picture was read", billed="yes")

    def until_closed(self) -> UntilClosed:
        """Return a context manager that runs its block to the end, or cuts it short when the pool is closed.

        Closing a session does not wake whoever reads from one of its connections; this does.
        """
        return UntilClosed(self, self._open)

    async def take_slot(self, sink: Sink) -> None:
        """Wait until there are few enough attempts at once for one more; `give_slot_back` ends it."""
        try:
            self.slots.acquire_on_behalf_of_nowait(sink)
        except anyio.WouldBlock:
            await self.slots.acquire_on_behalf_of(sink)

    def give_slot_back(self, sink: Sink) -> None:
        """Let somebody else have a slot."""
        self.slots.release_on_behalf_of(sink)

    def stop(self) -> None:
        """Refuse further work and cut short what runs."""
        self.closed = True
        self._open.end_all()

    async def aclose(self) -> None:
        """Close the pool, now and for good. May be called twice."""
        self.stop()
        await anyio.lowlevel.checkpoint()  # those cut short let go of their connections first
        while self._sessions:
            _, session = self._sessions.popitem()
            await session.close()

    def _session(self, *, allow_private: bool) -> aiohttp.ClientSession:
        session = self._sessions.get(allow_private)
        if session is None:
            guard = None if allow_private or self._proxy is not None else _guard
            session = self._sessions[allow_private] = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, socket_factory=guard),
                request_class=_Request,
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
                auto_decompress=False,
                headers=_HEADERS,
                timeout=_TIMEOUT,
                read_bufsize=READ_BUFFER,
            )
        return session

    async def attempt(self, url: str, sink: Sink, *, allow_private: bool) -> tuple[media.Facts, int]:
        """Try once; return what the header of the picture says and its length in bytes.

        The caller holds one of the `slots` and works inside `until_closed()`. Cancelling raises through and drops the
        connection.

        Raises:
            AgainError: another attempt may go better.
            GoneError: the link is no longer honoured.
            DownloadError: this link will never lead to a picture.
        """
        # A scope of anyio's, unlike our deadlines, waits for a thread that writes: the next attempt has the same file.
        with anyio.move_on_after(ATTEMPT_BOUND):
            return await self._fetch(url, sink, allow_private=allow_private)
        raise AgainError(f"not finished within {ATTEMPT_BOUND:g} s")

    async def _fetch(self, url: str, sink: Sink, *, allow_private: bool) -> tuple[media.Facts, int]:
        await sink.restart()
        seen = _Seen()
        # The sink waits outside the generator: a full disk must not be taken for trouble with the connection.
        async with contextlib.aclosing(self._stream(url, sink, seen, allow_private=allow_private)) as pieces:
            async for piece in pieces:
                await sink.wait_for(piece)
                seen.add(piece)
        return seen.facts(), seen.length

    async def _stream(self, url: str, sink: Sink, seen: _Seen, *, allow_private: bool) -> AsyncGenerator[bytes, None]:
        """Hand over the body behind a link piece by piece, and yield those that the sink cannot take at once.

        Redirects are followed; every hop is checked like the first.

        Args:
            url: the link.
            sink: gets each piece, with how many bytes are still to come as far as announced.
            seen: looks at those it takes.
            allow_private: follow it to any address.
        """
        link = check_link(url, allow_private=allow_private)
        session = self._session(allow_private=allow_private)
        for _ in range(MAX_HOPS + 1):
            try:
                with self._deadlines.movable(HEAD_BOUND) as patience:
                    async with session.get(link, allow_redirects=False, proxy=self._proxy) as response:
                        target = _next_hop(response, allow_private=allow_private)
                        if target is None:
                            self._check(response)
                            with self._body(response, sink, seen, patience) as body:
                                while piece := await body.refused():
                                    patience.rest()  # a slow disk is no silence
                                    yield piece
                                    patience.renew(SILENCE_BOUND)
                            return
                        link = target
            except TooLongError as error:
                shown = without_query(str(link))
                failure: Exception = DownloadError(f"{error}: {shown}", url=shown)
            except (aiohttp.ClientError, OSError, ValueError, AssertionError, RuntimeError) as error:
                failure = _failure(error, url)
            else:
                continue
            raise failure  # outside the handler: what aiohttp raises holds whole addresses and headers
        raise DownloadError(f"more than {MAX_HOPS} redirects", url=without_query(url))

    def _check(self, response: aiohttp.ClientResponse) -> None:
        """Raise unless the answer is a picture's, as far as its head can tell."""
        status = response.status
        if status in _EXPIRED:
            raise GoneError(status)
        if status in _BUSY or status >= 500:  # noqa: PLR2004 - server errors
            reply = Reply(status=status, headers=response.headers, received_at=self._clock.time())
            raise AgainError(f"the server answers {status}", from_header(reply))
        if status != 200:  # noqa: PLR2004 - a part (206) or nothing (204, 304) is no picture
            raise _refusal(f"the server answers {status}", response)
        encoding = response.headers.get("Content-Encoding", "identity")
        if encoding.strip().lower() not in {"", "identity"}:
            raise _refusal(f"the server sends {encoding[:20]!r} though it was asked not to", response)

    def _body(self, response: aiohttp.ClientResponse, sink: Sink, seen: _Seen, patience: Timeout) -> Body:
        """Return the body of a picture, whose every piece gives the next one time."""
        coming = response.content_length or 0

        def take(piece: bytes | memoryview) -> bool:  # does not know the body, which knows it: a cycle would keep much
            nonlocal coming
            coming -= len(piece)
            patience.renew(SILENCE_BOUND)
            if not sink.take(piece, max(coming, 0)):
                return True
            seen.add(piece)
            return False

        patience.renew(SILENCE_BOUND)
        return self._bodies.of(response, take, limit=self._max_bytes)


class UntilClosed(Deadline):
    """A block that ends with `ClosedError` when the pool is closed."""

    __slots__ = ("_fetcher",)

    def __init__(self, fetcher: Fetcher, open_: Deadlines) -> None:
        super().__init__(open_, math.inf)
        self._fetcher = fetcher

    def __enter__(self) -> None:
        self._fetcher.check_open()
        self.begin()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.has_ended(exc_type):
            self._fetcher.check_open()


class _Seen:
    """What tells whether a picture is whole: its beginning, its end and its length."""

    __slots__ = ("_head", "_tail", "_wanted", "length")

    def __init__(self) -> None:
        self._head = b""
        self._wanted = _HEAD  # bytes of the beginning
        self._tail = b""
        self.length = 0

    def add(self, piece: bytes | memoryview) -> None:
        """Look at the next piece."""
        kept = len(self._head)
        if kept < self._wanted:
            self._head += bytes(piece[: self._wanted - kept])
            if len(self._head) == self._wanted == _HEAD and not media.shows_all(self._head):
                self._wanted = _LONGEST_HEAD
                self._head += bytes(piece[_HEAD - kept : _LONGEST_HEAD - kept])
        self._tail = (self._tail + bytes(piece[-_TAIL:]))[-_TAIL:]
        self.length += len(piece)

    def facts(self) -> media.Facts:
        """Return what the header of the picture says.

        Raises:
            AgainError: it is none, or not all of one.
        """
        facts = media.inspect(self._head)
        reason = media.incomplete(self._head, self._tail, self.length, facts=facts)
        if facts is None or reason is not None:
            raise AgainError(f"the answer is {reason}" if facts is None else f"{reason}")
        return facts


def _refusal(reason: str, response: aiohttp.ClientResponse) -> DownloadError:
    """Return the error for an answer that will never be a picture."""
    shown = without_query(str(response.url))
    return DownloadError(f"{reason}: {shown}", url=shown)


def _next_hop(response: aiohttp.ClientResponse, *, allow_private: bool) -> URL | None:
    """Return where a redirect leads, or None for an answer that is none."""
    if response.status not in _REDIRECTS:
        return None
    location = response.headers.get("Location", "")
    try:
        target = str(response.url.join(URL(location, encoded=location.isascii())))
    except ValueError:
        target = location
    return check_link(target, allow_private=allow_private)


def _failure(error: Exception, url: str) -> Exception:
    """Translate what aiohttp raises: names and reasons only, its attributes hold addresses and headers."""
    shown = without_query(url)
    cause = getattr(error, "os_error", None)
    if isinstance(cause, _PrivateAddressError):
        return DownloadError(f"link refused, it does not lead to a public address: {shown}", url=shown)
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return DownloadError(f"the server's certificate is not valid: {shown}", url=shown)
    detail = f" ({cause.strerror})" if isinstance(cause, OSError) and cause.strerror else ""
    return AgainError(f"{type(error).__name__}{detail}")
