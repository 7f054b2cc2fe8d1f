"""JSON both ways, and the one place where a decoder's complaint becomes our own error.

Answers are opened one level at a time with every field left undecoded, so that megabytes of base64 go straight
from the answer into bytes, and one odd field never costs the others.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import msgspec

from mirage_async.exceptions import ResponseError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

__all__ = ["UNREADABLE", "Fields", "decode", "each", "encode", "field", "inner", "opened", "plain"]

T = TypeVar("T")

Fields: TypeAlias = dict[str, msgspec.Raw]

UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What a decoder raises."""

_NULL = msgspec.Raw(b"null")
_anything = msgspec.json.Decoder()
_PLAIN_LIMIT = 1 << 18  # bytes of one field; what is longer is picture data under a name we do not know


def decode(body: bytes | msgspec.Raw, type_: type[T], *, provider: str | None = None) -> T:
    """Decode JSON into `type_`.

    Raises:
        ResponseError: it is not JSON, or JSON of another shape. The message says so and repeats nothing of it.
    """
    wanted: Any = type_  # what a cache takes is more than what a type checker knows to be hashable
    try:
        decoded: T = _decoder(wanted).decode(body)
    except UNREADABLE:
        pass
    else:
        return decoded
    # Raised outside the handler: the decoder's own text can repeat the value, and it would travel along as context.
    message = "the answer is not the JSON its document describes"
    raise ResponseError(message, provider=provider)


@cache
def _decoder(type_: Any) -> msgspec.json.Decoder[Any]:
    """Keep what was worked out about a type; for a `dict` that costs more than decoding a short answer."""
    return msgspec.json.Decoder(type_)


def encode(value: msgspec.Struct) -> bytes:
    """Encode a request; fields that are `msgspec.UNSET` are left out, never sent as null."""
    return msgspec.json.encode(value)


def opened(body: bytes, *, provider: str | None = None) -> Fields:
    """Open a JSON object and leave its fields undecoded.

    Raises:
        ResponseError: the body is not a JSON object.
    """
    return decode(body, Fields, provider=provider)


def inner(fields: Fields, name: str, *, provider: str | None = None) -> Fields:
    """Open the object in field `name`, leaving its own fields undecoded.

    Raises:
        ResponseError: the field is missing or no object.
    """
    if name not in fields:
        raise ResponseError(f"the answer has no {name!r}", provider=provider)
    return decode(fields[name], Fields, provider=provider)


def field(fields: Fields, name: str) -> object:
    """Decode one field; None where it is missing, null or unreadable."""
    try:
        return _anything.decode(fields.get(name, _NULL))
    except UNREADABLE:
        return None


def each(fields: Fields, name: str) -> list[Fields]:
    """Open the objects of the array in field `name`; what is no object is left out, what is no array is empty."""
    try:
        entries = decode(fields.get(name, _NULL), list[msgspec.Raw])
    except ResponseError:
        return []
    found: list[Fields] = []
    for entry in entries:
        try:
            found.append(decode(entry, Fields))
        except ResponseError:
            continue
    return found


def plain(fields: Mapping[str, msgspec.Raw], *, without: Collection[str] = ()) -> dict[str, Any]:
    """Decode the fields except those named `without`; a field that is very long or unreadable is left out too."""
    values: dict[str, Any] = {}
    for name, raw in fields.items():
        if name in without or len(memoryview(raw)) > _PLAIN_LIMIT:
            continue
        try:
            values[name] = _anything.decode(raw)
        except UNREADABLE:
            continue
    return values
