"""The command in a process that is to be killed, which notes what it has on the wire: run as `python noted_command.py`.

A note is in the system's hands as soon as it is written, so it outlives a `kill -9`. The product is not touched: the
methods of its journal are wrapped, and each purchase is noted before its intent, and again once an answer is on disk.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING, Any

from mirage_async.__main__ import main
from mirage_async.journal import Journal

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from pathlib import Path

__all__ = ["on_the_wire"]

_ANSWERS = ("accepted", "settled", "withdrawn")


def on_the_wire(notes: Path) -> set[str]:
    """Return the keys of the purchases that were begun, and whose answer was not on disk when the process ended."""
    found: set[str] = set()
    if notes.exists():  # or the command was killed before it had come to buying
        for line in notes.read_text("ascii").splitlines():
            what, key = line.split()
            if what == "begun":
                found.add(key)
            else:
                found.discard(key)
    return found


def _watch(path: str) -> None:
    notes = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    intended = Journal.intended

    def intend(self: Journal, job: Any, intent: Any) -> Awaitable[None]:
        os.write(notes, f"begun {job.key}\n".encode())
        return intended(self, job, intent)

    Journal.intended = intend  # type: ignore[method-assign]
    for name in _ANSWERS:
        _watch_answer(notes, name)


def _watch_answer(notes: int, name: str) -> None:
    original = getattr(Journal, name)

    def record(self: Journal, job: Any, *facts: Any) -> Awaitable[None]:
        written = original(self, job, *facts)

        async def noted() -> None:
            await written
            os.write(notes, f"{name} {job.key}\n".encode())

        return noted()

    setattr(Journal, name, record)


def _forget(self: Journal, job: Any) -> Awaitable[None]:
    """Stand in for `Journal.accepted`, and write down nothing: every job in flight is in doubt after a kill."""
    self._sending.discard(job.key)
    return asyncio.sleep(0)


if __name__ == "__main__":
    _, _notes, _sabotaged, *_words = sys.argv
    if _sabotaged == "sabotaged":
        Journal.accepted = _forget  # type: ignore[method-assign]
    _watch(_notes)
    sys.argv = ["mirage-async", *_words]
    main()
