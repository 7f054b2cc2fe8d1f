"""What the sandbox notes of each request, and how it answers requests nobody documents."""

from __future__ import annotations

import asyncio
from dataclasses import FrozenInstanceError

import aiohttp
import pytest
from calling import API_KEY, BEARER, calling, left_behind, until

from mirage_async.sandbox import Sandbox

pytestmark = pytest.mark.anyio


async def test_a_request_is_noted_with_its_secrets_removed() -> None:
    """Everything is kept for assertions except the values of credentials."""
    async with calling() as caller:
        headers = {**BEARER, **API_KEY, "Cookie": "a=b", "X-Mine": "kept"}
        await caller.post("/v1/image/async_generate?a=1&b=2", {"prompt": "p"}, headers)
        (seen,) = caller.sandbox.requests
        assert (seen.operation, seen.provider, seen.method) == ("mirako.create", "mirako", "POST")
        assert (seen.path, seen.query) == ("/v1/image/async_generate", {"a": "1", "b": "2"})
        assert seen.headers["x-mine"] == "kept"
        assert seen.authorized
        assert (seen.body, seen.fields, seen.status) == (b'{"prompt": "p"}', {"prompt": "p"}, 200)
        assert seen.at == caller.clock.monotonic()
        assert "sk-test" not in repr(seen)
        for name in ("authorization", "x-api-key", "cookie"):
            assert seen.headers[name] == "<redacted>"


async def test_notes_are_frozen_and_the_list_is_a_copy() -> None:
    """Nobody can change what was seen."""
    async with calling() as caller:
        await caller.get("/")
        caller.sandbox.requests.clear()
        (seen,) = caller.sandbox.requests
        with pytest.raises(FrozenInstanceError):
            seen.status = 1  # type: ignore[misc]


async def test_a_download_tells_whether_any_key_was_sent() -> None:
    """A key of any kind on a download route is noticed, needed or not."""
    async with calling() as caller:
        for headers in ({}, API_KEY, BEARER):
            await caller.get("/img/x.png", headers)
        assert [seen.authorized for seen in caller.sandbox.requests] == [False, True, True]


async def test_every_answer_has_a_request_id() -> None:
    """Ids count up in order of arrival, errors included."""
    async with calling() as caller:
        paths = ["/nowhere", "/v1/avatar/list", "/img/x.png"]
        ids = [(await caller.get(path)).headers["X-Request-Id"] for path in paths]
        assert ids == ["req-000001", "req-000002", "req-000003"]


async def test_an_unknown_path_is_not_found() -> None:
    """A path no provider documents is 404 as JSON, and noted as unknown."""
    async with calling() as caller:
        reply = await caller.post("/v1/images/edits", {"prompt": "p"})
        assert (reply.status, reply.json) == (404, {"error": "Nothing at POST /v1/images/edits"})
        seen = caller.sandbox.requests[0]
        assert (seen.operation, seen.provider, seen.status) == ("unknown", "", 404)


async def test_a_wrong_method_is_not_allowed() -> None:
    """A known path with another method is 405 in the provider's shape and says which method it wants."""
    async with calling() as caller:
        reply = await caller.get("/v1/images/generate")
        assert (reply.status, reply.json) == (405, {"detail": "GET is not allowed here; use POST."})
        assert reply.headers["Allow"] == "POST"
        assert (await caller.post("/v1/avatar/list")).headers["Allow"] == "GET"
        assert (await caller.post("/img/x.png")).headers["Allow"] == "GET, HEAD"
        assert (caller.sandbox.requests[0].operation, caller.sandbox.requests[0].provider) == ("unknown", "mira")


async def test_a_body_over_the_limit_is_too_large() -> None:
    """64 MiB is the limit; more is 413 in the provider's shape."""
    async with calling() as caller:

        async def chunks() -> object:
            for _ in range(65):
                yield bytes(2**20)

        reply = await caller.post("/v1/images/generate", data=chunks())
        assert (reply.status, reply.json) == (413, {"detail": "The request body is too large."})
        assert caller.sandbox.requests[0].body == b""


async def test_a_body_that_breaks_off_is_noted_without_an_answer() -> None:
    """A client that leaves in mid-body is recorded, buys nothing, and disturbs nobody."""
    async with calling() as caller:
        _, writer = await asyncio.open_connection("127.0.0.1", int(caller.sandbox.url.rpartition(":")[2]))
        head = "POST /v1/images/generate HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"
        writer.write(head.encode())
        await until(lambda: caller.sandbox.requests)
        writer.close()
        await writer.wait_closed()
        assert (await caller.get("/v1/avatar/list", BEARER)).status == 200
        assert (caller.sandbox.requests[0].status, caller.sandbox.statistics().purchases) == (None, {})


async def test_a_compressed_body_that_is_not_is_refused() -> None:
    """A body its own headers misdescribe is 400 in the provider's shape."""
    async with calling() as caller:
        headers = {**BEARER, "Content-Encoding": "gzip", "Content-Type": "application/json"}
        reply = await caller.post("/v1/images/generate", data=b"this is not gzip", headers=headers)
        assert reply.status == 400


async def test_a_blocking_purchase_is_finished_for_a_client_that_left() -> None:
    """The provider works on and charges; only the answer finds nobody."""
    async with Sandbox(durations=0.03) as sandbox, aiohttp.ClientSession() as http:

        async def buy() -> object:
            return await http.post(sandbox.url + "/v1/images/generate", json={"prompt": "p"}, headers=BEARER)

        await left_behind(buy(), lambda: sandbox.jobs)
        await until(lambda: sandbox.statistics().purchases)
        assert sandbox.statistics().purchases == {"mira": 1}
        assert sandbox.requests[0].status is None


async def test_statistics_count_requests_purchases_jobs_and_faults() -> None:
    """One frozen object holds the figures of the moment, and repr shows the main ones."""
    async with calling() as caller:
        await caller.post("/v1/image/async_generate", {"prompt": "p"})
        await caller.post("/v1/image/async_generate", {"prompt": ""})
        await caller.get("/nowhere")
        figures = caller.sandbox.statistics()
        assert figures.requests == {"mirako.create": 2, "unknown": 1}
        assert (figures.purchases, figures.open_jobs, figures.faults_waiting) == ({"mirako": 1}, 1, 0)
        assert "3 requests, 1 open jobs, 0 faults waiting" in repr(caller.sandbox)
        assert repr(caller.sandbox.jobs) == "<JobStore 1 jobs, 1 open>"
        caller.clock.advance(8)
        assert caller.sandbox.statistics().open_jobs == 0


async def test_whatever_looks_like_a_secret_by_its_name_is_taken_out() -> None:
    """Clients with the wrong settings send keys in odd places; a failed assertion must not print them."""
    async with calling() as caller:
        webhook = {"url": "http://me:pw@127.0.0.1:9/x", "auth_token": "tok-1"}
        headers = {**BEARER, "X-Api-Token": "tok-2"}
        await caller.post("/v1/image/async_generate?api_key=tok-3&n=1", {"prompt": "p", "webhook": webhook}, headers)
        (seen,) = caller.sandbox.requests
        assert (seen.headers["x-api-token"], seen.query) == ("<redacted>", {"api_key": "<redacted>", "n": "1"})
        assert seen.fields["webhook"] == webhook
        shown = repr(caller.sandbox.requests) + str(caller.sandbox.transcript())
        assert [secret for secret in ("tok-1", "tok-2", "tok-3", "me:pw", "sk-test") if secret in shown] == []
