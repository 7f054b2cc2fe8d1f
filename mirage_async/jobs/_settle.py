"""How a job moves: accepted, noted, concluded, refused. Every path, poll or webhook or purchase, ends here.

Settling is claimed synchronously, so that of two paths which learn of the end in the same moment exactly one goes on;
then it is recorded; then the waiters get it. A recorder that fails at this point is logged and withholds nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from contextvars import Context
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from mirage_async.exceptions import (
    JobCancelledError,
    JobError,
    JobExpiredError,
    JobFailedError,
    MirageError,
    ResponseError,
    SubmissionUncertainError,
    WaitTimeoutError,
)
from mirage_async.jobs._job import Job
from mirage_async.jobs._kind import NullRecorder
from mirage_async.models import JobStatus

if TYPE_CHECKING:
    from mirage_async.wire import Report, Submitted

__all__ = ["accept", "begin_to_conclude", "conclude", "is_dubious", "note", "part_from", "refuse"]

T = TypeVar("T")

_logger = logging.getLogger("mirage_async.jobs")

# Everything needed to find the job again by hand stands in this one line.
_NOT_RECORDED = "%s of %r (key %s, id %s) is not recorded"

_ENDINGS: dict[JobStatus, tuple[type[JobError], str]] = {
    JobStatus.FAILED: (JobFailedError, "failed"),
    JobStatus.CANCELLED: (JobCancelledError, "was cancelled"),
    JobStatus.EXPIRED: (JobExpiredError, "ran into the provider's own time limit"),
}


async def accept(job: Job[T], submitted: Submitted, deadline: float) -> Report | None:
    """Give the job the provider's id, record it, and have it watched until `deadline` (monotonic seconds).

    Returns:
        The report of a job that was finished when it was announced, claimed and for the caller to `conclude`; None
        for all others.
    """
    job.id = submitted.id
    recorder = job.kind.recorder
    if type(recorder) is not NullRecorder:  # whose answer needs no waiting for
        try:
            await recorder.accepted(job)
        except Exception:
            _logger.critical(_NOT_RECORDED, "the provider's id", job, job.key, job.id, exc_info=True)
    report = submitted.report
    if report is not None and report.status is not None and report.status.terminal and not is_dubious(report):
        return report if job.claim() else None
    job.move(JobStatus.QUEUED)
    if report is not None:
        note(job, report)
    hinted = job.kind.hints.accepted(job, deadline)
    job.kind.waker.watch(job, deadline)
    if hinted:  # somebody said that it has ended before the provider's answer to the purchase was here
        job.kind.waker.wake(job)
    return None


def note(job: Job[T], report: Report) -> None:
    """Take over the state of an unfinished job; a status that would go backwards is not believed."""
    if report.status is JobStatus.RUNNING and job.status is not JobStatus.RUNNING:
        job.move(JobStatus.RUNNING)
    if report.progress is not None:
        job.advance(report.progress)


def is_hollow(report: Report) -> bool:
    """Whether the provider claims success without anything to show for it."""
    return report.status is JobStatus.SUCCEEDED and not report.pieces and report.avatar is None


def is_dubious(report: Report) -> bool:
    """Whether asking again might bring a better answer: success with nothing to show, or with a picture cut short."""
    for piece in report.pieces:
        if piece.flaw is not None:
            return True
    return is_hollow(report)


async def conclude(job: Job[T], report: Report) -> None:
    """Settle a job whose report is terminal; the caller has claimed it with `job.claim()`."""
    recorded = await begin_to_conclude(job, report)
    if recorded is not None:
        with contextlib.suppress(Exception):  # what the recorder raises is logged already
            await recorded


async def begin_to_conclude(
    job: Job[T], report: Report, then: Callable[[Job[T], asyncio.Future[None]], object] | None = None
) -> asyncio.Future[None] | None:
    """Do as `conclude` does, but return while the outcome is being recorded.

    Args:
        job: it.
        report: what the provider says.
        then: called when that has ended, one way or the other.

    Returns:
        What ends once the outcome is recorded. The waiters get it then, unless that is cancelled. None where there is
        no waiting for a record: they have it, and `then` is not called.
    """
    status, value, error = await _ending(job, report)
    recorder = job.kind.recorder
    if type(recorder) is NullRecorder:
        job.resolve(status, value, error)
        return None
    try:
        settled = recorder.settled(job, error if value is None else value)
        recorded = settled if isinstance(settled, asyncio.Future) else asyncio.ensure_future(settled)
    except Exception:
        _logger.critical(_NOT_RECORDED, "the outcome", job, job.key, job.id, exc_info=True)
        job.resolve(status, value, error)
        return None
    end = _Recorded(job, status, value, error, then)
    if recorded.done() and not recorded.cancelled():  # as where the journal is closed
        end.hand_over(recorded)
        return None
    recorded.add_done_callback(end, context=Context())  # a copy of ours would keep the last request's as long
    return recorded


class _Recorded(msgspec.Struct, gc=False):
    """What happens once an outcome is recorded. It waits without a task: there may be thousands at a time."""

    job: Job[Any]
    status: JobStatus
    value: object
    error: MirageError | None
    then: Callable[[Job[Any], asyncio.Future[None]], object] | None

    def __call__(self, recorded: asyncio.Future[None]) -> None:
        """Hand the outcome to those who wait, unless the record was given up."""
        try:
            if not recorded.cancelled():
                self.hand_over(recorded)
        finally:
            if self.then is not None:
                self.then(self.job, recorded)

    def hand_over(self, recorded: asyncio.Future[None]) -> None:
        """Hand the outcome to those who wait, also where recording has failed, and where that cannot be logged."""
        job = self.job
        try:
            if (failed := recorded.exception()) is not None:
                _logger.critical(_NOT_RECORDED, "the outcome", job, job.key, job.id, exc_info=failed)
        finally:
            job.resolve(self.status, self.value, self.error)


def part_from(job: Job[Any], *, closed: bool) -> None:
    """Do no more about a job that was being concluded; where something kept the outcome from its waiters, say so.

    Args:
        job: it.
        closed: everything closes, and the grace is over.
    """
    if job.done:
        return
    if closed:
        job.stop(job.closed_error())
    else:
        message = f"the result of the {job.provider} job {job.id} was not handed over; wait for it anew"
        job.give_back(ResponseError(message, provider=job.provider, billed="yes"))


async def _ending(job: Job[Any], report: Report) -> tuple[JobStatus, Any, MirageError | None]:
    """Return how a job ends whose report is terminal."""
    status = report.status
    assert status is not None  # noqa: S101 - a terminal report has a status; says so to the type checker
    if is_hollow(report):
        error = _job_error(job, JobFailedError, f"is finished without a usable result: {report.reason or 'none given'}")
        error.billed = "yes"
        return JobStatus.FAILED, None, error
    if status is not JobStatus.SUCCEEDED:
        kind, words = _ENDINGS[status]
        return status, None, _job_error(job, kind, f"{words}: {report.reason or 'the provider gives no reason'}")
    try:
        return status, await job.kind.redeem(job, report), None
    except MirageError as raised:
        return status, None, raised
    except Exception as raised:
        _logger.exception("the result of %r could not be read", job)
        words = f"could not be read: {type(raised).__name__}"
        message = f"the result of the {job.provider} job {job.id or job.key} {words}"
        return status, None, ResponseError(message, provider=job.provider, billed="yes")


async def refuse(job: Job[T], error: MirageError) -> None:
    """Settle a job that was not bought, or of which nobody can say whether it was."""
    if job.claim():
        if not (isinstance(error, WaitTimeoutError) and error.waited_for == "journal"):  # which would not answer now
            try:
                await job.kind.recorder.settled(job, error)
            except Exception:
                _logger.critical(_NOT_RECORDED, "the refusal", job, job.key, job.id, exc_info=True)
        uncertain = isinstance(error, SubmissionUncertainError)
        job.resolve(JobStatus.UNCERTAIN if uncertain else JobStatus.FAILED, None, error)


def _job_error(job: Job[T], kind: type[JobError], words: str) -> JobError:
    return kind(
        f"the {job.provider} job {job.id or job.key} {words}",
        provider=job.provider,
        job_id=job.id,
        token=job.token_or_none(),
    )
