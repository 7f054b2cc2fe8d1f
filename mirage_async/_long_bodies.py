"""The body of a long answer, out of the socket and into the hands of whoever takes it, with nothing in between.

Once the head of an answer has said how long its body is, and that the body is neither compressed nor in chunks, HTTP
has no more to say: so many bytes, and then the next answer. aiohttp makes an object of each piece it receives, another
one of what its parser finds in that, and wakes a task for it. For a picture of a few megabytes this takes as long as
the decoding. So for as long as such a body lasts, a protocol of asyncio's other kind, which has the socket fill a room
that is there already, stands in the place of aiohttp's. Connections, requests, heads and all other bodies stay
aiohttp's.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    import aiohttp
    from aiohttp.client_proto import ResponseHandler

__all__ = ["LongBodies"]

# Bytes received at a time: an eighth of a body adds little to what its picture takes; less than the smaller number
# takes many turns of the event loop, more than the larger one fits no cache.
LEAST_ROOM, MOST_ROOM, SHARE = 1 << 16, 3 << 17, 8
_SPARE_ROOMS: Final = 4  # kept for the next bodies; where more come at once, the others are made anew


class LongBodies:
    """Reads bodies of a known length, and keeps the room they are read into for the next one."""

    __slots__ = ("_rooms",)

    def __init__(self) -> None:
        self._rooms: list[memoryview] = []

    async def read(self, response: aiohttp.ClientResponse, take: Callable[[bytes | memoryview], object]) -> bool:
        """Hand over all that is still to come of a body, piece by piece, if it is one to be read this way.

        Cancelling raises through; the connection is of no use to anybody then, and `response` closes it.

        Args:
            response: an answer whose head is read; nobody has waited for its body yet.
            take: gets each piece, in the event loop, and must not keep what is not `bytes`: it is written over.

        Returns:
            Whether the body was handed over; False before anything was.

        Raises:
            aiohttp.ClientError, OSError: what `response.content` raises for a body that is not whole.
        """
        handler, stream = _plainly_coming(response), response.content
        if handler is None or handler.transport is None:
            return False
        while piece := stream.read_nowait():  # what came with the head
            take(piece)
        length = response.content_length or 0
        left = length - stream.total_bytes
        if left > 0:
            room = self._room(max(LEAST_ROOM, min(MOST_ROOM, length // SHARE)))
            passing = _Passing(handler, handler.transport, stream, take=take, left=left, room=room)
            handler.transport.set_protocol(passing)
            await stream.wait_eof()
            # After a failure it is left to the garbage collector: some event loops might still write to it.
            if len(self._rooms) < _SPARE_ROOMS:
                self._rooms.append(room)
        return True

    def _room(self, size: int) -> memoryview:
        spare = self._rooms.pop() if self._rooms else memoryview(b"")
        return spare if len(spare) >= size else memoryview(bytearray(size))


def _plainly_coming(response: aiohttp.ClientResponse) -> ResponseHandler | None:
    """Return what receives a body, unless that has ended, or says in its own way where it ends."""
    connection, headers = response.connection, response.headers
    handler = None if connection is None else connection.protocol
    plain = "Transfer-Encoding" not in headers and "Content-Encoding" not in headers
    coming = response.content_length is not None and not response.content.is_eof()
    return handler if plain and coming else None


class _Passing(asyncio.BufferedProtocol):
    """Receives so many bytes in the place of aiohttp's protocol, and gives the connection back with the last one."""

    __slots__ = ("_handler", "_left", "_room", "_stream", "_take", "_transport")

    def __init__(
        self,
        handler: ResponseHandler,
        transport: asyncio.Transport,
        stream: aiohttp.StreamReader,
        *,
        take: Callable[[memoryview], object],
        left: int,
        room: memoryview,
    ) -> None:
        self._handler, self._transport, self._stream = handler, transport, stream
        self._take, self._left, self._room = take, left, room

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the room is what it is
        """Offer no more room than the body needs: what comes after it is not part of it."""
        return self._room[: self._left]

    def buffer_updated(self, nbytes: int) -> None:
        """Pass on what has come."""
        self._handler.start_timeout()  # anew, as for every piece it receives itself
        self._left -= nbytes
        self._stream.total_bytes += nbytes
        self._take(self._room[:nbytes])
        if not self._left:
            self._end()

    def _end(self) -> None:
        self._transport.set_protocol(self._handler)
        # Its parser still waits for the body that has passed it by. The next request would give it a new one in any
        # case; until then that one takes for a broken answer, and hangs up on, what a server sends unasked.
        self._handler.set_response_params()
        self._stream.feed_eof()

    def eof_received(self) -> None:
        """Leave it to aiohttp's protocol, as everything that is no body."""
        self._handler.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave it to aiohttp's protocol, which tells whoever waits that the body is not whole."""
        self._handler.connection_lost(exc)

    def pause_writing(self) -> None:
        """Leave it to aiohttp's protocol: an answer may come before all of the request is sent."""
        self._handler.pause_writing()

    def resume_writing(self) -> None:
        """Leave it to aiohttp's protocol."""
        self._handler.resume_writing()
