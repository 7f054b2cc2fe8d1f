"""Buying for one provider account.

`buy` waits for a place among the account's jobs, for pauses the provider asked for, and for an HTTP slot, and leaves
the POST to a background task, because cancelling a caller does not un-send a request. That task records, sends, and
gives the job its id or its result. `buy` re-sends where the table in `purchase` allows it and raises what the caller
gets. Closing the client ends the waits at once; a request on the wire gets a grace to bring home what it bought.
"""

from __future__ import annotations

import asyncio
import copy
import logging
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import msgspec

from mirage_async._tasks import fail, fulfil
from mirage_async.exceptions import (
    ClosedError,
    ConnectionFailedError,
    InputError,
    JournalError,
    MirageError,
    SubmissionUncertainError,
)
from mirage_async.jobs import Intent, NullRecorder, accept, conclude, refuse
from mirage_async.purchase import Attempt, Fate, Offer, attempt, resend, uncertain
from mirage_async.wire import Report, Submitted

if TYPE_CHECKING:
    from mirage_async._transport import Endpoint
    from mirage_async.clients._ledger import Ledger
    from mirage_async.clients._runtime import Runtime
    from mirage_async.jobs import Job

__all__ = ["Buyer", "Terms"]

T = TypeVar("T")

_logger = logging.getLogger("mirage_async.clients")

_PROVEN_UNPAID = frozenset({Fate.NOT_SENT, Fate.REFUSED, Fate.THROTTLED, Fate.MOVED})


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


