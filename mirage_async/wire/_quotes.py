"""Cutting the caller's own words out of an answer before it becomes an error."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from mirage_async.wire._message import Call, Reply

__all__ = ["unquoted"]

SHORTEST = 8  # characters; a shorter prompt may be an ordinary word of any sentence


def unquoted(reply: Reply, call: Call) -> Reply:
    """Return the answer without the private texts of the request, however JSON spells them."""
    body = reply.body
    for text in call.private:
        if len(text) >= SHORTEST:
            for spelling in (text.encode(), json.dumps(text)[1:-1].encode(), msgspec.json.encode(text)[1:-1]):
                body = body.replace(spelling, b"...")
    return reply if body == reply.body else msgspec.structs.replace(reply, body=body)
