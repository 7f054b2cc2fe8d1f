"""What the four providers share: time, names, jobs, links, pictures and the bill."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mirage_async.sandbox.answers import RefusalError
from mirage_async.sandbox.drawing.gallery import Gallery
from mirage_async.sandbox.faults.catalogue import shortened
from mirage_async.sandbox.identifiers import Identifiers, number_from
from mirage_async.sandbox.jobs import Job, JobStore, Station, Words
from mirage_async.sandbox.links import Links
from mirage_async.sandbox.workshop import Workshop

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mirage_async.sandbox.accounts import Accounts
    from mirage_async.sandbox.clock import VirtualClock
    from mirage_async.sandbox.dialects.provider import Call
    from mirage_async.sandbox.drawing.pictures import Picture
    from mirage_async.sandbox.durations import Durations
    from mirage_async.sandbox.progress import Progress

__all__ = ["Sight", "World"]

_BLOCKING_WORDS = Words("IN_QUEUE", "IN_PROGRESS", "COMPLETED")
_DESTINIES = {"failed": Station.FAILED, "cancelled": Station.CANCELLED, "timed-out": Station.TIMED_OUT}
_REASON = "The sandbox was told to let this fail."
_RESET = "The sandbox was reset."
_UNKNOWN_WORD = "REINDEXING"
_BAD_END = 500
_TOO_LATE = 504


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What one status call gets to see of a job.

    Attributes:
        station: where it says it stands.
        word: the provider's word for that, or one nobody knows.
        progress: 0-100.
        flaws: what is wrong with this answer.
    """

    station: Station
    word: str
    progress: int
    flaws: frozenset[str]

    @property
    def has_result(self) -> bool:
        """Whether the answer tells the result."""
        return self.station is Station.DONE and "unknown-status" not in self.flaws


