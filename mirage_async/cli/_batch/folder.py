"""The folder of a batch: pictures, a manifest and a page for people, and `.mirage` for the next run.

What is under `.mirage` is what makes a second run buy nothing twice: `journal` knows what was paid for, and
`batch.json` which batch this is. Whoever removes it gets a new batch, so that is refused while the manifest is there.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from typing import TYPE_CHECKING

import msgspec

from mirage_async._disk import Hold, flush_folder
from mirage_async._saving import remove_left_behind
from mirage_async.cli._batch.page import MARK
from mirage_async.cli._exits import CommandError, ExitCode
from mirage_async.cli._lines import counted
from mirage_async.cli._writable import check_writable
from mirage_async.journal import journal_entries, journal_files

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable
    from pathlib import Path

    from mirage_async.cli._batch.items import Purchase
    from mirage_async.journal import Entry, Journal

__all__ = ["Batch", "BatchFolder", "held_folder", "write_whole"]

_VERSION = 1
_HEAD = 4096  # characters in which a page of ours shows its mark


class Batch(msgspec.Struct, kw_only=True):
    """What `batch.json` says.

    Attributes:
        version: of this format.
        id: a random text that makes the keys of this batch its own.
        sandbox: whether the pictures are a sandbox's.
        lines: by key, the number of the line a purchase was first seen in; the names of its files begin with it.
    """

    version: int = _VERSION
    id: str = msgspec.field(default_factory=lambda: secrets.token_hex(16))
    sandbox: bool = False
    lines: dict[str, int] = msgspec.field(default_factory=dict[str, int])


class BatchFolder:
    """The files of a batch, held so that no other command works on them.

    Args:
        path: the folder.
        batch: what its `batch.json` says.
        hold: what keeps other commands from it; None where nothing does.
    """

    def __init__(self, path: Path, batch: Batch, hold: Hold | None = None) -> None:
        self.path = path
        self.batch = batch
        self._hold = hold

    @property
    def journal(self) -> Path:
        """Where the journal is."""
        return _state(self.path) / "journal"

    @property
    def manifest(self) -> Path:
        """Where the manifest is."""
        return self.path / "results.jsonl"

    @property
    def page(self) -> Path:
        """Where the page is."""
        return self.path / "index.html"

    def stem(self, key: str, purchase: Purchase) -> str:
        """Return the name, without suffix, of the first picture of a purchase: the same whenever it is saved."""
        digits = len(str(purchase.parts))
        part = f"part{purchase.part:0{digits}d}-" if purchase.parts > 1 else ""
        return f"{self.batch.lines[key]:04d}-{part}{key[:8]}"

    def remember(self, keys: Iterable[tuple[str, Purchase]]) -> None:
        """Note in which line each purchase was first seen.

        Raises:
            CommandError: the file cannot be written.
        """
        for key, purchase in keys:
            self.batch.lines.setdefault(key, purchase.number)
        write_whole(_state(self.path) / "batch.json", msgspec.json.encode(self.batch))

    @property
    def lost(self) -> bool:
        """Whether the folder, or its journal, is not the one that this run has begun with."""
        return not (self._hold is None or self._hold.in_place) or not journal_files(self.journal)

    @property
    def removed(self) -> bool:
        """Whether it is lost for good, and not just moved, or taken off with its disk."""
        return self.lost and (self._hold is None or self._hold.in_place or self._hold.removed)

    def check(self) -> None:
        """Make sure that what is saved becomes part of the batch, and not of a folder that happens to have its name.

        Raises:
            OSError: the folder is lost.
        """
        if self.lost:
            raise FileNotFoundError(errno.ENOENT, "no such folder")

    def reason(self, error: OSError) -> str:
        """Say why a file could not be written."""
        if self.lost:
            return f"{str(self.path)!r} was removed or moved in the middle of the run"
        return error.strerror or str(error)

    async def put_back(self, journal: Journal) -> None:
        """Make the folder again after it was removed, with all that the next run goes by.

        Raises:
            CommandError: it cannot be made, or another command has been quicker.
            JournalError: likewise.
        """
        if self._hold is not None and not self._hold.in_place:
            self._hold.release()
            self._hold = _held(self.path)  # before anything is put into what may be another command's by now
        await journal.put_back()
        self.remember(())

    def release(self) -> None:
        """Let other commands have it."""
        if self._hold is not None:
            self._hold.release()

    def forget_journal(self) -> None:
        """Remove the journal of a sandbox that has ended."""
        shutil.rmtree(self.journal, ignore_errors=True)

    def entries(self) -> list[Entry]:
        """Return what the journal knows; raises `JournalError` where it cannot be read."""
        return journal_entries(self.journal)

    def check_journal(self) -> None:
        """Make sure, before a new journal is begun, that the one of earlier runs is there.

        Raises:
            CommandError: it is gone.
        """
        if self.batch.lines and not journal_files(self.journal):
            raise CommandError(
                f"{str(self.path)!r} holds a batch whose journal, {str(self.journal)!r}, is gone, so nobody knows what "
                "was bought: put it back, or name another folder with -o"
            )

    def check_alone(self) -> None:
        """Make sure that all of the journal is in our own hands, once what the dead have left is taken over.

        Raises:
            CommandError: another program works with it.
        """
        if len(journal_files(self.journal)) > 1:
            raise CommandError(f"another program works with {str(self.journal)!r}: end it first")


def _state(folder: Path) -> Path:
    return folder / ".mirage"


@contextlib.contextmanager
def held_folder(path: Path, *, sandbox: bool) -> Generator[BatchFolder, None, None]:
    """Make the folder where it is missing, and hold it.

    Args:
        path: the folder.
        sandbox: whether a sandbox is to draw.

    Raises:
        CommandError: it cannot be written to, another command holds it, or what is in it does not fit.
        JournalError: it has a journal that cannot be read, and nothing that says whose.
    """
    check_writable(path)
    page = path / "index.html"
    if os.path.lexists(page) and not _is_ours(page):
        raise CommandError(f"{str(page)!r} exists and is not from a batch: name another folder with -o")
    folder = BatchFolder(path, Batch(), _held(path))
    try:
        folder.batch = _batch_in(path, sandbox=sandbox)
        remove_left_behind(path)  # by runs that were killed in the middle of a download
        yield folder
    finally:
        folder.release()


def _held(path: Path) -> Hold:
    state = _state(path)
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        hold = Hold.take(state / "batch.lock")
    except OSError as error:
        raise CommandError(f"cannot hold {str(path)!r}: {error.strerror or error}") from None
    if hold is None:
        raise CommandError(f"another command{_process_in(state)} works on {str(path)!r}: let it end, or end it")
    return hold


def _process_in(state: Path) -> str:
    with contextlib.suppress(OSError, ValueError):
        return f" (process {int((state / 'batch.lock').read_text('ascii'))})"
    return ""


def _batch_in(folder: Path, *, sandbox: bool) -> Batch:
    file = _state(folder) / "batch.json"
    try:
        batch = msgspec.json.decode(file.read_bytes(), type=Batch)
    except FileNotFoundError:
        if (folder / "results.jsonl").exists():
            raise CommandError(
                f"{str(folder)!r} holds the results of a batch whose {str(file)!r} is gone, so nobody knows what was "
                "bought: name another folder with -o"
            ) from None
        _check_unused(_state(folder) / "journal")
        return Batch(sandbox=sandbox)
    except (OSError, msgspec.MsgspecError) as error:
        raise CommandError(f"cannot read {str(file)!r}: {error}") from None
    if batch.version > _VERSION:
        raise CommandError(f"{str(file)!r} was written by a newer version of this command (format {batch.version})")
    if batch.sandbox is not sandbox:
        whose = "a sandbox's pictures" if batch.sandbox else "pictures that no sandbox has drawn"
        raise CommandError(f"{str(folder)!r} holds {whose}: name another folder with -o")
    return batch


def _check_unused(journal: Path) -> None:
    """Refuse a journal with purchases of a batch that is not known any more: all of them would be made again."""
    if journal_files(journal) and (known := journal_entries(journal)):
        raise CommandError(
            f"{str(journal)!r} knows of {counted(len(known), 'purchase')}, but the batch.json they belong to is gone: "
            "put it back, or name another folder with -o"
        )


def _is_ours(page: Path) -> bool:
    try:
        with page.open(encoding="utf-8", errors="replace") as file:
            return MARK in file.read(_HEAD)
    except OSError:
        return False


def write_whole(path: Path, data: bytes) -> None:
    """Put a file in its place in one step, on the disk before the old one is gone, and there to stay.

    Raises:
        CommandError: it cannot be written.
    """
    draft = path.with_name(f".{path.name}.part")
    try:
        with draft.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        flush_folder(path.parent)
    except OSError as error:
        message = f"cannot write {str(path)!r}: {error.strerror or error}"
        raise CommandError(message, code=ExitCode.FAILURE) from None
