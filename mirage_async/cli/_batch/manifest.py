"""The manifest: one line of JSON for each purchase of a batch, written as it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec

from mirage_async.cli._batch.folder import write_whole
from mirage_async.cli._exits import CommandError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["Manifest", "Record", "State"]

State: TypeAlias = Literal["done", "unsaved", "pending", "uncertain", "refused", "failed", "unbought"]
"""What became of a purchase.

- `done`: its pictures are in the folder.
- `unsaved`: it is paid for, and its pictures could not be fetched or saved; the next run tries again.
- `pending`: it is paid for, and the provider was not ready in time; the next run goes on waiting.
- `uncertain`: nobody knows whether it was bought.
- `refused`: it was not bought, and the next run tries again.
- `failed`: the provider failed at it, and it is not bought again unless that is asked for.
- `unbought`: its turn did not come.
"""

_PAID = frozenset({"done", "unsaved", "pending", "uncertain"})  # or maybe


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One purchase.

    Attributes:
        line: the number of its line, or None where there is no such line any more.
        part: which part of the line's request it is, from 1.
        parts: how many there are.
        key: of the purchase, in the journal.
        provider: the provider's name.
        model: the model that drew, or None.
        prompt: what was to be drawn.
        state: what became of it.
        files: the names of its pictures, in the folder of the manifest.
        requested: how many pictures it asked for.
        width: pixels of the first picture, or None.
        height: likewise.
        credits: what the provider says it charged, or None.
        job_id: the provider's id of the job, or None.
        seconds: from its purchase to the last byte of its pictures, or None.
        error: why there are no pictures, or None.
        billed: what is known about money: "yes", "no" or "unknown".
    """

    line: int | None
    part: int = 1
    parts: int = 1
    key: str
    provider: str
    model: str | None = None
    prompt: str
    state: State
    files: tuple[str, ...] = ()
    requested: int = 1
    width: int | None = None
    height: int | None = None
    credits: float | None = None
    job_id: str | None = None
    seconds: float | None = None
    error: str | None = None
    billed: str = "no"


class Manifest:
    """The file, and what is in it.

    Args:
        path: of the file; it need not exist.

    Raises:
        CommandError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.records: dict[str, Record] = {}
        for line in _lines_in(path):
            try:
                record = msgspec.json.decode(line, type=Record)
            except msgspec.MsgspecError:  # the last one, where its process was killed as it wrote
                continue
            self.records[record.key] = record

    def begin(self) -> None:
        """Write what is known, so that what is added begins on a line of its own.

        Raises:
            CommandError: the file cannot be written.
        """
        self._write(self.records.values())

    def add(self, record: Record) -> None:
        """Append a record, in place of an earlier one of its key.

        Raises:
            OSError: the file cannot be written.
        """
        self.records[record.key] = record
        with self._path.open("ab") as file:
            file.write(msgspec.json.encode(record) + b"\n")

    def finish(self, records: Iterable[Record]) -> list[Record]:
        """Write the file anew in the order of `records`, and behind them what has no line any more; return them all.

        Raises:
            CommandError: the file cannot be written.
        """
        ordered = {record.key: record for record in records}
        others = [
            msgspec.structs.replace(record, line=None)
            for key, record in self.records.items()
            if key not in ordered and record.state in _PAID
        ]
        self.records = {record.key: record for record in (*ordered.values(), *others)}
        self._write(self.records.values())
        return list(self.records.values())

    def _write(self, records: Iterable[Record]) -> None:
        write_whole(self._path, b"".join(msgspec.json.encode(record) + b"\n" for record in records))


def _lines_in(path: Path) -> list[bytes]:
    try:
        return path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise CommandError(f"cannot read {str(path)!r}: {error.strerror or error}") from None
