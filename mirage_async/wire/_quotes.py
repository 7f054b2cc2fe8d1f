"""Cutting the caller's own words out of an answer before it becomes an error."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, TypeVar

import msgspec

from mirage_async.exceptions import APIError, MirageError
from mirage_async.wire._message import Report, Submitted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mirage_async.wire._message import Reply

__all__ = ["read_unquoted", "unquoted"]

T = TypeVar("T")

SHORTEST = 8  # characters; a shorter prompt may be an ordinary word of any sentence


def read_unquoted(reply: Reply, read: Callable[[Reply], T], private: Sequence[str]) -> T:
    """Return what `read` makes of an answer, with the private texts of the request in no reason that is given.

    Nothing but the reason is taken from the second reading: a private text may be any word, also one that means
    something in an answer.

    Raises:
        MirageError: as `read`, without these texts where the provider's words are in it.
    """
    try:
        found = read(reply)
    except APIError:
        found = None
    if found is None:  # outside the first error's context
        return read(unquoted(reply, private))
    if getattr(found, "reason", None) is None:  # there are answers of many kinds, and most have nothing to explain
        return found
    return _with_reason(found, _reason_unquoted(reply, read, private))


def _reason_unquoted(reply: Reply, read: Callable[[Reply], object], private: Sequence[str]) -> str | None:
    try:
        return getattr(read(unquoted(reply, private)), "reason", None)
    except MirageError:
        return None


def _with_reason(found: T, reason: str | None) -> T:
    if isinstance(found, Submitted) and found.report is not None:
        return msgspec.structs.replace(found, report=_with_reason(found.report, reason))
    return msgspec.structs.replace(found, reason=reason) if isinstance(found, Report) else found


def unquoted(reply: Reply, private: Sequence[str]) -> Reply:
    """Return the answer without the private texts of a request, however JSON spells them."""
    body = reply.body
    for text in private:
        if len(text) >= SHORTEST:
            for spelling in (text.encode(), json.dumps(text)[1:-1].encode(), msgspec.json.encode(text)[1:-1]):
                body = body.replace(spelling, b"...")
    return reply if body == reply.body else msgspec.structs.replace(reply, body=body)
