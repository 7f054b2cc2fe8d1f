"""The values people hold: what to buy, what was bought, how a job stands."""

from __future__ import annotations

import enum
import html
import io
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import msgspec

from mirage_async import media
from mirage_async.exceptions import InputError, MirageError

if TYPE_CHECKING:
    import os

    from PIL.Image import Image as PILImage

    from mirage_async.exceptions import Billed

__all__ = [
    "Avatar",
    "AvatarStatus",
    "GeneratedImage",
    "Generation",
    "ImageInput",
    "ImageRequest",
    "JobStatus",
    "JobUpdate",
    "Outcome",
    "Pace",
    "Reader",
    "Reference",
    "Timings",
    "Tried",
    "check_types",
]


class JobStatus(enum.StrEnum):
    """Where a job stands; the providers' own words are translated to these.

    `UNCERTAIN` is ours: the request left and nobody can say whether the provider took it.
    """

    SUBMITTING = "submitting"
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    UNCERTAIN = "uncertain"

    terminal: bool
    """Whether the provider will never change it again."""

    def __init__(self, value: str) -> None:
        self.terminal = value in {"succeeded", "failed", "cancelled", "expired"}


class JobUpdate(msgspec.Struct, frozen=True, kw_only=True):
    """One state of a job as `Job.updates()` tells it.

    Attributes:
        status: where the job stands.
        progress: share done, 0 to 1, or None where the provider does not say.
        elapsed: seconds since `submit` was called (or since the job was attached).
        polls: status calls made so far.
    """

    status: JobStatus
    progress: float | None = None
    elapsed: float = 0.0
    polls: int = 0


class Reference:
    """A picture to work from, with an optional label that the prompt can name (`[label]` at Mirako).

    Args:
        data: `bytes`, a `pathlib.Path`, a data URL, a PIL image or, where the provider allows it, an http(s) URL.
        label: the name for the prompt; only Mirako has labels.
    """

    __slots__ = ("data", "label")

    def __init__(self, data: bytes | str | os.PathLike[str] | PILImage, *, label: str | None = None) -> None:
        self.data = data
        self.label = label

    def __repr__(self) -> str:
        return f"Reference({media.describe(self.data)}, label={self.label!r})"


ImageInput: TypeAlias = "bytes | str | os.PathLike[str] | PILImage | Reference"


class ImageRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request in portable terms, for `Mirage.submit` and `Mirage.batch`.

    Attributes:
        prompt: what to draw.
        provider: who draws it.
        providers: who may draw it, the first choice first; in place of `provider`.
        aspect_ratio: such as "16:9".
        size: such as "1024x1536".
        n: how many pictures.
        seed: for a repeatable picture, where the provider has seeds.
        model: the provider's name of a model.
        references: pictures to work from.
        options: the provider's own further parameters by keyword.
        max_wait: seconds to wait for the result, or None for the provider's default.
        key: your own id of this purchase, 32 lowercase hexadecimal digits, such as `uuid.uuid4().hex`; needs a journal.
            Asking again with the same key, in this process or a later one, gets what was bought under it instead of
            buying again. None has one made. A key stands for one request with one list of who may draw it (one name in
            `providers` is the same as `provider`), however it is split in a batch; with another the same key raises
            `InputError` and nothing is sent, unless all that was tried under it is proven unpaid. It is known for ever;
            where the journal keeps the result no longer (`retention`), the provider is asked for it by its id, and
            where there is none the key is refused. Where there are several `providers`, or the request is split, each
            purchase has a key made of this one. To the key, a request at Mirako with `max_wait` is another one than the
            same without: it goes to another endpoint.
    """

    prompt: str
    provider: str | None = None
    providers: tuple[str, ...] = ()
    aspect_ratio: str | None = None
    size: str | None = None
    n: int | None = None
    seed: int | None = None
    model: str | None = None
    references: tuple[Any, ...] = ()
    options: Mapping[str, Any] | None = None
    max_wait: float | None = None
    key: str | None = None

    def __repr__(self) -> str:
        """Describe the request without its prompt and pictures, which belong in no log."""
        return f"ImageRequest(provider={self.provider!r}, prompt=<{len(self.prompt)} characters>)"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Say as little to rich, whose tracebacks show local variables."""
        return [("provider", self.provider)]


