"""One purchase's rows, written by the journal, or by `aiosqlite` with a commit each."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiosqlite
import msgspec

from mirage_async._clock import SystemClock
from mirage_async.jobs import Intent, JobKind, NullRecorder, new_job
from mirage_async.journal import Journal, StoredImage, StoredOutcome
from mirage_async.models import GeneratedImage, Generation, Pace
from mirage_async.wire import Call

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from pathlib import Path

__all__ = ["OTHER", "OURS"]

_CALL = Call(method="POST", path="/v1/image", body=b'{"prompt":"a lighthouse in the fog"}', content_type="text/json")
_DIGEST = "0123456789abcdef" * 4
_URL = "https://pictures.example/0123456789abcdef.png"
_ROWS = 3  # of one purchase: intent, id, outcome


class _Nothing:
    """Stands in for what is never called here."""

    def __call__(self, *_: object, **__: object) -> Any:
        raise NotImplementedError

    watch = look_before = wake = forget = waits_for = __call__

    async def read(self, image: GeneratedImage) -> bytes:
        raise NotImplementedError

    async def save(self, image: GeneratedImage, path: Path, *, overwrite: bool) -> Path:
        raise NotImplementedError


def _kind() -> JobKind[Generation]:
    nothing = _Nothing()
    return JobKind(
        provider="miragic",
        name="image",
        pace=Pace(first=1.0, interval=1.0, maximum=1.0, max_wait=300.0),
        clock=SystemClock(),
        recorder=NullRecorder(),
        waker=nothing,
        look=nothing,
        redeem=nothing,
        ended=nothing,
        account=None,
    )


@asynccontextmanager
async def OURS(folder: Path) -> AsyncGenerator[Callable[[], Awaitable[int]]]:  # noqa: N802 - one of two sides
    """Yield what makes a purchase whose rows the journal writes."""
    journal, kind = Journal(folder), _kind()

    async def purchase() -> int:
        job = new_job(kind)
        deadline = job.submitted_at + 300.0
        await journal.intended(
            job, Intent(account="0123", call=_CALL, blocking=False, announced=False, deadline=deadline)
        )
        job.id = f"job-{job.key}"
        await journal.accepted(job)
        image = GeneratedImage(_Nothing(), url=_URL)
        await journal.settled(job, Generation(images=(image,), provider="miragic", job_id=job.id, key=job.key))
        return _ROWS

    try:
        yield purchase
    finally:
        await journal.aclose()


@asynccontextmanager
async def OTHER(folder: Path) -> AsyncGenerator[Callable[[], Awaitable[int]]]:  # noqa: N802 - one of two sides
    """Yield what makes a purchase whose rows are committed one by one."""
    kind = _kind()
    async with aiosqlite.connect(folder / "jobs.sqlite", isolation_level=None) as database:
        await database.execute("PRAGMA journal_mode = WAL")
        await database.execute("PRAGMA synchronous = FULL")
        await database.execute(
            "CREATE TABLE jobs (key TEXT PRIMARY KEY NOT NULL, provider TEXT, account TEXT, kind TEXT, digest TEXT, "
            "id TEXT, state TEXT, intended_at REAL, deadline REAL, updated_at REAL, outcome TEXT) WITHOUT ROWID"
        )

        async def purchase() -> int:
            job, moment = new_job(kind), time.time()
            await database.execute(
                "INSERT INTO jobs VALUES (?, 'miragic', '0123', 'image', ?, NULL, 'intended', ?, ?, ?, NULL)",
                (job.key, _DIGEST, moment, moment + 300.0, moment),
            )
            await database.execute(
                "UPDATE jobs SET id = ?, state = 'accepted', updated_at = ? WHERE key = ?",
                (f"job-{job.key}", time.time(), job.key),
            )
            outcome = msgspec.json.encode(StoredOutcome(images=(StoredImage(url=_URL),))).decode()
            await database.execute(
                "UPDATE jobs SET outcome = ?, state = 'succeeded', updated_at = ? WHERE key = ?",
                (outcome, time.time(), job.key),
            )
            return _ROWS

        yield purchase
