"""Standard streams that fail must not cost a picture that is paid for."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from asyncio.subprocess import PIPE
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from batches import records_in, states_in, write_prompts
from command_line import PATIENCE, inherited, sandbox_for_commands
from terminals import on_terminal
from test_cli_batch import until_seen, words_for

from mirage_async import Mirage
from mirage_async.cli._aside import Aside
from mirage_async.cli._batch.progress import Tally
from mirage_async.cli._batch.progress import displayed as batch_displayed
from mirage_async.cli._display import displayed
from mirage_async.cli._lines import tell
from mirage_async.journal import Journal, journal_entries

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

GENERATE = [sys.executable, "-m", "mirage_async", "generate", "a red boat", "--provider", "miragic", "--sandbox"]


def dead_end() -> int:
    """Return the writing end of a pipe nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing


async def generated(
    *arguments: str, folder: Path, stdout: int = PIPE, stderr: int = PIPE
) -> subprocess.CompletedProcess[bytes]:
    """Buy a picture that is finished as soon as it is ordered."""
    async with sandbox_for_commands(durations=0.0) as (_, address):
        environment = {**inherited(), **address, "TMPDIR": str(folder)}
        words = [*GENERATE, *arguments]
        return await asyncio.to_thread(
            subprocess.run, words, stdout=stdout, stderr=stderr, cwd=folder, env=environment, check=False
        )


@pytest.mark.anyio
@pytest.mark.parametrize("stuck", ["stdout", "stderr"])
async def test_a_command_whose_output_nobody_reads_can_be_ended_politely(stuck: str, tmp_path: Path) -> None:
    """It waits a moment for whoever reads slowly, and no longer, whatever thread is writing."""
    reading, writing = full_pipe()
    provider, operation = ("mira", "mira.download") if stuck == "stdout" else ("miragic", "miragic.status")
    async with sandbox_for_commands(durations=0.0 if stuck == "stdout" else 60.0) as (sandbox, address):
        words = ["-m", "mirage_async", "generate", "fox", "--provider", provider, "-o", "-"]
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *words,
            env={**inherited(), **address},
            cwd=tmp_path,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=writing if stuck == "stdout" else PIPE,
            stderr=writing if stuck == "stderr" else PIPE,
        )
        await until_seen(sandbox, operation, 1)
        await asyncio.sleep(0.3)  # nothing tells that a thread has begun to write; without it this proves less
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE):
            stdout, stderr = await process.communicate()
    os.close(reading)
    os.close(writing)
    assert process.returncode == 130
    assert not stdout
    if stuck == "stdout":
        assert b"picture is at http://" in stderr


@pytest.mark.anyio
async def test_a_batch_whose_stderr_nobody_reads_can_be_ended_politely(tmp_path: Path) -> None:
    """What it would tell in the end is in its folder, too."""
    reading, writing = full_pipe()
    async with sandbox_for_commands(durations=60.0) as (sandbox, address):
        words = words_for(write_prompts(tmp_path, "fox", "owl"))
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "mirage_async", *words),
            env={**inherited(), **address},
            cwd=tmp_path,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=writing,
        )
        await until_seen(sandbox, "miragic.status", 1)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE):
            assert await process.wait() == 130
    os.close(reading)
    os.close(writing)
    assert states_in(tmp_path / "out") == {"pending": 2}


@pytest.mark.anyio
@pytest.mark.parametrize("arguments", [["-o", "-"], ["-o", "boat"]], ids=["picture", "path"])
async def test_a_stdout_nobody_reads_is_answered_with_where_the_picture_is(
    arguments: list[str], tmp_path: Path
) -> None:
    """The command fails, and says on stderr which file holds what was bought."""
    stdout = dead_end()
    done = await generated(*arguments, folder=tmp_path, stdout=stdout)
    os.close(stdout)
    (picture,) = tmp_path.rglob("*.jpg")  # noqa: ASYNC240 - a test may block
    assert done.returncode == 1
    assert picture.name in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()


@pytest.mark.anyio
async def test_a_log_nobody_reads_does_not_stop_the_purchase(tmp_path: Path) -> None:
    """With -v every step is told; where telling fails the picture is saved all the same."""
    stderr = dead_end()
    done = await generated("-v", "-o", "boat", folder=tmp_path, stderr=stderr)
    os.close(stderr)
    assert (done.returncode, done.stdout.decode().strip()) == (0, "boat.jpg")
    assert (tmp_path / "boat.jpg").stat().st_size > 0


