"""The scheduler: one timer, a bounded set of pollers, no task per waiting job.

`_turn` is the whole of its thinking. It runs when the timer fires, when a job is added and when a poller is done; it
is synchronous, looks at plain state, ends waits that are over, moves due jobs to their account's ready queue, starts
as many pollers as the account's limits allow, and arms the timer for the next moment anything can happen. A poller
then does the waiting: it takes ready jobs of its account one after the other until there is none it may ask about.
Where the timer fired, `_turn` has the pollers begin before it returns; a round of the event loop for each would be a
fifth of all that a status call costs here.

Status calls carry no deadline of their own; a scope or timer for each would cost up to a quarter of the call. The
sweep in `_turn` cancels a poller whose call has dragged on for too long. A poller that ended a job whose result needs
nothing more hands it over itself; otherwise a task of its own does, so that no place is held while a picture is read.
"""

from __future__ import annotations

import asyncio
import logging
import math
import weakref
from collections import deque
from contextvars import Context
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from mirage_async._clock import Clock, SystemClock, Timer
from mirage_async._tasks import TaskSet
from mirage_async.exceptions import APIError, ConfigurationError, MirageError, NotFoundError, ResponseError
from mirage_async.jobs import LAST_LOOK, is_dubious, last_look_time, note
from mirage_async.scheduler._account import Account
from mirage_async.scheduler._adaptive import AdaptiveInterval
from mirage_async.scheduler._endings import Endings
from mirage_async.scheduler._entry import Entry
from mirage_async.scheduler._learning import LONGEST_INTERVAL, Learning, begin
from mirage_async.scheduler._pauses import LONGEST_PAUSE
from mirage_async.scheduler._poller import Poller, Rest
from mirage_async.scheduler._statistics import SchedulerStatistics
from mirage_async.scheduler._verdicts import Verdict, foreseen, judge
from mirage_async.scheduler._waits import Waits
from mirage_async.scheduler._wheel import TICK, TimerWheel

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mirage_async.exceptions import WaitedFor
    from mirage_async.jobs import Job
    from mirage_async.scheduler._intervals import IntervalPolicy
    from mirage_async.scheduler._limits import Limits
    from mirage_async.scheduler._pauses import Pauses
    from mirage_async.wire import Report

__all__ = ["Scheduler", "SchedulerStatistics"]

_logger = logging.getLogger("mirage_async.scheduler")

LONGEST_CALL = 90.0  # seconds a status call may take in all; the sweep looks every SWEEP seconds
SWEEP = 5.0
DUBIOUS_REPORTS = 3  # a provider may announce success a moment before it can show all of it; then it is believed
SLACK = 1e-3  # of an interval, by which a status call may be later: jitter varies it a hundred times as much
# To wake up costs as much as dozens of status calls' turns. Where so many fall due at once, which is a matter of some
# four hundred a second, the next ones may come a tick later, so that two ticks share a wake-up.
MANY = 8
MOST_DUE = 1024  # status calls that are made ready in one turn; more fall due at once only after a stop or a flood
CLOSING_GRACE = 2.0  # seconds for results that are being handed over when everything closes


