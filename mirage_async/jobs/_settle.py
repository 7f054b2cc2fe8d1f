"""How a job moves: accepted, noted, concluded, refused. Every path, poll or webhook or purchase, ends here.

Settling is claimed synchronously, so that of two paths which learn of the end in the same moment exactly one goes on;
then it is recorded; then the waiters get it. A recorder that fails at this point is logged and withholds nothing.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, TypeVar

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
from mirage_async.jobs._kind import NullRecorder
from mirage_async.models import JobStatus

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mirage_async.jobs._job import Job
    from mirage_async.wire import Report, Submitted

__all__ = ["accept", "conclude", "is_at_hand", "is_dubious", "note", "refuse"]

T = TypeVar("T")

_logger = logging.getLogger("mirage_async.jobs")

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
        await _record(job, "the provider's id", partial(recorder.accepted, job))
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


def is_at_hand(job: Job[T], report: Report) -> bool:
    """Whether concluding will wait for nothing: there is nothing to fetch, and nothing to write."""
    return not report.temporary and type(job.kind.recorder) is NullRecorder


async def conclude(job: Job[T], report: Report) -> None:
    """Settle a job whose report is terminal; the caller has claimed it with `job.claim()`."""
    assert report.status is not None  # noqa: S101 - a terminal report has a status; says so to the type checker
    status = report.status
    value: T | None = None
    error: MirageError | None = None
    if is_hollow(report):
        status = JobStatus.FAILED
        error = _job_error(job, JobFailedError, f"is finished without a usable result: {report.reason or 'none given'}")
        error.billed = "yes"
    elif status is JobStatus.SUCCEEDED:
        try:
            value = await job.kind.redeem(job, report)
        except MirageError as raised:
            error = raised
        except Exception as raised:
            _logger.exception("the result of %r could not be read", job)
            error = ResponseError(
                f"the result of the {job.provider} job {job.id or job.key} could not be read: {type(raised).__name__}",
                provider=job.provider,
                billed="yes",
            )
    else:
        kind, words = _ENDINGS[status]
        error = _job_error(job, kind, f"{words}: {report.reason or 'the provider gives no reason'}")
    recorder = job.kind.recorder
    if type(recorder) is not NullRecorder:
        await _record(job, "the outcome", partial(recorder.settled, job, error if value is None else value))
    job.resolve(status, value, error)


async def refuse(job: Job[T], error: MirageError) -> None:
    """Settle a job that was not bought, or of which nobody can say whether it was."""
    if job.claim():
        if not (isinstance(error, WaitTimeoutError) and error.waited_for == "journal"):  # which would not answer now
            await _record(job, "the refusal", partial(job.kind.recorder.settled, job, error))
        uncertain = isinstance(error, SubmissionUncertainError)
        job.resolve(JobStatus.UNCERTAIN if uncertain else JobStatus.FAILED, None, error)


def _job_error(job: Job[T], kind: type[JobError], words: str) -> JobError:
    return kind(
        f"the {job.provider} job {job.id or job.key} {words}",
        provider=job.provider,
        job_id=job.id,
        token=job.token_or_none(),
    )


async def _record(job: Job[T], what: str, write: Callable[[], Awaitable[None]]) -> None:
    try:
        await write()
    except Exception:
        # Everything needed to find the job again by hand stands in this one line.
        _logger.critical("%s of %r (key %s, id %s) is not recorded", what, job, job.key, job.id, exc_info=True)
