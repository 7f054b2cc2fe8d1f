"""Locks that end with their process, and names that outlive the machine's power: what files promise to programs."""

from __future__ import annotations

import contextlib
import os
import sys
import time
import weakref
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Generator
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


__all__ = ["Hold", "flush_folder", "hold_while_open", "only_one"]

LONGEST_TURN: Final = 10.0  # seconds to wait for another process
_held: weakref.WeakSet[Hold] = weakref.WeakSet()


class Hold:
    """A lock file that is ours as long as this process lives, however it ends.

    Attributes:
        path: the file.
    """

    __slots__ = ("__weakref__", "_descriptor", "path")

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        _held.add(self)

    @classmethod
    def take(cls, path: Path) -> Hold | None:
        """Take a file that nobody holds, and make it where it is missing; None where a living process holds it.

        Raises:
            OSError: the folder cannot be written to, or the file system has no locks.
        """
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _try_lock(descriptor)
            # Whoever removes a file holds its lock, so a lock on a name that is gone, or that is another's by now, is
            # worth nothing.
            if not _is_named(descriptor, path):
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

    @property
    def in_place(self) -> bool:
        """Whether the file is still the one of its name; where not, what is around it is most likely gone, too."""
        try:
            return _is_named(self._descriptor, self.path)
        except OSError:
            return False

    @property
    def removed(self) -> bool:
        """Whether the file is gone for good: it was not moved, but removed, and has no name any more."""
        return os.fstat(self._descriptor).st_nlink == 0

    def remove(self) -> None:
        """Remove the file; it is to be let go, too."""
        with contextlib.suppress(PermissionError):  # Windows keeps what is open; a lock without its file harms nobody
            self.path.unlink(missing_ok=True)

    def release(self) -> None:
        """Let go; may be called twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _is_named(descriptor: int, path: Path) -> bool:
    return os.fstat(descriptor).st_ino == os.stat(path).st_ino  # noqa: PTH116 - as for a descriptor


def _let_go_of_all() -> None:
    """Keep a forked child from holding on to what its parent held, longer than the parent lives."""
    for hold in tuple(_held):
        hold.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go_of_all)


def hold_while_open(descriptor: int) -> bool:
    """Hold a file until it is closed, and return whether nobody else held it, as far as the file system can tell.

    Windows needs no such thing, where nobody can remove a file that is open.
    """
    try:
        if os.name == "posix":
            _try_lock(descriptor)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def only_one(path: Path) -> Generator[None, None, None]:
    """Do what is done inside while no other process does; blocks, so it belongs in a thread.

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


def flush_folder(folder: Path) -> None:
    """Have the system write down what a folder holds: a file is durable once the folder that names it is."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