_LARGEST = 2**63  # of whole numbers; what is beyond cannot always be shown, nor be reckoned with

_TEXTS = ("provider", "aspect_ratio", "size", "model")
_WHOLE = ("n", "seed")
_LISTS = ("providers", "references")


def check_types(request: ImageRequest) -> None:
    """Raise `InputError` for a value that could not even be reckoned with; ranges are the provider's business."""
    _must_be("prompt", request.prompt, str, "text")
    for name in _TEXTS:
        _must_be(name, getattr(request, name), (str, NoneType), "text or None")
    for name in _WHOLE:
        value = getattr(request, name)
        _must_be(name, value, (int, NoneType), "a whole number or None")
        if value is not None and not -_LARGEST < value < _LARGEST:
            msg = f"{name} must be a number of at most 19 digits; got one of {value.bit_length()} bits"
            raise InputError(msg)
    for name in _LISTS:
        _must_be(name, getattr(request, name), (tuple, list), "a tuple or a list")
    _must_be("options", request.options, (Mapping, NoneType), "a mapping of parameters by name, or None")
    _must_be("key", request.key, (str, NoneType), "32 lowercase hexadecimal digits, as uuid.uuid4().hex is, or None")
    _must_be("max_wait", request.max_wait, (int, float, NoneType), "a number of seconds or None")


def _must_be(name: str, value: object, kinds: Any, words: str) -> None:
    if not isinstance(value, kinds) or isinstance(value, bool):
        msg = f"{name} must be {words}; got a value of type {type(value).__name__}"
        raise InputError(msg)


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """How often a provider's document suggests to ask for the state of a job; all in seconds.

    Attributes:
        first: from acceptance to the first status call.
        interval: between the first two status calls.
        maximum: the longest interval a growing schedule reaches.
        max_wait: how long to wait for such a job by default.
        typical: how long such a job takes, roughly, or None where the document gives no idea. A policy that learns
            begins with it.
    """

    first: float
    interval: float
    maximum: float
    max_wait: float
    typical: float | None = None


class Timings(msgspec.Struct, frozen=True, kw_only=True):
    """How long the parts of a job took, in seconds; None where a part was not seen.

    Attributes:
        queued: from `submit` until the job was first seen running.
        running: from then (or from `submit`, where a provider has no queue) until it was seen finished.
        detected: from `submit` until it was seen finished.
        downloaded: spent on fetching the pictures before the result was handed over.
    """

    queued: float | None = None
    running: float | None = None
    detected: float | None = None
    downloaded: float | None = None


class Reader(Protocol):
    """Fetches what a `GeneratedImage` does not hold yet; `mirage_async.downloads` implements it."""

    async def read(self, image: GeneratedImage) -> bytes:
        """Return the whole picture, checked for completeness."""
        ...

    async def save(self, image: GeneratedImage, path: Path, *, overwrite: bool) -> Path:
        """Write the whole picture next to `path` and rename it into place."""
        ...


