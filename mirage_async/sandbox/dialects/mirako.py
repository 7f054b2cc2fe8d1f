"""Mirako: task ids and base64 pictures. Its avatars live in `mirako_avatars`."""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Any

import msgspec

from mirage_async.sandbox.answers import Answer, RefusalError, json_answer
from mirage_async.sandbox.dialects import mirako_avatars
from mirage_async.sandbox.dialects.mirako_dialect import json_fields, problem
from mirage_async.sandbox.dialects.provider import Call, Operation, Provider, bearer
from mirage_async.sandbox.dialects.references import read_data_url, read_link
from mirage_async.sandbox.drawing.pictures import RATIO_SIZES, Picture
from mirage_async.sandbox.faults.catalogue import shortened
from mirage_async.sandbox.faults.flaws import ANSWER_FLAWS, BYTE_FLAWS, END_FLAWS, JOB_FLAWS
from mirage_async.sandbox.honesty import documented, invented, observed
from mirage_async.sandbox.jobs import Words

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mirage_async.sandbox.dialects.fields import Fields
    from mirage_async.sandbox.drawing.pictures import Colour
    from mirage_async.sandbox.honesty import Behaviour
    from mirage_async.sandbox.jobs import Job
    from mirage_async.sandbox.world import World

__all__ = ["PROVIDER"]

_NAME = "mirako"
_WORDS = Words("IN_QUEUE", "IN_PROGRESS", "COMPLETED", "FAILED", "CANCELED", "TIMED_OUT")
_RATIOS = ("16:9", "1:1", "4:3", "3:2", "2:3", "3:4", "9:16")
_MOST_IMAGES = 5
_IMAGE_TYPES = ("image/jpeg", "image/png")
_INT32 = 2**31 - 1
_INT64 = 2**63 - 1
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


async def _generate(world: World, call: Call) -> Answer:
    """Draw one picture while the client waits."""
    fields = json_fields(world, call)
    fields.only("prompt", "aspect_ratio", "seed", "images")
    picture = await _read_picture(world, fields)
    job_id = world.identifiers.short("mirako.generate")
    job = world.start(_NAME, "image", f"sync-{job_id}", call, prompt=picture.prompt, pictures=(picture,))
    await world.finish(job)
    return json_answer({"data": await _result(world, job, job.flaws)})


async def _create(world: World, call: Call) -> Answer:
    """Start one picture and answer with its task id."""
    fields = json_fields(world, call)
    fields.only("prompt", "aspect_ratio", "seed", "images", "webhook")
    webhook = _read_webhook(fields)
    picture = await _read_picture(world, fields)
    job = world.start(
        _NAME,
        "image",
        world.identifiers.short("mirako.create"),
        call,
        prompt=picture.prompt,
        words=_WORDS,
        pictures=(picture,),
        notes={"webhook": webhook},
    )
    world.charge(_NAME)
    await world.before_reply(job)
    return json_answer({"data": {"task_id": job.id, "status": _WORDS.queued}})


async def _status(world: World, call: Call) -> Answer:
    """Tell where a task stands, with the picture once it is completed."""
    task_id = call.path_values["task_id"]
    job = world.jobs.find(_NAME, "image", task_id)
    if job is None or job.words is not _WORDS:
        raise RefusalError(404, f"No task {task_id!r}.", name="task_id", value=task_id, part="path")
    sight = world.look_at(job, call)
    data = {"task_id": job.id, "status": sight.word}
    if sight.has_result:
        data |= await _result(world, job, sight.flaws)
    elif sight.station.is_bad_end:
        data["error"] = job.reason
    return json_answer({"data": data})


async def _announce(world: World, job: Job) -> bytes:
    """Return the news of a task that has ended: the body that is documented for other kinds of tasks."""
    waited, worked = (round(1000 * seconds) for seconds in job.times())
    status = job.words.word(job.station(job.ended_at))
    news: dict[str, Any] = {"id": job.id, "status": status, "delayTime": waited, "executionTime": worked}
    if job.is_done:
        news["output"] = await _result(world, job, job.flaws)
    else:
        news["error"] = job.reason
    return msgspec.json.encode(news)


async def _result(world: World, job: Job, flaws: frozenset[str]) -> dict[str, str]:
    """Return the field that holds the picture."""
    if "no-image" in flaws:
        return {}
    text = base64.b64encode(await world.encoded(job.pictures[0], flaws)).decode()
    return {"image": f"data:image/jpeg;base64,{text}" if "data-url" in flaws else text}


async def _read_picture(world: World, fields: Fields) -> Picture:
    prompt = fields.text("prompt")
    ratio = fields.choice("aspect_ratio", _RATIOS, None if fields.strict else "16:9")
    reach = _INT32 if fields.strict else _INT64
    seed = fields.integer("seed", -reach - 1, reach) if fields.has("seed") else None
    references = _read_images(fields)
    width, height = RATIO_SIZES[ratio]
    return Picture(
        prompt=shortened(prompt),
        seed=world.picture_seed(prompt, seed),
        width=width,
        height=height,
        format="JPEG",
        tints=await world.gallery.tints(references) + _avatar_tints(world, prompt),
    )


