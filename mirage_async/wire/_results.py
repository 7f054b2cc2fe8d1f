"""Pictures in answers: base64 straight into bytes, and links that can be followed as they are."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from mirage_async import media
from mirage_async._base64 import decode_base64
from mirage_async.exceptions import ResponseError
from mirage_async.wire._checks import is_web_address
from mirage_async.wire._json import decode
from mirage_async.wire._streaming import LONGEST_MARK

if TYPE_CHECKING:
    from collections.abc import Mapping

    import msgspec

__all__ = ["is_data_url", "link", "picture_bytes"]

_LINK_LIMIT = 8192  # characters; signed links are long, but not longer
_NONE: Mapping[bytes, bytes | None] = MappingProxyType({})
_DATA_SCHEME = "data:"


def picture_bytes(raw: msgspec.Raw | None, pictures: Mapping[bytes, bytes | None] = _NONE) -> bytes | None:
    """Decode a JSON string of base64 into the bytes of a picture; None where it is not one.

    Mirako and Milady differ, and each has changed its mind, on whether a `data:...,` prefix comes first.

    Args:
        raw: the undecoded field.
        pictures: of the reply, decoded already.
    """
    if raw is None:
        return None
    if pictures and len(memoryview(raw)) <= LONGEST_MARK and (mark := bytes(raw)) in pictures:
        return pictures[mark]
    try:
        data = _decoded(raw)
    except (ResponseError, ValueError):
        return None
    # The first bytes say what it is; a provider's words about the type are not needed and not always true.
    return data if media.is_known(data) else None


def link(value: object) -> str | None:
    """Return an absolute http(s) URL, else None.

    A relative link would have to be resolved against some address; guessing one could send a request anywhere.
    """
    if not isinstance(value, str):
        return None
    stripped = value.strip()
    return stripped if len(stripped) <= _LINK_LIMIT and is_web_address(stripped) else None


def is_data_url(raw: msgspec.Raw | None) -> bool:
    """Return whether an undecoded field is a JSON string that begins like a data URL."""
    return raw is not None and bytes(memoryview(raw)[1:6]).lower() == _DATA_SCHEME.encode("ascii")


def _decoded(raw: msgspec.Raw) -> bytes:
    try:
        return decode(raw, bytes)  # no intermediate text; the usual case
    except ResponseError:
        return decode_base64(decode(raw, str))
