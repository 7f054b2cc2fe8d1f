"""Money and manners per key: credits that run out, and requests a key may make in a time."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from typing import TYPE_CHECKING

from mirage_async.sandbox.answers import RefusalError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from mirage_async._clock import Clock

__all__ = ["AccountView", "Accounts", "Admission", "alias_of"]

_LOW_ON_CREDITS = 402
_DAY = 86_400.0
_MOST = 1_000_000_000  # credits or requests; far from where sums of floats begin to lose cents


def alias_of(key: str) -> str:
    """Return a short name for an API key that does not give the key away; "" for none."""
    return blake2b(key.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest() if key else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountView:
    """One key's account with one provider at one moment.

    Attributes:
        provider: for example "miragic".
        account: a short name of the key, never the key.
        requests: requests that carried the key.
        spent: credits, in the provider's own unit.
        credits: credits left; None for any number.
    """

    provider: str
    account: str
    requests: int
    spent: float
    credits: float | None


@dataclass(frozen=True, slots=True)
class Admission:
    """Whether a request may pass, and what the answer says about the limit.

    Attributes:
        retry_after: whole seconds until one may; 0 when this one may.
        headers: the limit's headers, empty without a limit.
    """

    retry_after: int
    headers: Mapping[str, str]


@dataclass(slots=True)
class _Limit:
    requests: int
    seconds: float


@dataclass(slots=True)
class _Bucket:
    """Tokens of one key: `tokens` at the moment `at`, refilled evenly up to the limit."""

    tokens: float
    at: float


class Accounts:
    """What every key of every provider has left.

    Credits and limits follow one rule: what was set for one key stays that key's own, whatever is set for every key
    before or after it, until all of them are taken away.

    Args:
        clock: where time comes from.
        prices: credits one picture costs, by provider.
    """

    def __init__(self, clock: Clock, prices: Mapping[str, float]) -> None:
        self._clock = clock
        self._prices = prices
        self._credits: dict[tuple[str, str], float | None] = {}
        self._own_credits: set[tuple[str, str]] = set()
        self._limits: dict[tuple[str, str], _Limit | None] = {}
        self._spent: defaultdict[tuple[str, str], float] = defaultdict(float)
        self._requests: Counter[tuple[str, str]] = Counter()
        self._buckets: dict[tuple[str, str], _Bucket] = {}

    def set_credits(self, provider: str, credits_left: float | None, *, key: str | None = None) -> None:
        """Let keys of a provider spend so many credits from now on.

        Args:
            provider: its name.
            credits_left: 0 or more; None for any number.
            key: one key only; None for every key without an amount of its own.

        Raises:
            ValueError: there is no such provider, or the amount is out of range.
        """
        self._check(provider)
        if credits_left is not None and not _is_amount(credits_left):
            raise ValueError(f"credits must be 0 to {_MOST:g}, or None for any number, got {credits_left!r}")
        account = (provider, alias_of(key or ""))
        if not account[1]:
            for known in [known for known in self._credits if known[0] == provider and known not in self._own_credits]:
                del self._credits[known]
        else:
            self._own_credits.add(account)
        self._credits[account] = credits_left

    def set_rate_limit(
        self, provider: str, requests: int | None, *, seconds: float = 60.0, key: str | None = None
    ) -> None:
        """Let keys of a provider make so many requests in so many seconds, and answer 429 to the rest.

        Args:
            provider: its name.
            requests: 1 or more; None for no limit.
            seconds: more than 0, up to a day.
            key: one key only; None for every key without a limit of its own.

        Raises:
            ValueError: there is no such provider, or a number is out of range.
        """
        self._check(provider)
        if requests is not None and not (_is_amount(requests) and isinstance(requests, int) and requests >= 1):
            raise ValueError(f"requests must be a whole number from 1 to a billion, or None, got {requests!r}")
        if not (_is_amount(seconds) and 0 < seconds <= _DAY):
            raise ValueError(f"seconds must be more than 0 and at most {_DAY:g}, got {seconds!r}")
        self._limits[provider, alias_of(key or "")] = None if requests is None else _Limit(requests, seconds)
        self._buckets.clear()

    def admit(self, provider: str, account: str) -> Admission:
        """Count a request, and say whether it may pass."""
        self._requests[provider, account] += 1
        limit = self._limits.get((provider, account), self._limits.get((provider, "")))
        if limit is None:
            return Admission(0, {})
        rate = limit.requests / limit.seconds
        now = self._clock.monotonic()
        bucket = self._buckets.setdefault((provider, account), _Bucket(float(limit.requests), now))
        bucket.tokens = min(float(limit.requests), bucket.tokens + (now - bucket.at) * rate)
        bucket.at = now
        wait = 0
        if bucket.tokens >= 1:
            bucket.tokens -= 1
        else:
            wait = max(1, math.ceil((1 - bucket.tokens) / rate))
        full_at = self._clock.time() + (limit.requests - bucket.tokens) / rate
        headers = {
            "X-RateLimit-Limit": str(limit.requests),
            "X-RateLimit-Remaining": str(int(bucket.tokens)),
            "X-RateLimit-Reset": _iso(full_at),
            "X-RateLimit-Policy": f"{limit.requests};w={limit.seconds:g}",
        }
        return Admission(wait, {**headers, "Retry-After": str(wait)} if wait else headers)

    def pay(self, provider: str, account: str, pictures: int) -> float:
        """Take the price of so many pictures and return it.

        Raises:
            RefusalError: 402, there are not enough credits.
        """
        price = round(self._prices[provider] * pictures, 6)
        name = (provider, account)
        if name not in self._credits:
            self._credits[name] = self._credits.get((provider, ""))
        left = self._credits[name]
        if left is not None:
            if left < price:
                message = f"Insufficient credits: {price:g} needed, {left:g} left."
                raise RefusalError(_LOW_ON_CREDITS, message, value=price)
            self._credits[name] = round(left - price, 6)
        self._spent[name] += price
        return price

    def give_back(self, provider: str, account: str, price: float) -> None:
        """Give back the price of what came to nothing."""
        name = (provider, account)
        self._spent[name] -= price
        left = self._credits.get(name)
        if left is not None:
            self._credits[name] = round(left + price, 6)

    def view(self) -> list[AccountView]:
        """Return every account that was used or set, in the order of their names."""
        names = {name for name in (*self._requests, *self._spent, *self._credits) if name[1]}
        return [
            AccountView(
                provider=provider,
                account=account,
                requests=self._requests[provider, account],
                spent=round(self._spent.get((provider, account), 0.0), 6),
                credits=self._credits.get((provider, account), self._credits.get((provider, ""))),
            )
            for provider, account in sorted(names)
        ]

    def clear_usage(self) -> None:
        """Forget what was spent and asked for; what keys may spend stays as it is now."""
        self._spent.clear()
        self._requests.clear()
        self._buckets.clear()

    def clear_rules(self) -> None:
        """Take away every limit: any number of credits, any number of requests."""
        self._credits.clear()
        self._own_credits.clear()
        self._limits.clear()
        self._buckets.clear()

    def _check(self, provider: str) -> None:
        _known(provider, self._prices)


def _known(provider: str, providers: Collection[str]) -> None:
    if provider not in providers:
        raise ValueError(f"unknown provider {provider!r}; known: {', '.join(providers)}")


def _is_amount(value: object) -> bool:
    return not isinstance(value, bool) and isinstance(value, int | float) and 0 <= value <= _MOST


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
