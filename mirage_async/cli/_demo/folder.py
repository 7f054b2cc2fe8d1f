"""The demo's folder: what may be overwritten in it and what may not."""

from __future__ import annotations

import os
from pathlib import Path

from mirage_async.cli._demo.page import MARK
from mirage_async.cli._exits import CommandError
from mirage_async.cli._writable import check_writable

__all__ = ["PAGE", "prepare", "write_page"]

PAGE = "index.html"
_HEAD = 4096  # characters in which a page of ours shows its mark


def prepare(text: str) -> Path:
    """Check a folder and make it; pictures of an earlier demo may be overwritten, a foreign page never.

    Raises:
        CommandError: it cannot be written to, is no folder, or holds a page that no demo has made.
    """
    folder = Path(text)
    check_writable(folder)
    page = folder / PAGE
    if os.path.lexists(page) and not _is_ours(page):
        raise CommandError(f"{str(page)!r} exists and is not from an earlier demo: name another folder with -o")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(f"cannot make {str(folder)!r}: {error.strerror or error}") from None
    return folder


def write_page(folder: Path, text: str) -> Path:
    """Put the page into the folder in one step and return its path."""
    draft = folder / ".mirage-page.part"
    draft.write_text(text, encoding="utf-8")
    return draft.replace(folder / PAGE)


def _is_ours(page: Path) -> bool:
    try:
        with page.open(encoding="utf-8", errors="replace") as file:
            return MARK in file.read(_HEAD)
    except OSError:
        return False