class GeneratedImage:
    """One picture that was bought: its bytes, or a link that is read when they are asked for.

    Attributes:
        url: where the provider keeps it, or None where it sent the bytes.
        mime_type: "image/jpeg", "image/png" or "image/webp"; read from the bytes once they are here, before that
            what the provider said, or None.
        width: pixels, read from the bytes; None before they are here.
        height: pixels, as `width`.
        revised_prompt: the prompt the provider really used (Mira), or None.
        text: what the model said beside the picture (Milady), or None.
        name: a file name without suffix that tells provider, job and position apart.
    """

    __slots__ = (
        "_data",
        "_flaw",
        "_reader",
        "height",
        "mime_type",
        "name",
        "revised_prompt",
        "text",
        "url",
        "width",
    )

    def __init__(
        self,
        reader: Reader,
        *,
        data: bytes | None = None,
        url: str | None = None,
        mime_type: str | None = None,
        revised_prompt: str | None = None,
        text: str | None = None,
        name: str = "image",
    ) -> None:
        self._reader = reader
        self._data: bytes | None = None
        self._flaw: str | None = None
        self.url = url
        self.mime_type = mime_type
        self.width: int | None = None
        self.height: int | None = None
        self.revised_prompt = revised_prompt
        self.text = text
        self.name = name
        if data is not None:
            self.fill(data)

    def fill(self, data: bytes) -> None:
        """Take over the bytes and what their header says; called by the reader, of little use elsewhere."""
        self.take(data, *media.appraise(data))

    def take(self, data: bytes, facts: media.Facts | None, flaw: str | None) -> None:
        """Take over bytes somebody has looked at already; where they are of a type unknown here, nothing is flawed."""
        self._data, self._flaw = data, None if facts is None else flaw
        self.note(facts)

    def note(self, facts: media.Facts | None) -> None:
        """Take over what the header of the bytes says; called by the reader."""
        if facts is not None:
            self.mime_type, self.width, self.height = facts.mime_type, facts.width, facts.height

    @property
    def data(self) -> bytes | None:
        """The bytes if they are here already, else None; `read()` fetches them."""
        return self._data

    @property
    def flaw(self) -> str | None:
        """Why the bytes that are here are no whole picture; None where nothing speaks against them.

        Only a picture that came inside an answer, cut short, has one: `read()` and `save()` refuse it, since there is
        no other copy, and `data` holds what came.
        """
        return self._flaw

    async def read(self) -> bytes:
        """Return the whole picture, fetching it on first use and keeping it.

        A link is tried at least five times within 60 seconds; a temporary one that has run out is asked for again
        from the job. Cancelling leaves the picture as it was.

        Raises:
            DownloadError: it could not be fetched whole, and calling again tries again; or it has a `flaw`.
            DownloadExpiredError: the link no longer works and there is no fresh one.
        """
        if self._data is None or self._flaw is not None:
            self.fill(await self._reader.read(self))
        assert self._data is not None  # noqa: S101 - fill() has just set it; says so to the type checker
        return self._data

    async def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Write the picture and return the path it got.

        The suffix comes from the real bytes: a missing one is added, a wrong picture suffix is replaced. An existing
        folder takes the picture under its own `name`. The file appears whole or not at all, and parent folders are
        made. A link that was not read before is streamed to disk without being held in memory.

        Args:
            path: file name, or an existing folder.
            overwrite: replace an existing file; otherwise `FileExistsError`.

        Raises:
            FileExistsError: the file exists and `overwrite` is False.
            DownloadError: the picture could not be fetched whole.
        """
        return await self._reader.save(self, Path(path), overwrite=overwrite)

    def to_pil(self) -> PILImage:
        """Return the picture as a PIL image; needs Pillow (the `sandbox` extra) and bytes that were read.

        Raises:
            InputError: the bytes are not here yet; `await image.read()` first.
        """
        from PIL import Image  # noqa: PLC0415 - Pillow is an extra

        if self._data is None:
            msg = "the picture has not been read yet: await image.read() before to_pil()"
            raise InputError(msg)
        return Image.open(io.BytesIO(self._data))

    def _repr_mimebundle_(
        self,
        include: object = None,  # noqa: ARG002 - the notebook protocol passes it; a bundle may ignore it
        exclude: object = None,  # noqa: ARG002 - same
    ) -> dict[str, bytes | str]:
        """Show the picture in a notebook: its bytes when they are here, else its link."""
        bundle: dict[str, bytes | str] = {"text/plain": repr(self)}
        if self._data is not None and self.mime_type in {"image/png", "image/jpeg"}:
            bundle[self.mime_type] = self._data
        elif self._data is not None:
            bundle["text/html"] = f'<img src="{html.escape(media.data_url(self._data))}">'
        elif self.url is not None:
            bundle["text/html"] = f'<img src="{html.escape(self.url)}" referrerpolicy="no-referrer">'
        return bundle

    def __repr__(self) -> str:
        size = f"{self.width}x{self.height}" if self.width else "unread"
        return f"<GeneratedImage {self.name} {self.mime_type or 'unknown type'} {size}>"


class Tried(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One provider that a request was tried with; see `Generation.tried` and `MirageError.tried`.

    Attributes:
        provider: its name.
        error: why nothing came of it, or None for the one that made the pictures.
    """

    provider: str
    error: MirageError | None = None


