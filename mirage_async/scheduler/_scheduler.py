"""The scheduler: one timer, a bounded set of pollers, no task per waiting job.

`_turn` is the whole of its thinking. It runs when the timer fires, when a job is added and when a poller is done; it
is synchronous, looks at plain state, ends waits that are over, moves due jobs to their account's ready queue, starts
as many pollers as the account's limits allow, and arms the timer for the next moment anything can happen. A poller
then does the waiting: it takes ready jobs of its account one after the other until there is none it may ask about.

Status calls carry no deadline of their own; a scope for each would cost a quarter of the call. A socket that goes
silent ends by its own timeout, and the sweep in `_turn` cancels a poller whose call has dragged on for too long.
"""

from __future__ import annotations

import logging
import math
import weakref
from typing import TYPE_CHECKING, Any

import anyio
import msgspec

from mirage_async._clock import Clock, SystemClock, Timer
from mirage_async._retry import delays
from mirage_async._tasks import TaskSet
from mirage_async.exceptions import APIError, ConfigurationError, MirageError, NotFoundError, ResponseError
from mirage_async.jobs import conclude, is_dubious, note
from mirage_async.scheduler._account import Account, AccountStatistics, Entry
from mirage_async.scheduler._adaptive import ModelStatistics
from mirage_async.scheduler._intervals import BackoffInterval, IntervalPolicy
from mirage_async.scheduler._learning import Learning, begin, view_of
from mirage_async.scheduler._verdicts import Verdict, judge
from mirage_async.scheduler._wheel import TICK, TimerWheel

if TYPE_CHECKING:
    from mirage_async.jobs import Job
    from mirage_async.scheduler._limits import Limits
    from mirage_async.wire import Report

__all__ = ["Scheduler", "SchedulerStatistics"]

_logger = logging.getLogger("mirage_async.scheduler")

LONGEST_CALL = 90.0  # seconds a status call may take in all; the sweep looks every SWEEP seconds
SWEEP = 5.0
DUBIOUS_REPORTS = 3  # a provider may announce success a moment before it can show all of it; then it is believed
CLOSING_GRACE = 2.0  # seconds for results that are being handed over when everything closes


class SchedulerStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of a scheduler at one moment.

    Attributes:
        jobs_watched: jobs somebody asks about, over all accounts.
        polls_in_flight: status calls under way.
        polls_sent: status calls begun so far.
        jobs_concluded: jobs seen finished so far.
        waits_expired: waits that ended before their job did.
        accounts: the same and more for each provider account.
        models: what the policy has learned of each kind of job, if it learns.
    """

    jobs_watched: int
    polls_in_flight: int
    polls_sent: int
    jobs_concluded: int
    waits_expired: int
    accounts: tuple[AccountStatistics, ...]
    models: tuple[ModelStatistics, ...] = ()


class _Flight:
    """One poller at work, for the sweep."""

    __slots__ = ("began", "over", "scope")

    def __init__(self, began: float) -> None:
        self.began = began
        self.over = False
        # Made by the poller itself: anyio makes scopes inside tasks only, and a timer is what starts a poller.
        self.scope: anyio.CancelScope | None = None

    def enter(self) -> anyio.CancelScope:
        """Return the scope to poll in; one that was ended before it began lets nothing be awaited."""
        self.scope = anyio.CancelScope()
        if self.over:
            self.scope.cancel()
        return self.scope

    def end(self) -> None:
        """Let the poller stop at once."""
        self.over = True
        if self.scope is not None:
            self.scope.cancel()


class Scheduler:
    """Asks the providers about the jobs of one or more clients.

    A scheduler belongs to the hub or client it is given to, which wires and closes it.

    Args:
        policy: decides the intervals; None takes `BackoffInterval()`, which follows the providers' documents.
            `AdaptiveInterval()` learns from every job how long they take, and under a limit on status calls it has
            the most urgent one made first.
        clock: whose time counts; None takes the system's.
    """

    def __init__(self, *, policy: IntervalPolicy | None = None, clock: Clock | None = None) -> None:
        self.policy: IntervalPolicy = BackoffInterval() if policy is None else policy
        self.clock: Clock = SystemClock() if clock is None else clock
        self._accounts: weakref.WeakSet[Account] = weakref.WeakSet()  # kept alive by their clients and jobs
        self._ready: dict[Account, None] = {}  # accounts with status calls that are due, in the order they became so
        self._due: TimerWheel[Entry] = TimerWheel(_is_due)
        self._deadlines: TimerWheel[Entry] = TimerWheel(_is_over)
        self._flights: set[_Flight] = set()
        self._tasks = TaskSet()
        self._learning = Learning()
        self._timer: Timer | None = None
        self._timer_at = math.inf
        self._next_sweep = math.inf
        self._concluded = 0
        self._expired = 0
        self._closed = False
        self._claimed = False

    # --- what a client calls ---

    def claim(self) -> None:
        """Belong to one hub or client from now on.

        Raises:
            ConfigurationError: it belongs to another already, which would close it while this one buys on.
        """
        if self._claimed:
            msg = "a scheduler belongs to one hub or client; make another one"
            raise ConfigurationError(msg)
        self._claimed = True

    def account(self, provider: str, limits: Limits) -> Account:
        """Open an account whose jobs share `limits`."""
        account = Account(provider, limits)
        self._accounts.add(account)
        return account

    def watch(self, job: Job[Any], deadline: float, *, at_once: bool = False) -> None:
        """Begin asking about `job`, or extend the wait for it; see `mirage_async.jobs.Waker`."""
        if self._closed:
            job.stop(job.closed_error())
            return
        entry: Entry | None = job.ticket
        if entry is None:
            entry = job.ticket = Entry(job, job.kind.account)
            begin(entry, job, self.clock.monotonic(), attached=at_once)
            entry.account.entries.add(entry)
            self._set_deadline(entry, deadline)
            self._set_due(entry, self.clock.monotonic() + (0.0 if at_once else self._interval(entry, job)))
        else:
            if entry.over is None or deadline > entry.over * TICK:
                self._drop_deadline(entry)
                self._set_deadline(entry, deadline)
            if at_once:
                self.wake(job)
        self._arm()

    def wake(self, job: Job[Any]) -> None:
        """Ask about `job` now, because a hint says it has changed."""
        entry: Entry | None = job.ticket
        if entry is None:
            return
        if entry.flying:
            entry.urgent = True
        elif entry.due is not None:
            entry.due = None
            self._due.withdrawn()
            self._set_due(entry, self.clock.monotonic())
            self._arm()

    def forget(self, job: Job[Any]) -> None:
        """Stop asking about `job`; harmless when nobody does."""
        entry: Entry | None = job.ticket
        if entry is not None:
            job.ticket = None
            entry.job = None
            entry.account.entries.discard(entry)
            entry.account.ready.discard(entry)
            self._drop_deadline(entry)
            if entry.due is not None:
                entry.due = None
                self._due.withdrawn()

    def set_limits(self, account: Account, limits: Limits) -> None:
        """Put other limits in force for an account; what is under way goes on."""
        account.set_limits(limits)
        self._turn()

    def watched(self, account: Account) -> list[Job[Any]]:
        """Return the jobs of an account that are being asked about or whose results are being handed over."""
        return [entry.job for entry in account.entries if entry.job is not None]

    def statistics(self) -> SchedulerStatistics:
        """Return the counts of this moment."""
        now = self.clock.monotonic()
        opened = sorted(self._accounts, key=lambda account: account.number)
        accounts = tuple(account.statistics(now) for account in opened)
        return SchedulerStatistics(
            jobs_watched=sum(account.jobs_watched for account in accounts),
            polls_in_flight=sum(account.polls_in_flight for account in accounts),
            polls_sent=sum(account.polls_sent for account in accounts),
            jobs_concluded=self._concluded,
            waits_expired=self._expired,
            accounts=accounts,
            models=self._learning.statistics(self.policy),
        )

    async def aclose(self) -> None:
        """Stop asking. Waiters of unfinished jobs get `ClosedError` with the token; nothing ends at the provider."""
        self._closed = True
        for account in tuple(self._accounts):
            for job in self.watched(account):
                if not job.claimed:
                    self.forget(job)
                    job.stop(job.closed_error())
        for flight in self._flights:
            flight.end()
        await self._tasks.aclose(grace=CLOSING_GRACE)  # results that are on the way to their waiters still arrive
        if self._timer is not None:
            self._timer.cancel()
            self._timer, self._timer_at = None, math.inf

    # --- deciding: synchronous, plain state ---

    def _turn(self) -> None:
        now = self.clock.monotonic()
        for entry in self._deadlines.pop_due(now):
            self._expire(entry)
        for entry in self._due.pop_due(now):
            self._make_ready(entry)
        for account in tuple(self._ready):
            while account.has_room() and (ready := self._take(account, now)) is not None:
                self._start_poller(account, ready)
            if not account.ready:
                del self._ready[account]
        if now >= self._next_sweep:
            self._sweep(now)
        self._arm()

    def _take(self, account: Account, now: float) -> Entry | None:
        return account.take(now, self._learning.urgency(self.policy, now)) if account.ready else None

    def _arm(self) -> None:
        now = self.clock.monotonic()
        moments = [self._due.next_at(), self._deadlines.next_at(), *(account.opens_at(now) for account in self._ready)]
        at = min((moment for moment in moments if moment is not None), default=math.inf)
        if self._flights:
            at = min(at, self._next_sweep)
        if at < self._timer_at:  # a timer that has become too early costs one idle turn, less than moving it
            if self._timer is not None:
                self._timer.cancel()
            self._timer, self._timer_at = self.clock.call_at(at, self._on_timer), at

    def _on_timer(self) -> None:
        self._timer, self._timer_at = None, math.inf
        self._turn()

    def _set_due(self, entry: Entry, when: float) -> None:
        if when > self.clock.monotonic():
            entry.due = self._due.add(when, entry)
        else:
            self._make_ready(entry)  # not in a tick's time: somebody knows that it has something to say

    def _make_ready(self, entry: Entry) -> None:
        entry.due = None
        entry.account.ready.append(entry)
        self._ready[entry.account] = None

    def _set_deadline(self, entry: Entry, deadline: float) -> None:
        entry.over = self._deadlines.add(deadline, entry)

    def _drop_deadline(self, entry: Entry) -> None:
        if entry.over is not None:
            entry.over = None
            self._deadlines.withdrawn()

    def _expire(self, entry: Entry) -> None:
        entry.over = None
        job = entry.job
        assert job is not None  # noqa: S101 - a forgotten job has no deadline; says so to the type checker
        self._expired += 1
        waiting = entry.due is None and not entry.flying
        error = job.wait_timeout("waiting for a turn to ask ran out" if waiting else "the wait is over")
        self.forget(job)
        job.stop(error)

    def _sweep(self, now: float) -> None:
        self._next_sweep = now + SWEEP
        for flight in self._flights:
            if now - flight.began > LONGEST_CALL:
                flight.end()

    def _interval(self, entry: Entry, job: Job[Any]) -> float:
        view = view_of(entry, job, self.clock.monotonic())
        interval, usable = math.nan, False
        try:
            interval = self.policy.next_interval(view)
            usable = 0 <= interval < math.inf
        except Exception:
            _logger.exception("the interval policy %r failed", self.policy)
        if not usable:
            # A faulty policy of a user's must not strand a job that was paid for.
            _logger.error(
                "the interval policy %r gave no number of seconds; using %g s", self.policy, job.kind.pace.interval
            )
            interval = job.kind.pace.interval
        return max(interval, job.kind.hints.patience(job))

    # --- doing: the pollers ---

    def _start_poller(self, account: Account, entry: Entry) -> None:
        account.in_flight += 1
        account.most_in_flight = max(account.most_in_flight, account.in_flight)
        now = self.clock.monotonic()
        if not self._flights:
            self._next_sweep = now + SWEEP
        flight = _Flight(now)
        self._flights.add(flight)
        self._tasks.spawn(self._poll_ready(account, entry, flight))

    async def _poll_ready(self, account: Account, first: Entry, flight: _Flight) -> None:
        entry: Entry | None = first
        try:
            with flight.enter():
                while entry is not None:
                    flight.began = self.clock.monotonic()
                    await self._poll(entry)
                    entry = self._take(account, self.clock.monotonic())
            if entry is not None:
                self._missed(entry, ResponseError(f"a status call took longer than {LONGEST_CALL:g} s"))
        finally:
            self._flights.discard(flight)
            account.in_flight -= 1
            self._turn()

    async def _poll(self, entry: Entry) -> None:
        job = entry.job
        if job is None:
            return  # forgotten between being taken and being asked about
        job.polls += 1
        asked = self.clock.monotonic()
        try:
            report = await job.kind.look(job)
            entry.account.calm()
            self._answered(entry, job, report, asked)
        except MirageError as error:
            self._missed(entry, error)
        except Exception as error:
            _logger.exception("a status call for %r failed in an unforeseen way", job)
            self._missed(entry, ResponseError(f"the status call failed with {type(error).__name__}"))

    def _answered(self, entry: Entry, job: Job[Any], report: Report, asked: float) -> None:
        """Act on a usable answer; it counts even if the wait ended while the call was under way."""
        entry.polls += 1
        entry.misses = entry.not_found = 0
        self._learning.looked(self.policy, entry, job, report, asked=asked, now=self.clock.monotonic())
        if report.status is None:
            _logger.info("%r has the unknown status %.40r; asking on", job, report.word)
        if report.status is not None and report.status.terminal:
            if is_dubious(report):
                entry.dubious += 1
                if entry.dubious < DUBIOUS_REPORTS:
                    self._ask_again(entry)
                    return
            if job.claim():
                self._concluded += 1
                entry.account.finished(job.polls)
                self._drop_deadline(entry)
                self._tasks.spawn(self._conclude(job, report))
            return
        if not job.done:
            note(job, report)
        self._ask_again(entry)

    async def _conclude(self, job: Job[Any], report: Report) -> None:
        try:
            await conclude(job, report)
        finally:
            self.forget(job)
            if not job.done:  # everything closes, and the grace is over
                job.stop(job.closed_error())

    def _missed(self, entry: Entry, error: MirageError) -> None:
        """Act on a status call that brought no usable answer."""
        account = entry.account
        account.failed += 1
        entry.misses += 1
        entry.not_found = entry.not_found + 1 if isinstance(error, NotFoundError) else 0
        job = entry.job
        if job is None:
            return
        verdict = judge(error, entry.not_found)
        if verdict is Verdict.GIVE_UP:
            # The refusal of a question says nothing about the job, which was accepted, so paid for, long before.
            error.billed = "unknown" if isinstance(error, NotFoundError) else "yes"
            error.add_note(f"the job lives on; attach with {job.token()}")
            self.forget(job)
            job.stop(error)
            return
        _logger.info("a status call for %r brought no answer (%s); asking on", job, type(error).__name__)
        if verdict is Verdict.SLOW_DOWN:
            assert isinstance(error, APIError)  # noqa: S101 - the verdict is about these only; for the type checker
            account.pause(self.clock.monotonic(), error.retry_after)
        patience = delays(1.0, 2.0, 30.0)
        for _ in range(min(entry.misses, 8) - 1):
            next(patience)
        self._ask_again(entry, at_least=next(patience))

    def _ask_again(self, entry: Entry, *, at_least: float = 0.0) -> None:
        entry.flying = False
        job = entry.job
        if job is not None:
            wait = 0.0 if entry.urgent else max(at_least, self._interval(entry, job))
            entry.urgent = False
            self._set_due(entry, self.clock.monotonic() + wait)


def _is_due(entry: Entry, tick: int) -> bool:
    return entry.due == tick


def _is_over(entry: Entry, tick: int) -> bool:
    return entry.over == tick
