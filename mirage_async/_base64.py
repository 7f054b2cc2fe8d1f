"""Base64 both ways: strict about what is base64, forgiving about what surrounds it. Pure functions."""

from __future__ import annotations

import binascii
import contextlib
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from mirage_async._growing import GrowingBytes

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Base64Decoder", "decode_base64", "encode_base64"]

_SPACE = b" \t\r\n\v\f"
_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="
_PREFIX_LIMIT = 256  # no honest prefix is longer, and no search runs over megabytes
_PIECE = 1 << 17  # characters decoded at a time: what a piece takes beside the result is soon free again


def _convert(text: bytes | memoryview) -> bytes:
    """Decode strict base64 with what msgspec has for `bytes` fields.

    It takes a quarter of the time `binascii` takes and is as strict as pybase64; `binascii` forgives surplus padding.
    """
    with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):
        return msgspec.convert(str(text, "ascii"), bytes)
    raise ValueError


_encode: Callable[[bytes], bytes] = partial(binascii.b2a_base64, newline=False)
_decode_strictly: Callable[[bytes | memoryview], bytes] = _convert
with contextlib.suppress(ImportError):  # the `speed` extra: the same, an order of magnitude faster
    import pybase64

    _encode = pybase64.b64encode
    _decode_strictly = partial(pybase64.b64decode, validate=True)


def encode_base64(data: bytes) -> bytes:
    """Return standard base64 with padding and without line breaks."""
    return _encode(data)


def decode_base64(text: str | bytes) -> bytes:
    """Decode standard base64; a `data:...,` prefix, white space and missing padding are forgiven.

    Raises:
        ValueError: a character outside the alphabet, wrong padding or an impossible length. The message and the
            error's context never repeat the text.
    """
    with contextlib.suppress(ValueError):
        return _decode(_after_prefix(text.encode("ascii") if isinstance(text, str) else text))
    # Raised here, not in an except block: the first error would ride along as context, and it holds the payload.
    raise ValueError(f"not base64: <{len(text)} characters>")


class Base64Decoder:
    """Decodes base64 that comes in parts, cut anywhere; forgives what `decode_base64` forgives, and nothing else.

    Of the text it keeps a few characters, of the bytes one copy.

    Args:
        expected: bytes that will probably come out, see `GrowingBytes`.
    """

    __slots__ = ("_data", "_rest", "_start")

    def __init__(self, *, expected: int = 0) -> None:
        self._data = GrowingBytes(expected)
        self._start: bytes | None = b""  # None once it is known whether there is a prefix
        self._rest = b""  # not decoded yet: up to four characters, since the last four may hold padding

    def feed(self, text: bytes) -> None:
        """Take the next part.

        Raises:
            ValueError: whatever follows, this is not base64. The message never repeats the text.
        """
        if self._start is not None:
            self._start += text
            if len(self._start) < _PREFIX_LIMIT:
                return
            text, self._start = _after_prefix(self._start), None
        if not self.takes(text):
            compact, self._rest = (self._rest + text).translate(None, _SPACE), b""
            if not self.takes(compact):
                raise ValueError("not base64")

    def takes(self, text: bytes | memoryview) -> bool:
        """Take the next part if it is nothing but base64, and say whether; it is neither copied nor looked at twice.

        All groups of four characters but the last are decoded. A part that is refused changes nothing. So are the
        first ones where they may hold a prefix or the beginning of one.
        """
        if self._start is not None and (self._start or len(text) < _PREFIX_LIMIT):
            return False
        length, missing = len(text), -len(self._rest) % 4
        if length <= missing:
            few = bytes(text)
            fits = not few.translate(None, _ALPHABET)
            self._rest += few if fits else b""
            return fits
        end = missing + (length - missing - 1) // 4 * 4
        rest = bytes(text[end:])
        if rest.translate(None, _ALPHABET):  # all that is not decoded now
            return False
        append, groups, before = self._data.append, memoryview(text), len(self._data)
        try:
            taken = append(_decode_strictly(self._rest + bytes(text[:missing]))) if self._rest else 0
            for start in range(missing, end, _PIECE):
                taken += append(_decode_strictly(groups[start : min(start + _PIECE, end)]))
            taken_all = taken == (len(self._rest) + end) // 4 * 3  # else padding and more after it
        except ValueError:
            taken_all = False
        if taken_all:
            self._start, self._rest = None, rest  # what has a prefix is refused
        else:
            self._data.cut(before)
        return taken_all

    def finish(self) -> bytes:
        """Return the bytes.

        Raises:
            ValueError: the text is not base64, or ends too early.
        """
        if self._start is not None:
            return decode_base64(self._start)
        self._data.append(_decode(self._rest))
        return self._data.take()


def _after_prefix(raw: bytes) -> bytes:
    start = raw[:_PREFIX_LIMIT].lstrip()
    if start[:5].lower() != b"data:":
        return raw
    comma = raw.find(b",", 0, _PREFIX_LIMIT)
    if comma < 0 or not raw[:comma].isascii():
        raise ValueError
    return raw[comma + 1 :]


def _decode(raw: bytes) -> bytes:
    with contextlib.suppress(ValueError):
        return _decode_strictly(raw)  # nearly always right at once, and without a copy
    compact = raw.translate(None, _SPACE)
    bare = compact.rstrip(b"=")
    missing = -len(bare) % 4
    if len(compact) - len(bare) not in {0, missing}:
        raise ValueError
    return _decode_strictly(bare + b"=" * missing)
