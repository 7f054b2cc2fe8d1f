"""Faults: what the client sees, what was bought, and in which order they strike."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from calling import API_KEY, BEARER, Caller, calling, left_behind, until

from mirage_async.sandbox import Fault, Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.anyio

CREATE = "/v1/image/async_generate"
PROMPT = {"prompt": "hills", "aspect_ratio": "1:1"}


@pytest.fixture(autouse=True)
def quiet_log(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """However badly a connection ends, the server reports no errors of its own."""
    yield
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def raw_exchange(caller: Caller, method: str = "GET", path: str = "/v1/avatar/list") -> bytes:
    """Send a request over a bare socket and return all that comes back."""
    _, _, port = caller.sandbox.url.rpartition(":")
    reader, writer = await asyncio.open_connection("127.0.0.1", int(port))
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer k\r\nContent-Length: 0\r\n\r\n"
    writer.write(head.encode())
    try:
        return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


def purchases(sandbox: Sandbox) -> int:
    """Return how much was bought in all."""
    return sum(sandbox.statistics().purchases.values())


@pytest.mark.parametrize(
    ("operation", "path", "expected"),
    [
        ("mirako.create", CREATE, {"status": 429, "title": "Too Many Requests"}),
        ("miragic.create", "/api/v1/image/generate", {"success": False}),
        ("mira.generate", "/v1/images/generate", {"detail": "Too many requests"}),
        ("milady.generate", "/api/v1/generate-image", {"error": "Too many requests"}),
    ],
)
async def test_a_status_is_answered_in_the_providers_shape(operation: str, path: str, expected: dict[str, Any]) -> None:
    """A status alone gets the provider's own error body and the headers given; nothing is bought."""
    async with calling() as caller:
        caller.sandbox.fail(operation, Fault(status=429, headers={"Retry-After": "1"}))
        reply = await caller.post(path, PROMPT, {**BEARER, **API_KEY})
        assert (reply.status, reply.headers["Retry-After"]) == (429, "1")
        assert reply.json.items() >= expected.items()
        assert purchases(caller.sandbox) == 0
        assert caller.sandbox.requests[0].status == 429


async def test_miladys_402_says_what_is_required() -> None:
    """The documented price stands beside the error text."""
    async with calling() as caller:
        caller.sandbox.fail("milady.generate", Fault(status=402))
        assert (await caller.post("/api/v1/generate-image", PROMPT)).json["required"] == 0.02


async def test_faults_strike_in_order_one_request_each() -> None:
    """Queued faults are consumed first in, first out, and then the service is well again."""
    async with calling() as caller:
        caller.sandbox.fail("mirako.create", Fault(status=500), Fault(status=503))
        caller.sandbox.fail("mirako.create", Fault(status=499))
        assert caller.sandbox.statistics().faults_waiting == 3
        statuses = [(await caller.post(CREATE, PROMPT)).status for _ in range(4)]
        assert statuses == [500, 503, 499, 200]
        assert (await caller.get("/v1/avatar/list", BEARER)).status == 200
        assert caller.sandbox.statistics().faults_waiting == 0


@pytest.mark.parametrize(
    ("body", "content_type", "sent"),
    [
        (b"\x00\x01", "application/octet-stream", b"\x00\x01"),
        ("plain", "text/plain; charset=utf-8", b"plain"),
        (" <html>", "text/html; charset=utf-8", b" <html>"),
        ({"data": {}}, "application/json", b'{"data":{}}'),
        ([], "application/json", b"[]"),
    ],
)
async def test_a_body_replaces_the_genuine_answer(body: Any, content_type: str, sent: bytes) -> None:
    """Status 200 with a body is sent as it is given, typed by what it looks like."""
    async with calling() as caller:
        caller.sandbox.fail("mirako.create", Fault(status=200, body=body))
        reply = await caller.post(CREATE, PROMPT)
        assert (reply.status, reply.headers["Content-Type"], reply.body) == (200, content_type, sent)
        assert purchases(caller.sandbox) == 0


