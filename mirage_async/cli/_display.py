"""Showing a board: bars on a terminal, short lines or nothing elsewhere. All on stderr."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from mirage_async.cli._bars import Bars
from mirage_async.cli._board import Board
from mirage_async.cli._streams import write_stderr

if TYPE_CHECKING:
    from collections.abc import Generator

    from rich.console import Console, ConsoleOptions, RenderResult

    from mirage_async.cli._board import Row

__all__ = ["Frame", "displayed"]

_FRAMES_PER_SECOND = 12
_ENDED = ("done", "failed")
_STATE_STYLES = {"waiting": "dim", "running": "cyan", "saving": "cyan", "done": "green", "failed": "bold red"}
_BAR = 22  # columns of a bar
_ROOM_FOR_BAR = 64  # columns a terminal needs to have one
_BELOW = 2  # lines under the rows: the summary, and where the cursor rests


@contextmanager
def displayed(*, lines: bool, quiet: bool = False) -> Generator[Board, None, None]:
    """Make a board and show it until the block ends.

    Bars are for terminals that can redraw; with logging on they would only be torn apart.

    Args:
        lines: where there are no bars, write one line for each row that ends.
        quiet: show nothing at all.
    """
    bars = Bars()
    if bars.possible and not quiet:
        board = Board()
        with bars.drawn(Frame(board), a_second=_FRAMES_PER_SECOND):
            yield board
    else:
        yield Board(_write_line) if lines and not quiet else Board()


def _write_line(row: Row) -> None:
    reason = f": {row.reason}" if row.reason else ""
    write_stderr(f"{row.provider:<8} {row.state:<6} {_seconds(row.elapsed):>7}  {row.title}{reason}\n")


class Frame:
    """The board as it looks right now: a renderable of fixed columns, so that nothing jumps."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        rows = self._fitting(console.size.height - _BELOW)
        bars = options.max_width >= _ROOM_FOR_BAR
        table = Table.grid(expand=True, padding=(0, 2, 0, 0))
        table.add_column(width=max((len(row.provider) for row in self._board.rows), default=0), no_wrap=True)
        table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
        table.add_column(width=10, no_wrap=True)
        if bars:
            table.add_column(width=_BAR, no_wrap=True)
            table.add_column(width=4, no_wrap=True, justify="right")
        table.add_column(width=7, no_wrap=True, justify="right")
        for row in rows:
            middle = (_bar(row), _percent(row)) if bars else ()
            table.add_row(Text(row.provider, "bold"), _title(row), _state(row), *middle, Text(_seconds(row.elapsed)))
        yield Group(table, self._summary(len(rows)))

    def _fitting(self, most: int) -> list[Row]:
        """Return the rows that fit, in their order; where not all do, those that have not ended come first."""
        every = self._board.rows
        if len(every) <= most:
            return every
        chosen = set(sorted(range(len(every)), key=lambda index: every[index].state in _ENDED)[: max(most, 1)])
        return [row for index, row in enumerate(every) if index in chosen]

    def _summary(self, shown: int) -> Text:
        rows = self._board.rows
        done = sum(row.state == "done" for row in rows)
        failed = sum(row.state == "failed" for row in rows)
        words = [f"{done} of {len(rows)} done"]
        if failed:
            words.append(f"{failed} failed")
        if shown < len(rows):
            words.append(f"{len(rows) - shown} not shown")
        words.append(_seconds(self._spent()))
        return Text(" · ".join(words), "dim", no_wrap=True, overflow="ellipsis")

    def _spent(self) -> float:
        ends = [row.ended for row in self._board.rows]
        known = [end for end in ends if end is not None]
        return (max(known) if known and len(known) == len(ends) else time.monotonic()) - self._board.began


def _title(row: Row) -> Text:
    return Text(f"{row.title}: {row.reason}" if row.reason else row.title)


def _state(row: Row) -> Text:
    return Text(row.state, _STATE_STYLES.get(row.state, "yellow"))


def _bar(row: Row) -> ProgressBar:
    """Return a full bar for what has ended, a part of one where the share is known, else one that moves."""
    if row.state in _ENDED:
        style = "green" if row.state == "done" else "red"
        return ProgressBar(total=1, completed=1, width=_BAR, complete_style=style, finished_style=style)
    if row.progress is None and row.state not in {"waiting", "queued"}:
        return ProgressBar(total=None, pulse=True, width=_BAR, pulse_style="cyan", style="bright_black")
    return ProgressBar(total=1, completed=row.progress or 0, width=_BAR, complete_style="cyan", style="bright_black")


def _percent(row: Row) -> Text:
    known = row.progress is not None and row.state not in _ENDED
    return Text(f"{row.progress:4.0%}" if known else "", "dim")


def _seconds(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds:.1f} s" if seconds < 100 else f"{int(seconds) // 60}:{int(seconds) % 60:02d} m"  # noqa: PLR2004 - what fits into the column
