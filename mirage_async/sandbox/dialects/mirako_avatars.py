"""Mirako's avatars: a portrait goes in, and a model that prompts can name comes out."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from mirage_async.sandbox.answers import Answer, RefusalError, json_answer
from mirage_async.sandbox.dialects.mirako_dialect import json_fields
from mirage_async.sandbox.dialects.provider import Call, Operation
from mirage_async.sandbox.dialects.references import decode_base64
from mirage_async.sandbox.drawing.inspection import probe
from mirage_async.sandbox.faults.flaws import ANSWER_FLAWS, JOB_FLAWS
from mirage_async.sandbox.honesty import documented, invented, observed
from mirage_async.sandbox.jobs import Job, Words

if TYPE_CHECKING:
    from mirage_async.sandbox.dialects.fields import Fields
    from mirage_async.sandbox.drawing.pictures import Colour
    from mirage_async.sandbox.honesty import Behaviour
    from mirage_async.sandbox.world import World

__all__ = ["BEHAVIOURS", "OPERATIONS", "portrait_colour"]

_NAME = "mirako"
_WORDS = Words("PENDING", "BUILDING", "READY", "ERROR", "ERROR", "ERROR")
_MOST_BYTES = 10 * 2**20
_LEAST_PIXELS = 512
_RATIOS = (1.0, 16 / 9)
_RATIO_TOLERANCE = 0.02
_THEMES = ("Studio", "Outdoor")


def portrait_colour(world: World, avatar_id: str) -> Colour | None:
    """Return the average colour of a finished avatar's portrait, or None for any other name."""
    world.workshop.catch_up()
    job = world.jobs.find(_NAME, "avatar", avatar_id)
    if job is None or not job.is_done:
        return None
    colour: Colour = job.notes["colour"]
    return colour


async def _create(world: World, call: Call) -> Answer:
    """Start building an avatar."""
    fields = json_fields(world, call)
    fields.only("name", "image")
    name = fields.text("name")
    (colour,) = await world.gallery.tints([_read_portrait(fields)])
    job_id = world.identifiers.uuid("mirako.avatar")
    world.start(_NAME, "avatar", job_id, call, prompt=name, words=_WORDS, notes={"colour": colour})
    world.charge(_NAME)
    return json_answer({"data": {"avatar_id": job_id}})


async def _status(world: World, call: Call) -> Answer:
    """Show one avatar."""
    avatar_id = call.path_values["avatar_id"]
    job = world.jobs.find(_NAME, "avatar", avatar_id)
    if job is None:
        raise RefusalError(404, f"No avatar {avatar_id!r}.", name="avatar_id", value=avatar_id, part="path")
    sight = world.look_at(job, call)
    return json_answer({"data": _describe(job, sight.word, is_ready=sight.has_result)})


async def _list(world: World, _call: Call) -> Answer:
    """Show all avatars, oldest first; null rather than an empty list, as the vendor's schema has it."""
    world.workshop.catch_up()
    now = world.clock.monotonic()
    avatars = [
        _describe(job, job.words.word(job.station(now)), is_ready=job.is_done)
        for job in world.jobs.of_kind(_NAME, "avatar")
    ]
    return json_answer({"data": avatars or None})


def _describe(job: Job, status: str, *, is_ready: bool) -> dict[str, Any]:
    themes = [{"name": theme} for theme in _THEMES] if is_ready else None
    return {
        "id": job.id,
        "user_id": "sandbox",
        "name": job.prompt,
        "created_at": datetime.fromtimestamp(job.created_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "status": status,
        "themes": themes,
    }


def _read_portrait(fields: Fields) -> bytes:
    """Return the portrait's bytes, checked against the document's size and format rules."""
    text = fields.text("image")
    data = decode_base64(text)
    if data is None:
        raise fields.invalid("image", "must be standard base64 without a data URL prefix", text)
    if len(data) > _MOST_BYTES:
        raise fields.invalid("image", f"must be at most 10 MB (is {len(data)} bytes)", None)
    found = probe(data)
    if found is None or found[0] not in ("JPEG", "PNG"):
        raise fields.invalid("image", "must be a JPG or PNG picture", None)
    _check_size(fields, found[1], found[2])
    return data


def _check_size(fields: Fields, width: int, height: int) -> None:
    if min(width, height) < _LEAST_PIXELS:
        raise fields.invalid("image", f"must be at least 512x512 pixels (is {width}x{height})", None)
    ratio = width / height
    if fields.strict and all(abs(ratio / wanted - 1) > _RATIO_TOLERANCE for wanted in _RATIOS):
        raise fields.invalid("image", f"must be square or 16:9 (is {width}x{height})", None)


_GUIDE = "Mirako guide: Build Avatar"
_SPEC = "mirako-ai/mirako-cli OpenAPI"

BEHAVIOURS: tuple[Behaviour, ...] = (
    *documented(
        _NAME,
        _GUIDE,
        "mirako.avatar_create takes a JSON object with name and image, and answers with an avatar_id under data.",
        "mirako.avatar_create takes the portrait as plain base64 without a data URL around it.",
        "A portrait is JPG or PNG, at least 512 pixels on each side and at most 10 MB large.",
        "When the sandbox is strict, a portrait has to be square or 16:9, give or take two hundredths.",
        "mirako.avatar_status shows PENDING, BUILDING, READY or ERROR, with name, created_at and themes.",
    ),
    *observed(
        _NAME,
        _SPEC,
        "mirako.avatar_list shows all avatars under data, and null when there are none.",
        "mirako.avatar_status has id and user_id, too, and themes are null until the avatar is READY.",
        "Avatar ids are UUIDs, and created_at is a date with seconds and a Z.",
    ),
    *invented(
        _NAME,
        "An avatar is built in four seconds, where the guide speaks of minutes.",
        "A READY avatar has the themes Studio and Outdoor, without pictures of their own.",
        "Whether a portrait shows a face, or one, is not looked at.",
        "mirako.avatar_list has no pages, and avatars are oldest first.",
        "Avatars cannot be deleted, though the vendor's schema has a way to do it.",
    ),
)

OPERATIONS = (
    Operation(
        name="mirako.avatar_create",
        method="POST",
        paths=("/v1/avatar/async_build",),
        stage="submit",
        handle=_create,
        flaws=ANSWER_FLAWS | JOB_FLAWS,
        leads_to=("mirako.avatar_status",),
    ),
    # Before the path with a name in it, which would match "list" too.
    Operation(name="mirako.avatar_list", method="GET", paths=("/v1/avatar/list",), stage="list", handle=_list),
    Operation(
        name="mirako.avatar_status",
        method="GET",
        paths=("/v1/avatar/{avatar_id}",),
        stage="status",
        handle=_status,
        flaws=ANSWER_FLAWS | JOB_FLAWS,
    ),
)
