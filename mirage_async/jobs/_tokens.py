"""Tokens: a job as small JSON text that another process can attach to. No secret and no payload inside."""

from __future__ import annotations

import msgspec

from mirage_async.exceptions import InputError

__all__ = ["Token", "read_token"]

_LONGEST = 2048  # characters; ours have about 150


class Token(msgspec.Struct, frozen=True, kw_only=True, tag_field="mirage", tag="job"):
    """What a token says.

    Attributes:
        provider: the provider's name.
        kind: "image" or "avatar".
        id: the provider's id of the job.
        key: our own key of the job.
        model: the model asked for, where one was.
    """

    provider: str
    kind: str
    id: str
    key: str
    model: str | None = None

    def text(self) -> str:
        """Return the token as JSON text."""
        return msgspec.json.encode(self).decode()


def read_token(text: str) -> Token | None:
    """Return what a token says, or None where the text is no token but may be a bare id.

    Raises:
        InputError: the text begins like a token and is none.
    """
    if not isinstance(text, str):
        msg = f"token must be text, as Job.token() returned it; got {text!r}"
        raise InputError(msg)
    if not text.lstrip().startswith("{"):
        return None
    try:
        if len(text) > _LONGEST:
            raise ValueError  # noqa: TRY301 - the one message below serves every way of being no token
        return msgspec.json.decode(text, type=Token)
    except (ValueError, RecursionError):
        msg = f"token must be what Job.token() returned; got {text[:60]!r}"
        raise InputError(msg) from None
