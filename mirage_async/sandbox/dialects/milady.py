"""Milady: one blocking request in camelCase, answered with permanent links."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mirage_async.sandbox.answers import Answer, RefusalError, json_answer
from mirage_async.sandbox.dialects.fields import Fields
from mirage_async.sandbox.dialects.provider import Call, Operation, Provider, bearer
from mirage_async.sandbox.dialects.references import read_data_url
from mirage_async.sandbox.drawing.pictures import RATIO_SIZES, Picture

if TYPE_CHECKING:
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
    if call.body.kind != "json":
        raise RefusalError(400, "The request body must be a JSON object.")
    fields = Fields(call.body.fields, strict=world.strict)
    fields.only(*_DOCUMENTED)
    pictures = await _read_pictures(world, fields)
    job_id = world.identifiers.uuid("milady.generate")
    job = world.start(_NAME, "image", job_id, prompt=pictures[0].prompt, pictures=pictures)
    await world.finish(job)
    images = [await _result(world, picture) for picture in pictures]
    return json_answer({"images": images, "numImages": len(images)})


async def _download(world: World, call: Call) -> Answer:
    """Serve the bytes behind a link."""
    picture = world.links.open(call.path_values["file_name"])
    return Answer(body=await world.gallery.render(picture), content_type=picture.mime_type)


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


async def _result(world: World, picture: Picture) -> dict[str, Any]:
    """Return one picture's entry; the file size is the real one, so it has to be drawn now."""
    size = len(await world.gallery.render(picture))
    token = world.identifiers.short("milady.link")
    world.links.add(token, picture)
    return {
        "url": f"{world.url}/images/{token}.webp",
        "text": f"Here is your picture: {picture.prompt}",
        "mimeType": picture.mime_type,
        "fileSize": size,
    }


def _refuse(refusal: RefusalError) -> Answer:
    body: dict[str, Any] = {"error": refusal.message}
    if refusal.status == _PAYMENT_REQUIRED:
        body["required"] = _PRICE
    return json_answer(body, status=refusal.status)


PROVIDER = Provider(
    name=_NAME,
    operations=(
        Operation(name="milady.generate", method="POST", paths=("/api/v1/generate-image",), handle=_generate),
        Operation(
            name="milady.download", method="GET", paths=("/images/{file_name}.webp",), handle=_download, needs_key=False
        ),
    ),
    find_key=bearer,
    refuse=_refuse,
)
