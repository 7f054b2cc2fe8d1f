"""From network chunks to pictures: base64 inside a JSON answer is decoded while it comes in.

A picture of 20 MB is 27 MB of text. Read whole, it is held twice and decoded in one go that holds up the event loop
for tens of milliseconds. So the answer is read as it arrives: a text under one of the names that carry pictures is
decoded chunk by chunk, and in the JSON that is left a short mark stands in its place.

Nothing is judged here. What is left is JSON exactly where the answer was, the codecs read it as they read any other,
and `picture_bytes` gives for a mark what it would have given for the text. That holds for every way a network may cut
an answer into chunks, and also for answers that are cut short, odd or hostile: what is not plainly base64 stays in
the JSON, and a codec sees it for what it is.
"""

from __future__ import annotations

import re
import secrets
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from mirage_async import media
from mirage_async._base64 import Base64Decoder
from mirage_async._growing import GrowingBytes
from mirage_async.exceptions import ResponseError
from mirage_async.wire._json import decode

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

__all__ = ["LONGEST_MARK", "SHORTEST_STREAMED", "PictureReader"]

SHORTEST_STREAMED = 1 << 10  # characters; a shorter text is left to the codec. The prefix of a data URL fits in
LONGEST_MARK = 32  # characters, quotes included
# No honest answer comes near these. Beyond them nothing is looked for any more, and the codec decodes what is left.
MOST_STRINGS = 1000  # names included
MOST_PICTURES = 64

_AFTER = 1 << 10  # bytes at the end of an answer in which most pictures end
_PART = 1 << 16  # bytes of a chunk that are looked through at a time, and copied for that
_SPACE = b" \t\r\n"
_BACKSLASH = ord("\\")
_LONGEST_NAME = 128  # characters as they stand in the JSON, escapes included
_LONGEST_ESCAPE = len("\\u0000")
_STRING = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
_NO_PICTURE: Final = Base64Decoder()  # while there is none


@lru_cache(maxsize=64)
def _fields(names: tuple[str, ...]) -> tuple[frozenset[bytes], Callable[[bytes], re.Match[bytes] | None]]:
    """Return the names as they stand in an answer, and what finds the first such field as far as its opening quote.

    Looked for outside of strings, nothing else is found: a quote with a name right behind it opens a string, or has a
    backslash before it, or it closes one, and then there is no JSON from there on, whatever takes the place of a text.
    """
    encoded = frozenset(name.encode() for name in names)
    name, space = b"|".join(map(re.escape, sorted(encoded))), rb"[ \t\r\n]*+"
    return encoded, re.compile(rb'(?<!\\)"(?:%b)"%b:%b"' % (name, space, space)).search


