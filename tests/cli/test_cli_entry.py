"""The command before it does anything: help, version, start-up weight, missing extras, usage errors."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from command_line import Ended, command, end, start

import mirage_async
from mirage_async.cli import run
from mirage_async.cli._exits import ExitCode
from mirage_async.clients import Providers

if TYPE_CHECKING:
    from pathlib import Path

_PROBE = """
import sys
from mirage_async.__main__ import main
try:
    main()
finally:
    print("loaded:", *(name for name in {heavy} if name in sys.modules), file=sys.stderr)
"""
_WITHOUT = """
import sys
sys.modules[{module!r}] = None
from mirage_async.__main__ import main
main()
"""


async def _python(code: str, *words: str, folder: Path) -> Ended:
    return await end(await start(*words, folder=folder, python=("-c", code)))


@pytest.mark.anyio
async def test_help_and_version_load_no_http_client(tmp_path: Path) -> None:
    """What answers without work starts without what work needs."""
    probe = _PROBE.format(heavy=("aiohttp", "PIL"))
    questions = (
        *("--help", "--version", "generate --help", "batch --help", "sandbox --help", "sandbox env --help"),
        *("jobs --help", "jobs list --help", "jobs wait --help"),
    )
    answers = await asyncio.gather(*(_python(probe, *words.split(), folder=tmp_path) for words in questions))
    for words, ended in zip(questions, answers, strict=True):
        assert (ended.code, ended.stderr.strip()) == (0, "loaded:"), words
        assert ended.stdout.startswith(("Usage:", "mirage-async ")), words


@pytest.mark.anyio
async def test_leading_a_shell_to_a_sandbox_loads_no_sandbox(tmp_path: Path) -> None:
    """`sandbox env` runs where the pictures' extra is missing, and takes a shell's start-up file no time."""
    words = ("sandbox", "env", "--url", "http://127.0.0.1:1")
    ended = await _python(_PROBE.format(heavy=("aiohttp", "PIL", "rich")), *words, folder=tmp_path)
    assert ended.code == 0
    assert ended.stderr.splitlines()[-1] == "loaded:"


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("module", "words", "extra"),
    [
        ("typer", ("--help",), "cli"),
        ("rich", ("demo",), "cli"),
        ("PIL", ("demo",), "sandbox"),
        ("PIL", ("sandbox", "--port", "0"), "sandbox"),
    ],
)
async def test_a_missing_extra_is_named_in_one_line(
    module: str, words: tuple[str, ...], extra: str, tmp_path: Path
) -> None:
    """A person learns what to install, and nothing has begun."""
    ended = await _python(_WITHOUT.format(module=module), *words, folder=tmp_path)
    assert (ended.code, ended.stdout) == (ExitCode.USAGE, "")
    assert ended.stderr.count("\n") == 1
    assert f'pip install "mirage_async[{extra}]"' in ended.stderr


@pytest.mark.anyio
async def test_the_module_runs_as_the_command_does(tmp_path: Path) -> None:
    """`python -m mirage_async` is the command, and unknown flags are one line with exit code 2."""
    version, flag = await asyncio.gather(
        command("--version", folder=tmp_path), command("generate", "fox", "--frobnicate", folder=tmp_path)
    )
    assert (version.code, version.stdout) == (0, f"mirage-async {mirage_async.__version__}\n")
    assert (flag.code, flag.stdout, flag.stderr.count("\n")) == (ExitCode.USAGE, "", 1)
    assert flag.stderr.startswith("mirage-async: error: No such option: --frobnicate")


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["generate", "--help"],
        ["demo", "-h"],
        ["avatar", "--help"],
        ["batch", "--help"],
        ["jobs", "--help"],
        ["jobs", "resolve", "--help"],
        ["sandbox", "--help"],
        ["sandbox", "env", "--help"],
        [],
    ],
)
def test_every_help_text_shows_the_exit_codes(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """The table that scripts need stands where people look; no command at all shows the help as well."""
    assert run(words) == ExitCode.DONE
    shown = capsys.readouterr().out
    assert all(f"  {code:>3}  " in shown for code in ExitCode)


def test_the_help_lists_exactly_the_providers_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    """A new provider appears in the help by itself."""
    run(["generate", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert f"Who draws: {', '.join(sorted(Providers.classes()))}." in shown


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["generate", "--provider", "mira"], "Missing argument 'PROMPT'"),
        (["generate", "fox"], "Missing option '--provider'"),
        (["demo", "--seed", "x"], "must be a whole number; got 'x'"),
        (["generate", "fox", "--provider", "mira", "--max-wait", "soon"], "must be a number of seconds; got 'soon'"),
    ],
)
def test_usage_errors_are_one_line_that_points_to_the_help(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The line says what is wrong and where to read on."""
    assert run(words) == ExitCode.USAGE
    shown = capsys.readouterr()
    assert (shown.out, shown.err.count("\n")) == ("", 1)
    assert told in shown.err
    assert "--help)" in shown.err
