"""What the tests of `batch` share: files of lines, and a look at what is in the folder."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from command_line import MODULE, Ended, in_a_hurry, sandbox_for_commands, start
from PIL import Image

from mirage_async.cli import _hubs, run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from mirage_async.sandbox import Sandbox

PROMPTS = ("a red fox", "a lighthouse at dusk", "paper lanterns", "a castle on a turtle", "a tram in the rain")


def write_prompts(folder: Path, *prompts: str, name: str = "prompts.txt") -> str:
    """Write a file of prompts and return its name."""
    (folder / name).write_text("".join(f"{prompt}\n" for prompt in prompts), encoding="utf-8")
    return name


def records_in(folder: Path) -> list[dict[str, Any]]:
    """Return the manifest's records."""
    return [json.loads(line) for line in (folder / "results.jsonl").read_text("utf-8").splitlines()]


def states_in(folder: Path) -> dict[str, int]:
    """Return how many records are in each state."""
    return dict(Counter(record["state"] for record in records_in(folder)))


def pictures_in(folder: Path) -> list[str]:
    """Return the names of the pictures in a folder, each of which can be opened whole."""
    names = sorted(path.name for path in folder.iterdir() if path.suffix in {".jpg", ".png", ".webp"})
    for name in names:
        with Image.open(folder / name) as picture:
            picture.load()
    return names


def drawn(sandbox: Sandbox) -> Counter[str]:
    """Return how often each prompt was bought."""
    return Counter(job.prompt for job in sandbox.jobs.values())


@asynccontextmanager
async def running(
    *words: str, folder: Path, environment: Mapping[str, str], python: tuple[str, ...] = MODULE
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Start a command; it is killed at the end of the block where it still runs."""
    process = await start(*words, folder=folder, environment=environment, python=python)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


class Bench:
    """Commands that run in a thread of this process, one at a time, in a folder of their own, on one sandbox."""

    def __init__(self, sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
        self.sandbox = sandbox
        self._capsys = capsys

    async def run(self, *words: str) -> Ended:
        """Run a command to its end."""
        self._capsys.readouterr()
        logger = logging.getLogger("mirage_async")
        level = logger.level
        try:
            code = await asyncio.to_thread(run, words)
        finally:
            logger.setLevel(level)  # which -v has changed
        shown = self._capsys.readouterr()
        return Ended(code, shown.out.encode(), shown.err)


@pytest.fixture
async def bench(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> AsyncIterator[Bench]:
    """A sandbox, and commands that start in no time and ask it often, in the folder of the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(_hubs, "Mirage", in_a_hurry)
    async with sandbox_for_commands() as (sandbox, environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield Bench(sandbox, capsys)
