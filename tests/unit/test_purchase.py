"""One submit, one outcome: the whole table of fates, without a socket, and the re-sends it allows."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, cast

import anyio
import pytest

from mirage_async import purchase as module
from mirage_async._transport import Endpoint, LostError, NotSentError, Transport
from mirage_async.exceptions import (
    APIError,
    BadRequestError,
    ConfigurationError,
    ConnectionFailedError,
    MirageError,
    RateLimitError,
    ResponseError,
    ServerError,
    SubmissionUncertainError,
)
from mirage_async.purchase import Attempt, Fate, Offer, attempt, resend, weigh
from mirage_async.testing import FakeClock
from mirage_async.wire import Call, Reply, Submitted, miragic

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.anyio

TAKEN = json.dumps({"success": True, "data": {"jobId": "j1"}}).encode()
DENIED = json.dumps({"success": False, "error": {"code": "NOPE", "message": "not today"}}).encode()
OWN_ERROR = json.dumps({"success": False, "error": {"code": "OOPS", "message": "generation failed"}}).encode()
PAGE = b"<html><body>Bad gateway</body></html>"
KEY = "0f" * 16


def offer(*, documented: bool = False, read: Callable[[Reply], Any] = miragic.read_submitted) -> Offer[Any]:
    """Return an offer read by Miragic's codec."""
    return Offer(
        provider="miragic",
        key=KEY,
        call=Call(method="POST", path="/api/v1/image/generate"),
        read=read,
        timeout=60,
        failure_is_documented=documented,
    )


def expected(  # noqa: PLR0911 - a row of the table each
    status: int, *, wait: bool, documented: bool, own: bool
) -> tuple[Fate, type[MirageError] | None, str]:
    """Return fate, error and billing by the table of outcomes, written a second time and differently."""
    match status:
        case _ if status // 100 == 2:
            return Fate.ACCEPTED, None, ""
        case 400 | 401 | 402 | 403 | 404 | 405 | 413 | 415 | 422:
            return Fate.REFUSED, APIError, "no"
        case 429:
            return Fate.THROTTLED, RateLimitError, "no"
        case 503 if wait:
            return Fate.THROTTLED, ServerError, "no"
        case 500 if documented and own:
            return Fate.FAILED, ServerError, "unknown"
        case 307 | 308:
            return Fate.MOVED, ConfigurationError, "no"
        case _:
            return Fate.UNCERTAIN, SubmissionUncertainError, "unknown"


@pytest.mark.parametrize("documented", [False, True], ids=["500 undocumented", "500 documented"])
@pytest.mark.parametrize("own", [False, True], ids=["page", "own error"])
@pytest.mark.parametrize("wait", [None, "7", "soon"], ids=["no wait", "wait", "unusable wait"])
def test_every_status_has_the_fate_the_table_gives_it(*, documented: bool, own: bool, wait: str | None) -> None:
    """All statuses from 100 to 599, with and without Retry-After, in the provider's words and in a proxy's."""
    headers = {} if wait is None else {"retry-after": wait}
    for status in range(100, 600):
        body = TAKEN if status // 100 == 2 else OWN_ERROR if own else PAGE
        outcome = weigh(Reply(status=status, headers=headers, body=body), offer(documented=documented))
        fate, kind, billed = expected(status, wait=wait == "7", documented=documented, own=own)
        assert outcome.fate is fate, status
        if kind is None:
            assert outcome.error is None
            assert outcome.value == Submitted(id="j1")
            continue
        assert outcome.value is None
        assert isinstance(outcome.error, kind), status
        assert outcome.error.billed == billed, status
        assert outcome.error.provider == "miragic"
        if fate is Fate.THROTTLED:
            assert outcome.retry_after == (7 if wait == "7" else None)
        if isinstance(outcome.error, SubmissionUncertainError):
            assert (outcome.error.key, outcome.error.status) == (KEY, status)
            assert KEY in str(outcome.error)


