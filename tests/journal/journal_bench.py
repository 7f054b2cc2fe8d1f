"""What the tests of the journal share: jobs to record, folders as a killed process leaves them, programs to kill."""

from __future__ import annotations

import asyncio
import io
import os
import shutil
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import msgspec
import pytest
from PIL import Image

from mirage_async import Mirage
from mirage_async._clock import SystemClock
from mirage_async.jobs import Intent, Job, JobKind, new_job
from mirage_async.journal import EntryState, Journal, journal_entries
from mirage_async.models import GeneratedImage, Generation, Pace
from mirage_async.sandbox.exchange import Exchange
from mirage_async.scheduler import FixedInterval, Scheduler
from mirage_async.wire import mirako

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from mirage_async.sandbox import Sandbox

__all__ = [
    "KEY",
    "PROMPT",
    "ROOT",
    "WRITING",
    "crashed",
    "files",
    "filled",
    "finished",
    "generation",
    "hub",
    "intent",
    "interrupted",
    "job",
    "journaling",
    "killed_after",
    "leaves_of",
    "left_after",
    "picture",
    "program",
    "soon",
    "until",
]

ROOT = Path(__file__).parents[2]
KEY = "sk-secret-0123456789abcdef"
PROMPT = "a lighthouse that nobody else has thought of"


def picture(color: str = "teal", size: tuple[int, int] = (32, 32)) -> bytes:
    """Return a plain picture's bytes."""
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, "PNG")
    return buffer.getvalue()


def job(recorder: Any, *, provider: str = "mirako", kind: str = "image", **facts: Any) -> Job[Any]:
    """Return a job that is recorded, and that nobody works on."""
    made: JobKind[Any] = JobKind(
        provider=provider,
        name=kind,
        pace=Pace(first=1, interval=1, maximum=1, max_wait=100),
        clock=SystemClock(),
        recorder=recorder,
        waker=None,  # type: ignore[arg-type]  # nobody watches it
        look=None,  # type: ignore[arg-type]
        redeem=None,  # type: ignore[arg-type]
        ended=lambda _: None,
        account=None,
    )
    owner: Job[Any] = new_job(made, **facts)
    owner.may_be_billed = True
    return owner


def intent(prompt: str = PROMPT, *, label: str | None = None, **facts: Any) -> Intent:
    """Return what is about to be sent."""
    known: dict[str, Any] = {"account": "0123456789ab", "blocking": False, "announced": False, "deadline": 1e9}
    call = mirako.submit_call(prompt, aspect_ratio="16:9", seed=None, images=(), webhook=None)
    return Intent(call=msgspec.structs.replace(call, label=label), **{**known, **facts})


def generation(owner: Job[Any], *data: bytes) -> Generation:
    """Return a result of these pictures."""
    images = tuple(GeneratedImage(None, data=one, mime_type="image/png") for one in data)  # type: ignore[arg-type]
    return Generation(images=images, provider=owner.provider, model=None, job_id=owner.id, key=owner.key)


@asynccontextmanager
async def journaling(folder: Path, **options: Any) -> AsyncIterator[Journal]:
    """Open a journal and close it."""
    journal = Journal(folder, **options)
    try:
        yield journal
    finally:
        await journal.aclose()


@asynccontextmanager
async def hub(sandbox: Any, folder: Path, *, options: Any = None, **further: Any) -> AsyncIterator[Mirage]:
    """Open a hub with a journal, for a sandbox."""
    keys = further.pop("api_keys", dict.fromkeys(sandbox.base_urls, KEY))
    further.setdefault("scheduler", Scheduler(policy=FixedInterval(0.02)))
    async with Mirage(
        keys, base_urls=sandbox.base_urls, journal=Journal(folder, **(options or {})), **further
    ) as mirage:
        yield mirage


def crashed(folder: Path, to: Path) -> Path:
    """Copy a folder as it would be left by a process killed in this moment, and return the copy."""
    shutil.copytree(folder, to, ignore=shutil.ignore_patterns("*-shm"))
    return to


