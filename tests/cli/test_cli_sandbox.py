"""`sandbox` from its ready line to its last, and `sandbox env` in a real shell."""

from __future__ import annotations

import asyncio
import json
import shlex
import signal
import socket
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from command_line import PATIENCE, PROMPTLY, Ended, command, end, inherited, names_in, start

from mirage_async import Mirage
from mirage_async.cli import run
from mirage_async.cli._exits import ExitCode
from mirage_async.clients import Providers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

_QUICK = ("--durations", "0.01")
_TOO_LONG = "x" * 301
_SHOW = "import json, os; print(json.dumps(dict(os.environ)))"


@pytest.fixture
def silent_port() -> int:
    """Give a port that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


async def _ready(process: asyncio.subprocess.Process) -> dict[str, Any]:
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE):
        line = await process.stdout.readline()
    record: dict[str, Any] = json.loads(line)
    return record


async def _ended(process: asyncio.subprocess.Process, interruption: signal.Signals = signal.SIGTERM) -> Ended:
    process.send_signal(interruption)
    return await end(process)


@asynccontextmanager
async def _running(folder: Path, *words: str) -> AsyncIterator[tuple[dict[str, Any], asyncio.subprocess.Process]]:
    """Run the command on a free port, and yield its ready line and its process; none is left afterwards."""
    process = await start("sandbox", "--port", "0", *words, folder=folder)
    try:
        yield await _ready(process), process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def _in_shell(script: str, folder: Path, environment: Mapping[str, str] | None = None) -> Ended:
    """Run a script for a POSIX shell in which `mirage-async` is the command."""
    alias = f'mirage_async() {{ {shlex.quote(sys.executable)} -m mirage_async "$@"; }}\n'
    process = await asyncio.create_subprocess_exec(
        "sh",
        "-c",
        alias + script,
        cwd=folder,
        env={**inherited(), **(environment or {})},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    return await end(process)


@pytest.mark.anyio
@pytest.mark.parametrize("interruption", [signal.SIGINT, signal.SIGTERM])
async def test_a_picture_can_be_bought_between_the_ready_line_and_the_end(
    interruption: signal.Signals, tmp_path: Path
) -> None:
    """The first line says where it is; Ctrl-C or SIGTERM ends it with 0, and what it was asked for is told."""
    async with _running(tmp_path, *_QUICK) as (ready, process):
        async with Mirage({"mira": "k"}, base_urls={"mira": ready["url"]}) as mirage:
            generation = await mirage.generate("a fox", provider="mira")
            picture = await generation.images[0].read()
        assert picture.startswith(b"\x89PNG")
        ended = await _ended(process, interruption)
    assert ready == {
        "event": "ready",
        "url": f"http://127.0.0.1:{ready['port']}",
        "port": ready["port"],
        "pid": process.pid,
        "seed": 0,
        "strict": False,
    }
    assert (ended.code, ended.stdout) == (ExitCode.DONE, "")
    told = ended.stderr.splitlines()
    assert told[0] == f"mirage-async: the sandbox listens at {ready['url']}"
    assert f'eval "$(mirage-async sandbox env --port {ready["port"]})"' in told[1]
    assert told[2:] == [
        "mirage-async: Ctrl-C ends it",
        "mirage-async: the sandbox has ended: 2 requests, 1 purchase, 0 open jobs",
    ]


@pytest.mark.anyio
async def test_an_unfinished_job_delays_no_end_and_is_counted(tmp_path: Path) -> None:
    """Who ends a sandbox does not wait for a picture of an hour."""
    async with _running(tmp_path, "--durations", '{"mirako.image": 3600}') as (ready, process):
        async with Mirage({"mirako": "k"}, base_urls={"mirako": ready["url"]}) as mirage:
            await mirage.mirako.submit("a fox")
        async with asyncio.timeout(PROMPTLY):
            ended = await _ended(process, signal.SIGINT)
    assert ended.code == ExitCode.DONE
    assert "1 open job\n" in ended.stderr


@pytest.mark.anyio
async def test_a_background_sandbox_of_a_script_ends_when_it_is_killed_and_says_nothing_if_quiet(
    tmp_path: Path,
) -> None:
    """A shell makes a process it starts with "&" ignore Ctrl-C; its SIGTERM counts all the same."""
    script = (
        "mkfifo ready; mirage_async sandbox --port 0 -q > ready & "
        'read line < ready; kill $(echo "$line" | sed \'s/.*"pid":\\([0-9]*\\).*/\\1/\'); wait $!; echo $?'
    )
    ended = await _in_shell(script, tmp_path)
    assert (ended.stdout, ended.stderr) == ("0\n", "")


@pytest.mark.anyio
async def test_a_port_in_use_is_one_line(tmp_path: Path) -> None:
    """It says which port and what to do; so does a host that is none of this machine's."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        in_use, elsewhere = await asyncio.gather(
            command("sandbox", "--port", port, folder=tmp_path),
            command("sandbox", "--port", port, "--host", "192.0.2.1", folder=tmp_path),
        )
    assert (in_use.code, in_use.stdout, in_use.stderr.count("\n")) == (ExitCode.FAILURE, "", 1)
    assert f"cannot listen on 127.0.0.1:{port}: the port is in use (--port N takes another one" in in_use.stderr
    assert (elsewhere.code, elsewhere.stdout, elsewhere.stderr.count("\n")) == (ExitCode.FAILURE, "", 1)
    assert f"cannot listen on 192.0.2.1:{port}: " in elsewhere.stderr


