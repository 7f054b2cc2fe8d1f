"""Which providers a request may be bought from, and when the next one may be asked.

The next provider is asked only where the one before is proven to have taken no money, or where its job has come to a
bad end. After anything else, an uncertain purchase or a wait that ran out above all, a second provider could be a
second purchase, so the error goes to the caller. For the same reason nobody is asked at once with somebody else
("hedging"): the slower one would be paid, too.
"""

from __future__ import annotations

import copy
import hashlib
import logging
import re
import weakref
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, TypeVar

import anyio
import msgspec

from mirage_async.exceptions import (
    ClosedError,
    InputError,
    JobCancelledError,
    JobExpiredError,
    JobFailedError,
    JournalError,
    MirageError,
    WaitTimeoutError,
)
from mirage_async.journal import EntryState
from mirage_async.models import ImageRequest, Tried

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mirage_async.jobs import Job
    from mirage_async.journal import Journal
    from mirage_async.models import Generation

__all__ = ["Seller", "Sellers", "may_go_on"]

_logger = logging.getLogger("mirage_async.failover")

T = TypeVar("T")

_KEY = re.compile(r"[0-9a-f]{32}")

_BAD_ENDS = (JobFailedError, JobCancelledError, JobExpiredError)
_SAME_EVERYWHERE = (InputError, ClosedError, JournalError)  # or to be mended by the caller
_MAY_STILL_COME = (WaitTimeoutError,)


class Seller(Protocol):
    """What is needed of a provider's client."""

    provider: ClassVar[str]
    max_images: ClassVar[int]

    def keyed(self, key: str) -> Self:
        """Return a copy that buys once, under a caller's own key."""
        ...

    async def check_request(self, request: ImageRequest) -> None:
        """Raise `InputError` for a parameter the provider cannot honour."""
        ...

    async def generate_request(self, request: ImageRequest) -> Generation:
        """Buy, and wait for the pictures."""
        ...

    async def submit_request(self, request: ImageRequest) -> Job[Generation]:
        """Buy, or have it done in the background where the provider answers with the pictures."""
        ...

    async def buy_request(self, request: ImageRequest) -> Job[Generation]:
        """Buy, and return once the provider has accepted or answered."""
        ...

    def keep(self, job: Job[Any]) -> None:
        """Have the client list a job until somebody takes it."""
        ...


def may_go_on(error: MirageError) -> bool:
    """Whether another provider may be asked after `error` without the risk of paying twice."""
    if isinstance(error, (*_SAME_EVERYWHERE, *_MAY_STILL_COME)):
        return False
    return error.billed == "no" or isinstance(error, _BAD_ENDS)


