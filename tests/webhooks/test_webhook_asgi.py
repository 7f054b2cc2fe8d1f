"""The receiver as an ASGI application: mounted in Starlette and FastAPI, by itself, and spoken to directly."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import anyio
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount
from webhook_bench import BODY, SECRET, Bench, path_of
from webhook_hosts import asgi_host, exchange, request, statuses

from mirage_async import Mirage
from mirage_async.sandbox import Sandbox
from mirage_async.webhooks import WebhookReceiver, _asgi

pytestmark = pytest.mark.anyio

KEY = "0123456789abcdef0123456789abcdef"
LAST = "Connection: close\r\n"
LARGE = json.dumps({"id": "task-1", "output": {"image": "A" * 3_000_000}}).encode()


def tail(bench: Bench) -> str:
    """Return the last two segments of an address that needs no bearer token."""
    return "/".join(path_of(bench.receiver.callback_url("miragic", KEY)).split("/")[-2:])


def mounted(bench: Bench) -> dict[str, Any]:
    """Return the receiver in every kind of host, all at /hooks."""
    fastapi = FastAPI()
    fastapi.mount("/hooks", bench.receiver.asgi_app())
    starlette = Starlette(routes=[Mount("/hooks", app=bench.receiver.asgi_app())])
    return {"fastapi": fastapi, "starlette": starlette, "by itself": bench.receiver.asgi_app()}


@pytest.mark.parametrize("host", ["fastapi", "starlette", "by itself"])
async def test_a_host_passes_deliveries_on_and_answers_back(host: str) -> None:
    """Every answer there is, and bodies of three megabytes."""
    bench = Bench()
    path = f"/hooks/{tail(bench)}"
    async with asgi_host(mounted(bench)[host]) as port:
        received = [
            await exchange(port, request(path, body=BODY, head=LAST)),
            await exchange(port, request(path, body=LARGE, head=LAST)),
            await exchange(port, request(path, body=b"x", head=LAST)),
            await exchange(port, request("/hooks/mirako/x", body=b"x", head=LAST)),
            await exchange(port, request("/hooks/x", body=b"x", head=LAST)),
            await exchange(port, request(path, method="GET", head=LAST)),
            await exchange(port, request(path, body=b"x", head="Content-Encoding: gzip\r\n" + LAST)),
        ]
    assert [statuses(one) for one in received] == [[204], [204], [400], [401], [404], [405], [415]]
    assert b"content-length: 0" in received[2]
    assert b"content-length" not in received[0]
    assert b"allow: POST" in received[5]


async def test_a_body_above_the_limit_is_413_and_not_read_to_its_end() -> None:
    """Declared or not."""
    bench = Bench(max_body_bytes=1000)
    path = f"/hooks/{tail(bench)}"
    body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(LARGE), LARGE)
    async with asgi_host(bench.receiver.asgi_app()) as port:
        assert statuses(await exchange(port, request(path, body=LARGE, head=LAST))) == [413]
        assert statuses(
            await exchange(port, request(path, body=body, head="Transfer-Encoding: chunked\r\n" + LAST))
        ) == [413]


async def spoken_to(bench: Bench, *messages: dict[str, Any], scope: dict[str, Any] | None = None) -> list[Any]:
    """Run the application by hand and return what it sends; after the messages nothing comes."""
    left, sent = list(messages), []

    async def receive() -> dict[str, Any]:
        if not left:
            await anyio.sleep_forever()
        return left.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    http = {"type": "http", "method": "POST", "path": f"/hooks/{tail(bench)}", "headers": []}
    await bench.receiver.asgi_app()(scope or http, receive, send)
    return sent


async def test_a_body_in_pieces_is_put_together() -> None:
    """As servers hand it over."""
    bench = Bench()
    sent = await spoken_to(
        bench,
        {"type": "http.request", "body": BODY[:5], "more_body": True},
        {"type": "http.request", "more_body": True},
        {"type": "http.request", "body": BODY[5:]},
    )
    assert sent == [
        {"type": "http.response.start", "status": 204, "headers": []},
        {"type": "http.response.body", "body": b""},
    ]


async def test_a_sender_that_leaves_gets_an_answer_nobody_reads() -> None:
    """Servers drop it; nothing is raised and nothing is woken."""
    bench = Bench()
    sent = await spoken_to(
        bench, {"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}
    )
    assert sent[0]["status"] == 400
    assert bench.receiver.statistics().hints_unknown == 0


async def test_a_body_that_does_not_come_ends_in_408(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the time a body may take."""
    monkeypatch.setattr(_asgi, "BODY_TIME", 0.05)
    sent = await spoken_to(Bench(), {"type": "http.request", "body": b"{", "more_body": True})
    assert sent[0]["status"] == 408


async def test_life_and_websockets_are_answered_too() -> None:
    """Run by itself, a server asks more of an application than to answer requests."""
    bench = Bench()
    lived = await spoken_to(
        bench, {"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}, scope={"type": "lifespan"}
    )
    assert [message["type"] for message in lived] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert await spoken_to(bench, scope={"type": "websocket"}) == [{"type": "websocket.close"}]


async def test_mounted_in_fastapi_jobs_end_by_its_webhooks() -> None:
    """A sandbox that delivers, a hub that is woken: one status call for each picture."""
    app = FastAPI()
    async with asgi_host(app) as port, Sandbox(durations=0.3) as sandbox:
        receiver = WebhookReceiver(public_url=f"http://127.0.0.1:{port}/hooks", secret=SECRET)
        app.mount("/hooks", receiver.asgi_app())
        async with Mirage(base_urls=sandbox.base_urls, webhooks=receiver) as mirage:
            jobs = [await mirage.mirako.submit(f"fox {number}") for number in range(10)]
            generations = await asyncio.gather(*(job.result() for job in jobs))
    assert [generation.polls for generation in generations] == [1] * 10
    assert receiver.statistics().replies == {204: 10}