@pytest.mark.parametrize("status", [200, 201, 202])
def test_a_success_that_denies_success_is_a_refusal(status: int) -> None:
    """`success: false` in a 2xx bought nothing, and nothing is sent again."""
    outcome = weigh(Reply(status=status, body=DENIED), offer())
    assert outcome.fate is Fate.REFUSED
    assert isinstance(outcome.error, BadRequestError)
    assert (outcome.error.billed, outcome.error.code) == ("no", "NOPE")


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", PAGE, b'{"success": true}', b'{"success": true, "data": {}}', b'{"data": {"jobId": "../x"}}'],
    ids=["empty", "cut", "list", "page", "no data", "no id", "bad id"],
)
def test_a_success_without_a_usable_id_is_uncertain(body: bytes) -> None:
    """The money may be gone: an answer that cannot be used is not an answer that can be ignored."""
    outcome = weigh(Reply(status=200, body=body), offer())
    assert outcome.fate is Fate.UNCERTAIN
    assert isinstance(outcome.error, SubmissionUncertainError)
    assert (outcome.error.billed, outcome.error.key, outcome.error.status) == ("unknown", KEY, 200)


def test_an_uncertain_outcome_tells_what_to_do() -> None:
    """The message says what is unknown, where to look and how to insist."""
    outcome = weigh(Reply(status=500, body=PAGE), offer())
    assert "miragic may or may not have taken the job" in str(outcome.error)
    assert "resend_uncertain=True" in str(outcome.error)


# --- one attempt ---


class FakeTransport:
    """Answers or raises what it was given."""

    def __init__(self, outcome: Reply | Exception) -> None:
        self.outcome = outcome
        self.asked: list[tuple[float | None, float | None]] = []

    async def exchange(
        self,
        endpoint: Endpoint,  # noqa: ARG002 - the transport's signature
        call: Call,  # noqa: ARG002 - same
        *,
        silence: float | None = None,
        deadline: float | None = None,
    ) -> Reply:
        """Give the outcome."""
        self.asked.append((silence, deadline))
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


async def attempted(outcome: Reply | Exception) -> Attempt[Any]:
    """Make one attempt with that outcome."""
    transport = FakeTransport(outcome)
    endpoint = Endpoint("https://a.example", ("X-API-Key", "k"))
    with anyio.fail_after(30):
        made = await attempt(cast("Transport", transport), endpoint, offer())
    assert transport.asked == [(None, 60)]
    return made


async def test_an_attempt_without_connection_was_not_sent() -> None:
    """No connection, no purchase: the error says so and bills nothing."""
    made = await attempted(NotSentError("ClientConnectorError: Connection refused"))
    assert made.fate is Fate.NOT_SENT
    assert isinstance(made.error, ConnectionFailedError)
    assert made.error.billed == "no"
    assert str(made.error) == (
        "no connection to miragic was obtained (ClientConnectorError: Connection refused); nothing was sent"
    )


async def test_an_attempt_that_lost_its_answer_is_uncertain() -> None:
    """Once a connection was there, the server may have everything."""
    made = await attempted(LostError("no answer within 60 s"))
    assert made.fate is Fate.UNCERTAIN
    assert isinstance(made.error, SubmissionUncertainError)
    assert made.error.status is None
    assert "no usable answer came: no answer within 60 s" in str(made.error)


async def test_an_attempt_with_an_answer_is_weighed() -> None:
    """An answer decides by the table."""
    made = await attempted(Reply(status=200, body=TAKEN))
    assert (made.fate, made.value) == (Fate.ACCEPTED, Submitted(id="j1"))


# --- re-sends ---


class QuickClock(FakeClock):
    """A clock whose sleeps return at once and are remembered."""

    def __init__(self) -> None:
        super().__init__()
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        """Let the time pass without waiting."""
        self.slept.append(seconds)
        await self.advance(seconds)


class Sender:
    """Gives one prepared outcome after the other; the last one stays."""

    def __init__(self, *outcomes: Attempt[str]) -> None:
        self.outcomes = list(outcomes)
        self.sent = 0

    async def send(self) -> Attempt[str]:
        """Count and answer."""
        self.sent += 1
        return self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]


def failed(fate: Fate, retry_after: float | None = None) -> Attempt[str]:
    """Return an attempt that bought nothing."""
    return Attempt(fate=fate, error=ResponseError(fate.value), retry_after=retry_after)


