"""Reference pictures as they arrive: data URLs, links and plain base64. Links are never fetched."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING

from mirage_async.sandbox.drawing.inspection import probe

if TYPE_CHECKING:
    from collections.abc import Collection

    from mirage_async.sandbox.dialects.fields import Fields

__all__ = ["read_data_url", "read_picture_or_link"]

_MIME_BY_FORMAT = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp", "GIF": "image/gif"}


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
    try:
        data = base64.b64decode(payload, validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if not fields.strict:
        return data or payload.encode()
    found = probe(data)
    if found is None or _MIME_BY_FORMAT.get(found[0]) != declared:
        raise fields.invalid(name, f"must hold a picture of the declared type {declared}", None)
    return data


def read_picture_or_link(fields: Fields, name: str, value: object) -> bytes:
    """Return the bytes of a data URL, or an http(s) link's own text as bytes."""
    if isinstance(value, str) and value.startswith(("http://", "https://")):
        return value.encode()
    return read_data_url(fields, name, value)
