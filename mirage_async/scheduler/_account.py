"""One provider account: its limits, its queue of status calls that are due, and its pauses."""

from __future__ import annotations

import contextlib
import itertools
import math
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import anyio
import msgspec

from mirage_async.scheduler._delays import DelayBounds
from mirage_async.scheduler._limits import Limits
from mirage_async.scheduler._pauses import Pauses
from mirage_async.scheduler._ready import EarlyLine, ReadyLine

if TYPE_CHECKING:
    from collections.abc import Callable

    from mirage_async.exceptions import WaitedFor
    from mirage_async.jobs import Job
    from mirage_async.scheduler._entry import Entry

__all__ = ["Account", "AccountStatistics"]

_JUST_NOW = 1.0  # seconds ago
_LATENESS = 0.01  # seconds, but at most one interval, by which a call may make up for one that began late


class AccountStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of one provider account at one moment.

    Attributes:
        provider: the provider's name.
        limits: the limits in force.
        jobs_watched: jobs somebody asks about.
        jobs_in_flight: jobs that hold a place under `limits.jobs`; without that limit, all that are bought or watched.
        jobs_waiting: purchases waiting for a place.
        polls_in_flight: status calls under way.
        polls_ready: status calls that are due and wait for a place or the end of a pause.
        polls_sent: status calls begun so far.
        polls_early: of these, how many were made before they were due, under `limits.ask_early`.
        polls_failed: of these, how many brought no usable answer.
        most_polls_in_flight: the most there ever were at once.
        throttles: times the provider asked to slow down in an answer to a call of this account.
        paused_for: seconds the current pause still lasts, whichever account of the same key was asked for it.
        spacing: seconds kept between two status calls of this account, and two purchases of the key, since the provider
            asked to slow down; it shrinks with every good answer to what was asked after the pause. As the pause, all
            accounts of the key have the same.
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
    spacing: float = 0.0
    polls_early: int = 0
    jobs_finished: int = 0
    polls_per_job: float | None = None
    delay_bound_mean: float | None = None
    delay_bound_p95: float | None = None


