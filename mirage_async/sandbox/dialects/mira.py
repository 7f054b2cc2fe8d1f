"""Mira: one blocking request in the shape of OpenAI's image API."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from mirage_async.sandbox.answers import Answer, json_answer
from mirage_async.sandbox.dialects.downloads import delivered, download
from mirage_async.sandbox.dialects.fields import json_object
from mirage_async.sandbox.dialects.provider import Call, Operation, Provider, bearer
from mirage_async.sandbox.dialects.references import read_picture_or_link
from mirage_async.sandbox.drawing.pictures import Picture
from mirage_async.sandbox.faults.flaws import ANSWER_FLAWS, BYTE_FLAWS, END_FLAWS, LINK_FLAWS
from mirage_async.sandbox.honesty import documented, invented, observed

if TYPE_CHECKING:
    from mirage_async.sandbox.answers import RefusalError
    from mirage_async.sandbox.dialects.fields import Fields
    from mirage_async.sandbox.honesty import Behaviour
    from mirage_async.sandbox.jobs import Job
    from mirage_async.sandbox.world import World

__all__ = ["PROVIDER"]

_NAME = "mira"
_SIZES = {"1024x1024": (1024, 1024), "1024x1536": (1024, 1536), "1536x1024": (1536, 1024), "auto": (1024, 1024)}
_QUALITIES = ("low", "medium", "high", "auto")
_DOCUMENTED = ("prompt", "size", "n", "quality", "reference_images")
# The document promises that OpenAI's client works, and these are fields that client may add.
_COMPATIBLE = ("model", "response_format", "user")
_LONGEST_PROMPT = 4000
_MOST_IMAGES = 4
_MOST_REFERENCES = 4


async def _generate(world: World, call: Call) -> Answer:
    """Draw one to four pictures while the client waits."""
    fields = json_object(call.body, strict=world.strict)
    fields.only(*_DOCUMENTED, *_COMPATIBLE)
    prompt = fields.text("prompt", longest=_LONGEST_PROMPT)
    count = fields.integer("n", 1, _MOST_IMAGES, 1)
    as_base64 = fields.choice("response_format", ("url", "b64_json"), "url") == "b64_json"
    pictures = await _read_pictures(world, fields, prompt, count)
    job_id = world.identifiers.uuid("mira.generate")
    job = world.start(_NAME, "image", job_id, call, prompt=prompt, model=fields.word("model"), pictures=pictures)
    await world.finish(job)
    revised = f"{prompt.rstrip('. ')}. Layered depth, soft natural light, calm composition."
    data: list[dict[str, str]] = []
    for picture in delivered(pictures, job.flaws):
        if "no-image" in job.flaws:
            result = {}
        elif as_base64:
            result = {"b64_json": await _encoded(world, picture, job.flaws)}
        else:
            result = {"url": _issue_link(world, job, picture)}
        data.append(result | {"revised_prompt": revised})
    return json_answer({"created": int(world.clock.time()), "data": data})


async def _encoded(world: World, picture: Picture, flaws: frozenset[str]) -> str:
    text = base64.b64encode(await world.encoded(picture, flaws)).decode()
    return f"data:{picture.mime_type};base64,{text}" if "data-url" in flaws else text


async def _read_pictures(world: World, fields: Fields, prompt: str, count: int) -> tuple[Picture, ...]:
    width, height = _SIZES[fields.choice("size", _SIZES, "auto")]
    fields.choice("quality", _QUALITIES, "auto")
    items = fields.items("reference_images", _MOST_REFERENCES)
    references = [read_picture_or_link(fields, f"reference_images[{n}]", item) for n, item in enumerate(items)]
    tints = await world.gallery.tints(references)
    seed = world.picture_seed(prompt)
    return tuple(
        Picture(prompt=prompt, seed=seed + index, width=width, height=height, format="PNG", tints=tints)
        for index in range(count)
    )


def _issue_link(world: World, job: Job, picture: Picture) -> str:
    token = world.identifiers.short("mira.link")
    world.links.add(token, picture, job_id=job.id, flaws=job.flaws)
    return f"{world.url}/img/{token}.png"


def _refuse(refusal: RefusalError) -> Answer:
    return json_answer({"detail": refusal.message}, status=refusal.status)


_GUIDE = "Mira docs: Mira Image"
_ERRORS = "Mira docs: API errors"
_OPENAI = "openai/openai-python"

BEHAVIOURS: tuple[Behaviour, ...] = (
    *documented(
        _NAME,
        _GUIDE,
        "The key is a bearer token.",
        "mira.generate takes a JSON object at /v1/images/generate and answers when the pictures are done.",
        "mira.generate works with OpenAI's client, which is pointed at /v1.",
        "prompt is required and has 1 to 4000 characters.",
        "size is 1024x1024, 1024x1536, 1536x1024 or auto.",
        "n is 1 to 4.",
        "quality is low, medium, high or auto.",
        "reference_images has up to four links or data URLs, and makes mira.generate edit them.",
        "mira.generate answers with created, and for each picture a url and a revised_prompt under data.",
        "mira.download is a link to a .png file below /img.",
    ),
    *documented(
        _NAME,
        _ERRORS,
        "A refusal is an object with detail, a text.",
        "A broken rule gets 400, a missing key 401, a lack of credits 402, and a limit 429 with Retry-After.",
    ),
    *observed(
        _NAME,
        _OPENAI,
        "mira.generate is at /v1/images/generations as well, since that is where OpenAI's client sends its requests.",
        "model, response_format and user are taken, since OpenAI's client can send them.",
        "With response_format b64_json the picture itself stands in the answer, in plain base64.",
    ),
    *invented(
        _NAME,
        "A size of auto, or none, is 1024x1024.",
        "Without n there is one picture, and without quality it is auto, which changes nothing.",
        "The revised prompt is the prompt with a fixed sentence after it.",
        "The model is noted and not looked at.",
        "mira.download works for ever.",
        "The price does not depend on size and quality, as the provider's does.",
    ),
)

PROVIDER = Provider(
    name=_NAME,
    operations=(
        # The document's own request goes to the first path, the OpenAI client it recommends to the second.
        Operation(
            name="mira.generate",
            method="POST",
            paths=("/v1/images/generate", "/v1/images/generations"),
            stage="submit",
            handle=_generate,
            blocking=True,
            embeds=lambda fields: fields.get("response_format") == "b64_json",
            flaws=ANSWER_FLAWS | END_FLAWS | LINK_FLAWS | {"no-image", "fewer"},
            embedded_flaws=ANSWER_FLAWS | END_FLAWS | BYTE_FLAWS | {"no-image", "data-url", "fewer"},
            leads_to=("mira.download",),
        ),
        Operation(
            name="mira.download",
            method="GET",
            paths=("/img/{file_name}.png",),
            stage="picture",
            handle=download,
            needs_key=False,
            flaws=ANSWER_FLAWS | LINK_FLAWS,
        ),
    ),
    find_key=bearer,
    refuse=_refuse,
    behaviours=BEHAVIOURS,
)
