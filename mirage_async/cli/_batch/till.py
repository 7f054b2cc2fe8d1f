"""What a batch's budget still allows, given all that was bought for it before."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from mirage_async.batch import Budget
from mirage_async.batch._budget import MOST_PROBES
from mirage_async.clients import Providers
from mirage_async.journal import EntryState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mirage_async.cli._batch.order import Bound
    from mirage_async.journal import Entry

__all__ = ["budget_for", "unpriced"]

_FAILED = frozenset({EntryState.FAILED, EntryState.CANCELLED, EntryState.EXPIRED})


def budget_for(bound: Bound, price: float | None, entries: Iterable[Entry]) -> Budget:
    """Return the budget of this run: that of the whole batch without what earlier runs have bought, or may have.

    Args:
        bound: of the whole batch.
        price: credits a picture costs where its provider does not say.
        entries: of the journal.
    """
    bought = [entry for entry in entries if entry.state is not EntryState.UNPAID]
    if bound.unit == "purchases":
        return Budget(purchases=max(int(bound.amount) - len(bought), 0))
    if bound.unit == "pictures":
        return Budget(pictures=max(int(bound.amount) - sum(entry.requested for entry in bought), 0))
    prices = _prices(bought)
    spent = sum(_cost(entry, prices, price) for entry in bought)
    left = max(bound.amount - spent, 0.0)
    known = prices if price is None else {**dict.fromkeys(Providers.classes(), price), **prices}
    return Budget(credits=left, price=known or None)


def unpriced(price: float | None, entries: Iterable[Entry]) -> list[str]:
    """Return the providers of which nobody can say what was spent there, so that no sum of credits is a bound.

    Whoever takes a job without saying its price is one of them, and so is one that has failed often: as within one run,
    a few may do so before that is taken for an answer.

    Args:
        price: credits a picture costs where its provider does not say.
        entries: of the journal, once nothing is in flight.
    """
    bought = [entry for entry in entries if entry.state is not EntryState.UNPAID]
    prices = _prices(bought)
    if price is not None:
        return []
    weights: Counter[str] = Counter()
    for entry in bought:
        if entry.provider not in prices:
            weights[entry.provider] += 1 if entry.state in _FAILED else MOST_PROBES
    return sorted(provider for provider, weight in weights.items() if weight >= MOST_PROBES)


def _prices(entries: Iterable[Entry]) -> dict[str, float]:
    """Return the most a picture of each provider is known to have cost."""
    prices: dict[str, float] = {}
    for entry in entries:
        told = None if entry.outcome is None else entry.outcome.credits
        if told is not None:
            prices[entry.provider] = max(told / max(entry.requested, 1), prices.get(entry.provider, 0.0))
    return prices


def _cost(entry: Entry, prices: dict[str, float], price: float | None) -> float:
    told = None if entry.outcome is None else entry.outcome.credits
    return told if told is not None else entry.requested * prices.get(entry.provider, price or 0.0)