class Sellers:
    """Finds who may draw a request, and asks them in turn.

    Args:
        client: returns the client of a provider by name; raises `InputError` and `ConfigurationError`.
        journal: remembers what was bought under a caller's own key, or None.
    """

    def __init__(self, client: Callable[[str | None], Seller], journal: Journal | None) -> None:
        self._client = client
        self._journal = journal
        self._turns: weakref.WeakValueDictionary[str, anyio.Lock] = weakref.WeakValueDictionary()

    def of(self, request: ImageRequest) -> tuple[Seller, ...]:
        """Return the clients a request names, in its order.

        Raises:
            InputError: none, an unknown one, one twice, or both `provider` and `providers`; or its `key` is of no use.
            ConfigurationError: one of them has no key.
        """
        if request.key is not None:
            self._check_key(request.key)
        if request.providers == ():
            return (self._client(request.provider),)
        names = request.providers
        if request.provider is not None:
            msg = f"give provider or providers, not both; got {request.provider!r} and {names!r}"
            raise InputError(msg)
        if not isinstance(names, tuple | list) or len(names) == 0 or len(set(map(repr, names))) < len(names):
            msg = f"providers must be a sequence of different names, at least one; got {names!r}"
            raise InputError(msg)
        return tuple(map(self._client, names))

    def _check_key(self, key: object) -> None:
        if self._journal is None:
            msg = f"key needs a journal, which remembers what was bought under it: Mirage(journal=...); got {key!r}"
            raise InputError(msg)
        if not isinstance(key, str) or not _KEY.fullmatch(key):
            msg = f"key must be 32 lowercase hexadecimal digits, as uuid.uuid4().hex is; got {key!r:.60}"
            raise InputError(msg)

    def names(self, request: ImageRequest) -> tuple[str, ...]:
        """Return the names of those a request may be bought from; raises as `of` does."""
        return tuple(seller.provider for seller in self.of(request))

    def max_images(self, request: ImageRequest) -> int:
        """Return the most pictures that each of them takes in one request."""
        return min(seller.max_images for seller in self.of(request))

    async def generate(self, request: ImageRequest) -> Generation:
        """Buy and wait, from the first that comes to a good end."""
        generation, tried = await self._in_turn(request, lambda seller: seller.generate_request(request))
        return msgspec.structs.replace(generation, tried=tried) if tried else generation

    async def submit(self, request: ImageRequest) -> Job[Generation]:
        """Submit to the first that accepts."""
        job, _ = await self._in_turn(request, lambda seller: seller.submit_request(request))
        return job

    async def buy(
        self, request: ImageRequest, accepted: Callable[[Job[Generation]], None]
    ) -> tuple[Generation, tuple[Tried, ...]]:
        """Buy and wait as `generate` does, but leave the result untaken in the job.

        Cancelling before a request has left buys nothing more; afterwards the job appears in its client's `jobs`, at
        least until it ends: `keep` it.

        Args:
            request: what to buy.
            accepted: is given each job as soon as it is bought, the one that came to a good end last.
        """

        async def attempt(seller: Seller) -> Generation:
            job = await seller.buy_request(request)
            accepted(job)
            return await _ended_well(job)

        return await self._in_turn(request, attempt)

    def keep(self, job: Job[Any]) -> None:
        """Have the client of a job list it until somebody takes it."""
        self._client(job.provider).keep(job)

    async def _in_turn(
        self, request: ImageRequest, attempt: Callable[[Seller], Awaitable[T]]
    ) -> tuple[T, tuple[Tried, ...]]:
        sellers, key = self.of(request), request.key
        if not request.providers:
            return await attempt(sellers[0] if key is None else sellers[0].keyed(key)), ()
        for seller in sellers[1:]:  # the first one's attempt begins with the same check
            await seller.check_request(request)
        if key is None:
            return await self._ask(sellers, attempt)
        async with self._turns.setdefault(key, anyio.Lock()):  # of those who ask with one key, one asks around
            return await self._ask(await self._left(key, sellers), attempt)

    async def _left(self, key: str, sellers: tuple[Seller, ...]) -> tuple[Seller, ...]:
        """Return those to ask under a caller's own key: from the last one that has sold anything under it before.

        Each has a key of its own made of that one, as a key stands for one request to one provider.
        """
        assert self._journal is not None  # noqa: S101 - or the key would have been refused
        keys = [hashlib.blake2b(f"{key} {seller.provider}".encode(), digest_size=16).hexdigest() for seller in sellers]
        left = [seller.keyed(own) for seller, own in zip(sellers, keys, strict=True)]
        for place in range(len(keys) - 1, 0, -1):
            entry = await self._journal.entry(keys[place])
            if entry is not None and entry.state is not EntryState.UNPAID:
                return tuple(left[place:])
        return tuple(left)

    async def _ask(
        self, sellers: tuple[Seller, ...], attempt: Callable[[Seller], Awaitable[T]]
    ) -> tuple[T, tuple[Tried, ...]]:
        tried: list[Tried] = []
        for left, seller in zip(range(len(sellers) - 1, -1, -1), sellers, strict=True):
            try:
                return await attempt(seller), (*tried, Tried(provider=seller.provider))
            except MirageError as error:
                tried.append(Tried(provider=seller.provider, error=copy.copy(error)))
                if not left or not may_go_on(error):
                    error.tried = tuple(tried)
                    raise
                _logger.info(
                    "%s is not to have it (%s, billed: %s), so the next provider is asked",
                    *(seller.provider, type(error).__name__, error.billed),
                )
        raise AssertionError  # pragma: no cover - the last one returns or raises


async def _ended_well(job: Job[Generation]) -> Generation:
    """Wait until a job is done and return its result without taking it; raises a copy of the error it ended with."""
    async for _ in job.updates():
        pass
    assert job.ending is not None  # noqa: S101 - updates() ends with the job; says so to the type checker
    value, error = job.ending
    if error is not None:
        raise copy.copy(error)
    assert value is not None  # noqa: S101 - an ending without error has a value
    return value