class PictureReader:
    """Reads one JSON answer; fed with its chunks, it gives what is left of the JSON and the decoded pictures.

    Args:
        names: of the fields that carry pictures, at whatever depth.
        length: bytes the answer will have, 0 where nobody knows; a picture is then written straight to its place.
    """

    __slots__ = (
        "_coming",
        "_decoder",
        "_escape",
        "_escaped",
        "_field",
        "_gap",
        "_json",
        "_name",
        "_names",
        "_pictures",
        "_secret",
        "_step",
        "_strings",
        "_value",
    )

    def __init__(self, names: Collection[str], *, length: int = 0) -> None:
        self._names, self._field = _fields(tuple(names))
        self._coming = length  # bytes of the answer that have not been fed yet
        self._json = GrowingBytes()
        self._pictures: dict[bytes, bytes | None] = {}
        self._secret = secrets.token_hex(8).encode()  # no server sends a mark of ours, by chance or on purpose
        # A function, not a bound method: no reference cycle may keep megabytes waiting for the garbage collector.
        self._step: Callable[[PictureReader, bytes, int], int] = PictureReader._between
        self._strings = 0
        self._escaped = False  # the chunk before ended in a backslash that concerns the next character
        self._name: bytes | None = None  # the string so far, while it may be the name of a field
        self._gap: bytes | None = None  # what came since the name of a picture field, white space aside
        self._value = b""  # the text of a picture field, while it may be a short one
        self._decoder = _NO_PICTURE
        self._escape = b""  # an escape sequence in that text, as far as it has come

    def feed(self, chunk: bytes | memoryview) -> None:
        """Take the next bytes of the answer, which may be written over afterwards; whatever they are, never raise."""
        taken = 0
        if self._step is PictureReader._picture:
            most = len(chunk) - (_AFTER if self._coming == len(chunk) else 0)
            if most > 0 and self._takes_all(memoryview(chunk)[:most]):
                self._coming -= most
                taken = most
        for start in range(taken, len(chunk), _PART):
            part = bytes(chunk[start : start + _PART])
            self._coming -= len(part)
            position = self._before(part) if self._step is PictureReader._between and self._gap is None else 0
            while position < len(part):
                position = self._step(self, part, position)

    def finish(self) -> tuple[bytes, dict[bytes, bytes | None]]:
        """Return the JSON with marks, and by mark what `picture_bytes` says of it: the picture, or None for no picture.

        An answer that was cut short leaves JSON that is cut short.
        """
        if self._step is PictureReader._opening:
            self._json.append(b'"' + self._value)
        return self._json.take(), self._pictures

    # -- steps: each takes a part of a chunk, from `start` on, and returns where the next one begins -------------------
    # No step cuts off what is left of the chunk: the copies would cost more than the decoding.

    def _before(self, chunk: bytes) -> int:
        """Outside of strings, with a whole chunk to come: go to its first picture at once, if there is one."""
        found = self._field(chunk)
        if found is None:
            return 0
        end = found.end()
        self._json.append(chunk[: end - 1])
        self._strings += (chunk.count(b'"', 0, end) + 1) // 2
        self._value = b""
        self._step = PictureReader._opening if self._strings <= MOST_STRINGS else PictureReader._beyond
        return end - (self._step is PictureReader._beyond)

    def _between(self, chunk: bytes, start: int) -> int:
        """Outside of strings."""
        quote = chunk.find(b'"', start)
        end = len(chunk) if quote < 0 else quote
        between = chunk[start:end]
        self._json.append(between)
        if self._gap is not None:
            gap = (self._gap + between).strip(_SPACE)
            self._gap = gap if gap in {b"", b":"} else None
        if quote < 0:
            return end
        self._strings += 1
        if self._strings > MOST_STRINGS:
            self._step = PictureReader._beyond
            return end
        if self._gap == b":":
            self._value, self._step = b"", PictureReader._opening
        else:
            self._json.append(b'"')
            self._name, self._step = b"", PictureReader._string
        self._gap = None
        return end + 1

    def _string(self, chunk: bytes, start: int) -> int:
        """In a string that is no picture: the name of a field, or any other text."""
        end, ended = self._inside(chunk, start)
        part = chunk[start:end]
        self._json.append(part)
        if self._name is not None:
            name = self._name + part
            self._name = name if len(name) <= _LONGEST_NAME else None
        if ended:
            self._json.append(b'"')
            self._gap = b"" if self._name is not None and self._means_picture(self._name) else None
            self._step = PictureReader._between
        return end + ended

    def _opening(self, chunk: bytes, start: int) -> int:
        """In the text of a picture field, while it is short."""
        short = chunk[start : start + SHORTEST_STREAMED - len(self._value)]
        end, ended = self._inside(short, 0)
        self._value += short[:end]
        after = start + end + ended
        if len(self._value) >= SHORTEST_STREAMED and len(self._pictures) < MOST_PICTURES:
            coming = len(self._value) + len(chunk) - after + max(self._coming, 0)
            self._decoder, self._escape = Base64Decoder(expected=coming // 4 * 3), b""
            # What is no base64 nearly always shows in its first words, and is then left as it came.
            if self._takes(self._value):
                self._step = PictureReader._picture
            else:
                self._leave(b'"' + self._value, ended=ended)
        elif ended or len(self._value) >= SHORTEST_STREAMED:
            self._leave(b'"' + self._value, ended=ended)
        return after

    def _picture(self, chunk: bytes, start: int) -> int:
        """In the text of a picture."""
        if self._coming and self._takes_all(memoryview(chunk)[start:]):
            return len(chunk)
        end, ended = self._inside(chunk, start)
        self._decode(chunk[start:end], ended=ended)
        return end + ended

    def _beyond(self, chunk: bytes, start: int) -> int:
        """Past all that is looked at."""
        self._json.append(chunk[start:])
        return len(chunk)

    # -- parts of steps ------------------------------------------------------------------------------------------------

    def _takes_all(self, text: memoryview) -> bool:
        """Take a part of a chunk, in the text of a picture, if that is nothing but base64, and say whether."""
        # Nearly every part is. That it is shows when it is decoded: no look for its end before, but in the last one,
        # where there is an end.
        return not self._escape and self._decoder.takes(text)

    def _inside(self, chunk: bytes, start: int) -> tuple[int, bool]:
        """Return how far the chunk, from `start` on, is inside the string, and whether a closing quote comes then."""
        first = start + self._escaped
        end = chunk.find(b'"', first)
        if end > first and chunk[end - 1] == _BACKSLASH:  # rare, and the backslashes must be counted from the start
            end = _end(chunk, first)
        if end >= 0:
            self._escaped = False
            return end, True
        backslashes = len(chunk) - max(len(chunk.rstrip(b"\\")), first)
        self._escaped = backslashes % 2 == 1
        return len(chunk), False

    def _means_picture(self, name: bytes) -> bool:
        return (_plain(name) if b"\\" in name else name) in self._names

    def _decode(self, part: bytes, *, ended: bool) -> None:
        """Decode a part of a picture's text; where it turns out not to be base64, leave the rest of the text."""
        raw = self._escape + part
        if not self._takes(part) or (ended and self._escape):
            # The beginning is gone, but it was base64, and it is the rest that is not: `<>` sees to that.
            self._leave(b'"<>' + raw, ended=ended)
        elif ended:
            self._close()
        else:
            self._step = PictureReader._picture

    def _takes(self, part: bytes) -> bool:
        if not self._escape and self._decoder.takes(part):
            return True
        whole, escape = _cut(self._escape + part)
        text = _plain(whole)
        if text is None:
            return False
        try:
            self._decoder.feed(text)
        except ValueError:
            return False
        self._escape = escape
        return True

    def _close(self) -> None:
        """Put a mark where the text was."""
        mark = b'"<%s %d>"' % (self._secret, len(self._pictures))
        try:
            data = self._decoder.finish()
        except ValueError:
            data = b""
        self._decoder = _NO_PICTURE
        self._pictures[mark] = data if media.is_known(data) else None
        self._json.append(mark)
        self._step = PictureReader._between

    def _leave(self, text: bytes, *, ended: bool) -> None:
        """Put a text into the JSON after all."""
        self._json.append(text + b'"' if ended else text)
        self._decoder = _NO_PICTURE
        self._name = None
        self._step = PictureReader._between if ended else PictureReader._string


def _end(chunk: bytes, start: int) -> int:
    """Return where the string in `chunk` ends that has no part of an escape before `start`, or -1."""
    match = _STRING.match(chunk, start)
    end = start if match is None else match.end()
    return end if chunk[end : end + 1] == b'"' else -1


def _cut(raw: bytes) -> tuple[bytes, bytes]:
    """Split off an escape sequence that has not come in whole."""
    last = raw.rfind(b"\\", max(len(raw) - _LONGEST_ESCAPE + 1, 0))
    # One backslash after another is text, and not of a picture: no need to find out which of them is the escape.
    if last < 0 or raw[last - 1 : last] == b"\\" or raw[last + 1 : last + 2] not in {b"", b"u"}:
        return raw, b""
    return raw[:last], raw[last:]


def _plain(raw: bytes) -> bytes | None:
    """Return what the inside of a JSON string says, or None where it is not that of a JSON string."""
    try:
        return decode(b'"%b"' % raw, str).encode()
    except ResponseError:
        return None
