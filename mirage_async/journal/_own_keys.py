"""Intents under callers' own keys: of all processes of a folder, one at a time may find a key free and take it."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Final, TypeAlias

from mirage_async._disk import only_one
from mirage_async.journal import _schema
from mirage_async.journal._entry import EntryState
from mirage_async.journal._together import Asked, Together, answer_each

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Container, Iterable, Sequence

    from mirage_async.journal._entry import Entry
    from mirage_async.journal._folder import Folder
    from mirage_async.journal._writer import Write, Writer

__all__ = ["OwnKeys", "Taking", "end_of", "notes_of_rivals"]

_RIVALS: Final = "rivals "  # what the name of a note begins with that has the rivals of a key; the key follows
_IN_NOBODYS_WAY: Final = frozenset({EntryState.UNPAID, EntryState.FAILED, EntryState.CANCELLED, EntryState.EXPIRED})
_DOUBTFUL: Final = frozenset({EntryState.INTENDED, EntryState.UNCERTAIN})
Taking: TypeAlias = "Asked[tuple[str, Write], bool]"
"""Somebody who asks for a key, and whether he has it."""


class OwnKeys:
    """Takes keys. Those who ask while others are being served are served together, with one flush of the disk.

    Args:
        writer: writes.
        folder: knows what others have bought.
        sending: keys of purchases here that may be on the wire: these may be taken again.
    """

    def __init__(self, writer: Writer, folder: Folder, sending: Container[str]) -> None:
        self._writer = writer
        self._folder = folder
        self._sending = sending
        self._together = Together(writer, self._serve, default=False)

    def take(self, key: str, write: Write) -> Taking:
        """Write an intent under a key; the answer is False where the key is taken, and nothing is written.

        Who waits for the answer and is cancelled may have taken it all the same. Waiting raises:
            InputError: no purchase is on record of the key, and something on record was lost.
            JournalError: the journal is closed, or what it says of the key cannot be read.
            sqlite3.Error, OSError: it cannot be written.

        Raises:
            JournalError: the journal is closed.
        """
        return self._together.ask((key, write))

    # --- what follows runs in the writer's thread ---

    def _serve(self, connection: sqlite3.Connection, all_: Sequence[Taking]) -> None:
        with only_one(self._folder.directory / "keys.lock"):
            answer_each(all_, partial(self._take, connection))

    def _take(self, connection: sqlite3.Connection, all_: Sequence[Taking]) -> None:
        """Take those that are free: all of them in one transaction, or none."""
        keys = {asked.question[0] for asked in all_}
        rivals = _rivals(connection, keys)
        known = keys.union(*rivals.values())
        ours, others = _schema.select_keys(connection, known), self._folder.of_others(known)
        self._folder.note_lost(connection)  # after the look at the others, of which one may have gone meanwhile
        free: dict[str, Taking] = {}
        for asked in all_:
            key, _ = asked.question
            against = rivals.get(key, ())
            if not free.keys().isdisjoint((key, *against)):
                continue
            if any(_stands_in_the_way(entries.get(rival)) for rival in against for entries in (ours, others)):
                continue
            if self._is_free(key, ours.get(key), others.get(key)):
                if key not in self._sending:  # also where it was refused once: it may have been bought since
                    self._folder.check_nothing_lost(key)
                free[key] = asked
        if free:
            self._writer.commit_now([asked.question[1] for asked in free.values()])
        for asked in free.values():
            asked.answer = True

    def _is_free(self, key: str, ours: Entry | None, others: Entry | None) -> bool:
        unpaid = {EntryState.UNPAID, *(_DOUBTFUL if key in self._sending else ())}
        return (ours is None or ours.state in unpaid) and (others is None or others.state is EntryState.UNPAID)


def end_of(taking: Taking) -> asyncio.Future[bool]:
    """Return a future that says whether a key was taken, once that is known, and keeps nothing else alive."""
    end: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def served(served: asyncio.Future[None]) -> None:
        failed = served.exception() is not None or taking.error is not None
        end.set_result(not failed and taking.answer)

    taking.served.add_done_callback(served)
    return end


def notes_of_rivals(keys: Sequence[str]) -> dict[str, str]:
    """Return the notes that say of each of some keys which other ones must not have bought for it to buy."""
    return {f"{_RIVALS}{key}": " ".join(other for other in keys if other != key) for key in keys}


def _rivals(connection: sqlite3.Connection, keys: Iterable[str]) -> dict[str, list[str]]:
    notes = _schema.select_notes(connection, [f"{_RIVALS}{key}" for key in keys])
    return {name.removeprefix(_RIVALS): text.split() for name, text in notes.items()}


def _stands_in_the_way(entry: Entry | None) -> bool:
    """Whether what is on record of a rival forbids a purchase: one that may have been made and has not ended badly."""
    return entry is not None and entry.state not in _IN_NOBODYS_WAY
