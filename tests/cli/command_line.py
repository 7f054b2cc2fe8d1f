"""Running the command as a person's shell would, and a sandbox for it to talk to."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mirage_async.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

PATIENCE = 30.0
"""Seconds any command may take before a test gives up on it."""

# Where Python is told to write no bytecode every command would compile all it loads, half of its time.
_BYTECODE = tempfile.TemporaryDirectory(prefix="mirage-bytecode-") if sys.dont_write_bytecode else None
_OURS = ("MIRAKO_", "MIRAGIC_", "MIRA_", "MILADY_", "MIRAGE_")
_MODULE = ("-m", "mirage_async")


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
    *words: str, folder: Path, python: tuple[str, ...] = _MODULE, environment: Mapping[str, str] | None = None
) -> asyncio.subprocess.Process:
    """Start a command in a folder, with none of the developer's keys and addresses."""
    clean = {name: value for name, value in inherited().items() if not name.startswith(_OURS)}
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


@asynccontextmanager
async def sandbox_for_commands(durations: Any = 0.05) -> AsyncIterator[tuple[Sandbox, dict[str, str]]]:
    """Run a sandbox, and yield it with the environment that leads commands to it."""
    async with Sandbox(durations=durations) as sandbox:
        yield sandbox, {"MIRAGE_SANDBOX_URL": sandbox.url}


def names_in(folder: Path) -> list[str]:
    """Return the names of the files in a folder, in order."""
    return sorted(path.name for path in folder.iterdir())
