"""Finding out, before anything is bought, whether a folder can be written to."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING

from mirage_async.cli._exits import CommandError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["check_writable"]


def check_writable(folder: Path) -> None:
    """Try to make a file in a folder, or in the nearest one above it that exists; nothing stays behind.

    Asking for permissions would not do: they say nothing about a read-only or a virtual file system.

    Raises:
        CommandError: no file can be made there.
    """
    existing = folder
    while not os.path.lexists(existing) and existing != existing.parent:
        existing = existing.parent
    try:
        if not existing.is_dir():
            raise NotADirectoryError(0, "not a folder")
        with tempfile.NamedTemporaryFile(dir=existing, prefix=".mirage-", suffix=".part"):
            pass
    except OSError as error:
        where = "" if existing == folder else f" below {str(existing)!r}"
        raise CommandError(f"cannot write to {str(folder)!r}{where}: {error.strerror or error}") from None
