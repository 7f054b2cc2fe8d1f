"""The scheduler's note about one job being watched."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    # A note is never encoded, so msgspec never reads its annotations.
    from mirage_async.jobs import Job  # noqa: TC004
    from mirage_async.scheduler._account import Account  # noqa: TC004

__all__ = ["Entry", "KindCounts"]


class KindCounts(msgspec.Struct, gc=False, eq=False):
    """What the scheduler counts of one kind of job and model."""

    watched: int = 0
    sent: int = 0


class Entry(msgspec.Struct, gc=False, eq=False):
    """What the scheduler knows about one job; the job's `ticket` points back at it.

    There may be a hundred thousand, so the garbage collector is told to pass them over: with them, each of its full
    rounds would stop the event loop for twice as long. The circle of job and note is cut when the job is forgotten. The
    price: a client that is dropped without `aclose()` while jobs are watched is never collected.

    Attributes:
        job: None once nobody watches it; queues may still hold the note for a while.
        account: whose limits hold.
        due: the tick of the next status call; None while ready, flying or withdrawn.
        over: the tick in which the wait ends; None without an end.
        polls: status calls answered in this wait.
        misses: status calls without usable answer, in a row.
        not_found: of these, answers "no such job".
        dubious: reports of success with nothing, or half a picture, to show for it.
        flying: a status call is under way.
        hinted: when somebody said, since the last status call began, that it has changed.
        started: for policies that learn, as all below, in monotonic seconds: accepted by the provider, or attached.
        began: running, as well as is known.
        looked: last seen unfinished.
        shown: moments, and the progress seen then.
        wanted: before this moment the provider does not want to be asked about it.
        teaches: its age is known.
        ended: it was seen finished, if only by a success that is asked about again.
        counts: of its kind of job.
    """

    job: Job[Any] | None
    account: Account
    due: int | None = None
    over: int | None = None
    polls: int = 0
    misses: int = 0
    not_found: int = 0
    dubious: int = 0
    flying: bool = False
    hinted: float | None = None
    started: float = 0.0
    began: float | None = None
    looked: float | None = None
    shown: list[tuple[float, float]] | None = None
    wanted: float = -math.inf
    teaches: bool = False
    ended: bool = False
    counts: KindCounts = msgspec.field(default_factory=KindCounts)
