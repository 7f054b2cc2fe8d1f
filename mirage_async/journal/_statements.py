"""The statements that the moves of purchases are written with, many rows each.

SQLite gives the interpreter's lock away for every statement it runs, however short that is, and a busy event loop is
slow to give it back. So a statement for each row costs several times what the row does.
"""

from __future__ import annotations

import functools
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from mirage_async.journal._schema import transaction

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Sequence

__all__ = ["ACCEPTED", "HANDED_OVER", "INTENDED", "SETTLED", "WITHDRAWN", "Move", "Row", "write_rows"]

Row: TypeAlias = tuple[Any, ...]
"""The parameters of one move."""

_MOST_ROWS: Final = 256  # of one statement; the widest has 14 parameters a row, of the 32,766 that SQLite takes


class Move:
    """A kind of row.

    Args:
        name: for a log.
        place: within a group, those with a lower one are written first.
        width: parameters of a row.
        before: the statement up to the rows.
        after: the rest of it. A row whose parameters are all 0 changes nothing.
    """

    def __init__(self, name: str, *, place: int, width: int, before: str, after: str) -> None:
        self.name = name
        self.place = place
        self.width = width
        self._before = before
        self._after = after
        self._row = f"({', '.join('?' * width)})"

    @functools.cache  # noqa: B019 - there are five of them, as long as the program runs
    def statement(self, rows: int) -> str:
        """Return the statement for so many rows."""
        return f"{self._before} (VALUES {', '.join([self._row] * rows)}) {self._after}"


# A purchase that is sent again is the same purchase: it keeps its row, and the row counts what may have been bought.
INTENDED: Final = Move(
    "intent",
    place=0,
    width=14,
    before="""
INSERT INTO jobs SELECT column1, column2, column3, column4, column5, column6, column7, column8, column9, column10, NULL,
    'intended', 1, 0, column11, column12, column11, NULL, 0, column14, column13, column13, 1 FROM
""",
    after="""
WHERE column1 != 0 ON CONFLICT (key) DO UPDATE SET
    doubtful = doubtful + (state IN ('intended', 'uncertain')), attempts = attempts + 1, state = 'intended',
    provider = excluded.provider, account = excluded.account, kind = excluded.kind, blocking = excluded.blocking,
    announced = excluded.announced, model = excluded.model, requested = excluded.requested, digest = excluded.digest,
    label = excluded.label, id = NULL, outcome = NULL, intended_at = excluded.intended_at, deadline = excluded.deadline,
    updated_at = excluded.updated_at, handed_over = 0, own_key = own_key > 0 OR excluded.own_key, run = excluded.run,
    revision = revision + 1
""",
)


def _update(name: str, columns: str, sets: str, *, place: int, only: str = "") -> Move:
    """Return a move of a purchase that is on record; of one that is not it changes nothing.

    Args:
        name: for a log.
        columns: of a row called `moved`, by comma; `key` and `moment` are among them.
        sets: what it changes beside the moment and the number of the revision.
        place: as for every move.
        only: a further condition, if any.
    """
    return Move(
        name,
        place=place,
        width=len(columns.split(",")),
        before=f"WITH moved ({columns}) AS",
        after=f"""
UPDATE jobs SET {sets}, updated_at = moved.moment, revision = revision + 1
FROM moved WHERE moved.key != 0 AND jobs.key = moved.key {only}
""",  # noqa: S608 - ours alone
    )


_ID_KNOWN = "id = moved.id, state = 'accepted', handed_over = 0"
# What the last attempt ended with says nothing about the ones before.
_OUTCOME_KNOWN = """
    state = CASE WHEN doubtful AND id IS NULL AND moved.state IN ('unpaid', 'failed') THEN 'uncertain'
        ELSE moved.state END,
    outcome = moved.outcome, own_key = own_key > 0
"""
_REFUSED = "state = CASE WHEN doubtful THEN 'uncertain' ELSE 'unpaid' END"

WITHDRAWN: Final = _update("refusal", "key, moment", _REFUSED, place=1, only="AND state = 'intended'")
ACCEPTED: Final = _update("id", "key, id, moment", _ID_KNOWN, place=2)
SETTLED: Final = _update("outcome", "key, state, outcome, moment", _OUTCOME_KNOWN, place=3)
HANDED_OVER: Final = _update("hand-over", "key, moment", "handed_over = 1", place=4)


def write_rows(connection: sqlite3.Connection, batches: Sequence[tuple[Move, Sequence[Row]]]) -> None:
    """Write rows, those of one kind about different jobs, in this order; all of them or none."""
    calls = [call for move, rows in batches for call in _calls(move, rows)]
    if len(calls) == 1:
        connection.execute(*calls[0])  # a transaction of its own
        return
    with transaction(connection):
        for statement, parameters in calls:
            connection.execute(statement, parameters)


def _calls(move: Move, rows: Sequence[Row]) -> Iterator[tuple[str, list[Any]]]:
    """Return statements with their parameters.

    The number of rows is made up to a power of two, so that a handful of statements serves for all: with zeros, since
    SQLite's driver looks for ways to adapt None, and finds none, at ten times the cost.
    """
    for start in range(0, len(rows), _MOST_ROWS):
        some = rows[start : start + _MOST_ROWS]
        size = 1 << (len(some) - 1).bit_length()
        yield move.statement(size), [*chain.from_iterable(some), *(0,) * ((size - len(some)) * move.width)]
