"""What there is to see while jobs run, apart from how it is shown."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

from mirage_async.cli._lines import one_line
from mirage_async.models import JobStatus

if TYPE_CHECKING:
    from collections.abc import Callable

    from mirage_async.jobs import Job

__all__ = ["Board", "End", "Row"]

T = TypeVar("T")

End: TypeAlias = Literal["done", "failed"]


class Row:
    """One job: who draws, what, and how far it is.

    Attributes:
        provider: the provider's name.
        title: what is drawn, on one line.
        state: "waiting" before it begins, a job's status, "saving", "done" or "failed".
        progress: share done, 0 to 1, or None where nobody knows.
        reason: why it failed; "" otherwise.
        began: when it began, in seconds of the monotonic clock, or None.
        ended: when it ended, likewise.
    """

    def __init__(self, provider: str, title: str, on_end: Callable[[Row], None]) -> None:
        self.provider = provider
        self.title = one_line(title)
        self.state = "waiting"
        self.progress: float | None = None
        self.reason = ""
        self.began: float | None = None
        self.ended: float | None = None
        self._on_end = on_end

    @property
    def elapsed(self) -> float | None:
        """Seconds since it began, or until it ended; None before."""
        if self.began is None:
            return None
        return (time.monotonic() if self.ended is None else self.ended) - self.began

    def begin(self, state: str = "submitting") -> None:
        """Start the clock of this row."""
        self.began = time.monotonic()
        self.state = state

    async def follow(self, job: Job[T]) -> T:
        """Show a job's states until it ends, and return its result or raise why there is none."""
        await self.watch(job)
        return await job

    async def watch(self, job: Job[Any]) -> None:
        """Show a job's states until it ends, and leave its result to whoever awaits it; raises what stops the wait."""
        async for update in job.updates():
            # A handle still "submitting" is a request whose answer will be the picture: somebody is drawing.
            drawing = update.status is JobStatus.SUBMITTING
            self.state = "running" if drawing else update.status.value
            self.progress = update.progress

    def end(self, state: End, reason: str = "") -> None:
        """Stop the clock; the first end counts."""
        if self.ended is None:
            self.ended = time.monotonic()
            self.began = self.ended if self.began is None else self.began
            self.state, self.reason = state, one_line(reason)
            self._on_end(self)


class Board:
    """All rows, in the order they were added.

    Args:
        on_end: called with each row that ends.
    """

    def __init__(self, on_end: Callable[[Row], Any] = lambda _: None) -> None:
        self.rows: list[Row] = []
        self.began = time.monotonic()
        self._on_end = on_end

    def add(self, provider: str, title: str) -> Row:
        """Add a row that waits to begin."""
        row = Row(provider, title, self._on_end)
        self.rows.append(row)
        return row
