"""An address to call back, under a name that no document has, for accounts that support more than their page says."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qsl, urlencode

import msgspec

from mirage_async.wire._checks import refused, web_address
from mirage_async.wire._message import Call, Form

__all__ = ["callback_secrets", "with_callback"]

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}", re.ASCII)


def with_callback(call: Call, parameter: str, url: str, *, provider: str) -> Call:
    """Return the same request with one field more: `parameter`, holding `url`.

    Raises:
        InputError: `parameter` is no name of a field, or one the request has already.
    """
    if not isinstance(parameter, str) or not _NAME.fullmatch(parameter):
        allowed = "1 to 64 letters, digits, '_', '.' and '-', beginning with a letter"
        got = repr(parameter)[:60] if isinstance(parameter, str) else f"a value of type {type(parameter).__name__}"
        raise refused("callback_parameter", allowed, got, provider)
    web_address("callback address", url, provider=provider)
    secrets = callback_secrets(url)
    added = {"private": (*call.private, *secrets), "callback": secrets}
    if isinstance(call.body, Form):
        _check_new(parameter, dict(call.body.fields), provider)
        return msgspec.structs.replace(call, body=Form((*call.body.fields, (parameter, url))), **added)
    body = call.body or b""
    if call.content_type == "application/json":
        fields: dict[str, Any] = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        _check_new(parameter, fields, provider)
        return msgspec.structs.replace(call, body=msgspec.json.encode({**fields, parameter: url}), **added)
    pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True)
    _check_new(parameter, dict(pairs), provider)
    return msgspec.structs.replace(call, body=urlencode([*pairs, (parameter, url)]).encode("ascii"), **added)


def callback_secrets(url: str, token: str | None = None) -> tuple[str, ...]:
    """Return what of an address to call back must not come back inside an error."""
    return tuple(text for text in (url, url.rpartition("/")[2], token) if text)


def _check_new(parameter: str, fields: dict[str, Any], provider: str) -> None:
    if parameter in fields:
        raise refused("callback_parameter", "a name the request does not have yet", repr(parameter), provider)
