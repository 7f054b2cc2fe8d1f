"""The handle of one job.

A job knows three endings. It *resolves* once, with a value or an error: that is about the job. It may *stop* any
number of times before, because a wait ran out, the provider refuses to be asked, or the client closes: that is about
the watching, and the job can be watched again. And it can be *abandoned* by a waiter, which touches nobody else: each
waiter sleeps on a future of its own and reads the state when it wakes.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import random
import secrets
import time
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar, cast

import msgspec

from mirage_async.exceptions import ClosedError, InputError, WaitTimeoutError
from mirage_async.jobs._sleepers import Sleeper, Sleepers, joined, left, wake, wake_all
from mirage_async.jobs._states import check_move
from mirage_async.jobs._tokens import Token
from mirage_async.models import JobStatus, JobUpdate

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator

    # A job is never encoded, so msgspec never reads its annotations.
    from mirage_async.exceptions import MirageError, WaitedFor  # noqa: TC004
    from mirage_async.jobs._kind import JobKind  # noqa: TC004

__all__ = ["LAST_LOOK", "Job", "checked_wait", "last_look_time", "new_job", "new_key"]

_logger = logging.getLogger("mirage_async.jobs")

T = TypeVar("T")

_WAITS: dict[WaitedFor, str] = {
    "job": "the wait is over",
    "place": "waiting for a place among the account's jobs in flight (Limits.jobs) ran out",
    "slot": "waiting for an HTTP slot to send the request ran out",
    "journal": "waiting for the journal's disk, which comes before the request is sent, ran out",
    "pause": "waiting for the end of a pause the provider asked for ran out",
    "spacing": "waiting for a turn at the gentle pace after a pause the provider asked for ran out",
    "polls": "waiting for a turn to ask, among the status calls in flight (Limits.polls), ran out",
    "polls_per_second": "waiting for a turn to ask, under Limits.polls_per_second, ran out",
}

LONGEST_WAIT = 30 * 24 * 3600.0  # seconds; anything above is a mistake in the caller's arithmetic
# When the last look before the end of a wait is made, in seconds before that and as a share of the wait: at random in
# the first half of this time, so that waits that end together have none in one moment, and half is left for the answer,
# of which a look that comes by itself needs half: a status call takes less than half a second as a rule.
LAST_LOOK, _LAST_LOOK_SHARE = 2.0, 0.25


class Job(msgspec.Struct, Generic[T], eq=False, weakref=True):
    """One piece of remote work: await it for its result, from as many places as you like.

    Jobs come from `submit`, `build_avatar` and `job`; nobody else makes them.

    Attributes:
        key: our own id, minted before anything was sent.
        id: the provider's id, or None before it accepted and for a provider that answers at once.
        status: where it stands.
        progress: share done, 0 to 1, or None where the provider does not say.
        polls: status calls made so far.
        model: the model asked for, or None.
        requested: how many pictures were asked for.
        submitted_at: when `submit` was called or the job was attached, in monotonic seconds of the client's clock.
        running_at: when it was first seen running, or None.
        detected_at: when it was seen finished, or None.
    """

    # A full round of Python's garbage collector holds the event loop up and looks at every object that is tracked, of
    # which there may be a hundred thousand jobs. A struct is not tracked before something is assigned to it that a
    # circle may lead through. Kind, status and private are the fields that every job has of that sort, and they are put
    # in their places without that (`_put_kind` and so on); no circle closes through the last two, nor through the kind
    # unless its client keeps the job. So the collector passes over a job as long as it only waits. From its first
    # waiter, or its end, or the end of its watching on, it is tracked and looked through like anything else.
    # The price is the one that `scheduler.Entry` names, for purchases under way as well as for jobs being watched.

    key: str
    id: str | None
    model: str | None
    requested: int
    submitted_at: float
    may_be_billed: bool  # its request may have been taken by the provider
    kind: JobKind[T] = cast("JobKind[T]", None)  # `new_job` puts it in its place at once
    status: JobStatus = cast("JobStatus", None)  # likewise
    progress: float | None = None
    polls: int = 0
    running_at: float | None = None
    detected_at: float | None = None
    ticket: Any = None  # the waker's own note about this job
    buying: WaitedFor = "job"  # what its purchase waits for
    # The caller's own words, such as the prompt, that the provider may repeat; empty where they are not known. Kept
    # by reference, as whoever asks for a picture mostly keeps them anyway.
    private: tuple[str, ...] = ()
    taken: bool = False  # a waiter has been given the outcome
    version: int = 0  # counts changes, so that a reader of updates sees whether it missed one
    claimed: bool = False  # its end is known and its result on the way to the waiters
    _outcome: tuple[T | None, MirageError | None] | None = None
    _stopped: MirageError | None = None
    _waiters: Sleepers = None  # for the end
    _readers: Sleepers = None  # for any change

    @property
    def provider(self) -> str:
        """The provider's name."""
        return self.kind.provider

    @property
    def done(self) -> bool:
        """Whether awaiting it returns or raises at once: it ended, or its purchase is uncertain."""
        return self._outcome is not None

    @property
    def stopped(self) -> MirageError | None:
        """Why nobody watches it any more although it is not done, or None."""
        return None if self._outcome is not None else self._stopped

    @property
    def ending(self) -> tuple[T | None, MirageError | None] | None:
        """The result or the error it ended with, looked at without being taken; None while it is not done."""
        return self._outcome

    @property
    def update(self) -> JobUpdate:
        """The state right now."""
        return JobUpdate(
            status=self.status,
            progress=self.progress,
            elapsed=self.kind.clock.monotonic() - self.submitted_at,
            polls=self.polls,
        )

    def token(self) -> str:
        """Return JSON text that attaches to this job from anywhere: `client.job(token)`.

        Raises:
            InputError: the provider gave the job no id, so nobody can ask for it again.
        """
        if self.id is None:
            msg = f"a token needs the provider's id, and this {self.provider} job has none"
            raise InputError(msg, provider=self.provider)
        return Token(provider=self.provider, kind=self.kind.name, id=self.id, key=self.key, model=self.model).text()

    def token_or_none(self) -> str | None:
        """Return the token, or None for a job without an id."""
        return None if self.id is None else self.token()

    def __await__(self) -> Generator[Any, None, T]:
        """Wait for the result; see `result`."""
        return cast("Generator[Any, None, T]", _Wait(self))

    async def result(self, *, max_wait: float | None = None) -> T:
        """Wait for the result and return it.

        Cancelling this wait leaves the job and its other waiters alone.

        Args:
            max_wait: seconds this call waits at most. A number also extends the watching of a job with an id, or
                starts it afresh where it had stopped; the provider is asked now, and once more shortly before the end.
                None waits as long as the job is being watched.

        Raises:
            JobError: the provider gave up, or (`WaitTimeoutError`) the wait is over and the job lives on.
            SubmissionUncertainError: nobody can say whether the job was bought.
            APIError: the purchase was refused, or the provider refuses to be asked about the job.
            ClosedError: the client was closed meanwhile.
            ConfigurationError: the job is not done, and its client belongs to another event loop.
            InputError: `max_wait` is not a positive number of seconds.
        """
        if max_wait is None:
            return await self
        deadline = self._extend(checked_wait(max_wait))
        span = last_look_time(max_wait)
        wakes_at = deadline - span * random.uniform(0.5, 1.0)
        while not self._over():
            now = self.kind.clock.monotonic()
            if now >= deadline:
                raise self.wait_timeout(self._waits_for(), max_wait)
            if now >= wakes_at:
                wakes_at = deadline
                self.kind.waker.look_before(self, deadline, deadline - span)
            sleeper = self._sleeper()
            timer = self.kind.clock.call_at(wakes_at, partial(wake, sleeper))
            try:
                await sleeper
            finally:
                timer.cancel()
                self._waiters = left(self._waiters, sleeper)
        return self._taken()

    def _over(self) -> bool:
        """Whether there is something to tell a waiter; raises what stopped the watching."""
        if self._outcome is None and self._stopped is not None:
            raise copy.copy(self._stopped)
        return self._outcome is not None

    def _taken(self) -> T:
        """Hand the outcome over to a waiter; there must be one."""
        assert self._outcome is not None  # noqa: S101 - says so to the type checker
        value, error = self._outcome
        self.hand_over()
        if error is not None:
            raise copy.copy(error)
        return value  # type: ignore[return-value]  # an outcome without error has a value

    def _sleeper(self) -> Sleeper:
        """Return a new future that ends with the job or its watching."""
        self.kind.check_loop()
        sleeper: Sleeper = asyncio.get_running_loop().create_future()
        self._waiters = joined(self._waiters, sleeper)
        return sleeper

    async def updates(self) -> AsyncIterator[JobUpdate]:
        """Tell the current state first, then every later one, and end after the one that ends the job.

        States that follow each other faster than the reader reads are merged into the newest. A failed job ends the
        iteration without raising.

        Raises:
            WaitTimeoutError: the wait for the job is over; likewise `ClosedError` and whatever else stops the watching.
            ConfigurationError: the job is not done, and its client belongs to another event loop.
        """
        while True:
            seen = self.version
            done, stopped = self.done, self.stopped
            yield self.update
            if done:
                return
            if stopped is not None:
                raise copy.copy(stopped)
            while self.version == seen:
                self.kind.check_loop()
                reader: Sleeper = asyncio.get_running_loop().create_future()
                self._readers = joined(self._readers, reader)
                try:
                    await reader
                finally:
                    self._readers = left(self._readers, reader)

    def _extend(self, wait: float) -> float:
        """Watch for `wait` seconds from now and return the moment that ends; a finished job needs no watching."""
        deadline = self.kind.clock.monotonic() + wait
        if self._outcome is None and self.id is not None and not isinstance(self._stopped, ClosedError):
            self.kind.check_loop()
            self._stopped = None
            if not self.claimed:
                self.kind.waker.watch(self, deadline, at_once=True)
        return deadline

    def _waits_for(self) -> WaitedFor:
        return self.kind.waker.waits_for(self) if self.id is not None else self.buying

    def _changed(self) -> None:
        self.version += 1
        if self._readers is not None:
            readers, self._readers = self._readers, None
            wake_all(readers)

    def _rouse(self) -> None:
        waiters, self._waiters = self._waiters, None
        wake_all(waiters)

    # What follows is called by the library only.

    def hand_over(self) -> None:
        """Note that somebody has been given the outcome; the first time is enough."""
        if self.taken:
            return
        self.taken = True
        try:
            self.kind.recorder.handed_over(self)
        except Exception:
            _logger.exception("the hand-over of %r is not recorded", self)

    def keep_private(self, words: tuple[str, ...]) -> None:
        """Note the caller's own words, which the provider may repeat and no error is to tell."""
        _put_private(self, words)

    def attach(self, max_wait: float | None) -> None:
        """Have a job with an id watched, beginning with a status call now."""
        wait = self.kind.pace.max_wait if max_wait is None else checked_wait(max_wait)
        self.kind.waker.watch(self, self.kind.clock.monotonic() + wait, at_once=True)

    def move(self, status: JobStatus) -> None:
        """Change the status by the table; the same status is no move."""
        if status is self.status:
            return
        check_move(self.status, status)
        _put_status(self, status)
        if status is JobStatus.RUNNING and self.running_at is None:
            self.running_at = self.kind.clock.monotonic()
        self._changed()

    def advance(self, progress: float | None) -> None:
        """Note how far the provider says it is; a value that went down is noted as well."""
        if progress is not None and progress != self.progress:
            self.progress = progress
            self._changed()

    def stir(self) -> None:
        """Have those who read the updates look again, although nothing that they are told has changed."""
        self._changed()

    def claim(self) -> bool:
        """Take the right to settle the job; False for everyone but the first."""
        if self.claimed:
            return False
        self.claimed = True
        self.detected_at = self.kind.clock.monotonic()
        return True

    def resolve(self, status: JobStatus, value: T | None, error: MirageError | None) -> None:
        """End the job for its waiters; the caller holds the claim."""
        if status is not self.status:
            check_move(self.status, status)
            self.status = status
        if status is JobStatus.SUCCEEDED and self.progress is not None:
            self.progress = 1.0
        self._outcome = (value, error)
        self._changed()
        self._rouse()
        self.kind.ended(self)

    def amend(self, value: T | None, error: MirageError | None) -> None:
        """Put another result or error in place of the one it has ended or stopped with, as one that tells more."""
        if self._outcome is not None:
            self._outcome = (value, error)
        else:
            self._stopped = error

    def stop(self, error: MirageError) -> None:
        """Tell the waiters that nobody watches the job any more; the status stays and it can be watched again."""
        if self._outcome is None:
            self._stopped = error
            self._changed()
            self._rouse()
            self.kind.ended(self)

    def give_back(self, error: MirageError) -> None:
        """Give the claim back and stop: handing the result over was cut short, and it can be asked for anew."""
        self.claimed = False
        self.stop(error)

    def wait_timeout(self, waited_for: WaitedFor = "job", waited: float | None = None) -> WaitTimeoutError:
        """Build the error for a wait that is over, after `waited` seconds or else since the submit."""
        waited = self.kind.clock.monotonic() - self.submitted_at if waited is None else waited
        if self.id is not None:
            rest = "lives on: attach with its token"
        elif self.may_be_billed:
            rest = "has no id to attach to: keep the handle"
        else:
            rest = "was not sent"
        return WaitTimeoutError(
            f"{_WAITS[waited_for]} after {waited:.1f} s; "
            f"the {self.provider} job {self.id or self.key} is {self.status.value} and {rest}",
            provider=self.provider,
            job_id=self.id,
            token=self.token_or_none(),
            billed="yes" if self.id is not None else "unknown" if self.may_be_billed else "no",
            waited_for=waited_for,
        )

    def closed_error(self) -> ClosedError:
        """Build the error for a job whose client was closed before its end."""
        state = "was being bought" if self.id is None else f"was {self.status.value}"
        return ClosedError(
            f"the client was closed while the {self.provider} job {self.id or self.key} {state}",
            provider=self.provider,
            token=self.token_or_none(),
            billed="yes" if self.id is not None else "unknown" if self.may_be_billed else "no",
        )

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Say what `repr` says; a struct would tell everything, the prompt included."""
        return [("provider", self.provider), ("kind", self.kind.name), ("id", self.id), ("status", self.status)]

    def __repr__(self) -> str:
        progress = "" if self.progress is None else f" {self.progress:.0%}"
        return f"<Job {self.provider} {self.kind.name} {self.id or self.key} {self.status.value}{progress}>"


# A field's own descriptor sets it, and no more; see the top of `Job`.
_put_kind: Callable[[Job[Any], JobKind[Any]], None] = cast("Any", Job).kind.__set__
_put_status: Callable[[Job[Any], JobStatus], None] = cast("Any", Job).status.__set__
_put_private: Callable[[Job[Any], tuple[str, ...]], None] = cast("Any", Job).private.__set__


def new_job(
    kind: JobKind[T],
    *,
    key: str | None = None,
    id: str | None = None,  # noqa: A002 - the attribute it sets is called that
    model: str | None = None,
    requested: int = 1,
    status: JobStatus = JobStatus.SUBMITTING,
) -> Job[T]:
    """Return a job that begins now."""
    key = new_key() if key is None else key
    job: Job[T] = Job(key, id, model, requested, kind.clock.monotonic(), id is not None)
    _put_kind(job, kind)
    _put_status(job, status)
    return job


async def ended_well(job: Job[T]) -> T:
    """Wait until a job is done and return its result without taking it; raises a copy of the error it ended with."""
    async for _ in job.updates():
        pass
    assert job.ending is not None  # noqa: S101 - updates() ends with the job; says so to the type checker
    value, error = job.ending
    if error is not None:
        raise copy.copy(error)
    assert value is not None  # noqa: S101 - an ending without error has a value
    return value


def new_key() -> str:
    """Return a key for a job: 32 hexadecimal digits, the seconds since the epoch in eight, and 24 random ones.

    So keys made at about the same time are neighbours in the index of a journal, and what is written at about the same
    time is written in one place: with 300,000 purchases in it, that takes half the CPU that random keys take.
    """
    return f"{int(time.time()):08x}{secrets.token_hex(12)}"


def checked_wait(seconds: float) -> float:
    """Return a wait in seconds, or raise `InputError` unless it is above 0 and at most 30 days."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= LONGEST_WAIT:
        msg = f"max_wait must be above 0 and at most {LONGEST_WAIT:.0f} seconds; got {seconds!r}"
        raise InputError(msg)
    return float(seconds)


