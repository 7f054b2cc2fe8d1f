"""Telling what went wrong, line by line, without saying the same for each of them."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from mirage_async.cli._lines import tell

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from mirage_async.cli._batch.record import Record

__all__ = ["Troubles", "lines_in_words"]

_MOST = 20  # different ones told of


class Troubles:
    """What went wrong so far: the first of its kind is told at once, how many there are of it in the end.

    Args:
        manifest: where all of them can be read.
    """

    def __init__(self, manifest: Path) -> None:
        self._manifest = manifest
        self._lines: dict[str, list[int]] = {}

    def tell(self, record: Record) -> None:
        """Tell of a purchase that has brought no pictures, unless that was told of another one."""
        reason = (record.error or "no reason is known").replace(f" (key {record.key})", "")
        what = f"{record.state}: {reason}"
        known = what in self._lines
        self._lines.setdefault(what, []).append(record.line or 0)
        if known or len(self._lines) > _MOST + 1:
            return
        if len(self._lines) > _MOST:
            tell(f"further problems are in {str(self._manifest)!r}")
        else:
            tell(f"{record.title}: {what}")

    def sum_up(self) -> None:
        """Tell which lines have met the same."""
        for what, numbers in list(self._lines.items())[:_MOST]:
            if len(set(numbers)) > 1:
                tell(f"{lines_in_words(numbers)}: {what}")


def lines_in_words(numbers: Iterable[int]) -> str:
    """Return the numbers of lines as people write them: "line 3", "lines 1-4, 7"."""
    ordered = sorted(set(numbers))
    starts = [number for before, number in pairwise([ordered[0] - 2, *ordered]) if number != before + 1]
    ends = [number for number, after in pairwise([*ordered, ordered[-1] + 2]) if after != number + 1]
    spans = [f"{start}" if start == end else f"{start}-{end}" for start, end in zip(starts, ends, strict=True)]
    return f"{'line' if len(ordered) == 1 else 'lines'} {', '.join(spans)}"
