"""What `jobs resolve` does: write down what a person has found out about a purchase."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING

from mirage_async.cli._exits import ExitCode
from mirage_async.cli._jobs_records import entries_after_salvage, found
from mirage_async.cli._lines import command_line, tell
from mirage_async.journal import EntryState, Journal

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["settle"]


async def settle(folder: Path, key: str, *, job_id: str | None, not_bought: bool) -> ExitCode:
    """Settle a purchase and print its key and state; with neither an id nor `not_bought` it is given up.

    Raises:
        CommandError: there is no such purchase.
        InputError: its end is known, the id cannot be one, or a program that still runs works on it.
        JournalError: the journal cannot be read or written.
    """
    entry = found(await entries_after_salvage(folder), key)
    journal = Journal(folder, retention=math.inf)  # what is over is for its owner to forget
    try:
        settled = await journal.resolve(entry.key, id=job_id, unpaid=not_bought)
    finally:
        await journal.aclose()
    sys.stdout.write(f"{settled.key}\t{settled.state.value}\n")
    sys.stdout.flush()
    if settled.state is EntryState.ACCEPTED:
        again = f"mirage-async jobs wait --journal {command_line(str(folder))} {settled.key} -o DIR"
        tell(f"to collect it: {again} (or run the program or the batch it belongs to again)", whole=True)
    return ExitCode.DONE
