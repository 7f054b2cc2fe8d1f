"""The receiver inside an aiohttp service: behind a prefix, among others, with bodies of three megabytes."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, Any, TypeAlias

import aiohttp
import pytest
from aiohttp import web
from webhook_bench import BODY, SECRET, Bench, path_of
from webhook_hosts import aiohttp_host, exchange, free_port, request, statuses

from mirage_async import Mirage
from mirage_async.sandbox import Sandbox
from mirage_async.webhooks import WebhookReceiver, _aiohttp

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

pytestmark = pytest.mark.anyio

_Handler: TypeAlias = "Callable[[web.Request], Awaitable[web.StreamResponse]]"

KEY = "0123456789abcdef0123456789abcdef"
LAST = "Connection: close\r\n"
LARGE = json.dumps({"id": "task-1", "status": "COMPLETED", "output": {"image": "A" * 3_000_000}}).encode()


def tail(bench: Bench) -> str:
    """Return the last two segments of an address that needs no bearer token."""
    return "/".join(path_of(bench.receiver.callback_url("miragic", KEY)).split("/")[-2:])


def service(bench: Bench, prefix: str = "/hooks") -> web.Application:
    """Return a service with pages of its own and a receiver."""

    async def page(_: web.Request) -> web.Response:
        return web.Response(text="a page")

    app = web.Application()
    app.router.add_get("/", page)
    app.add_subapp(prefix, bench.receiver.aiohttp_app())
    return app


async def test_a_service_takes_deliveries_beside_its_own_pages() -> None:
    """Each has its paths."""
    bench = Bench()
    async with aiohttp_host(service(bench)) as port, aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
        async with session.get("/") as answer:
            assert await answer.text() == "a page"
        async with session.post(f"/hooks/{tail(bench)}", data=BODY) as answer:
            assert (answer.status, await answer.read()) == (204, b"")
            assert "Content-Length" not in answer.headers
            assert "Date" in answer.headers
        async with session.get(f"/hooks/{tail(bench)}") as answer:
            assert (answer.status, answer.headers["Allow"]) == (405, "POST")
        for path in ("/hooks/x", "/hooks/", "/hooks/a/b/c"):
            async with session.post(path) as answer:
                assert answer.status == 404
    assert bench.receiver.statistics().replies == {204: 1, 404: 3, 405: 1}


async def test_bodies_of_three_megabytes_pass_although_the_services_limit_is_one() -> None:
    """A sub-application is held to the limit of its parent by aiohttp; the receiver reads for itself."""
    bench = Bench()
    async with aiohttp_host(service(bench)) as port:
        for head in ("", "Transfer-Encoding: chunked\r\n"):
            body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(LARGE), LARGE) if head else LARGE
            received = await exchange(port, request(f"/hooks/{tail(bench)}", body=body, head=head + LAST))
            assert statuses(received) == [204]
    assert bench.receiver.statistics().replies == {204: 2}


async def test_a_body_above_the_receivers_own_limit_is_413_also_where_its_length_is_not_declared() -> None:
    """It is not read any further."""
    bench = Bench(max_body_bytes=1000)
    big = b'{"a": "' + b"x" * 400_000 + b'"}'
    async with aiohttp_host(service(bench)) as port:
        declared = await exchange(port, request(f"/hooks/{tail(bench)}", body=big, head=LAST))
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(big), big)
        chunked = await exchange(
            port, request(f"/hooks/{tail(bench)}", body=body, head="Transfer-Encoding: chunked\r\n")
        )
    assert (statuses(declared), statuses(chunked)) == ([413], [413])


async def test_a_stranger_who_goes_on_and_on_gets_an_answer_and_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody wants is read for a moment, so that the answer arrives, and no longer."""
    monkeypatch.setattr(_aiohttp, "LET_PASS", 0.2)
    bench = Bench()
    async with aiohttp_host(service(bench)) as port:
        whole = await exchange(port, request("/hooks/mirako/" + "A" * 52, body=LARGE))
        endless = request("/hooks/mirako/" + "A" * 52, body=b"", head="Transfer-Encoding: chunked\r\n")
        pieces = [part for _ in range(100) for part in (b"1\r\nx\r\n", 0.02)]
        cut = await exchange(port, endless, *pieces)
    assert (statuses(whole), statuses(cut)) == ([401], [401])


