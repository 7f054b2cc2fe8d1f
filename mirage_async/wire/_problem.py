"""What an error answer says, whichever of the shapes met in the wild it has.

Known: problem+json (`title`, `detail`, `errors`), `error` as text or as an object, `detail` as text, object, list or
JSON text, `message`, `data.errorMessage`, plain text, HTML pages of a proxy, and nothing at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from mirage_async.exceptions import ResponseError
from mirage_async.wire._json import decode
from mirage_async.wire._message import JSON_LIMIT
from mirage_async.wire._values import fields_of, is_array, is_object, items_of, number
from mirage_async.wire._wording import one_line, scrub

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mirage_async.wire._message import Reply

__all__ = ["BODY_LIMIT", "Problem", "read_problem"]

BODY_LIMIT = 8 << 10  # bytes of an answer that an error keeps

# Where the sentence for people is, most telling first; the same order serves the object itself and nested ones.
_SENTENCES = ("error", "detail", "message", "msg", "errorMessage", "title", "errors", "data", "code")
_LAYERS = ("error", "detail", "data", "details")
_DEPTH_LIMIT = 4
_ITEM_LIMIT = 3


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """An error answer, read.

    Attributes:
        text: its sentence for people, one printable line; empty where there is none.
        structured: whether it is a JSON object with such a sentence.
        code: the provider's word for programs, or None.
        details: structured detail without echoes of the request, or None.
        required: what the request would have cost, or None.
        retry_after: seconds, from the body, or None.
        request_id: from the body, or None.
        body: the beginning as text, without echoes of the request.
    """

    text: str = ""
    structured: bool = False
    code: str | None = None
    details: object = None
    required: float | None = None
    retry_after: float | None = None
    request_id: str | None = None
    body: str = ""


def read_problem(reply: Reply) -> Problem:
    """Read an error answer of any shape; never raises."""
    value = _json(reply.body) if len(reply.body) <= JSON_LIMIT else None
    if not is_object(value):
        words = _plain_text(reply) if value is None else _words(value)
        return Problem(text=one_line(words), body=_body_text(reply.body, value))
    layers = list(_layers(value))
    wait = number(_first(layers, "retryAfter", "retry_after"))
    sentence = one_line(_sentence(value))
    return Problem(
        text=sentence,
        structured=bool(sentence),
        code=_word(_first(layers, "code")),
        details=scrub(_details(value, layers)),
        required=number(_first(layers, "required")),
        retry_after=None if wait is None else max(wait, 0.0),
        request_id=_word(_first(layers, "requestId", "request_id")),
        body=_body_text(reply.body, value),
    )


def _json(body: bytes) -> object:
    try:
        return decode(body, object)
    except ResponseError:
        return None


def _unfolded(value: object) -> object:
    """Return the JSON inside a text that holds JSON, else the value itself."""
    if isinstance(value, str) and value.lstrip()[:1] in {"{", "["}:
        found = _json(value.encode("utf-8", "replace"))
        return value if found is None else found
    return value


def _layers(answer: Mapping[str, object]) -> Iterator[dict[str, object]]:
    yield dict(answer)
    for name in _LAYERS:
        layer = fields_of(_unfolded(answer.get(name)))
        if layer:
            yield layer


def _first(layers: list[dict[str, object]], *names: str) -> object:
    return next((layer[name] for layer in layers for name in names if layer.get(name) is not None), None)


def _word(value: object) -> str | None:
    if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
        return one_line(str(value), 128) or None
    return None


def _sentence(answer: Mapping[str, object]) -> str:
    sentence = _words(answer)
    # problem+json lists the offending fields beside its sentence, and they are what a caller can act on.
    if answer.get("detail") and items_of(answer.get("errors")):
        return f"{sentence} ({_words(answer['errors'])})"
    return sentence


def _words(value: object, depth: int = 0) -> str:
    value = _unfolded(value)
    if isinstance(value, str):
        return value.strip()
    if depth == _DEPTH_LIMIT:
        return ""
    found = (_words(item, depth + 1) for item in items_of(value)[:_ITEM_LIMIT])
    if listed := "; ".join(filter(None, found)):
        return listed
    fields = fields_of(value)
    return next(filter(None, (_words(fields.get(name), depth + 1) for name in _SENTENCES)), "")


def _details(answer: Mapping[str, object], layers: list[dict[str, object]]) -> object:
    found = _first(layers, "details", "errors")
    if found is not None:
        return found
    detail = _unfolded(answer.get("detail"))
    return None if isinstance(detail, str) else detail


def _plain_text(reply: Reply) -> str:
    declared = (reply.headers.get("content-type") or "").lower()
    if "html" in declared or reply.body.lstrip()[:1] == b"<":
        return ""  # a page of some proxy; its text is mark-up, style sheets and apologies
    return reply.body[:BODY_LIMIT].decode("utf-8", "replace")


def _body_text(body: bytes, value: object) -> str:
    if is_object(value) or is_array(value):
        cleaned = scrub(value)
        kept = body if cleaned == value else msgspec.json.encode(cleaned)
        return kept[:BODY_LIMIT].decode("utf-8", "replace")
    return str(scrub(body[:BODY_LIMIT].decode("utf-8", "replace")))