BOUGHT: Attempt[str] = Attempt(fate=Fate.ACCEPTED, value="j1")


async def bought(
    sender: Sender,
    clock: FakeClock,
    *,
    budget: float = 300,
    max_retry_after: float = 60,
    resend_uncertain: bool = False,
) -> Attempt[str]:
    """Purchase with the usual bounds."""
    with anyio.fail_after(30):
        until = clock.monotonic() + budget
        return await resend(
            await sender.send(),
            sender.send,
            clock=clock,
            until=until,
            max_retry_after=max_retry_after,
            resend_uncertain=resend_uncertain,
        )


@pytest.mark.parametrize("fate", Fate)
@pytest.mark.parametrize("resend_uncertain", [False, True])
async def test_only_what_surely_bought_nothing_is_sent_again(fate: Fate, *, resend_uncertain: bool) -> None:
    """Not sent and throttled are sent twice more; uncertain only where the caller asked for it; nothing else ever."""
    sender = Sender(failed(fate))
    outcome = await bought(sender, QuickClock(), resend_uncertain=resend_uncertain)
    resent = {Fate.NOT_SENT, Fate.THROTTLED} | ({Fate.UNCERTAIN} if resend_uncertain else set())
    assert sender.sent == (3 if fate in resent else 1)
    assert outcome.fate is fate


@pytest.mark.parametrize("after", [1, 2])
async def test_a_re_send_that_is_accepted_ends_the_matter(after: int) -> None:
    """As soon as one attempt is accepted there is no further one."""
    sender = Sender(*[failed(Fate.NOT_SENT)] * after, BOUGHT)
    clock = QuickClock()
    assert await bought(sender, clock) is BOUGHT
    assert sender.sent == after + 1
    assert len(clock.slept) == after


async def test_an_outcome_that_is_worse_than_the_one_before_stands() -> None:
    """A throttled attempt followed by an uncertain one is uncertain: it is not sent again."""
    sender = Sender(failed(Fate.THROTTLED), failed(Fate.UNCERTAIN), BOUGHT)
    assert (await bought(sender, QuickClock())).fate is Fate.UNCERTAIN
    assert sender.sent == 2


async def test_throttling_is_waited_out_as_long_as_the_provider_asks() -> None:
    """Retry-After is a floor under the wait before the next attempt."""
    clock = QuickClock()
    await bought(Sender(failed(Fate.THROTTLED, 20), failed(Fate.THROTTLED, 60), BOUGHT), clock)
    assert 20 <= clock.slept[0] <= 20.2
    assert 60 <= clock.slept[1] <= 60.3


async def test_throttling_longer_than_the_bound_ends_at_once() -> None:
    """A provider that asks for more than `max_retry_after` is not waited for."""
    clock, sender = QuickClock(), Sender(failed(Fate.THROTTLED, 61), BOUGHT)
    assert (await bought(sender, clock)).fate is Fate.THROTTLED
    assert (sender.sent, clock.slept) == (1, [])
    allowed = Sender(failed(Fate.THROTTLED, 61), BOUGHT)
    assert await bought(allowed, clock, max_retry_after=61) is BOUGHT


async def test_no_attempt_begins_after_the_budget() -> None:
    """A wait that would end after the budget is not begun."""
    clock, sender = QuickClock(), Sender(failed(Fate.THROTTLED, 20), BOUGHT)
    assert (await bought(sender, clock, budget=10)).fate is Fate.THROTTLED
    assert (sender.sent, clock.slept) == (1, [])


async def test_cancelling_between_attempts_means_no_further_one() -> None:
    """A caller that leaves during the wait buys nothing any more."""
    clock, sender = FakeClock(), Sender(failed(Fate.NOT_SENT), BOUGHT)
    task = asyncio.ensure_future(bought(sender, clock))
    await clock.advance(0.1)
    task.cancel()
    with anyio.fail_after(30), pytest.raises(asyncio.CancelledError):
        await task
    await clock.advance(100)
    assert sender.sent == 1


def test_the_table_in_the_module_names_every_fate() -> None:
    """The table people read and the one the code goes by have the same rows."""
    assert module.__doc__ is not None
    assert all(f"\n{fate.name} " in module.__doc__ for fate in Fate)
