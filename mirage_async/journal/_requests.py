"""A request as the journal keeps it: its digest always, all of it where prompts are stored."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING
from urllib.parse import quote_plus

import msgspec

from mirage_async.wire import Call, Form

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["digest_of", "label_digest", "packed", "read_packed"]


class _Packed(msgspec.Struct, frozen=True, array_like=True):
    """All of a request that has to be sent again; the rest of a `Call` follows from it."""

    method: str
    path: str
    body: bytes | None
    form: tuple[tuple[str, str], ...] | None
    content_type: str | None
    max_reply_bytes: int
    picture_fields: tuple[str, ...]
    private: tuple[str, ...]
    callback: tuple[str, ...]
    label: str | None


def digest_of(call: Call) -> str:
    """Return the SHA-256 of a request, 64 hexadecimal digits; the same for the same request.

    Where to call back is left out: such an address is another one each time.
    """
    if isinstance(call.body, Form):
        # The field's own length is not to tell one address from another either.
        body = msgspec.msgpack.encode([(name, _without(value, call.callback)) for name, value in call.body.fields])
    else:
        body = call.body or b""
        for text in call.callback:
            body = body.replace(text.encode(), b"").replace(quote_plus(text).encode(), b"")
    digest = hashlib.sha256(f"{call.method} {call.path}\n".encode())
    digest.update(body)
    return digest.hexdigest()


def _without(value: str, texts: tuple[str, ...]) -> str:
    for text in texts:
        value = value.replace(text, "")
    return value


def label_digest(label: str) -> str:
    """Return the SHA-256 of the name of a result."""
    return hashlib.sha256(label.encode()).hexdigest()


def packed(call: Call) -> bytes:
    """Return a request as bytes."""
    form = call.body.fields if isinstance(call.body, Form) else None
    body = None if isinstance(call.body, Form) else call.body
    return msgspec.msgpack.encode(
        _Packed(
            call.method,
            call.path,
            body,
            form,
            call.content_type,
            call.max_reply_bytes,
            call.picture_fields,
            call.private,
            call.callback,
            call.label,
        )
    )


def read_packed(path: Path) -> Call | None:
    """Return the request that `packed` made the bytes in a file of, or None where there is no such file.

    Raises:
        OSError: it cannot be read.
        msgspec.MsgspecError: the bytes are no such.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    it = msgspec.msgpack.decode(data, type=_Packed)
    return Call(
        method=it.method,
        path=it.path,
        body=it.body if it.form is None else Form(it.form),
        content_type=it.content_type,
        max_reply_bytes=it.max_reply_bytes,
        picture_fields=it.picture_fields,
        private=it.private,
        callback=it.callback,
        label=it.label,
    )