async def _create(ready: Mapping[str, Any], **fields: str) -> tuple[int, Any]:
    """Ask for a picture without this library's own checks; return status and answer."""
    headers = {"Authorization": "Bearer k"}
    address = f"{ready['url']}/v1/image/async_generate"
    async with aiohttp.ClientSession(headers=headers) as session, session.post(address, json=fields) as response:
        return response.status, await response.json()


@pytest.mark.anyio
async def test_strict_refuses_what_the_documents_do_not_allow(tmp_path: Path) -> None:
    """The same request without its ratio is taken without the option; the ready line says which it is."""
    answers = {}
    async with _running(tmp_path) as (lenient, _), _running(tmp_path, "--strict") as (strict, _):
        for ready in (lenient, strict):
            status, _answer = await _create(ready, prompt="a fox")
            answers[ready["strict"]] = "taken" if status == 200 else f"refused with {status // 100}xx"
    assert answers == {False: "taken", True: "refused with 4xx"}


@pytest.mark.anyio
async def test_the_same_seed_gives_the_same_ids(tmp_path: Path) -> None:
    """Another seed gives others."""

    async def first_id(seed: int) -> str:
        async with _running(tmp_path, "--seed", str(seed)) as (ready, _):
            status, answer = await _create(ready, prompt="a fox", aspect_ratio="1:1")
            assert (status, ready["seed"]) == (200, seed)
            task_id: str = answer["data"]["task_id"]
            return task_id

    ids = await asyncio.gather(*map(first_id, (7, 7, 8)))
    assert ids[0] == ids[1] != ids[2]


