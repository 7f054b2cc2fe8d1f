"""How much a batch may buy, and the reckoning of it while prices are not known yet."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from mirage_async.exceptions import BudgetExceededError, InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mirage_async.exceptions import MirageError
    from mirage_async.models import Generation, ImageRequest

__all__ = ["Budget", "Share", "Till"]

Price: TypeAlias = tuple[str, str | None]  # of a picture, by provider and model

MOST_PROBES = 3  # purchases that may end without the price being learned
_ROUNDING = 1e-9  # sums of prices such as 0.1 are not exact


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """Where a batch stops buying; None sets no bound.

    What counts is every purchase not proven unpaid (`billed` other than "no"): uncertain ones are included, and so is
    what was bought before under the same `ImageRequest.key`. What is in
    flight is reckoned as bought until it is known to be unpaid, so `purchases` and `pictures` are never exceeded, with
    one exception: a request with several `providers` whose job failed is bought again elsewhere, and both count.
    `resend_uncertain` may buy one request several times over, which no bound could hold, so the two exclude each other:
    the batch of a hub that has it on takes no budget, and a request whose `options` turn it on is refused.

    `credits` are reckoned by the highest price a picture of that provider and model has had so far. Before there is
    one, and without `price`, a purchase is made alone. So the sum is exceeded at most by the first purchase of each
    provider and model (up to three of them where those before failed without telling the price), by what a provider
    takes above the price known by then, and, where requests have several `providers`, by what those in flight buy from
    one whose price is not known. A provider that does not say what it takes needs a `price`: without, the budget
    counts as spent once something was bought there.

    Args:
        purchases: requests that may be bought.
        pictures: pictures that may be asked for.
        credits: what may be spent, in the providers' own units, added up as they are.
        price: credits a picture costs where nothing is known yet: a number, or a mapping by provider.

    Raises:
        InputError: a bound is out of range, or there is none.
    """

    purchases: int | None = None
    pictures: int | None = None
    credits: float | None = None
    price: float | Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("purchases", "pictures"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
                msg = f"Budget.{name} must be a whole number of at least 0, or None for no bound; got {value!r}"
                raise InputError(msg)
        if self.credits is not None and not _is_amount(self.credits):
            msg = f"Budget.credits must be a number of at least 0, or None for no bound; got {self.credits!r}"
            raise InputError(msg)
        prices = self.price.values() if isinstance(self.price, Mapping) else () if self.price is None else (self.price,)
        if not all(map(_is_amount, prices)):
            msg = f"Budget.price must be a number of at least 0, a mapping to such, or None; got {self.price!r}"
            raise InputError(msg)
        if self.purchases is self.pictures is self.credits is None:
            msg = "Budget must have one of purchases, pictures and credits; got none of them"
            raise InputError(msg)

    def price_of(self, provider: str) -> float | None:
        """Return what a picture of a provider is said to cost, or None."""
        return self.price.get(provider) if isinstance(self.price, Mapping) else self.price


class Share:
    """What one purchase in flight takes of a budget."""

    __slots__ = ("credits", "model", "pictures", "probes")

    def __init__(self, pictures: int, credits_reckoned: float, model: str | None, probes: frozenset[Price]) -> None:
        self.pictures = pictures
        self.credits = credits_reckoned
        self.model = model
        self.probes = probes  # the prices it is to tell


class Till:
    """Adds up what a batch has bought, and hands out what is left.

    Args:
        budget: the bounds, or None for none.
    """

    def __init__(self, budget: Budget | None) -> None:
        self._budget = budget
        self._shares: set[Share] = set()
        self._prices: dict[Price, float] = {}
        self._probes: Counter[Price] = Counter()  # that ended without telling their price
        self.purchases = 0
        self.pictures = 0
        self.credits = 0.0

    def take(self, request: ImageRequest, providers: Sequence[str]) -> Share | None:
        """Hand out the share of a purchase, or None while that depends on how those in flight end.

        Raises:
            BudgetExceededError: there is not enough left, however those end.
            InputError: it may be bought more than once.
        """
        if self._budget is not None and request.options and request.options.get("resend_uncertain"):
            msg = "resend_uncertain may buy a request more than once, so it cannot be had within a budget; got True"
            raise InputError(msg)
        pictures = pictures_of(request)
        prices = [(provider, request.model) for provider in providers]
        cost = pictures * max((self._price(price) or 0.0 for price in prices), default=0.0)
        share = Share(pictures, cost, request.model, self._unknown(prices))
        if share.probes and any(share.probes & other.probes for other in self._shares):
            return None
        missing = None if self._budget is None else self._missing(self._budget, share)
        if missing is None:
            self._shares.add(share)
            return share
        if self._shares:
            return None
        raise BudgetExceededError(f"the budget does not allow another purchase: {missing}")

    def settle(self, share: Share, generation: Generation | None, errors: Sequence[MirageError]) -> None:
        """Take a share back and count what it became.

        Args:
            share: what `take` gave.
            generation: what was bought, or None.
            errors: what went wrong, one a provider that was tried in vain.
        """
        self._shares.discard(share)
        for error in errors:
            if error.billed != "no":
                self._count(share, error.provider, None)
                self._probes[error.provider or "", share.model] += 1
        if generation is not None:
            self._count(share, generation.provider, generation.credits)
            if generation.credits is None:
                self._probes[generation.provider, share.model] = MOST_PROBES  # it will not tell next time either

    def _count(self, share: Share, provider: str | None, told: float | None) -> None:
        price = (provider or "", share.model)
        known = self._price(price)
        self.purchases += 1
        self.pictures += share.pictures
        self.credits += told if told is not None else share.pictures * (known or 0.0)
        if told is not None:
            self._prices[price] = max(told / share.pictures, known or 0.0)

    def _price(self, price: Price) -> float | None:
        """Return the most a picture is known to cost."""
        learned = self._prices.get(price)
        if learned is None and self._budget is not None:
            return self._budget.price_of(price[0])
        return learned

    def _unknown(self, prices: Sequence[Price]) -> frozenset[Price]:
        if self._budget is None or self._budget.credits is None:
            return frozenset()
        unknown = [price for price in prices if self._price(price) is None]
        for provider, model in unknown:
            if self._probes[provider, model] >= MOST_PROBES:
                what = f"{provider} ({model})" if model else provider
                msg = f"{what} does not say what it takes, so credits cannot be reckoned: give Budget(price=...)"
                raise BudgetExceededError(msg, provider=provider)
        return frozenset(prices[:1]).intersection(unknown)  # of who is asked first; the others may never be

    def _missing(self, budget: Budget, share: Share) -> str | None:
        """Say which bound `share` would exceed."""
        purchases = self.purchases + len(self._shares)
        pictures = self.pictures + sum(other.pictures for other in self._shares)
        spent = self.credits + sum(other.credits for other in self._shares)
        if budget.purchases is not None and purchases + 1 > budget.purchases:
            return f"{purchases} of {budget.purchases} purchases are made"
        if budget.pictures is not None and pictures + share.pictures > budget.pictures:
            return f"{share.pictures} more would exceed {budget.pictures} pictures, and {pictures} are bought"
        if budget.credits is None:
            return None
        room = budget.credits * (1 + _ROUNDING) - spent
        if share.credits > room or room <= _ROUNDING * budget.credits:
            return f"{share.credits:g} more would exceed {budget.credits:g} credits, and {spent:g} are spent"
        return None


def pictures_of(request: ImageRequest) -> int:
    """Return how many pictures a request asks for; what is no number will be refused by whoever is asked for it."""
    n: Any = request.n
    return n if isinstance(n, int) and n > 0 else 1


def _is_amount(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf
