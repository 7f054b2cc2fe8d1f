"""The folder of a journal: one database file a process, each held by a lock on a file beside it.

The kernel lets go of the lock when its process ends, however it ends, so a file nobody holds is one whose process is
gone: whoever comes next may take it over. No two processes ever have one file open for writing.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
import time
import weakref
from typing import TYPE_CHECKING, Final

from mirage_async.exceptions import JournalError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

if sys.platform == "win32":
    import msvcrt

    def _try_lock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

    def _unlock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _try_lock(descriptor: int) -> None:
        # Not the POSIX kind, which a process loses as soon as it closes the file anywhere.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # closing is not enough where a forked child has it open as well


__all__ = ["Seat", "databases", "flush_folder", "free_seats", "make_folder", "only_one"]

_SUFFIX: Final = ".sqlite"
LONGEST_TURN: Final = 10.0  # seconds to wait for another process that claims a key
_held: weakref.WeakSet[Seat] = weakref.WeakSet()


class Seat:
    """One database file, and the lock that makes it ours as long as this process lives.

    Attributes:
        path: the database file.
    """

    __slots__ = ("__weakref__", "_descriptor", "_lock_path", "path")

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._lock_path = _lock_path(path)
        self._descriptor = descriptor
        _held.add(self)

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
        descriptor = os.open(_lock_path(path), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _try_lock(descriptor)
            # Whoever removes a file holds its lock, so a lock on a name that is gone, or that is another's by now, is
            # worth nothing.
            if os.fstat(descriptor).st_ino != os.stat(_lock_path(path)).st_ino:  # noqa: PTH116 - as for a descriptor
                raise BlockingIOError  # noqa: TRY301 - the one way out
            with contextlib.suppress(OSError):  # for people only, and the disk may be full
                os.ftruncate(descriptor, 0)
                os.write(descriptor, f"{os.getpid()}\n".encode())
        except (BlockingIOError, FileNotFoundError, PermissionError):
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        return cls(path, descriptor)

    def remove(self) -> None:
        """Remove the file, whose content is elsewhere by now, and let go."""
        for path in (self.path, *_companions(self.path)):
            path.unlink(missing_ok=True)
        self._remove_lock()
        self.release()

    def set_aside(self) -> Path:
        """Give a damaged file another name, so that nobody takes it for a journal but anybody can look at it."""
        aside = self.path.with_suffix(".damaged")
        for path, name in zip((self.path, *_companions(self.path)), ("", "-wal", "-shm"), strict=True):
            with contextlib.suppress(FileNotFoundError):
                path.rename(f"{aside}{name}")
        self._remove_lock()
        self.release()
        return aside

    def _remove_lock(self) -> None:
        with contextlib.suppress(PermissionError):  # Windows keeps what is open; a lock without its file harms nobody
            self._lock_path.unlink(missing_ok=True)

    def release(self) -> None:
        """Let go; may be called twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __repr__(self) -> str:
        return f"<Seat {self.path.name}>"


def _let_go_of_all() -> None:
    """Keep a forked child from holding on to what its parent held, longer than the parent lives."""
    for seat in tuple(_held):
        seat.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go_of_all)


@contextlib.contextmanager
def only_one(path: Path) -> Generator[None, None, None]:
    """Do what is done inside while no other process of the folder does; blocks, so it belongs in a thread.

    Raises:
        OSError: another one has been at it for too long.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _lock(descriptor, path)
        try:
            yield
        finally:
            _unlock(descriptor)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: Path) -> None:
    end = time.monotonic() + LONGEST_TURN
    while True:
        try:
            _try_lock(descriptor)
        except (BlockingIOError, PermissionError):
            if time.monotonic() > end:
                msg = f"another process holds {path.name} and does not go on"
                raise TimeoutError(msg) from None
            time.sleep(0.002)
        else:
            return


def databases(folder: Path) -> list[Path]:
    """Return the database files of a folder, in order of their names."""
    return sorted(folder.glob(f"jobs-*{_SUFFIX}"))


def free_seats(folder: Path) -> Iterator[Seat]:
    """Take one after the other the files nobody holds; whoever iterates removes or releases each."""
    for path in databases(folder):
        seat = Seat.take(path)
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


def flush_folder(folder: Path) -> None:
    """Have the system write down what a folder holds: a file is durable once the folder that names it is."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _lock_path(path: Path) -> Path:
    return path.with_suffix(".lock")


def _companions(path: Path) -> tuple[Path, Path]:
    return path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")
