"""What an operation says back: an answer, or a refusal that its provider words in its own way."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Answer", "RefusalError", "json_answer", "phrase"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One HTTP answer before it meets a socket."""

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict[str, str])

    def with_headers(self, headers: Mapping[str, str]) -> Answer:
        """Return this answer with further headers; its own win."""
        return replace(self, headers={**headers, **self.headers})


class RefusalError(Exception):
    """A request that breaks a rule.

    Attributes:
        status: HTTP status, 400-599.
        message: what is wrong and what was given, for a person.
        code: machine-readable word, for providers that send one.
        name: the field at fault, or None when it is not about a field.
        value: what was given for it.
        part: where in the request that field is, "body" or "path".
        retry_after: seconds until the request may pass, for providers that say so in the body; 0 for nothing to say.
        headers: headers that belong to the refusal, whoever words it.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        name: str | None = None,
        value: object = None,
        part: Literal["body", "path"] = "body",
        retry_after: int = 0,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.name = name
        self.value = value
        self.part = part
        self.retry_after = retry_after
        self.headers = headers or {}


def json_answer(value: Any, *, status: int = 200, content_type: str = "application/json") -> Answer:
    """Return `value` as a JSON answer."""
    return Answer(status=status, body=msgspec.json.encode(value), content_type=content_type)


def phrase(status: int) -> str:
    """Return HTTP's own words for `status`, or "Error" for a number it does not know."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"
