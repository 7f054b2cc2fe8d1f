"""What came of a purchase, as the journal keeps it: where the pictures are, never the pictures themselves.

A picture that can be had again is kept as a link, or not at all where the job can be asked for it. One that came inside
the answer to a purchase exists nowhere else; its bytes go to a file of their own, and the outcome names that.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from mirage_async import exceptions, media
from mirage_async.exceptions import JobCancelledError, JobExpiredError, JobFailedError, MirageError
from mirage_async.models import Avatar, Generation, Timings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mirage_async.models import GeneratedImage

_ENDINGS: dict[type[MirageError], str] = {
    JobFailedError: "failed",
    JobCancelledError: "was cancelled",
    JobExpiredError: "ran out of time",
}

__all__ = ["StoredError", "StoredImage", "StoredOutcome", "decode_outcome", "links_of", "store", "stored_images"]


class StoredImage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One picture of an outcome.

    Attributes:
        url: where the provider keeps it, or None where it sent the bytes.
        file: the name of the file under the journal's `pictures` folder that holds the bytes, or None where there is
            none, because they can be had again.
        sha256: of the bytes, 64 hexadecimal digits, or None where they were not read.
        size: bytes, or None.
        mime_type: as in `GeneratedImage`, and so are the rest.
        width: pixels, or None.
        height: pixels, or None.
        text: what the model said beside the picture, or None.
        revised_prompt: kept only where prompts are stored.
    """

    url: str | None = None
    file: str | None = None
    sha256: str | None = None
    size: int | None = None
    mime_type: str | None = None
    width: int | None = None
    height: int | None = None
    text: str | None = None
    revised_prompt: str | None = None


class StoredError(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An error, by the name of its class in `mirage_async.exceptions`.

    Attributes:
        kind: the name of the class.
        message: one line for people.
        attributes: the rest of what the error says.
    """

    kind: str
    message: str
    attributes: dict[str, Any] = msgspec.field(default_factory=dict[str, Any])

    def rebuild(self) -> MirageError:
        """Return the error again; `MirageError` itself where this version knows no such class."""
        kind = getattr(exceptions, self.kind, MirageError)
        if not (isinstance(kind, type) and issubclass(kind, MirageError)):
            kind = MirageError
        error = kind.__new__(kind, self.message)
        Exception.__init__(error, self.message)
        error.__dict__.update({**self.attributes, "message": self.message})
        return error


class StoredOutcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What came of a purchase: pictures, an avatar, or an error.

    Attributes:
        images: the pictures, in the provider's order.
        avatar: the avatar.
        error: why there is neither.
        credits: what the provider says it charged, or None.
        timings: how long the parts took.
        polls: status calls made.
    """

    images: tuple[StoredImage, ...] = ()
    avatar: Avatar | None = None
    error: StoredError | None = None
    credits: float | None = None
    timings: Timings = Timings()
    polls: int = 0


def store(
    outcome: object, *, key: str, spooled: bool, prompts: bool, known: bool = True
) -> tuple[StoredOutcome, list[tuple[str, bytes]]]:
    """Return an outcome as it is kept, and the files that have to be written before it.

    Hashes the pictures, so it belongs in a thread.

    Args:
        outcome: a `Generation`, an `Avatar` or a `MirageError`.
        key: our key of the job.
        spooled: the bytes of pictures that came inside the answer go to files.
        prompts: keep what repeats the prompt.
        known: the prompt was known, and cut out of the provider's words; else they are kept only with prompts.
    """
    if isinstance(outcome, MirageError):
        return StoredOutcome(error=_error(outcome, key=key, quotes=not (prompts or known))), []
    if isinstance(outcome, Avatar):
        return StoredOutcome(avatar=outcome), []
    if not isinstance(outcome, Generation):
        return StoredOutcome(), []
    files: list[tuple[str, bytes]] = []
    images: list[StoredImage] = []
    for number, image in enumerate(outcome.images, 1):
        name = None
        if spooled and image.data is not None and image.url is None:
            name = f"{key}-{number}{_suffix(image)}"
            files.append((name, image.data))
        images.append(_image(image, name, prompts=prompts))
    stored = StoredOutcome(images=tuple(images), credits=outcome.credits, timings=outcome.timings, polls=outcome.polls)
    return stored, files


def links_of(outcome: object) -> list[str]:
    """Return where the pictures of an outcome are, for a log: without what makes such a link a key."""
    images = outcome.images if isinstance(outcome, Generation) else ()
    return [urlsplit(image.url)._replace(query="", fragment="").geturl() for image in images if image.url]


def stored_images(paths: Sequence[Path]) -> tuple[StoredImage, ...]:
    """Return what the files of an outcome say of the pictures in them, where nothing else does."""
    images: list[StoredImage] = []
    for path in paths:
        data = path.read_bytes()
        facts = media.inspect(data)
        images.append(
            StoredImage(
                file=path.name,
                sha256=hashlib.sha256(data).hexdigest(),
                size=len(data),
                mime_type=None if facts is None else facts.mime_type,
                width=None if facts is None else facts.width,
                height=None if facts is None else facts.height,
            )
        )
    return tuple(images)


def _image(image: GeneratedImage, name: str | None, *, prompts: bool) -> StoredImage:
    data = image.data
    return StoredImage(
        url=image.url,
        file=name,
        sha256=None if data is None else hashlib.sha256(data).hexdigest(),
        size=None if data is None else len(data),
        mime_type=image.mime_type,
        width=image.width,
        height=image.height,
        text=image.text,
        revised_prompt=image.revised_prompt if prompts else None,
    )


def _suffix(image: GeneratedImage) -> str:
    return next((suffix for suffix, kind in media.PICTURE_SUFFIXES.items() if kind == image.mime_type), ".bin")


def _error(error: MirageError, *, key: str, quotes: bool) -> StoredError:
    attributes = {name: value for name, value in vars(error).items() if name != "message" and _is_plain(value)}
    ending = _ENDINGS.get(type(error)) if quotes else None
    message = str(error)
    if ending is not None:
        job_id = attributes.get("job_id") or key
        message = f"the {error.provider} job {job_id} {ending}; the provider's reason is not kept without store_prompts"
    return StoredError(kind=type(error).__name__, message=message, attributes=attributes)


def _is_plain(value: Any) -> bool:
    """Whether JSON can hold a value and give it back."""
    try:
        return bool(msgspec.json.decode(msgspec.json.encode(value)) == value)
    except (TypeError, ValueError, RecursionError):
        return False


def decode_outcome(text: str | None) -> StoredOutcome | None:
    """Return what `msgspec.json` made of an outcome, or None for None."""
    return None if text is None else msgspec.json.decode(text, type=StoredOutcome)
