"""Showing how a batch goes: a bar on a terminal, a line for each purchase elsewhere. All on stderr."""

from __future__ import annotations

import sys
import time
from collections import Counter
from contextlib import contextmanager
from textwrap import shorten
from typing import TYPE_CHECKING

from rich.console import Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from mirage_async.cli._bars import Bars
from mirage_async.cli._lines import counted, one_line
from mirage_async.cli._streams import write_stderr

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from rich.console import Console, ConsoleOptions, RenderResult

    from mirage_async.cli._batch.record import Record

__all__ = ["Tally", "displayed"]

_FRAMES_PER_SECOND = 8
_LONGEST_PROMPT = 60  # characters
_MINUTE, _HOUR = 60, 3600  # seconds
_SLOWEST = 10  # a minute; from there on a fraction says nothing


class Tally:
    """How far a batch is.

    Args:
        total: purchases in all.
        over: how many of them needed nothing from this run.
        flying: returns how many are under way.

    Attributes:
        states: how many of this run ended in each state of the manifest.
        pictures: saved by this run.
        spent: credits this run is known to have spent, by provider.
        collected: likewise what earlier runs have spent on pictures of which this run has heard.
        silent: providers this run has pictures of that did not say what they took.
        stopping: whether nothing more is bought.
    """

    def __init__(self, total: int, over: int, flying: Callable[[], int] = lambda: 0) -> None:
        self.total = total
        self.over = over
        self.flying = flying
        self.states: Counter[str] = Counter()
        self.pictures = 0
        self.spent: Counter[str] = Counter()
        self.collected: Counter[str] = Counter()
        self.silent: set[str] = set()
        self.stopping = False
        self.began = time.monotonic()

    def count(self, record: Record, *, ours: bool = True) -> None:
        """Count a purchase that has ended, made by this run or by an earlier one."""
        self.states[record.state] += 1
        self.pictures += len(record.files)
        if record.credits is not None:
            spent = self.spent if ours else self.collected
            spent[record.provider] += record.credits  # type: ignore[assignment]  # a counter adds up any numbers
        elif ours and record.files:
            self.silent.add(record.provider)

    @property
    def ended(self) -> int:
        """How many are over, those of earlier runs included."""
        return self.over + self.states.total()

    @property
    def money(self) -> str | None:
        """What this run is known to have spent, and who does not say; None where nobody does."""
        if not self.spent:
            return None
        silent = self.silent - self.spent.keys()
        who = f" ({', '.join(sorted(self.spent))}; the others do not say)" if silent else ""
        return f"{counted(sum(self.spent.values()), 'credit')}{who}"

    def words(self) -> list[str]:
        """Say what went wrong, how long it will take, what is under way, how fast it goes and what it has cost.

        What matters most comes first: a narrow terminal cuts off the end.
        """
        flying, states = self.flying(), self.states
        elapsed = time.monotonic() - self.began
        rate = states.total() / elapsed if elapsed > 0 and self.ended < self.total else 0.0
        words = [f"{states[name]} {name}" for name in sorted(states) if name not in {"done", "unbought"}]
        if self.stopping and self.ended < self.total:
            words.append("stopping")
        elif rate:
            words.append(f"{_duration((self.total - self.ended) / rate)} left")
        words += [f"{flying} in flight"] if flying else []
        words += [_rate(rate * _MINUTE)] if rate else []
        words += [self.money] if self.money else []
        words.append(counted(self.pictures, "picture"))
        return words


def _rate(per_minute: float) -> str:
    if per_minute < 1:
        return f"{per_minute * _MINUTE:.1f} an hour"
    return f"{per_minute:.0f} a minute" if per_minute >= _SLOWEST else f"{per_minute:.1f} a minute"


def _duration(seconds: float) -> str:
    whole = int(seconds + 0.5)
    if whole < _HOUR:
        return f"{whole // _MINUTE}:{whole % _MINUTE:02d}"
    return f"{whole // _HOUR}:{whole % _HOUR // _MINUTE:02d} h"


class _Frame:
    """The tally as it looks right now: two lines."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        tally = self._tally
        share = tally.ended / tally.total if tally.total else 1.0
        bad = tally.states.total() > tally.states["done"] + tally.states["unbought"]
        table = Table.grid(expand=True, padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True)
        table.add_column(ratio=1)
        table.add_column(no_wrap=True, width=4, justify="right")
        bar = ProgressBar(
            total=max(tally.total, 1),
            completed=tally.ended,
            complete_style="yellow" if bad else "cyan",
            finished_style="yellow" if bad else "green",
            style="bright_black",
        )
        table.add_row(Text(f"{tally.ended} of {tally.total}", "bold"), bar, Text(f"{share:.0%}", "dim"))
        yield Group(table, Text(" · ".join(tally.words()), "dim", no_wrap=True, overflow="ellipsis"))


@contextmanager
def displayed(tally: Tally, *, quiet: bool) -> Generator[Callable[[Record], None]]:
    """Show a tally until the block ends, and yield what is to be called with each purchase that ends.

    A bar is for a terminal that can redraw; with logging on it would only be torn apart. What is no terminal may be a
    log, which no prompt is to stand in.
    """
    bars = Bars()
    if quiet:
        yield lambda _: None
    elif bars.possible:
        with bars.drawn(_Frame(tally), a_second=_FRAMES_PER_SECOND):
            yield lambda _: None
    else:
        yield lambda record: _write_line(tally, record)


def _write_line(tally: Tally, record: Record) -> None:
    if record.state != "unbought":
        counted = f"{tally.ended}/{tally.total}"
        what = shorten(one_line(record.prompt), _LONGEST_PROMPT) if sys.stderr.isatty() else f"key {record.key}"
        write_stderr(f"{counted:>9}  {record.provider:<8} {record.state:<9}  {record.title}: {what}\n")