class Generation(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What one request bought.

    Attributes:
        images: the pictures, at least one; a provider may deliver fewer than `requested`.
        provider: who made them.
        model: the model asked for, or None where the request named none.
        job_id: the provider's id of the job, or None for a provider that answers at once.
        key: our own key of the job.
        requested: how many pictures were asked for.
        credits: what the provider says it charged, in its own unit, or None.
        timings: how long the parts took.
        polls: status calls this job needed.
        raw: the provider's answer as decoded JSON, without picture data.
        tried: where `providers` were named, those that were tried, in order; the last one is `provider`.
    """

    images: tuple[GeneratedImage, ...]
    provider: str
    model: str | None = None
    job_id: str | None = None
    key: str = ""
    requested: int = 1
    credits: float | None = None
    timings: Timings = Timings()
    polls: int = 0
    raw: Mapping[str, Any] = msgspec.field(default_factory=dict[str, Any])
    tried: tuple[Tried, ...] = ()

    @property
    def image(self) -> GeneratedImage:
        """The first picture."""
        return self.images[0]

    def __repr__(self) -> str:
        """Describe it without `raw`, which may repeat the prompt."""
        return f"<Generation {self.provider} {self.job_id or self.key} {len(self.images)} of {self.requested}>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Say as little to rich, whose tracebacks show local variables."""
        return [("provider", self.provider), ("job_id", self.job_id), ("images", len(self.images))]


class AvatarStatus(enum.StrEnum):
    """Mirako's words for an avatar; a word this version does not know stays plain text."""

    PENDING = "PENDING"
    BUILDING = "BUILDING"
    READY = "READY"
    ERROR = "ERROR"


class Avatar(msgspec.Struct, frozen=True, kw_only=True):
    """A Mirako avatar model. Write its `id` into a prompt to draw it.

    Attributes:
        id: opaque text, used in prompts and addresses.
        name: as given to `build_avatar`.
        status: an `AvatarStatus`, or Mirako's own text where the word is new. READY is not for ever: Mirako reviews
            models and may take one down.
        created_at: aware moment, or None where the provider gave none.
        themes: what the provider lists; never None.
    """

    id: str
    name: str
    status: str
    created_at: datetime | None = None
    themes: tuple[Mapping[str, Any], ...] = ()


class Outcome(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One purchase of a batch: what was asked, and either what it bought or why it did not.

    Attributes:
        request: the request as it was bought: with the batch's provider where it named none, and for a part of a
            split one with the part's `n`. For an item that was no request it is an empty one.
        generation: the result, or None.
        error: the reason, or None.
        index: position of the item in the batch's input, from 0.
        part: which part of a split request it is, from 1.
        parts: into how many requests that one was split; 1 for all others.
    """

    request: ImageRequest
    generation: Generation | None = None
    error: MirageError | None = None
    index: int = 0
    part: int = 1
    parts: int = 1

    @property
    def billed(self) -> Billed:
        """What is known about money: "yes" for a generation, else the error's word."""
        return "yes" if self.error is None else self.error.billed
