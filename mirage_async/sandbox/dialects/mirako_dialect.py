"""How Mirako reads a body and words a refusal, for pictures and avatars alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mirage_async.sandbox.answers import Answer, RefusalError, json_answer, phrase
from mirage_async.sandbox.dialects.fields import Fields, json_object

if TYPE_CHECKING:
    from mirage_async.sandbox.dialects.provider import Call
    from mirage_async.sandbox.world import World

__all__ = ["json_fields", "problem"]


def json_fields(world: World, call: Call) -> Fields:
    """Return the fields of a JSON body; a well-formed value that breaks a rule will be refused with 422."""
    return json_object(call.body, strict=world.strict, invalid_status=422)


def problem(refusal: RefusalError) -> Answer:
    """Word a refusal as an RFC 9457 problem document."""
    errors = None
    if refusal.name is not None:
        location = refusal.name if refusal.name == "body" else f"{refusal.part}.{refusal.name}"
        errors = [{"location": location, "message": refusal.message, "value": refusal.value}]
    return json_answer(
        {"title": phrase(refusal.status), "status": refusal.status, "detail": refusal.message, "errors": errors},
        status=refusal.status,
        content_type="application/problem+json",
    )
