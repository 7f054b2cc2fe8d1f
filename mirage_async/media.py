"""What bytes say about themselves: picture types, sizes, wholeness, and data URLs both ways. Pure functions.

The type of a picture is always read from its bytes. Names, headers and providers' words are hints at best.
"""

from __future__ import annotations

import re
import struct
from pathlib import PurePath
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import msgspec

from mirage_async._base64 import decode_base64, encode_base64

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


__all__ = [
    "PICTURE_SUFFIXES",
    "Facts",
    "Picture",
    "appraise",
    "data_url",
    "describe",
    "incomplete",
    "inspect",
    "is_known",
    "parse_data_url",
    "shows_all",
]

_DATA_URL = re.compile(r"data:([a-z0-9.+-]{1,64}/[a-z0-9.+-]{1,64});base64,", re.IGNORECASE | re.ASCII)

PICTURE_SUFFIXES: Final[Mapping[str, str]] = MappingProxyType(
    {
        ".jpg": "image/jpeg",
        ".jpeg": "image/jpeg",
        ".jpe": "image/jpeg",
        ".jfif": "image/jpeg",
        ".png": "image/png",
        ".webp": "image/webp",
        ".gif": "image/gif",
        ".avif": "image/avif",
    }
)
"""Lower-case file suffixes of the pictures this module recognises; the first one of a type is the usual one."""

_PNG_START = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"
_JPEG_START = b"\xff\xd8\xff"
_JPEG_END = b"\xff\xd9"
_GIF_STARTS = (b"GIF87a", b"GIF89a")
_GIF_END = b"\x00;"  # the trailer, after the terminator of the last block: one byte alone is too easily met by chance
_PADDING = b"\x00 \r\n"  # what sloppy servers and tools leave behind a finished JPEG, PNG or GIF
_LONGEST_PADDING = 1 << 14  # bytes
# Segments and boxes are walked in Python, on the event loop. Pictures have dozens of them, hundreds with many MB of
# metadata; where there is nothing but tiny ones, this is how many are looked at.
_MOST_STEPS = 2000

# Start-of-frame markers: C0 to CF, without DHT (C4), JPG (C8) and DAC (CC).
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SOS = 0xDA
_BARE = frozenset({0x01, *range(0xD0, 0xD9)})  # markers without a length: TEM, RST0 to RST7, a second SOI
_segment = struct.Struct(">BBH").unpack_from  # FF, the marker, the length with itself


class Facts(msgspec.Struct, frozen=True):
    """What the header of a picture says.

    Attributes:
        mime_type: such as "image/png".
        width: pixels, or None where the header is cut or does not say.
        height: pixels, as `width`.
    """

    mime_type: str
    width: int | None
    height: int | None

    @property
    def suffix(self) -> str:
        """The usual file suffix with its dot: ".jpg", ".png", ".webp", ".gif" or ".avif"."""
        return next(suffix for suffix, mime_type in PICTURE_SUFFIXES.items() if mime_type == self.mime_type)


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    """A picture to work from, loaded: its bytes with their facts, or an http(s) link the provider will follow.

    Attributes:
        data: the bytes, or None where there is a link.
        url: the link, or None where there are bytes.
        label: the name by which a prompt can mention it, or None.
        facts: what the header of `data` says, or None for a link.
    """

    data: bytes | None = None
    url: str | None = None
    label: str | None = None
    facts: Facts | None = None

    def __repr__(self) -> str:
        return f"Picture({describe(self.url if self.data is None else self.data)}, label={self.label!r})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Keep the payload out of rich's tracebacks, too: a struct's own version shows every field."""
        return [("label", self.label), ("facts", self.facts)]


def inspect(data: bytes) -> Facts | None:
    """Read type and size from the first bytes of a picture; a few KiB are enough for most.

    Returns:
        What the header says, or None where the bytes begin like no picture known here. Never raises, whatever the
        bytes: a header that is cut or makes no sense leaves width and height None.
    """
    for mime_type, begins, size in _FORMATS:
        if begins(data):
            return _facts(mime_type, size(data))
    return None


def _facts(mime_type: str, size: _Size | None) -> Facts:
    width, height = size or (None, None)
    return Facts(mime_type, width or None, height or None)


def is_known(data: bytes) -> bool:
    """Whether the bytes begin like a picture known here."""
    return data.startswith((_JPEG_START, _PNG_START)) or any(begins(data) for _, begins, _ in _FORMATS)