def test_a_bad_address_is_a_matter_of_usage_and_not_of_keys(tmp_path: Path) -> None:
    """Exit code 2, as for every argument that is wrong; 4 is for keys."""
    environment = {**inherited(), "MIRAGE_SANDBOX_URL": "ftp://a.example"}
    done = subprocess.run(GENERATE, stderr=PIPE, cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 2
    assert "base_url must be an absolute http(s) address" in done.stderr.decode()


_FULL = Path("/dev/full")


def broken(kind: str) -> int:
    """Return a file descriptor that cannot be written to."""
    return dead_end() if kind == "closed pipe" else os.open(_FULL, os.O_WRONLY)


@asynccontextmanager
async def batch(
    *arguments: str,
    folder: Path,
    provider: str = "mira",
    environment: Mapping[str, str],
    stdout: int = PIPE,
    stderr: int = PIPE,
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a batch of the file "a.txt" with other streams than usual; it is killed at the end of the block."""
    words = ("-m", "mirage_async", "batch", "a.txt", "-o", "out", "--provider", provider, *arguments)
    process = await asyncio.create_subprocess_exec(
        sys.executable, *words, cwd=folder, env={**inherited(), **environment}, stdout=stdout, stderr=stderr
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


BROKEN = [
    "closed pipe",
    pytest.param("full disk", marks=pytest.mark.skipif(not _FULL.exists(), reason="there is no /dev/full")),
]


@pytest.mark.anyio
@pytest.mark.parametrize("kind", BROKEN)
async def test_a_stderr_that_fails_costs_no_picture_of_a_batch(kind: str, tmp_path: Path) -> None:
    """The requests on the wire come home, and the others are sent."""
    write_prompts(tmp_path, *(f"picture {number}" for number in range(6)), name="a.txt")
    async with sandbox_for_commands(durations=0.3) as (_, environment):
        stderr = broken(kind)
        async with batch(
            "--limit", "3", folder=tmp_path, environment=environment, stderr=stderr, stdout=PIPE
        ) as process:
            os.close(stderr)
            raw, _ = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert (process.returncode, len(raw.splitlines())) == (0, 6)
    assert states_in(tmp_path / "out") == {"done": 6}


@pytest.mark.anyio
@pytest.mark.parametrize("kind", BROKEN)
async def test_a_stderr_that_fails_keeps_nothing_from_being_collected(kind: str, tmp_path: Path) -> None:
    """What is owed is saved, and counts as collected."""
    async with sandbox_for_commands() as (sandbox, environment):
        async with Mirage(base_urls=sandbox.base_urls, journal=Journal(tmp_path / "journal")) as hub:
            for provider in ("miragic", "miragic"):
                await hub.submit("a red fox", provider=provider)
        words = ("jobs", "wait", "--journal", "journal", "-o", "out")
        stderr = broken(kind)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "mirage_async", *words),
            cwd=tmp_path,
            env={**inherited(), **environment},
            stdout=PIPE,
            stderr=stderr,
        )
        os.close(stderr)
        raw, _ = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert (process.returncode, len(raw.splitlines())) == (0, 2)
    assert not any(entry.owed for entry in journal_entries(tmp_path / "journal"))


@pytest.mark.anyio
@pytest.mark.parametrize("arguments", [("--json",), ()], ids=["records", "paths"])
async def test_letters_that_stdout_has_no_code_for_are_escaped(arguments: tuple[str, ...], tmp_path: Path) -> None:
    """As on a Windows whose output is redirected."""
    write_prompts(tmp_path, "a f\u00fcchs \u72d0", "a hen \U0001f414", name="a.txt")
    async with sandbox_for_commands() as (_, address):
        environment = {**address, "PYTHONIOENCODING": "cp1252"}
        async with batch(*arguments, folder=tmp_path, environment=environment) as process:
            raw, stderr = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert (process.returncode, len(raw.splitlines())) == (0, 2), stderr
    assert states_in(tmp_path / "out") == {"done": 2}
    if arguments:
        assert {json.loads(line)["prompt"] for line in raw.decode("cp1252").splitlines()} == {
            "a f\u00fcchs \u72d0",
            "a hen \U0001f414",
        }


@pytest.mark.anyio
async def test_a_terminal_that_is_closed_costs_no_picture_of_a_batch(tmp_path: Path) -> None:
    """Where the system does not end the command for it; the code says that the paths could not be printed."""
    write_prompts(tmp_path, *(f"picture {number}" for number in range(6)), name="a.txt")
    words = ("batch", "a.txt", "-o", "out", "--provider", "mira", "--limit", "3")
    async with (
        sandbox_for_commands(durations=0.5) as (sandbox, environment),
        on_terminal(*words, columns=80, folder=tmp_path, environment=environment) as terminal,
    ):
        await until_seen(sandbox, "mira.generate", 3)
        terminal.close()
    assert (terminal.process.returncode, states_in(tmp_path / "out")) == (1, {"done": 6})


def test_a_display_whose_terminal_fails_is_drawn_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a frame nor a line that stands above it raises anything."""

    class Failing(io.StringIO):
        def isatty(self) -> bool:
            return True

        def write(self, _: str) -> int:
            raise OSError(5, "Input/output error")

        def flush(self) -> None:
            raise OSError(5, "Input/output error")

    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr("sys.stderr", Failing())
    tally = Tally(1, 0)
    with displayed(lines=True) as board:
        board.add("mira", "fox").end("done")
        tell("above")
    with batch_displayed(tally, quiet=False):
        tell("above")
    assert tally.ended == 0


# --- slow readers ---


def full_pipe() -> tuple[int, int]:
    """Return both ends of a pipe that takes nothing more until somebody reads."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, b"." * 512)
    os.set_blocking(writing, True)
    return reading, writing


def rest_of(reading: int) -> bytes:
    """Read a pipe to its end."""
    with os.fdopen(reading, "rb") as pipe:
        return pipe.read().lstrip(b".")


async def until_done(folder: Path, count: int) -> None:
    """Wait until the manifest of a running batch has so many records."""
    async with asyncio.timeout(30):
        while not (folder / "results.jsonl").exists() or len(records_in(folder)) < count:  # noqa: ASYNC110 - another process writes
            await asyncio.sleep(0.02)


@pytest.mark.anyio
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
async def test_a_slow_reader_holds_up_no_purchase(stream: str, tmp_path: Path) -> None:
    """All is bought and saved meanwhile; the end waits for the reader, who gets every line."""
    write_prompts(tmp_path, *(f"picture {number}" for number in range(6)), name="a.txt")
    async with sandbox_for_commands() as (_, environment):
        reading, writing = full_pipe()
        stdout, stderr = (writing, PIPE) if stream == "stdout" else (PIPE, writing)
        async with batch(
            "--limit", "2", folder=tmp_path, environment=environment, stdout=stdout, stderr=stderr
        ) as process:
            os.close(writing)
            await until_done(tmp_path / "out", 6)
            await asyncio.sleep(0.2)
            waited = process.returncode is None
            read, _ = await asyncio.gather(asyncio.to_thread(rest_of, reading), process.communicate())
    assert (waited, process.returncode) == (True, 0)
    lines = [line for line in read.decode().splitlines() if "out/" in line or " done " in line]
    assert len(lines) == (6 if stream == "stdout" else 7), read


STOPPED = {
    "bar of a batch": (("batch", "a.txt", "-o", "out", "--provider", "mira", "--limit", "1"), "3 of 3 done"),
    "log of a batch": (("batch", "a.txt", "-o", "out", "--provider", "mira", "--limit", "1", "-v"), "3 of 3 done"),
    "bar": (("generate", "a fox", "-o", "out/", "--provider", "miragic"), "1 of 1 done"),
    "log": (("generate", "a fox", "-o", "out/", "--provider", "miragic", "-v"), "submitted: <Job"),
    "collecting": (("jobs", "wait", "--journal", "journal", "-o", "out/"), "3 of 3 done"),
}


@pytest.mark.anyio
@pytest.mark.parametrize("command", STOPPED)
async def test_a_stopped_terminal_holds_up_no_purchase(command: str, tmp_path: Path) -> None:
    """All is bought and saved after Ctrl-S; and told after Ctrl-Q, with no more of the bar than there was to see."""
    words, told = STOPPED[command]
    count = 1 if words[0] == "generate" else 3
    write_prompts(tmp_path, "fox", "owl", "elk", name="a.txt")
    async with sandbox_for_commands(durations=0.3) as (sandbox, environment):
        if command == "collecting":
            async with Mirage(base_urls=sandbox.base_urls, journal=Journal(tmp_path / "journal")) as hub:
                for _ in range(3):
                    await hub.submit("a red fox", provider="miragic")
        async with on_terminal(*words, columns=80, folder=tmp_path, environment=environment, stopped=True) as terminal:
            async with asyncio.timeout(PATIENCE):
                while len([*(tmp_path / "out").glob("*.jpg"), *(tmp_path / "out").glob("*.png")]) < count:  # noqa: ASYNC110 - another process writes
                    await asyncio.sleep(0.02)
            await asyncio.sleep(0.5)
            before = terminal.text
            terminal.go_on()
    assert (before, terminal.process.returncode) == ("", 0)
    assert told in terminal.text
    assert terminal.text.count("in flight") <= 2  # a frame of the bar each


@pytest.mark.anyio
async def test_a_person_need_not_wait_for_a_slow_reader(tmp_path: Path) -> None:
    """All is kept and told by then, and Ctrl-C ends the command."""
    write_prompts(tmp_path, "a fox", "an owl", name="a.txt")
    async with sandbox_for_commands() as (_, environment):
        reading, writing = full_pipe()
        async with batch(folder=tmp_path, environment=environment, stdout=writing) as process:
            os.close(writing)
            assert process.stderr is not None
            told = [await asyncio.wait_for(process.stderr.readline(), PATIENCE) for _ in range(3)]
            await asyncio.sleep(0.2)
            process.send_signal(signal.SIGINT)
            _, rest = await asyncio.wait_for(process.communicate(), PATIENCE)
        os.close(reading)
    assert b"2 of 2 done" in told[-1]
    assert (process.returncode, rest) == (130, b"mirage-async: interrupted\n")
    assert (tmp_path / "out" / "index.html").exists()


@pytest.mark.anyio
async def test_a_reader_that_leaves_at_last_ends_the_wait(tmp_path: Path) -> None:
    """The code says that not all was printed."""
    write_prompts(tmp_path, "a fox", "an owl", name="a.txt")
    async with sandbox_for_commands() as (_, environment):
        reading, writing = full_pipe()
        async with batch(folder=tmp_path, environment=environment, stdout=writing) as process:
            os.close(writing)
            await until_done(tmp_path / "out", 2)
            os.close(reading)
            await asyncio.wait_for(process.communicate(), PATIENCE)
    assert (process.returncode, states_in(tmp_path / "out")) == (1, {"done": 2})


@pytest.mark.anyio
async def test_a_stream_that_does_not_wait_is_written_to_when_it_takes_more() -> None:
    """As a pipe or a terminal that another program has set up so; nothing is lost or cut."""
    reading, writing = full_pipe()
    os.set_blocking(writing, False)
    with os.fdopen(writing, "w", encoding="utf-8") as stream:
        aside = Aside(stream)
        for number in range(3):
            aside.write(f"line {number} {'x' * 9000}\n")
        early = aside.wait(0.1)
        read = asyncio.create_task(asyncio.to_thread(rest_of, reading))
        await aside.written()
        aside.close()
    lines = (await read).decode().splitlines()
    assert (early, aside.failed) == (False, False)
    assert [(line[:6], len(line)) for line in lines] == [(f"line {number}", 9007) for number in range(3)]


@pytest.mark.anyio
async def test_a_stream_that_is_closed_has_failed_and_is_waited_for_no_more() -> None:
    """Once it is told, and what follows is dropped."""
    told: list[str] = []
    stream = io.StringIO()
    aside = Aside(stream, lambda: told.append("failed"))
    aside.write("a")
    await aside.written()
    kept = stream.getvalue()
    stream.close()
    for _ in range(2):
        aside.write("b")
    await aside.written()
    aside.close()
    assert (kept, aside.failed, told) == ("a", True, ["failed"])
