"""The jobs webhooks are expected for, and what becomes of a hint about one.

This is the loop's side of the receiver: everything here runs in the event loop of the jobs. A hint ends in one of

=========  ============================================================================================================
woken      the job is being watched: one status call is made now, or two seconds after the last one a hint has caused;
           where the body claims the end, one more two seconds later, should the provider not know of it yet
early      the provider has not yet answered the purchase: it is parked, and the job is asked about once it has an id
unknown    a job of another process, or one that is gone: parked as well, for whoever attaches to it
late       the job has ended, perhaps while the hint waited for its turn: nothing is left to do
unwatched  the wait for the job is over, or everything was closed: whoever asks for it again is told at once anyway
=========  ============================================================================================================

Jobs are held weakly: expecting a webhook keeps nothing alive.
"""

from __future__ import annotations

import asyncio
import logging
import math
import weakref
from collections import Counter
from functools import cache, partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from mirage_async import wire
from mirage_async._tasks import fulfil
from mirage_async.models import JobStatus
from mirage_async.webhooks._inbox import Inbox
from mirage_async.webhooks._reliability import Reliability

if TYPE_CHECKING:
    from collections.abc import Callable

    from mirage_async._clock import Clock
    from mirage_async.jobs import Job
    from mirage_async.webhooks._inbox import Hint

__all__ = ["Becoming", "Expected"]

_logger = logging.getLogger("mirage_async.webhooks")

Becoming: TypeAlias = Literal["woken", "early", "unknown", "late", "unwatched"]

WAKE_INTERVAL = 2.0  # seconds between two status calls that hints about one job cause
NEWS_LASTS = 30.0  # seconds within which a job that is said to have ended has to be seen ended for that to be true
IN_TIME = 10.0  # seconds after a status call has told the end, within which its webhook has still come, only late
_MOST_KINDS = 512


_Kind: TypeAlias = "tuple[weakref.ref[Any], str, str, str | None]"
"""The account, which is not kept alive, the provider, and the name and model of a kind of job."""


class _Note(weakref.ref["Job[Any]"]):
    """A job a webhook is expected for; a weak reference, so that the note is all there is to keep."""

    __slots__ = (
        "accepted_at",
        "asked_until",
        "claim",
        "deferred",
        "held_back",
        "hinted_at",
        "key",
        "listener",
        "merged",
        "missed",
        "reliability",
        "woken_at",
    )

    key: str
    reliability: Reliability | None  # None until the provider has accepted the job
    accepted_at: float
    asked_until: float
    hinted_at: float | None
    woken_at: float  # minus infinity before the first time
    claim: Hint | None  # what came then, until a status call has answered it
    deferred: bool  # a status call is to be made when the interval is over
    merged: int  # hints that wait for it
    held_back: bool  # it was not asked about for a while, because of us
    missed: bool  # a status call told its end, and its webhook may still come
    listener: asyncio.Future[Hint | None] | None  # waits for a hint before there is an id to ask about


def _note(job: Job[Any], gone: Callable[[_Note], object]) -> _Note:
    note = _Note(job, gone)
    note.key = job.key
    note.reliability = note.hinted_at = note.claim = note.listener = None
    note.accepted_at = note.asked_until = 0.0
    note.woken_at = -math.inf
    note.merged = 0
    note.deferred = note.held_back = note.missed = False
    return note