def last_look_time(wait: float) -> float:
    """Return how many seconds before the end of a wait of so many seconds the time for its last look begins."""
    return min(LAST_LOOK, _LAST_LOOK_SHARE * wait)


class _Wait(Iterator[object]):
    """One `await job`. A coroutine would do the same in five times the memory, and there may be a hundred thousand."""

    __slots__ = ("_job", "_sleeper")

    def __init__(self, job: Job[Any]) -> None:
        self._job = job
        self._sleeper: Sleeper | None = None

    def __next__(self) -> object:
        job = self._job
        if job._over():  # noqa: SLF001 - a part of the job in a place of its own
            raise StopIteration(job._taken())  # noqa: SLF001
        self._sleeper = job._sleeper()  # noqa: SLF001
        return next(self._sleeper.__await__())

    def throw(self, kind: Any, error: BaseException | None = None, trace: object = None) -> NoReturn:  # noqa: ARG002
        """Leave, because the waiter was cancelled; a generator takes the same parameters, the last of no use."""
        self.close()
        raise kind if error is None else error

    def close(self) -> None:
        """Leave, because the waiter is given up without a word, as when its event loop is gone."""
        if self._sleeper is not None:
            self._job._waiters = left(self._job._waiters, self._sleeper)  # noqa: SLF001
