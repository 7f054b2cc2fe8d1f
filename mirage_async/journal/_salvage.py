"""Takes out of a damaged file what can still be read.

SQLite keeps the rows in order of their numbers, some on each page, so a damaged page makes one range of numbers
unreadable and no other. A range that cannot be read as a whole is halved until what is damaged stands alone. The notes
are in order of their names; they are read from both ends.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sqlite3
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from mirage_async.exceptions import JournalError
from mirage_async.journal._merging import absorb
from mirage_async.journal._schema import ALL, KEYS, LATER_NOTE, LOST, NOTE, check_order, entry_of, transaction
from mirage_async.journal._seats import aside_of

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["salvage"]

_logger = logging.getLogger("mirage_async.journal")

_Range: TypeAlias = tuple[int, int]
_Note: TypeAlias = tuple[str, str, float]

_PAGE: Final = 4096  # bytes
_MOST_FLAWS: Final = 1000
_SMALLEST_ROW: Final = 100  # bytes


def salvage(connection: sqlite3.Connection, path: Path) -> int:
    """Copy what can be read of a damaged file into another one, name what cannot, and return how many rows it were.

    The file itself stays as it is. Where it cannot all be read a note says so (`LOST`): callers' own keys may have been
    bought under, and none of which nothing is on record is free any more.
    """
    with tempfile.TemporaryDirectory(prefix="mirage_async-") as folder:
        for each in (path, path.with_name(f"{path.name}-wal")):
            if each.exists():
                shutil.copyfile(each, Path(folder) / each.name)
        copy = Path(folder) / path.name
        if not copy.stat().st_size:
            os.truncate(copy, _PAGE)  # else SQLite would take it for a new one, and remove the log beside it
        damaged = sqlite3.connect(copy, isolation_level=None)
        with contextlib.closing(damaged):
            lost: list[_Range] = []
            found = list(_rows(damaged, path, lost))
            notes, whole = _notes(damaged)
            sound = _is_sound(damaged, copy)
    rows = [row for row in found if _is_whole(row, path)]
    if not whole:
        _logger.critical("the notes of %s cannot all be read, which say what callers' own keys stand for", path)
    if not sound:
        _logger.critical("what can be read of %s may not be all that was in it", path)
    with transaction(connection):
        absorb(connection, rows)
        connection.executemany(LATER_NOTE, notes)
        if lost or len(rows) < len(found) or not whole or not sound:
            aside = aside_of(path)
            connection.execute(NOTE, (f"{LOST}{aside.name}", "", time.time()))
            _logger.critical("until %s is moved elsewhere, no caller's own key buys that is not on record", aside)
    return len(rows)


def _rows(damaged: sqlite3.Connection, path: Path, gone: list[_Range]) -> Iterator[tuple[Any, ...]]:
    """Yield the rows that can be read, and add to `gone` the ranges that cannot."""
    end = _last_number(damaged)
    guessed = end is None
    last = 1 + path.stat().st_size // _SMALLEST_ROW if end is None else end
    lost: _Range | None = None
    ranges = [(1, last)]
    while ranges:
        first, last = ranges.pop()
        try:
            found = damaged.execute(*_question(first, last)).fetchall()
        except (sqlite3.Error, UnicodeDecodeError):
            if first == last:
                lost = (first if lost is None else lost[0]), last
                continue
            middle = (first + last) // 2
            ranges += [(middle + 1, last), (first, middle)]
        else:
            if lost is not None and found:
                gone.append(lost)
                _tell(damaged, path, lost, guessed=False)
                lost = None
            yield from found
    if lost is not None:
        gone.append(lost)
        _tell(damaged, path, lost, guessed=guessed)


def _question(first: int, last: int) -> tuple[str, tuple[int, ...]]:
    start = f"SELECT {ALL} FROM jobs NOT INDEXED WHERE rowid"  # noqa: S608 - ours alone
    if first == last:  # a range is over only where the next page says so, and that may be the damaged one
        return f"{start} = ?", (first,)
    return f"{start} BETWEEN ? AND ?", (first, last)


def _last_number(damaged: sqlite3.Connection) -> int | None:
    """Return the number of the last row, or None where nothing tells."""
    for question in (
        "SELECT max(rowid) FROM jobs NOT INDEXED",
        f"SELECT max(number) FROM (SELECT key, rowid AS number FROM jobs INDEXED BY {KEYS})",  # noqa: S608 - ours
    ):
        with contextlib.suppress(sqlite3.Error, UnicodeDecodeError):
            return damaged.execute(question).fetchone()[0] or 0
    return None


def _tell(damaged: sqlite3.Connection, path: Path, lost: _Range, *, guessed: bool) -> None:
    """Name a range of rows that cannot be read; where it is `guessed` it may end earlier."""
    keys: list[str] = []
    with contextlib.suppress(sqlite3.Error, UnicodeDecodeError):
        text = f"SELECT key FROM jobs INDEXED BY {KEYS} WHERE key > '' AND rowid BETWEEN ? AND ?"  # noqa: S608 - ours
        keys = [str(key) for (key,) in damaged.execute(text, lost)]
    text = "the rows %d to %d (an estimate by its size, there may be fewer)" if guessed else "the rows %d to %d"
    named = ", ".join(keys) or "not known either"
    _logger.critical(f"{text} of %s cannot be read; their keys are %s", *lost, path, named)  # noqa: G004 - two texts


def _notes(damaged: sqlite3.Connection) -> tuple[list[_Note], bool]:
    """Return the notes that can be read, and whether these are all: else what is between two damaged pages is lost."""
    found: dict[str, _Note] = {}
    for start, further, order in (("", ">", "ASC"), ("\U0010ffff", "<", "DESC")):
        question = f"SELECT name, value, updated_at FROM notes WHERE name {further} ? ORDER BY name {order} LIMIT 1"  # noqa: S608 - ours
        name = start
        with contextlib.suppress(sqlite3.Error, UnicodeDecodeError):
            while (note := damaged.execute(question, (name,)).fetchone()) is not None:
                if not _is_note(note) or (note[0] > name) != (further == ">") or note[0] in found:
                    break
                name = note[0]
                found[name] = note
            else:
                return list(found.values()), True
    return list(found.values()), False


def _is_sound(damaged: sqlite3.Connection, copy: Path) -> bool:
    """Whether what could be read is surely all: the damage is in the index, in which nothing is that is not elsewhere.

    A page in the place of another one, or with a wrong number of rows, reads without an error. The copy is of no use
    afterwards: so that only the tables are checked, it loses its index.
    """
    with contextlib.suppress(sqlite3.Error, UnicodeDecodeError):
        (missing,) = damaged.execute(
            f"SELECT count(*) FROM (SELECT rowid FROM jobs INDEXED BY {KEYS} WHERE key > '' "  # noqa: S608 - ours
            "EXCEPT SELECT rowid FROM jobs NOT INDEXED)"
        ).fetchone()
        if missing:
            return False
    try:
        told = [str(text) for (text,) in damaged.execute(f"PRAGMA quick_check({_MOST_FLAWS})")]
        if len(told) >= _MOST_FLAWS or any("never used" in text for text in told):  # pages that belonged to a table
            return False
        damaged.execute("PRAGMA writable_schema = ON")
        damaged.execute("DELETE FROM sqlite_master WHERE name = ?", (KEYS,))
        damaged.execute("UPDATE sqlite_master SET sql = replace(sql, 'PRIMARY KEY', '') WHERE name = 'jobs'")
        with contextlib.closing(sqlite3.connect(copy, isolation_level=None)) as bare:
            check_order(bare)
            verdicts = [bare.execute(f"PRAGMA quick_check({table})").fetchall() for table in ("jobs", "notes")]
    except (sqlite3.Error, UnicodeDecodeError):
        return False
    return verdicts == [[("ok",)]] * 2


def _is_note(row: tuple[Any, ...]) -> bool:
    """Whether a row is a note, as opposed to what a damaged page looks like."""
    return isinstance(row[0], str) and isinstance(row[1], str) and isinstance(row[2], float)


def _is_whole(row: tuple[Any, ...], path: Path) -> bool:
    """Whether a row is one of ours, as opposed to what a damaged page looks like."""
    try:
        key = entry_of(row[:-4]).key
        whole = isinstance(key, str) and len(key) > 0 and isinstance(row[-1], int)
    except JournalError as error:
        _logger.critical("a row of %s cannot be read: %s", path, error)
        return False
    if not whole:
        _logger.critical("a row of %s cannot be read, and it has no key", path)
    return whole
