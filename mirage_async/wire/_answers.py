"""The way into every answer: the status first, then the outer object with its fields still undecoded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mirage_async.wire._errors import raise_for_status, refusal
from mirage_async.wire._json import Fields, opened

if TYPE_CHECKING:
    from mirage_async.wire._message import Reply

__all__ = ["accepted_fields", "denies_success", "outer_fields"]


def outer_fields(reply: Reply, provider: str) -> Fields:
    """Return the fields of a 2xx answer.

    Raises:
        APIError: the status is an error.
        ResponseError: the body is not a JSON object.
    """
    raise_for_status(reply, provider)
    return opened(reply.body, provider=provider)


def accepted_fields(reply: Reply, provider: str) -> Fields:
    """Return the fields of a 2xx answer that does not take it back with `success: false`.

    Raises:
        APIError: the status is an error, or `success` is false.
        ResponseError: the body is not a JSON object.
    """
    answer = outer_fields(reply, provider)
    if denies_success(answer):
        raise refusal(reply, provider)
    return answer


def denies_success(answer: Fields) -> bool:
    """Return whether `success` is false. A missing one, and one of another type, denies nothing."""
    return "success" in answer and bytes(answer["success"]) == b"false"
