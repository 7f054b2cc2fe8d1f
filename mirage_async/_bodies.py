"""The body of an answer, out of the socket and into the hands of whoever takes it, with as little as possible between.

Once the head of an answer has said how long its body is, and that the body is neither compressed nor in chunks, HTTP
has no more to say: so many bytes, and then the next answer. aiohttp makes an object of each piece it receives, another
one of what its parser finds in that, queues it, and wakes a task. For a picture of a few megabytes this takes as long
as decoding it. So for as long as such a body lasts, a protocol of asyncio's other kind, which has the socket fill a
room that is there already, stands in the place of aiohttp's. Connections, requests, heads, all other bodies, and what
comes faster than it is taken, stay aiohttp's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias

from aiohttp.client_proto import ResponseHandler

if TYPE_CHECKING:
    import aiohttp

__all__ = ["READ_BUFFER", "Bodies", "Body", "Take", "TooLongError", "read_at_once"]

Take: TypeAlias = Callable[[bytes | memoryview], object]
"""Gets a piece of a body, in the event loop. It never raises, and says something true to refuse the piece, which then
waits for its turn. What is no `bytes` is written over once it returns."""

# Bytes received at a time: a turn of the event loop costs as much as some 100 KiB, and a small share of a body adds
# little to what its picture takes.
LEAST_ROOM, MOST_ROOM, SHARE = 1 << 16, 1 << 19, 8
WORTH_PASSING: Final = 1 << 14  # bytes; for fewer, changing over and back takes more than it saves
LONG_READ = 3 << 17  # at most at a time where aiohttp receives, and has as much again in its queue
READ_BUFFER = LONG_READ // 2  # aiohttp stops reading above twice this, and would stop and start again for every piece
_SPARE_ROOMS: Final = 4  # kept for the next bodies; where more come at once, the others are made anew


class TooLongError(Exception):
    """The body is, or will be, longer than it may be; its text says how many bytes it may have."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"larger than {limit} bytes")


def read_at_once(transport: Any, size: int) -> None:
    """Have asyncio ask for at most so many bytes at a time on a connection.

    It makes room for as many before it reads, and gives back what it did not need. Room for the 256 KiB that it asks
    for by itself is mapped by the system, shrunk and unmapped again, for an answer of a hundred bytes as well: a tenth
    of the CPU of a short exchange. An event loop that knows no such number (uvloop's reads into one buffer for all)
    keeps its way, and over TLS only what is decrypted has less room: what that comes from never shrinks again.
    """
    reader = getattr(transport, "_ssl_protocol", transport)  # over TLS it is what decrypts that makes the room
    if hasattr(reader, "max_size"):
        reader.max_size = size


class Bodies:
    """The bodies of one pool's answers, and room for the next ones."""

    __slots__ = ("_rooms",)

    def __init__(self) -> None:
        self._rooms: list[memoryview] = []

    def of(self, response: aiohttp.ClientResponse, take: Take, *, limit: int) -> Body:
        """Return the body of an answer whose head is read and whose body nobody has asked for yet."""
        return Body(self, response, take, limit=limit)

    def room(self, length: int) -> memoryview:
        """Return room for the pieces of a body of this length."""
        size = _piece_of(length)
        spare = self._rooms.pop() if self._rooms else memoryview(b"")
        return spare if len(spare) >= size else memoryview(bytearray(size))

    def give_back(self, room: memoryview) -> None:
        """Keep room that nobody writes to any more."""
        if len(self._rooms) < _SPARE_ROOMS:
            self._rooms.append(room)


