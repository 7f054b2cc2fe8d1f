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

from mirage_async._claims import Claim, Claims, bought, claim_of, taken
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
from mirage_async.jobs import ended_well
from mirage_async.models import ImageRequest, Tried

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

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
        check_open: raises `ClosedError` once everything is closed.
    """

    def __init__(
        self, client: Callable[[str | None], Seller], journal: Journal | None, check_open: Callable[[], None]
    ) -> None:
        self._client = client
        self._journal = journal
        self._check_open = check_open
        self._keyed: weakref.WeakValueDictionary[str, Job[Any]] = weakref.WeakValueDictionary()  # by their own keys
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
        """Submit to the first that accepts; the result of the job, or its error, tells who was tried as well."""
        job, tried = await self._in_turn(request, lambda seller: seller.submit_request(request))
        if request.key is not None:
            self._keyed[job.key] = job
        if tried:
            _carry(job, (*await self._tried_before(request, tried[0].provider), *tried[:-1]))
        return job

    async def _tried_before(self, request: ImageRequest, provider: str) -> tuple[Tried, ...]:
        """Return who is on record as tried in vain before `provider` under the same key, by earlier calls."""
        if request.key is None or self._journal is None or len(request.providers) < 2:  # noqa: PLR2004 - no choice
            return ()
        names = request.providers[: request.providers.index(provider)]
        entries = [await self._journal.entry(_own_key(request.key, name)) for name in names]
        return tuple(
            Tried(provider=entry.provider, error=entry.outcome.error.rebuild())
            for entry in entries
            if entry is not None and entry.outcome is not None and entry.outcome.error is not None
        )

    async def claim(self, request: ImageRequest, parts: int) -> None:
        """Bring on record that the caller's own key of a request stands for all of its parts.

        Raises:
            InputError: it stands for something else.
            JournalError: the journal cannot be read or written.
        """
        assert request.key is not None  # noqa: S101 - else there is nothing to claim
        names = self.names(request)
        async with self._turn(request.key):
            await self._claim(request.key, claim_of(request, names, parts=parts))

    async def buy(
        self, request: ImageRequest, accepted: Callable[[Job[Generation]], None], without: Collection[str] = ()
    ) -> tuple[Generation, tuple[Tried, ...]]:
        """Buy and wait as `generate` does, but leave the result untaken in the job.

        Cancelling before a request has left buys nothing more; afterwards the job appears in its client's `jobs`, at
        least until it ends: `keep` it.

        Args:
            request: what to buy.
            accepted: is given each job as soon as it is bought, the one that came to a good end last.
            without: who of several is not to be asked, unless it was bought there before under the same key.
        """

        async def attempt(seller: Seller) -> Generation:
            job = await seller.buy_request(request)
            accepted(job)
            return await ended_well(job)

        return await self._in_turn(request, attempt, without)

    def keep(self, job: Job[Any]) -> None:
        """Have the client of a job list it until somebody takes it."""
        self._client(job.provider).keep(job)

    @property
    def _claims(self) -> Claims:
        assert self._journal is not None  # noqa: S101 - or the key would have been refused
        return Claims(self._journal)

    async def _claim(self, key: str, claim: Claim) -> None:
        if self._is_under_way(key):
            raise taken(key)
        await self._claims.make(key, claim)

    def _is_under_way(self, key: str) -> bool:
        """Whether a job of that key is bought in the background, and is perhaps not on record yet."""
        job = self._keyed.get(key)
        return job is not None and not job.done

    def _turn(self, key: str) -> anyio.Lock:
        """Return what those hold who ask with one key, so that one of them asks around at a time."""
        return self._turns.setdefault(key, anyio.Lock())

    async def _in_turn(
        self, request: ImageRequest, attempt: Callable[[Seller], Awaitable[T]], without: Collection[str] = ()
    ) -> tuple[T, tuple[Tried, ...]]:
        self._check_open()
        sellers, key = self.of(request), request.key
        if key is None:
            if not request.providers:
                return await attempt(sellers[0]), ()
            sellers = tuple(seller for seller in sellers if seller.provider not in without)
            for seller in sellers[1:]:  # the first one's attempt begins with the same check
                await seller.check_request(request)
            return await self._ask(sellers, attempt)
        return await self._under_key(key, request, sellers, attempt, without)

    async def _under_key(
        self,
        key: str,
        request: ImageRequest,
        sellers: tuple[Seller, ...],
        attempt: Callable[[Seller], Awaitable[T]],
        without: Collection[str],
    ) -> tuple[T, tuple[Tried, ...]]:
        first, *others = sellers
        if others:
            for seller in sellers:  # before the key stands for a request that nobody can honour
                await seller.check_request(request)
        async with self._turn(key):
            if others:
                return await self._ask(await self._left(key, request, sellers, without), attempt)
            await self._claims.check_none(key)
            alone = first.keyed(key)
            return await self._ask((alone,), attempt) if request.providers else (await attempt(alone), ())

    async def _left(
        self, key: str, request: ImageRequest, sellers: tuple[Seller, ...], without: Collection[str]
    ) -> tuple[Seller, ...]:
        """Return those to ask under a caller's own key: from the last one that has sold anything under it before.

        Each has a key of its own made of that one, as a key stands for one request to one provider.
        """
        assert self._journal is not None  # noqa: S101 - or the key would have been refused
        names = tuple(seller.provider for seller in sellers)
        keys = tuple(_own_key(key, name) for name in names)
        await self._claim(key, claim_of(request, names, keys=keys))
        left = [seller.keyed(own) for seller, own in zip(sellers, keys, strict=True)]
        for place in range(len(keys) - 1, -1, -1):
            if self._is_under_way(keys[place]) or bought(await self._journal.entry(keys[place])):
                return (left[place], *(each for each in left[place + 1 :] if each.provider not in without))
        return tuple(each for each in left if each.provider not in without)

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


def _carry(job: Job[Generation], before: tuple[Tried, ...]) -> None:
    """Have a job tell, with its result or error, who was tried before it.

    Its kind is replaced by one that adds this at the end, so that jobs of a single provider carry nothing for it.
    """
    if isinstance(job.kind.ended, _Telling):  # somebody has asked with the same key before
        return
    telling = _Telling(before, job.kind.ended)
    kind = copy.copy(job.kind)
    kind.ended = telling
    job.kind = kind
    telling.tell(job)


class _Telling:
    """Adds to the end of a job who was tried before it; in place of what is told of that end, which it tells on."""

    __slots__ = ("_before", "_ended")

    def __init__(self, before: tuple[Tried, ...], ended: Callable[[Job[Generation]], None]) -> None:
        self._before = before
        self._ended = ended

    def __call__(self, job: Job[Generation]) -> None:
        self.tell(job)
        self._ended(job)

    def tell(self, job: Job[Generation]) -> None:
        """Put what is told in place of how the job has ended or stopped, if it has; nobody has taken it yet."""
        value, error = (None, job.stopped) if job.ending is None else job.ending
        if error is not None:
            told = copy.copy(error)
            told.tried = (*self._before, Tried(provider=job.provider, error=error))
            job.amend(None, told)
        elif value is not None:
            job.amend(msgspec.structs.replace(value, tried=(*self._before, Tried(provider=job.provider))), None)


def _own_key(key: str, provider: str) -> str:
    """Return the key of a purchase from one of several providers, made of the caller's own."""
    return hashlib.blake2b(f"{key} {provider}".encode(), digest_size=16).hexdigest()
