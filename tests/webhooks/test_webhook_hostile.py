"""Requests nobody sensible sends, over raw sockets: no 5xx, no traceback, no memory, and good ones get through."""

from __future__ import annotations

import asyncio
import gzip
import logging
import os
import random
import resource
import zlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from aiohttp import web
from webhook_bench import BODY, Bench, path_of
from webhook_hosts import aiohttp_host, exchange, request, statuses

from mirage_async.webhooks import QuietServerLog, _aiohttp, _standalone, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio

LONGER = int(os.environ.get("MIRAGE_FUZZ", "1"))
REQUESTS = 1_000 * LONGER
AT_ONCE = 50
KEY = "0123456789abcdef0123456789abcdef"
JUNK = (
    b"",
    b"\0",
    b"\r\n",
    b"\n",
    b" ",
    b":",
    b"%",
    b"\xff\xfe",
    b"A" * 9_000,
    b"0" * 30,
    b"-1",
    b"chunked",
    b"\r\n\r\n",
)
HEADS = (
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding: identity",
    "Content-Length: 5",
    "Content-Length: -5",
    "Content-Length: 99999999999999999999",
    "Content-Length: 5, 5",
    "Content-Encoding: gzip",
    "Content-Encoding: br",
    "Content-Encoding: deflate",
    "Expect: 100-continue",
    "Expect: nothing",
    "Connection: upgrade\r\nUpgrade: websocket",
    "Connection: close",
    "Authorization: Bearer \xff",
    "X: " + "y" * 8_000,
    "X: " + "y" * 9_000,
    "X\0: y",
    ": y",
    " folded",
    "Content-Type: multipart/form-data; boundary=x",
    "\r\n".join(f"X-{number}: y" for number in range(200)),
)


@asynccontextmanager
async def embedded(bench: Bench) -> AsyncIterator[int]:
    """Serve it inside a service whose log was told to keep quiet about strangers, as the page says."""
    quiet = QuietServerLog()
    logging.getLogger("aiohttp.server").addFilter(quiet)
    app = web.Application()
    app.add_subapp("/hooks", bench.receiver.aiohttp_app())
    try:
        async with aiohttp_host(app, access_log=None) as port:
            yield port
    finally:
        logging.getLogger("aiohttp.server").removeFilter(quiet)


@asynccontextmanager
async def alone(bench: Bench) -> AsyncIterator[int]:
    """Serve it by itself."""
    async with serving(bench.receiver) as port:
        yield port


HOSTS = {"embedded": embedded, "alone": alone}


def genuine_path(bench: Bench) -> str:
    """Return a path that needs no bearer token."""
    return path_of(bench.receiver.callback_url("miragic", KEY))


def hostile(path: str, dice: random.Random) -> list[bytes | float]:
    """Make up a request, from a good one with more or less wrong with it."""
    method = dice.choice(
        ["POST"] * 6 + ["GET", "HEAD", "PUT", "CONNECT", "OPTIONS", "PRI", "post", "P OST", "\x16\x03\x01"]
    )
    target = dice.choice(
        [path] * 5
        + [
            "*",
            "",
            "/" + "x" * 9_000,
            path + "?" + "q" * 100,
            "http://b" + path,
            path[:-3],
            "/%zz/%00",
            "//",
            path.replace("/", "//"),
        ]
    )
    version = dice.choice(["1.1"] * 6 + ["1.0", "2.0", "0.9", "x"])
    body = dice.choice(
        [
            BODY,
            b"",
            b"x" * 50,
            gzip.compress(BODY),
            b"5\r\nhello\r\n0\r\n\r\n",
            b"zz\r\n",
            b"ffffffffffffffff\r\nx",
            b"[" * 5_000,
            b"0\r\nX: " + b"y" * 9_000 + b"\r\n\r\n",
        ]
    )
    head = "".join(f"{line}\r\n" for line in dice.sample(HEADS, k=dice.choice([0, 0, 1, 1, 2, 3])))
    raw = bytearray(
        request(target, body=body, head=head, method=method, version=version)
        .decode("latin-1")
        .encode("latin-1", "replace")
    )
    for _ in range(dice.choice([0, 0, 0, 1, 2, 5])):
        where = dice.randrange(len(raw))
        raw[where : where + dice.randint(0, 3)] = dice.choice(JUNK)
    data = bytes(raw)
    if dice.random() < 0.2:
        data += request(path, body=BODY)
    if dice.random() < 0.2:
        data = data[: dice.randrange(len(data) + 1)]
    cut = dice.randrange(len(data) + 1)
    return [data[:cut], 0.005, data[cut:]] if dice.random() < 0.3 else [data]


