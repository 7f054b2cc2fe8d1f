"""What it costs to rank a long line: CPU time a status call, beside serving it first come first served."""

from __future__ import annotations

import random
import time
from functools import partial
from typing import TYPE_CHECKING

from benchmarks._rate_cap.trials import a_kind
from benchmarks._rate_cap.virtual import LoopClock, run
from mirage_async.jobs import Job, new_job
from mirage_async.models import JobStatus
from mirage_async.scheduler import AdaptiveInterval, Limits, Scheduler
from mirage_async.scheduler._entry import Entry
from mirage_async.scheduler._learning import Learning, begin

if TYPE_CHECKING:
    from mirage_async.scheduler import Account

__all__ = ["ranking"]

IN_LINE = 10_000
RATE = 50.0  # status calls a second
SECONDS = 4.0


def ranking(repeats: int) -> dict[str, list[float]]:
    """Return CPU time by repeat: microseconds a call by either rule, the share of a core, the longest single call."""
    found: dict[str, list[float]] = {
        "first come first served, us a call": [],
        "by urgency, us a call": [],
        "by urgency at 50 a second, share of a core": [],
        "longest ranking, ms": [],
    }
    for repeat in range(repeats):
        first, _ = run(_serve(repeat, by_urgency=False))
        urgent, longest = run(_serve(repeat, by_urgency=True))
        for values, value in zip(
            found.values(), (1e6 * first, 1e6 * urgent, RATE * urgent, 1e3 * longest), strict=True
        ):
            values.append(value)
    return found


async def _serve(seed: int, *, by_urgency: bool) -> tuple[float, float]:
    """Take calls from a full line for some seconds; return CPU seconds a call, and of the longest."""
    clock, learning, source = LoopClock(), Learning(AdaptiveInterval(seed=seed)), random.Random(seed)
    scheduler = Scheduler(clock=clock)
    account = scheduler.account("simulated", Limits(polls=None, polls_per_second=RATE))
    kind = a_kind(clock, scheduler, account)
    for number in range(IN_LINE):
        job = new_job(kind, id=str(number), model=source.choice("abcd"), status=JobStatus.QUEUED)
        _due(account, job, -source.uniform(1, 300))
    spent = list[float]()
    for call in range(int(SECONDS * RATE)):
        now = 1.0001 * call / RATE  # never a hair too soon
        began = time.process_time()
        entry = account.take(now, partial(learning.urgency, now) if by_urgency else None)
        spent.append(time.process_time() - began)
        assert entry is not None and entry.job is not None  # noqa: S101, PT018 - the line is full
        _due(account, entry.job, now)
    return sum(spent) / len(spent), max(spent)


def _due(account: Account, job: Job[None], since: float) -> None:
    entry = Entry(job, account)
    begin(entry, job, since, attached=False)
    account.ready.append(entry)
