"""The desk of one provider account: a client's way to buy and to ask, at one address, with one key and its limits."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import msgspec

from mirage_async._retry import Retrier
from mirage_async._transport import Endpoint, LostError, NotSentError
from mirage_async.clients._buyer import Buyer, Terms
from mirage_async.clients._records import known_job
from mirage_async.clients._redeem import redeem_pictures
from mirage_async.exceptions import (
    APIError,
    ConfigurationError,
    ConnectionFailedError,
    InputError,
    MirageError,
    RateLimitError,
    ResponseError,
)
from mirage_async.jobs import Job, JobKind, checked_wait, new_job, new_key
from mirage_async.models import Generation, Pace
from mirage_async.purchase import Offer
from mirage_async.wire import Call, Reply, Report, Submitted, read_unquoted, with_callback
from mirage_async.wire._retry_after import from_header

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from mirage_async.clients._ledger import Ledger
    from mirage_async.clients._runtime import Runtime

__all__ = ["BlockingOrder", "Desk"]

T = TypeVar("T")

QUICK_TIMEOUT = 60.0  # seconds for an answer that needs no picture to be made first
PLACE_WAIT = 3600.0  # seconds a request without deadline of its own may wait for a place under `Limits.jobs`
QUESTION_TRIES = 4  # a question costs nothing, so it is asked again after trouble
QUESTION_BUDGET = 30.0  # seconds
_UNUSED_PACE = Pace(first=0.0, interval=1.0, maximum=1.0, max_wait=PLACE_WAIT)  # of jobs nobody asks about


class BlockingOrder(msgspec.Struct, frozen=True, kw_only=True):
    """A request that the provider answers with the finished pictures.

    Attributes:
        call: the request.
        read: turns the answer into a report.
        model: the model asked for, or None.
        requested: pictures asked for.
        key: of a job whose provider was given an address to call back, or None.
    """

    call: Call
    read: Callable[[Reply], Report]
    model: str | None = None
    requested: int = 1
    key: str | None = None


class Desk:
    """Buys and asks at one endpoint, for one account.

    Args:
        runtime: the shared parts.
        provider: the provider's name.
        endpoint: address and key.
        terms: how to buy.
        ledger: the account and its jobs; other desks may serve it as well.
        key: of the one purchase that is made here, or None where each gets a new one.
    """

    def __init__(
        self,
        runtime: Runtime,
        *,
        provider: str,
        endpoint: Endpoint,
        terms: Terms,
        ledger: Ledger,
        key: str | None = None,
    ) -> None:
        self.runtime = runtime
        self.provider = provider
        self.endpoint = endpoint
        self.account = ledger.account
        self.terms = terms
        self.ledger = ledger
        self.key = key
        self.alias = endpoint.alias
        self.answers: JobKind[Generation] = self.kind("image", _UNUSED_PACE, _never_asked, self.redeem)
        self._name = f"{provider} client"
        self._buyer = Buyer(runtime, endpoint=endpoint, terms=terms, ledger=ledger)

    @property
    def jobs(self) -> tuple[Job[Any], ...]:
        """The jobs of the account somebody may still want something of."""
        return self.ledger.jobs(self.runtime.scheduler.watched(self.account))

    @property
    def unfinished_jobs(self) -> int:
        """How many these are."""
        return self.ledger.count(self.account.entries)

    def kind(
        self,
        name: str,
        pace: Pace,
        look: Callable[[Job[T]], Awaitable[Report]],
        redeem: Callable[[Job[T], Report], Awaitable[T]],
    ) -> JobKind[T]:
        """Make a kind of job that is bought here."""
        return JobKind(
            provider=self.provider,
            name=name,
            pace=pace,
            clock=self.runtime.clock,
            recorder=self.runtime.recorder,
            waker=self.runtime.scheduler,
            look=look,
            redeem=redeem,
            ended=self._ended,
            account=self.account,
            hints=self.runtime.hints,
            check_loop=self.runtime.check_loop,
        )

    def _ended(self, job: Job[Any]) -> None:
        self.account.give_place_back(job)
        self.runtime.hints.ended(job)
        self.ledger.ended(job)
        if self.runtime.memory is not None:
            self.runtime.memory.grows()

    def check_open(self) -> None:
        """Raise `ClosedError` after everything was closed."""
        self.runtime.check_open(self._name)

    def callback(self) -> tuple[str | None, tuple[str, str | None] | None]:
        """Return a key for a job to come, and where the provider may announce that job; two None without a receiver."""
        if self.runtime.webhooks is None:
            return None, None
        key = self.key or new_key()
        return key, self.runtime.webhooks.callback_for(self.provider, key)

    def announced(self, call: Call, parameter: str | None) -> tuple[str | None, Call]:
        """Return a key for a job to come, and the request with an address under `parameter` where that is given.

        Raises:
            ConfigurationError: nobody would hear what is delivered there.
        """
        if parameter is None:
            return None, call
        if self.runtime.webhooks is None:
            msg = "callback_parameter needs a hub with a receiver: Mirage(webhooks=WebhookReceiver(...))"
            raise ConfigurationError(msg, provider=self.provider)
        key = self.key or new_key()
        url, _ = self.runtime.webhooks.callback_for(self.provider, key)
        return key, with_callback(call, parameter, url, provider=self.provider)

    # --- buying ---

    def submit_job(
        self,
        kind: JobKind[T],
        call: Call,
        read: Callable[[Reply], Submitted],
        *,
        model: str | None = None,
        key: str | None = None,
        max_wait: float,
        resend_uncertain: bool | None,
    ) -> Awaitable[Job[T]]:
        """Buy from a provider that answers with an id, and return once it has, also where another caller began that.

        With `key` the job is one whose provider was given an address to call back, under that key.
        """
        wait, resend = checked_wait(max_wait), _flag(resend_uncertain)
        self.check_open()

        def buy() -> Awaitable[Job[T]]:
            job = self._job(kind, key, model=model)
            offer = self._offer(job, call, read, announced=key is not None)
            return self._buyer.buy(job, offer, max_wait=wait, resend_uncertain=resend)

        return buy() if self.key is None else self._once(kind, call, buy, wait)

    async def generate_job(
        self,
        kind: JobKind[Generation],
        call: Call,
        read: Callable[[Reply], Submitted],
        *,
        model: str | None = None,
        key: str | None = None,
        max_wait: float,
        resend_uncertain: bool | None,
    ) -> Generation:
        """Buy from a provider that answers with an id, and wait for the result.

        A caller who is cancelled leaves the job in `jobs`, where its result can be had until somebody takes it.
        """
        job = await self.submit_job(
            kind, call, read, model=model, key=key, max_wait=max_wait, resend_uncertain=resend_uncertain
        )
        try:
            return await job.result()
        except asyncio.CancelledError:
            self.ledger.adopt(job)
            raise

    async def generate_blocking(self, order: BlockingOrder, *, resend_uncertain: bool | None) -> Generation:
        """Buy from a provider that answers with the pictures, and wait for them."""
        return await (await self.buy_blocking(order, resend_uncertain=resend_uncertain))

    def buy_blocking(self, order: BlockingOrder, *, resend_uncertain: bool | None) -> Awaitable[Job[Generation]]:
        """Buy from a provider that answers with the pictures, and return the job once they are here, not yet taken."""
        resend = _flag(resend_uncertain)
        self.check_open()

        def buy() -> Awaitable[Job[Generation]]:
            job, offer = self._blocking_job(order)
            return self._buyer.buy(job, offer, max_wait=PLACE_WAIT, resend_uncertain=resend)

        return buy() if self.key is None else self._once(self.answers, order.call, buy)

    async def submit_blocking(self, order: BlockingOrder, *, resend_uncertain: bool | None) -> Job[Generation]:
        """Buy in the background from a provider that answers with the pictures; return the job at once."""
        resend = _flag(resend_uncertain)
        self.check_open()

        async def begun() -> Job[Generation]:
            job, offer = self._blocking_job(order)
            self._buy_in_background(job, offer, resend)
            return job

        return await (begun() if self.key is None else self._once(self.answers, order.call, begun))

    def buy_again(self, job: Job[Any], call: Call, read: Callable[[Reply], Any], *, blocking: bool) -> None:
        """Send a purchase again in the background, under the key it had."""
        offer = self._offer(job, call, read, blocking=blocking, announced=bool(call.callback))
        self._buy_in_background(job, offer, None)

    def _buy_in_background(self, job: Job[Any], offer: Offer[Any], resend: bool | None) -> None:
        self.ledger.buying.add(job)
        wait = PLACE_WAIT if offer.blocking else job.kind.pace.max_wait
        self.runtime.buyers.spawn(self._buyer.buy_for_waiters(job, offer, max_wait=wait, resend_uncertain=resend))

    async def _once(
        self, kind: JobKind[T], call: Call, buy: Callable[[], Awaitable[Job[T]]], max_wait: float | None = None
    ) -> Job[T]:
        """Buy under the caller's own key, or return the job that was bought under it before."""
        assert self.key is not None  # noqa: S101 - says so to the type checker
        deadline = None if max_wait is None else self.runtime.clock.monotonic() + max_wait
        async with self.runtime.turn(self.key):  # of those who ask with one key at the same time, one buys
            while True:
                known = await known_job(self, self.key, kind, call, max_wait=max_wait)
                if known is None:
                    return await buy()
                if deadline is None or not self._is_being_bought(known):
                    return known
                await self._bought(known, deadline)

    def _is_being_bought(self, job: Job[Any]) -> bool:
        if job.id is not None:
            return False
        if job.stopped is not None:
            raise copy.copy(job.stopped)
        return not job.done and self.ledger.is_buying(job)

    async def _bought(self, job: Job[Any], deadline: float) -> None:
        """Wait until the purchase of a job is through, which another caller began and left."""
        with self.runtime.until(deadline) as wait:
            async for _ in job.updates():
                if not self._is_being_bought(job):
                    return
        if wait.over:
            raise job.wait_timeout(job.buying)

    def _blocking_job(self, order: BlockingOrder) -> tuple[Job[Generation], Offer[Report]]:
        job = self._job(self.answers, order.key, model=order.model, requested=order.requested)
        return job, self._offer(job, order.call, order.read, blocking=True, announced=order.key is not None)

    def _job(self, kind: JobKind[T], key: str | None, **facts: Any) -> Job[T]:
        """Make a job, and expect its webhook if it has a key already."""
        job = new_job(kind, key=key or self.key, **facts)
        if key is not None and self.runtime.webhooks is not None:
            self.runtime.webhooks.expect(job)
        if self.key is not None:
            self.runtime.known[job.key] = job
        return job

    def _offer(
        self,
        job: Job[Any],
        call: Call,
        read: Callable[[Reply], T],
        *,
        blocking: bool = False,
        announced: bool,
    ) -> Offer[T]:
        timeout = self.terms.answer_timeout if blocking else QUICK_TIMEOUT
        job.keep_private(call.private)
        return Offer(
            provider=self.provider,
            key=job.key,
            call=call,
            read=read,
            timeout=timeout if self.terms.timeout is None else self.terms.timeout,
            failure_is_documented=self.terms.failure_is_documented,
            account=self.alias,
            blocking=blocking,
            announced=announced,
            own_key=self.key is not None,
        )

    def redeem(self, job: Job[Generation], report: Report) -> Awaitable[Generation]:
        """Turn the report of a finished image job into what its waiters get."""
        return redeem_pictures(self.runtime, job, report, allow_private=self.endpoint.loopback)

    # --- asking ---

    async def ask_once(self, call: Call, read: Callable[[Reply], T], *, private: tuple[str, ...] = ()) -> T:
        """Ask a question that costs nothing, once; everything that goes wrong is a `MirageError`.

        Whoever asks bounds the time it may take; a client's own `timeout` ends a silence before. Texts that are
        `private` stand in no reason and no error that comes of it.
        """
        try:
            reply = await self.runtime.transport.exchange(self.endpoint, call, silence=self.terms.timeout)
        except NotSentError as error:
            msg = f"no connection to {self.provider} was obtained: {error}"
            raise ConnectionFailedError(msg, provider=self.provider) from None
        except LostError as error:
            msg = f"{self.provider} gave no usable answer: {error}"
            raise ResponseError(msg, provider=self.provider) from None
        return read_unquoted(reply, read, private) if private else read(reply)

    def ask_about(self, job: Job[Any], call: Call, read: Callable[[Reply], Report]) -> Awaitable[Report]:
        """Ask how a job is, once; see `ask_once`. Its `Retry-After` is that of the answer's header, if it has one."""
        return self.ask_once(call, lambda reply: _told_to_wait(reply, read(reply)), private=job.private)

    async def ask(self, call: Call, read: Callable[[Reply], T]) -> T:
        """Ask a question that costs nothing, again after trouble, for about half a minute.

        A pause the provider has asked for comes first; see `_after_pause`.
        """
        self.check_open()
        with self.runtime.until_closed():
            asked = await self._after_pause()
            retrier = Retrier(
                self.runtime.clock, tries=QUESTION_TRIES, budget=QUESTION_BUDGET, max_floor=QUESTION_BUDGET
            )
            while True:
                try:
                    with anyio.fail_after(self._patience()):
                        return await self.ask_once(call, read)
                except TimeoutError:
                    msg = f"{self.provider} gave no usable answer within {self._patience():g} s"
                    error: MirageError = ResponseError(msg, provider=self.provider)
                except (ConnectionFailedError, ResponseError) as raised:
                    error = raised
                except APIError as raised:
                    if raised.status != 429 and raised.status < 500:  # noqa: PLR2004 - HTTP's own numbers
                        raise
                    if raised.status == 429 or raised.retry_after is not None:  # noqa: PLR2004
                        self.account.pause(self.runtime.clock.monotonic(), raised.retry_after, asked=asked)
                    error = raised
                if not await retrier.again(getattr(error, "retry_after", None)):
                    raise error
                asked = await self._after_pause()

    async def _after_pause(self) -> float:
        """Wait until a pause is over, and return the time.

        Raises:
            RateLimitError: that takes longer than a question may.
        """
        clock = self.runtime.clock
        wait = self.account.pauses.until - clock.monotonic()
        if wait > QUESTION_BUDGET:
            msg = f"{self.provider} has asked for a pause, of which {wait:.0f} s are left; nothing was sent"
            raise RateLimitError(msg, status=429, provider=self.provider, billed="no", retry_after=wait)
        if wait > 0:
            await clock.sleep(wait)
        return clock.monotonic()

    def _patience(self) -> float:
        return QUICK_TIMEOUT if self.terms.timeout is None else self.terms.timeout


def _told_to_wait(reply: Reply, report: Report) -> Report:
    wait = from_header(reply)
    return report if wait is None else msgspec.structs.replace(report, retry_after=wait)


def _flag(resend_uncertain: bool | None) -> bool | None:
    """Check the option that decides about paying twice; nothing but a bool may turn it on."""
    if resend_uncertain is not None and not isinstance(resend_uncertain, bool):
        msg = f"resend_uncertain must be True, False or None; got {resend_uncertain!r}"
        raise InputError(msg)
    return resend_uncertain


async def _never_asked(job: Job[Any]) -> Report:
    msg = f"{job.provider} has no status call to ask with"
    raise InputError(msg, provider=job.provider)
