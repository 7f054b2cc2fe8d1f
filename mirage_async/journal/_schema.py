"""The database file: its tables, its versions, and what is read from it and removed."""

from __future__ import annotations

import contextlib
import logging
import shutil
import sqlite3
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias, TypeVar

from mirage_async.exceptions import JournalError
from mirage_async.journal._entry import Entry, EntryState
from mirage_async.journal._outcomes import decode_outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterable, Mapping

__all__ = [
    "ALL",
    "BY_ID",
    "KEYS",
    "LATER_NOTE",
    "LOST",
    "NOTE",
    "RESOLVED",
    "Durability",
    "NewerError",
    "Version",
    "by_keys",
    "check_order",
    "check_sqlite",
    "connect",
    "entry_of",
    "lost",
    "note",
    "over",
    "read",
    "read_lost",
    "remove",
    "select",
    "select_keys",
    "select_notes",
    "select_readable",
    "take",
    "transaction",
]

T = TypeVar("T")

_logger = logging.getLogger("mirage_async.journal")

Durability: TypeAlias = Literal["power", "process"]

APPLICATION_ID: Final = 0x4D697267  # "Mirg": what `file` shows, and what keeps us out of other people's databases
VERSION: Final = 1

_HEAD: Final = b"SQLite format 3\0"  # what every database begins with
_OLDEST_SQLITE: Final = (3, 33, 0)  # the first that knows "UPDATE ... FROM"

_TABLES: Final = """
CREATE TABLE jobs (
    key TEXT PRIMARY KEY NOT NULL,
    provider TEXT NOT NULL,
    account TEXT NOT NULL,
    kind TEXT NOT NULL,
    blocking INTEGER NOT NULL,
    announced INTEGER NOT NULL,
    model TEXT,
    requested INTEGER NOT NULL,
    digest TEXT NOT NULL,
    label TEXT,
    id TEXT,
    state TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    doubtful INTEGER NOT NULL,
    intended_at REAL NOT NULL,
    deadline REAL NOT NULL,
    updated_at REAL NOT NULL,
    outcome TEXT,
    handed_over INTEGER NOT NULL,
    own_key INTEGER NOT NULL,
    run TEXT NOT NULL,
    born TEXT NOT NULL,
    revision INTEGER NOT NULL
);
CREATE TABLE notes (name TEXT PRIMARY KEY NOT NULL, value TEXT NOT NULL, updated_at REAL NOT NULL) WITHOUT ROWID;
"""

# From version N to N + 1, at N - 1. A file of a newer version is refused: this one could not know what it leaves out.
_MIGRATIONS: Final[tuple[str, ...]] = ()

_COLUMNS: Final = (
    "key, provider, account, kind, blocking, announced, model, requested, digest, label, id, state, attempts, "
    "doubtful, intended_at, deadline, updated_at, outcome, handed_over"
)
# own_key: 1 for a key that the caller chose, 2 once what came of it is no longer kept. run: who answers for the row.
# born: the run that wrote its first version, and stays; what has the same is one history, and its revisions compare.
ALL: Final = f"{_COLUMNS}, own_key, run, born, revision"

BY_ID: Final = "WHERE provider = ? AND id = ?"

RESOLVED: Final = """
UPDATE jobs SET state = ?2, id = coalesce(?3, id), updated_at = ?4, handed_over = 0, run = '', revision = revision + 1
WHERE key = ?1
"""
NOTE: Final = """
INSERT INTO notes VALUES (?1, ?2, ?3)
ON CONFLICT (name) DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at
"""
LATER_NOTE: Final = f"{NOTE} WHERE excluded.updated_at > updated_at"

KEYS: Final = "sqlite_autoindex_jobs_1"
"""An index SQLite makes by itself: it has the keys and numbers of all rows a second time."""

LOST: Final = "lost "
"""What the name of a note begins with that a damaged file could not all be read; the name of that file follows."""


class NewerError(JournalError):
    """A file is of a newer version of this library."""


class Version(NamedTuple):
    """One version of an entry: of which history, and how many times that was written."""

    entry: Entry
    born: str
    revision: int


