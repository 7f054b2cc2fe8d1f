"""Reference pictures as they arrive: data URLs, links and plain base64. Links are never fetched."""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from mirage_async.sandbox.drawing.inspection import probe

if TYPE_CHECKING:
    from collections.abc import Collection

    from mirage_async.sandbox.dialects.fields import Fields

__all__ = ["decode_base64", "read_data_url", "read_link", "read_picture_or_link"]

_MIME_BY_FORMAT = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp", "GIF": "image/gif"}
_SCHEME = re.compile("https?://", re.IGNORECASE)
_UNFIT_FOR_URLS = re.compile(r"[\s\x00-\x1f\x7f]")


def read_data_url(fields: Fields, name: str, value: object, *, mime_types: Collection[str] = ()) -> bytes:
    """Return the bytes of the data URL `value`; `mime_types` limits what it may declare.

    In lenient mode base64 that cannot be decoded is accepted, because the documents' own examples are cut short; the
    text then stands in for the bytes. Strict mode wants a picture of the declared type.

    Raises:
        RefusalError: `value` is not such a data URL.
    """
    if not isinstance(value, str):
        raise fields.malformed(name, "must be text", value)
    head, comma, payload = value.partition(",")
    if not (comma and payload and head.startswith("data:image/") and head.endswith(";base64")):
        raise fields.invalid(name, "must be a base64 data URL such as data:image/png;base64,...", value)
    declared = head.removeprefix("data:").removesuffix(";base64")
    if mime_types and declared not in mime_types:
        raise fields.invalid(name, f"must be one of {', '.join(mime_types)}", declared)
    data = decode_base64(payload) or b""
    if not fields.strict:
        return data or payload.encode()
    found = probe(data)
    if found is None or _MIME_BY_FORMAT.get(found[0]) != declared:
        raise fields.invalid(name, f"must hold a picture of the declared type {declared}", None)
    return data


def read_link(fields: Fields, name: str, value: object) -> str:
    """Return the http or https URL `value`.

    Raises:
        RefusalError: `value` is no text, or no address that anybody could call.
    """
    if not isinstance(value, str):
        raise fields.malformed(name, "must be text", value)
    if not _SCHEME.match(value) or _UNFIT_FOR_URLS.search(value) or not _has_host(value):
        raise fields.invalid(name, "must be an http or https URL with a host, no spaces and no port above 65535", value)
    return value


def read_picture_or_link(fields: Fields, name: str, value: object) -> bytes:
    """Return the bytes of a data URL, or an http(s) link's own text as bytes."""
    if isinstance(value, str) and _SCHEME.match(value):
        return read_link(fields, name, value).encode()
    return read_data_url(fields, name, value)


def decode_base64(text: str) -> bytes | None:
    """Return what base64 text stands for, or None unless it is whole and has nothing else in it."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    # The decoder passes over excess padding; four signs are to be three bytes, with one "=" for each that is missing.
    return data if 4 * (len(data) + text.count("=")) == 3 * len(text) else None


def _has_host(url: str) -> bool:
    """Tell whether `url` names a host and, if it names a port, one there can be."""
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False