async def test_a_content_type_of_ones_own_wins() -> None:
    """Headers may name the content type, in any case; a success without a body is empty."""
    async with calling() as caller:
        caller.sandbox.fail("mirako.create", Fault(status=200, headers={"content-type": "image/png"}))
        reply = await caller.post(CREATE, PROMPT)
        assert (reply.headers.getall("Content-Type"), reply.body) == (["image/png"], b"")


async def test_after_means_the_work_was_done_and_charged() -> None:
    """A fault after the work leaves the job behind, though the client never learned of it."""
    async with calling() as caller:
        caller.sandbox.fail("mirako.create", Fault(status=502, body="<h1>Bad Gateway</h1>", when="after"))
        caller.sandbox.fail("mira.generate", Fault(reset=True, when="after"))
        assert (await caller.post(CREATE, PROMPT)).status == 502
        assert [job.prompt for job in caller.sandbox.jobs.values()] == ["hills"]
        with pytest.raises(aiohttp.ClientError):
            await caller.post("/v1/images/generate", PROMPT)
        assert caller.sandbox.statistics().purchases == {"mirako": 1, "mira": 1}


async def test_a_reset_is_a_tcp_reset() -> None:
    """The client sees the connection reset rather than closed, and nothing was bought."""
    async with calling() as caller:
        caller.sandbox.fail("mirako.avatar_list", Fault(reset=True))
        with pytest.raises(ConnectionResetError):
            await raw_exchange(caller)
        assert caller.sandbox.requests[0].status is None


async def test_a_stall_ends_in_silence() -> None:
    """After its seconds a stalled connection is closed without a byte."""
    async with calling(time="jumping") as caller:
        caller.sandbox.fail("mirako.avatar_list", Fault(stall=30))
        assert await raw_exchange(caller) == b""
        assert caller.elapsed == 30.0
        assert caller.sandbox.requests[0].status is None


async def test_an_endless_stall_lasts_until_the_client_leaves() -> None:
    """The request hangs for as long as the client cares to wait."""
    async with calling() as caller:
        caller.sandbox.fail("mirako.create", Fault(stall=float("inf"), when="after"))
        await left_behind(caller.post(CREATE, PROMPT), lambda: purchases(caller.sandbox))
        await until(lambda: caller.sandbox.requests)
        assert (purchases(caller.sandbox), caller.sandbox.requests[0].status) == (1, None)
        assert (await caller.post(CREATE, PROMPT)).status == 200


@pytest.mark.parametrize("cut", [0, 5, 10**6])
async def test_a_cut_sends_a_whole_head_and_too_little_body(cut: int) -> None:
    """The head promises the full length; the body stops short even when the number given would reach its end."""
    async with calling() as caller:
        caller.sandbox.fail("mirako.avatar_list", Fault(cut=cut))
        head, _, body = (await raw_exchange(caller)).partition(b"\r\n\r\n")
        whole = b'{"data":null}'
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert f"Content-Length: {len(whole)}".encode() in head
        assert b"X-Request-Id: req-000001" in head
        assert body == whole[: min(cut, len(whole) - 1)]
        assert caller.sandbox.requests[0].status == 200


async def test_a_cut_purchase_was_bought() -> None:
    """A cut always comes after the work, so the client has paid for what it cannot read."""
    async with calling() as caller:
        caller.sandbox.fail("mirako.create", Fault(cut=3))
        with pytest.raises(aiohttp.ClientPayloadError):
            await caller.post(CREATE, PROMPT)
        assert purchases(caller.sandbox) == 1


async def test_a_cut_download_is_an_incomplete_picture() -> None:
    """A cut works on picture bytes as on anything else."""
    async with calling() as caller:
        url = (await caller.post("/v1/images/generate", PROMPT)).json["data"][0]["url"]
        caller.sandbox.fail("mira.download", Fault(cut=1000))
        with pytest.raises(aiohttp.ClientPayloadError):
            await caller.get(url)
        assert (await caller.get(url)).status == 200


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_cut_head_never_reaches_its_end(when: Any) -> None:
    """The first line breaks off in the middle of its number, so that no client can take it for an answer."""
    async with calling() as caller:
        caller.sandbox.fail("mirako.avatar_list", Fault(cut_head=True, when=when))
        received = await raw_exchange(caller)
        assert received == b"HTTP/1.1 2"
        assert caller.sandbox.requests[0].status is None


