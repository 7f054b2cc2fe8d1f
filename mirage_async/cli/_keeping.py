"""Saving pictures that are paid for: where they were wanted, or else anywhere at all."""

from __future__ import annotations

import asyncio
import itertools
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from anyio import to_thread

from mirage_async.exceptions import MirageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mirage_async.cli._output import Output
    from mirage_async.models import GeneratedImage, Generation

__all__ = ["Kept", "keep_all", "keep_elsewhere"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What became of one picture.

    Attributes:
        image: the picture.
        path: its file, or None where it has none: it went to stdout, or could not be kept.
        problem: why it is not where it was wanted, or None.
    """

    image: GeneratedImage
    path: Path | None
    problem: str | None = None


async def keep_all(generation: Generation, output: Output) -> Sequence[Kept]:
    """Save all pictures at the same time; one that cannot be saved is told about in its `Kept` and never raises."""
    if output.path is None:
        first, *others = generation.images
        surplus = [keep_elsewhere(image, "stdout takes one picture, the provider delivered more") for image in others]
        return [await _to_stdout(first), *await asyncio.gather(*surplus)]
    count = len(generation.images)
    targets = [output.target(image.name, index, count) for index, image in enumerate(generation.images)]
    keeping = map(_to_file, generation.images, targets, itertools.repeat(output.overwrite))
    return await asyncio.gather(*keeping)


async def _to_stdout(image: GeneratedImage) -> Kept:
    try:
        data = await image.read()
        await to_thread.run_sync(_write_out, data)
    except (OSError, MirageError) as error:
        return await keep_elsewhere(image, f"the picture could not be written to stdout: {error}")
    return Kept(image=image, path=None)


def _write_out(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


async def _to_file(image: GeneratedImage, target: Path, overwrite: bool) -> Kept:
    try:
        return Kept(image=image, path=await image.save(target, overwrite=overwrite))
    except FileExistsError as error:  # it was not there before the purchase
        if await _is_the_same(image, Path(error.filename)):
            return Kept(image=image, path=Path(error.filename))
        return await keep_elsewhere(image, f"{error.filename!r} has appeared meanwhile", near=target.parent)
    except (OSError, MirageError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        return await keep_elsewhere(image, f"the picture could not be saved as {str(target)!r}: {reason}")


async def _is_the_same(image: GeneratedImage, path: Path) -> bool:
    """Whether a file holds this very picture: it was saved just before somebody interrupted what was to note that."""
    try:
        data = await image.read()
        there = await to_thread.run_sync(path.stat)
        return there.st_size == len(data) and data == await to_thread.run_sync(path.read_bytes)
    except (OSError, MirageError):
        return False


async def keep_elsewhere(image: GeneratedImage, problem: str, *, near: Path | None = None) -> Kept:
    """Save a picture under a name nobody else has: in a folder of its own, in `near` or among the temporary files."""
    try:
        folder = Path(await to_thread.run_sync(lambda: tempfile.mkdtemp(prefix="mirage-", dir=near)))
        path = await image.save(folder / image.name)
    except (OSError, MirageError) as error:
        return Kept(image=image, path=None, problem=f"{problem}; keeping it elsewhere failed as well: {error}")
    return Kept(image=image, path=path, problem=f"{problem}; it is kept as {str(path)!r}")
