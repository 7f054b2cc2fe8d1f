"""What the garbage collector sees of a job: nothing while it only waits, all once a circle may lead through it."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from mirage_async.exceptions import JobFailedError, SubmissionUncertainError, WaitTimeoutError
from mirage_async.jobs import Job, JobKind, NullRecorder, new_job
from mirage_async.models import JobStatus, Pace
from mirage_async.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable

    from mirage_async.exceptions import WaitedFor

pytestmark = pytest.mark.anyio


class Idle:
    """Watches nothing."""

    def watch(self, job: Job[Any], deadline: float, *, at_once: bool = False) -> None:
        """Do nothing."""

    def look_before(self, job: Job[Any], end: float, since: float) -> None:
        """Do nothing."""

    def wake(self, job: Job[Any]) -> None:
        """Do nothing."""

    def forget(self, job: Job[Any]) -> None:
        """Do nothing."""

    def waits_for(self, job: Job[Any]) -> WaitedFor:  # noqa: ARG002 - the port's signature
        """Say that the job waits for its end."""
        return "job"


class Owner:
    """Makes jobs and can keep them, as a client does; the kind of the jobs leads back to it."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.kept: list[Job[str]] = []
        unused: Any = None
        self.kind: JobKind[str] = JobKind(
            provider="mirako",
            name="image",
            pace=Pace(first=1, interval=2, maximum=8, max_wait=100),
            clock=self.clock,
            recorder=NullRecorder(),
            waker=Idle(),
            look=unused,
            redeem=unused,
            ended=self.ended,
            account=None,
        )

    def ended(self, job: Job[str]) -> None:
        """Nobody here wants to know."""

    def job(self) -> Job[str]:
        """Make a job as it is after an answer to its purchase, with a prompt made for it alone."""
        job = new_job(self.kind, model="m")
        job.keep_private(("a fox", job.key))
        job.id = "j1"
        job.move(JobStatus.QUEUED)
        return job


def succeed(job: Job[str]) -> None:
    """End the job well."""
    assert job.claim()
    job.resolve(JobStatus.SUCCEEDED, "picture", None)


def fail(job: Job[str]) -> None:
    """End the job with an error whose traceback leads back to it."""
    assert job.claim()
    try:
        raise JobFailedError("no", provider="mirako")  # noqa: TRY301 - it is to have a traceback
    except JobFailedError as error:
        job.resolve(JobStatus.FAILED, None, error)


def stay_uncertain(job: Job[str]) -> None:
    """End the purchase of the job without anybody knowing how, with an error that has another one as its cause."""
    assert job.claim()
    try:
        try:
            raise OSError(job)  # noqa: TRY301 - same
        except OSError as cause:
            raise SubmissionUncertainError("who knows", provider="mirako", key=job.key) from cause
    except SubmissionUncertainError as error:
        job.status = JobStatus.SUBMITTING
        job.resolve(JobStatus.UNCERTAIN, None, error)


def stop(job: Job[str]) -> None:
    """End the watching of the job, but not the job."""
    try:
        raise job.wait_timeout()
    except WaitTimeoutError as error:
        job.stop(error)


def give_back(job: Job[str]) -> None:
    """Cut short the handing over of the result."""
    assert job.claim()
    job.give_back(job.closed_error())


ENDS = [succeed, fail, stay_uncertain, stop, give_back]


def test_a_job_that_only_waits_is_passed_over() -> None:
    """Whatever the provider says meanwhile; a hundred thousand of them must not hold the event loop up."""
    owner = Owner()
    job = new_job(owner.kind)
    assert not gc.is_tracked(job)
    job = owner.job()
    job.move(JobStatus.RUNNING)
    job.advance(0.5)
    job.stir()
    job.polls += 1
    job.ticket = 7
    assert not gc.is_tracked(job)


@pytest.mark.parametrize("end", ENDS)
def test_a_job_that_has_ended_or_stopped_is_looked_through(end: Callable[[Job[str]], None]) -> None:
    """Its error has a traceback, and that may lead anywhere."""
    job = Owner().job()
    end(job)
    assert gc.is_tracked(job)
    assert job.kind in gc.get_referents(job)


async def test_a_job_with_a_waiter_or_a_reader_is_looked_through() -> None:
    """Their futures lead to tasks, and those may lead anywhere."""
    owner = Owner()
    awaited, bounded, read = owner.job(), owner.job(), owner.job()
    updates = read.updates()
    await anext(updates)
    waits = [asyncio.ensure_future(wait) for wait in (awaited.result(), bounded.result(max_wait=9), anext(updates))]
    assert not any(map(gc.is_tracked, (awaited, bounded, read)))
    await owner.clock.advance(0)
    assert all(map(gc.is_tracked, (awaited, bounded, read)))
    for wait in waits:
        wait.cancel()
    await asyncio.gather(*waits, return_exceptions=True)


@pytest.mark.parametrize("end", ENDS)
def test_an_owner_that_keeps_ended_jobs_is_collected_with_them(end: Callable[[Job[str]], None]) -> None:
    """The circle from the owner to the job, its kind and back is seen once the job has ended or stopped."""
    owner = Owner()
    owner.kept += [owner.job() for _ in range(100)]
    for job in owner.kept:
        end(job)
    gone = weakref.ref(owner), weakref.ref(owner.kept[0])
    del owner, job
    gc.collect()
    assert [one() for one in gone] == [None, None]


@pytest.mark.parametrize("end", [None, succeed])
def test_a_dropped_job_is_gone_without_a_collection(end: Callable[[Job[str]], None] | None) -> None:
    """Waiting or ended well: nothing of it waits for the collector."""
    job = Owner().job()
    if end is not None:
        end(job)
    gone = weakref.ref(job)
    gc.disable()
    try:
        del job
        assert gone() is None
    finally:
        gc.enable()


def test_jobs_whose_event_loop_is_gone_are_collected() -> None:
    """A loop that was closed with tasks in it, which nobody cancelled, keeps neither them nor what they waited for."""
    loop = asyncio.new_event_loop()
    owner = Owner()
    owner.kept.append(owner.job())
    gone = weakref.ref(owner.kept[0])
    waiting = loop.create_task(owner.kept[0].result())
    loop.run_until_complete(asyncio.sleep(0))
    waiting._log_destroy_pending = False  # type: ignore[attr-defined]  # that is the point
    loop.close()
    del loop, waiting, owner
    gc.collect()
    assert gone() is None


def test_a_job_tells_no_more_than_its_repr() -> None:
    """It is a struct inside, which would show its prompt to `rich`, and compares by itself only."""
    owner = Owner()
    job, twin = owner.job(), owner.job()
    assert job.__rich_repr__() == [
        ("provider", "mirako"),
        ("kind", "image"),
        ("id", "j1"),
        ("status", JobStatus.QUEUED),
    ]
    assert job != twin
    assert len({job, twin}) == 2