def _piece_of(length: int) -> int:
    return max(LEAST_ROOM, min(MOST_ROOM, length // SHARE))


class Body:
    """One body on its way, for the block of a `with` statement. Whatever still comes after that is dropped.

    Args:
        bodies: that lend the room.
        response: the answer.
        take: gets every piece.
        limit: bytes it may have at most.

    Attributes:
        received: bytes so far.
    """

    __slots__ = ("_begun", "_bodies", "_limit", "_may_pass", "_refusing", "_response", "_room", "_take", "received")

    def __init__(self, bodies: Bodies, response: aiohttp.ClientResponse, take: Take, *, limit: int) -> None:
        self._bodies, self._response, self._take, self._limit = bodies, response, take, limit
        self._begun = False
        self._may_pass = False  # by aiohttp, once what came with the head is taken
        self._refusing = False  # what comes has to queue behind what is refused already
        self._room: memoryview | None = None  # that it passes through
        self.received = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._take = _drop  # a connection that is being closed may still bring something
        room, self._room = self._room, None
        # Where the body has not ended, the room is left to the garbage collector: it may still be written to.
        if room is not None and self._response.content.at_eof():
            self._bodies.give_back(room)

    async def refused(self) -> bytes:
        """Hand over piece after piece until one is refused, and return that one; nothing once the body has ended.

        Cancelling raises through; the connection is of no use to anybody then, and the response closes it.

        Raises:
            TooLongError: it is longer than it may be; the connection is closed.
            aiohttp.ClientError, OSError: as `response.content` raises them for a body that is not whole.
        """
        if not self._begun:
            self._begin()
        stream = self._response.content
        while True:
            piece = stream.read_nowait()
            if not piece:
                self._refusing = False
                if self._may_pass:
                    self._pass_by()
                piece = await stream.readany()
                if not piece:
                    return b""
            if self._refusing:  # it was counted and offered when it came
                return piece
            self.received += len(piece)
            if self.received > self._limit:  # a declared length says nothing about a compressed body
                raise self._too_long()
            if self._take(piece):
                return piece
            del piece  # not held while the next one is read: three copies of it are

    def comes(self, piece: memoryview) -> None:
        """Take a piece that passes by, or have it queue."""
        stream = self._response.content
        self.received += len(piece)
        if self._refusing or self._take(piece):
            self._refusing = True
            stream.feed_data(bytes(piece))  # and where that is too much, aiohttp has the connection wait
        else:
            stream.total_bytes += len(piece)

    def ends(self) -> None:
        """All of it has passed by."""
        self._response.content.feed_eof()

    def _begin(self) -> None:
        self._begun = True
        response, headers = self._response, self._response.headers
        length, connection = response.content_length, response.connection
        if length is not None and length > self._limit:
            raise self._too_long()
        if connection is not None:  # not all of it has come with the head
            plain = "Transfer-Encoding" not in headers and "Content-Encoding" not in headers
            self._may_pass = plain and length is not None
            read_at_once(connection.transport, LONG_READ if length is None else min(LONG_READ, _piece_of(length)))

    def _pass_by(self) -> None:
        self._may_pass = False
        connection, length = self._response.connection, self._response.content_length or 0
        handler = None if connection is None else connection.protocol
        left = length - self._response.content.total_bytes
        if left < WORTH_PASSING or not isinstance(handler, ResponseHandler) or handler.transport is None:
            return
        self._room = self._bodies.room(length)
        handler.transport.set_protocol(_Passing(self, handler, handler.transport, left, self._room))

    def _too_long(self) -> TooLongError:
        self._response.close()  # not given back to the pool: the rest is still on its way
        return TooLongError(self._limit)


def _drop(_piece: bytes | memoryview) -> None:
    """Take a piece for nobody."""


class _Passing(asyncio.BufferedProtocol):
    """Receives so many bytes in the place of aiohttp's protocol, and gives the connection back with the last one."""

    __slots__ = ("_body", "_handler", "_left", "_room", "_transport")

    def __init__(
        self, body: Body, handler: ResponseHandler, transport: asyncio.Transport, left: int, room: memoryview
    ) -> None:
        self._body, self._handler, self._transport = body, handler, transport
        self._left, self._room = left, room

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the room is what it is
        """Offer more room than the body needs: what a server sends beyond it must not wait for the next answer."""
        room = self._room
        return room[:-1] if len(room) == self._left else room

    def buffer_updated(self, nbytes: int) -> None:
        """Pass on what has come."""
        handler = self._handler
        handler.start_timeout()  # anew, as for every piece it receives itself
        mine = min(nbytes, self._left)
        self._left -= mine
        self._body.comes(self._room[:mine])
        if not self._left:
            if bytes(self._room[mine:nbytes]).strip(b"\r\n"):  # line ends are what HTTP forgives
                handler.force_close()
            self._transport.set_protocol(handler)
            # Its parser still waits for the body that has passed it by. The next request would give it a new one in
            # any case; until then that one takes for a broken answer, and hangs up on, what a server sends unasked.
            handler.set_response_params()
            self._body.ends()
            self._let_go()

    def _let_go(self) -> None:
        """Hold nothing: asyncio's TLS and uvloop keep the methods of a protocol whose place another one has taken."""
        del self._body, self._handler, self._room, self._transport

    def eof_received(self) -> None:
        """Leave it to aiohttp's protocol, as everything that is no body."""
        self._handler.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave it to aiohttp's protocol, which tells whoever waits that the body is not whole."""
        self._handler.connection_lost(exc)
        self._let_go()

    def pause_writing(self) -> None:
        """Leave it to aiohttp's protocol: an answer may come before all of the request is sent."""
        self._handler.pause_writing()

    def resume_writing(self) -> None:
        """Leave it to aiohttp's protocol."""
        self._handler.resume_writing()