def program(text: str, *arguments: object, **options: Any) -> subprocess.Popen[str]:
    """Start a Python program of its own, which can be killed."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", text, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{Path(__file__).parent}"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def finished(process: subprocess.Popen[str], *, timeout: float = 60.0) -> str:
    """Wait for a program and return what it prints; what it complains about is a failure."""
    printed, complained = process.communicate(timeout=timeout)
    assert process.returncode == 0, complained
    return printed


async def soon(work: Awaitable[Any]) -> Any:
    """Await something that must not take long."""
    with anyio.fail_after(30):
        return await work


async def until(condition: Callable[[], object]) -> None:
    """Wait for something that must not take long."""
    with anyio.fail_after(30):
        while not condition():  # noqa: ASYNC110 - a thread and a server tell no event
            await asyncio.sleep(0.005)


def files(folder: Path) -> Iterator[Path]:
    """Return every file below a folder."""
    return (path for path in folder.rglob("*") if path.is_file())


async def left_after(sandbox: Sandbox, tmp_path: Path, use: Callable[[Mirage], Awaitable[Any]]) -> Path:
    """Use a hub, and return its folder as a kill at that moment would leave it."""
    async with hub(sandbox, tmp_path / "journal") as mirage:
        await soon(use(mirage))
        return crashed(tmp_path / "journal", tmp_path / "left")


async def interrupted(
    sandbox: Sandbox, tmp_path: Path, buy: Callable[[Mirage], Awaitable[Any]], **options: Any
) -> Path:
    """Return a folder as a kill in the middle of a POST leaves it; the provider has taken the job."""
    left: list[Path] = []
    serve = Exchange.serve

    async def killed(self: Exchange, request: Any, route: Any) -> Any:
        if request.method == "POST" and not left:
            left.append(crashed(tmp_path / "journal", tmp_path / "left"))
        return await serve(self, request, route)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Exchange, "serve", killed)
        async with hub(sandbox, tmp_path / "journal", options=options) as mirage:
            await soon(buy(mirage))
    (entry,) = journal_entries(left[0])
    assert (entry.state, entry.id) == (EntryState.INTENDED, None)
    return left[0]


# A process that acknowledges each purchase once it is durable, and goes on until it is killed.
WRITING = """
import asyncio, sys
from journal_bench import intent, job
from mirage_async.journal import Journal

async def main():
    journal = Journal(sys.argv[1])
    print(journal._seat.path, flush=True)
    for number in range(int(sys.argv[2])):
        each = job(journal)
        await journal.intended(each, intent())
        each.id = f"task-{number}"
        await journal.accepted(each)
        print(each.key, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


def killed_after(folder: Path, rows: int) -> tuple[Path, list[str]]:
    """Have a process write so many purchases, kill it, and return its file and the keys it has acknowledged."""
    process = program(WRITING, folder, rows)
    assert process.stdout is not None
    path = Path(process.stdout.readline().strip())
    keys = [process.stdout.readline().strip() for _ in range(rows)]
    process.kill()
    process.communicate()
    return path, keys


async def filled(folder: Path, *, rows: int = 1) -> list[str]:
    """Write so many accepted purchases and close."""
    async with journaling(folder) as journal:
        keys = []
        for number in range(rows):
            owner = job(journal)
            await journal.intended(owner, intent())
            owner.id = f"task-{number}"
            await journal.accepted(owner)
            keys.append(owner.key)
    return keys


def leaves_of(file: bytes | bytearray, root: int) -> list[tuple[int, int]]:
    """Return the pages a tree's rows are on, in their order, and how many are on each.

    Read as SQLite's "Database File Format" says, since not every SQLite was made to tell.
    """
    start = (root - 1) * 4096
    kind, cells = file[start], int.from_bytes(file[start + 3 : start + 5], "big")
    if kind in {0x0D, 0x0A}:
        return [(root, cells)]
    assert kind in {0x05, 0x02}
    places = [start + int.from_bytes(file[at : at + 2], "big") for at in range(start + 12, start + 12 + 2 * cells, 2)]
    below = [int.from_bytes(file[at : at + 4], "big") for at in (*places, start + 8)]
    return [leaf for each in below for leaf in leaves_of(file, each)]
