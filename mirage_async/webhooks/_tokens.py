"""Callback tokens: what makes an address one that only we can have given out, and only for one job of one provider.

A token is the last segment of the address, 52 characters of base64url for 39 bytes::

    form (1) | key id (1) | expiry, unix seconds (5) | our key of the job (16) | first half of the MAC (16)

The MAC is HMAC-SHA256 over a label, the provider's name with its length, and the 23 bytes before it, under a key that
is derived from the receiver's secret. Its second half is the bearer token for senders that can carry one: whoever has
seen only the address, in somebody's access log, does not have it. Nothing is stored, so that every replica with the
secret can check every token. 39 is a multiple of 3, which leaves exactly one spelling for each.

The key id is a byte of the secret's own derivation, not a number somebody keeps: rotating means to put a new secret
first, and to take the old one out once its tokens have expired.
"""

from __future__ import annotations

import binascii
import hmac
import os
import re
from typing import TYPE_CHECKING

import msgspec

from mirage_async.exceptions import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["TOKEN_LENGTH", "CallbackTokens", "Claim"]

TOKEN_LENGTH = 52
_LABEL = b"mirage_async/callback-url/v1"
_BARE, _WITH_BEARER = 1, 2
_HEAD, _HALF = 23, 16
_LATEST = (1 << 40) - 1
_KEY = re.compile(r"[0-9a-f]{32}", re.ASCII)

# From base64url to base64, where the characters of the latter's own become none at all: one token, one spelling.
_FROM_URL = bytes.maketrans(b"-_+/=", b"+/!!!")
_TO_URL = bytes.maketrans(b"+/", b"-_")


class Claim(msgspec.Struct, frozen=True):
    """What a genuine token says.

    Attributes:
        key: our key of the job.
        expires_at: seconds since 1970.
        bearer: the bearer token that has to come with it, or None where the address is all.
    """

    key: str
    expires_at: int
    bearer: bytes | None

    def __repr__(self) -> str:
        """Leave the bearer token out."""
        return f"<Claim {self.key} until {self.expires_at}>"


class CallbackTokens:
    """Mints and reads tokens. Pure: whether one has expired is for the caller to say.

    Args:
        secrets: the first signs, all of them are accepted.
    """

    __slots__ = ("_begun", "_keys", "_nobody", "_signing")

    def __init__(self, secrets: Sequence[bytes]) -> None:
        keys = [hmac.digest(secret, _LABEL + b"/key", "sha256") for secret in secrets]
        ids = [hmac.digest(secret, _LABEL + b"/id", "sha256")[0] for secret in secrets]
        self._signing = ids[0]
        self._keys: dict[int, list[bytes]] = {}
        for number, key in zip(ids, keys, strict=True):
            self._keys.setdefault(number, []).append(key)
        # An unknown id costs the same work and matches nothing, since nobody ever sees this key.
        self._nobody = [os.urandom(32)]
        self._begun: dict[tuple[str, int], list[hmac.HMAC]] = {}

    def mint(self, provider: str, key: str, expires_at: float, *, bearer: bool) -> tuple[str, str | None]:
        """Return a token and, if asked for, the bearer token that has to come with it.

        Raises:
            InputError: `key` is not a job's key.
        """
        if not isinstance(key, str) or not _KEY.fullmatch(key):
            got = f"{len(key)} characters" if isinstance(key, str) else f"a value of type {type(key).__name__}"
            msg = f"key must be Job.key, 32 hexadecimal digits; got {got}"
            raise InputError(msg)
        head = bytes((_WITH_BEARER if bearer else _BARE, self._signing))
        head += min(_LATEST, max(0, int(expires_at))).to_bytes(5, "big") + bytes.fromhex(key)
        mac = _mac(self._macs(provider, self._signing)[0], head)
        token = binascii.b2a_base64(head + mac[:_HALF], newline=False).translate(_TO_URL).decode()
        return token, mac[_HALF:].hex() if bearer else None

    def read(self, provider: str, token: str) -> Claim | None:
        """Return what a token says, or None for one that none of the secrets has signed for this provider."""
        if len(token) != TOKEN_LENGTH:
            return None
        try:
            raw = binascii.a2b_base64(token.encode("ascii").translate(_FROM_URL), strict_mode=True)
        except ValueError:  # not ASCII, or not base64
            return None
        head, tag = raw[:_HEAD], raw[_HEAD:]
        genuine: bytes | None = None
        for begun in self._macs(provider, head[1]):
            mac = _mac(begun, head)
            if hmac.compare_digest(mac[:_HALF], tag):
                genuine = mac
        if genuine is None or head[0] not in {_BARE, _WITH_BEARER}:
            return None
        bearer = genuine[_HALF:].hex().encode() if head[0] == _WITH_BEARER else None
        return Claim(head[7:].hex(), int.from_bytes(head[2:7], "big"), bearer)

    def _macs(self, provider: str, number: int) -> list[hmac.HMAC]:
        """Return MACs that have taken in what every token of a provider begins with, one for each key of that id.

        Preparing them takes three times as long as finishing a copy.
        """
        found = self._begun.get((provider, number))
        if found is None:
            name = provider.encode()
            prefix = _LABEL + b"\0" + bytes((len(name),)) + name
            keys = self._keys.get(number, self._nobody)
            found = self._begun[provider, number] = [hmac.new(key, prefix, "sha256") for key in keys]
        return found


def _mac(begun: hmac.HMAC, head: bytes) -> bytes:
    mac = begun.copy()
    mac.update(head)
    return mac.digest()
