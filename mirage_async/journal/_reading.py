"""Reads what the files of a journal's folder hold, without disturbing the processes that write there."""

from __future__ import annotations

import contextlib
import sqlite3
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mirage_async.exceptions import JournalError
from mirage_async.journal import _schema
from mirage_async.journal._merging import merged
from mirage_async.journal._seats import journal_files

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Sequence

    from mirage_async.journal._entry import Entry

__all__ = ["entries_in", "journal_entries", "lost_in", "readable_entries"]

T = TypeVar("T")

_TRIES = 20


def journal_entries(directory: str | os.PathLike[str]) -> list[Entry]:
    """Return all entries in a journal's folder, the oldest first, without disturbing the processes that write there.

    Raises:
        JournalError: there is no journal, or a file of it cannot be read.
    """
    return entries_in(_checked(directory))


def readable_entries(directory: str | os.PathLike[str]) -> tuple[list[Entry], Sequence[JournalError]]:
    """Return those entries of a journal that can be read, and for each file or entry that cannot an error.

    One whose cause is an error of SQLite's is of a whole file; whoever opens the journal takes over what is left of it.

    Raises:
        JournalError: there is no journal.
    """
    folder = _checked(directory)
    damaged: list[JournalError] = []
    return entries_in(folder, damaged=damaged), damaged


def _checked(directory: str | os.PathLike[str]) -> Path:
    folder = Path(directory).absolute()
    if not journal_files(folder):
        msg = f"there is no journal in {str(folder)!r}"
        raise JournalError(msg)
    return folder


def entries_in(
    folder: Path,
    where: str = "",
    parameters: Iterable[Any] = (),
    *,
    but: Path | None = None,
    damaged: list[JournalError] | None = None,
) -> list[Entry]:
    """Return what the files of a folder hold, except for one of them, the oldest entry first.

    Raises:
        JournalError: one of them cannot be read, unless `damaged` takes that.
    """

    def read(path: Path) -> list[_schema.Version]:
        try:
            return _named(path, lambda each: _schema.read(each, where, parameters, damaged=damaged))
        except JournalError as error:
            if damaged is None:
                raise
            damaged.append(error)
            return []

    found = _in_all(folder, read, but=but, begin=lambda: None if damaged is None else damaged.clear())
    entries = (version.entry for version in merged(found))
    return sorted(entries, key=lambda entry: (entry.intended_at, entry.key))


def lost_in(folder: Path, *, but: Path | None = None) -> list[str]:
    """Return the names of the damaged files that could not all be read, as the files of a folder say.

    Raises:
        JournalError: one of them cannot be read.
    """
    return _in_all(folder, lambda path: _named(path, _schema.read_lost), but=but)


def _in_all(
    folder: Path, read: Callable[[Path], list[T]], *, but: Path | None, begin: Callable[[], object] = lambda: None
) -> list[T]:
    """Return what all files of a folder but one hold, read again from the beginning where they change meanwhile."""
    for _ in range(_TRIES):
        begin()
        # A file may be taken over meanwhile, by a process whose own file has been read already.
        with contextlib.suppress(FileNotFoundError):
            return list(chain.from_iterable(read(path) for path in journal_files(folder) if path != but))
    msg = f"the files of the journal in {str(folder)!r} change faster than they can be read"
    raise JournalError(msg)


def _named(path: Path, read: Callable[[Path], list[T]]) -> list[T]:
    """Read a file, and name it in the error where that fails."""
    try:
        return read(path)
    except sqlite3.Error as error:
        msg = f"{path} cannot be read: {error}"
        raise JournalError(msg) from error
