"""One provider account: its limits, its queue of status calls that are due, and its pauses."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import anyio
import msgspec

from mirage_async._retry import delays
from mirage_async.scheduler._delays import DelayBounds
from mirage_async.scheduler._limits import Limits
from mirage_async.scheduler._ready import ReadyLine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mirage_async.jobs import Job

__all__ = ["Account", "AccountStatistics", "Entry"]

LONGEST_PAUSE = 60.0  # seconds; a provider that asks for more is asked again after this anyway, since a job waits
FIRST_SPACING, LONGEST_SPACING = 0.05, 2.0  # seconds between status calls after a throttle, doubling in between
_RECOVERY = 0.9  # of the spacing, which every good answer leaves
_NO_SPACING = 0.01  # seconds; below this it is over


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
        jobs_finished: jobs whose end a status call told, well or badly.
        polls_per_job: status calls of these on average, failed ones included, or None before any.
        delay_bound_mean: mean of the bounds of the delay, in seconds, or None before any. The bound of a job is the
            time from the last look that saw it unfinished to the one that saw it finished; its end was noticed at
            most so late. A job of unknown age that was found finished at the first look has none.
        delay_bound_p95: seconds that 95 % of the bounds do not exceed, at most a quarter too many, or None.
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
    jobs_finished: int = 0
    polls_per_job: float | None = None
    delay_bound_mean: float | None = None
    delay_bound_p95: float | None = None


class Entry:
    """The scheduler's note about one job being watched; the job's `ticket` points back at it."""

    __slots__ = (
        "account",
        "began",
        "dubious",
        "due",
        "ended",
        "flying",
        "hinted",
        "job",
        "looked",
        "misses",
        "not_found",
        "over",
        "polls",
        "shown",
        "started",
        "teaches",
    )

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
        self.hinted: float | None = None  # when somebody said, since the last status call began, that it has changed
        # For policies that learn, in monotonic seconds:
        self.started = 0.0  # accepted by the provider, or attached
        self.began: float | None = None  # running, as well as is known
        self.looked: float | None = None  # last seen unfinished
        self.shown: list[tuple[float, float]] | None = None  # moments, and the progress seen then
        self.teaches = False  # its age is known
        self.ended = False  # it was seen finished, if only by a success that is asked about again


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
        self.ready = ReadyLine()
        self.in_flight = 0
        self.sent = 0
        self.failed = 0
        self.most_in_flight = 0
        self.throttles = 0
        self.paused_until = -math.inf
        self._rate_open_at = -math.inf
        self._spacing = 0.0
        self._begun_at = -math.inf
        self._finished = 0
        self._finished_polls = 0
        self._delays = DelayBounds()
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
        """Stop beginning status calls for a while, because the provider asked for it, and go on gently.

        After the pause status calls begin at least 50 ms apart, twice that for every throttle more, up to 2 s; `calm`
        takes that back little by little, so that the calls which became due meanwhile do not all come at once.
        Answers to one burst count as one throttle: those that come while a pause lasts double nothing.

        Args:
            now: monotonic seconds.
            seconds: what the provider asks for, capped at one minute; None takes the next of a growing schedule.
        """
        self.throttles += 1
        if now >= self.paused_until:
            self._spacing = min(LONGEST_SPACING, max(FIRST_SPACING, 2 * self._spacing))
        elif seconds is None:
            return  # one burst of calls that were in flight together tells the same news many times
        if self._pauses is None:
            self._pauses = delays(1.0, 2.0, 30.0)
        own = next(self._pauses)
        wait = own if seconds is None else min(seconds, LONGEST_PAUSE)
        self.paused_until = max(self.paused_until, now + wait)

    def calm(self) -> None:
        """Note a good answer: the next pause starts small, and the spacing shrinks by a tenth (below 10 ms: to 0)."""
        self._pauses = None
        if self._spacing:
            self._spacing *= _RECOVERY
            if self._spacing < _NO_SPACING:
                self._spacing = 0.0

    def noticed(self, bound: float) -> None:
        """Count that the end of a job was noticed at most `bound` seconds late."""
        self._delays.add(bound)

    def finished(self, polls: int) -> None:
        """Count a job whose end is known after so many status calls."""
        self._finished += 1
        self._finished_polls += polls

    def opens_at(self, now: float) -> float | None:
        """Return when the next ready status call may begin, or None while no place or nothing is there."""
        if not self.ready or not self.has_room():
            return None
        return max(now, self._closed_until())

    def has_room(self) -> bool:
        """Whether one more status call may be in flight."""
        return self.limits.polls is None or self.in_flight < self.limits.polls

    def take(self, now: float, urgency: Callable[[Entry], float] | None = None) -> Entry | None:
        """Take the next ready note whose status call may begin now; the caller has or makes room for it in flight.

        Args:
            now: monotonic seconds.
            urgency: where it is given and not all may begin at once, the note for which it is largest goes first, but
                every fourth call is the one that has waited longest: with n calls ready none waits for more than 4n
                others. None takes them in the order they became ready.
        """
        if now < self._closed_until():
            return None
        if self.limits.polls is not None and self.in_flight > self.limits.polls:
            return None  # the limit was lowered meanwhile
        while self.ready:
            if urgency is None or not self._is_scarce():
                entry = self.ready.take_first()
            else:
                entry = self.ready.take_most_urgent(now, urgency)
            if entry.job is None:
                continue  # forgotten while it waited
            self._begun_at = now
            if self.limits.polls_per_second is not None:
                # One reservation a call, evenly spaced (GCRA without burst): nothing is looked up twice.
                self._rate_open_at = max(now, self._rate_open_at) + 1 / self.limits.polls_per_second
            self.sent += 1
            entry.flying = True
            return entry
        return None

    def _closed_until(self) -> float:
        return max(self.paused_until, self._rate_open_at, self._begun_at + self._spacing)

    def _is_scarce(self) -> bool:
        """Whether somebody in line has to wait for another, so that the order matters."""
        limits = self.limits
        if self._spacing or limits.polls_per_second is not None:
            return True
        return limits.polls is not None and len(self.ready) > limits.polls - self.in_flight

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
            jobs_finished=self._finished,
            polls_per_job=self._finished_polls / self._finished if self._finished else None,
            delay_bound_mean=self._delays.mean,
            delay_bound_p95=self._delays.p95,
        )

    def __repr__(self) -> str:
        return f"<Account {self.provider} {len(self.entries)} watched, {self.in_flight} polls in flight>"