class Expected:
    """Notes which jobs may be hinted at; implements `mirage_async.jobs.Hints`.

    Args:
        clock: for hints about jobs nobody here knows; a job is dealt with by the clock of its own kind.
        address: where all webhooks are expected, without what makes it the address of a job: it is shown in logs.
    """

    def __init__(self, clock: Clock, address: str) -> None:
        self._clock = clock
        self._address = address
        self._notes: dict[str, _Note] = {}
        self._overdue: dict[tuple[str, str], _Note] = {}  # by provider and key, of jobs that ended without a webhook
        self._kinds: dict[_Kind, Reliability] = {}
        self._warned: set[str] = set()
        self.inbox = Inbox()
        self.unclaimed: Callable[[Hint], object] | None = None  # told of hints about jobs nobody here waits for
        self.became: Counter[Becoming] = Counter()

    def __len__(self) -> int:
        return len(self._notes)

    def expect(self, job: Job[Any]) -> None:
        """Have hints with the key of this job mean this job from now on, until it is gone."""
        self._notes[job.key] = _note(job, self._gone)

    async def heard(self, job: Job[Any], patience: float) -> Hint | None:
        """Wait for a hint about an expected job that has no id yet, or return one that came before.

        Args:
            job: an expected one.
            patience: seconds to wait, by the job's clock; then None is returned.
        """
        early = self.inbox.take(job.provider, job.key, self._clock.monotonic())
        note = self._note(job)
        if early is not None or note is None:
            return early
        listener: asyncio.Future[Hint | None] = asyncio.get_running_loop().create_future()
        note.listener = listener
        clock = job.kind.clock
        timer = clock.call_at(clock.monotonic() + patience, partial(fulfil, listener, None))
        try:
            return await listener
        finally:
            timer.cancel()
            note.listener = None

    def _gone(self, note: _Note) -> None:
        if self._notes.get(note.key) is note:
            del self._notes[note.key]

    # --- what jobs ask and tell ---

    def accepted(self, job: Job[Any], deadline: float) -> bool:
        """Begin to count on the webhook of a job; True where it has come already."""
        note = self._note(job)
        if note is None:
            return False
        now = job.kind.clock.monotonic()
        note.accepted_at, note.reliability = now, self._reliability(job)
        # However long jobs take: one whose wait is short is asked about while there is time to hear the answer.
        note.asked_until = now + (deadline - now) / 2
        early = self.inbox.take(job.provider, job.key, self._clock.monotonic())
        if early is None:
            return False
        note.hinted_at = note.woken_at = now
        note.claim = early
        return True

    def patience(self, job: Job[Any]) -> float:
        """Return for how many seconds no status call is worth making, since the webhook is to be expected."""
        note = self._note(job)
        if note is None:
            return 0.0
        claim, note.claim = note.claim, None
        if claim is not None and _claims_end(claim):  # its status call has been made, or is about to be
            self._defer(note, job, note.woken_at)
        if note.reliability is None or note.hinted_at is not None:
            return 0.0
        until = min(note.accepted_at + note.reliability.patience, note.asked_until)
        left = max(0.0, until - job.kind.clock.monotonic())
        note.held_back |= left > 0
        return left

    def ended(self, job: Job[Any]) -> None:
        """Learn from the end of a job whether its webhook came."""
        note = self._note(job)
        if note is None or note.reliability is None or not job.done or job.detected_at is None:
            return
        if note.hinted_at is not None and job.detected_at - note.hinted_at <= NEWS_LASTS:
            note.reliability.came(job.detected_at - note.accepted_at)
        else:
            note.reliability.missed(job.detected_at - note.accepted_at, held_back=note.held_back)
            note.missed = True
            self._overdue[job.provider, note.key] = note
            clock, provider = job.kind.clock, job.provider
            clock.call_at(clock.monotonic() + IN_TIME, lambda: self._give_up(note, provider))

    def _give_up(self, note: _Note, provider: str) -> None:
        """The webhook of a job that has ended does not come any more; say so once, where that is no exception."""
        if self._overdue.get((provider, note.key)) is note:
            del self._overdue[provider, note.key]
        if not note.missed:
            return
        note.missed = False
        assert note.reliability is not None  # noqa: S101 - it was missed; says so to the type checker
        if note.reliability.fails and provider not in self._warned:
            self._warned.add(provider)
            _logger.warning(
                "webhooks of %s do not seem to arrive at %s: is that address (public_url) reachable from outside, and "
                "does it lead to this receiver? Jobs are asked about as if there were no webhooks",
                provider,
                self._address,
            )

    def _note(self, job: Job[Any]) -> _Note | None:
        note = self._notes.get(job.key)
        return note if note is not None and note() is job else None

    def _reliability(self, job: Job[Any]) -> Reliability:
        key = (weakref.ref(job.kind.account), job.provider, job.kind.name, job.model)
        found = self._kinds.get(key)
        if found is None:
            found = self._kinds[key] = Reliability()
            if len(self._kinds) > _MOST_KINDS:
                del self._kinds[next(iter(self._kinds))]
        return found

    def reliability_of(self, provider: str) -> float | None:
        """Return the lowest share of webhooks that came over the provider's kinds of jobs, None before any."""
        return min((kind.share for key, kind in self._kinds.items() if key[1] == provider), default=None)

    # --- what the receiver tells ---

    def arrived(self, hint: Hint) -> None:
        """Do what a hint asks for."""
        note = self._notes.get(hint.key)
        job = None if note is None else note()
        self.became[self._act(hint, note, job)] += 1

    def _act(self, hint: Hint, note: _Note | None, job: Job[Any] | None) -> Becoming:
        if note is None or job is None or job.provider != hint.provider:
            ended = self._overdue.get((hint.provider, hint.key))
            if ended is not None:  # and is gone by now
                self._came_late(ended)
                return "late"
            self._park(hint)
            return "unknown"
        if job.status is JobStatus.UNCERTAIN or (job.status is JobStatus.SUBMITTING and not job.claimed):
            self._came_early(hint, note, job)
            return "early"
        now = job.kind.clock.monotonic()
        if job.claimed or job.done:
            if note.hinted_at is None:
                note.hinted_at = now  # where the result is still on the way to its waiters, this counts as in time
            self._came_late(note)
            return "late"
        note.hinted_at = now
        if job.stopped is not None:
            return "unwatched"
        self._wake(note, job, now, hint)
        return "woken"

    def _came_early(self, hint: Hint, note: _Note, job: Job[Any]) -> None:
        if job.status is JobStatus.UNCERTAIN:
            self._park(hint)
        elif note.listener is None or not fulfil(note.listener, hint):
            self.inbox.put(hint, self._clock.monotonic())

    def _park(self, hint: Hint) -> None:
        self.inbox.put(hint, self._clock.monotonic())
        if self.unclaimed is not None:
            self.unclaimed(hint)

    @staticmethod
    def _came_late(note: _Note) -> None:
        if note.missed and note.reliability is not None:
            note.missed = False
            note.reliability.came_after_all()

    def _wake(self, note: _Note, job: Job[Any], now: float, hint: Hint) -> None:
        """Have the job asked about now, or, where a hint has just done that, when the interval is over.

        Args:
            note: the job's.
            job: a watched one.
            now: by the job's clock.
            hint: where it claims the end and the answer is that the job goes on, that is asked once more when the
                interval is over: a provider may announce an end a moment before it can tell it.
        """
        if now - note.woken_at >= WAKE_INTERVAL:
            note.woken_at, note.claim = now, hint
            job.kind.waker.wake(job)
        else:
            note.merged += 1
            self._defer(note, job, note.woken_at)

    def _defer(self, note: _Note, job: Job[Any], asked_at: float) -> None:
        if not note.deferred:
            note.deferred = True
            job.kind.clock.call_at(asked_at + WAKE_INTERVAL, lambda: self._wake_deferred(note))

    def _wake_deferred(self, note: _Note) -> None:
        note.deferred = False
        merged, note.merged = note.merged, 0
        job = note()
        if job is None or job.claimed or job.done:
            self._recount(merged, "late")
        elif job.stopped is not None:
            self._recount(merged, "unwatched")
        else:
            note.woken_at = job.kind.clock.monotonic()
            job.kind.waker.wake(job)

    def _recount(self, hints: int, became: Becoming) -> None:
        """Count hints that waited for a status call under what has become of them instead."""
        self.became["woken"] -= hints
        self.became[became] += hints


def _claims_end(hint: Hint) -> bool:
    """Whether the body says that the job has ended, in the words of the provider's status."""
    read = _state_reader(hint.provider)
    state = None if read is None or hint.status is None else read(hint.status)
    return state is not None and state.terminal


@cache
def _state_reader(provider: str) -> Callable[[str], JobStatus | None] | None:
    """Return what reads a word for a state; None for a provider that answers at once and has none."""
    found: Callable[[str], JobStatus | None] | None = getattr(
        import_module(f"{wire.__name__}.{provider}"), "job_state", None
    )
    return found
