"""Each way a purchase ends has an exit code of its own, one line, and what is needed to go on."""

from __future__ import annotations

import asyncio
import json
import shlex
import signal
from typing import TYPE_CHECKING, Any

import pytest
from command_line import PROMPTLY, command, command_here, end, names_in, sandbox_for_commands, start

from mirage_async import Mirage
from mirage_async.cli._exits import ExitCode
from mirage_async.sandbox import Fault

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio

_FAILED = {"success": True, "data": {"status": "failed", "errorMessage": "out of paint"}}
_LATER = {"Retry-After": "3600"}


def _token(stderr: str) -> str:
    """Return the token in a line that says how to resume."""
    (line,) = [line for line in stderr.splitlines() if "to resume" in line]
    return line[line.index("{") : line.rindex("}") + 1]


@pytest.mark.parametrize(
    ("operation", "fault", "code", "told"),
    [
        ("mirako.create", Fault(status=401), ExitCode.AUTHENTICATION, "mirako"),
        ("milady.generate", Fault(status=402), ExitCode.CREDITS, "milady"),
        ("mira.generate", Fault(status=429, headers=_LATER), ExitCode.CREDITS, "mira"),
        ("mira.generate", Fault(status=403), ExitCode.REFUSED, "mira"),
        ("milady.generate", Fault(status=500), ExitCode.REFUSED, "milady"),
        ("miragic.status", Fault(status=200, body=_FAILED), ExitCode.REFUSED, "out of paint"),
        ("miragic.create", Fault(reset=True, when="after"), ExitCode.FAILURE, "may or may not have taken"),
    ],
)
async def test_what_the_provider_does_decides_the_exit_code(
    operation: str, fault: Fault, code: ExitCode, told: str, tmp_path: Path
) -> None:
    """One line, nothing on stdout, no file, and never a second purchase."""
    async with sandbox_for_commands() as (sandbox, environment):
        sandbox.fail(operation, fault)
        provider = operation.partition(".")[0]
        ended = await command_here("generate", "fox", "--provider", provider, folder=tmp_path, environment=environment)
        assert (ended.code, ended.stdout, names_in(tmp_path)) == (code, "", []), ended.stderr
        assert ended.stderr.startswith("mirage-async: error: ")
        assert told in ended.stderr.splitlines()[0]
        assert sum(request.method == "POST" for request in sandbox.requests) == 1
        if code is ExitCode.FAILURE:
            assert "(key " in ended.stderr


async def test_a_timed_out_job_can_be_resumed_with_the_token_told(tmp_path: Path) -> None:
    """Exit code 6 comes with a line whose token attaches to the very job."""
    async with sandbox_for_commands(durations=60) as (sandbox, environment):
        words = shlex.split("generate fox --provider miragic --max-wait 0.2")
        ended = await command_here(*words, folder=tmp_path, environment=environment)
        assert (ended.code, ended.stdout) == (ExitCode.TIMED_OUT, "")
        (job_id,) = sandbox.jobs
        sandbox.finish_job(job_id)
        async with Mirage(base_urls=sandbox.base_urls) as mirage:
            generation = await mirage.job(_token(ended.stderr))
        assert generation.job_id == job_id


@pytest.mark.parametrize("interruption", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize(("provider", "operation"), [("miragic", "miragic.status"), ("mirako", "mirako.create")])
async def test_an_interrupted_command_tells_the_token_of_an_accepted_job(
    provider: str, operation: str, interruption: signal.Signals, tmp_path: Path
) -> None:
    """Ctrl-C or a polite end brings 130 and the way back long before the job is done, without a traceback."""
    async with sandbox_for_commands(durations=60) as (sandbox, environment):
        process = await start("generate", "fox", "--provider", provider, folder=tmp_path, environment=environment)
        await _until_seen(sandbox, operation)
        process.send_signal(interruption)
        async with asyncio.timeout(PROMPTLY):
            ended = await end(process)
        assert (ended.code, ended.stdout) == (ExitCode.INTERRUPTED, "")
        assert json.loads(_token(ended.stderr))["id"] in sandbox.jobs
        assert "Traceback" not in ended.stderr


async def test_a_background_command_of_a_script_tells_the_token_when_it_is_killed(tmp_path: Path) -> None:
    """A shell makes what it starts with "&" ignore Ctrl-C; a polite end counts all the same."""
    ignoring = (
        "import runpy, signal; signal.signal(signal.SIGINT, signal.SIG_IGN); "
        "runpy.run_module('mirage_async', run_name='__main__', alter_sys=True)"
    )
    async with sandbox_for_commands(durations=60) as (sandbox, environment):
        words = ("generate", "fox", "--provider", "miragic")
        process = await start(*words, folder=tmp_path, python=("-c", ignoring), environment=environment)
        await _until_seen(sandbox, "miragic.status")
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PROMPTLY):
            ended = await end(process)
        assert (ended.code, ended.stdout) == (ExitCode.INTERRUPTED, "")
        assert json.loads(_token(ended.stderr))["id"] in sandbox.jobs
        assert "Traceback" not in ended.stderr


