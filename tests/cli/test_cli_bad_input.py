"""Bad input ends with one line, exit code 2 and nothing sent."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest
from command_line import Ended, command, command_here, sandbox_for_commands
from PIL import Image

from mirage_async.cli import run
from mirage_async.cli._exits import ExitCode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from mirage_async.sandbox import SeenRequest

CASES: dict[str, tuple[str, str]] = {  # by name: the words after `generate`, and what the line must say
    "unknown provider": ("fox --provider flux", "'mirako', 'miragic', 'mira', 'milady'; got 'flux'"),
    "foreign aspect ratio": ("fox --provider mirako --aspect-ratio 21:9", "16:9, 1:1"),
    "six references": ("fox --provider mirako" + " --reference ok.png" * 6, "at most 5 pictures; got 6"),
    "gif reference": ("fox --provider mirako --reference moving.gif", "image/gif"),
    "text as a picture": ("fox --provider mira --reference notes.png", "must be a picture"),
    "width too small": ("fox --provider miragic --size 255x512", "256 to 2048; got 255"),
    "image_url without kontext": ("fox --provider miragic --option image_url=https://x.test/a.png", "'kontext'"),
    "no pictures": ("fox --provider mira -n 0", "1 to 4; got 0"),
    "folder below a file": ("fox --provider mira -o notes.png/sub/", "cannot write to 'notes.png/sub'"),
    "unwritable folder": ("fox --provider mira -o /proc/nowhere/fox.png", "cannot write to '/proc/nowhere'"),
    "unknown flag": ("fox --provider mira --frobnicate", "No such option: --frobnicate"),
}

LOCAL_CASES: dict[str, tuple[str, str]] = {  # the same, for what needs no process of its own to be believed
    "missing picture": ("fox --provider mira --reference gone.png", "'gone.png': No such file"),
    "size that is none": ("fox --provider miragic --size big", "\"1024x768\" (width x height in pixels); got 'big'"),
    "unknown option": ("fox --provider mira --option glow=1", "'glow'"),
    "option without value": ("fox --provider mira --option glow", "key=value; got 'glow'"),
    "option twice": ("fox --provider mira --option quality=low --option quality=high", "given twice"),
    "endless wait": ("fox --provider miragic --max-wait inf", "max_wait must be"),
    "existing file": ("fox --provider mira -o ok.png", "'ok.png' exists"),
    "existing file of another type": ("fox --provider mira -o ok.jpg", "'ok.png' exists"),
    "two pictures to stdout": ("fox --provider mira -n 2 -o -", "one picture to stdout; got -n 2"),
    "json and picture to stdout": ("fox --provider mira --json -o -", "both want stdout"),
}


@pytest.fixture(scope="module")
async def outcomes(
    anyio_backend: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[Mapping[str, Ended], list[SeenRequest]]]:
    """Run all cases against one sandbox, four of them in processes of their own."""
    folder = tmp_path_factory.mktemp("bad-input")
    Image.new("RGB", (64, 64), "teal").save(folder / "ok.png")
    Image.new("RGB", (64, 64), "teal").save(folder / "moving.gif")
    (folder / "notes.png").write_text("buy milk")
    slots = asyncio.Semaphore(max(os.cpu_count() or 1, 4))

    async def outcome(words: list[str]) -> Ended:
        if words not in alone:
            return await command_here("generate", *words, folder=folder, environment=environment)
        async with slots:
            return await command("generate", *words, folder=folder, environment=environment)

    cases = {name: words.split() for name, (words, _) in CASES.items()}
    alone = [cases[name] for name in ("unknown provider", "gif reference", "unwritable folder", "unknown flag")]
    cases["empty prompt"] = ["", "--provider", "mirako"]
    cases["long prompt"] = ["x" * 4001, "--provider", "milady"]
    async with sandbox_for_commands() as (sandbox, environment):
        ended = await asyncio.gather(*map(outcome, cases.values()))
        yield dict(zip(cases, ended, strict=True)), sandbox.requests


@pytest.mark.anyio
@pytest.mark.parametrize("name", [*CASES, "empty prompt", "long prompt"])
async def test_bad_input_is_one_line_and_exit_code_2(
    name: str, outcomes: tuple[Mapping[str, Ended], list[SeenRequest]]
) -> None:
    """The line names the value and what is allowed, stdout stays empty, and the provider hears nothing."""
    ended = outcomes[0][name]
    assert (ended.code, ended.stdout, outcomes[1]) == (ExitCode.USAGE, "", []), ended.stderr
    assert ended.stderr.startswith("mirage-async: error: ")
    assert ended.stderr.count("\n") == 1
    told = {"empty prompt": "got empty text", "long prompt": "1 to 4000 characters of text; got 4001 characters"}
    assert (told.get(name) or CASES[name][1]) in ended.stderr


@pytest.mark.parametrize("name", LOCAL_CASES)
def test_bad_words_are_refused_before_a_connection_is_tried(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The address leads nowhere, so an attempt to connect would be another error than the one told."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MIRAGE_SANDBOX_URL", "http://127.0.0.1:9")
    Image.new("RGB", (64, 64), "teal").save("ok.png")
    words, told = LOCAL_CASES[name]
    assert run(["generate", *words.split()]) == ExitCode.USAGE
    shown = capsys.readouterr()
    assert (shown.out, shown.err.count("\n")) == ("", 1)
    assert told in shown.err
