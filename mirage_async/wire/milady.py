"""Milady: one blocking endpoint in camelCase, which may deliver fewer pictures than were asked for.

The rules come from Milady's image page; what its server is known to do beyond that is marked as such.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from mirage_async.exceptions import ResponseError
from mirage_async.models import JobStatus
from mirage_async.wire._answers import accepted_fields
from mirage_async.wire._checks import choice, key_text, prompt_text, refused, short_text, whole_number
from mirage_async.wire._json import Fields, each, encode, plain
from mirage_async.wire._message import PICTURE_LIMIT, Call, Piece, Reply, Report
from mirage_async.wire._pictures import accepted, as_data_url, data_url_length
from mirage_async.wire._results import link, picture_bytes
from mirage_async.wire._values import text, whole

if TYPE_CHECKING:
    from mirage_async.media import Picture

__all__ = [
    "ASPECT_RATIOS",
    "BASE_URL",
    "CALLBACK_TOKEN",
    "KNOWN_MODELS",
    "MAX_IMAGES",
    "NAME",
    "STYLE_PRESETS",
    "credential",
    "generate_call",
    "read_generated",
]

NAME = "milady"
BASE_URL = "https://cloud.milady.ai"
CALLBACK_TOKEN = False
"""No token goes along with an address to call back: whatever calls there has the address alone."""

ASPECT_RATIOS = ("1:1", "16:9", "9:16", "4:3", "3:4", "21:9", "9:21")
STYLE_PRESETS = (
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
KNOWN_MODELS = (
    "google/gemini-2.5-flash-image",
    "google/gemini-3.1-flash-image-preview",
    "google/gemini-3-pro-image",
    "openai/gpt-5-nano",
    "bfl/flux-kontext-max",
)
"""The list of Milady's image page. Servers have moved on from it, so any name is accepted."""

MAX_IMAGES = 4
MAX_PROMPT = 4000
MAX_SOURCE = 14_000_000

_MODEL_LIMIT = 200
_TYPES = ("image/jpeg", "image/png", "image/webp", "image/gif")


class _Generate(msgspec.Struct, omit_defaults=True, rename="camel"):
    prompt: str
    model: str | msgspec.UnsetType = msgspec.UNSET
    aspect_ratio: str | msgspec.UnsetType = msgspec.UNSET
    num_images: int | msgspec.UnsetType = msgspec.UNSET
    style_preset: str | msgspec.UnsetType = msgspec.UNSET
    source_image: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


def credential(key: str) -> tuple[str, str]:
    """Return name and value of the header that carries the key.

    Raises:
        ConfigurationError: the key cannot travel in a header.
    """
    return "Authorization", f"Bearer {key_text(key, provider=NAME)}"


def generate_call(
    prompt: str,
    *,
    model: str | None,
    aspect_ratio: str | None,
    num_images: int | None,
    style_preset: str | None,
    source_image: Picture | None,
) -> Call:
    """Return the blocking request, which answers with the pictures. What is None is not sent.

    Args:
        prompt: 1 to 4000 characters; the upper limit is the server's, Milady's image page has none.
        model: any name, see `KNOWN_MODELS`. Some servers draw with their default model where they do not know the
            name, and do not say so.
        aspect_ratio: one of `ASPECT_RATIOS`; a hint to the model, not a promise.
        num_images: 1 to 4.
        style_preset: one of `STYLE_PRESETS`.
        source_image: a picture to work from, as bytes; at most 14,000,000 characters as a data URL (about
            10 MB). Links are not accepted.

    Raises:
        InputError: an argument Milady's image page does not allow.
    """
    body = _Generate(prompt=prompt_text(prompt, provider=NAME, maximum=MAX_PROMPT))
    if model is not None:
        body.model = short_text("model", model, provider=NAME, maximum=_MODEL_LIMIT)
    if aspect_ratio is not None:
        body.aspect_ratio = choice("aspect_ratio", aspect_ratio, ASPECT_RATIOS, provider=NAME)
    if num_images is not None:
        body.num_images = whole_number("num_images", num_images, 1, MAX_IMAGES, provider=NAME)
    if style_preset is not None:
        body.style_preset = choice("style_preset", style_preset, STYLE_PRESETS, provider=NAME)
    if source_image is not None:
        body.source_image = _source(source_image)
    return Call(
        method="POST",
        private=(prompt,),
        path="/api/v1/generate-image",
        body=encode(body),
        content_type="application/json",
        max_reply_bytes=PICTURE_LIMIT,
        picture_fields=("image",),
    )


def read_generated(reply: Reply) -> Report:
    """Read the pictures: a permanent link, or base64 where Milady could not store the file.

    Milady may deliver fewer pictures than asked for; what counts is what is there, not `numImages`.

    Raises:
        APIError: Milady refused or failed; `required` is set where credits are short.
        ResponseError: not one usable picture.
    """
    answer = accepted_fields(reply, NAME)
    items = each(answer, "images")
    pieces = tuple(piece for item in items if (piece := _piece(item, reply)) is not None)
    if not pieces:
        raise ResponseError(f"{NAME} answered without a usable picture", provider=NAME)
    return Report(status=JobStatus.SUCCEEDED, pieces=pieces, raw=_raw(answer, items))


def _source(picture: Picture) -> msgspec.Raw:
    data, facts = accepted("source_image", picture, _TYPES, provider=NAME)
    length = data_url_length(data, facts.mime_type)
    if length > MAX_SOURCE:
        raise refused("source_image", f"at most {MAX_SOURCE} characters as a data URL", str(length), NAME)
    return as_data_url(data, facts.mime_type)


def _raw(answer: Fields, items: list[Fields]) -> dict[str, Any]:
    return {**plain(answer, without=("images",)), "images": [plain(item, without=("image",)) for item in items]}


def _piece(item: Fields, reply: Reply) -> Piece | None:
    fields = plain(item, without=("image",))
    url = link(fields.get("url"))
    data = picture_bytes(item.get("image"), reply.pictures) if url is None else None
    if url is None and data is None:
        return None
    return Piece(
        data=data,
        url=url,
        mime_type=text(fields.get("mimeType")),
        file_size=whole(fields.get("fileSize")),
        text=text(fields.get("text")),
    )
