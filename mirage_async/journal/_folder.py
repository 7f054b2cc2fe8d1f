"""What a process does with the files of a folder: sits down at one, and takes over those that nobody has any more."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from typing import TYPE_CHECKING

from mirage_async._disk import flush_folder
from mirage_async.exceptions import InputError, JournalError
from mirage_async.journal import _schema
from mirage_async.journal._merging import merge
from mirage_async.journal._reading import entries_in, lost_in
from mirage_async.journal._salvage import salvage
from mirage_async.journal._seats import Seat, damaged_files, free_seats

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterable
    from pathlib import Path

    from mirage_async.journal._entry import Entry

__all__ = ["Folder"]

_logger = logging.getLogger("mirage_async.journal")


class Folder:
    """The files of a folder, for the process that sits at one of them.

    Args:
        directory: the folder, which is there.
        durability: of the file to sit down at.
    """

    def __init__(self, directory: Path, durability: _schema.Durability) -> None:
        self.directory = directory
        self._durability: _schema.Durability = durability
        self._ours: Path | None = None
        self._damaged: list[Seat] = []
        self._aside: set[Path] = set()  # damaged files that were set aside, by us or by others, when last looked
        self._lost: list[Path] = []  # those of them that could not all be read
        self._told: set[Path] = set()  # files of which it was said that they are of a newer version

    def sit_down(self) -> tuple[Seat, sqlite3.Connection]:
        """Go on with the file of a process that is gone, or begin a new one.

        Raises:
            JournalError: the folder cannot be written to.
        """
        try:
            for seat in free_seats(self.directory):
                connection = self._opened(seat)
                if connection is not None:
                    break
            else:
                seat = Seat.new(self.directory)
                connection = self._begun(seat)
            with _or_else(connection.close, seat.release):
                self._set_damaged_aside(connection)
        except (OSError, sqlite3.Error) as error:
            msg = f"the journal in {str(self.directory)!r} cannot be written: {error}"
            raise JournalError(msg) from error
        self._ours = seat.path
        return seat, connection

    def _begun(self, seat: Seat) -> sqlite3.Connection:
        with _or_else(seat.release):
            return _schema.connect(seat.path, self._durability)

    def _opened(self, seat: Seat) -> sqlite3.Connection | None:
        """Open a file that is held; None where it is of no use, be it damaged or of a newer version."""
        try:
            return _schema.connect(seat.path, self._durability, check=True)
        except sqlite3.OperationalError:
            seat.release()
            raise
        except sqlite3.DatabaseError:
            _logger.critical("%s is damaged; what can be read of it is taken over", seat.path, exc_info=True)
            self._damaged.append(seat)
            return None
        except _schema.NewerError as error:
            seat.release()
            if seat.path not in self._told:
                self._told.add(seat.path)
                _logger.critical("%s; until it is gone, no caller's own key buys anything", error)
            return None
        except BaseException:
            seat.release()
            raise

    def _set_damaged_aside(self, connection: sqlite3.Connection) -> None:
        """Copy into our own file what can be read of damaged ones, and give those another name."""
        while self._damaged:
            seat = self._damaged.pop()
            with _or_else(seat.release, *(each.release for each in self._damaged)):
                salvage(connection, seat.path)
            _logger.critical(
                "%s is damaged and is set aside as %s; what it alone knew of is to be looked up at the providers",
                seat.path,
                ", ".join(map(str, seat.set_aside())),
            )

    def take_over(self, connection: sqlite3.Connection) -> None:
        """Copy the files of processes that are gone into our own, and remove them."""
        merged = False
        for seat in free_seats(self.directory, but=self._ours):
            opened = self._opened(seat)
            if opened is not None:
                opened.close()  # brought up to this version, and its log is part of it now
                with _or_else(seat.release):
                    merge(connection, seat.path)
                seat.remove()
                merged = True
        if merged or self._damaged:
            self._set_damaged_aside(connection)

    def note_lost(self, connection: sqlite3.Connection) -> None:
        """Note which damaged files could not all be read, by whichever process; to be called after a look at the files.

        Before it sets a damaged file aside, a process has on record what it could not read of it.

        Raises:
            JournalError: the file of another process cannot be read.
        """
        aside = damaged_files(self.directory)
        if aside != self._aside:
            names = {*_schema.lost(connection), *lost_in(self.directory, but=self._ours)}
            self._lost = sorted(path for path in aside if path.name in names)
            self._aside = aside

    def check_nothing_lost(self, key: str) -> None:
        """Raise `InputError` for a key that is free on record, where that may be due to a damaged file.

        It goes by what `note_lost` has noted last.
        """
        lost = [str(path) for path in self._lost if path.exists()]
        if lost:
            msg = (
                f"nobody knows what the key {key} stands for: no purchase of it is on record, and part of that could "
                f"not be read of {', '.join(lost)}, so it may have bought already. Look at the provider's dashboard, "
                "then move that file out of the journal's folder: such keys buy again from then on"
            )
            raise InputError(msg, billed="no")

    def copy(self, connection: sqlite3.Connection) -> None:
        """Copy our own file, which may have no name any more, into a new one that is left to the next process."""
        seat = Seat.new(self.directory)
        with _or_else(seat.remove), contextlib.closing(sqlite3.connect(seat.path)) as target:
            connection.backup(target)
        seat.release()
        flush_folder(self.directory)

    def of_others(self, keys: Collection[str]) -> dict[str, Entry]:
        """Return what the other files say of each of these keys they know, of two histories the one that keeps it."""
        return {entry.key: entry for entry in self.others(*_schema.by_keys(keys)) if entry.key in keys}

    def others(self, where: str, parameters: Iterable[str]) -> list[Entry]:
        """Return what the files of other processes hold."""
        return entries_in(self.directory, where, parameters, but=self._ours)


@contextlib.contextmanager
def _or_else(*undo: Callable[[], object]) -> Generator[None, None, None]:
    """Undo something where what is done inside fails."""
    try:
        yield
    except BaseException:
        for each in undo:
            each()
        raise
