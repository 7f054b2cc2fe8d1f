"""Entries of a journal as the command line finds, counts and words them."""

from __future__ import annotations

import math
import sqlite3
import time
from typing import TYPE_CHECKING, Any

import msgspec

from mirage_async.cli._exits import CommandError
from mirage_async.cli._lines import command_line
from mirage_async.exceptions import JournalError
from mirage_async.journal import Entry, EntryState, Journal, journal_entries
from mirage_async.journal._reading import readable_entries

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

__all__ = [
    "advice",
    "age",
    "entries_after_salvage",
    "entries_in",
    "entry_record",
    "found",
    "is_open",
    "readable_in",
    "settling",
    "short_keys",
    "state_words",
]

_SHORTEST = 12  # digits of a key: of one made here, eight are the second it was made in
_UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))


def entries_in(folder: Path) -> list[Entry]:
    """Return all entries of a journal, the oldest first, without disturbing whoever writes there.

    Raises:
        CommandError: there is none.
        JournalError: it cannot be read.
    """
    try:
        return journal_entries(folder)
    except JournalError as error:
        if error.__cause__ is not None:
            raise
        raise CommandError(str(error)) from None


def readable_in(folder: Path) -> tuple[list[Entry], list[str]]:
    """Return the entries of a journal that can be read, and a warning for each file or entry that cannot.

    Raises:
        CommandError: there is no journal.
    """
    try:
        entries, damaged = readable_entries(folder)
    except JournalError as error:
        raise CommandError(str(error)) from None
    return entries, [_warning(folder, error) for error in damaged]


def _warning(folder: Path, error: JournalError) -> str:
    if not isinstance(error.__cause__, sqlite3.Error):  # one of a newer version, or one entry
        return str(error)
    return (
        f"{error}; its purchases are not shown. Once no program uses it, this takes over what can be read of "
        f"it: {command_line('mirage-async', 'jobs', 'wait', '--journal', str(folder))}"
    )


async def entries_after_salvage(folder: Path) -> list[Entry]:
    """Return all entries of a journal, whose damaged files are taken over before, as far as nobody uses them.

    Raises:
        CommandError: there is no journal.
        JournalError: it cannot be read even so.
    """
    if readable_in(folder)[1]:
        journal = Journal(folder, retention=math.inf)  # what is over is for its owner to forget
        try:
            await journal.owed()
        finally:
            await journal.aclose()
    return entries_in(folder)


def found(entries: Iterable[Entry], key: str) -> Entry:
    """Return the entry whose key begins with `key`.

    Raises:
        CommandError: there is none, or more than one.
    """
    matching = [entry for entry in entries if entry.key.startswith(key.lower())] if key else []
    if len(matching) == 1:
        return matching[0]
    if not matching:
        raise CommandError(f"there is no purchase with the key {key!r} in this journal")
    raise CommandError(f"{len(matching)} purchases have a key that begins with {key!r}: give more digits of it")


def short_keys(entries: Sequence[Entry]) -> dict[str, str]:
    """Return by key as many of its first digits as tell all of them apart, at least twelve."""
    digits = _SHORTEST
    while len({entry.key[:digits] for entry in entries}) < len(entries):
        digits += 1
    return {entry.key: entry.key[:digits] for entry in entries}


def is_open(entry: Entry) -> bool:
    """Whether its end is unknown, or what came of it has reached nobody yet."""
    return entry.owed or entry.state is EntryState.UNCERTAIN


def state_words(entry: Entry) -> str:
    """Return the state, and whether the result still waits to be collected."""
    return f"{entry.state.value}, not collected" if entry.settled and not entry.handed_over else entry.state.value


def age(entry: Entry) -> str:
    """Return for how long it has been on its way, in its largest unit."""
    spent = max(time.time() - entry.intended_at, 0.0)
    unit, seconds = next(((unit, seconds) for unit, seconds in _UNITS if spent >= seconds), _UNITS[-1])
    return f"{int(spent // seconds)} {unit}"


def entry_record(entry: Entry) -> dict[str, Any]:
    """Return what `--json` says about an entry: all that is on record; moments are seconds since the epoch."""
    return {**msgspec.to_builtins(entry), "owed": entry.owed}


def advice(folder: Path, entries: Iterable[Entry]) -> list[str]:
    """Say, in lines, what can be done about the entries that are open."""
    place = command_line(str(folder))
    counts = dict.fromkeys(EntryState, 0)
    waiting = 0
    uncertain: list[Entry] = []
    for entry in entries:
        counts[entry.state] += 1
        uncertain += [entry] if entry.state is EntryState.UNCERTAIN else []
        waiting += (entry.owed and entry.settled) or entry.state is EntryState.ACCEPTED
    lines: list[str] = []
    if waiting:
        lines.append(f"{_purchases(waiting)} can be collected: mirage-async jobs wait --journal {place} -o DIR")
    if uncertain:
        lines.append(f"nobody knows what became of {_purchases(len(uncertain))}; {settling(folder, uncertain)}")
    if counts[EntryState.INTENDED]:
        lines.append(
            f"of {_purchases(counts[EntryState.INTENDED])} no answer is on record: they are being sent right now, or "
            f"the program that sent them has ended, and then this tells more: mirage-async jobs wait --journal {place}"
        )
    return lines


def settling(folder: Path, entries: Sequence[Entry]) -> str:
    """Say how purchases nobody knows the end of are settled."""
    blocking = [entry.blocking for entry in entries]
    ways = "--not-bought | --give-up" if all(blocking) else "--id ID | --not-bought | --give-up"
    but = "" if len(set(blocking)) == 1 else "; what is answered with the pictures has no ID"
    place = command_line(str(folder))
    return (
        f"look at the provider's dashboard, then settle it with: mirage-async jobs resolve --journal {place} KEY "
        f"({ways}{but})"
    )


def _purchases(count: int) -> str:
    return f"{count} purchase" if count == 1 else f"{count} purchases"
