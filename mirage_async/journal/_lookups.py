"""What is on record, in all files of the folder, for those who ask for a key or for a note."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from mirage_async.journal import _schema
from mirage_async.journal._entry import Entry, EntryState
from mirage_async.journal._outcomes import StoredOutcome, stored_images
from mirage_async.journal._statements import SETTLED, write_rows
from mirage_async.journal._together import Asked, Together, answer_each

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Awaitable, Collection, Mapping, Sequence
    from pathlib import Path

    from mirage_async.journal._folder import Folder
    from mirage_async.journal._writer import Writer

__all__ = ["Found", "Lookups"]


class Found(msgspec.Struct, frozen=True):
    """What is on record.

    Attributes:
        entry: of the key, or None.
        is_ours: it is in our file, and not in that of a process that goes on.
        note: the text that is kept under the name, or None.
    """

    entry: Entry | None = None
    is_ours: bool = False
    note: str | None = None


_NOTHING: Final = Found()
_Asked: TypeAlias = "Asked[tuple[str, str], Found]"
_Kept: TypeAlias = "Asked[Mapping[str, str], None]"


class Lookups:
    """Looks up keys and notes, for all who ask at a time with one look at the folder.

    Args:
        writer: whose thread looks.
        folder: of the files.
        pictures: the folder of those that exist nowhere else.
    """

    def __init__(self, writer: Writer, folder: Folder, pictures: Path) -> None:
        self._folder = folder
        self._pictures = pictures
        self._together = Together(writer, self._serve, _NOTHING)
        self._notes = Together(writer, self._serve_notes, None)

    def ask(self, key: str = "", name: str = "") -> Awaitable[Found]:
        """Return what is on record of a key, of a note, or of both.

        Raises:
            JournalError: the journal is closed, or what it says cannot be read.
            sqlite3.Error, OSError: a file cannot be read or written.
        """
        return self._together.ask((key, name)).answered()

    def keep(self, notes: Mapping[str, str]) -> Awaitable[None]:
        """Keep texts under names, all of them or none; those who ask at a time share a flush. Raises as `ask` does."""
        return self._notes.ask(notes).answered()

    # --- what follows runs in the writer's thread ---

    def _serve(self, connection: sqlite3.Connection, all_: Sequence[_Asked]) -> None:
        answer_each(all_, partial(self._answer, connection))

    def _serve_notes(self, connection: sqlite3.Connection, all_: Sequence[_Kept]) -> None:
        answer_each(all_, partial(self._keep, connection))

    def _keep(self, connection: sqlite3.Connection, all_: Sequence[_Kept]) -> None:
        notes: dict[str, str] = {}
        for asked in all_:
            notes |= asked.question
        _schema.note(connection, notes, time.time())

    def _answer(self, connection: sqlite3.Connection, all_: Sequence[_Asked]) -> None:
        keys, names = ({asked.question[place] for asked in all_} - {""} for place in range(2))
        entries = self._entries(connection, keys) if keys else {}
        notes = _schema.select_notes(connection, names) if names else {}
        if not (keys <= entries.keys() and names <= notes.keys()):
            self._folder.note_lost(connection)
        for asked in all_:
            key, name = asked.question
            entry, is_ours = entries.get(key, (None, False))
            asked.answer = Found(entry, is_ours, notes.get(name))

    def _entries(self, connection: sqlite3.Connection, keys: Collection[str]) -> dict[str, tuple[Entry, bool]]:
        """Return the entries of those keys that have one, and whether each is in our file.

        What we did not pay for may have been bought by another process since.
        """
        ours = _schema.select_keys(connection, keys)
        if any(key not in ours or ours[key].state is EntryState.UNPAID for key in keys):
            self._folder.take_over(connection)
            ours = _schema.select_keys(connection, keys)
        unpaid = {key for key in keys if key not in ours or ours[key].state is EntryState.UNPAID}
        found = {
            key: (entry if key in unpaid else self.with_pictures(connection, entry), True)
            for key, entry in ours.items()
        }
        others = self._folder.of_others(unpaid) if unpaid else {}
        for key, entry in others.items():
            if key not in found or entry.state is not EntryState.UNPAID:
                found[key] = entry, False
        return found

    def with_pictures(self, connection: sqlite3.Connection, entry: Entry) -> Entry:
        """Complete, also on record, an entry whose pictures were written just before its process ended.

        Its outcome was not. Were it left out of the record, the hand-over would be noted for a purchase of unknown end.
        """
        if entry.state is not EntryState.INTENDED or not entry.blocking:
            return entry
        images = stored_images(sorted(self._pictures.glob(f"{entry.key}-*")))
        if not images:
            return entry
        outcome, state = StoredOutcome(images=images), EntryState.SUCCEEDED
        text = msgspec.json.encode(outcome).decode()
        write_rows(connection, [(SETTLED, [(entry.key, state.value, text, time.time())])])
        return msgspec.structs.replace(entry, state=state, outcome=outcome)