async def test_an_interrupted_blocking_request_is_said_to_be_perhaps_bought(tmp_path: Path) -> None:
    """There is nothing to resume where the provider has no jobs, but money may be gone, and the line says so."""
    async with sandbox_for_commands(durations=60) as (sandbox, environment):
        process = await start("generate", "fox", "--provider", "mira", folder=tmp_path, environment=environment)
        await _until_seen(sandbox, "mira.generate")
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(PROMPTLY):
            ended = await end(process)
        assert ended.code == ExitCode.INTERRUPTED
        assert "may have been bought (key " in ended.stderr


async def test_a_picture_that_came_with_the_answer_to_an_interrupted_command_is_kept(tmp_path: Path) -> None:
    """It is paid for, and can be had nowhere else: there is neither a job nor a link."""
    async with sandbox_for_commands(durations=1.0) as (sandbox, environment):
        words = ("generate", "fox [[fault:data-url]]", "--provider", "milady", "-o", "out/")
        there = {**environment, "TMPDIR": str(tmp_path)}
        process = await start(*words, folder=tmp_path, environment=there)
        await _until_seen(sandbox, "milady.generate")
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PROMPTLY):
            ended = await end(process)
    assert (ended.code, ended.stdout) == (ExitCode.INTERRUPTED, "")
    (kept,) = tmp_path.glob("mirage-*/*")  # noqa: ASYNC240 - a folder of a few files
    assert f"it is kept as '{kept}'" in ended.stderr
    assert kept.stat().st_size > 100


async def test_a_picture_that_is_in_its_file_is_not_saved_once_more(tmp_path: Path) -> None:
    """What comes after its path was printed finds it in safety, and says nothing of it."""
    async with sandbox_for_commands(durations=0.0) as (_, environment):
        words = ("generate", "fox [[fault:data-url]]", "--provider", "milady", "-o", "fox.webp")
        process = await start(*words, folder=tmp_path, environment={**environment, "TMPDIR": str(tmp_path)})
        assert process.stdout is not None
        async with asyncio.timeout(PROMPTLY):
            assert await process.stdout.readline() == b"fox.webp\n"
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PROMPTLY):
            ended = await end(process)
    assert ended.code in {ExitCode.DONE, ExitCode.INTERRUPTED}
    assert "could not be put where it was wanted" not in ended.stderr
    assert names_in(tmp_path) == ["fox.webp"]


async def test_nothing_is_to_be_resumed_where_the_sandbox_ends_with_the_command(tmp_path: Path) -> None:
    """An interruption and a wait that is over say that the sandbox has ended, and name no way back."""
    words = ("generate", "fox", "--provider", "miragic", "--sandbox")
    process = await start(*words, "-v", folder=tmp_path)
    assert process.stderr is not None
    async with asyncio.timeout(30):
        assert b"submitted: " in await process.stderr.readline()
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(PROMPTLY):
        interrupted = await end(process)
    timed_out = await command_here(*words, "--max-wait", "0.1", folder=tmp_path)
    assert (interrupted.code, timed_out.code) == (ExitCode.INTERRUPTED, ExitCode.TIMED_OUT)
    for ended in (interrupted, timed_out):
        assert ended.stderr.count("the sandbox has ended and the picture with it") == 1
        assert "resume" not in ended.stderr
        assert "lives on" not in ended.stderr
        assert (ended.stdout, names_in(tmp_path)) == ("", [])


async def test_a_missing_key_is_a_matter_of_authentication(tmp_path: Path) -> None:
    """Without a key the code is 4; with one, an address that is none is a usage error."""
    wrong = {"MILADY_API_KEY": "k", "MILADY_BASE_URL": "ftp://x"}
    no_key, no_address = await asyncio.gather(
        command_here("generate", "fox", "--provider", "milady", folder=tmp_path),
        command_here("generate", "fox", "--provider", "milady", folder=tmp_path, environment=wrong),
    )
    assert (no_key.code, no_key.stdout, no_key.stderr.count("\n")) == (ExitCode.AUTHENTICATION, "", 1)
    assert "MILADY_API_KEY" in no_key.stderr
    assert (no_address.code, no_address.stderr.count("\n")) == (ExitCode.USAGE, 1)


async def test_nobody_listening_is_one_line_and_the_traceback_is_for_those_who_ask(tmp_path: Path) -> None:
    """MIRAGE_DEBUG=1 adds the traceback to the line; the line itself stays."""
    async with sandbox_for_commands() as (_, environment):
        pass
    words = ("generate", "fox", "--provider", "mira")
    plain, debug = await asyncio.gather(
        command(*words, folder=tmp_path, environment=environment),
        command(*words, folder=tmp_path, environment={"MIRAGE_DEBUG": "1", **environment}),
    )
    assert (plain.code, plain.stderr.count("\n")) == (ExitCode.FAILURE, 1)
    assert "nothing was sent" in plain.stderr
    assert "Traceback" in debug.stderr
    assert "mirage-async: error: " in debug.stderr


async def _until_seen(sandbox: Any, operation: str) -> None:
    async with asyncio.timeout(30):
        while not any(request.operation == operation and request.status for request in sandbox.requests):
            if operation in {"mira.generate", "milady.generate"} and sandbox.jobs:
                return  # it answers only when the picture is done
            await asyncio.sleep(0.02)