async def test_garbage_is_sent_as_it_is() -> None:
    """The bytes given arrive where an answer was expected, and nothing after them."""
    async with calling() as caller:
        caller.sandbox.fail("mirako.avatar_list", Fault(garbage=b"SSH-2.0-OpenSSH\r\n"))
        assert await raw_exchange(caller) == b"SSH-2.0-OpenSSH\r\n"


async def test_leaving_does_not_wait_for_stalled_requests() -> None:
    """Closing the sandbox ends a stall and a blocking purchase at once."""
    before = asyncio.all_tasks()
    async with aiohttp.ClientSession() as http:
        async with Sandbox(durations=30.0) as sandbox:
            sandbox.fail("mirako.avatar_list", Fault(stall=float("inf")))
            calls = [
                asyncio.create_task(http.get(sandbox.url + "/v1/avatar/list", headers=BEARER)),
                asyncio.create_task(http.post(sandbox.url + "/v1/images/generate", json=PROMPT, headers=BEARER)),
            ]
            await until(lambda: sandbox.jobs and len(sandbox.requests) == len(calls))
            started = time.monotonic()
        assert time.monotonic() - started < 1
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert asyncio.all_tasks() - before <= {asyncio.current_task()}
        assert all(isinstance(result, aiohttp.ClientError) for result in results)


def test_an_unknown_operation_is_refused_with_the_known_ones() -> None:
    """The message lists every operation there is."""
    with pytest.raises(ValueError, match=r"'mirako.make'; known: milady.download, .*mirako.status"):
        Sandbox().fail("mirako.make", Fault(reset=True))


def test_no_fault_is_refused() -> None:
    """Asking for a failure without saying which is a mistake."""
    with pytest.raises(ValueError, match=r"no fault was given for 'mira.generate'"):
        Sandbox().fail("mira.generate")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "exactly one of status, reset, stall, cut, cut_head, garbage, dribble, flaw; got none"),
        ({"status": 500, "reset": True}, "got status, reset"),
        ({"reset": True, "body": "x"}, "headers, body and retry_after belong to a status"),
        ({"stall": 1, "headers": {}}, "headers, body and retry_after belong to a status"),
        ({"status": 199}, "status must be a whole number from 200 to 599, got 199"),
        ({"status": 600}, "got 600"),
        ({"status": "429"}, "got '429'"),
        ({"status": 429, "headers": [("a", "b")]}, "headers must be a mapping of text to text"),
        ({"status": 429, "headers": {"Retry-After": 1}}, "got {'Retry-After': 1}"),
        ({"status": 200, "headers": {"content-Length": "5"}}, "there for; got 'content-Length'"),
        ({"status": 200, "headers": {"X": "1", "Transfer-Encoding": "chunked"}}, "got 'Transfer-Encoding'"),
        ({"status": 200, "headers": {"Connection": "close"}}, "headers must not be connection, content-length, "),
        ({"status": 200, "headers": {"Trailer": "X"}}, "got 'Trailer'"),
        ({"status": 200, "headers": {"Upgrade": "h2c"}}, "got 'Upgrade'"),
        ({"status": 200, "body": "\ud800"}, "body must be text that UTF-8 can say, got '\\ud800'"),
        ({"status": 200, "body": {"said": ["\udfff"]}}, "body must be text that UTF-8 can say, got {"),
        ({"status": 200, "body": {1, object}}, "body must be bytes, text or JSON, got {"),
        ({"stall": -1}, "stall must be seconds, zero or more (up to a billion), got -1"),
        ({"stall": float("nan")}, "got nan"),
        ({"stall": True}, "got True"),
        ({"cut": -1}, "cut must be a number of bytes, zero or more, got -1"),
        ({"cut": 1.5}, "got 1.5"),
        ({"garbage": "text"}, "garbage must be bytes, got 'text'"),
        ({"reset": True, "when": "later"}, 'when must be "before" or "after", got \'later\''),
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(arguments: dict[str, Any], message: str) -> None:
    """Arguments are checked at the door and the message shows the value."""
    with pytest.raises(ValueError, match=r".") as refusal:
        Fault(**arguments)
    assert message in str(refusal.value)