class Buyer:
    """Buys at one endpoint, for one account.

    Args:
        runtime: the shared parts.
        endpoint: address and key.
        terms: how to buy.
        ledger: the account and its jobs.
    """

    def __init__(self, runtime: Runtime, *, endpoint: Endpoint, terms: Terms, ledger: Ledger) -> None:
        self._runtime = runtime
        self._endpoint = endpoint
        self._account = ledger.account
        self._terms = terms
        self._ledger = ledger
        runtime.open_buyers.add(self)

    async def buy(
        self,
        job: Job[T],
        offer: Offer[Any],
        *,
        max_wait: float,
        resend_uncertain: bool | None = None,
        in_background: bool = False,
    ) -> Job[T]:
        """Buy, and return the job once the provider has accepted it; raises what the caller gets otherwise.

        Cancelling before the POST has left buys nothing. Afterwards the POST goes on in the background, and what it
        buys appears in `jobs`. With `in_background` nobody is told what it raises: that waits in the job.
        """
        ledger, runtime, deadline = self._ledger, self._runtime, job.submitted_at + max_wait
        ledger.buying.add(job)
        try:
            if runtime.closed or self._account.limits.jobs is not None:
                await self._take_place(job, max_wait)
            outcome = await (await self._begin(job, offer, deadline))
            if outcome.fate is not Fate.ACCEPTED:  # as it nearly always is
                outcome = await resend(
                    outcome,
                    partial(self._attempt, job, offer, deadline),
                    clock=runtime.waits,
                    until=deadline,
                    max_retry_after=self._terms.max_retry_after,
                    resend_uncertain=self._terms.resend_uncertain if resend_uncertain is None else resend_uncertain,
                )
            if outcome.error is not None:
                raise outcome.error
        except MirageError as error:
            told = await _not_bought(job, error)
            if job.done and not in_background:
                job.hand_over()
            raise told from None
        except asyncio.CancelledError:
            self._keep(job, offer)
            raise
        finally:
            if job not in ledger.posting:
                ledger.buying.discard(job)
                if job.id is None:
                    self._account.give_place_back(job)
        return job

    async def buy_for_waiters(
        self, job: Job[Any], offer: Offer[Any], *, max_wait: float, resend_uncertain: bool | None
    ) -> None:
        """Buy in the background; what goes wrong waits in the job."""
        try:
            await self.buy(job, offer, max_wait=max_wait, resend_uncertain=resend_uncertain, in_background=True)
        except MirageError as error:
            _logger.info("the purchase of %r ended with %s (billed: %s)", job, type(error).__name__, error.billed)

    def let_go(self) -> None:
        """Tell whoever still waits for a purchase that everything is closed."""
        for job in tuple(self._ledger.buying):
            job.stop(job.closed_error())
        self._ledger.buying.clear()

    def _keep(self, job: Job[Any], offer: Offer[Any]) -> None:
        """Keep what is bought, or may be, for a caller who was cancelled."""
        posting = self._ledger.posting
        if job in posting or job.may_be_billed:
            self._ledger.adopt(job)
        if job not in posting and job.may_be_billed and job.id is None and not job.done:
            # An attempt ended uncertain and the caller left before hearing of it.
            posting.add(job)
            self._runtime.posts.spawn(self._left_behind(job, offer))

    async def _take_place(self, job: Job[Any], max_wait: float) -> None:
        job.buying = "place"
        with self._runtime.until(job.submitted_at + max_wait) as wait:
            await self._account.take_place(job)
        if wait.over:
            raise job.wait_timeout("place", max_wait)

    async def _attempt(self, job: Job[Any], offer: Offer[Any], deadline: float) -> Attempt[Any]:
        return await (await self._begin(job, offer, deadline))

    async def _begin(self, job: Job[Any], offer: Offer[Any], deadline: float) -> asyncio.Future[Attempt[Any]]:
        """Begin an attempt: wait until the account and a slot are free, then leave the rest to the background.

        Returns:
            Where its outcome will be.
        """
        runtime, slots = self._runtime, self._runtime.transport.paid_posts
        if self._account.pauses.uneasy:
            await self._take_turn(job, deadline)
        try:
            slots.acquire_on_behalf_of_nowait(job)
        except anyio.WouldBlock:
            await self._wait_for_slot(job, deadline)
        if runtime.closed or runtime.clock.monotonic() >= deadline:
            slots.release_on_behalf_of(job)
            runtime.check_open()
            raise job.wait_timeout(job.buying)
        job.buying = "job"
        answer: asyncio.Future[Attempt[Any]] = asyncio.get_running_loop().create_future()
        self._ledger.posting.add(job)
        runtime.posts.spawn(self._post(job, offer, deadline, answer))
        return answer

    async def _take_turn(self, job: Job[Any], deadline: float) -> None:
        """Wait for the end of a pause, and after it for a turn, at whatever pace is the right one by then."""
        clock, pauses = self._runtime.waits, self._account.pauses
        job.buying = "pause" if clock.monotonic() < pauses.until else "spacing"
        if pauses.until >= deadline:  # known by now, so not slept out
            raise job.wait_timeout("pause")
        try:
            pauses.turns.acquire_nowait()
        except anyio.WouldBlock:
            with self._runtime.until(deadline) as wait:
                await pauses.turns.acquire()
            if wait.over:
                raise job.wait_timeout("pause" if clock.monotonic() < pauses.until else "spacing") from None
        try:
            while (at := pauses.purchase_at(now := clock.monotonic())) > now:
                job.buying = "pause" if now < pauses.until else "spacing"
                if at >= deadline:
                    raise job.wait_timeout(job.buying)
                await clock.sleep(at - now)
            pauses.purchased_at = now
        finally:
            pauses.turns.release()

    async def _wait_for_slot(self, job: Job[Any], deadline: float) -> None:
        job.buying = "slot"
        with self._runtime.until(deadline) as wait:
            await self._runtime.transport.paid_posts.acquire_on_behalf_of(job)
        if wait.over:
            raise job.wait_timeout("slot") from None

    async def _post(
        self, job: Job[Any], offer: Offer[Any], deadline: float, answer: asyncio.Future[Attempt[Any]]
    ) -> None:
        if answer.cancelled():  # the last moment in which cancelling buys nothing
            self._runtime.transport.paid_posts.release_on_behalf_of(job)
            self._let_alone(job)
            return
        try:
            outcome = await self._send(job, offer, deadline, answer)
            value: Submitted | Report | None = outcome.value
            if isinstance(value, Submitted):
                finished = await accept(job, value, deadline)
                if finished is not None:  # announced as finished: its picture is fetched without a slot being held
                    self._runtime.posts.spawn(self._conclude(job, finished))
            elif value is not None and job.claim():
                await conclude(job, value)
        except asyncio.CancelledError:  # everything closes, and the grace is over
            job.stop(job.closed_error())
            self._let_alone(job)
            fail(answer, job.closed_error())
            raise
        except Exception as error:
            _logger.exception("the purchase of %r (key %s, id %s) failed in an unforeseen way", job, job.key, job.id)
            outcome = uncertain(offer, f"an unforeseen {type(error).__name__}")
        finally:
            self._runtime.transport.paid_posts.release_on_behalf_of(job)
        if not fulfil(answer, outcome):
            await self._left_behind(job, offer, outcome)
        else:
            self._ledger.posting.discard(job)
            self._runtime.posts.leave()

    async def _left_behind(self, job: Job[Any], offer: Offer[Any], outcome: Attempt[Any] | None = None) -> None:
        """End a purchase whose caller was cancelled; until it has an end, whoever asks with its key finds it at work.

        Args:
            job: it, among those that post.
            offer: what was to be bought.
            outcome: of the last attempt; None where the caller left with an uncertain one in hand.
        """
        try:
            if outcome is None or isinstance(outcome.error, SubmissionUncertainError):
                error = uncertain(offer, "the caller was cancelled before the outcome was known").error
                assert error is not None  # noqa: S101 - says so to the type checker
                await refuse(job, error)
                _logger.warning("nobody waits any more for %r (key %s), which may have been bought", job, job.key)
            elif isinstance(outcome.error, ClosedError):
                job.stop(outcome.error)
            elif outcome.error is not None:
                await refuse(job, outcome.error)
        finally:
            self._let_alone(job)

    def _let_alone(self, job: Job[Any]) -> None:
        """Note that nobody works on a purchase any more whose caller was cancelled, and tell those who ask for it."""
        self._ledger.posting.discard(job)
        self._ledger.buying.discard(job)
        if job.id is None and not job.done:
            if self._runtime.closed:
                job.stop(job.closed_error())
            job.stir()

    async def _send(
        self, job: Job[Any], offer: Offer[Any], deadline: float, answer: asyncio.Future[Attempt[Any]]
    ) -> Attempt[Any]:
        """Record the intent, send, and draw the conclusions that do not depend on who waits."""
        before = job.may_be_billed  # by an earlier attempt that ended uncertain
        outcome: Attempt[Any]
        silent = type(self._runtime.recorder) is NullRecorder  # whose answer needs no waiting for
        refusal = None if silent else await self._intend(job, offer, deadline)
        if refusal is not None:
            outcome = Attempt(fate=Fate.REFUSED, error=refusal)
        else:
            if answer.cancelled():  # the caller left while that was written down, and nothing else has left yet
                if before:
                    return uncertain(offer, "the caller was cancelled before it was sent again")
                msg = f"the purchase of the {job.provider} job {job.key} was cancelled before anything was sent"
                return Attempt(fate=Fate.NOT_SENT, error=ConnectionFailedError(msg, provider=job.provider))
            job.may_be_billed = True
            pauses, asked = self._account.pauses, self._runtime.clock.monotonic()
            outcome = await attempt(self._runtime.transport, self._endpoint, offer)
            if outcome.fate is Fate.ACCEPTED:  # as nearly always
                if pauses.uneasy:
                    pauses.calm(asked)
                return outcome
            if outcome.fate is Fate.THROTTLED:
                self._account.pause(self._runtime.clock.monotonic(), outcome.retry_after, asked=asked)
            if outcome.fate in _PROVEN_UNPAID:
                await self._withdraw(job)
        if outcome.fate in _PROVEN_UNPAID:
            job.may_be_billed = before
            if before and outcome.error is not None:
                outcome.error.billed = "unknown"
        return outcome

    async def _intend(self, job: Job[Any], offer: Offer[Any], deadline: float) -> MirageError | None:
        """Record that a request is about to leave; return why it must not."""
        recorder, runtime = self._runtime.recorder, self._runtime
        try:
            with runtime.until(deadline) as wait:
                await recorder.intended(job, _intent(offer, deadline))
        except ClosedError:
            refusal: MirageError = job.closed_error()
        except InputError as error:  # a caller's own key that somebody else has, or nobody knows
            return error
        except Exception as error:
            _logger.exception("the purchase of %r is not made, because it cannot be recorded", job)
            msg = f"the purchase of the {job.provider} job {job.key} was not made: it cannot be recorded ({error})"
            return error if isinstance(error, MirageError) else JournalError(msg, provider=job.provider)
        else:
            if runtime.closed:
                refusal = job.closed_error()
            elif wait.over or runtime.clock.monotonic() >= deadline:
                refusal = job.wait_timeout("journal")
            else:
                return None
        # What was to be recorded is, or will be as soon as the disk answers. Nobody waits for that.
        runtime.posts.spawn(self._withdraw(job))
        return refusal

    async def _withdraw(self, job: Job[Any]) -> None:
        """Record that nothing was bought; where that fails, what is recorded says less than is known, never more."""
        try:
            await self._runtime.recorder.withdrawn(job)
        except Exception:
            _logger.exception("that %r (key %s) was not bought is not recorded", job, job.key)

    async def _conclude(self, job: Job[Any], report: Report) -> None:
        try:
            await conclude(job, report)
        finally:
            if not job.done:  # everything closes, and the grace is over
                job.stop(job.closed_error())


async def _not_bought(job: Job[Any], error: MirageError) -> MirageError:
    """End a job whose purchase ended so, and return what the caller gets."""
    if isinstance(error, ClosedError):
        closed = job.closed_error()
        job.stop(closed)
        return closed
    await refuse(job, error)
    return copy.copy(error)


def _intent(offer: Offer[Any], deadline: float) -> Intent:
    return Intent(
        account=offer.account,
        call=offer.call,
        blocking=offer.blocking,
        announced=offer.announced,
        own_key=offer.own_key,
        deadline=deadline,
    )
