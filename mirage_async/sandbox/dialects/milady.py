"""Milady: one blocking request in camelCase, answered with permanent links."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from mirage_async.sandbox.answers import Answer, json_answer
from mirage_async.sandbox.dialects.downloads import delivered, download
from mirage_async.sandbox.dialects.fields import json_object
from mirage_async.sandbox.dialects.provider import Call, Operation, Provider, bearer
from mirage_async.sandbox.dialects.references import read_data_url
from mirage_async.sandbox.drawing.pictures import RATIO_SIZES, Picture
from mirage_async.sandbox.faults.flaws import ANSWER_FLAWS, END_FLAWS, LINK_FLAWS
from mirage_async.sandbox.honesty import documented, invented, observed

if TYPE_CHECKING:
    from mirage_async.sandbox.answers import RefusalError
    from mirage_async.sandbox.dialects.fields import Fields
    from mirage_async.sandbox.honesty import Behaviour
    from mirage_async.sandbox.jobs import Job
    from mirage_async.sandbox.world import World

__all__ = ["PROVIDER"]

_NAME = "milady"
_DOCUMENTED = ("prompt", "model", "aspectRatio", "numImages", "stylePreset", "sourceImage")
_MODELS = (
    "google/gemini-2.5-flash-image",
    "google/gemini-3.1-flash-image-preview",
    "google/gemini-3-pro-image",
    "openai/gpt-5-nano",
    "bfl/flux-kontext-max",
)
_RATIOS = ("1:1", "16:9", "9:16", "4:3", "3:4", "21:9", "9:21")
_PRESETS = (
    "none",
    "photographic",
    "digital-art",
    "comic-book",
    "fantasy-art",
    "analog-film",
    "neon-punk",
    "isometric",
    "low-poly",
    "origami",
    "line-art",
    "cinematic",
    "3d-model",
)
_LONGEST_PROMPT = 4000
_LONGEST_SOURCE = 14_000_000
_MOST_IMAGES = 4
_PAYMENT_REQUIRED = 402
_PRICE = 0.02


async def _generate(world: World, call: Call) -> Answer:
    """Draw one to four pictures while the client waits."""
    fields = json_object(call.body, strict=world.strict)
    fields.only(*_DOCUMENTED)
    pictures = await _read_pictures(world, fields)
    job_id = world.identifiers.uuid("milady.generate")
    job = world.start(
        _NAME, "image", job_id, call, prompt=pictures[0].prompt, model=fields.word("model"), pictures=pictures
    )
    await world.finish(job)
    images = [await _result(world, job, picture) for picture in delivered(pictures, job.flaws)]
    return json_answer({"images": images, "numImages": len(images)})


async def _read_pictures(world: World, fields: Fields) -> tuple[Picture, ...]:
    prompt = fields.text("prompt", longest=_LONGEST_PROMPT)
    _check_model(fields)
    width, height = RATIO_SIZES[fields.choice("aspectRatio", _RATIOS, "1:1")]
    count = fields.integer("numImages", 1, _MOST_IMAGES, 1)
    style = fields.choice("stylePreset", _PRESETS, "none")
    tints = await world.gallery.tints(_read_source(fields))
    # A style is words added to the prompt, so it changes the picture without being a field of it.
    seed = world.picture_seed(prompt if style == "none" else f"{prompt}, {style}")
    return tuple(
        Picture(prompt=prompt, seed=seed + index, width=width, height=height, format="WEBP", tints=tints)
        for index in range(count)
    )


def _check_model(fields: Fields) -> None:
    """Refuse an unknown model in strict mode; in lenient mode it stands for the default, as on the public server."""
    if fields.strict:
        fields.choice("model", _MODELS, _MODELS[0])
    elif fields.has("model"):
        fields.text("model")


def _read_source(fields: Fields) -> list[bytes]:
    if not fields.has("sourceImage"):
        return []
    source = fields.text("sourceImage", longest=_LONGEST_SOURCE)
    return [read_data_url(fields, "sourceImage", source)]


async def _result(world: World, job: Job, picture: Picture) -> dict[str, Any]:
    """Return one picture's entry; the file size is the real one, so it has to be drawn now."""
    said = {"text": f"Here is your picture: {picture.prompt}", "mimeType": picture.mime_type}
    if "no-image" in job.flaws:
        return said
    data = await world.encoded(picture, job.flaws)
    if "data-url" in job.flaws:
        # The document's fallback for a picture that could not be stored.
        return {"image": f"data:{picture.mime_type};base64,{base64.b64encode(data).decode()}", **said}
    token = world.identifiers.short("milady.link")
    world.links.add(token, picture, job_id=job.id, flaws=job.flaws)
    return {"url": f"{world.url}/images/{token}.webp", **said, "fileSize": len(data)}