def check_sqlite() -> None:
    """Raise `JournalError` where Python came with an SQLite that does not know the statements."""
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        oldest = ".".join(map(str, _OLDEST_SQLITE))
        msg = f"a journal needs SQLite {oldest} or newer; this Python has {sqlite3.sqlite_version}"
        raise JournalError(msg)


def connect(path: Path, durability: Durability, *, check: bool = False) -> sqlite3.Connection:
    """Open a file for writing, make it if it is new, and bring it up to this version.

    With `check` it is read through, since another process has left it.

    Raises:
        JournalError: it is of a newer version, or no journal.
        sqlite3.Error: it cannot be opened, or is damaged.
    """
    _check_head(path)
    connection = sqlite3.connect(path, timeout=5.0, isolation_level=None, check_same_thread=False)
    try:
        with _as_damage():
            _prepare(connection, path, durability)
            if check:
                _check(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _check_head(path: Path) -> None:
    """Raise `sqlite3.DatabaseError` for a file that does not begin as a database does and yet has a log beside it.

    SQLite would take an empty one for new, also where it only reads, and remove the log: with all that is in it.
    """
    log = path.with_name(f"{path.name}-wal")  # looked at first, since the other one is there before it
    if log.exists() and log.stat().st_size:
        with path.open("rb") as file:
            if file.read(len(_HEAD)) != _HEAD:
                msg = f"it does not begin as a database does, and what was written last is still in {log.name}"
                raise sqlite3.DatabaseError(msg)


def _prepare(connection: sqlite3.Connection, path: Path, durability: Durability) -> None:
    version = _version(connection, path)
    connection.execute("PRAGMA journal_mode = WAL")
    # FULL flushes the log at each commit. NORMAL keeps what was committed over the death of the process, and may lose
    # it with the machine's power.
    connection.execute(f"PRAGMA synchronous = {'FULL' if durability == 'power' else 'NORMAL'}")
    # What SQLite keeps to undo one statement of several would go through a file in the system's temporary folder.
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.execute("PRAGMA fullfsync = 1")  # only macOS knows a flush that does not reach the disk
    if version < VERSION:
        steps = _TABLES if version == 0 else "".join(_MIGRATIONS[version - 1 :])
        stamp = f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION};"
        connection.executescript(f"BEGIN IMMEDIATE; {steps} {stamp} COMMIT;")


def _version(connection: sqlite3.Connection, path: Path) -> int:
    """Return the version of a file, 0 for a new one, before anything is changed in it."""
    with transaction(connection):  # all of one moment, since another process may be making it just now
        owner, version, changes = (
            connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("application_id", "user_version", "schema_version")
        )
    if owner not in {0, APPLICATION_ID} or (owner == 0 and changes):
        msg = f"{path} is a database, but no journal"
        raise JournalError(msg)
    if version > VERSION:
        msg = f"{path} was written by a newer version of this library (format {version}; this one knows {VERSION})"
        raise NewerError(msg)
    return int(version)


def _check(connection: sqlite3.Connection) -> None:
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise sqlite3.DatabaseError(verdict)
    check_order(connection)
    (by_key,) = connection.execute(f"SELECT count(*) FROM jobs INDEXED BY {KEYS} WHERE key > ''").fetchone()  # noqa: S608 - ours alone
    (by_number,) = connection.execute("SELECT count(*) FROM jobs NOT INDEXED").fetchone()
    if by_key != by_number:
        msg = f"there are {by_number} entries, and {by_key} are found by their keys"
        raise sqlite3.DatabaseError(msg)


def check_order(connection: sqlite3.Connection) -> None:
    """Raise `sqlite3.DatabaseError` where notes are out of order, which SQLite only checks of what has numbers."""
    (misplaced,) = connection.execute(
        "SELECT count(*) FROM (SELECT name, lag(name) OVER () AS before FROM notes) WHERE before >= name"
    ).fetchone()
    if misplaced:
        msg = f"{misplaced} notes are out of order"
        raise sqlite3.DatabaseError(msg)


