"""The page about webhooks: its programs run as printed, its views take deliveries, its tables leave nothing out."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from page_programs import ROOT, run

from mirage_async.webhooks import WebhookReceiver

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio

PAGE = (ROOT / "mirage_async/webhooks/README.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
KEY = "0123456789abcdef0123456789abcdef"
# What a test adds to a printed view: a delivery of three megabytes, one without a credential, and one that is no POST;
# for Flask, which has no limit of its own, one that is far too long.
FLASK = """
client = app.test_client()
path = receiver.callback_url("mirako", "<key>").removeprefix("https://app.example")
body = b'{"id": "x", "image": "' + b"A" * 3_000_000 + b'"}'
print(client.post(path, data=body).status_code, client.post("/hooks/mirako/x").status_code, receiver.statistics())
import io
flood = io.BytesIO(bytes(30_000_000))
chunked = {"wsgi.input_terminated": True}
print(client.post(path, input_stream=flood, environ_overrides=chunked).status_code, flood.tell() < 12_000_000)
"""
DJANGO = """
from django.conf import settings
settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="x")
import django
from django.test import Client
django.setup()
client = Client()
path = receiver.callback_url("mirako", "<key>").removeprefix("https://app.example")
body = b'{"id": "x", "image": "' + b"A" * 3_000_000 + b'"}'
print(
    client.post(path, data=body, content_type="application/json").status_code,
    client.post("/hooks/mirako/x").status_code,
    client.get(path).status_code,
    receiver.statistics(),
)
"""


def program(beginning: str) -> str:
    """Return the one program of the page that holds this."""
    (found,) = [text for text in PROGRAMS if beginning in text]
    return str(found)


async def test_the_first_program_runs_as_it_is_printed(tmp_path: Path) -> None:
    """One status call, one delivery; but for the port, which may be taken here."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    text = program("asyncio.run(main())").replace("8080", str(port))
    assert (await run(text, tmp_path)).startswith("1 ReceiverStatistics(replies={204: 1}")


async def test_the_view_for_flask_takes_deliveries(tmp_path: Path) -> None:
    """Of three megabytes, and refuses as the receiver does."""
    printed = await run(program("from flask") + FLASK.replace("<key>", KEY), tmp_path)
    assert printed.startswith("204 401 ReceiverStatistics(replies={204: 1, 401: 1}")
    assert printed.splitlines()[-1] == "413 True"


async def test_the_view_for_django_takes_deliveries(tmp_path: Path) -> None:
    """Of three megabytes, which Django's own `body` would refuse."""
    printed = await run(program("from django") + DJANGO.replace("<key>", KEY), tmp_path)
    assert printed.splitlines()[-1].startswith("204 401 405 ReceiverStatistics(replies={204: 1, 401: 1, 405: 1}")


async def test_the_access_log_leaves_the_path_out(caplog: pytest.LogCaptureFixture) -> None:
    """And nothing else."""
    caplog.set_level(logging.INFO, "aiohttp.access")
    names: dict[str, Any] = {}
    exec(program("class AllButHooks"), names)  # noqa: S102 - a program of our own page
    receiver = WebhookReceiver(public_url="https://app.example/hooks", secret="V1StGXR8_Z5jdHi6B-myT0p3Lq9wNcYs")
    app = web.Application()
    app.add_subapp("/hooks", receiver.aiohttp_app())
    runner = web.AppRunner(app, access_log_class=names["AllButHooks"])
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        for path in (receiver.callback_url("mirako", KEY).removeprefix("https://app.example"), "/page"):
            reader, writer = await asyncio.open_connection("127.0.0.1", runner.addresses[0][1])
            writer.write(f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
            await reader.read()
            writer.close()
    finally:
        await runner.cleanup()
    assert receiver.statistics().replies == {204: 1}
    assert [record.getMessage().split('"')[1] for record in caplog.records] == ["POST /page HTTP/1.1"]


def test_every_program_of_the_page_is_tested_here() -> None:
    """A new one needs its test."""
    assert len(PROGRAMS) == 4


def test_every_answer_is_in_the_table() -> None:
    """Whoever looks a status up finds it."""
    listed = {int(number) for row in re.findall(r"^\| ([0-9, ]+) \|", PAGE, re.MULTILINE) for number in row.split(", ")}
    assert listed == {204, 400, 401, 404, 405, 408, 413, 415}
