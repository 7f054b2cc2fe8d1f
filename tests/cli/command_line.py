"""Running the command as a person's shell would, and a sandbox for it to talk to."""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import os
import sys
import tempfile
import threading
import warnings
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from unittest import mock

from mirage_async import Mirage
from mirage_async.cli import _hubs, run
from mirage_async.sandbox import Sandbox
from mirage_async.scheduler import FixedInterval, Scheduler

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

PATIENCE = 30.0
"""Seconds any command may take before a test gives up on it."""

PROMPTLY = 20.0
"""Seconds in which a command told to end is gone, on a busy machine too; what it would wait for takes longer."""

MODULE = ("-m", "mirage_async")
"""How Python is told to run the command."""

# Where Python is told to write no bytecode every command would compile all it loads, half of its time.
_BYTECODE = tempfile.TemporaryDirectory(prefix="mirage-bytecode-") if sys.dont_write_bytecode else None
_OURS = ("MIRAKO_", "MIRAGIC_", "MIRA_", "MILADY_", "MIRAGE_")
_ONE_AT_A_TIME = threading.Lock()


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended."""

    code: int | None
    raw: bytes
    stderr: str

    @property
    def stdout(self) -> str:
        """Standard output as text."""
        return self.raw.decode()

    @property
    def lines(self) -> list[str]:
        """Standard output by lines."""
        return self.stdout.splitlines()


def inherited() -> dict[str, str]:
    """Return this process's environment, as a command needs it to find the package and to start fast."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    if _BYTECODE is not None:
        environment |= {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": _BYTECODE.name}
    return environment


async def start(
    *words: str, folder: Path, python: tuple[str, ...] = MODULE, environment: Mapping[str, str] | None = None
) -> asyncio.subprocess.Process:
    """Start a command in a folder, with none of the developer's keys and addresses."""
    clean = _without_ours(inherited())
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *python,
        *words,
        cwd=folder,
        env={**clean, **(environment or {})},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def end(process: asyncio.subprocess.Process, stdin: bytes = b"") -> Ended:
    """Wait for a command to end; one that does not is killed, and the test fails."""
    try:
        async with asyncio.timeout(PATIENCE):
            raw, stderr = await process.communicate(stdin)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    return Ended(process.returncode, raw, stderr.decode())


async def command(*words: str, folder: Path, stdin: bytes = b"", environment: Mapping[str, str] | None = None) -> Ended:
    """Run a command to its end."""
    return await end(await start(*words, folder=folder, environment=environment), stdin)


def in_a_hurry(*keys: Any, scheduler: Scheduler | None = None, **options: Any) -> Mirage:
    """Make a hub that does not wait a second or two before it asks, as the documents of real providers say."""
    return Mirage(*keys, scheduler=scheduler or Scheduler(policy=FixedInterval(0.05)), **options)


async def command_here(
    *words: str, folder: Path, stdin: bytes = b"", environment: Mapping[str, str] | None = None
) -> Ended:
    """Run a command to its end in a thread of this process: it starts in no time and asks often; two never run at once.

    What it does is the same. What a process of its own is needed for, such as signals and what is logged, is not there.
    """
    return await asyncio.to_thread(_run_here, words, folder, stdin, environment or {})


def _run_here(words: tuple[str, ...], folder: Path, stdin: bytes, environment: Mapping[str, str]) -> Ended:
    stdout, stderr = io.BytesIO(), io.StringIO()
    level = logging.getLogger("mirage_async").level
    with (
        _ONE_AT_A_TIME,
        contextlib.chdir(folder),
        mock.patch.dict(os.environ, {**_without_ours(os.environ), **environment}, clear=True),
        mock.patch.object(_hubs, "Mirage", in_a_hurry),
        mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), "utf-8")),
        contextlib.redirect_stdout(io.TextIOWrapper(stdout, "utf-8", write_through=True)),
        contextlib.redirect_stderr(stderr),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("default")  # the command tells them
        try:
            code = run(words)
        finally:
            logging.getLogger("mirage_async").setLevel(level)
        return Ended(code, stdout.getvalue(), stderr.getvalue())


def _without_ours(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if not name.startswith(_OURS)}


@asynccontextmanager
async def sandbox_for_commands(durations: Any = 0.05) -> AsyncIterator[tuple[Sandbox, dict[str, str]]]:
    """Run a sandbox, and yield it with the environment that leads commands to it."""
    async with Sandbox(durations=durations) as sandbox:
        yield sandbox, {"MIRAGE_SANDBOX_URL": sandbox.url}


def names_in(folder: Path) -> list[str]:
    """Return the names of the files in a folder, in order."""
    return sorted(path.name for path in folder.iterdir())