@contextlib.contextmanager
def _as_damage() -> Generator[None, None, None]:
    """Raise `sqlite3.DatabaseError` where SQLite quotes something damaged that is no text."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise sqlite3.DatabaseError(repr(error.object)) from error


def read(
    path: Path, where: str = "", parameters: Iterable[Any] = (), *, damaged: list[JournalError] | None = None
) -> list[Version]:
    """Return what a file holds, also while its process writes.

    Args:
        path: of the file.
        where: which entries, in SQL.
        parameters: of that.
        damaged: takes the errors of single entries that cannot be read, which else are raised.

    Raises:
        FileNotFoundError: it is gone, and what it held is in another file.
        JournalError: it is of a newer version, or an entry is damaged.
        sqlite3.Error: it cannot be read.
    """
    return _asked(path, lambda connection: _versions(connection, where, parameters, damaged))


def read_lost(path: Path) -> list[str]:
    """Return what `lost` does of a file of another process; raises as `read` does."""
    return _asked(path, lost)


def _asked(path: Path, question: Callable[[sqlite3.Connection], list[T]]) -> list[T]:
    try:
        return _answer(path, question)
    except sqlite3.OperationalError:
        if not path.exists():
            raise FileNotFoundError(path) from None
        # A log without the shared memory beside it, where none can be made: a copy is read instead, elsewhere.
        with tempfile.TemporaryDirectory(prefix="mirage_async-") as folder:
            for each in (path, path.with_name(f"{path.name}-wal")):
                if each.exists():
                    shutil.copyfile(each, Path(folder) / each.name)
            return _answer(Path(folder) / path.name, question)


def _answer(path: Path, question: Callable[[sqlite3.Connection], list[T]]) -> list[T]:
    _check_head(path)
    address = f"{path.absolute().as_uri()}?mode=ro"
    connection = sqlite3.connect(address, uri=True, timeout=5.0, isolation_level=None)
    with contextlib.closing(connection), _as_damage():
        return question(connection) if _version(connection, path) else []  # its process has only just made it


def _versions(
    connection: sqlite3.Connection, where: str, parameters: Iterable[Any], damaged: list[JournalError] | None
) -> list[Version]:
    rows = connection.execute(f"SELECT {_COLUMNS}, born, revision FROM jobs {where}", tuple(parameters))  # noqa: S608 - ours alone
    found: list[Version] = []
    for row in rows:
        try:
            found.append(Version(entry_of(row[:-2]), *row[-2:]))
        except JournalError as error:
            if damaged is None:
                raise
            damaged.append(error)
    return found


def select(connection: sqlite3.Connection, where: str = "", parameters: Iterable[Any] = ()) -> list[Entry]:
    """Return entries, the oldest first.

    Raises:
        JournalError: one of them cannot be read.
    """
    return [entry_of(row) for row in _rows(connection, where, parameters)]


def by_keys(keys: Collection[str]) -> tuple[str, Collection[str]]:
    """Return in SQL that an entry has one of these keys, and the parameters of that."""
    return f"WHERE key IN ({_places(keys)})", keys


def select_keys(connection: sqlite3.Connection, keys: Collection[str]) -> dict[str, Entry]:
    """Return the entries of those keys that have one; raises as `select` does."""
    return {entry.key: entry for entry in select(connection, *by_keys(keys))}


def select_notes(connection: sqlite3.Connection, names: Collection[str]) -> dict[str, str]:
    """Return the notes of those names that have one."""
    text = f"SELECT name, value FROM notes WHERE name IN ({_places(names)})"  # noqa: S608 - ours alone
    return {name: str(value) for name, value in connection.execute(text, tuple(names))}


def _places(parameters: Collection[str]) -> str:
    return ", ".join("?" * len(parameters))


def select_readable(connection: sqlite3.Connection, where: str, parameters: Iterable[Any]) -> list[Entry]:
    """Return entries, the oldest first, and say which ones cannot be read."""
    found: list[Entry] = []
    for row in _rows(connection, where, parameters):
        try:
            found.append(entry_of(row))
        except JournalError as error:
            _logger.critical("what is owed cannot all be read: %s", error, exc_info=True)
    return found


def _rows(connection: sqlite3.Connection, where: str, parameters: Iterable[Any]) -> list[tuple[Any, ...]]:
    text = f"SELECT {_COLUMNS} FROM jobs {where} ORDER BY intended_at, key"  # noqa: S608 - ours alone
    return connection.execute(text, tuple(parameters)).fetchall()


def take(connection: sqlite3.Connection, wanted: Iterable[tuple[str, str]]) -> None:
    """Make entries, by pairs of run and key, ones of that run."""
    _many(connection, "UPDATE jobs SET run = ?1, revision = revision + 1 WHERE key = ?2", wanted)


def _many(connection: sqlite3.Connection, statement: str, rows: Iterable[tuple[Any, ...]]) -> None:
    with transaction(connection):
        connection.executemany(statement, rows)


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Generator[None, None, None]:
    """Do what is done inside as a whole or not at all."""
    connection.execute("BEGIN")  # nobody else ever writes to the file, so the lock for that need not be taken here
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):  # SQLite may have rolled back by itself
            connection.execute("ROLLBACK")
        raise


def note(connection: sqlite3.Connection, notes: Mapping[str, str], moment: float) -> None:
    """Keep texts under names, all of them or none."""
    _many(connection, NOTE, [(name, value, moment) for name, value in notes.items()])


def lost(connection: sqlite3.Connection) -> list[str]:
    """Return the names of the damaged files, as they are set aside, that could not all be read."""
    rows = connection.execute("SELECT substr(name, ?2) FROM notes WHERE name GLOB ?1", (f"{LOST}*", len(LOST) + 1))
    return [str(name) for (name,) in rows]


def over(
    connection: sqlite3.Connection, before: float, *, after: int = 0, most: int = sys.maxsize
) -> tuple[list[str], int]:
    """Return the keys of the entries that are over, were written last before a moment, and have anything to remove.

    Args:
        connection: to the database.
        before: the moment.
        after: the row behind which it is looked.
        most: rows that are looked at.

    Returns:
        The keys, and after which row to go on: 0 where that was the last one.
    """
    some = "SELECT rowid FROM jobs WHERE rowid > ? ORDER BY rowid LIMIT ?"
    looked_at, last = connection.execute(f"SELECT count(*), max(rowid) FROM ({some})", (after, most)).fetchone()  # noqa: S608 - ours alone
    ended = "state IN ('unpaid', 'abandoned') OR (handed_over AND state NOT IN ('intended', 'accepted', 'uncertain'))"
    left = "(own_key < 2 OR state = 'unpaid')"
    rows = connection.execute(
        f"SELECT key FROM jobs WHERE rowid > ? AND rowid <= ? AND ({ended}) AND {left} AND updated_at < ?",  # noqa: S608 - ours alone
        (after, last, before),
    )
    return [str(key) for (key,) in rows], 0 if looked_at < most else last


def remove(connection: sqlite3.Connection, keys: Iterable[str]) -> None:
    """Remove entries. Of one that was bought under a caller's own key all stays but what came of it, for ever."""
    each = [(key,) for key in keys]
    with transaction(connection):
        connection.executemany("DELETE FROM jobs WHERE key = ? AND (NOT own_key OR state = 'unpaid')", each)
        connection.executemany(
            "UPDATE jobs SET own_key = 2, outcome = NULL, revision = revision + 1 WHERE key = ?", each
        )


def entry_of(row: tuple[Any, ...]) -> Entry:
    """Return what the columns of an entry say.

    Raises:
        JournalError: they cannot be read.
    """
    values = dict(zip(Entry.__struct_fields__, row, strict=True))
    try:
        values.update(
            blocking=bool(values["blocking"]),
            announced=bool(values["announced"]),
            handed_over=bool(values["handed_over"]),
            state=EntryState(values["state"]),
            outcome=decode_outcome(values["outcome"]),
        )
    except (ValueError, TypeError) as error:  # as msgspec's are
        msg = (
            f"the entry of {values['provider']} {values['kind']}, key {values['key']}, id {values['id']}, is damaged: "
            f"{type(error).__name__}"
        )
        raise JournalError(msg, provider=str(values["provider"])) from error
    return Entry(**values)
