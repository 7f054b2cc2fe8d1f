"""What `jobs list` and `jobs show` do: read a journal, and show its entries to people and to programs."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from mirage_async.cli._exits import CommandError, ExitCode
from mirage_async.cli._jobs_records import (
    advice,
    age,
    entry_record,
    found,
    is_open,
    readable_in,
    short_keys,
    state_words,
)
from mirage_async.cli._lines import one_line, tell, warn
from mirage_async.cli._record import write_json
from mirage_async.journal import EntryState

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from mirage_async.journal import Entry, StoredImage

__all__ = ["list_all", "show"]

_HEADINGS = ("KEY", "PROVIDER", "KIND", "STATE", "ID", "AGE", "ATTEMPTS")
_STATE = _HEADINGS.index("STATE")
_STYLES = {
    "intended": "yellow",
    "accepted": "cyan",
    "uncertain": "bold red",
    "succeeded": "green",
    "failed": "red",
    "expired": "red",
    "cancelled": "red",
}


def list_all(folder: Path, *, every: bool, as_json: bool) -> ExitCode:
    """Print the entries of a journal, and tell what can be done about the open ones.

    Returns:
        `FAILURE` where not all of the journal can be read.

    Raises:
        CommandError: there is no journal.
    """
    known, warnings = readable_in(folder)
    shown = known if every else [entry for entry in known if is_open(entry)]
    if not shown:
        over = f", {len(known)} are over (--all lists them)" if known else ""
        tell(f"no purchase is open{' of those that can be read' if warnings else ''}{over}")
    elif as_json:
        for entry in shown:
            write_json(entry_record(entry))
    elif sys.stdout.isatty():
        _print_table(shown, short_keys(known))
    else:
        sys.stdout.writelines("\t".join(_fields(entry)) + "\n" for entry in shown)
    sys.stdout.flush()
    for line in advice(folder, filter(is_open, shown)):
        tell(line, whole=True)
    for line in warnings:
        warn(line, whole=True)
    return ExitCode.FAILURE if warnings else ExitCode.DONE


def show(folder: Path, key: str, *, as_json: bool) -> ExitCode:
    """Print all that is on record about one purchase.

    Returns:
        `FAILURE` where not all of the journal can be read.

    Raises:
        CommandError: there is no journal, or no such entry in it.
    """
    known, warnings = readable_in(folder)
    for line in warnings:
        warn(line, whole=True)
    try:
        entry = found(known, key)
    except CommandError as error:
        if not warnings:
            raise
        tell(f"error: {error}")
        return ExitCode.FAILURE
    if as_json:
        write_json(entry_record(entry))
    else:
        sys.stdout.writelines(f"{label:<10}  {one_line(value)}\n" for label, value in _lines_of(folder, entry))
    sys.stdout.flush()
    if is_open(entry) and not as_json:
        for line in advice(folder, (entry,)):
            tell(line, whole=True)
    return ExitCode.FAILURE if warnings else ExitCode.DONE


def _fields(entry: Entry) -> tuple[str, ...]:
    """Return what a program reads of an entry: nothing is cut short or rounded into words."""
    spent = max(time.time() - entry.intended_at, 0.0)
    parts = (entry.key, entry.provider, entry.kind, entry.state.value, entry.id or "", f"{spent:.0f}", entry.attempts)
    return tuple(one_line(str(part)) for part in parts)


def _lines_of(folder: Path, entry: Entry) -> Iterator[tuple[str, str]]:
    """Yield what there is to say, as pairs of label and text."""
    kind = f"{entry.kind}, answered with the pictures" if entry.blocking else entry.kind
    yield "key", entry.key
    yield "state", state_words(entry)
    yield "provider", entry.provider
    yield "account", f"{entry.account} (an alias of the address and the API key)"
    yield "kind", f"{kind}, called back" if entry.announced else kind
    yield "id", entry.id or "-"
    yield "model", entry.model or "-"
    yield "requested", str(entry.requested)
    doubt = f", {entry.doubtful} of them with an end nobody knows" if entry.doubtful else ""
    yield "attempts", f"{entry.attempts}{doubt}"
    yield "sent", f"{_moment(entry.intended_at)} ({age(entry)} ago)"
    yield "wait until", _moment(entry.deadline)
    yield "written", _moment(entry.updated_at)
    yield "collected", "yes" if entry.handed_over else "no"
    yield "request", f"SHA-256 {entry.digest}"
    if entry.outcome is None:
        return
    if entry.outcome.error is not None and (
        entry.settled or entry.state is EntryState.UNCERTAIN
    ):  # else it is settled by hand
        yield "error", f"{entry.outcome.error.kind}: {entry.outcome.error.message}"
    if entry.outcome.avatar is not None:
        yield "avatar", f"{entry.outcome.avatar.id} {entry.outcome.avatar.status}"
    for image in entry.outcome.images:
        yield "picture", _picture(folder, image)
    if entry.outcome.credits is not None:
        yield "credits", f"{entry.outcome.credits:g}"
    yield "polls", str(entry.outcome.polls)


def _picture(folder: Path, image: StoredImage) -> str:
    size = f"{image.width} x {image.height}" if image.width and image.height else None
    weight = None if image.size is None else f"{image.size} bytes"
    place = image.url if image.file is None else str(folder / "pictures" / image.file)
    return " ".join(part for part in (image.mime_type, size, weight, place or "at the provider") if part)


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _print_table(entries: Sequence[Entry], keys: dict[str, str]) -> None:
    """Print a table; it is as wide as it has to be, since an id that is cut is of no use."""
    rows: list[Sequence[str]] = [_HEADINGS, *(_columns(entry, keys) for entry in entries)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    console = Console(highlight=False)
    for index, row in enumerate(rows):
        styles = ["bold" if index == 0 else ""] * len(row)
        if index:
            styles[_STATE] = _STYLES.get(entries[index - 1].state.value, "")
        cells = [(f"{cell:<{width}}", style) for cell, width, style in zip(row, widths, styles, strict=True)]
        line = Text("  ").join(Text(*cell) for cell in cells)
        line.rstrip()
        console.print(line, soft_wrap=True)


def _columns(entry: Entry, keys: dict[str, str]) -> Sequence[str]:
    values = (entry.provider, entry.kind, state_words(entry), entry.id or "-", age(entry), str(entry.attempts))
    return (keys[entry.key], *map(one_line, values))
