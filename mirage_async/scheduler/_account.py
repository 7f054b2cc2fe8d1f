"""One provider account: its limits, its queue of status calls that are due, and its pauses."""

from __future__ import annotations

import itertools
import math
from collections import deque
from typing import TYPE_CHECKING, Any

import anyio
import msgspec

from mirage_async._retry import delays
from mirage_async.scheduler._limits import Limits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mirage_async.jobs import Job

__all__ = ["Account", "AccountStatistics", "Entry"]

LONGEST_PAUSE = 60.0  # seconds; a provider that asks for more is asked again after this anyway, since a job waits


class AccountStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of one provider account at one moment.

    Attributes:
        provider: the provider's name.
        limits: the limits in force.
        jobs_watched: jobs somebody asks about.
        jobs_in_flight: jobs that hold a place under `limits.jobs` (0 without such a limit).
        jobs_waiting: purchases waiting for a place.
        polls_in_flight: status calls under way.
        polls_ready: status calls that are due and wait for a place or the end of a pause.
        polls_sent: status calls begun so far.
        polls_failed: of these, how many brought no usable answer.
        most_polls_in_flight: the most there ever were at once.
        throttles: times the provider asked to slow down.
        paused_for: seconds the current pause still lasts.
    """

    provider: str
    limits: Limits
    jobs_watched: int
    jobs_in_flight: int
    jobs_waiting: int
    polls_in_flight: int
    polls_ready: int
    polls_sent: int
    polls_failed: int
    most_polls_in_flight: int
    throttles: int
    paused_for: float


class Entry:
    """The scheduler's note about one job being watched; the job's `ticket` points back at it."""

    __slots__ = ("account", "dubious", "due", "flying", "job", "misses", "not_found", "over", "polls", "urgent")

    def __init__(self, job: Job[Any], account: Account) -> None:
        self.job: Job[Any] | None = job  # None once nobody watches it; queues may still hold the note for a while
        self.account = account
        self.due: int | None = None  # the tick; None while ready, flying or withdrawn
        self.over: int | None = None  # the tick in which the wait ends; None without an end
        self.polls = 0
        self.misses = 0  # status calls without usable answer, in a row
        self.not_found = 0  # of these: answers "no such job"
        self.dubious = 0  # reports of success with nothing, or half a picture, to show for it
        self.flying = False
        self.urgent = False  # a hint came while a status call was under way: ask again right after it


class Account:
    """The scheduler's side of one provider account.

    Args:
        provider: the provider's name.
        limits: what may go on at once.
    """

    _numbers = itertools.count()

    def __init__(self, provider: str, limits: Limits) -> None:
        self.number = next(self._numbers)  # the order in which accounts were opened
        self.provider = provider
        self.limits = limits
        self.entries: set[Entry] = set()
        self.ready: deque[Entry] = deque()
        self.in_flight = 0
        self.sent = 0
        self.failed = 0
        self.most_in_flight = 0
        self.throttles = 0
        self.paused_until = -math.inf
        self._rate_open_at = -math.inf
        self._pauses: Iterator[float] | None = None
        self._places = anyio.CapacityLimiter(math.inf if limits.jobs is None else limits.jobs)

    def set_limits(self, limits: Limits) -> None:
        """Put other limits in force; what is under way goes on."""
        self.limits = limits
        self._places.total_tokens = math.inf if limits.jobs is None else limits.jobs

    async def take_place(self, job: Job[Any]) -> None:
        """Wait for a place among the jobs in flight, first come first served."""
        if self.limits.jobs is not None:
            await self._places.acquire_on_behalf_of(job)

    def give_place_back(self, job: Job[Any]) -> None:
        """Give the place back; harmless for a job that has none."""
        try:
            self._places.release_on_behalf_of(job)
        except RuntimeError:
            # It came when there was no limit, or ended twice (a wait that was over, then the job itself).
            return

    def pause(self, now: float, seconds: float | None) -> None:
        """Stop beginning status calls for a while, because the provider asked for it.

        Args:
            now: monotonic seconds.
            seconds: what the provider asks for, capped at one minute; None takes the next of a growing schedule.
        """
        self.throttles += 1
        if seconds is None and now < self.paused_until:
            return  # one burst of calls that were in flight together tells the same news many times
        if self._pauses is None:
            self._pauses = delays(1.0, 2.0, 30.0)
        own = next(self._pauses)
        wait = own if seconds is None else min(seconds, LONGEST_PAUSE)
        self.paused_until = max(self.paused_until, now + wait)

    def calm(self) -> None:
        """Note a good answer: the next pause starts small again."""
        self._pauses = None

    def opens_at(self, now: float) -> float | None:
        """Return when the next ready status call may begin, or None while no place or nothing is there."""
        if not self.ready or not self.has_room():
            return None
        return max(now, self.paused_until, self._rate_open_at)

    def has_room(self) -> bool:
        """Whether one more status call may be in flight."""
        return self.limits.polls is None or self.in_flight < self.limits.polls

    def take(self, now: float) -> Entry | None:
        """Take the next ready note whose status call may begin now; the caller has or makes room for it in flight."""
        if now < self.paused_until or now < self._rate_open_at:
            return None
        if self.limits.polls is not None and self.in_flight > self.limits.polls:
            return None  # the limit was lowered meanwhile
        while self.ready:
            entry = self.ready.popleft()
            if entry.job is None:
                continue  # forgotten while it waited
            if self.limits.polls_per_second is not None:
                # One reservation a call, evenly spaced (GCRA without burst): nothing is looked up twice.
                self._rate_open_at = max(now, self._rate_open_at) + 1 / self.limits.polls_per_second
            self.sent += 1
            entry.flying = True
            return entry
        return None

    def statistics(self, now: float) -> AccountStatistics:
        """Return the counts of this moment."""
        places = self._places.statistics()
        return AccountStatistics(
            provider=self.provider,
            limits=self.limits,
            jobs_watched=len(self.entries),
            jobs_in_flight=places.borrowed_tokens,
            jobs_waiting=places.tasks_waiting,
            polls_in_flight=self.in_flight,
            polls_ready=len(self.ready),
            polls_sent=self.sent,
            polls_failed=self.failed,
            most_polls_in_flight=self.most_in_flight,
            throttles=self.throttles,
            paused_for=max(0.0, self.paused_until - now),
        )

    def __repr__(self) -> str:
        return f"<Account {self.provider} {len(self.entries)} watched, {self.in_flight} polls in flight>"
