"""`webhook listen` from the address it prints to its last line."""

from __future__ import annotations

import asyncio
import io
import json
import signal
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from command_line import PATIENCE, Ended, command, end, start

from mirage_async import Mirage
from mirage_async.cli._exits import ExitCode
from mirage_async.cli._webhook_listen import _report
from mirage_async.sandbox import Sandbox
from mirage_async.webhooks import WebhookReceiver

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.anyio

_SECRET = "V1StGXR8_Z5jdHi6B-myT0p3Lq9wNcYs"


async def _line(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE):
        return (await process.stdout.readline()).decode().rstrip("\n")


async def _ended(process: asyncio.subprocess.Process, interruption: signal.Signals = signal.SIGTERM) -> Ended:
    process.send_signal(interruption)
    return await end(process)


@asynccontextmanager
async def _listening(folder: Path, *words: str, **environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run the command on a free port; it is not left behind."""
    process = await start("webhook", "listen", "--port", "0", *words, folder=folder, environment=environment)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def _post(url: str, body: bytes, **headers: str) -> int:
    async with aiohttp.ClientSession() as session, session.post(url, data=body, headers=headers) as answer:
        return answer.status


async def test_what_the_sandbox_delivers_is_shown_live(tmp_path: Path) -> None:
    """The two lines it prints are what a job is given, and every delivery is a line."""
    async with _listening(tmp_path) as process, Sandbox(durations=0.05) as sandbox:
        url = (await _line(process)).removeprefix("url         ")
        auth_token = (await _line(process)).removeprefix("auth_token  ")
        async with Mirage(base_urls=sandbox.base_urls) as mirage:
            job = await mirage.mirako.submit("a fox", webhook=(url, auth_token))
            shown = (await _line(process)).split()
            assert shown[1:6] == ["204", "taken", "mirako", job.id, "COMPLETED"]
        assert await _post(url, b"{}") == 401
        assert (await _line(process)).split(maxsplit=1)[1] == "401 bad or missing credential"
        assert await _post(url, b"{}", Authorization=f"Bearer {auth_token}") == 204
        assert "204 taken mirako of a job it does not name without a status 2 bytes" in await _line(process)
        ended = await _ended(process, signal.SIGINT)
    assert (ended.code, ended.stdout) == (ExitCode.DONE, "")
    assert ended.stderr.splitlines()[1:] == ["mirage-async: Ctrl-C ends it", "mirage-async: ended: 2 taken, 1 refused"]
    assert url.rpartition("/")[2] not in ended.stderr


async def test_programs_get_one_object_a_line(tmp_path: Path) -> None:
    """What is proven and what is only claimed can be told apart by name."""
    async with _listening(tmp_path, "--json", "-q", "--provider", "miragic") as process:
        ready: dict[str, Any] = json.loads(await _line(process))
        assert ready.keys() == {"event", "url", "auth_token", "port", "pid"}
        assert ready["url"].startswith(f"http://127.0.0.1:{ready['port']}/miragic/")
        body = b'{"id": "task-1", "status": "\\u001b[2J"}'
        assert ready["auth_token"] is None
        assert await _post(ready["url"], body) == 204
        assert await _post(f"http://127.0.0.1:{ready['port']}/x", b"") == 404
        taken, refused = json.loads(await _line(process)), json.loads(await _line(process))
        ended = await _ended(process)
    assert taken["key"]
    assert {
        name: taken[name] for name in ("event", "answer", "bytes", "provider", "claimed_job_id", "claimed_status")
    } == {
        "event": "delivery",
        "answer": 204,
        "bytes": len(body),
        "provider": "miragic",
        "claimed_job_id": "task-1",
        "claimed_status": None,
    }
    assert (refused["answer"], refused["key"]) == (404, None)
    assert (ended.code, ended.stderr) == (ExitCode.DONE, "")


@pytest.mark.parametrize("provider", ["milady", "mira", "miragic", "mirako"])
async def test_the_address_is_good_for_the_way_the_provider_calls(provider: str, tmp_path: Path) -> None:
    """As it would call after a submit of ours: with the token where one is sent along, or with the address alone."""
    ours = WebhookReceiver(public_url="https://app.example", secret=_SECRET)
    async with (
        Sandbox(durations=0.05) as sandbox,
        Mirage(base_urls=sandbox.base_urls, webhooks=ours) as mirage,
        _listening(tmp_path, "-q", "--provider", provider) as process,
    ):
        options = {} if provider == "mirako" else {"callback_parameter": "callback"}
        await mirage.submit("a fox", provider=provider, options=options)
        async with asyncio.timeout(30):
            while not sandbox.requests:  # noqa: ASYNC110 - another process asks
                await asyncio.sleep(0.01)
        given = sandbox.requests[0].fields.get("webhook", {})
        url = (await _line(process)).removeprefix("url         ")
        headers: dict[str, str] = {}
        if "auth_token" in given:
            headers["Authorization"] = f"Bearer {(await _line(process)).removeprefix('auth_token  ')}"
        assert await _post(url, b"{}", **headers) == 204
        assert "204 taken" in " ".join((await _line(process)).split())
        await _ended(process)


async def test_an_address_stays_good_over_a_restart_with_the_same_secret(tmp_path: Path) -> None:
    """The public address is the one that is given, wherever it really listens."""
    statuses: list[int] = []
    path = auth_token = ""
    for secret in (_SECRET, _SECRET, _SECRET[::-1]):
        words = ("--json", "--public-url", "https://tunnel.example/a")
        async with _listening(tmp_path, *words, MIRAGE_WEBHOOK_SECRET=secret) as process:
            ready = json.loads(await _line(process))
            path, auth_token = (
                path or ready["url"].removeprefix("https://tunnel.example"),
                auth_token or ready["auth_token"],
            )
            statuses.append(
                await _post(f"http://127.0.0.1:{ready['port']}{path}", b"", Authorization=f"Bearer {auth_token}")
            )
            await _ended(process)
    assert path.startswith("/a/mirako/")
    assert statuses == [204, 204, 401]


@pytest.mark.parametrize(
    ("words", "environment", "why"),
    [
        (["--port", "65536"], {}, "--port must be from 0 to 65535"),
        (["--port", "x"], {}, "must be a whole number"),
        (["--host", "::1"], {}, "--host must be a name or an IPv4 address"),
        (["--provider", "dalle"], {}, "provider must be one of milady, mira, miragic, mirako"),
        (["--public-url", "tunnel.example"], {}, "public_url must be an absolute http"),
        ([], {"MIRAGE_WEBHOOK_SECRET": "short"}, "secret must have at least 32 random bytes; got 5"),
    ],
    ids=["port", "no number", "host", "provider", "public url", "secret"],
)
async def test_a_wrong_setting_is_one_line(
    words: list[str], environment: dict[str, str], why: str, tmp_path: Path
) -> None:
    """Nothing listens, and the code is that of usage."""
    ended = await command("webhook", "listen", "--port", "0", *words, folder=tmp_path, environment=environment)
    assert (ended.code, ended.stdout, len(ended.stderr.splitlines())) == (ExitCode.USAGE, "", 1)
    assert why in ended.stderr


async def test_a_port_in_use_is_one_line(tmp_path: Path) -> None:
    """It says which, and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = await command("webhook", "listen", "--port", port, folder=tmp_path)
    assert (ended.code, ended.stdout) == (ExitCode.FAILURE, "")
    assert ended.stderr == (
        f"mirage-async: error: cannot listen on 127.0.0.1:{port}: "
        "the port is in use (--port N takes another one, --port 0 any that is free)\n"
    )


async def test_the_last_line_is_written_over_what_a_terminal_shows_for_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would stand behind "^C" otherwise."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    receiver = WebhookReceiver(public_url="https://app.example", secret=_SECRET)
    receiver.handle("POST", "/x", {}, b"")
    _report(receiver.statistics())
    assert terminal.getvalue() == "\rmirage-async: ended: 0 taken, 1 refused\n"


async def test_the_group_by_itself_shows_what_it_has(tmp_path: Path) -> None:
    """Its help, as a usage error."""
    ended = await command("webhook", folder=tmp_path)
    assert "listen" in ended.stdout + ended.stderr
