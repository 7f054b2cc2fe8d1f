"""Standard streams that may fail at any moment: a full disk, a reader that has left, letters they have no code for.

None of that may cost a purchase.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import select
import sys
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from typing import TextIO

__all__ = [
    "EnduringStderr",
    "bear_all_letters",
    "divert_stderr",
    "fit_for_stdout",
    "silence_unless_read",
    "write_stderr",
]


class _Diversion(NamedTuple):
    write: Callable[[str], object]
    behind: Callable[[], bool]


_diverted: list[_Diversion] = []


def bear_all_letters() -> None:
    """Have stdout and stderr escape the letters they have no code for, instead of failing at them."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def fit_for_stdout(text: str) -> str:
    """Return JSON that stdout can take: what it has no code for is escaped in the way of JSON."""
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return "".join(letter if letter.isascii() else json.dumps(letter)[1:-1] for letter in text)
    return text


def write_stderr(text: str) -> None:
    """Write to stderr, whatever it is at this moment: a progress display may have replaced it. Never fails."""
    if _diverted:
        _diverted[-1].write(text)
    else:
        _write(sys.stderr, text)


@contextlib.contextmanager
def divert_stderr(write: Callable[[str], object], behind: Callable[[], bool] = lambda: False) -> Generator[None]:
    """Have another one write to stderr until the block ends.

    Args:
        write: does so.
        behind: whether it has not written all of it yet.
    """
    diversion = _Diversion(write, behind)
    _diverted.append(diversion)
    try:
        yield
    finally:
        _diverted.remove(diversion)


class EnduringStderr:
    """Stderr as a file that never fails, for a progress display to draw on; written to as `write_stderr` does now.

    Attributes:
        behind: returns whether something is still to be written.
    """

    def __init__(self) -> None:
        self._stream = sys.stderr
        direct = _Diversion(partial(_write, self._stream), lambda: False)
        self._write, self.behind = _diverted[-1] if _diverted else direct

    def write(self, text: str) -> int:
        """Write, or have it written."""
        self._write(text)
        return len(text)

    def flush(self) -> None:
        """Do nothing: all is written through."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _write(stream: TextIO, text: str) -> None:
    try:
        stream.write(text)
        stream.flush()
    except (OSError, ValueError):
        _silence(stream)


def silence_unless_read(stream: TextIO, seconds: float) -> None:
    """Send a stream nowhere from now on if nobody reads it in so many seconds: writing would take for ever."""
    with contextlib.suppress(OSError, ValueError):  # it is no file, or the system cannot tell
        if not select.select([], [stream.fileno()], [], seconds)[1]:
            _silence(stream)


def _silence(stream: TextIO) -> None:
    """Send a stream nowhere from now on, what is still in its buffer included."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, stream.fileno())
        finally:
            os.close(nowhere)
