"""From lines to purchases: their requests, the parts of those that ask for many pictures, and the keys they go by.

A key is what makes a purchase one that is made once. It is a digest of all that decides what is bought: the batch, the
request with the content of its reference pictures, and a number that tells apart requests that are the same. So lines
can be added, removed and put in another order between two runs, and whoever edits a line makes another purchase of it.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from mirage_async.batch._items import parts_of
from mirage_async.cli._arguments import reference_of
from mirage_async.cli._batch.lines import Problem
from mirage_async.cli._hubs import check_key
from mirage_async.exceptions import InputError, MirageError
from mirage_async.models import ImageRequest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from mirage_async.cli._batch.lines import Line
    from mirage_async.hub import Mirage

__all__ = ["Item", "Purchase", "items_of", "purchases_of"]

_DIGITS = 32  # of a key
_UNITED = {"aspect_ratio": "size", "size": "aspect_ratio"}  # a line that says one of them wants no default of the other
_MOST_PICTURES = 10_000  # of one line
_SENDS_AGAIN = "resend_uncertain"  # an option of all providers
_NO_PART_OF_IT = ("key", "max_wait", "references")


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """One line's request.

    Attributes:
        number: of the line.
        request: what it asks for, with the defaults where it says nothing.
        digest: of the request and its pictures.
        twin: how many lines before it ask for the very same.
    """

    number: int
    request: ImageRequest
    digest: str
    twin: int


class Purchase(msgspec.Struct, frozen=True, kw_only=True):
    """One request to a provider: a line's, or a part of it.

    Attributes:
        number: of the line.
        part: which part of the line it is, from 1.
        parts: how many there are.
        request: what is bought, without a key.
        identity: what its keys are made of.
    """

    number: int
    part: int
    parts: int
    request: ImageRequest
    identity: str

    def key(self, batch: str, attempt: int = 0) -> str:
        """Return the key in a batch; each attempt after a failure has one of its own."""
        again = f"\nattempt {attempt}" if attempt else ""
        return hashlib.sha256(f"{batch}\n{self.identity}{again}".encode()).hexdigest()[:_DIGITS]

    @property
    def title(self) -> str:
        """What messages call it."""
        return f"line {self.number}" if self.parts == 1 else f"line {self.number} (part {self.part} of {self.parts})"


class _Pictures:
    """Reads the digests of reference pictures, each file once."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self._known: dict[str, tuple[str | Path, str]] = {}

    def find(self, text: str) -> tuple[str | Path, str]:
        """Return a picture as a request has it, and what stands for it in a digest.

        Raises:
            OSError: the file cannot be read.
            ValueError: it is no file's name.
        """
        if text not in self._known:
            reference = reference_of(text)
            if isinstance(reference, Path):
                path = self._base / reference
                with path.open("rb") as file:
                    self._known[text] = path, hashlib.file_digest(file, "sha256").hexdigest()
            else:
                self._known[text] = reference, text
        return self._known[text]


def items_of(lines: Iterable[Line], base: Path, defaults: Mapping[str, Any]) -> tuple[list[Item], list[Problem]]:
    """Return the requests of lines, and what is wrong with those that cannot be made one.

    Args:
        lines: in their order.
        base: the folder that relative references are in.
        defaults: for the fields a line does not say; their references are paths or links as on the command line.
    """
    items: list[Item] = []
    problems: list[Problem] = []
    twins: Counter[str] = Counter()
    pictures = _Pictures(base)
    for line in lines:
        try:
            request, digest = _request_of(line, pictures, defaults)
        except OSError as error:
            problems.append(Problem(line.number, f"cannot read {str(error.filename)!r}: {error.strerror or error}"))
            continue
        except ValueError as error:
            problems.append(Problem(line.number, f"references must be files or links: {error}"))
            continue
        items.append(Item(number=line.number, request=request, digest=digest, twin=twins[digest]))
        twins[digest] += 1
    return items, problems


def _request_of(line: Line, pictures: _Pictures, defaults: Mapping[str, Any]) -> tuple[ImageRequest, str]:
    said = {name: value for name, value in msgspec.structs.asdict(line.fields).items() if value not in (None, ())}
    fields = {name: value for name, value in defaults.items() if value is not None and _UNITED.get(name) not in said}
    fields |= said
    if defaults.get("options") and line.fields.options:
        fields["options"] = {**defaults["options"], **line.fields.options}
    named = fields.pop("references", ())
    found = [pictures.find(text) for text in ((named,) if isinstance(named, str) else named)]
    request = ImageRequest(**fields, references=tuple(picture for picture, _ in found))
    decisive = {name: value for name, value in fields.items() if name not in _NO_PART_OF_IT}
    text = msgspec.json.encode({**decisive, "references": [digest for _, digest in found]}, order="sorted")
    return request, hashlib.sha256(text).hexdigest()


async def purchases_of(hub: Mirage, items: Sequence[Item]) -> tuple[list[Purchase], list[Problem]]:
    """Return the purchases that items take, and what the providers would refuse of them; nothing is sent.

    Raises:
        CommandError: a provider has no key.
        ConfigurationError: its key or address is none.
    """
    for provider in dict.fromkeys(item.request.provider for item in items):
        with contextlib.suppress(InputError):  # there is no such provider, which is told line by line
            check_key(hub, provider or "")
    purchases: list[Purchase] = []
    problems: list[Problem] = []
    for item in items:
        try:
            client = hub.client(item.request.provider)
            _check_options(item.request)
            parts = _parts_of(item, most=client.max_images)
            for request in {part.request.n: part.request for part in parts}.values():
                await client.check_request(request)
            purchases += parts
        except MirageError as error:
            problems.append(Problem(item.number, str(error).replace(f", {_SENDS_AGAIN!r}", "")))
    return purchases, problems


def _check_options(request: ImageRequest) -> None:
    """Raise `InputError` for the one option that could buy a line twice."""
    if request.options and _SENDS_AGAIN in request.options:
        value = request.options[_SENDS_AGAIN]
        raise InputError(f"options must not have {_SENDS_AGAIN!r} in a batch, which buys nothing twice; got {value!r}")


def _parts_of(item: Item, *, most: int) -> Sequence[Purchase]:
    """Split a request for more pictures than its provider takes at once.

    Raises:
        InputError: it asks for too many, or has a seed, so that every part would be the same picture.
    """
    n, identity = item.request.n or 1, f"{item.digest}\n{item.twin}"
    if n > _MOST_PICTURES:
        raise InputError(f"n must be at most {_MOST_PICTURES} in one line; got {n}")
    count, requests = parts_of(item.request, most)
    return [
        Purchase(
            number=item.number,
            part=part,
            parts=count,
            request=request,
            identity=identity if count == 1 else f"{identity}\n{part} of {count}",
        )
        for part, request in enumerate(requests, 1)
    ]
