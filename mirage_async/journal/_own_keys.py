"""Intents under callers' own keys: of all processes of a folder, one at a time may find a key free and take it."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from typing import TYPE_CHECKING, Final

import msgspec

from mirage_async._disk import only_one
from mirage_async.exceptions import MirageError
from mirage_async.journal import _schema
from mirage_async.journal._entry import EntryState
from mirage_async.journal._writer import Write

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from mirage_async.journal._folder import Folder
    from mirage_async.journal._writer import Writer

__all__ = ["OwnKeys"]

_DOUBTFUL: Final = frozenset({EntryState.INTENDED, EntryState.UNCERTAIN})


class _Asked(msgspec.Struct):
    key: str
    write: Write
    taken: bool = False  # somebody else has bought under the key, or is about to
    error: Exception | None = None  # what kept it from being written


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
        self._lock = threading.Lock()
        self._asked: list[_Asked] = []
        self._served: asyncio.Future[None] | None = None  # once those who are asking are

    async def take(self, key: str, write: Write) -> bool:
        """Write an intent under a key; False where the key is taken, and nothing is written.

        Who is cancelled may have taken it all the same.

        Raises:
            InputError: nothing is on record of the key, and something on record was lost.
            JournalError: the journal is closed, or what it says of the key cannot be read.
            sqlite3.Error, OSError: it cannot be written.
        """
        asked = _Asked(key, write)
        with self._lock:
            if self._served is None:
                self._served = self._writer.do(self._serve)
            self._asked.append(asked)
            served = self._served
        await asyncio.shield(served)
        if asked.error is not None:
            raise asked.error
        return not asked.taken

    # --- what follows runs in the writer's thread ---

    def _serve(self, connection: sqlite3.Connection) -> None:
        with self._lock:
            all_, self._asked, self._served = self._asked, [], None
        try:
            with only_one(self._folder.directory / "keys.lock"):
                free: dict[str, _Asked] = {}
                for asked in all_:
                    asked.taken = asked.key in free or self._is_taken(connection, asked)
                    if not asked.taken and asked.error is None:
                        free[asked.key] = asked
                self._write(tuple(free.values()))
        except (sqlite3.Error, OSError) as error:
            for asked in all_:
                asked.error = error

    def _is_taken(self, connection: sqlite3.Connection, asked: _Asked) -> bool:
        key, free = asked.key, {EntryState.UNPAID, *(_DOUBTFUL if asked.key in self._sending else ())}
        try:
            ours, others = _schema.select(connection, _schema.BY_KEY, (key,)), self._folder.of_others(key)
            if not ours and not others:
                self._folder.check_nothing_lost(key)
        except (MirageError, sqlite3.Error, OSError) as error:  # of this key alone, as where its entry is damaged
            asked.error = error
            return False
        return any(entry.state not in free for entry in ours) or any(
            entry.state is not EntryState.UNPAID for entry in others
        )

    def _write(self, group: Sequence[_Asked]) -> None:
        """Write them together, or as many as can be written each by itself."""
        if not group:
            return
        try:
            self._writer.commit_now([asked.write for asked in group])
        except (sqlite3.Error, OSError) as error:
            if len(group) == 1:
                group[0].error = error
                return
            for asked in group:
                self._write([asked])
