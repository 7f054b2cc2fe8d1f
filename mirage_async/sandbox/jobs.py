"""What a job is: one piece of work, where it stands, and what a status call gets to see of it."""

from __future__ import annotations

import enum
import math
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mirage_async._clock import Clock
    from mirage_async.sandbox.drawing.pictures import Picture

__all__ = ["Job", "JobStore", "JobView", "Station", "Words"]

_QUEUED_SHARE = 0.25
_HALFWAY = 50
_NEARLY_DONE = 99
_DONE = 100
_MOST_ENDED = 100_000


class Station(enum.Enum):
    """Where a job can stand, for all providers alike."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"

    @property
    def is_bad_end(self) -> bool:
        """Whether it is an end without a result."""
        return self in (Station.FAILED, Station.CANCELLED, Station.TIMED_OUT)


@dataclass(frozen=True, slots=True)
class Words:
    """A provider's words for the stations of a job; a provider with one word for every bad end repeats it."""

    queued: str
    running: str
    done: str
    failed: str = "FAILED"
    cancelled: str = "FAILED"
    timed_out: str = "FAILED"

    def word(self, station: Station) -> str:
        """Return the word for `station`."""
        word: str = getattr(self, station.value)
        return word


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """A job, an avatar or a blocking purchase as it stands at one moment.

    Attributes:
        id: the provider's name for it.
        provider: "mirako", "miragic", "mira" or "milady".
        kind: "image" or "avatar".
        model: the model that was asked for, "" where there is none.
        status: the provider's own word.
        progress: 0-99 while it is open, 100 when it is done.
        polls: status calls so far.
        created_at: seconds since the epoch.
        prompt: the prompt, or an avatar's name.
    """

    id: str
    provider: str
    kind: str
    model: str
    status: str
    progress: int
    polls: int
    created_at: float
    prompt: str


@dataclass(slots=True, kw_only=True, eq=False)
class Job:
    """One piece of work. Moments are seconds on the monotonic clock.

    Attributes:
        price: credits that were taken for it.
        duration: seconds of work once a worker has taken it.
        polls_needed: end at this status call instead of after `duration`; None for work that takes time.
        work_at: when a worker took it; None while it waits for one.
        ends_at: when it will end by itself; infinity where only a hand, or status calls, can end it.
        end: how it ended; None while it is open.
        ended_at: when that was.
        destiny: how it will end by itself.
        reason: what a failed job says of itself.
        flaws: what is wrong with it for as long as it lives.
        held: whether only a hand can end it.
        dropped: whether the sandbox was reset while it was there: it charges nothing and gives nothing back.
    """

    id: str
    provider: str
    kind: str
    prompt: str
    words: Words
    created_at: float
    started_at: float
    duration: float
    model: str = ""
    account: str = ""
    price: float = 0.0
    polls_needed: int | None = None
    held: bool = False
    polls: int = 0
    work_at: float | None = None
    ends_at: float = math.inf
    end: Station | None = None
    ended_at: float = math.inf
    destiny: Station = Station.DONE
    reason: str = ""
    flaws: frozenset[str] = frozenset()
    pictures: tuple[Picture, ...] = ()
    notes: dict[str, Any] = field(default_factory=dict[str, Any])
    dropped: bool = False

    @property
    def is_done(self) -> bool:
        """Whether it ended well."""
        return self.end is Station.DONE

    def station(self, now: float) -> Station:
        """Return where it stands; the first quarter of the work still counts as queued."""
        if self.end is not None:
            return self.end
        if self.work_at is None or self._share(now) < _QUEUED_SHARE:
            return Station.QUEUED
        return Station.RUNNING

    def progress(self, now: float) -> int:
        """Return 0-99 while open and 100 when done."""
        if self.is_done:
            return _DONE
        return 0 if self.work_at is None else max(0, min(_NEARLY_DONE, int(_DONE * self._share(now))))

    def times(self) -> tuple[float, float]:
        """Return the seconds that an ended job was shown in the queue and at work."""
        begun = self.ended_at if self.work_at is None else self.work_at
        if self.ends_at < math.inf:
            begun += _QUEUED_SHARE * self.duration
        begun = min(begun, self.ended_at)
        return begun - self.started_at, self.ended_at - begun

    def view(self, now: float) -> JobView:
        """Return the job as it stands at `now`."""
        return JobView(
            id=self.id,
            provider=self.provider,
            kind=self.kind,
            model=self.model,
            status=self.words.word(self.station(now)),
            progress=self.progress(now),
            polls=self.polls,
            created_at=self.created_at,
            prompt=self.prompt,
        )

    def _share(self, now: float) -> float:
        """Return how much of the work is done, 0 to 1."""
        if self.held:
            # Nobody knows when somebody will end it. Having been looked at, it is on its way.
            return _HALFWAY / _DONE if self.polls else 0.0
        if self.polls_needed is not None:
            return self.polls / self.polls_needed
        if self.work_at is None or self.duration <= 0:
            return 1.0
        return (min(now, self.ended_at) - self.work_at) / self.duration


class JobStore(Mapping[str, JobView]):
    """All open jobs and the latest that ended, by id, oldest first; as a mapping it shows views of the moment.

    Args:
        clock: where time comes from.
        most_ended: how many jobs that ended are kept; those that ended first go first.
    """

    def __init__(self, clock: Clock, *, most_ended: int = _MOST_ENDED) -> None:
        self._clock = clock
        self._most_ended = most_ended
        self._jobs: dict[str, Job] = {}
        self._ended: deque[str] = deque()

    def __getitem__(self, job_id: str) -> JobView:
        return self._jobs[job_id].view(self._clock.monotonic())

    def __iter__(self) -> Iterator[str]:
        return iter(self._jobs)

    def __len__(self) -> int:
        return len(self._jobs)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {len(self)} jobs, {self.count_open()} open>"

    def add(self, job: Job) -> None:
        """Keep `job`."""
        self._jobs[job.id] = job

    def note_end(self, job: Job) -> None:
        """Let `job`, which has ended, push out the one that ended longest ago when there are too many."""
        self._ended.append(job.id)
        if len(self._ended) > self._most_ended:
            self._jobs.pop(self._ended.popleft(), None)

    def clear(self) -> None:
        """Drop all of them."""
        for job in self._jobs.values():
            job.dropped = True
        self._jobs.clear()
        self._ended.clear()

    def get_job(self, job_id: str) -> Job | None:
        """Return the job of that name."""
        return self._jobs.get(job_id)

    def find(self, provider: str, kind: str, job_id: str) -> Job | None:
        """Return the job of that name if it is this provider's and of this kind."""
        job = self._jobs.get(job_id)
        return job if job is not None and (job.provider, job.kind) == (provider, kind) else None

    def of_kind(self, provider: str, kind: str) -> list[Job]:
        """Return all jobs of one kind, oldest first."""
        return [job for job in self._jobs.values() if (job.provider, job.kind) == (provider, kind)]

    def count_open(self) -> int:
        """Return how many jobs have not ended yet."""
        return sum(job.end is None for job in self._jobs.values())