class World:
    """The state of one sandbox.

    Args:
        clock: where time comes from.
        seed: decides names, durations and unseeded pictures.
        strict: enforce every documented rule.
        durations: how long work takes.
        progress: what ends it.
        workers: how many jobs of a provider are worked on at a time, by its name.
        accounts: who pays.
        link_lifetime: seconds a temporary link works.
    """

    def __init__(
        self,
        *,
        clock: VirtualClock,
        seed: int,
        strict: bool,
        durations: Durations,
        progress: Progress,
        workers: dict[str, int],
        accounts: Accounts,
        link_lifetime: float,
    ) -> None:
        self.clock = clock
        self.seed = seed
        self.strict = strict
        self.durations = durations
        self.progress = progress
        self.accounts = accounts
        self.link_lifetime = link_lifetime
        self.url = ""
        self.identifiers = Identifiers(seed)
        self.jobs = JobStore(clock)
        self.links = Links(clock)
        self.gallery = Gallery()
        self.purchases: Counter[str] = Counter()
        self.on_end: Callable[[Job], None] = _nothing
        self.before_reply: Callable[[Job], Awaitable[None]] = _nobody
        self.workshop = Workshop(clock, workers=workers, on_end=self._job_ended)

    def _job_ended(self, job: Job) -> None:
        self.jobs.note_end(job)
        self.on_end(job)

    def picture_seed(self, prompt: str, given: int | None = None) -> int:
        """Return the seed of a picture: the one given, otherwise one from this sandbox's seed and the prompt."""
        return number_from(self.seed, prompt) if given is None else given

    def start(
        self,
        provider: str,
        kind: str,
        job_id: str,
        call: Call,
        *,
        prompt: str,
        model: str = "",
        words: Words | None = None,
        pictures: tuple[Picture, ...] = (),
        notes: dict[str, Any] | None = None,
    ) -> Job:
        """Take the price and start a job; without `words` it is one that its client waits for.

        Raises:
            RefusalError: 402, the account cannot pay.
        """
        price = self.accounts.pay(provider, call.account, len(pictures) or 1)
        now = self.clock.monotonic()
        rule = self.progress.rule_for(provider, kind)
        job = Job(
            id=job_id,
            provider=provider,
            kind=kind,
            model=model,
            account=call.account,
            price=price,
            prompt=shortened(prompt),
            words=words or _BLOCKING_WORDS,
            created_at=self.clock.time(),
            started_at=now,
            duration=self.durations.draw(provider, kind, model=model, now=now),
            # Nobody makes status calls about a purchase that is being waited for.
            polls_needed=rule if isinstance(rule, int) and words is not None else None,
            held=rule == "manual" or "stuck" in call.flaws,
            destiny=next((_DESTINIES[flaw] for flaw in _DESTINIES if flaw in call.flaws), Station.DONE),
            reason=_REASON,
            flaws=call.flaws,
            pictures=pictures,
            notes=notes or {},
        )
        self.jobs.add(job)
        self.workshop.open(job)
        return job

    def clear(self) -> None:
        """Forget everything that has happened; whoever waits for a job is told so."""
        self.workshop.clear()
        self.jobs.clear()
        self.links.clear()
        self.purchases.clear()
        self.accounts.clear_usage()
        self.durations.restart()
        self.identifiers.restart()

    def charge(self, provider: str) -> None:
        """Put one purchase on the bill."""
        self.purchases[provider] += 1

    async def finish(self, job: Job) -> None:
        """Wait until a blocking purchase is done, and charge for it.

        Raises:
            RefusalError: it has come to a bad end, or to none before the sandbox was reset.
        """
        with self.clock.at_rest():
            await self.workshop.wait(job)
        if job.dropped:
            raise RefusalError(_BAD_END, _RESET)
        if not job.is_done:
            self.accounts.give_back(job.provider, job.account, job.price)
            raise RefusalError(_TOO_LATE if job.end is Station.TIMED_OUT else _BAD_END, job.reason)
        self.charge(job.provider)

    def look_at(self, job: Job, call: Call) -> Sight:
        """Count a status call and return what it gets to see."""
        self.workshop.catch_up()
        job.polls += 1
        if job.polls_needed is not None and job.polls >= job.polls_needed:
            self.workshop.end(job, job.destiny)
        flaws = job.flaws | call.flaws
        now = self.clock.monotonic()
        station = _shown(job, job.station(now), call.flaws)
        word = _UNKNOWN_WORD if _is_unknown(job, call.flaws) else job.words.word(station)
        return Sight(station=station, word=word, progress=job.progress(now), flaws=flaws - _hidden(job, call.flaws))

    def tells_result(self, job: Job) -> bool:
        """Tell whether the next status call of a job will show its result."""
        self.workshop.catch_up()
        return job.is_done or (job.polls_needed is not None and job.polls + 1 >= job.polls_needed)

    async def encoded(self, picture: Picture, flaws: frozenset[str]) -> bytes:
        """Return a picture's bytes, with what is wrong with them."""
        data = await self.gallery.render(picture.mislabelled() if "mislabelled" in flaws else picture)
        return data[: len(data) * 2 // 3] if "corrupt" in flaws else data


def _nothing(_: Job) -> None:
    """Tell nobody that a job has ended."""


async def _nobody(_: Job) -> None:
    """Tell nobody about a job that has just begun."""


def _shown(job: Job, station: Station, flaws: frozenset[str]) -> Station:
    """Return where an answer says the job stands."""
    destiny = next((_DESTINIES[flaw] for flaw in _DESTINIES if flaw in flaws), None)
    if destiny is not None:
        return destiny
    if "stuck" in flaws:
        return Station.RUNNING
    if "backwards" in flaws:
        return Station.QUEUED
    if "backwards" in job.flaws and job.end is None:
        # To and fro, so that whoever looks twice sees it going back.
        return Station.RUNNING if job.polls % 2 else Station.QUEUED
    return station


def _is_unknown(job: Job, flaws: frozenset[str]) -> bool:
    return "unknown-status" in flaws or ("unknown-status" in job.flaws and job.end is None)


def _hidden(job: Job, flaws: frozenset[str]) -> frozenset[str]:
    """Return the flaws of the job that this answer does not show: a job that ended says so in known words."""
    return frozenset() if _is_unknown(job, flaws) else frozenset({"unknown-status"})
