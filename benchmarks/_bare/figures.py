"""Repeated figures, marks and tables, as all benchmarks against the bare server report them."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Mark", "Spread", "spread", "table"]


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Median, lowest and highest of some repeats."""

    median: float
    low: float
    high: float

    def __mul__(self, factor: float) -> Spread:
        return Spread(median=self.median * factor, low=self.low * factor, high=self.high * factor)

    def __format__(self, digits: str) -> str:
        """Write all three, each in the way that is asked for."""
        return f"{self.median:{digits}} [{self.low:{digits}}-{self.high:{digits}}]"


@dataclass(frozen=True)
class Mark:
    """A figure that must not be above a bound."""

    name: str
    figure: float
    bound: float

    @property
    def met(self) -> bool:
        """Whether it is not."""
        return self.figure <= self.bound

    @property
    def verdict(self) -> str:
        """The same in a word."""
        return "met" if self.met else "MISSED"


def spread(values: Sequence[float]) -> Spread:
    """Sum up some repeats."""
    return Spread(median=statistics.median(values), low=min(values), high=max(values))


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