def incomplete(head: bytes, tail: bytes, length: int, *, facts: Facts | None = None) -> str | None:
    """Say why a picture is not whole, or None where nothing speaks against it.

    Pictures announce their end: PNG, JPEG and GIF by a marker, WebP and AVIF by lengths in the header. A few padding
    bytes after the end are forgiven, one missing byte never is.

    Args:
        head: the first bytes, the more the better; all of them is fine.
        tail: the last bytes, a few dozen or all of them.
        length: how many bytes there are in all.
        facts: what `inspect` says of `head`, where somebody has asked already.
    """
    facts = facts or inspect(head)
    if facts is None:
        return f"not a picture but {_guess(head)}"
    return _flaw(facts.mime_type, _ENDINGS[facts.mime_type](head, tail[-_LONGEST_PADDING:], length), length)


def shows_all(head: bytes) -> bool:
    """Whether the first bytes of a picture, a few KiB at least, show what more of them would show `incomplete`."""
    if head.startswith(_JPEG_START):
        return _jpeg_header(head)[2]
    facts = inspect(head)
    return facts is None or facts.width is not None


def appraise(data: bytes) -> tuple[Facts | None, str | None]:
    """Return what `inspect` and `incomplete` say of all the bytes of a picture, looking through them once."""
    if not data.startswith(_JPEG_START):
        facts = inspect(data)
        return facts, incomplete(data, data, len(data), facts=facts)
    size, end, scan = _jpeg_header(data)
    reason = _jpeg_reason(end, data[-_LONGEST_PADDING:], len(data), has_data=scan)
    return _facts("image/jpeg", size), _flaw("image/jpeg", reason, len(data))


def _flaw(mime_type: str, reason: str | None, length: int) -> str | None:
    return f"{mime_type} of {length} bytes {reason}" if reason else None


def data_url(data: bytes, mime_type: str | None = None) -> str:
    """Return `data:{mime type};base64,...`; the type is read from the bytes where none is given."""
    if mime_type is None:
        facts = inspect(data)
        mime_type = facts.mime_type if facts else "application/octet-stream"
    return f"data:{mime_type};base64,{encode_base64(data).decode('ascii')}"


def parse_data_url(text: str) -> tuple[str, bytes]:
    """Split `data:{mime type};base64,{data}` into the lower-case type and the decoded bytes.

    Raises:
        ValueError: any other form, or data that is not base64. The message never repeats the text.
    """
    match = _DATA_URL.match(text)
    if match is None:
        raise ValueError(f"not of the form data:TYPE/SUBTYPE;base64,DATA: {describe(text)}")
    return match[1].lower(), decode_base64(text[match.end() :])


def describe(value: object) -> str:
    """Return a short text about `value` for a repr or an error message, never its content.

    Text and links may be secret or megabytes long, so only their kind and length are told; a path is shown.
    """
    if value is None:
        return "None"
    if isinstance(value, bytes | bytearray):
        facts = inspect(bytes(value[:65536]))
        return f"<{len(value)} bytes, {facts.mime_type}>" if facts else f"<{len(value)} bytes>"
    if isinstance(value, str):
        scheme = value[:8].partition(":")[0].lower()
        kind = {"data": "data URL", "http": "http URL", "https": "https URL"}.get(scheme, "str")
        return f"<{kind}, {len(value)} characters>"
    if isinstance(value, PurePath):
        return f"Path({str(value)!r})"
    return f"<{type(value).__name__}>"


# -- sizes -----------------------------------------------------------------------------------------------------------

_Size = tuple[int, int]


def _unpack(layout: str, data: bytes, offset: int) -> tuple[int, ...] | None:
    """Unpack integers, or return None where the data end before them."""
    return struct.unpack_from(layout, data, offset) if len(data) >= offset + struct.calcsize(layout) else None


def _png_size(data: bytes) -> _Size | None:
    fields = _unpack(">4sII", data, 12)
    return (fields[1], fields[2]) if fields and data[12:16] == b"IHDR" else None


def _gif_size(data: bytes) -> _Size | None:
    fields = _unpack("<HH", data, 6)
    return (fields[0], fields[1]) if fields else None


def _jpeg_header(data: bytes) -> tuple[_Size | None, int, bool]:
    """Walk the segments before the first scan; return the size, where the last one ends, and whether a scan begins.

    One loop for both who want to know, and no generator: every picture passes here.
    """
    size: _Size | None = None
    position, end, length = 2, 2, len(data)
    for _ in range(_MOST_STEPS):
        start, marker, taken = _segment(data, position) if position + 4 <= length else (0, 0, 0)
        if start != 0xFF:  # noqa: PLR2004 - every marker begins with FF
            break
        if marker == 0xFF or marker in _BARE:  # noqa: PLR2004 - a fill byte
            position += 1 if marker == 0xFF else 2  # noqa: PLR2004 - same
            continue
        end = position + 2 + taken
        if marker == _SOS:
            return size, end, True
        if size is None and marker in _SOF and (fields := _unpack(">HH", data, position + 5)):
            size = fields[1], fields[0]
        position = end
    return size, end, False