async def test_many_deliveries_share_a_connection() -> None:
    """Answered in order, also where they were sent without waiting for answers."""
    bench = Bench()
    good, bad = request(f"/hooks/{tail(bench)}", body=BODY), request(f"/hooks/{tail(bench)}", body=b"x")
    last = request(f"/hooks/{tail(bench)}", body=BODY, head=LAST)
    async with aiohttp_host(service(bench)) as port:
        assert statuses(await exchange(port, good, 0.02, bad, 0.02, good, 0.02, last)) == [204, 400, 204, 204]
        assert statuses(await exchange(port, good + bad + good + last)) == [204, 400, 204, 204]


async def test_old_clients_and_ones_that_leave_are_answered_as_they_ask() -> None:
    """HTTP/1.0 ends the connection, and so does whoever says so; nobody waits."""
    bench = Bench()
    async with aiohttp_host(service(bench)) as port:
        old = await exchange(port, request(f"/hooks/{tail(bench)}", body=BODY, version="1.0"))
        kept = await exchange(
            port,
            request(f"/hooks/{tail(bench)}", body=BODY, version="1.0", head="Connection: keep-alive\r\n"),
            patience=0.1,
        )
        leaving = await exchange(port, request(f"/hooks/{tail(bench)}", body=BODY, head=LAST))
        head = await exchange(port, request(f"/hooks/{tail(bench)}", method="HEAD", head=LAST))
    assert [statuses(one) for one in (old, kept, leaving, head)] == [[204], [204], [204], [405]]
    assert b"Connection: keep-alive" in kept
    assert b"Connection: close" in leaving


async def test_expectations_are_met_as_the_framework_meets_them() -> None:
    """A sender that asks before it sends is told to go on."""
    bench = Bench()
    first, _, second = request(f"/hooks/{tail(bench)}", body=BODY, head="Expect: 100-continue\r\n" + LAST).partition(
        BODY
    )
    async with aiohttp_host(service(bench)) as port:
        received = await exchange(port, first, 0.05, BODY + second)
    assert statuses(received) == [100, 204]


@web.middleware
async def _marking(request: web.Request, handler: _Handler) -> web.StreamResponse:
    answer = await handler(request)
    answer.headers["X-Service"] = "ours"
    return answer


async def _signalling(_: web.Request, answer: web.StreamResponse) -> None:
    answer.headers["X-Signal"] = "seen"


@web.middleware
async def _baking(request: web.Request, handler: _Handler) -> web.StreamResponse:
    answer = await handler(request)
    answer.set_cookie("a", "b")
    return answer


@web.middleware
async def _preparing(request: web.Request, handler: _Handler) -> web.StreamResponse:
    answer = await handler(request)
    await answer.prepare(request)
    await answer.write_eof()
    return answer


@web.middleware
async def _closing(request: web.Request, handler: _Handler) -> web.StreamResponse:
    answer = await handler(request)
    answer.force_close()
    return answer


async def _answered(**parts: Any) -> bytes:
    """Return the answer of a service with such parts to one delivery, however it ends."""
    bench = Bench()
    app = web.Application(middlewares=parts.get("middlewares", ()))
    if "signal" in parts:
        app.on_response_prepare.append(parts["signal"])
    app.add_subapp("/hooks", bench.receiver.aiohttp_app())
    async with aiohttp_host(app) as port:
        return await exchange(port, request(f"/hooks/{tail(bench)}", body=BODY), patience=0.1)


