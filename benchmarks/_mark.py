"""Figures that have to stay on one side of a bound."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Mark"]


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A figure with its bound."""

    name: str
    figure: float
    bound: float
    at_least: bool = False

    @property
    def met(self) -> bool:
        """Whether the figure is as good as its bound."""
        return self.figure >= self.bound if self.at_least else self.figure <= self.bound