def _read_images(fields: Fields) -> list[bytes]:
    """Return the reference pictures; a label is welcome but not required."""
    references: list[bytes] = []
    for index, item in enumerate(fields.items("images", _MOST_IMAGES)):
        image = fields.nested(f"images[{index}]", item, ("label", "data"))
        if image.has("label"):
            image.text("label")
        references.append(read_data_url(image, "data", image.require("data"), mime_types=_IMAGE_TYPES))
    return references


def _read_webhook(fields: Fields) -> dict[str, Any] | None:
    """Return where to announce the end of the task, if the client asked for that."""
    if not fields.has("webhook"):
        return None
    webhook = fields.nested("webhook", fields.require("webhook"), ("url", "auth_token"))
    url = read_link(webhook, "url", webhook.require("url"))
    return {"url": url, "auth_token": webhook.text("auth_token") if webhook.has("auth_token") else None}


def _avatar_tints(world: World, prompt: str) -> tuple[Colour, ...]:
    """Return the portrait colours of the finished avatars whose ids stand in the prompt."""
    tints = (mirako_avatars.portrait_colour(world, name) for name in _UUID.findall(prompt.lower()))
    return tuple(tint for tint in tints if tint is not None)


def _always(_: Mapping[str, Any]) -> bool:
    return True


_GUIDE = "Mirako guide: Generating Images with API"
_TASKS = "Mirako docs: Async Task"
_ERRORS = "Mirako docs: Error Response"
_SPEC = "mirako-ai/mirako-cli OpenAPI"

BEHAVIOURS: tuple[Behaviour, ...] = (
    *documented(
        _NAME,
        _GUIDE,
        "The key is a bearer token.",
        "mirako.create takes a JSON object with a prompt and answers with a task id under data.",
        "mirako.status shows IN_QUEUE, IN_PROGRESS, COMPLETED, FAILED, CANCELED or TIMED_OUT.",
        "mirako.status holds the picture as image once the task is COMPLETED.",
        "mirako.generate takes the same fields and answers with the picture itself.",
        "Pictures are JPEG files in plain base64.",
        "aspect_ratio is one of seven, and 16:9 when it is absent.",
        "images has up to five reference pictures with data, a data URL of JPEG or PNG, and perhaps a label.",
        "An avatar appears in a picture when its id stands in the prompt; here it lends the picture its colours.",
    ),
    *documented(
        _NAME,
        _TASKS,
        "mirako.create answers with the status of the task, IN_QUEUE, as well.",
        "mirako.status of a FAILED task tells the reason as error.",
        "Task ids are eight letters and digits.",
    ),
    *documented(
        _NAME,
        _ERRORS,
        "A refusal is a problem document with title, status, detail and errors of location, message and value.",
        "A well-formed value that breaks a rule gets 422, and one of the wrong type, or none, gets 400.",
    ),
    *observed(
        _NAME,
        _SPEC,
        "When the sandbox is strict, aspect_ratio is required.",
        "When the sandbox is strict, fields outside the schema are refused.",
        "seed is a whole number of 32 bits, and of 64 when the sandbox is not strict, as in older schemas.",
        "mirako.create takes a webhook of url and auth_token, and mirako.generate takes none.",
        "mirako.webhook sends the auth_token as a bearer token.",
        "Refusals have the content type application/problem+json.",
    ),
    *invented(
        _NAME,
        "A picture is about 1024 pixels on its long side and exactly of its ratio.",
        "mirako.status of a task that is CANCELED or TIMED_OUT tells the reason as error, too.",
        "A purchase that was answered by mirako.generate is no task, so mirako.status does not know it.",
        "mirako.status of an unknown task gets 404 with the location path.task_id.",
        "mirako.webhook has the body that the schema gives for other tasks: id, status, times, and output or error.",
        "mirako.webhook is sent for bad ends, too, and three times ten seconds apart until it is answered with 2xx.",
        "The sizes that the guide recommends for reference pictures are not enforced.",
    ),
)

PROVIDER = Provider(
    name=_NAME,
    kinds=("image", "avatar"),
    operations=(
        Operation(
            name="mirako.generate",
            method="POST",
            paths=("/v1/image/generate",),
            stage="submit",
            handle=_generate,
            blocking=True,
            embeds=_always,
            flaws=ANSWER_FLAWS | END_FLAWS | BYTE_FLAWS | {"no-image", "data-url"},
        ),
        Operation(
            name="mirako.create",
            method="POST",
            paths=("/v1/image/async_generate",),
            stage="submit",
            handle=_create,
            flaws=ANSWER_FLAWS | JOB_FLAWS | BYTE_FLAWS | {"no-image", "data-url"},
            leads_to=("mirako.status", "mirako.webhook"),
        ),
        Operation(
            name="mirako.status",
            method="GET",
            paths=("/v1/image/async_generate/{task_id}/status",),
            stage="status",
            handle=_status,
            embeds=_always,
            flaws=ANSWER_FLAWS | JOB_FLAWS | BYTE_FLAWS | {"no-image", "data-url"},
        ),
        *mirako_avatars.OPERATIONS,
    ),
    find_key=bearer,
    refuse=problem,
    announce=_announce,
    behaviours=BEHAVIOURS + mirako_avatars.BEHAVIOURS,
)