async def test_what_a_service_adds_to_all_answers_is_on_these_as_well() -> None:
    """Middlewares and signals work on them as on any other, even one that sends the answer itself."""
    marked = await _answered(middlewares=[_marking])
    signalled = await _answered(signal=_signalling)
    baked = await _answered(middlewares=[_baking])
    prepared = await _answered(middlewares=[_preparing])
    closed = await _answered(middlewares=[_closing])
    assert [statuses(one) for one in (marked, signalled, baked, prepared, closed)] == [[204]] * 5
    assert b"X-Service: ours" in marked
    assert b"X-Signal: seen" in signalled
    assert b"Set-Cookie: a=b" in baked
    assert b"Connection: close" in closed
    assert b"Connection" not in prepared


async def test_an_answer_says_the_date_of_the_second_it_was_given() -> None:
    """It is made anew once a second."""
    first = _aiohttp._Heads()
    assert first() is first()
    first._second -= 1
    before = first._head
    assert first() is not before
    assert first().startswith(b"HTTP/1.1 204 No Content\r\nDate: ")
    assert first().endswith(b" GMT\r\n\r\n")


async def test_a_body_that_does_not_come_ends_in_408(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the time a body may take, and the connection is closed."""
    monkeypatch.setattr(_aiohttp, "BODY_TIME", 0.2)
    monkeypatch.setattr(_aiohttp, "LET_PASS", 0.1)
    bench = Bench()
    slow = request(f"/hooks/{tail(bench)}", body=BODY)[: -len(BODY)]
    async with aiohttp_host(service(bench)) as port:
        assert statuses(await exchange(port, slow, b"{", 0.05, b'"')) == [408]


async def test_trouble_with_a_body_is_no_line_in_the_log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut, badly encoded, badly framed: refused without a traceback, on a server that is set up as usual."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(_aiohttp, "LET_PASS", 0.3)
    bench = Bench()
    path = f"/hooks/{tail(bench)}"
    gzip, chunked = "Content-Encoding: gzip\r\n", "Transfer-Encoding: chunked\r\n"
    async with aiohttp_host(service(bench), access_log=None) as port:
        bad = [
            await exchange(port, request(path, body=b"x" * 50, head=gzip)),
            await exchange(port, request(path, head=gzip + chunked), 0.05, b"5\r\nhello\r\n"),
            await exchange(port, request(path, head=chunked), 0.05, b"zz\r\nx\r\n", patience=0.1),
            await exchange(port, request(path, body=BODY)[:-5], patience=0.05),
            await exchange(port, request("/hooks/mirako/x", body=b"x" * 99, head=gzip)),
            await exchange(port, request("/hooks/mirako/x", body=BODY)[:-5], patience=0.05),
        ]
        await asyncio.sleep(0.4)
    assert [statuses(one) for one in bad] == [[415], [415], [], [], [401], []]
    assert caplog.records == []


async def test_mounted_deep_inside_a_real_service_jobs_end_by_its_webhooks() -> None:
    """Two prefixes, a sandbox that delivers, a hub that is woken: one status call for each picture."""
    unused_port = free_port()
    receiver = WebhookReceiver(public_url=f"http://127.0.0.1:{unused_port}/api/v1/hooks", secret=SECRET)
    api, root = web.Application(), web.Application()
    api.add_subapp("/v1/hooks", receiver.aiohttp_app())
    root.add_subapp("/api", api)
    async with (
        Sandbox(durations=0.3) as sandbox,
        aiohttp_host(root, port=unused_port),
        Mirage(base_urls=sandbox.base_urls, webhooks=receiver) as mirage,
    ):
        jobs = [await mirage.mirako.submit(f"fox {number}") for number in range(10)]
        generations = await asyncio.gather(*(job.result() for job in jobs))
    assert [generation.polls for generation in generations] == [1] * 10
    assert receiver.statistics().replies == {204: 10}
