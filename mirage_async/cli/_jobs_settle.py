"""What `jobs resolve` does: write down what a person has found out about a purchase."""

from __future__ import annotations

import math
import shlex
import sys
from typing import TYPE_CHECKING

from mirage_async.cli._exits import CommandError, ExitCode
from mirage_async.cli._jobs_records import entries_in, found
from mirage_async.cli._lines import tell
from mirage_async.journal import EntryState, Journal
from mirage_async.wire import passed_id

if TYPE_CHECKING:
    from pathlib import Path

    from mirage_async.journal import Entry

__all__ = ["settle"]


async def settle(folder: Path, key: str, *, job_id: str | None, not_bought: bool) -> ExitCode:
    """Settle a purchase and print its key and state; with neither an id nor `not_bought` it is given up.

    Raises:
        CommandError: there is no such purchase, or a program that still runs holds it.
        InputError: its end is known.
        JournalError: the journal cannot be read or written.
    """
    entry = found(entries_in(folder), key)
    if job_id is not None:
        _check_id(entry, job_id)
    journal = Journal(folder, retention=math.inf)  # what is over is for its owner to forget
    try:
        if await journal.entry(entry.key) is None:
            raise CommandError(f"{entry.key} belongs to a program that still works with this journal: end it first")
        settled = await journal.resolve(entry.key, id=job_id, unpaid=not_bought)
    finally:
        await journal.aclose()
    sys.stdout.write(f"{settled.key}\t{settled.state.value}\n")
    sys.stdout.flush()
    if settled.state is EntryState.ACCEPTED:
        again = f"mirage-async jobs wait --journal {shlex.quote(str(folder))} {settled.key} -o DIR"
        tell(f"to collect it: {again} (or run the program or the batch it belongs to again)")
    return ExitCode.DONE


def _check_id(entry: Entry, job_id: str) -> None:
    passed_id("--id", job_id, provider=entry.provider)
    if entry.blocking:
        raise CommandError(
            f"{entry.provider} answers with the pictures themselves, which cannot be asked for by an id; got {job_id!r}"
        )