@pytest.mark.parametrize("host", HOSTS)
async def test_a_thousand_hostile_requests_get_no_5xx_and_leave_no_traceback(
    host: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is sent: an answer below 500 or none, and a log as if nothing had been."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(_aiohttp, "LET_PASS", 0.1)
    monkeypatch.setattr(_aiohttp, "BODY_TIME", 0.2)
    bench = Bench()
    path = genuine_path(bench)
    dice = random.Random(17)
    answers: list[int] = []
    async with HOSTS[host](bench) as port:
        for _ in range(0, REQUESTS, AT_ONCE):
            batch = [exchange(port, *hostile(path, dice), patience=0.3) for _ in range(AT_ONCE)]
            for received in await asyncio.gather(*batch):
                answers += statuses(received)
        good = await exchange(port, request(path, body=BODY, head="Connection: close\r\n"))
    assert statuses(good) == [204]
    assert [status for status in answers if status >= 500] == []
    assert {204, 400, 401, 404, 405, 415} <= set(answers)
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []
    assert [record.getMessage() for record in caplog.records if record.levelno > logging.INFO] == []


@pytest.mark.parametrize("host", HOSTS)
async def test_a_bomb_is_refused_before_it_goes_off(host: str) -> None:
    """Two hundred megabytes of nothing, in two hundred kilobytes, by a sender with a genuine address."""
    squeezer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join([*(squeezer.compress(bytes(1 << 20)) for _ in range(200)), squeezer.flush()])
    bench = Bench()
    async with HOSTS[host](bench) as port:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        received = await exchange(port, request(genuine_path(bench), body=bomb, head="Content-Encoding: gzip\r\n"))
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert statuses(received) == [415]
    assert grown < 50_000  # kilobytes


@pytest.mark.parametrize("codings", [("identity", "gzip"), ("gzip", "identity")])
@pytest.mark.parametrize("host", HOSTS)
async def test_a_coding_that_hides_behind_another_is_refused(host: str, codings: tuple[str, str]) -> None:
    """The server goes by the last such header and inflates: what would be checked is not what came over the wire."""
    bench = Bench()
    head = "".join(f"Content-Encoding: {coding}\r\n" for coding in codings)
    async with HOSTS[host](bench) as port:
        received = await exchange(
            port, request(genuine_path(bench), body=gzip.compress(BODY), head=f"{head}Connection: close\r\n")
        )
    assert statuses(received) == [415]


async def test_the_servers_log_still_tells_what_is_wrong_with_a_handler(caplog: pytest.LogCaptureFixture) -> None:
    """The filter drops strangers' nonsense, nothing else."""

    async def broken(_: web.Request) -> web.Response:
        raise ZeroDivisionError

    app = web.Application()
    app.router.add_post("/broken", broken)
    quiet = QuietServerLog()
    logging.getLogger("aiohttp.server").addFilter(quiet)
    try:
        async with aiohttp_host(app, access_log=None) as port:
            assert statuses(await exchange(port, request("/broken", head="Connection: close\r\n"))) == [500]
            assert statuses(await exchange(port, b"nonsense\r\n\r\n")) == [400]
    finally:
        logging.getLogger("aiohttp.server").removeFilter(quiet)
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [ZeroDivisionError]


# --- the guard of the server that stands alone ---


async def test_a_connection_that_keeps_the_server_waiting_is_ended() -> None:
    """Silent, in the middle of a head, dripping one, or idle after an answer."""
    bench = Bench()
    good = request(genuine_path(bench), body=BODY)
    drip = [part for number in range(40) for part in (good[number : number + 1], 0.05)]
    async with serving(bench.receiver, head_time=0.5) as port:
        loop = asyncio.get_running_loop()
        began = loop.time()
        silent, half, dripping, idle = await asyncio.gather(
            exchange(port), exchange(port, good[:40]), exchange(port, *drip), exchange(port, good)
        )
        assert loop.time() - began < 3.0
    assert [statuses(one) for one in (silent, half, dripping, idle)] == [[], [], [], [204]]


async def test_a_connection_that_is_in_use_is_not_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """A body may take longer than a head, and every answer gives time for the next head."""
    bench = Bench()
    good = request(genuine_path(bench), body=BODY)
    async with serving(bench.receiver, head_time=0.4) as port:
        slow_body = await exchange(port, good[:-5], 0.8, good[-5:], 0.25, good, 0.25, good, patience=0.1)
        monkeypatch.setattr(_aiohttp, "BODY_TIME", 0.3)
        monkeypatch.setattr(_aiohttp, "LET_PASS", 0.1)
        never = await exchange(port, good[:-5])
    assert statuses(slow_body) == [204, 204, 204]
    assert statuses(never) == [408]


async def test_a_connection_too_many_is_closed_at_once() -> None:
    """The others are served, and once one of them has ended there is room again."""
    bench = Bench()
    last = request(genuine_path(bench), body=BODY, head="Connection: close\r\n")
    async with serving(bench.receiver, most_connections=5) as port:
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(5)]
        await asyncio.sleep(0.05)
        assert await exchange(port, last) == b""
        for _, writer in held[:3]:
            writer.close()
        await asyncio.sleep(0.1)
        assert statuses(await exchange(port, last)) == [204]
        for _, writer in held[3:]:
            writer.close()


async def test_a_server_that_is_closing_takes_nobody_any_more() -> None:
    """A connection in that moment gets what one too many gets."""
    guard = _standalone._Guard(_aiohttp.Handler(Bench().receiver), head_time=1.0, most_connections=5)
    assert isinstance(guard.connect(), _standalone._Overfull)
    guard.stop()