def _webp_size(data: bytes) -> _Size | None:
    kind = data[12:16]
    if kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a" and (fields := _unpack("<HH", data, 26)):
        return fields[0] & 0x3FFF, fields[1] & 0x3FFF  # the two upper bits ask for scaling
    if kind == b"VP8L" and data[20:21] == b"\x2f" and (fields := _unpack("<I", data, 21)):
        return (fields[0] & 0x3FFF) + 1, (fields[0] >> 14 & 0x3FFF) + 1
    if kind == b"VP8X" and len(data) >= 30:  # noqa: PLR2004 - the end of the chunk
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    return None


def _no_size(_data: bytes) -> _Size | None:
    return None  # AVIF spreads it over boxes that may be turned or tiled: better unknown than wrong


_FORMATS: Final[tuple[tuple[str, Callable[[bytes], bool], Callable[[bytes], _Size | None]], ...]] = (
    ("image/jpeg", lambda data: data.startswith(_JPEG_START), lambda data: _jpeg_header(data)[0]),
    ("image/png", lambda data: data.startswith(_PNG_START), _png_size),
    ("image/webp", lambda data: data.startswith(b"RIFF") and data[8:12] == b"WEBP", _webp_size),
    ("image/gif", lambda data: data.startswith(_GIF_STARTS), _gif_size),
    ("image/avif", lambda data: data[4:8] == b"ftyp" and data[8:12] in {b"avif", b"avis"}, _no_size),
)


# -- wholeness -------------------------------------------------------------------------------------------------------


def _jpeg_ending(head: bytes, tail: bytes, length: int) -> str | None:
    _, end, scan = _jpeg_header(head)
    return _jpeg_reason(end, tail, length, has_data=scan or len(head) < length)


def _jpeg_reason(end: int, tail: bytes, length: int, *, has_data: bool) -> str | None:
    # A thumbnail inside a segment has an end marker of its own: the walk tells a cut behind it from the real end.
    if end >= length:
        return "is cut inside its header"
    if not has_data:
        return "has no picture data"
    return None if tail.rstrip(_PADDING).endswith(_JPEG_END) else "has no end marker"


def _png_ending(_head: bytes, tail: bytes, _length: int) -> str | None:
    return None if tail.rstrip(_PADDING).endswith(_PNG_END) else "has no IEND chunk"


def _gif_ending(_head: bytes, tail: bytes, _length: int) -> str | None:
    return None if tail.rstrip(_PADDING).endswith(_GIF_END) else "has no trailer"


def _webp_ending(head: bytes, _tail: bytes, length: int) -> str | None:
    announced = int.from_bytes(head[4:8], "little") + 8
    return None if length - announced in {0, 1} else f"announces {announced} bytes"


def _avif_ending(head: bytes, _tail: bytes, length: int) -> str | None:
    """Walk the outer boxes as far as the head shows them."""
    position, payload = 0, False
    for _ in range(_MOST_STEPS):
        if position >= length:
            break
        fields = _unpack(">I4s", head, position)
        if fields is None:
            return "is cut inside a box" if len(head) == length else None
        size = fields[0]
        payload = payload or head[position + 4 : position + 8] == b"mdat"
        if size == 1:
            size = int.from_bytes(head[position + 8 : position + 16], "big")
        position = length if size == 0 else position + max(size, 8)
    if position > length:
        return "is cut inside a box"
    return None if payload else "has no picture data"


_ENDINGS: Final[Mapping[str, Callable[[bytes, bytes, int], str | None]]] = {
    "image/jpeg": _jpeg_ending,
    "image/png": _png_ending,
    "image/webp": _webp_ending,
    "image/gif": _gif_ending,
    "image/avif": _avif_ending,
}

_LOOKS: Final[tuple[tuple[tuple[bytes, ...], str], ...]] = (
    ((b"<!doctype html", b"<html", b"<head", b"<body"), "HTML"),
    ((b"<svg", b"<!doctype svg"), "SVG"),
    ((b"<?xml", b"<"), "XML or other markup"),
    ((b"{", b"["), "JSON"),
    ((b"%pdf",), "PDF"),
    ((b"\x1f\x8b",), "gzip"),
    ((b"pk\x03\x04",), "a ZIP archive"),
    ((b"bm", b"ii*\x00", b"mm\x00*"), "BMP or TIFF"),
)


def _guess(head: bytes) -> str:
    """Name what bytes that are no picture look like, for an error message."""
    start = head[:512].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if not start:
        return "nothing" if not head else "white space"
    if start.startswith(b"<?xml") and b"<svg" in start:
        return "SVG"
    for beginnings, name in _LOOKS:
        if start.startswith(beginnings):
            return name
    return (
        "plain text" if start.isascii() and start.translate(None, b"\r\n\t").decode().isprintable() else "unknown data"
    )
