"""What may be repeated from a provider's answer: one short printable line, without keys, prompts or pictures."""

from __future__ import annotations

import re

from mirage_async.wire._values import is_array, is_object, items_of

__all__ = ["one_line", "scrub"]

LEFT_OUT = "[left out]"
MESSAGE_LIMIT = 300

_READ_LIMIT = 8 << 10  # characters of a text that are looked at; keeps the patterns below away from megabytes
_DEPTH_LIMIT = 8
_ITEM_LIMIT = 100

# Error answers like to repeat the request: problem+json as `value`, FastAPI as `input`, others by field name.
_ECHOES = frozenset(
    {
        "auth_token",
        "b64_json",
        "image",
        "image_url",
        "images",
        "input",
        "prompt",
        "reference_images",
        "revised_prompt",
        "sourceimage",
        "value",
        "webhook",
    }
)
_PICTURE = re.compile(r"data:[\w/+.-]{0,100};base64,[\w+/=-]*|[\w+/=-]{64,}", re.ASCII)
# The shapes of the four providers' keys, and whatever follows the word Bearer.
_SECRET = re.compile(r"\b(?:sk|mi|ek|eliza)[-_][\w-]{8,}|\bBearer\s+\S+", re.ASCII | re.IGNORECASE)


def one_line(text: str, limit: int = MESSAGE_LIMIT) -> str:
    """Return `text` as one printable line of at most `limit` characters, without keys and base64."""
    visible = "".join(letter if letter.isprintable() else " " for letter in text[:_READ_LIMIT])
    line = " ".join(_clean(visible).split())
    return line if len(line) <= limit else line[: limit - 3] + "..."


def scrub(value: object, depth: int = 0) -> object:
    """Return decoded JSON without the fields that repeat the request, and without keys and base64 in its texts."""
    if isinstance(value, str):
        return _clean(value[:_READ_LIMIT])
    if not is_object(value) and not is_array(value):
        return value
    if depth == _DEPTH_LIMIT:
        return LEFT_OUT
    if is_object(value):
        return {
            name: LEFT_OUT if name.lower() in _ECHOES and entry is not None else scrub(entry, depth + 1)
            for name, entry in value.items()
        }
    return [scrub(entry, depth + 1) for entry in items_of(value)[:_ITEM_LIMIT]]


def _clean(text: str) -> str:
    return _PICTURE.sub(LEFT_OUT, _SECRET.sub(LEFT_OUT, text))