class Scheduler:
    """Asks the providers about the jobs of one or more clients.

    A scheduler belongs to the hub or client it is given to, which wires and closes it.

    Args:
        policy: decides the intervals; None takes `AdaptiveInterval()`, which starts from what the providers' documents
            suggest, learns from every job how long they take, and under a limit on status calls has the most urgent
            one made first. `BackoffInterval()` follows the documents' schedules and learns nothing.
        clock: whose time counts; None takes the system's.
    """

    def __init__(self, *, policy: IntervalPolicy | None = None, clock: Clock | None = None) -> None:
        self._policy: IntervalPolicy = AdaptiveInterval() if policy is None else policy
        self._learning = Learning(self._policy)
        self.clock: Clock = SystemClock() if clock is None else clock
        self._accounts: weakref.WeakSet[Account] = weakref.WeakSet()  # kept alive by their clients and jobs
        self._ready: dict[Account, None] = {}  # accounts with status calls to make, in the order they got any
        self._due: TimerWheel[Entry] = TimerWheel(attrgetter("due"))
        self._waits = Waits(self.forget, self.waits_for)
        self._pollers: set[Poller] = set()
        self._parked: list[Poller] = []  # a task that is kept costs less than a new one; the sweep sends them home
        self._given: deque[Rest] = deque()  # of parked pollers that have got something to do
        self._tasks = TaskSet()
        self._endings = Endings(self._tasks, self.forget)
        self._timer: Timer | None = None
        self._timer_at = math.inf
        self._quiet_until = -math.inf  # nothing that falls due wakes the scheduler before
        self._next_sweep = math.inf
        self._concluded = 0
        self._closed = False
        self._claimed = False

    # --- what a client calls ---

    @property
    def policy(self) -> IntervalPolicy:
        """What decides the intervals."""
        return self._policy

    def claim(self) -> None:
        """Belong to one hub or client from now on.

        Raises:
            ConfigurationError: it belongs to another already, which would close it while this one buys on.
        """
        if self._claimed:
            msg = "a scheduler belongs to one hub or client; make another one"
            raise ConfigurationError(msg)
        self._claimed = True

    def account(self, provider: str, limits: Limits, pauses: Pauses | None = None) -> Account:
        """Open an account whose jobs share `limits`, and `pauses` with those of other accounts where it is given."""
        account = Account(provider, limits, pauses)
        self._accounts.add(account)
        return account

    def watch(self, job: Job[Any], deadline: float, *, at_once: bool = False) -> None:
        """Begin asking about `job`, or extend the wait for it; see `mirage_async.jobs.Waker`."""
        if self._closed:
            self._waits.stop(job, job.closed_error())
            return
        entry: Entry | None = job.ticket
        if entry is None:
            now = self.clock.monotonic()
            entry = job.ticket = Entry(job, job.kind.account, counts=self._learning.counts_of(job))
            begin(entry, job, now, attached=at_once)
            entry.account.entries[entry] = None
            entry.counts.watched += 1
            if entry.account.limits.ask_early:
                self._ready[entry.account] = None
            self._waits.begin(entry, deadline)
            if deadline < self._timer_at:
                self._arm()
            self._ask_in(0.0 if at_once else self._learning.interval(entry, job, now), entry, now)
            self._go_on(entry.account)
        else:
            if self._waits.extend(entry, deadline) and deadline < self._timer_at:
                self._arm()
            if at_once:
                self._hurry(entry, job)

    def look_before(self, job: Job[Any], end: float, since: float) -> None:
        """Make a last look at `job` now if none was or will be in time; see `mirage_async.jobs.Waker`."""
        entry: Entry | None = job.ticket
        if entry is not None and entry.due is not None:
            looked = entry.started if entry.looked is None else entry.looked
            latest = entry.due * TICK
            if self._learning.last_look(end - since, end, before=looked, latest=latest) < math.inf:
                self._hurry(entry, job)

    def wake(self, job: Job[Any]) -> None:
        """Ask about `job` now, because a hint says it has changed.

        The hint may be late, repeated or made up: only the answer of the provider counts.
        """
        entry: Entry | None = job.ticket
        if entry is not None:
            if entry.hinted is None:  # a status call that is under way may have been answered before the change
                entry.hinted = self.clock.monotonic()
            self._hurry(entry, job)

    def _hurry(self, entry: Entry, job: Job[Any]) -> None:
        """Ask now, unless that is being done, or in line to be."""
        if entry.flying or job.claimed or entry in entry.account.ready:
            return
        if entry.due is not None:  # as for anybody whose wait was to end before the next call, and goes on after all
            entry.due = None
            self._due.withdrawn()
        self._ask_in(0.0, entry, self.clock.monotonic())
        self._arm()  # not a turn right now: hints come in bunches, and one call answers them all

    def forget(self, job: Job[Any]) -> None:
        """Stop asking about `job`; harmless when nobody does."""
        entry: Entry | None = job.ticket
        if entry is not None:
            job.ticket = None
            entry.job = None
            entry.account.entries.pop(entry, None)
            entry.counts.watched -= 1
            self._let_rest(entry)

    def waits_for(self, job: Job[Any]) -> WaitedFor:
        """Return what `job` waits for now: its own end, or a turn to be asked about."""
        entry: Entry | None = job.ticket
        if entry is None or entry not in entry.account.ready:
            return "job"
        return entry.account.held_up_by(self.clock.monotonic())

    def set_limits(self, account: Account, limits: Limits) -> None:
        """Put other limits in force for an account; what is under way goes on."""
        account.set_limits(limits)
        if account.lively:
            self._ready[account] = None
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
            polls_sent=self._learning.polls_sent,
            jobs_concluded=self._concluded,
            waits_expired=self._waits.expired,
            accounts=accounts,
            models=self._learning.statistics(),
        )

    async def aclose(self) -> None:
        """Stop asking. Waiters of unfinished jobs get `ClosedError` with the token; nothing ends at the provider.

        They are told some hundreds at a time, with turns of the event loop in between; one who is cancelled meanwhile
        tells the rest at once.
        """
        self._closed = self._endings.closed = self._waits.ending = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer, self._timer_at = None, math.inf
        self._waits.close([entry for poller in self._pollers if (entry := poller.entry) is not None])
        for poller in tuple(self._pollers):
            poller.end()
        await self._waits.close_all([entry for account in tuple(self._accounts) for entry in account.entries])
        await self._tasks.aclose(grace=CLOSING_GRACE)  # results that are on the way to their waiters still arrive

    # --- deciding: synchronous, plain state ---

    def _turn(self, *, at_once: bool = False) -> None:
        """Do all that is to be done now.

        Args:
            at_once: also run the pollers that get something to do; for callbacks of the event loop alone.
        """
        if self._closed:
            return
        now = self.clock.monotonic()
        try:
            due, are_over = list(self._due.pop_due(now, most=MOST_DUE)), self._waits.next_at() <= now
            self._make_ready(self._waits.still_due(due, now) if are_over else due)
            if are_over and len(due) < MOST_DUE and not self._waits.ending:
                self._waits.end(now)
            if MANY <= len(due) < MOST_DUE:
                self._quiet_until = (int(now / TICK + 0.001) + 2) * TICK  # whatever the rounding, from this tick on
            for account in tuple(self._ready):
                most = account.most_polls
                while account.in_flight < most and (ready := self._take(account, now)) is not None:
                    self._give(account, ready)
                account.most_in_flight = max(account.most_in_flight, account.in_flight)
                if not account.lively:
                    self._ready.pop(account, None)
            if now >= self._next_sweep:
                self._sweep(now)
        finally:
            self._arm()  # whatever went wrong, the others are asked about in time
            while self._given:
                self._given.popleft().end(at_once=at_once)

    def _take(self, account: Account, now: float) -> Entry | None:
        if self._waits.ending:
            return None
        learning = self._learning
        entry = account.take(now, partial(learning.urgency, now) if learning.ranks else None)
        if entry is not None and entry.due is not None:  # asked about early
            entry.due = None
            self._due.withdrawn()
        return entry

    def _arm(self) -> None:
        if self._closed:
            return
        at = min(max(self._due.next_at(), self._quiet_until), self._waits.next_at())
        if self._ready:
            now = self.clock.monotonic()
            at = min(at, *(account.opens_at(now) for account in self._ready))
        at = min(at, self._next_sweep)
        if at < self._timer_at:  # a timer that has become too early costs one idle turn, less than moving it
            if self._timer is not None:
                self._timer.cancel()
            self._timer, self._timer_at = self.clock.call_at(at, self._on_timer), at

    def _go_on(self, account: Account) -> None:
        """Begin what was made ready for `account` just now; without room a poller of the account's takes it up."""
        if account in self._ready and account.has_room():
            self._turn()

    def _on_timer(self) -> None:
        self._timer, self._timer_at = None, math.inf
        self._waits.ending = False  # only here: one slice in each round of the event loop, whoever has turns taken
        self._turn(at_once=asyncio.current_task() is None)  # a clock that is not the system's may be moved by a task

    def _ask_in(self, wait: float, entry: Entry, now: float) -> None:
        """Let the next status call be due in `wait` seconds.

        One that is due at once begins with the next turn or goes to the poller that asks for this. One that would come
        after the end of the wait, or too shortly before, comes a little before it instead: as the last look.
        """
        if entry in self._waits.owed:  # the look that was owed has been made
            self._waits.expire(entry)
            return
        if wait <= 0:
            self._make_ready((entry,))  # not in a tick's time: somebody knows that it has something to say
            return
        at, slack, over = now + wait, SLACK * wait, entry.over
        if over is not None and at + slack > over * TICK - LAST_LOOK and wait < LONGEST_INTERVAL:  # which means "never"
            end = over * TICK
            last = self._learning.last_look(last_look_time(end - entry.started), end, before=now, latest=at + slack)
            if last < math.inf:
                at, slack = min(at, last), 0.0
        entry.due = self._due.add(at, entry, slack=slack)
        if at < self._timer_at:
            self._arm()

    def _make_ready(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            account = entry.account
            entry.due = None
            account.ready.append(entry)
            self._ready[account] = None

    def _let_rest(self, entry: Entry) -> None:
        """See to it that nothing falls due for a note any more."""
        self._waits.drop(entry)
        if entry.due is not None:
            entry.due = None
            self._due.withdrawn()
        elif not entry.flying:
            entry.account.ready.discard(entry)

    def _sweep(self, now: float) -> None:
        stood_still = now - self._next_sweep > SWEEP  # as a stopped process: answers have come that nobody has read
        self._next_sweep = now + SWEEP if self._pollers else math.inf
        for poller in self._pollers:
            if now - poller.began > LONGEST_CALL and not stood_still:
                poller.end()
        parked, self._parked = self._parked, []
        for poller in parked:
            poller.end()

    # --- doing: the pollers ---

    def _give(self, account: Account, entry: Entry) -> None:
        """Find a poller that is to ask about `entry` first."""
        account.in_flight += 1
        parked = self._parked
        while parked:
            poller = parked.pop()
            rest, poller.parked = poller.parked, None
            if rest is not None and not rest.done():  # not cancelled, by whoever cancels all tasks there are
                poller.account, poller.entry, poller.is_at_work = account, entry, True
                self._given.append(rest)
                return
        self._start_poller(account, entry)

    def _start_poller(self, account: Account, entry: Entry) -> None:
        poller = Poller(account, entry)
        self._pollers.add(poller)
        if self._next_sweep == math.inf:
            self._next_sweep = self.clock.monotonic() + SWEEP
        poller.task = self._tasks.spawn(self._work(poller), context=Context())  # it outlives whatever began it
        poller.task.add_done_callback(partial(self._gone, poller))

    async def _work(self, poller: Poller) -> None:
        """Ask about ready jobs of the poller's account until there is none, wait to be given another, and so on."""
        loop, monotonic, ready = asyncio.get_running_loop(), self.clock.monotonic, self._ready
        while not poller.over:
            account, entry = poller.account, poller.entry
            if entry is None:
                self._leave(poller)
                poller.parked = rest = Rest(loop=loop)
                self._parked.append(poller)
                await rest
                continue
            poller.began = asked = monotonic()
            job = entry.job
            if job is None:  # forgotten between being taken and being asked about
                account.sent -= 1
            else:
                entry.counts.sent += 1
                job.polls += 1
                hinted, entry.hinted = entry.hinted, None
                try:
                    report = await job.kind.look(job)
                    if account.pauses.uneasy:
                        account.pauses.calm(asked)
                    ended = self._answered(entry, job, report, asked, hinted)
                except Exception as error:  # noqa: BLE001 - logged, if it is not one of ours
                    self._missed(entry, foreseen(error, job), asked)
                else:
                    if ended:
                        await self._finish(poller, job, report)
            poller.entry = self._take(account, monotonic()) if account in ready else None

    def _gone(self, poller: Poller, _: asyncio.Task[None]) -> None:
        """Tidy up after a poller that was sent home, or cancelled by the sweep or whoever cancels all tasks."""
        self._pollers.discard(poller)
        if poller.is_at_work:  # one that is over already still has to put back what it was given
            self._leave(poller)

    async def _finish(self, poller: Poller, job: Job[Any], report: Report) -> None:
        """Hand over what has ended, or see to it that somebody does."""
        if not report.temporary:
            poller.began = math.inf  # nothing is awaited for long; whatever is must not be cut short
            await self._endings.conclude(job, report)
        else:
            self._endings.spawn(job, report)

    def _leave(self, poller: Poller) -> None:
        """Take the poller from its account; a call that it did not make, or not to the end, is made again."""
        account, entry = poller.account, poller.entry
        poller.began, poller.entry, poller.is_at_work = math.inf, None, False
        account.in_flight -= 1
        if entry is not None:
            cut_short = ResponseError(f"a status call was cut short, after {LONGEST_CALL:g} s at most")
            self._missed(entry, cut_short, self.clock.monotonic())
        if account in self._ready and account.lively:
            self._turn()

    def _answered(self, entry: Entry, job: Job[Any], report: Report, asked: float, hinted: float | None) -> bool:
        """Act on a usable answer, and return whether it ends the job, which is then claimed for the caller to conclude.

        It counts even if the wait ended while the call was under way.
        """
        now, status = self.clock.monotonic(), report.status
        entry.polls += 1
        if entry.misses:
            entry.misses = entry.not_found = 0
        if status is None:
            _logger.info("%r has the unknown status %.40r; asking on", job, report.word)
        elif status.terminal:
            self._learning.finished(entry, job, report, now=now, hinted=hinted)
            return self._ended(entry, job, report, now)
        else:
            self._learning.unfinished(entry, job, report, asked=asked, now=now)
        entry.flying = False
        if not job.claimed:
            if report.progress is not None or status is not job.status:
                note(job, report)
            if entry.job is not None:
                if report.retry_after is not None:
                    entry.wanted = now + min(report.retry_after, LONGEST_PAUSE)
                gap = max(entry.wanted - now, self._learning.interval(entry, job, now)) if entry.hinted is None else 0.0
                self._ask_in(gap, entry, now)
        return False

    def _ended(self, entry: Entry, job: Job[Any], report: Report, now: float) -> bool:
        """Claim a job that has ended, unless the answer is to be doubted or somebody else was first."""
        if is_dubious(report):
            entry.dubious += 1
            if entry.dubious < DUBIOUS_REPORTS:
                self._ask_again(entry, now)
                return False
        if not job.claim():
            return False
        self._concluded += 1
        entry.account.finished(job.polls)
        if job.ticket is not None:  # another than this one, where the wait was over meanwhile and began anew
            self._let_rest(job.ticket)
        return True

    def _missed(self, entry: Entry, error: MirageError, asked: float) -> None:
        """Act on a status call that brought no usable answer."""
        account, now = entry.account, self.clock.monotonic()
        account.failed += 1
        entry.misses += 1
        entry.not_found = entry.not_found + 1 if isinstance(error, NotFoundError) else 0
        job, verdict = entry.job, judge(error, entry.not_found)
        if verdict is Verdict.SLOW_DOWN:  # whoever's answer it was, and be it that of a job nobody asks about any more
            assert isinstance(error, APIError)  # noqa: S101 - the verdict is about these only; for the type checker
            account.pause(now, error.retry_after, asked=asked)
        if job is None:
            return
        if verdict is Verdict.GIVE_UP:
            # The refusal of a question says nothing about the job, which was accepted, so paid for, long before.
            error.billed = "unknown" if isinstance(error, NotFoundError) else "yes"
            error.add_note(f"the job lives on; attach with {job.token()}")
            self.forget(job)
            job.stop(error)
            return
        _logger.info("a status call for %r brought no answer (%s); asking on", job, type(error).__name__)
        self._ask_again(entry, now, at_least=self._learning.patience(entry.misses))

    def _ask_again(self, entry: Entry, now: float, *, at_least: float = 0.0) -> None:
        entry.flying = False
        job = entry.job
        if job is not None and not job.claimed:
            wait = max(at_least, self._learning.interval(entry, job, now)) if entry.hinted is None else 0.0
            self._ask_in(wait, entry, now)
