"""Writing one picture to disk so that it appears whole or not at all. Blocking: the caller picks the thread."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import threading
from typing import TYPE_CHECKING, Final

from mirage_async._disk import hold_while_open
from mirage_async.media import PICTURE_SUFFIXES

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Draft", "remove_left_behind"]

# O_NOFOLLOW refuses a link planted under our name, O_BINARY keeps Windows from translating line ends.
_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_OURS: Final = re.compile(r"\.mirage-[0-9a-f]{16}\.part")
# What file systems without hard links (FAT, some network shares, Android) answer to link().
_NO_LINKS: Final = frozenset({errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EMLINK})


class Draft:
    """A file on its way: written under a hidden name in the target's folder, then published in one step.

    A caller that is cancelled while a thread works here goes on to `discard()` from another thread. The lock makes
    that wait its turn, and whatever comes after it is refused, so no descriptor is used after it was closed.

    Args:
        path: the file asked for, its suffix a wish; an existing folder takes the file under `name`.
        name: a file name without suffix.

    Attributes:
        path: as asked for.
        folder: that the file is in, once it is open; before that the one which `path` is in, if it is no folder itself.
    """

    __slots__ = ("_discarded", "_fd", "_inside", "_lock", "_mode", "_name", "_temporary", "folder", "path")

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self._name = name
        self.folder = path.parent
        self._inside = False
        self._temporary: Path | None = None
        self._fd = -1
        self._mode = 0o600
        self._discarded = False
        self._lock = threading.Lock()

    def open(self, suffix: str | None, *, overwrite: bool) -> None:
        """Make the folders and the hidden file.

        Args:
            suffix: the picture's suffix as far as it is known before its bytes are.
            overwrite: whether the target may exist.

        Raises:
            FileExistsError: the target can already be told, exists, and `overwrite` is False.
            OSError: the folder cannot be made or written to.
        """
        with self._lock:
            if self._discarded:
                raise InterruptedError(errno.EINTR, "given up before it began")
            self._inside = self.path.is_dir()
            if not overwrite:
                self._refuse_existing(suffix)
            if self._inside:
                self.folder = self.path
            temporary = self.folder / f".mirage-{secrets.token_hex(8)}.part"
            # Created as any new file, to learn what umask and folder make of its mode: asking for the umask would
            # mean setting it, for all threads. Closed to others while it is still empty.
            try:
                self._fd = os.open(temporary, _FLAGS, 0o666)
            except (FileNotFoundError, NotADirectoryError):
                _make(self.folder)
                self._fd = os.open(temporary, _FLAGS, 0o666)
            self._temporary = temporary
            hold_while_open(self._fd)  # or it could be taken for one that was left behind
            self._mode = os.fstat(self._fd).st_mode & 0o777
            os.chmod(self._fd if os.chmod in os.supports_fd else temporary, 0o600)  # noqa: PTH101 - on a descriptor

    def rewind(self) -> None:
        """Forget what was written, for another attempt."""
        with self._lock:
            os.lseek(self._fd, 0, os.SEEK_SET)
            os.ftruncate(self._fd, 0)

    def write(self, data: bytes | memoryview) -> None:
        """Append all of `data`."""
        with self._lock:
            written = os.write(self._fd, data)
            while written < len(data):  # rarely: a disk about to be full, a very large piece
                written += os.write(self._fd, memoryview(data)[written:])

    def publish(self, suffix: str, *, overwrite: bool) -> Path:
        """Put the finished file in its place and return the path it got.

        Raises:
            FileExistsError: the target exists and `overwrite` is False; nothing is changed.
        """
        with self._lock:
            assert self._temporary is not None  # noqa: S101 - open() has set it; says so to the type checker
            target = self._target(suffix)
            os.chmod(self._fd if os.chmod in os.supports_fd else self._temporary, self._mode)  # noqa: PTH101 - as above
            os.fsync(self._fd)
            fd, self._fd = self._fd, -1
            os.close(fd)
            if overwrite:
                self._temporary.replace(target)
            else:
                _move_to_free_name(self._temporary, target)
            self._temporary = None
            return target

    def discard(self) -> None:
        """Remove what is left of an unpublished draft; harmless at any time, and never raises."""
        with self._lock:
            self._discarded = True
            fd, self._fd = self._fd, -1
            if fd >= 0:
                os.close(fd)
            if self._temporary is not None:
                with contextlib.suppress(OSError):
                    self._temporary.unlink()
                self._temporary = None

    def _target(self, suffix: str) -> Path:
        if self._inside:
            return self.path / f"{self._name}{suffix}"
        wished = PICTURE_SUFFIXES.get(self.path.suffix.lower())
        if wished is None:  # none, or part of the name as in "sd-3.5"
            return self.path.with_name(f"{self.path.name}{suffix}")
        return self.path if wished == PICTURE_SUFFIXES.get(suffix) else self.path.with_suffix(suffix)

    def _refuse_existing(self, suffix: str | None) -> None:
        if suffix is not None:
            target = self._target(suffix)
        elif not self._inside and self.path.suffix.lower() in PICTURE_SUFFIXES:
            target = self.path  # in all likelihood; waiting for the bytes would mean a download for nothing
        else:
            return
        if os.path.lexists(target):
            raise _exists(target)


def remove_left_behind(folder: Path) -> None:
    """Remove the drafts in a folder whose process was killed; those of processes that live stay, and nothing is raised.

    Where the file system cannot tell one from the other, all of them stay.
    """
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if _OURS.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                _remove_if_free(entry.path)


def _remove_if_free(path: str) -> None:
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
        try:
            free = hold_while_open(fd)
        finally:
            os.close(fd)
        if free:
            os.unlink(path)  # noqa: PTH108 - of a name that was just listed


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:  # would read as if the picture were there already
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from None


def _exists(target: Path) -> FileExistsError:
    return FileExistsError(errno.EEXIST, "not overwritten, the file exists", str(target))


def _move_to_free_name(temporary: Path, target: Path) -> None:
    """Rename without overwriting, which plain rename() cannot: link() fails where the name is taken."""
    try:
        os.link(temporary, target, follow_symlinks=False)
    except FileExistsError:
        raise _exists(target) from None
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        _claim_and_replace(temporary, target)
    else:
        temporary.unlink()


def _claim_and_replace(temporary: Path, target: Path) -> None:
    """Claim the name with an empty file, then rename over our own claim."""
    try:
        os.close(os.open(target, _FLAGS, 0o600))
    except FileExistsError:
        raise _exists(target) from None
    try:
        temporary.replace(target)
    except OSError:
        target.unlink(missing_ok=True)
        raise
