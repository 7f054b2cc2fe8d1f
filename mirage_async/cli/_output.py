"""Where `generate` puts its pictures: a file, a folder or stdout, checked before anything is bought."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mirage_async.cli._exits import CommandError
from mirage_async.cli._writable import check_writable
from mirage_async.media import PICTURE_SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Output", "output_for"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """A place for pictures.

    Attributes:
        path: a folder, or a file whose suffix is a wish; None is stdout.
        is_folder: whether each picture gets a name of its own in `path`.
        overwrite: whether existing files may be replaced.
    """

    path: Path | None
    is_folder: bool = False
    overwrite: bool = False

    def target(self, name: str, index: int, count: int) -> Path:
        """Return the path for one of `count` pictures; `name` serves in a folder, a number tells files apart."""
        if self.path is None:
            raise CommandError("stdout has no path")
        if self.is_folder:
            return self.path / name
        if count == 1:
            return self.path
        stem, suffix = _parts(self.path)
        return self.path.with_name(f"{stem}-{index + 1}{suffix}")


def output_for(text: str, *, pictures: int, overwrite: bool, as_json: bool) -> Output:
    """Read what `-o` says and check that it will do.

    Args:
        text: a file, an existing folder, a new folder with a "/" behind it, or "-" for stdout.
        pictures: how many are expected.
        overwrite: whether existing files may be replaced.
        as_json: whether stdout is taken by something else.

    Raises:
        CommandError: it will not do.
    """
    if text == "-":
        _check_stdout(pictures, as_json)
        return Output(path=None)
    path = Path(text)
    is_folder = path.is_dir() or not path.name or text.endswith(("/", os.sep))
    check_writable(path if is_folder else path.parent)
    output = Output(path=path, is_folder=is_folder, overwrite=overwrite)
    if not is_folder and not overwrite:
        _refuse_existing(output, pictures)
    return output


def _check_stdout(pictures: int, as_json: bool) -> None:
    if pictures > 1:
        raise CommandError(f"-o - writes one picture to stdout; got -n {pictures}: name a folder")
    if as_json:
        raise CommandError("-o - and --json both want stdout: name a file or a folder")
    if sys.stdout.isatty():
        raise CommandError("-o - would write a picture to the terminal: redirect stdout, or name a file")


def _refuse_existing(output: Output, pictures: int) -> None:
    for index in range(pictures):
        target = output.target("", index, pictures)
        for name in _possible_names(target):
            if os.path.lexists(target.with_name(name)):
                existing = str(target.with_name(name))
                raise CommandError(f"{existing!r} exists and would be overwritten: name another file, or --overwrite")


def _possible_names(path: Path) -> Iterator[str]:
    """Yield what the file may be called in the end: the suffix follows the format the provider chooses."""
    stem, suffix = _parts(path)
    if suffix:
        yield path.name
    for kind in PICTURE_SUFFIXES:
        yield stem + kind


def _parts(path: Path) -> tuple[str, str]:
    """Split a name into stem and suffix; what is no picture's suffix, as in "v1.2", belongs to the stem."""
    if path.suffix.lower() in PICTURE_SUFFIXES:
        return path.stem, path.suffix
    return path.name, ""
