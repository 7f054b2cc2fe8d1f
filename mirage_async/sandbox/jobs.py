"""Work that takes time. Nothing runs: where a job stands is computed from the clock whenever someone asks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mirage_async._clock import Clock
    from mirage_async.sandbox.drawing.pictures import Picture

__all__ = ["Job", "JobStore", "JobView", "Words"]

_QUEUED_SHARE = 0.25
_NEARLY_DONE = 99
_DONE = 100


@dataclass(frozen=True, slots=True)
class Words:
    """A provider's words for the three stations of a job."""

    queued: str
    running: str
    done: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """A job, an avatar or a blocking purchase as it stands at one moment.

    Attributes:
        id: the provider's name for it.
        provider: "mirako", "miragic", "mira" or "milady".
        kind: "image" or "avatar".
        status: the provider's own word.
        progress: 0-99 while it is open, 100 when it is done.
        created_at: seconds since the epoch.
        prompt: the prompt, or an avatar's name.
    """

    id: str
    provider: str
    kind: str
    status: str
    progress: int
    created_at: float
    prompt: str


@dataclass(slots=True, kw_only=True)
class Job:
    """One piece of work; `started_at` and `ends_at` are seconds on the monotonic clock."""

    id: str
    provider: str
    kind: str
    prompt: str
    words: Words
    created_at: float
    started_at: float
    ends_at: float
    pictures: tuple[Picture, ...] = ()
    notes: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def duration(self) -> float:
        """Seconds from start to end."""
        return self.ends_at - self.started_at

    def is_done(self, now: float) -> bool:
        """Tell whether the job has ended at the monotonic moment `now`."""
        return now >= self.ends_at

    def status(self, now: float) -> str:
        """Return the provider's word for where the job stands; the first quarter of its time is spent queued."""
        if self.is_done(now):
            return self.words.done
        if now - self.started_at < self.duration * _QUEUED_SHARE:
            return self.words.queued
        return self.words.running

    def progress(self, now: float) -> int:
        """Return 0-99 while open and 100 when done."""
        if self.is_done(now):
            return _DONE
        return max(0, min(_NEARLY_DONE, int(_DONE * (now - self.started_at) / self.duration)))

    def view(self, now: float) -> JobView:
        """Return the job as it stands at `now`."""
        return JobView(
            id=self.id,
            provider=self.provider,
            kind=self.kind,
            status=self.status(now),
            progress=self.progress(now),
            created_at=self.created_at,
            prompt=self.prompt,
        )


class JobStore(Mapping[str, JobView]):
    """All jobs by id, oldest first; as a mapping it shows views taken at the moment of asking."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._jobs: dict[str, Job] = {}

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

    def find(self, provider: str, kind: str, job_id: str) -> Job | None:
        """Return the job of that name if it is this provider's and of this kind."""
        job = self._jobs.get(job_id)
        return job if job is not None and (job.provider, job.kind) == (provider, kind) else None

    def of_kind(self, provider: str, kind: str) -> list[Job]:
        """Return all jobs of one kind, oldest first."""
        return [job for job in self._jobs.values() if (job.provider, job.kind) == (provider, kind)]

    def count_open(self) -> int:
        """Return how many jobs have not ended yet."""
        now = self._clock.monotonic()
        return sum(not job.is_done(now) for job in self._jobs.values())
