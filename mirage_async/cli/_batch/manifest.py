"""The manifest: one line of JSON for each purchase of a batch, written as it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from mirage_async.cli._batch.folder import write_whole
from mirage_async.cli._batch.record import Record
from mirage_async.cli._exits import CommandError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["Manifest"]

_PAID = frozenset({"done", "unsaved", "pending", "uncertain"})  # or maybe


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
