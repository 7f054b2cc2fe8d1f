"""Reads what the files of a journal's folder hold, without disturbing the processes that write there."""

from __future__ import annotations

import contextlib
import sqlite3
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mirage_async.exceptions import JournalError
from mirage_async.journal import _schema
from mirage_async.journal._merging import merged
from mirage_async.journal._seats import journal_files

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Sequence

    from mirage_async.journal._entry import Entry

__all__ = ["entries_in", "journal_entries", "readable_entries"]

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
    for _ in range(_TRIES):
        if damaged is not None:
            damaged.clear()
        # A file may be taken over meanwhile, by a process whose own file has been read already.
        with contextlib.suppress(FileNotFoundError):
            found = [_read(path, where, parameters, damaged) for path in journal_files(folder) if path != but]
            entries = (version.entry for version in merged(chain(*found)))
            return sorted(entries, key=lambda entry: (entry.intended_at, entry.key))
    msg = f"the files of the journal in {str(folder)!r} change faster than they can be read"
    raise JournalError(msg)


def _read(
    path: Path, where: str, parameters: Iterable[Any], damaged: list[JournalError] | None
) -> list[_schema.Version]:
    try:
        return _named(path, where, parameters, damaged)
    except JournalError as error:
        if damaged is None:
            raise
        damaged.append(error)
        return []


def _named(
    path: Path, where: str, parameters: Iterable[Any], damaged: list[JournalError] | None
) -> list[_schema.Version]:
    try:
        return _schema.read(path, where, parameters, damaged=damaged)
    except sqlite3.Error as error:
        msg = f"{path} cannot be read: {error}"
        raise JournalError(msg) from error
