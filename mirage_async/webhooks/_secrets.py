"""What a secret must be to be taken; what is wrong with one is told at the start and without repeating it."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, cast

from mirage_async.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["receiver_secrets", "signing_secrets"]

SHORTEST = 32  # bytes, as many as the MAC has
SHORTEST_SIGNING = 24  # bytes; Standard Webhooks asks senders for 24 to 64
MOST = 8
_FEWEST_DIFFERENT = 8  # byte values; 32 random hexadecimal digits have some fourteen
_PLACEHOLDERS = (
    "changeme",
    "change-me",
    "change_me",
    "placeholder",
    "example",
    "password",
    "replace",
    "your-",
    "your_",
    "your ",
    "secret",
    "insert",
    "abcdefgh",
)
_PREFIX = "whsec_"


def receiver_secrets(secret: str | bytes | Sequence[str | bytes]) -> tuple[bytes, ...]:
    """Return the secrets of a receiver, the one that signs first.

    Raises:
        ConfigurationError: there is none, or one is short or nobody's secret.
    """
    return tuple(_checked("secret", _as_bytes("secret", one), SHORTEST) for one in _several("secret", secret))


def signing_secrets(secret: str | bytes | Sequence[str | bytes]) -> tuple[bytes, ...]:
    """Return the keys that senders sign with: from text such as "whsec_..." (base64), or bytes as they are.

    Raises:
        ConfigurationError: there is none, or one is short, no base64, or nobody's secret.
    """
    name = "signing_secrets"
    return tuple(_checked(name, _key(name, one), SHORTEST_SIGNING) for one in _several(name, secret))


def _several(name: str, secret: str | bytes | Sequence[str | bytes]) -> Sequence[str | bytes]:
    given = secret if isinstance(secret, list | tuple) else [cast("str | bytes", secret)]
    if not 1 <= len(given) <= MOST:
        msg = f"{name} must be one secret or up to {MOST} of them; got {len(given)}"
        raise ConfigurationError(msg)
    return given


def _as_bytes(name: str, secret: object) -> bytes:
    if isinstance(secret, str):
        return secret.encode("utf-8", "surrogatepass")
    if isinstance(secret, bytes):
        return secret
    msg = f"{name} must be text or bytes; got a value of type {type(secret).__name__}"
    raise ConfigurationError(msg)


def _key(name: str, secret: object) -> bytes:
    if not isinstance(secret, str):
        return _as_bytes(name, secret)
    try:
        return base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        msg = f'{name} must be "{_PREFIX}" and base64, or bytes; got {len(secret)} characters that are no base64'
    raise ConfigurationError(msg)


def _checked(name: str, secret: bytes, shortest: int) -> bytes:
    if len(secret) < shortest:
        msg = f"{name} must have at least {shortest} random bytes; got {len(secret)}"
        raise ConfigurationError(msg)
    words = secret.lower()
    if len(set(secret)) < _FEWEST_DIFFERENT or secret in (secret + secret)[1:-1]:
        msg = f"{name} must be random, such as secrets.token_hex(32); got one that repeats itself"
        raise ConfigurationError(msg)
    if any(word.encode() in words for word in _PLACEHOLDERS):
        msg = f"{name} must be random, such as secrets.token_hex(32); got a placeholder"
        raise ConfigurationError(msg)
    return secret
