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
    from collections.abc import Iterable

    from mirage_async.journal._entry import Entry

__all__ = ["entries_in", "journal_entries"]

_TRIES = 20


def journal_entries(directory: str | os.PathLike[str]) -> list[Entry]:
    """Return all entries in a journal's folder, the oldest first, without disturbing the processes that write there.

    Raises:
        JournalError: there is no journal, or a file of it cannot be read.
    """
    folder = Path(directory).absolute()
    if not journal_files(folder):
        msg = f"there is no journal in {str(folder)!r}"
        raise JournalError(msg)
    return entries_in(folder)


def entries_in(
    folder: Path, where: str = "", parameters: Iterable[Any] = (), *, but: Path | None = None
) -> list[Entry]:
    """Return what the files of a folder hold, except for one of them, the oldest entry first.

    Raises:
        JournalError: one of them cannot be read.
    """
    for _ in range(_TRIES):
        # A file may be taken over meanwhile, by a process whose own file has been read already.
        with contextlib.suppress(FileNotFoundError):
            found = [_read(path, where, parameters) for path in journal_files(folder) if path != but]
            entries = (version.entry for version in merged(chain(*found)))
            return sorted(entries, key=lambda entry: (entry.intended_at, entry.key))
    msg = f"the files of the journal in {str(folder)!r} change faster than they can be read"
    raise JournalError(msg)


def _read(path: Path, where: str, parameters: Iterable[Any]) -> list[_schema.Version]:
    try:
        return _schema.read(path, where, parameters)
    except sqlite3.Error as error:
        msg = f"{path} cannot be read: {error}"
        raise JournalError(msg) from error
