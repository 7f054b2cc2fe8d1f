"""What the four providers share: time, names, jobs, links, pictures and the bill."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from mirage_async.sandbox.drawing.gallery import Gallery
from mirage_async.sandbox.identifiers import Identifiers, number_from
from mirage_async.sandbox.jobs import Job, JobStore, Words
from mirage_async.sandbox.links import Links

if TYPE_CHECKING:
    from mirage_async._clock import Clock
    from mirage_async.sandbox.drawing.pictures import Picture
    from mirage_async.sandbox.durations import Durations

__all__ = ["World"]

_BLOCKING_WORDS = Words("IN_QUEUE", "IN_PROGRESS", "COMPLETED")


class World:
    """The state of one sandbox.

    Args:
        clock: where time comes from.
        seed: decides names, durations and unseeded pictures.
        strict: enforce every documented rule.
        durations: how long work takes.
        link_lifetime: seconds a temporary link works.
    """

    def __init__(self, *, clock: Clock, seed: int, strict: bool, durations: Durations, link_lifetime: float) -> None:
        self.clock = clock
        self.seed = seed
        self.strict = strict
        self.link_lifetime = link_lifetime
        self.url = ""
        self.identifiers = Identifiers(seed)
        self.jobs = JobStore(clock)
        self.links = Links(clock)
        self.gallery = Gallery()
        self.purchases: Counter[str] = Counter()
        self._durations = durations

    def picture_seed(self, prompt: str, given: int | None = None) -> int:
        """Return the seed of a picture: the one given, otherwise one from this sandbox's seed and the prompt."""
        return number_from(self.seed, prompt) if given is None else given

    def start(
        self,
        provider: str,
        kind: str,
        job_id: str,
        *,
        prompt: str,
        words: Words = _BLOCKING_WORDS,
        pictures: tuple[Picture, ...] = (),
        notes: dict[str, Any] | None = None,
    ) -> Job:
        """Start a job now; it ends by itself when its time is up."""
        now = self.clock.monotonic()
        job = Job(
            id=job_id,
            provider=provider,
            kind=kind,
            prompt=prompt,
            words=words,
            created_at=self.clock.time(),
            started_at=now,
            ends_at=now + self._durations.draw(provider, kind),
            pictures=pictures,
            notes=notes or {},
        )
        self.jobs.add(job)
        return job

    def charge(self, provider: str) -> None:
        """Put one purchase on the bill."""
        self.purchases[provider] += 1

    async def finish(self, job: Job) -> None:
        """Wait until a blocking purchase is done, and charge for it."""
        await self.clock.sleep(job.duration)
        # Timers may fire a hair early; whoever waited has seen the end.
        job.ends_at = min(job.ends_at, self.clock.monotonic())
        self.charge(job.provider)
