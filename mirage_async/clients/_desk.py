"""The desk of one provider account: where things are bought and questions asked.

One request walks through here like this. The provider's client hands over a `Call` built from checked arguments;
`_buy` waits for a place among the account's jobs and for an HTTP slot, and leaves the POST to a background task,
because cancelling a caller does not un-send a request; that task records, sends, and gives the job its id or its
result; `_buy` re-sends where the table in `purchase` allows it and raises what the caller gets.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import msgspec

from mirage_async._retry import Retrier
from mirage_async._transport import Endpoint, LostError, NotSentError
from mirage_async.clients._redeem import redeem_pictures
from mirage_async.exceptions import (
    APIError,
    ClosedError,
    ConnectionFailedError,
    InputError,
    MirageError,
    ResponseError,
)
from mirage_async.jobs import Job, JobKind, accept, checked_wait, conclude, refuse
from mirage_async.models import Generation, Pace
from mirage_async.purchase import Attempt, Fate, Offer, attempt, purchase
from mirage_async.wire import Call, Reply, Report, Submitted

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from mirage_async.clients._runtime import Runtime
    from mirage_async.exceptions import Billed
    from mirage_async.scheduler import Account

__all__ = ["BlockingOrder", "Desk", "Ledger", "Terms"]

T = TypeVar("T")

_logger = logging.getLogger("mirage_async.clients")

QUICK_TIMEOUT = 60.0  # seconds for an answer that needs no picture to be made first
PLACE_WAIT = 3600.0  # seconds a request without deadline of its own may wait for a place under `Limits.jobs`
QUESTION_TRIES = 4  # a question costs nothing, so it is asked again after trouble
QUESTION_BUDGET = 30.0  # seconds
_UNUSED_PACE = Pace(first=0.0, interval=1.0, maximum=1.0, max_wait=PLACE_WAIT)  # of jobs nobody asks about


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """How a client buys; `ProviderClient` documents the options it comes from.

    Attributes:
        timeout: seconds to wait for one answer, or None for the default of the request.
        max_retry_after: the longest wait in seconds a refusal for load may ask for.
        resend_uncertain: send a purchase again although it may have been bought already.
        answer_timeout: default seconds for a request that is answered with the finished picture.
        failure_is_documented: whether the provider's document says what a 500 means.
    """

    timeout: float | None
    max_retry_after: float
    resend_uncertain: bool
    answer_timeout: float
    failure_is_documented: bool


class BlockingOrder(msgspec.Struct, frozen=True, kw_only=True):
    """A request that the provider answers with the finished pictures.

    Attributes:
        call: the request.
        read: turns the answer into a report.
        model: the model asked for, or None.
        requested: pictures asked for.
    """

    call: Call
    read: Callable[[Reply], Report]
    model: str | None = None
    requested: int = 1


class Ledger:
    """The unfinished jobs of one account that the scheduler does not hold."""

    __slots__ = ("buying", "posting", "stopped")

    def __init__(self) -> None:
        self.buying: set[Job[Any]] = set()
        self.posting: set[Job[Any]] = set()  # of these: their request is on the wire
        self.stopped: weakref.WeakSet[Job[Any]] = weakref.WeakSet()  # no longer watched, but somebody has the handle


class Desk:
    """Buys and asks at one endpoint, for one account.

    Args:
        runtime: the shared parts.
        provider: the provider's name.
        endpoint: address and key.
        account: limits and pauses.
        terms: how to buy.
        ledger: of an account that another desk serves as well, or None for a new one.
    """

    def __init__(
        self,
        runtime: Runtime,
        *,
        provider: str,
        endpoint: Endpoint,
        account: Account,
        terms: Terms,
        ledger: Ledger | None = None,
    ) -> None:
        self.runtime = runtime
        self.provider = provider
        self.endpoint = endpoint
        self.account = account
        self.terms = terms
        self.ledger = Ledger() if ledger is None else ledger

    @property
    def jobs(self) -> tuple[Job[Any], ...]:
        """The unfinished jobs of the account."""
        ledger = self.ledger
        found = dict.fromkeys([*ledger.buying, *self.runtime.scheduler.watched(self.account), *ledger.stopped])
        return tuple(job for job in found if not job.done)

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
        )

    def check_open(self) -> None:
        """Raise `ClosedError` after everything was closed."""
        if self.runtime.closed:
            msg = f"the {self.provider} client is closed"
            raise ClosedError(msg, provider=self.provider)

    def let_go(self) -> None:
        """Tell whoever still waits for a purchase that everything is closed."""
        for job in list(self.ledger.buying):
            job.stop(self._closed_while_buying(job))
        self.ledger.buying.clear()
        self.ledger.posting.clear()

    def _closed_while_buying(self, job: Job[Any]) -> ClosedError:
        message = f"the client was closed while the purchase of {self.provider} job {job.key} was under way"
        billed: Billed = "unknown" if job in self.ledger.posting else "no"
        return ClosedError(message, provider=self.provider, token=job.token_or_none(), billed=billed)

    def _ended(self, job: Job[Any]) -> None:
        self.account.give_place_back(job)
        if job.done:
            self.ledger.stopped.discard(job)
        else:
            self.ledger.stopped.add(job)

    # --- buying ---

    async def submit_job(
        self,
        kind: JobKind[T],
        call: Call,
        read: Callable[[Reply], Submitted],
        *,
        model: str | None = None,
        max_wait: float,
        resend_uncertain: bool | None,
    ) -> Job[T]:
        """Buy from a provider that answers with an id, and return once it has."""
        wait = checked_wait(max_wait)
        self.check_open()
        job = Job(kind, model=model)
        await self._buy(job, self._offer(job, call, read, QUICK_TIMEOUT), wait, resend_uncertain)
        return job

    async def generate_blocking(self, order: BlockingOrder, *, resend_uncertain: bool | None) -> Generation:
        """Buy from a provider that answers with the pictures, and wait for them."""
        self.check_open()
        job, offer = self._blocking_job(order)
        await self._buy(job, offer, PLACE_WAIT, resend_uncertain)
        return await job.result()

    def submit_blocking(self, order: BlockingOrder, *, resend_uncertain: bool | None) -> Job[Generation]:
        """Buy in the background from a provider that answers with the pictures; return the job at once."""
        self.check_open()
        job, offer = self._blocking_job(order)
        self.ledger.buying.add(job)
        self.runtime.buyers.spawn(self._buy_for_waiters(job, offer, resend_uncertain))
        return job

    def _blocking_job(self, order: BlockingOrder) -> tuple[Job[Generation], Offer[Report]]:
        kind = self.kind("image", _UNUSED_PACE, _never_asked, self.redeem)
        job = Job(kind, model=order.model, requested=order.requested)
        return job, self._offer(job, order.call, order.read, self.terms.answer_timeout)

    def _offer(self, job: Job[Any], call: Call, read: Callable[[Reply], T], default_timeout: float) -> Offer[T]:
        return Offer(
            provider=self.provider,
            key=job.key,
            call=call,
            read=read,
            timeout=default_timeout if self.terms.timeout is None else self.terms.timeout,
            failure_is_documented=self.terms.failure_is_documented,
        )

    async def _buy_for_waiters(self, job: Job[Any], offer: Offer[Any], resend_uncertain: bool | None) -> None:
        """Buy in the background; what goes wrong waits in the job."""
        try:
            await self._buy(job, offer, PLACE_WAIT, resend_uncertain)
        except MirageError as error:
            _logger.info("%r was not bought: %s", job, type(error).__name__)

    async def _buy(self, job: Job[Any], offer: Offer[Any], max_wait: float, resend_uncertain: bool | None) -> None:
        """Buy, and return once the provider has accepted; raises what the caller gets otherwise.

        Cancelling before the POST has left buys nothing. Afterwards the POST goes on in the background, and an
        accepted job appears in `jobs`. Closing the client ends the wait the same way, with `ClosedError`.
        """
        self.ledger.buying.add(job)
        try:
            with self.runtime.until_closed() as closing:
                await self._take_place(job, max_wait)
                outcome = await purchase(
                    lambda: self._attempt(job, offer, job.submitted_at + max_wait),
                    clock=self.runtime.clock,
                    budget=max_wait,
                    max_retry_after=self.terms.max_retry_after,
                    resend_uncertain=self.terms.resend_uncertain if resend_uncertain is None else resend_uncertain,
                )
                if outcome.error is not None:
                    raise outcome.error
            if closing.cancelled_caught:
                error = self._closed_while_buying(job)
                job.stop(error)
                raise error
        except ClosedError:
            raise
        except MirageError as error:
            await refuse(job, error)
            raise copy.copy(error) from None
        finally:
            if job not in self.ledger.posting:
                self.ledger.buying.discard(job)
                if job.id is None:
                    self.account.give_place_back(job)

    async def _take_place(self, job: Job[Any], max_wait: float) -> None:
        if self.account.limits.jobs is not None:
            with anyio.move_on_after(max_wait) as scope:
                await self.account.take_place(job)
            if scope.cancelled_caught:
                raise job.wait_timeout("waiting for a place among the account's jobs in flight ran out")

    async def _attempt(self, job: Job[Any], offer: Offer[Any], deadline: float) -> Attempt[Any]:
        """Make one attempt: wait until the account and a slot are free, then leave the rest to the background."""
        pause = self.account.paused_until - self.runtime.clock.monotonic()
        if pause > 0:
            await self.runtime.clock.sleep(pause)
        await self.runtime.transport.paid_posts.acquire_on_behalf_of(job)
        answer: asyncio.Future[Attempt[Any]] = asyncio.get_running_loop().create_future()
        self.ledger.posting.add(job)
        self.runtime.posts.spawn(self._post(job, offer, deadline, answer))
        outcome = await answer
        if outcome.fate is Fate.THROTTLED:
            self.account.pause(self.runtime.clock.monotonic(), outcome.retry_after)
        return outcome

    async def _post(
        self, job: Job[Any], offer: Offer[Any], deadline: float, answer: asyncio.Future[Attempt[Any]]
    ) -> None:
        try:
            outcome = await self._send(job, offer)
            if outcome.value is not None:
                await self._accepted(job, outcome.value, deadline)
        except Exception as error:  # a mistake of ours must reach the caller, not leave them waiting for ever
            if not answer.done():
                answer.set_exception(error)
            raise
        finally:
            self.runtime.transport.paid_posts.release_on_behalf_of(job)
            self.ledger.posting.discard(job)
            if answer.done():
                self.ledger.buying.discard(job)  # the caller was cancelled and left the tidying to us
        if not answer.done():
            answer.set_result(outcome)
        elif outcome.error is not None:
            await refuse(job, outcome.error)

    async def _send(self, job: Job[Any], offer: Offer[Any]) -> Attempt[Any]:
        try:
            await self.runtime.recorder.intended(job)
        except MirageError as error:
            return Attempt(fate=Fate.REFUSED, error=error)
        return await attempt(self.runtime.transport, self.endpoint, offer)

    async def _accepted(self, job: Job[Any], value: Submitted | Report, deadline: float) -> None:
        if isinstance(value, Submitted):
            await accept(job, value, deadline)
        elif job.claim():
            await conclude(job, value)

    async def redeem(self, job: Job[Generation], report: Report) -> Generation:
        """Turn the report of a finished image job into what its waiters get."""
        return await redeem_pictures(self.runtime, job, report, allow_private=self.endpoint.loopback)

    # --- asking ---

    async def ask_once(self, call: Call, read: Callable[[Reply], T]) -> T:
        """Ask a question that costs nothing, once; everything that goes wrong is a `MirageError`."""
        silence = QUICK_TIMEOUT if self.terms.timeout is None else self.terms.timeout
        try:
            reply = await self.runtime.transport.exchange(self.endpoint, call, silence=silence)
        except NotSentError as error:
            msg = f"no connection to {self.provider} was obtained: {error}"
            raise ConnectionFailedError(msg, provider=self.provider) from None
        except LostError as error:
            msg = f"{self.provider} gave no usable answer: {error}"
            raise ResponseError(msg, provider=self.provider) from None
        return read(reply)

    async def ask(self, call: Call, read: Callable[[Reply], T]) -> T:
        """Ask a question that costs nothing, again after trouble, for about half a minute."""
        self.check_open()
        retrier = Retrier(self.runtime.clock, tries=QUESTION_TRIES, budget=QUESTION_BUDGET, max_floor=QUESTION_BUDGET)
        while True:
            try:
                with anyio.fail_after(QUICK_TIMEOUT):
                    return await self.ask_once(call, read)
            except TimeoutError:
                error: MirageError = ResponseError(f"{self.provider} gave no answer within {QUICK_TIMEOUT:g} s")
            except (ConnectionFailedError, ResponseError) as raised:
                error = raised
            except APIError as raised:
                if raised.status != 429 and raised.status < 500:  # noqa: PLR2004 - HTTP's own numbers
                    raise
                error = raised
            if not await retrier.again(getattr(error, "retry_after", None)):
                raise error


async def _never_asked(job: Job[Any]) -> Report:
    msg = f"{job.provider} has no status call to ask with"
    raise InputError(msg, provider=job.provider)
