"""Pictures on their way to a provider: which are accepted, and how they become JSON without needless copies."""

from __future__ import annotations

import inspect
import warnings
from typing import TYPE_CHECKING

import msgspec

from mirage_async import media
from mirage_async._base64 import encode_base64
from mirage_async.wire._checks import refused, web_address

if TYPE_CHECKING:
    from collections.abc import Collection

    from mirage_async.media import Picture

__all__ = ["accepted", "as_base64", "as_data_url", "as_link", "data_url_length", "warn"]

_PREFIX = b"data:%s;base64,"
_NAMES = {"image/jpeg": "JPEG", "image/png": "PNG", "image/webp": "WebP", "image/gif": "GIF"}


def accepted(name: str, picture: Picture, types: Collection[str], *, provider: str) -> tuple[bytes, media.Facts]:
    """Return bytes and facts of a picture that is one of `types` by its own bytes, whatever its file was called.

    Raises:
        InputError: it is a link, or bytes of another kind.
    """
    allowed = "the bytes of a " + " or ".join(_NAMES.get(kind, kind) for kind in types) + " picture"
    if picture.data is None:
        raise refused(name, allowed, "a link", provider)
    facts = picture.facts or media.inspect(picture.data)
    if facts is None or facts.mime_type not in types:
        raise refused(name, allowed, f"{len(picture.data)} bytes of {_kind(facts)}", provider)
    return picture.data, facts


def as_base64(data: bytes) -> msgspec.Raw:
    """Return bytes as a JSON string of plain base64, ready to be spliced into a body."""
    return msgspec.Raw(b'"%s"' % encode_base64(data))


def as_data_url(data: bytes, mime_type: str) -> msgspec.Raw:
    """Return bytes as a JSON string that holds a data URL, ready to be spliced into a body."""
    return msgspec.Raw(b'"data:%s;base64,%s"' % (mime_type.encode("ascii"), encode_base64(data)))


def as_link(name: str, url: str, *, provider: str) -> msgspec.Raw:
    """Return a checked http(s) URL as a JSON string, to stand beside data URLs."""
    return msgspec.Raw(msgspec.json.encode(web_address(name, url, provider=provider)))


def data_url_length(data: bytes, mime_type: str) -> int:
    """Return how many characters the data URL of these bytes will have, without making it."""
    return len(_PREFIX % mime_type.encode("ascii")) + (len(data) + 2) // 3 * 4


def warn(message: str) -> None:
    """Warn about a soft rule; the request goes out all the same."""
    warnings.warn(message, UserWarning, stacklevel=_levels_to_caller())


def _levels_to_caller() -> int:
    """Return the `stacklevel` of the first frame outside the package: the line that passed the picture in."""
    package, level, frame = __name__.partition(".")[0], 0, inspect.currentframe()
    while frame is not None and str(frame.f_globals.get("__name__")).partition(".")[0] == package:
        level, frame = level + 1, frame.f_back
    return level


def _kind(facts: media.Facts | None) -> str:
    return facts.mime_type if facts is not None else "no picture known here"
