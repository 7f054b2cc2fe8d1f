"""Makes one record of what several files say of a purchase.

Versions of one history compare by how often they were written. Two histories of one key, begun by processes that did
not know of each other, compare by what they say: what was paid for always stays. A second history that may have bought
something goes on under a key that is made of both, the same one each time.
"""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from mirage_async.journal._entry import EntryState
from mirage_async.journal._schema import ALL, transaction

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable
    from pathlib import Path

    from mirage_async.journal._schema import Version

__all__ = ["absorb", "merge", "merged"]

_logger = logging.getLogger("mirage_async.journal")

_RANKS: Final[dict[str, int]] = {
    EntryState.UNPAID: 0,
    EntryState.ABANDONED: 1,
    EntryState.INTENDED: 2,
    EntryState.UNCERTAIN: 3,
    EntryState.ACCEPTED: 4,
    EntryState.CANCELLED: 5,
    EntryState.EXPIRED: 5,
    EntryState.FAILED: 5,
    EntryState.SUCCEEDED: 6,
}
_UNREADABLE: Final = 3  # the rank of a state that nobody knows
_PLACES: Final[dict[str, int]] = {name: place for place, name in enumerate(ALL.split(", "))}


class _Standing(NamedTuple):
    """What two histories of one key are compared by; the greater one keeps the key."""

    rank: int
    id: str
    updated_at: float
    revision: int
    born: str

    @classmethod
    def of(cls, version: Version) -> _Standing:
        entry = version.entry
        return cls(_RANKS[entry.state], entry.id or "", entry.updated_at, version.revision, version.born)

    def has_to_stay_beside(self, greater: _Standing) -> bool:
        """Whether it may have bought something that the greater one of its key says nothing of."""
        return self.rank > 0 and (not self.id or self.id != greater.id)


def _second_key(key: str, born: str) -> str:
    """Return under which key a history goes on that has to leave its own to a greater one."""
    return hashlib.sha256(f"{key} {born}".encode()).hexdigest()[:32]


def merged(versions: Iterable[Version]) -> Iterable[Version]:
    """Return of each history its last version, each under a key of its own."""
    histories: dict[tuple[str, str], Version] = {}
    for version in versions:
        place = version.entry.key, version.born
        if place not in histories or version.revision > histories[place].revision:
            histories[place] = version
    found: dict[str, Version] = {}
    for (key, born), version in histories.items():
        second = _second_key(key, born)
        if (second, born) in histories:  # this is an older version of what was moved since
            continue
        lesser, greater = sorted((version, found.get(key, version)), key=_Standing.of)
        found[key] = greater
        if lesser is not greater and _Standing.of(lesser).has_to_stay_beside(_Standing.of(greater)):
            second = _second_key(key, lesser.born)
            found[second] = lesser._replace(entry=msgspec.structs.replace(lesser.entry, key=second))
    return found.values()


def merge(connection: sqlite3.Connection, path: Path) -> None:
    """Copy what another file holds into this one.

    Doing it twice, because a process died before it could remove the other file, changes nothing.
    """
    connection.execute("ATTACH DATABASE ? AS other", (str(path),))
    try:
        with transaction(connection):
            met = connection.execute(
                f"SELECT {ALL} FROM other.jobs WHERE key IN (SELECT key FROM main.jobs)"  # noqa: S608 - ours alone
            ).fetchall()
            connection.execute(
                f"INSERT INTO main.jobs ({ALL}) SELECT {ALL} FROM other.jobs "  # noqa: S608 - ours alone
                "WHERE key NOT IN (SELECT key FROM main.jobs)"
            )
            absorb(connection, met)
            connection.execute(
                "INSERT INTO main.notes SELECT * FROM other.notes WHERE true ON CONFLICT (name) DO UPDATE "
                "SET value = excluded.value, updated_at = excluded.updated_at WHERE excluded.updated_at > updated_at"
            )
    finally:
        connection.execute("DETACH DATABASE other")


def absorb(connection: sqlite3.Connection, rows: Iterable[tuple[Any, ...]]) -> None:
    """Take rows of another file into this one, inside a transaction."""
    for row in rows:
        new = _Row(row)
        second = _found(connection, _second_key(new.key, new.born))
        ours = _found(connection, new.key)
        if second is not None and second.born == new.born:  # what this is an older version of was moved
            _put(connection, new.moved(), over=second)
        elif ours is None or ours.born == new.born:
            _put(connection, new, over=ours)
        else:
            _meet(connection, new, ours)


def _meet(connection: sqlite3.Connection, new: _Row, ours: _Row) -> None:
    """Decide which of two histories keeps the key, and have the other one go on under another where it matters."""
    lesser, greater = sorted((new, ours), key=_Row.standing)
    _put(connection, greater, over=None)
    if lesser.standing().has_to_stay_beside(greater.standing()):
        moved = lesser.moved()
        _logger.critical(
            "two processes bought under the key %s; what the second did is kept under the key %s: provider %s, kind "
            "%s, state %s, id %s",
            *(greater.key, moved.key, *(moved.column(name) for name in ("provider", "kind", "state", "id"))),
        )
        _put(connection, moved, over=None)


class _Row:
    """All columns of an entry, be they readable or not."""

    def __init__(self, values: tuple[Any, ...]) -> None:
        self.values = values
        self.key = str(values[0])
        self.born = str(values[-2])
        self.revision = int(values[-1])

    def column(self, name: str) -> Any:
        return self.values[_PLACES[name]]

    def standing(self) -> _Standing:
        rank = _RANKS.get(self.column("state"), _UNREADABLE)
        return _Standing(rank, self.column("id") or "", self.column("updated_at"), self.revision, self.born)

    def moved(self) -> _Row:
        return _Row((_second_key(self.key, self.born), *self.values[1:]))


def _found(connection: sqlite3.Connection, key: str) -> _Row | None:
    row = connection.execute(f"SELECT {ALL} FROM main.jobs WHERE key = ?", (key,)).fetchone()  # noqa: S608 - ours alone
    return None if row is None else _Row(row)


def _put(connection: sqlite3.Connection, row: _Row, *, over: _Row | None) -> None:
    """Write a row, unless the one that is there is a later version of it."""
    if over is None or row.revision > over.revision:
        marks = ", ".join("?" * len(_PLACES))
        connection.execute(f"INSERT OR REPLACE INTO main.jobs ({ALL}) VALUES ({marks})", row.values)  # noqa: S608 - same
