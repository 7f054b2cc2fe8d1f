"""Arguments are checked at the door: "<name> must be <what is allowed>; got <value>".

A check returns the value it was given, so that it can stand where the value is used.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from mirage_async.exceptions import ConfigurationError, InputError, ResponseError

if TYPE_CHECKING:
    from collections.abc import Sequence, Sized

__all__ = [
    "at_most",
    "checked_id",
    "choice",
    "is_web_address",
    "key_text",
    "passed_id",
    "prompt_text",
    "refused",
    "short_text",
    "web_address",
    "whole_number",
]

URL_LIMIT = 2048  # characters; browsers and proxies agree on about as many

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}", re.ASCII)
_ID_RULE = "1 to 128 letters, digits, '_' and '-', beginning with a letter or digit"
_URL = re.compile(r"https?://[^\s\\\x00-\x20\x7f]+", re.ASCII | re.IGNORECASE)
_SHOWN = 60  # characters of a value that a message repeats


def refused(name: str, allowed: str, got: str, provider: str) -> InputError:
    """Return the error of a failed check, in the one form all of them have."""
    return InputError(f"{name} must be {allowed}; got {got}", provider=provider)


def prompt_text(value: str, *, provider: str, maximum: int | None = None) -> str:
    """Check a prompt: not blank, no NUL, encodable as UTF-8, at most `maximum` characters. It is never repeated."""
    allowed = f"1 to {maximum} characters of text" if maximum else "non-blank text"
    return _text("prompt", value, allowed=allowed, provider=provider, maximum=maximum, secret=True)


def short_text(name: str, value: str, *, provider: str, maximum: int, secret: bool = False) -> str:
    """Check text of 1 to `maximum` characters, not blank; with `secret` a message tells its length only."""
    allowed = f"1 to {maximum} characters of text"
    return _text(name, value, allowed=allowed, provider=provider, maximum=maximum, secret=secret)


def choice(name: str, value: str, allowed: Sequence[str], *, provider: str) -> str:
    """Check that `value` is one of `allowed`."""
    if not isinstance(value, str) or value not in allowed:
        raise refused(name, "one of " + ", ".join(allowed), _shown(value), provider)
    return value


def whole_number(name: str, value: int, low: int, high: int, *, provider: str) -> int:
    """Check that `value` is an integer from `low` to `high`; `True` and `1.0` are not, 0 is a number like any other."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise refused(name, f"a whole number from {low} to {high}", _shown(value), provider)
    return int(value)


def at_most(name: str, items: Sized, limit: int, *, provider: str) -> int:
    """Check that there are at most `limit` pictures and return how many there are."""
    if len(items) > limit:
        raise refused(name, f"at most {limit} pictures", str(len(items)), provider)
    return len(items)


def web_address(name: str, value: str, *, provider: str) -> str:
    """Check an absolute http(s) URL of at most 2048 characters without user name and password.

    A message tells its length only, because links can be secrets.
    """
    allowed = f"an absolute http(s) URL of at most {URL_LIMIT} characters without user name and password"
    if not isinstance(value, str) or len(value) > URL_LIMIT or not is_web_address(value):
        raise refused(name, allowed, _measured(value), provider)
    return value


def is_web_address(value: str) -> bool:
    """Return whether `value` is an absolute http(s) URL with a host, a valid port and no user name."""
    if not _URL.fullmatch(value) or not value.isprintable():
        return False
    try:
        parts = urlsplit(value)
        return bool(parts.hostname) and "@" not in parts.netloc and parts.port != 0
    except ValueError:  # a port or an IPv6 address that is none
        return False


def key_text(value: str, *, provider: str) -> str:
    """Check that an API key can travel in a header.

    Raises:
        ConfigurationError: it is empty or holds spaces, line breaks or letters outside ASCII. It is never repeated.
    """
    if not isinstance(value, str) or not value.isascii() or not value.isprintable() or not value or " " in value:
        message = f"the {provider} API key must be printable ASCII without spaces; got {_measured(value)}"
        raise ConfigurationError(message, provider=provider)
    return value


def passed_id(name: str, value: str, *, provider: str) -> str:
    """Check an id the caller passes, which will become part of an address."""
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise refused(name, _ID_RULE, _shown(value), provider)
    return value


def checked_id(value: object, provider: str) -> str:
    """Check an id the provider has sent before it becomes part of an address; ids are opaque, not always UUIDs.

    Raises:
        ResponseError: it is missing or could change the address it is put into.
    """
    found = str(value) if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63 else value
    if not isinstance(found, str) or not _ID.fullmatch(found):
        got = "none" if value is None else _measured(value)
        raise ResponseError(f"{provider} must send an id of {_ID_RULE}; got {got}", provider=provider)
    return found


def _text(name: str, value: str, *, allowed: str, provider: str, maximum: int | None, secret: bool) -> str:
    flaw = _flaw(value, allowed=allowed, maximum=maximum)
    if flaw is None:
        return value
    expected, remark = flaw
    raise refused(name, expected, remark or (_measured(value) if secret else _shown(value)), provider)


def _flaw(value: str, *, allowed: str, maximum: int | None) -> tuple[str, str] | None:
    """Return what text was expected instead and, where the text itself does not show it, what is wrong with it."""
    if not isinstance(value, str):
        return allowed, ""
    if not value.strip():
        return allowed, "blank text" if value else "empty text"
    if maximum is not None and len(value.strip()) > maximum:
        return allowed, ""
    if "\0" in value:
        return "text without NUL characters", ""
    try:
        value.encode()
    except UnicodeEncodeError:
        return "text that can be encoded as UTF-8", f"{_measured(value)} with a lone surrogate"
    return None


def _shown(value: object) -> str:
    if isinstance(value, str):
        return repr(value) if len(value) <= _SHOWN else f"{value[:_SHOWN]!r}... ({len(value)} characters)"
    if value is None or isinstance(value, (bool, float)) or (isinstance(value, int) and value.bit_length() <= _SHOWN):
        return repr(value)
    if isinstance(value, int):
        return f"a whole number of {value.bit_length()} bits"
    return f"a value of type {type(value).__name__}"


def _measured(value: object) -> str:
    return f"{len(value)} characters" if isinstance(value, str) else f"a value of type {type(value).__name__}"
