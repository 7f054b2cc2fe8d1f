"""The folder of a journal: one database file a process, each held by a lock on a file beside it.

The kernel lets go of the lock when its process ends, however it ends, so a file nobody holds is one whose process is
gone: whoever comes next may take it over. No two processes ever have one file open for writing.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mirage_async._disk import Hold, flush_folder
from mirage_async.exceptions import JournalError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Seat", "aside_of", "damaged_files", "free_seats", "journal_files", "make_folder"]

_SUFFIX: Final = ".sqlite"
_ASIDE: Final = ".damaged"


class Seat:
    """One database file, and the lock that makes it ours as long as this process lives.

    Attributes:
        path: the database file.
    """

    __slots__ = ("_hold", "path")

    def __init__(self, path: Path, hold: Hold) -> None:
        self.path = path
        self._hold = hold

    @classmethod
    def new(cls, folder: Path) -> Seat:
        """Make a file and hold it.

        Raises:
            OSError: the folder cannot be written to.
        """
        while True:
            seat = cls.take(folder / f"jobs-{secrets.token_hex(4)}{_SUFFIX}")
            if seat is not None:
                os.close(os.open(seat.path, os.O_WRONLY | os.O_CREAT, 0o600))
                return seat

    @classmethod
    def take(cls, path: Path) -> Seat | None:
        """Take a file that nobody holds; None where a living process does.

        Raises:
            OSError: the folder cannot be written to, or the file system has no locks.
        """
        hold = Hold.take(_lock_path(path))
        return None if hold is None else cls(path, hold)

    def check(self) -> None:
        """Make sure that what is written to the file is there to be found by others.

        Raises:
            OSError: it was removed or moved, or its lock was.
        """
        if not self._hold.in_place or not self.path.exists():
            raise FileNotFoundError(errno.ENOENT, "it was removed or moved", str(self.path))

    def remove(self) -> None:
        """Remove the file, whose content is elsewhere by now, and let go."""
        for path in (self.path, *_companions(self.path)):
            path.unlink(missing_ok=True)
        self._hold.remove()
        self.release()

    def set_aside(self) -> list[Path]:
        """Give a damaged file and what is beside it other names, and return these.

        So nobody takes it for a journal, but anybody can look at it.
        """
        aside = aside_of(self.path)
        found: list[Path] = []
        for path, name in zip((self.path, *_companions(self.path)), ("", "-wal", "-shm"), strict=True):
            with contextlib.suppress(FileNotFoundError):
                found.append(path.rename(f"{aside}{name}"))
        self._hold.remove()
        self.release()
        return found

    def release(self) -> None:
        """Let go; may be called twice."""
        self._hold.release()

    def __repr__(self) -> str:
        return f"<Seat {self.path.name}>"


def journal_files(directory: str | os.PathLike[str]) -> list[Path]:
    """Return the database files in a journal's folder, one a process, in order of their names."""
    return sorted(Path(directory).glob(f"jobs-*{_SUFFIX}"))


def aside_of(path: Path) -> Path:
    """Return what a damaged database file is called once it is set aside."""
    return path.with_suffix(_ASIDE)


def damaged_files(directory: Path) -> set[Path]:
    """Return the database files in a journal's folder that are set aside."""
    return set(directory.glob(f"jobs-*{_ASIDE}"))


def free_seats(folder: Path, but: Path | None = None) -> Iterator[Seat]:
    """Take one after the other the files nobody holds, `but` one; whoever iterates removes or releases each."""
    for path in journal_files(folder):
        seat = None if path == but else Seat.take(path)
        if seat is not None and not path.exists():  # somebody else has just dealt with it
            seat.remove()
        elif seat is not None:
            yield seat


def make_folder(folder: Path) -> None:
    """Make the folders of a journal, for its owner alone.

    Raises:
        JournalError: they cannot be made.
    """
    try:
        missing = [each for each in (folder, *folder.parents) if not each.exists()]
        for each in (folder, folder / "pictures", folder / "requests"):
            each.mkdir(mode=0o700, parents=True, exist_ok=True)
        for each in missing:
            flush_folder(each.parent)
    except OSError as error:
        msg = f"the journal's folder {str(folder)!r} cannot be made: {error.strerror or error}"
        raise JournalError(msg) from error


def _lock_path(path: Path) -> Path:
    return path.with_suffix(".lock")


def _companions(path: Path) -> tuple[Path, Path]:
    return path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")
