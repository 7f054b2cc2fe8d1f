"""One run: jobs come, the real scheduler asks about them under its limit, and the bill is kept."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from benchmarks._rate_cap.loads import KINDS, Arrival
from benchmarks._rate_cap.virtual import LoopClock, run
from mirage_async.jobs import Job, JobKind, NullRecorder, new_job
from mirage_async.models import JobStatus, Pace
from mirage_async.scheduler import AdaptiveInterval, Limits, Scheduler
from mirage_async.scheduler._ready import OTHERS_FIRST, ReadyLine
from mirage_async.wire import Piece, Report

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from mirage_async.scheduler import Account, IntervalPolicy, JobView, Sighting
    from mirage_async.scheduler._entry import Entry

__all__ = ["Bill", "Clairvoyant", "InDueOrder", "a_kind", "clairvoyant_index", "scheduled"]

_RUNNING = Report(status=JobStatus.RUNNING, word="running")
_DONE = Report(status=JobStatus.SUCCEEDED, pieces=(Piece(url="https://simulated.example/picture.png"),))
_PACE = Pace(first=1, interval=2, maximum=15, max_wait=3600)
_FOREVER = 1e9
_WARM_UP = 0.25  # of the jobs: they teach and fill the line, and are not counted


@dataclass(kw_only=True)
class Bill:
    """What one run cost.

    Attributes:
        delays: seconds by kind of job, of those that are counted.
        calls: status calls begun while jobs came, by what the limit allowed in that time.
        others: status calls to others that anybody waited for at most.
        bound: the bound the documents state for that: the longest the line was, times sixteen.
        longest_wait: seconds that a status call that was due waited for its turn at most.
    """

    delays: dict[str, list[float]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    calls: float = 0.0
    others: int = 0
    bound: int = 0
    longest_wait: float = 0.0

    def note(self, arrival: Arrival, warm: float, delay: float) -> None:
        """Count a job, unless it came during the warm-up."""
        if arrival.at >= warm:
            self.delays[arrival.kind].append(delay)

    @property
    def weighted(self) -> float:
        """Mean delay of a job in status calls that it is worth."""
        jobs = sum(map(len, self.delays.values()))
        return sum(KINDS[kind].price * math.fsum(delays) for kind, delays in self.delays.items()) / jobs

    def mean(self, kind: str) -> float:
        """Mean delay of one kind in seconds."""
        return math.fsum(self.delays[kind]) / len(self.delays[kind])


class Clairvoyant:
    """The schedule and the index of one who knows the laws."""

    def next_interval(self, job: JobView) -> float:
        """Return the interval of the best schedule."""
        return KINDS[job.model or ""].interval(job.elapsed)

    def urgency(self, job: JobView, last: float) -> float:
        """Return the index."""
        return KINDS[job.model or ""].index(last, job.elapsed)


class InDueOrder:
    """`AdaptiveInterval` without its word on who goes first."""

    def __init__(self, seed: int) -> None:
        self._policy = AdaptiveInterval(seed=seed)

    def next_interval(self, job: JobView) -> float:
        """Ask the policy."""
        return self._policy.next_interval(job)

    def observe(self, sighting: Sighting) -> None:
        """Tell the policy."""
        self._policy.observe(sighting)


class _Watched(ReadyLine):
    """The line as it is, with a note of how long everybody waits in it."""

    __slots__ = ("bill", "calls", "came", "clock")

    def __init__(self, bill: Bill, clock: LoopClock) -> None:
        super().__init__()
        self.bill = bill
        self.clock = clock
        self.calls = 0
        self.came = dict["Entry", tuple[int, float]]()

    def append(self, entry: Entry) -> None:
        super().append(entry)
        self.came[entry] = (self.calls, self.clock.monotonic())
        self.bill.bound = max(self.bill.bound, OTHERS_FIRST * len(self))

    def took(self, entry: Entry) -> None:
        came = self.came.pop(entry, None)  # whoever is asked about early was not in line
        if came is not None:
            self.bill.others = max(self.bill.others, self.calls - came[0])
            self.bill.longest_wait = max(self.bill.longest_wait, self.clock.monotonic() - came[1])
            self.calls += 1


def scheduled(arrivals: Sequence[Arrival], policy: IntervalPolicy, rate: float, *, ask_early: bool = False) -> Bill:
    """Run the real scheduler with a policy, at so many status calls a second."""
    return run(_scheduled(arrivals, policy, Limits(polls=None, polls_per_second=rate, ask_early=ask_early)))


async def _scheduled(arrivals: Sequence[Arrival], policy: IntervalPolicy, limits: Limits) -> Bill:
    clock, bill = LoopClock(), Bill()
    scheduler = Scheduler(policy=policy, clock=clock)
    account = scheduler.account("simulated", limits)
    line = account.ready = _Watched(bill, clock)
    warm = arrivals[int(_WARM_UP * len(arrivals))].at
    ends = dict[Job[Any], tuple[Arrival, float]]()
    over = asyncio.Event()
    left = len(arrivals)

    async def look(job: Job[None]) -> Report:
        line.took(job.ticket)
        return _DONE if clock.monotonic() >= ends[job][1] else _RUNNING

    async def redeem(job: Job[None], report: Report) -> None:  # noqa: ARG001 - the kind's signature
        nonlocal left
        arrival, end = ends.pop(job)
        bill.note(arrival, warm, clock.monotonic() - end)
        left -= 1
        if not left:
            over.set()

    kind = a_kind(clock, scheduler, account, look=look, redeem=redeem)
    for number, arrival in enumerate(arrivals):
        await clock.sleep(arrival.at - clock.monotonic())
        job = new_job(kind, id=str(number), model=arrival.kind, status=JobStatus.QUEUED)
        ends[job] = (arrival, clock.monotonic() + arrival.duration)
        scheduler.watch(job, _FOREVER)
    assert limits.polls_per_second is not None  # noqa: S101 - it was made of one; says so to the type checker
    bill.calls = account.sent / (clock.monotonic() * limits.polls_per_second)
    await over.wait()
    await scheduler.aclose()
    return bill


async def _running(job: Job[None]) -> Report:  # noqa: ARG001 - the kind's signature
    return _RUNNING


async def _nothing(job: Job[None], report: Report) -> None:
    """Make nothing of a report."""


def a_kind(
    clock: LoopClock,
    scheduler: Scheduler,
    account: Account,
    *,
    look: Callable[[Job[None]], Awaitable[Report]] = _running,
    redeem: Callable[[Job[None], Report], Awaitable[None]] = _nothing,
) -> JobKind[None]:
    """Return a kind of jobs whose status calls are answered without a provider."""
    return JobKind(
        provider="simulated",
        name="image",
        pace=_PACE,
        clock=clock,
        recorder=NullRecorder(),
        waker=scheduler,
        look=look,
        redeem=redeem,
        ended=account.give_place_back,
        account=account,
    )


def clairvoyant_index(arrivals: Sequence[Arrival], rate: float) -> Bill:
    """Spend every status call there is on the job with the largest index at that very moment, knowing the laws.

    A program of its own that shares nothing with the scheduler: no schedule, no ageing, no ranking that grows old.
    """
    bill, warm = Bill(calls=1.0), arrivals[int(_WARM_UP * len(arrivals))].at
    coming, waiting = list(reversed(arrivals)), dict[Arrival, float]()  # the last look, in the job's own clock
    call = 0
    while coming or waiting:
        call += 1
        now = call / rate
        while coming and coming[-1].at <= now:
            waiting[coming.pop()] = 0.0
        if not waiting:
            continue
        chosen = max(waiting, key=lambda job: KINDS[job.kind].index(waiting[job], now - job.at))
        elapsed = now - chosen.at
        if elapsed < chosen.duration:
            waiting[chosen] = elapsed
        else:
            del waiting[chosen]
            bill.note(chosen, warm, elapsed - chosen.duration)
    return bill