class Account:
    """The scheduler's side of one provider account.

    Args:
        provider: the provider's name.
        limits: what may go on at once.
        pauses: those of the provider and key, where other accounts have the same; None begins with none.
    """

    _numbers = itertools.count()

    def __init__(self, provider: str, limits: Limits, pauses: Pauses | None = None) -> None:
        self.number = next(self._numbers)  # the order in which accounts were opened
        self.provider = provider
        self.limits = limits
        self.entries: dict[Entry, None] = {}  # unlike a set of them, nothing the garbage collector looks at
        self.buying: set[Job[Any]] = set()  # whoever buys keeps it; nobody counts places while there is no limit
        self.ready = ReadyLine()
        self._early_line = EarlyLine()
        self.in_flight = 0
        self.sent = 0
        self.early = 0
        self.failed = 0
        self.most_in_flight = 0
        self.throttles = 0
        self.pauses = Pauses() if pauses is None else pauses
        self._rate_open_at = -math.inf
        self._begun_at = -math.inf
        self._finished = 0
        self._finished_polls = 0
        self._delays = DelayBounds()
        self._places = anyio.CapacityLimiter(math.inf if limits.jobs is None else limits.jobs)

    def set_limits(self, limits: Limits) -> None:
        """Put other limits in force, for those who wait as well; what is under way goes on.

        Jobs that are being bought or asked about get places where there was no limit on them before, all of them, even
        if they are too many: the next purchase then waits until enough have ended.
        """
        old, self.limits = self.limits, limits
        if old.jobs is None and limits.jobs is not None:
            for job in (*self.buying, *(entry.job for entry in self.entries)):
                with contextlib.suppress(RuntimeError):  # it has one, from a limit before
                    self._places.acquire_on_behalf_of_nowait(job)
        self._places.total_tokens = math.inf if limits.jobs is None else limits.jobs
        rate = limits.polls_per_second
        self._rate_open_at = -math.inf if rate is None else self._begun_at + 1 / rate

    async def take_place(self, job: Job[Any]) -> None:
        """Wait for a place among the jobs in flight, first come first served; at once for a job that has one."""
        if self.limits.jobs is not None:
            with contextlib.suppress(RuntimeError):  # it was given one when the limit came
                await self._places.acquire_on_behalf_of(job)

    def give_place_back(self, job: Job[Any]) -> None:
        """Give the place back; harmless for a job that has none."""
        if not self._places.borrowed_tokens:
            return
        try:
            self._places.release_on_behalf_of(job)
        except RuntimeError:
            # It came when there was no limit, or ended twice (a wait that was over, then the job itself).
            return

    def pause(self, now: float, seconds: float | None, *, asked: float | None = None) -> None:
        """Stop beginning status calls and purchases for a while, because the provider asked for it, and go on gently.

        It holds for all accounts of the key. After the pause status calls of an account begin at least 50 ms apart,
        twice that for every throttle more, up to 2 s, and so do purchases of the key; `Pauses.calm` takes that back
        little by little, so that what was held up does not all come at once.
        Answers to one burst count as one throttle: those to what was asked before the end of a pause double nothing,
        whenever they come, and make it longer only where they ask for more.

        Args:
            now: monotonic seconds.
            seconds: what the provider asks for, capped at one minute: a floor under the pause, which is otherwise the
                next of a schedule that grows from 1 to 30 s. None asks for nothing.
            asked: when the question left that got this answer; None stands for just now.
        """
        self.throttles += 1
        self.pauses.begin(now, seconds, now if asked is None else asked)

    def noticed(self, bound: float) -> None:
        """Count that the end of a job was noticed at most `bound` seconds late."""
        self._delays.add(bound)

    def finished(self, polls: int) -> None:
        """Count a job whose end is known after so many status calls."""
        self._finished += 1
        self._finished_polls += polls

    def opens_at(self, now: float) -> float:
        """Return when the next status call may begin, infinity while there is no place or nobody to ask about."""
        if not self.has_room():
            return math.inf
        if self.ready.line:
            return max(now, self._closed_until())
        if self.lively:
            return max(now, self._closed_until(), self._early_line.looks_again_at())
        return math.inf

    @property
    def lively(self) -> bool:
        """Whether there may be somebody to ask about now, if only early."""
        return bool(self.ready.line) or (self.limits.ask_early and bool(self.entries))

    @property
    def is_scarce(self) -> bool:
        """Whether somebody in line has to wait for another, so that the order matters."""
        limits = self.limits
        if self.pauses.spacing or limits.polls_per_second is not None:
            return True
        return limits.polls is not None and len(self.ready.line) > limits.polls - self.in_flight

    @property
    def most_polls(self) -> float:
        """How many status calls may be in flight."""
        return math.inf if self.limits.polls is None else self.limits.polls

    def has_room(self) -> bool:
        """Whether one more status call may be in flight."""
        return self.in_flight < self.most_polls

    def held_up_by(self, now: float) -> WaitedFor:
        """Return what keeps a ready status call from beginning, or did so until now."""
        pauses = self.pauses
        if now >= pauses.until and not self.has_room():
            return "polls"
        closed: list[tuple[float, WaitedFor]] = [
            (pauses.until, "pause"),
            (self._rate_open_at, "polls_per_second"),
            (self._begun_at + pauses.spacing, "spacing"),
        ]
        until, reason = max(closed[: 3 if pauses.spacing else 2], key=itemgetter(0))
        return reason if until >= now - _JUST_NOW else "job"

    def take(self, now: float, urgency: Callable[[Entry], float] | None = None) -> Entry | None:
        """Take the next note whose status call may begin now; the caller has or makes room for it in flight.

        Args:
            now: monotonic seconds.
            urgency: where it is given and not all may begin at once, the note for which it is largest goes first, with
                an ageing bound: if never more than n calls are ready at once, none waits for more than 16n others; see
                `ReadyLine`. None takes them in the order they became ready. It is also what `Limits.ask_early` needs.

        Returns:
            None while nothing may begin. A note that is asked about early still has its `due`.
        """
        pauses = self.pauses
        if now < pauses.until or now < self._rate_open_at or now < self._begun_at + pauses.spacing:
            return None
        limits, ready = self.limits, self.ready
        if limits.polls is not None and self.in_flight > limits.polls:
            return None  # the limit was lowered meanwhile
        while ready.line:
            if urgency is not None and self.is_scarce:
                entry = ready.take_most_urgent(now, urgency)
            else:
                entry = ready.take_first()
            if entry.job is not None:  # not forgotten while it waited
                break
        else:
            early = self._take_early(now, urgency) if limits.ask_early else None
            if early is None:
                return None
            entry = early
        self._begun_at = now
        if limits.polls_per_second is not None:
            self._reserve(now, 1 / limits.polls_per_second)
        self.sent += 1
        entry.flying = True
        return entry

    def _take_early(self, now: float, urgency: Callable[[Entry], float] | None) -> Entry | None:
        entry = self._early_line.take(now, self.entries, urgency) if self.entries else None
        if entry is not None:
            self.early += 1
        return entry

    def _reserve(self, now: float, interval: float) -> None:
        # One reservation a call, evenly spaced (GCRA): nothing is looked up twice, and nothing is saved up.
        late = now - self._rate_open_at
        self._rate_open_at = (self._rate_open_at if late <= min(_LATENESS, interval) else now) + interval

    def _closed_until(self) -> float:
        return max(self.pauses.until, self._rate_open_at, self._begun_at + self.pauses.spacing)

    def statistics(self, now: float) -> AccountStatistics:
        """Return the counts of this moment."""
        places = self._places.statistics()
        return AccountStatistics(
            provider=self.provider,
            limits=self.limits,
            jobs_watched=len(self.entries),
            jobs_in_flight=self._unlimited() if self.limits.jobs is None else places.borrowed_tokens,
            jobs_waiting=places.tasks_waiting,
            polls_in_flight=self.in_flight,
            polls_ready=len(self.ready),
            polls_sent=self.sent,
            polls_early=self.early,
            polls_failed=self.failed,
            most_polls_in_flight=self.most_in_flight,
            throttles=self.throttles,
            paused_for=max(0.0, self.pauses.until - now),
            spacing=self.pauses.spacing,
            jobs_finished=self._finished,
            polls_per_job=self._finished_polls / self._finished if self._finished else None,
            delay_bound_mean=self._delays.mean,
            delay_bound_p95=self._delays.p95,
        )

    def _unlimited(self) -> int:
        """Return how many jobs are in flight where nobody counts places."""
        return len(self.entries) + sum(1 for job in self.buying if job.ticket is None)

    def __repr__(self) -> str:
        return f"<Account {self.provider} {len(self.entries)} watched, {self.in_flight} polls in flight>"
