"""Mira: one blocking endpoint, shaped like OpenAI's, with up to four pictures out and four in.

The rules come from the Mira Image page.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from mirage_async.exceptions import ResponseError
from mirage_async.models import JobStatus
from mirage_async.wire._answers import accepted_fields
from mirage_async.wire._checks import at_most, choice, key_text, prompt_text, refused, whole_number
from mirage_async.wire._json import Fields, each, encode, plain
from mirage_async.wire._message import PICTURE_LIMIT, Call, Piece, Reply, Report
from mirage_async.wire._pictures import accepted, as_data_url, as_link
from mirage_async.wire._results import is_data_url, link, picture_bytes
from mirage_async.wire._values import text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mirage_async.media import Picture

__all__ = [
    "BASE_URL",
    "CALLBACK_TOKEN",
    "MAX_IMAGES",
    "MAX_REFERENCES",
    "NAME",
    "PATH",
    "QUALITIES",
    "SIZES",
    "checked_path",
    "credential",
    "generate_call",
    "read_generated",
]

NAME = "mira"
BASE_URL = "https://api.vmira.ai"
CALLBACK_TOKEN = False
"""No token goes along with an address to call back: whatever calls there has the address alone."""

PATH = "/v1/images/generate"
"""From the page's curl sample. Its Python sample would call another path, which the vendor's list does not have."""

SIZES = ("1024x1024", "1024x1536", "1536x1024", "auto")
QUALITIES = ("low", "medium", "high", "auto")
MAX_IMAGES = 4
MAX_REFERENCES = 4
MAX_PROMPT = 4000

_TYPES = ("image/jpeg", "image/png", "image/webp", "image/gif")  # the page names none; these are what the web knows
_PATH = re.compile(r"(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+", re.ASCII)  # no dot segments, nothing to escape


class _Generate(msgspec.Struct, omit_defaults=True):
    prompt: str
    size: str | msgspec.UnsetType = msgspec.UNSET
    n: int | msgspec.UnsetType = msgspec.UNSET
    quality: str | msgspec.UnsetType = msgspec.UNSET
    reference_images: list[msgspec.Raw] | msgspec.UnsetType = msgspec.UNSET


def credential(key: str) -> tuple[str, str]:
    """Return name and value of the header that carries the key.

    Raises:
        ConfigurationError: the key cannot travel in a header.
    """
    return "Authorization", f"Bearer {key_text(key, provider=NAME)}"


def checked_path(path: str) -> str:
    """Return a path that can stand in an address as it is.

    Raises:
        InputError: it does not begin with a slash, or holds a dot segment or a character that needs escaping.
    """
    if not isinstance(path, str) or not _PATH.fullmatch(path):
        allowed = "a path that begins with '/' and has only letters, digits and '-._~/'"
        raise refused("path", allowed, repr(path)[:80], NAME)
    return path


def generate_call(
    prompt: str,
    *,
    size: str | None,
    n: int | None,
    quality: str | None,
    reference_images: Sequence[Picture],
    path: str = PATH,
) -> Call:
    """Return the blocking request, which answers with the pictures. What is None or empty is not sent.

    Args:
        prompt: 1 to 4000 characters.
        size: one of `SIZES`. The Mira Image page does not say what the default is.
        n: 1 to 4 pictures.
        quality: one of `QUALITIES`.
        reference_images: at most 4 pictures as bytes or http(s) links; with any, the request edits instead of
            inventing. Links are the safer choice: the page gives no limit for the size of a request.
        path: where to send it, for servers that call the endpoint something else.

    Raises:
        InputError: an argument the Mira Image page does not allow.
    """
    body = _Generate(prompt=prompt_text(prompt, provider=NAME, maximum=MAX_PROMPT))
    if size is not None:
        body.size = choice("size", size, SIZES, provider=NAME)
    if n is not None:
        body.n = whole_number("n", n, 1, MAX_IMAGES, provider=NAME)
    if quality is not None:
        body.quality = choice("quality", quality, QUALITIES, provider=NAME)
    if at_most("reference_images", reference_images, MAX_REFERENCES, provider=NAME):
        body.reference_images = [
            _reference(f"reference_images[{index}]", picture) for index, picture in enumerate(reference_images)
        ]
    return Call(
        method="POST",
        private=(prompt,),
        path=checked_path(path),
        body=encode(body),
        content_type="application/json",
        max_reply_bytes=PICTURE_LIMIT,
        picture_fields=("b64_json",),
    )


def read_generated(reply: Reply) -> Report:
    """Read the pictures: links, and base64 (`b64_json` or a data URI as `url`), which the page does not rule out.

    An item without a usable picture is left out.

    Raises:
        APIError: Mira refused or failed; `ContentRejectedError` where the text speaks of moderation.
        ResponseError: not one usable picture.
    """
    answer = accepted_fields(reply, NAME)
    items = each(answer, "data")
    pieces = tuple(piece for item in items if (piece := _piece(item, reply)) is not None)
    if not pieces:
        raise ResponseError(f"{NAME} answered without a usable picture", provider=NAME)
    raw = {**plain(answer, without=("data",)), "data": [_plain_item(item) for item in items]}
    return Report(status=JobStatus.SUCCEEDED, pieces=pieces, raw=raw)


def _reference(name: str, picture: Picture) -> msgspec.Raw:
    if picture.url is not None:
        return as_link(name, picture.url, provider=NAME)
    data, facts = accepted(name, picture, _TYPES, provider=NAME)
    return as_data_url(data, facts.mime_type)


def _plain_item(item: Fields) -> dict[str, Any]:
    return plain(item, without=("b64_json", "url") if is_data_url(item.get("url")) else ("b64_json",))


def _piece(item: Fields, reply: Reply) -> Piece | None:
    fields = _plain_item(item)
    prompt = text(fields.get("revised_prompt"))
    url = link(fields.get("url"))
    if url is not None:
        return Piece(url=url, revised_prompt=prompt)
    data = picture_bytes(item.get("url")) if is_data_url(item.get("url")) else None
    if data is None:
        data = picture_bytes(item.get("b64_json"), reply.pictures)
    return Piece(data=data, revised_prompt=prompt) if data is not None else None