@pytest.mark.anyio
async def test_an_hour_is_over_at_once_with_auto_advance(tmp_path: Path) -> None:
    """And with one worker the second picture waits for the first, an hour of the sandbox's time."""
    words = ("--auto-advance", "--workers", "1", "--durations", "3600")
    async with (
        _running(tmp_path, *words) as (ready, _),
        Mirage({"mira": "k"}, base_urls={"mira": ready["url"]}) as mirage,
        asyncio.timeout(PATIENCE),
    ):
        pair = await asyncio.gather(*(mirage.generate(prompt, provider="mira") for prompt in ("fox", "owl")))
    assert [len(generation.images) for generation in pair] == [1, 1]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--durations", "soon"], "--durations must be JSON, such as 0.5 or [1, 3]; got 'soon'"),
        (["--durations", _TOO_LONG], f"got '{'x' * 60}'"),
        (["--durations", "[3, 1]"], "--durations '[3, 1]': want finite seconds, zero or more, low before high"),
        (["--durations", '{"mirag": 1}'], "unknown name 'mirag'; known: milady"),
        (["--durations", '{"median": -8}'], "median must be a number from 0 to 1e+09, got -8"),
        (["--durations", "9" * 400], "want finite seconds, zero or more, low before high, got 999"),
        (["--port", "65536"], "--port must be from 0 to 65535; got 65536"),
        (["--port", "http"], "must be a whole number; got 'http'"),
        (["--host", "::1"], "--host must be a name or an IPv4 address; got '::1'"),
        (["--workers", "0"], "--workers must be 1 or more; got 0"),
        (["env", "--port", "0"], "--port must be from 1 to 65535; got 0"),
        (["env", "--port", "1", "--url", "http://x"], "--port and --url exclude each other; got 1 and 'http://x'"),
        *[
            (["env", "--url", url], f"--url must look like http://127.0.0.1:8419; got {url!r}")
            for url in ("127.0.0.1:8419", "ftp://x", "http://", "http://[::1", "http://x:0", "http://x:y", "http://x?y")
        ],
    ],
)
def test_a_bad_value_is_a_usage_error_that_shows_it(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, exit code 2, and nothing has listened."""
    assert run(["sandbox", *words]) == ExitCode.USAGE
    shown = capsys.readouterr()
    assert (shown.out, shown.err.count("\n")) == ("", 1)
    assert told in shown.err


@pytest.mark.anyio
async def test_a_shell_that_evaluates_the_lines_is_led_to_the_sandbox(tmp_path: Path) -> None:
    """Every address is the sandbox's and no key is real, whatever was there; --unset takes all of it back."""
    real = {"MIRA_API_KEY": "sk-real", "MIRAKO_API_TOKEN": "mi-real", "MIRAGIC_BASE_URL": "https://real.example"}
    async with _running(tmp_path) as (ready, _):
        show = f"{shlex.quote(sys.executable)} -c {shlex.quote(_SHOW)}"
        lines = f"mirage_async sandbox env --port {ready['port']}"
        script = f'eval "$({lines})"; {show}; eval "$({lines} --unset)"; {show}'
        ended = await _in_shell(script, tmp_path, real)
    inside, after = map(json.loads, ended.lines)
    names = [name.upper() for name in Providers.classes()]
    addresses = ["MIRAGE_SANDBOX_URL", "MIRAKO_API_URL", *(f"{name}_BASE_URL" for name in names)]
    keys = ["MIRAKO_API_TOKEN", *(f"{name}_API_KEY" for name in names)]
    expected = {**dict.fromkeys(addresses, ready["url"]), **dict.fromkeys(keys, "sandbox")}
    assert {name: value for name, value in inside.items() if name in expected} == expected
    assert "real" not in str({name: inside[name] for name in expected})
    assert set(after) & set(expected) == set()
    assert ended.stderr == ""


@pytest.mark.anyio
async def test_the_command_line_buys_from_the_sandbox_the_shell_was_led_to(tmp_path: Path) -> None:
    """Nothing more is needed to buy there."""
    async with _running(tmp_path, *_QUICK) as (ready, process):
        lines = f"mirage_async sandbox env --url {ready['url']}/"
        ended = await _in_shell(f'eval "$({lines})"; mirage_async generate fox --provider milady', tmp_path)
        last = await _ended(process)
    assert (ended.code, ended.lines) == (ExitCode.DONE, names_in(tmp_path)), ended.stderr
    assert "1 purchase," in last.stderr


def test_the_lines_are_quoted_for_a_shell(capsys: pytest.CaptureFixture[str]) -> None:
    """An address is text, whatever is in it."""
    assert run(["sandbox", "env", "--url", "http://127.0.0.1:1/$(touch it)'".replace(" ", "\u00b7")]) == ExitCode.DONE
    line = capsys.readouterr().out.splitlines()[0]
    assert shlex.split(line) == ["export", "MIRAGE_SANDBOX_URL=http://127.0.0.1:1/$(touch·it)'"]


def test_a_sandbox_that_does_not_run_is_warned_of(silent_port: int, capsys: pytest.CaptureFixture[str]) -> None:
    """The lines are printed all the same: it may be started later. The port may stand before the word as well."""
    assert run(["sandbox", "--port", str(silent_port), "env"]) == ExitCode.DONE
    shown = capsys.readouterr()
    assert f"export MIRAGE_SANDBOX_URL=http://127.0.0.1:{silent_port}\n" in shown.out
    assert shown.err.count("\n") == 1
    assert f"warning: nothing listens at http://127.0.0.1:{silent_port} (" in shown.err
    assert f"mirage-async sandbox --port {silent_port}\n" in shown.err


def test_a_name_that_can_be_none_is_warned_of_too(capsys: pytest.CaptureFixture[str]) -> None:
    """No address makes it fail once it looks like one, and no command of this machine would start it."""
    assert run(["sandbox", "env", "--url", "http://a..b"]) == ExitCode.DONE
    shown = capsys.readouterr().err
    assert shown.startswith("mirage-async: warning: nothing listens at http://a..b (")
    assert "to start it" not in shown


def test_taking_the_variables_back_asks_nobody(silent_port: int, capsys: pytest.CaptureFixture[str]) -> None:
    """There is nothing to warn of when a sandbox is left."""
    assert run(["sandbox", "env", "--port", str(silent_port), "--unset"]) == ExitCode.DONE
    shown = capsys.readouterr()
    assert (shown.err, {line.partition(" ")[0] for line in shown.out.splitlines()}) == ("", {"unset"})


def test_the_default_port_is_the_same_in_both_commands(capsys: pytest.CaptureFixture[str]) -> None:
    """`env` without arguments finds a sandbox started without any, and both helps tell the port."""
    assert run(["sandbox", "env", "--unset"]) == ExitCode.DONE
    capsys.readouterr()
    assert run(["sandbox", "env"]) == ExitCode.DONE
    url = capsys.readouterr().out.partition("MIRAGE_SANDBOX_URL=")[2].partition("\n")[0]
    for words in (["sandbox", "--help"], ["sandbox", "env", "--help"]):
        run(words)
        assert str(urlsplit(url).port) in capsys.readouterr().out