def _refuse(refusal: RefusalError) -> Answer:
    body: dict[str, Any] = {"error": refusal.message}
    if refusal.status == _PAYMENT_REQUIRED:
        # What this request needs; the document's example is about one picture.
        body["required"] = refusal.value if isinstance(refusal.value, float) else _PRICE
    if refusal.retry_after:
        message = f"Too many requests; try again in {refusal.retry_after} seconds."
        body = {"success": False, **body, "code": "rate_limit_exceeded", "message": message}
        body["retryAfter"] = refusal.retry_after
    return json_answer(body, status=refusal.status)


_GUIDE = "Milady docs: Image Generation"
_SERVER = "elizaOS/cloud, generate-image route"
_LIMITS = "elizaOS/cloud, rate limit middleware"

BEHAVIOURS: tuple[Behaviour, ...] = (
    *documented(
        _NAME,
        _GUIDE,
        "The key is a bearer token.",
        "milady.generate takes a JSON object with a prompt and answers when the pictures are done.",
        "aspectRatio is one of seven, and 1:1 when it is absent.",
        "numImages is 1 to 4, and 1 when it is absent.",
        "stylePreset is one of thirteen, and none when it is absent.",
        "sourceImage is a data URL.",
        "milady.generate answers with images of url, text, mimeType and fileSize, and with numImages.",
        "milady.download is a permanent link to a .webp file below /images.",
        "A picture that could not be stored stands in the answer as image, not as url; the fault data-url does it.",
        "A prompt that is none gets 400, and so does an unknown model when the sandbox is strict.",
        "A refusal is an object with error, a text.",
        "A lack of credits gets 402, and required says what a picture costs, 0.02.",
    ),
    *observed(
        _NAME,
        _SERVER,
        "Unless the sandbox is strict, an unknown model stands for the default one.",
        "A prompt has at most 4000 characters, and is not blank.",
        "sourceImage has at most 14,000,000 characters.",
        "A picture that could not be stored comes as a whole data URL.",
        "Fewer pictures than were ordered are no error, and numImages counts those that came; the fault fewer does it.",
        "A missing key gets 401.",
    ),
    *observed(
        _NAME,
        _LIMITS,
        "With a limit set, its answers carry X-RateLimit-Limit, -Remaining, -Reset as a date, and -Policy.",
        "A limited request is refused with success, error, code rate_limit_exceeded, message and retryAfter.",
    ),
    *invented(
        _NAME,
        "A picture is about 1024 pixels on its long side and exactly of its ratio.",
        "The text beside a picture repeats the prompt.",
        "The model does not change the picture, and the style changes it as words in the prompt would.",
        "An unknown aspectRatio or stylePreset gets 400.",
    ),
)

PROVIDER = Provider(
    name=_NAME,
    operations=(
        Operation(
            name="milady.generate",
            method="POST",
            paths=("/api/v1/generate-image",),
            stage="submit",
            handle=_generate,
            blocking=True,
            flaws=ANSWER_FLAWS | END_FLAWS | LINK_FLAWS | {"no-image", "data-url", "fewer"},
            leads_to=("milady.download",),
        ),
        Operation(
            name="milady.download",
            method="GET",
            paths=("/images/{file_name}.webp",),
            stage="picture",
            handle=download,
            needs_key=False,
            flaws=ANSWER_FLAWS | LINK_FLAWS,
        ),
    ),
    find_key=bearer,
    refuse=_refuse,
    price=_PRICE,
    behaviours=BEHAVIOURS,
)
