"""One purchase, one outcome: every way a paid POST can fail, against every provider, with the server's own count."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import anyio
import pytest
from impatient import ImpatientClock, until
from purchases import KEY, PURCHASES, Purchase, buying, honest, portrait, quick
from rogues import Act, Seen, answer, closed_port, json_answer, rogue, stalled_port

from mirage_async import Limits, MiraClient, MirakoClient
from mirage_async.exceptions import (
    APIError,
    AuthenticationError,
    BadRequestError,
    ConfigurationError,
    ConnectionFailedError,
    InsufficientCreditsError,
    MirageError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    ServerError,
    SubmissionUncertainError,
)
from mirage_async.sandbox import Fault, Sandbox
from mirage_async.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.anyio

HTML = b"<html><body><h1>Bad gateway</h1></body></html>"
ERROR = {"success": False, "error": {"code": "TROUBLE", "message": "no luck today"}}
every_purchase = pytest.mark.parametrize("purchase", PURCHASES, ids=repr)
every_blocking = pytest.mark.parametrize(
    "purchase", [p for p in PURCHASES if p.provider in {"mira", "milady"}], ids=repr
)

Outcome: TypeAlias = tuple[type[MirageError], str]
UNCERTAIN: Outcome = (SubmissionUncertainError, "unknown")


@dataclass(frozen=True)
class Row:
    """One row of the table: what the server does, and what the caller and the server then know.

    Attributes:
        name: for the test's id.
        act: what the server does each time.
        outcome: the exception's class and its `billed`.
        posts: requests the server was sent.
        waits: the least seconds waited between the attempts, in all.
        timeout: seconds the client waits for an answer.
    """

    name: str
    act: Act
    outcome: Outcome = UNCERTAIN
    posts: int = 1
    waits: float = 0.0
    timeout: float = 5.0

    def __repr__(self) -> str:
        return self.name


def _lost_connections() -> Iterator[Row]:
    """Once a connection was obtained, everything without a whole answer is uncertain."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
    for end in ("rst", "fin"):
        yield Row(f"{end} after accept", Act(read=False, then=end), posts=0)
        yield Row(f"{end} after read", Act(then=end))
        yield Row(f"{end} in the head", Act(write=b"HTTP/1.1 200 OK\r\nConte", then=end))
        yield Row(f"{end} after the head", Act(write=head + b"Content-Length: 500\r\n\r\n", then=end))
    yield Row("silence", Act(then="hold"), timeout=0.15)
    yield Row("silence in the head", Act(write=b"HTTP/1.1 200", then="hold"), timeout=0.15)
    yield Row("silence in the body", Act(write=head + b"Content-Length: 9\r\n\r\n{", then="hold"), timeout=0.15)
    yield Row("a head that drips", Act(write=b"HTTP/1.1 200 OK\r\nX-Drip: ", then="drip"), timeout=0.15)
    yield Row("a body that drips", Act(write=head + b'Content-Length: 9999\r\n\r\n"', then="drip"), timeout=0.15)
    yield Row("endless 100 Continue", Act(write=b"HTTP/1.1 100 Continue\r\n\r\n" * 3, then="hold"), timeout=0.15)
    yield Row("junk", Act(write=b"\x00\x01\x02 not HTTP at all\r\n\r\n"))
    yield Row("another protocol", Act(write=b"SSH-2.0-OpenSSH_9.6\r\n"))
    yield Row("junk as the version", Act(write=b"HTTP/x.y 200 OK\r\n\r\n{}"))
    yield Row("two lengths", Act(write=head + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{} "))
    yield Row("length and chunks", Act(write=head + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}"))
    yield Row("negative length", Act(write=head + b"Content-Length: -2\r\n\r\n{}"))
    yield Row("huge header", Act(write=head + b"X-Long: " + b"x" * 70_000 + b"\r\n\r\n{}"))
    for coding in ("gzip", "deflate", "br", "zstd", "banana"):
        body = answer(200, b"\xff\xfe\xfdnot that coding", {"Content-Encoding": coding})
        yield Row(f"content encoding {coding}", Act(write=body))
    yield Row("cut body with length", Act(write=head + b'Content-Length: 500\r\n\r\n{"data": {"task_id": "abc"}}'))
    yield Row("cut chunks", Act(write=head + b'Transfer-Encoding: chunked\r\n\r\n40\r\n{"data": '))
    yield Row("half JSON without framing", Act(write=head + b'\r\n{"data": {"task_id": "ab'))


def _refusals() -> Iterator[Row]:
    """A refusal is final and free, whoever worded it."""
    kinds: dict[int, type[APIError]] = dict.fromkeys((400, 405, 413, 415, 422), BadRequestError)
    kinds |= {401: AuthenticationError, 402: InsufficientCreditsError, 403: PermissionDeniedError, 404: NotFoundError}
    for status, kind in kinds.items():
        for what, write in _bodies(status):
            yield Row(f"{status} {what}", Act(write=write), (kind, "no"))
    yield Row("200 success false", Act(write=json_answer(ERROR)), (BadRequestError, "no"))


def _throttles() -> Iterator[Row]:
    """Asked to come back later, we do, twice at most; asked for too much, we say so at once."""
    slow: Outcome = (RateLimitError, "no")
    busy: Outcome = (ServerError, "no")
    moment = {"Date": "Mon, 01 Jan 2024 00:00:00 GMT"}
    soon = moment | {"Retry-After": "Mon, 01 Jan 2024 00:00:20 GMT"}
    late = moment | {"Retry-After": "Mon, 01 Jan 2024 00:02:00 GMT"}
    for what, body in (("JSON", ERROR), ("HTML", HTML), ("empty", b"")):
        for status, outcome in ((429, slow), (503, busy)):

            def act(headers: dict[str, str], status: int = status, body: object = body) -> Act:
                whole = answer(status, body, headers) if isinstance(body, bytes) else json_answer(body, status, headers)
                return Act(write=whole)

            yield Row(f"{status} {what} Retry-After 7", act({"Retry-After": "7"}), outcome, posts=3, waits=14)
            yield Row(f"{status} {what} Retry-After 0", act({"Retry-After": "0"}), outcome, posts=3, waits=1.5)
            yield Row(f"{status} {what} Retry-After date", act(soon), outcome, posts=3, waits=40)
            yield Row(f"{status} {what} Retry-After 60", act({"Retry-After": "60"}), outcome, posts=3, waits=120)
            yield Row(f"{status} {what} Retry-After 61", act({"Retry-After": "61"}), outcome)
            yield Row(f"{status} {what} Retry-After late date", act(late), outcome)
        bare = act({}, status=429)
        yield Row(f"429 {what} bare", bare, slow, posts=3, waits=1.5)
        yield Row(f"429 {what} Retry-After soon", act({"Retry-After": "soon"}, status=429), slow, posts=3, waits=1.5)
        yield Row(f"503 {what} Retry-After soon", act({"Retry-After": "soon"}))
        yield Row(f"503 {what} Retry-After -5", act({"Retry-After": "-5"}))
    yield Row(
        "429 with the wait in its body",
        Act(write=json_answer({"error": "Too many requests", "retryAfter": 9}, 429)),
        slow,
        posts=3,
        waits=18,
    )


def _unclear_answers() -> Iterator[Row]:
    """What does not say whether work was begun is uncertain."""
    for status in (408, 409, 410, 418, 425, 451, 500, 502, 503, 504, 520):
        for what, write in _bodies(status):
            yield Row(f"{status} {what}", Act(write=write))
    for status in (204, 300, 301, 302, 303, 304):
        headers = {"Location": "/elsewhere"}
        yield Row(f"{status}", Act(write=answer(status, b"", headers)))
    for body in (b"", b"null", b"[]", b'"fine"', b"{", HTML, b"\xff\xfe", b"{}", b"{'success': True}", b"[" * 5000):
        yield Row(f"200 {body[:20]!r}", Act(write=answer(200, body)))
    hollows: tuple[dict[str, Any], ...] = (
        {"success": True},
        {"data": {}},
        {"data": None},
        {"data": [], "images": [{}]},
    )
    for hollow in hollows:
        yield Row(f"200 {hollow}", Act(write=json_answer(hollow)))
    paths = ("../../v1/avatar", "a/b", "a?b=c", "a#b", "a%2fb")
    ids: tuple[Any, ...] = (*paths, "a b", "", "-a", "_a", "é", "a\n", "x" * 129, None, 1.5, True, [], {"id": "a"}, -1)
    for found in ids:
        body = json_answer({"success": True, "data": {"task_id": found, "avatar_id": found, "jobId": found}})
        yield Row(f"200 id {found!r:.20}", Act(write=body))


def _moves() -> Iterator[Row]:
    """A permanent or temporary redirect means that the request was not processed; it is never followed."""
    for status in (307, 308):
        act = Act(write=answer(status, b"", {"Location": "/elsewhere"}))
        yield Row(f"{status}", act, (ConfigurationError, "no"))


def _bodies(status: int) -> tuple[tuple[str, bytes], ...]:
    html = answer(status, HTML, {"Content-Type": "text/html"})
    return ("JSON", json_answer(ERROR, status)), ("HTML", html), ("empty", answer(status))


ROWS = (*_lost_connections(), *_refusals(), *_throttles(), *_unclear_answers(), *_moves())
MILADY_FAILED = ("500 JSON",)  # the one row in which providers differ: Milady's page says what its 500 means


@every_purchase
@pytest.mark.parametrize("row", ROWS, ids=repr)
async def test_every_failure_has_its_outcome(purchase: Purchase, row: Row) -> None:
    """Class, `billed` and the number of POSTs follow the table in `mirage_async.purchase`."""
    kind, billed = row.outcome
    if purchase.provider == "milady" and row.name in MILADY_FAILED:
        kind, billed = ServerError, "unknown"
    clock = ImpatientClock()
    with anyio.fail_after(30):
        async with rogue(row.act) as server, buying(purchase, server.url, clock, timeout=row.timeout) as client:
            with pytest.raises(kind, match=purchase.provider) as caught:
                await purchase.buy(client)
            assert type(caught.value) is kind
            assert caught.value.billed == billed
            assert caught.value.provider == purchase.provider
            assert len(server.posts) == len(server.requests) == row.posts
            assert server.connections == max(row.posts, 1)
            assert client.jobs == ()
    assert sum(clock.slept) >= row.waits
    assert (row.posts == 3) == bool(clock.slept)
    if isinstance(caught.value, SubmissionUncertainError):
        assert re.fullmatch("[0-9a-f]{32}", caught.value.key or "")
        assert "resend_uncertain" in str(caught.value)


# -- not sent --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Unreachable:
    """A way of never getting a connection: to a fixed address, or to a server that takes no part in TLS."""

    name: str
    url: str = ""
    act: Act | None = None
    timeout: float | None = 5.0

    def __repr__(self) -> str:
        return self.name


UNREACHABLE = (
    Unreachable("refused", "refused"),
    Unreachable("no such name", "http://nobody.invalid"),
    Unreachable("connect stalls", "stalled", timeout=0.05),
    Unreachable("plain text where TLS was expected", act=Act(read=False, write=b"HTTP/1.1 400 Bad Request\r\n\r\n")),
    Unreachable("TLS handshake stalls", act=Act(read=False, then="hold"), timeout=0.05),
    Unreachable("TLS handshake is reset", act=Act(read=False, then="rst")),
    Unreachable("TLS handshake is closed", act=Act(read=False, then="fin")),
)


@every_purchase
@pytest.mark.parametrize("row", UNREACHABLE, ids=repr)
async def test_without_a_connection_nothing_was_sent_and_three_attempts_are_made(
    purchase: Purchase, row: Unreachable
) -> None:
    """No connection, no purchase: tried three times, then `ConnectionFailedError`, billed "no"."""
    clock = ImpatientClock()
    with anyio.fail_after(30), stalled_port() as stalled:
        async with rogue(row.act or Act()) as server:
            secure = server.url.replace("http:", "https:")
            url = {"refused": closed_port(), "stalled": stalled, "": secure}.get(row.url, row.url)
            async with buying(purchase, url, clock, timeout=row.timeout) as client:
                with pytest.raises(ConnectionFailedError, match="nothing was sent") as caught:
                    await purchase.buy(client)
                assert client.jobs == ()
            assert caught.value.billed == "no"
            assert server.requests == []
            assert server.connections == (3 if row.act else 0)
    assert len(clock.slept) == 2


@every_purchase
async def test_a_connection_obtained_at_the_second_attempt_buys_once(purchase: Purchase) -> None:
    """A re-send after `not sent` is the first POST the provider sees."""
    with anyio.fail_after(30):
        url = closed_port()
        async with contextlib.AsyncExitStack() as stack:
            late = LateServer(url, stack)
            async with buying(purchase, url, late) as client:
                await purchase.buy(client)
            assert late.server is not None
            assert late.server.statistics().purchases == {purchase.provider: 1}
            assert len([seen for seen in late.server.requests if seen.method == "POST"]) == 1


class LateServer(ImpatientClock):
    """A clock at whose first sleep a sandbox comes up."""

    def __init__(self, url: str, stack: contextlib.AsyncExitStack) -> None:
        super().__init__()
        self.server: Sandbox | None = None
        self._stack = stack
        self._port = int(url.rpartition(":")[2])

    async def sleep(self, seconds: float) -> None:
        """Start the server, then go on."""
        if self.server is None:
            self.server = await self._stack.enter_async_context(Sandbox(port=self._port, durations=0.0))
        await super().sleep(seconds)


async def test_a_server_that_stops_reading_leaves_the_purchase_uncertain() -> None:
    """A request that is not taken off the wire has left all the same: its deadline ends it, once."""
    large = portrait() + bytes(9 << 20)
    with anyio.fail_after(30):
        async with (
            rogue(Act(read=False, then="deaf")) as server,
            MirakoClient(KEY, base_url=server.url, timeout=0.2, scheduler=quick()) as mirako,
        ):
            with pytest.raises(SubmissionUncertainError, match=r"no answer within 0\.2 s"):
                await mirako.build_avatar("Ada", large)
            assert server.connections == 1


async def test_the_error_of_a_stalled_connection_tells_how_long_it_was_waited_for() -> None:
    """A figure in a message is the one that was in force."""
    with anyio.fail_after(30), stalled_port() as url:
        async with MiraClient(KEY, base_url=url, timeout=0.05, scheduler=quick()) as mira:
            with pytest.raises(ConnectionFailedError, match=r"no connection within 0\.05 s"):
                await mira.generate("a lighthouse")


# -- one lost reply --------------------------------------------------------------------------------------------------

LOST = {
    "reset": Fault(reset=True, when="after"),
    "stall": Fault(stall=0.2, when="after"),
    "cut": Fault(cut=3),
    "cut head": Fault(cut_head=True, when="after"),
    "garbage": Fault(garbage=b"\x16\x03\x01 what\r\n\r\n", when="after"),
    "error page": Fault(status=502, body="<html>", when="after"),
}


@every_purchase
@pytest.mark.parametrize("fault", LOST.values(), ids=LOST)
async def test_a_reply_lost_after_the_purchase_never_buys_twice(purchase: Purchase, fault: Fault) -> None:
    """The provider has done and charged the work: one POST, one purchase, and the caller is told it is uncertain."""
    with anyio.fail_after(30):
        async with Sandbox(durations=0.0) as sandbox, buying(purchase, sandbox.url, timeout=0.1) as client:
            sandbox.fail(purchase.operation, fault)
            with pytest.raises(SubmissionUncertainError, match="may or may not have taken the job") as caught:
                await purchase.buy(client)
            await until(lambda: sandbox.statistics().purchases == {purchase.provider: 1})
            assert sandbox.statistics().requests == {purchase.operation: 1}
    assert re.fullmatch("[0-9a-f]{32}", caught.value.key or "")
    assert str(caught.value.key) in str(caught.value)
    assert caught.value.billed == "unknown"
    assert pickle.loads(pickle.dumps(caught.value)).key == caught.value.key  # noqa: S301 - our own bytes


@every_blocking
async def test_a_blocking_submit_tells_its_trouble_through_the_job(purchase: Purchase) -> None:
    """`submit` returns at once; what became of the request is raised by awaiting the job."""
    with anyio.fail_after(30):
        async with rogue(Act(then="rst")) as server, buying(purchase, server.url) as client:
            job = await client.submit("a lighthouse")
            with pytest.raises(SubmissionUncertainError, match=job.key) as caught:
                await job
            assert caught.value.key == job.key
            assert job.status == "uncertain"
            assert len(server.posts) == 1


# -- resend_uncertain ------------------------------------------------------------------------------------------------


@every_purchase
@pytest.mark.parametrize("per_call", [False, True], ids=["per client", "per call"])
async def test_an_uncertain_purchase_is_sent_again_on_request_twice_at_most(purchase: Purchase, per_call: bool) -> None:
    """`resend_uncertain=True` allows two re-sends, for all calls of a client or for one."""
    options: dict[str, Any] = {"resend_uncertain": True}
    with anyio.fail_after(30):
        async with (
            rogue(Act(then="rst")) as server,
            buying(purchase, server.url, **({} if per_call else options)) as client,
        ):
            with pytest.raises(SubmissionUncertainError, match="may or may not"):
                await purchase.buy(client, **(options if per_call else {}))
            assert len(server.posts) == 3


@every_purchase
async def test_a_call_can_forbid_what_its_client_allows(purchase: Purchase) -> None:
    """The setting of the call wins over that of the client."""
    with anyio.fail_after(30):
        async with (
            rogue(Act(then="rst")) as server,
            buying(purchase, server.url, resend_uncertain=True) as client,
        ):
            with pytest.raises(SubmissionUncertainError, match="may or may not"):
                await purchase.buy(client, resend_uncertain=False)
            assert len(server.posts) == 1


@every_purchase
async def test_a_re_sent_purchase_delivers(purchase: Purchase) -> None:
    """Whoever accepts paying twice gets the second job."""
    with anyio.fail_after(30):
        async with Sandbox(durations=0.0) as sandbox, buying(purchase, sandbox.url) as client:
            sandbox.fail(purchase.operation, Fault(reset=True, when="after"))
            bought = await purchase.buy(client, resend_uncertain=True)
            assert sandbox.statistics().purchases == {purchase.provider: 2}
            assert purchase.blocking or await bought


@every_purchase
async def test_a_refusal_is_never_sent_again(purchase: Purchase) -> None:
    """`resend_uncertain` is about uncertain outcomes; a refusal is certain."""
    with anyio.fail_after(30):
        async with (
            rogue(Act(write=json_answer(ERROR, 422))) as server,
            buying(purchase, server.url, resend_uncertain=True) as client,
        ):
            with pytest.raises(BadRequestError, match="no luck today"):
                await purchase.buy(client)
            assert len(server.posts) == 1


@every_purchase
async def test_a_throttled_purchase_goes_on_after_the_wait(purchase: Purchase) -> None:
    """A 429 and a 503 that name a wait cost time only: the third POST buys."""
    clock = ImpatientClock()
    with anyio.fail_after(30):
        async with Sandbox(durations=0.0) as sandbox, buying(purchase, sandbox.url, clock) as client:
            wait = {"Retry-After": "3"}
            sandbox.fail(purchase.operation, Fault(status=429, headers=wait), Fault(status=503, headers=wait))
            await purchase.buy(client)
            assert sandbox.statistics().requests[purchase.operation] == 3
            assert sandbox.statistics().purchases == {purchase.provider: 1}
    assert sum(clock.slept) >= 6


@every_purchase
async def test_the_longest_wait_is_the_caller_s_to_set(purchase: Purchase) -> None:
    """`max_retry_after` is the cap: one second above it ends the attempts at once."""
    with anyio.fail_after(30):
        async with (
            rogue(Act(write=json_answer(ERROR, 429, {"Retry-After": "3"}))) as server,
            buying(purchase, server.url, max_retry_after=2) as client,
        ):
            with pytest.raises(RateLimitError, match="429") as caught:
                await purchase.buy(client)
            assert caught.value.retry_after == 3
            assert len(server.posts) == 1


@pytest.mark.parametrize("purchase", [one for one in PURCHASES if not one.blocking], ids=repr)
async def test_nothing_is_bought_after_the_wait_for_it_is_over(purchase: Purchase) -> None:
    """`max_wait` runs from `submit`: a purchase that could not be sent within it is not sent at all."""
    throttled = Act(write=json_answer(ERROR, 429, {"Retry-After": "3600"}))
    with anyio.fail_after(30):
        async with (
            rogue(lambda seen: honest(seen) if len(server.posts) > 1 else throttled) as server,
            buying(purchase, server.url) as client,
        ):
            with pytest.raises(RateLimitError, match="429"):
                await purchase.buy(client)
            with contextlib.suppress(MirageError):
                await purchase.buy(client, max_wait=5)
            assert len(server.posts) == 1


# -- cancelling ------------------------------------------------------------------------------------------------------


@every_purchase
async def test_cancelling_during_the_post_raises_at_once_and_keeps_the_job(purchase: Purchase) -> None:
    """Cancelling does not un-send: the POST is brought home in the background and the job can be awaited."""
    gate = asyncio.Event()

    def slow(seen: Seen) -> Act:
        good = honest(seen)
        return Act(write=good.write, gate=gate) if seen.method == "POST" else good

    with anyio.fail_after(30):
        async with rogue(slow) as server, buying(purchase, server.url) as client:
            caller = asyncio.ensure_future(purchase.buy(client))
            await until(lambda: server.posts)
            caller.cancel()
            with pytest.raises(asyncio.CancelledError):
                await caller
            (job,) = client.jobs
            assert (job.status, job.id) == ("submitting", None)
            gate.set()
            assert await job
            assert client.jobs == ()
            assert len(server.posts) == 1


@every_purchase
async def test_cancelling_during_a_post_that_fails_leaves_the_error_in_the_job(purchase: Purchase) -> None:
    """The job of a cancelled caller still learns that its purchase is uncertain."""
    gate = asyncio.Event()
    with anyio.fail_after(30):
        async with rogue(Act(gate=gate, then="rst")) as server, buying(purchase, server.url) as client:
            caller = asyncio.ensure_future(purchase.buy(client))
            await until(lambda: server.posts)
            caller.cancel()
            with pytest.raises(asyncio.CancelledError):
                await caller
            (job,) = client.jobs
            gate.set()
            with pytest.raises(SubmissionUncertainError, match=job.key):
                await job
            assert client.jobs == ()
            assert len(server.posts) == 1


@every_purchase
async def test_cancelling_before_the_post_buys_nothing(purchase: Purchase) -> None:
    """A purchase that waits for a place among the jobs in flight can be cancelled for free, and passes its turn on."""
    gate = asyncio.Event()

    def slow(seen: Seen) -> Act:
        return Act(write=honest(seen).write, gate=gate)

    with anyio.fail_after(30):
        async with rogue(slow) as server, buying(purchase, server.url, limits=Limits(jobs=1)) as client:
            first = asyncio.ensure_future(purchase.buy(client))
            await until(lambda: server.posts)
            second = asyncio.ensure_future(purchase.buy(client))
            third = asyncio.ensure_future(purchase.buy(client))
            await until(lambda: len(client.jobs) == 3)
            second.cancel()
            with pytest.raises(asyncio.CancelledError):
                await second
            assert len(server.posts) == 1
            assert len(client.jobs) == 2
            gate.set()
            for buyer in (first, third):
                bought = await buyer
                assert purchase.blocking or await bought
            assert len(server.posts) == 2


@every_purchase
async def test_cancelling_during_a_retry_after_wait_sends_nothing_more(purchase: Purchase) -> None:
    """Between two attempts nothing is under way, so cancelling ends the purchase."""
    clock = FakeClock()
    throttled = Act(write=json_answer(ERROR, 429, {"Retry-After": "5"}))
    with anyio.fail_after(30):
        async with rogue(throttled) as server, buying(purchase, server.url, clock) as client:
            caller = asyncio.ensure_future(purchase.buy(client))
            await until(lambda: "1 timers" in repr(clock))
            caller.cancel()
            with pytest.raises(asyncio.CancelledError):
                await caller
            assert client.jobs == ()
            await clock.advance(100)
            assert len(server.posts) == 1


def test_the_table_is_whole() -> None:
    """Every way a request can fail is driven."""
    names = {row.name for row in ROWS}
    assert len(names) == len(ROWS)
    statuses = {name[:3] for name in names if name[:3].isdigit()}
    final = {"400", "401", "402", "403", "404", "405", "413", "415", "422"}
    assert statuses >= final | {"408", "409", "410", "425", "429", "500", "502", "503", "504"}
    assert statuses >= {"200", "301", "302", "303", "307", "308"}
