"""Bars that were exact for a hundred jobs and lie from then on: what believing them costs until they are found out."""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeAlias

from benchmarks._polling.laws import Law, lognormal
from benchmarks._polling.trials import average, fresh

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["LIARS", "Lie", "lies"]

_HONEST, _FIRST, _LYING = 100, 8, 40  # jobs
_LAW = Law("", "", lognormal(30, 0.5))
_PRICE = 20 / 30

Bill: TypeAlias = list[tuple[int, float]]


class Bar(Protocol):
    """What a job of a duration shows after so many seconds."""

    def __call__(self, elapsed: float, *, duration: float) -> float:
        """Return a share."""
        ...


def _exact(elapsed: float, *, duration: float) -> float:
    return elapsed / duration


def _backwards(elapsed: float, *, duration: float) -> float:
    return 1 - elapsed / duration


def _half(elapsed: float, *, duration: float) -> float:
    return 0.5 * elapsed / duration


def _twice(elapsed: float, *, duration: float) -> float:
    return min(1.0, 2 * elapsed / duration)


def _sawtooth(elapsed: float, *, duration: float) -> float:
    return 7 * elapsed / duration % 1


def _fallen(elapsed: float, *, duration: float) -> float:
    return share if (share := elapsed / duration) < 0.6 else 0.06  # noqa: PLR2004 - the shares in its name


def _stuck(share: float) -> Bar:
    def shown(elapsed: float, *, duration: float) -> float:  # noqa: ARG001 - it looks at nothing
        return share

    return shown


LIARS: dict[str, Bar] = {
    "backwards": _backwards,
    "half as far": _half,
    "twice as far": _twice,
    "sawtooth": _sawtooth,
    "6 % for ever": _stuck(0.06),
    "26 % for ever": _stuck(0.26),
    "99 % for ever": _stuck(0.99),
    "6 % from 60 % on": _fallen,
}


@dataclass(frozen=True, kw_only=True)
class Lie:
    """What jobs cost whose bar has begun to lie, as a multiple of what the same jobs cost without any bar.

    Attributes:
        first: the first eight.
        all: the first forty.
        longest: the longest delay of all, in seconds.
        longest_without: the longest without a bar.
    """

    first: float
    all: float
    longest: float
    longest_without: float


def lies(seed: int, repeats: int) -> dict[str, Lie]:
    """Return how jobs fare whose bar begins to lie in one way or another."""
    lying, without = {name: list[Bill]() for name in LIARS}, list[Bill]()
    for number in range(seed, seed + repeats):
        source = random.Random(number)
        durations = [_LAW.quantile(source.uniform(1e-6, 1 - 1e-6)) for _ in range(_HONEST + _LYING)]
        honest, later = durations[:_HONEST], durations[_HONEST:]
        bare, fooled = fresh(_PRICE, number), fresh(_PRICE, number)
        bare.run(honest)
        fooled.run(honest, reporters=[partial(_exact, duration=duration) for duration in honest])
        without.append(bare.run(later))
        for name, liar in LIARS.items():
            bars = [partial(liar, duration=duration) for duration in later]
            lying[name].append(copy.deepcopy(fooled).run(later, reporters=bars))
    return {name: _compared(bills, without) for name, bills in lying.items()}


def _compared(lying: Sequence[Bill], without: Sequence[Bill]) -> Lie:
    return Lie(
        first=_cost(lying, _FIRST) / _cost(without, _FIRST),
        all=_cost(lying, _LYING) / _cost(without, _LYING),
        longest=_longest(lying),
        longest_without=_longest(without),
    )


def _cost(bills: Sequence[Bill], jobs: int) -> float:
    return average([each for bill in bills for each in bill[:jobs]]).cost(_PRICE)


def _longest(bills: Sequence[Bill]) -> float:
    return max(delay for bill in bills for _, delay in bill)
