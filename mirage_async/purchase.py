"""One submit, one outcome: what became of a request that costs money, and whether it may be sent again.

No provider documents an idempotency key, so a second POST is a second purchase unless it is certain that the first one
bought nothing. That is certain in two cases only: no connection was ever obtained, or the provider said in so many
words that it did not take the request. Everything else is `Fate.UNCERTAIN`, is told to the caller as such, and is sent
again only where the caller asked for that beforehand.

=============  ==============================================================  ==========================  =========
fate           when                                                            what the caller gets        billed
=============  ==============================================================  ==========================  =========
NOT_SENT       no connection was obtained (DNS, refused, TLS, proxy)           up to 2 re-sends, then      no
                                                                               `ConnectionFailedError`
REFUSED        400 401 402 403 404 405 413 415 422; 2xx that denies success    its `APIError`              no
THROTTLED      429; 503 with a usable Retry-After                              up to 2 re-sends, then      no
                                                                               `RateLimitError` or
                                                                               `ServerError`
ACCEPTED       2xx with an id or a result                                      the job                     yes
FAILED         500 with the provider's own error body, where its document      `ServerError`               unknown
               calls 500 "generation failed"
MOVED          307, 308                                                        `ConfigurationError`        no
UNCERTAIN      everything else                                                 `SubmissionUncertainError`  unknown
=============  ==============================================================  ==========================  =========
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec

from mirage_async._retry import Retrier
from mirage_async._transport import Endpoint, LostError, NotSentError, Transport
from mirage_async.exceptions import (
    APIError,
    ConfigurationError,
    ConnectionFailedError,
    MirageError,
    ResponseError,
    SubmissionUncertainError,
)
from mirage_async.wire import Call, Reply, is_well_formed_error, read_unquoted

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from mirage_async._clock import Clock

__all__ = ["Attempt", "Fate", "Offer", "attempt", "resend", "uncertain"]

T = TypeVar("T")

RESENDS = 2


class Fate(enum.Enum):
    """What became of one attempt to buy; the table above says more."""

    NOT_SENT = "not sent"
    REFUSED = "refused"
    THROTTLED = "throttled"
    ACCEPTED = "accepted"
    FAILED = "failed"
    MOVED = "moved"
    UNCERTAIN = "uncertain"


FATES: dict[int, Fate] = {
    **dict.fromkeys((400, 401, 402, 403, 404, 405, 413, 415, 422), Fate.REFUSED),
    429: Fate.THROTTLED,
    307: Fate.MOVED,
    308: Fate.MOVED,
}


class Offer(msgspec.Struct, Generic[T], frozen=True, kw_only=True, gc=False):
    """What is to be bought, and how its answer is read.

    Attributes:
        provider: the provider's name.
        key: our key of the job, carried by an uncertain outcome.
        call: the request.
        read: turns a 2xx answer into a value, or raises `APIError` (a refusal after all) or `ResponseError`.
        timeout: seconds for the whole exchange.
        failure_is_documented: the provider's document says what a 500 means for a purchase.
        account: an alias of provider, address and key.
        blocking: the provider answers with the pictures themselves.
        announced: the request gives the provider an address to call back.
        own_key: the key is one the caller chose.
    """

    provider: str
    key: str
    call: Call
    read: Callable[[Reply], T]
    timeout: float
    failure_is_documented: bool = False
    account: str = ""
    blocking: bool = False
    announced: bool = False
    own_key: bool = False


class Attempt(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """What became of one POST.

    Attributes:
        fate: a row of the table.
        value: what the provider gave, if it accepted.
        error: what the caller gets, if it did not.
        retry_after: seconds the provider asks to wait, or None.
    """

    fate: Fate
    value: T | None = None
    error: MirageError | None = None
    retry_after: float | None = None


async def attempt(transport: Transport, endpoint: Endpoint, offer: Offer[T]) -> Attempt[T]:
    """Send the POST once and say what became of it; raises nothing but a cancellation."""
    try:
        reply = await transport.exchange(endpoint, offer.call, deadline=offer.timeout)
    except NotSentError as error:
        message = f"no connection to {offer.provider} was obtained ({error}); nothing was sent"
        return Attempt(fate=Fate.NOT_SENT, error=ConnectionFailedError(message, provider=offer.provider))
    except LostError as error:
        return uncertain(offer, f"no usable answer came: {error}")
    return weigh(reply, offer)


def weigh(reply: Reply, offer: Offer[T]) -> Attempt[T]:
    """Decide by the answer. Pure, so that every row of the table can be tested without a socket."""
    try:
        return Attempt(fate=Fate.ACCEPTED, value=read_unquoted(reply, offer.read, offer.call.private))
    except (APIError, ConfigurationError, ResponseError) as raised:
        error = raised.with_traceback(None)  # whose frames hold the answer
    return _weigh_error(error, reply, offer)


def _weigh_error(error: MirageError, reply: Reply, offer: Offer[T]) -> Attempt[T]:
    status = reply.status
    fate = FATES.get(status, Fate.UNCERTAIN)
    retry_after = error.retry_after if isinstance(error, APIError) else None
    if isinstance(error, APIError) and 200 <= status < 300:  # noqa: PLR2004 - HTTP's own numbers
        fate = Fate.REFUSED
    elif status == 503 and retry_after is not None:  # noqa: PLR2004
        fate = Fate.THROTTLED
    elif status == 500 and offer.failure_is_documented and is_well_formed_error(reply):  # noqa: PLR2004
        fate = Fate.FAILED
    if fate is Fate.UNCERTAIN or isinstance(error, ResponseError):
        return uncertain(offer, str(error), status)
    error.billed = "unknown" if fate is Fate.FAILED else "no"
    return Attempt(fate=fate, error=error, retry_after=retry_after)


def uncertain(offer: Offer[T], why: str, status: int | None = None) -> Attempt[T]:
    """Build the outcome of an attempt of which nobody can say whether it bought anything."""
    error = SubmissionUncertainError(
        f"{offer.provider} may or may not have taken the job: {why.rstrip('.')}. Look at the provider's "
        f"dashboard before you buy again; only resend_uncertain=True would send it again unasked (key {offer.key})",
        provider=offer.provider,
        key=offer.key,
        status=status,
    )
    return Attempt(fate=Fate.UNCERTAIN, error=error)


async def resend(
    outcome: Attempt[T],
    send: Callable[[], Awaitable[Attempt[T]]],
    *,
    clock: Clock,
    until: float,
    max_retry_after: float,
    resend_uncertain: bool,
) -> Attempt[T]:
    """Attempt again after a first attempt, at most twice, as long as the table allows it; return how it ends.

    Cancelling during a wait between attempts means that no further one is made.

    Args:
        outcome: of the first attempt.
        send: makes one attempt.
        clock: whose time the waits use.
        until: when attempts may no longer begin, in the clock's seconds.
        max_retry_after: the longest wait in seconds a provider may ask for; a longer one ends the attempts at once.
        resend_uncertain: the caller accepts the risk of paying twice.
    """
    resendable = {Fate.NOT_SENT, Fate.THROTTLED}
    if resend_uncertain:
        resendable.add(Fate.UNCERTAIN)
    budget = until - clock.monotonic()
    retrier = Retrier(clock, tries=1 + RESENDS, budget=budget, initial=0.5, maximum=8.0, max_floor=max_retry_after)
    while outcome.fate in resendable and await retrier.again(outcome.retry_after):
        outcome = await send()
    return outcome
