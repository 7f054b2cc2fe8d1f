"""Request bodies: bytes and a content type in, named fields out."""

from __future__ import annotations

from dataclasses import dataclass, field
from email.parser import BytesParser
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import parse_qsl

import msgspec

if TYPE_CHECKING:
    from email.message import Message

__all__ = ["Body", "decode_body"]

_FORM = "application/x-www-form-urlencoded"
_MULTIPART = "multipart/form-data"


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """A decoded body; `fields` is empty unless `kind` is "json" or "form"."""

    kind: Literal["json", "form", "empty", "unreadable"]
    media_type: str = ""
    fields: dict[str, Any] = field(default_factory=dict[str, Any])


def decode_body(content_type: str, raw: bytes) -> Body:
    """Decode `raw` by its `content_type`; whatever is not a form is taken for JSON.

    Never raises: a body that cannot be understood has the kind "unreadable", and so has JSON that is not an object.
    """
    media_type = content_type.partition(";")[0].strip().lower()
    if not raw:
        return Body(kind="empty", media_type=media_type)
    if media_type == _FORM:
        pairs = parse_qsl(raw.decode("utf-8", "replace"), keep_blank_values=True)
        return Body(kind="form", media_type=media_type, fields=dict(pairs))
    if media_type == _MULTIPART:
        fields = _multipart_fields(content_type, raw)
        return Body(kind="form" if fields else "unreadable", media_type=media_type, fields=fields)
    try:
        fields = msgspec.json.decode(raw, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Body(kind="unreadable", media_type=media_type)
    return Body(kind="json", media_type=media_type, fields=fields)


def _multipart_fields(content_type: str, raw: bytes) -> dict[str, str]:
    """Return the text parts by name; parts without a name are passed over."""
    head = f"Content-Type: {content_type}\r\n\r\n".encode("utf-8", "surrogateescape")
    fields: dict[str, str] = {}
    try:
        message = BytesParser().parsebytes(head + raw)
    except RecursionError:  # parts in parts in parts
        return fields
    for part in message.walk():
        name = part.get_param("name", header="content-disposition")
        if isinstance(name, str):
            fields[name] = _text(part)
    return fields


def _text(part: Message) -> str:
    payload = part.get_payload(decode=True)
    return payload.decode("utf-8", "replace") if isinstance(payload, bytes) else ""
