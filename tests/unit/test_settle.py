"""How a job moves: accepted, noted, concluded, refused, and what is recorded in which order."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import anyio
import pytest

from mirage_async.exceptions import (
    BadRequestError,
    DownloadError,
    JobCancelledError,
    JobExpiredError,
    JobFailedError,
    MirageError,
    ResponseError,
    SubmissionUncertainError,
)
from mirage_async.jobs import Job, JobKind, accept, conclude, is_dubious, new_job, note, refuse
from mirage_async.models import Avatar, JobStatus, Pace
from mirage_async.testing import FakeClock
from mirage_async.wire import Piece, Report, Submitted

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from mirage_async.exceptions import WaitedFor
    from mirage_async.jobs import Intent

pytestmark = pytest.mark.anyio

T = TypeVar("T")

DONE = Report(status=JobStatus.SUCCEEDED, pieces=(Piece(url="https://a.example/x.png"),))
HOLLOW = Report(status=JobStatus.SUCCEEDED, reason="the answer has no link to the picture")


async def soon(work: Awaitable[T]) -> T:
    """Await something that must not take long."""
    with anyio.fail_after(30):
        return await work


class Diary:
    """Recorder, waker and redeemer in one, writing down who was called when."""

    def __init__(self) -> None:
        self.entries: list[str] = []
        self.outcomes: list[object] = []
        self.broken = False
        self.redeemed: str | Exception = "picture"

    def _write(self, entry: str) -> None:
        self.entries.append(entry)
        if self.broken:
            msg = "the disk is full"
            raise OSError(msg)

    async def intended(self, job: Job[Any], intent: Intent) -> None:  # noqa: ARG002 - the port's signature
        """Write it down."""
        self._write("intended")

    async def withdrawn(self, job: Job[Any]) -> None:
        """Forget the refusal."""

    async def accepted(self, job: Job[Any]) -> None:
        """Write it down, with the id that must be known by now."""
        await asyncio.sleep(0)
        self._write(f"accepted {job.id} {job.status.value}")

    async def settled(self, job: Job[Any], outcome: object) -> None:
        """Write it down; the waiters must not know yet."""
        await asyncio.sleep(0)
        self.outcomes.append(outcome)
        self._write(f"settled, done={job.done}")

    def handed_over(self, job: Job[Any]) -> None:  # noqa: ARG002 - the port's signature
        """Write it down."""
        self.entries.append("handed over")

    def watch(self, job: Job[Any], deadline: float, *, at_once: bool = False) -> None:
        """Write it down."""
        self.entries.append(f"watch {deadline:g} {at_once} {job.status.value}")

    def look_before(self, job: Job[Any], end: float, since: float) -> None:
        """Do nothing."""

    def wake(self, job: Job[Any]) -> None:
        """Nobody gives hints here."""

    def forget(self, job: Job[Any]) -> None:
        """Nobody forgets here."""

    def waits_for(self, job: Job[Any]) -> WaitedFor:  # noqa: ARG002 - the port's signature
        """Nobody is kept waiting here."""
        return "job"

    async def look(self, job: Job[str]) -> Report:
        """Nobody asks here."""
        raise NotImplementedError

    async def redeem(self, job: Job[str], report: Report) -> str:  # noqa: ARG002 - the kind's signature
        """Write it down and give what was prepared."""
        self.entries.append("redeem")
        if isinstance(self.redeemed, Exception):
            raise self.redeemed
        return self.redeemed

    def job(self, **options: Any) -> Job[str]:
        """Make a job that has just been submitted, unless told otherwise."""
        kind: JobKind[str] = JobKind(
            provider="miragic",
            name="image",
            pace=Pace(first=1, interval=2, maximum=8, max_wait=100),
            clock=FakeClock(),
            recorder=self,
            waker=self,
            look=self.look,
            redeem=self.redeem,
            ended=lambda job: self.entries.append(f"ended {job.status.value}"),
            account=None,
        )
        return new_job(kind, **options)


@pytest.fixture
def diary() -> Diary:
    """Return an empty diary."""
    return Diary()


def criticals(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the critical log lines."""
    return [record.getMessage() for record in caplog.records if record.levelno == logging.CRITICAL]


# --- accepted ---


async def test_an_accepted_job_is_recorded_before_anybody_asks_about_it(diary: Diary) -> None:
    """The provider's id is durable before the first status call can be made."""
    job = diary.job()
    await soon(accept(job, Submitted(id="j1"), 60))
    assert diary.entries == ["accepted j1 submitting", "watch 60 False queued"]
    assert (job.id, job.status) == ("j1", JobStatus.QUEUED)


async def test_the_state_announced_with_the_id_is_taken_over(diary: Diary) -> None:
    """A provider that accepts and already works says so once."""
    job = diary.job()
    await soon(accept(job, Submitted(id="j1", report=Report(status=JobStatus.RUNNING, progress=0.2)), 60))
    assert (job.status, job.progress) == (JobStatus.RUNNING, 0.2)


async def test_a_result_that_comes_with_the_id_needs_no_status_call(diary: Diary) -> None:
    """An acceptance that is the result already is claimed and handed back, to be concluded without watching."""
    job = diary.job()
    finished = await soon(accept(job, Submitted(id="j1", report=DONE), 60))
    assert finished is DONE
    assert diary.entries == ["accepted j1 submitting"]
    await soon(conclude(job, finished))
    assert diary.entries == ["accepted j1 submitting", "redeem", "settled, done=False", "ended succeeded"]
    assert await soon(job) == "picture"
    assert diary.entries[-1] == "handed over"


async def test_a_hollow_success_with_the_id_is_asked_about(diary: Diary) -> None:
    """Success with nothing to show for it is not believed at once."""
    job = diary.job()
    await soon(accept(job, Submitted(id="j1", report=HOLLOW), 60))
    assert diary.entries == ["accepted j1 submitting", "watch 60 False queued"]
    assert not job.done


async def test_a_result_that_somebody_else_settles_is_left_to_them(diary: Diary) -> None:
    """The claim decides also when the result comes with the id."""
    job = diary.job()
    job.claim()
    assert await soon(accept(job, Submitted(id="j1", report=DONE), 60)) is None
    assert diary.entries == ["accepted j1 submitting"]
    assert not job.done


async def test_an_id_that_cannot_be_recorded_is_logged_and_the_job_goes_on(
    diary: Diary, caplog: pytest.LogCaptureFixture
) -> None:
    """A broken recorder does not lose an accepted job: one critical line holds all that finds it again."""
    diary.broken = True
    job = diary.job()
    await soon(accept(job, Submitted(id="j1"), 60))
    assert diary.entries[-1] == "watch 60 False queued"
    (line,) = criticals(caplog)
    assert "the provider's id" in line
    assert "j1" in line
    assert job.key in line


@pytest.mark.parametrize("call", ["accepted", "settled"])
async def test_a_recorder_that_raises_before_anything_is_awaited_withholds_nothing_either(
    diary: Diary, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Its methods need not be coroutines."""

    def refuse_at_once(*_: object) -> NoReturn:
        msg = "not even begun"
        raise OSError(msg)

    monkeypatch.setattr(diary, call, refuse_at_once)
    job = diary.job()
    finished = await soon(accept(job, Submitted(id="j1", report=DONE), 60))
    assert finished is DONE
    await soon(conclude(job, finished))
    assert await soon(job.result()) == "picture"
    assert len(criticals(caplog)) == 1


# --- noted ---


@pytest.mark.parametrize(
    ("status", "reported", "after"),
    [
        (JobStatus.QUEUED, JobStatus.QUEUED, JobStatus.QUEUED),
        (JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.RUNNING),
        (JobStatus.QUEUED, None, JobStatus.QUEUED),
        (JobStatus.RUNNING, JobStatus.RUNNING, JobStatus.RUNNING),
        (JobStatus.RUNNING, JobStatus.QUEUED, JobStatus.RUNNING),
        (JobStatus.RUNNING, None, JobStatus.RUNNING),
    ],
)
def test_a_status_that_goes_backwards_is_not_believed(
    diary: Diary, status: JobStatus, reported: JobStatus | None, after: JobStatus
) -> None:
    """`queued` after `running` and words this version does not know are neither moves nor errors."""
    job = diary.job(status=status)
    note(job, Report(status=reported, progress=0.3))
    assert (job.status, job.progress) == (after, 0.3)


def test_success_is_dubious_without_a_whole_picture_or_an_avatar() -> None:
    """A success with something whole to show needs no second look, and neither does a failure."""
    assert is_dubious(HOLLOW)
    assert not is_dubious(DONE)
    assert not is_dubious(Report(status=JobStatus.SUCCEEDED, avatar=Avatar(id="a", name="n", status="READY")))
    assert not is_dubious(Report(status=JobStatus.FAILED))
    assert not is_dubious(Report(status=None))
    cut = Piece(data=b"\x89PNG\r\n\x1a\n" + bytes(40))
    assert cut.flaw == "image/png of 48 bytes has no IEND chunk"
    assert is_dubious(Report(status=JobStatus.SUCCEEDED, pieces=(cut,)))


# --- concluded ---


async def test_a_result_is_recorded_before_the_waiters_get_it(diary: Diary) -> None:
    """Redeem, record, resolve, hand over: in this order, so that a crash never loses what was paid for."""
    job = diary.job(id="j1", status=JobStatus.RUNNING)
    waiter = asyncio.ensure_future(job.result())
    await asyncio.sleep(0)
    job.claim()
    await soon(conclude(job, DONE))
    assert await soon(waiter) == "picture"
    assert diary.entries == ["redeem", "settled, done=False", "ended succeeded", "handed over"]
    assert diary.outcomes == ["picture"]


async def test_of_two_conclusions_at_once_one_goes_on(diary: Diary) -> None:
    """A poll and a webhook that learn of the end in the same moment settle it once."""
    job = diary.job(id="j1", status=JobStatus.RUNNING)

    async def path(report: Report) -> bool:
        claimed = job.claim()
        if claimed:
            await conclude(job, report)
        return claimed

    failed = Report(status=JobStatus.FAILED, reason="no luck")
    assert list(await soon(asyncio.gather(path(DONE), path(failed)))) == [True, False]
    assert await soon(job) == "picture"
    assert diary.entries.count("settled, done=False") == 1
    assert job.status is JobStatus.SUCCEEDED


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (JobStatus.FAILED, JobFailedError, "failed: no luck"),
        (JobStatus.CANCELLED, JobCancelledError, "was cancelled: no luck"),
        (JobStatus.EXPIRED, JobExpiredError, "ran into the provider's own time limit: no luck"),
    ],
)
async def test_each_bad_end_has_its_error(diary: Diary, status: JobStatus, kind: type[MirageError], words: str) -> None:
    """The error names the job, repeats the provider's reason and carries the token."""
    job = diary.job(id="j1", status=JobStatus.RUNNING)
    job.claim()
    await soon(conclude(job, Report(status=status, reason="no luck")))
    with pytest.raises(kind, match=f"the miragic job j1 {words}") as caught:
        await soon(job)
    error = caught.value
    assert isinstance(error, JobFailedError | JobCancelledError | JobExpiredError)
    assert (error.job_id, error.token, error.billed, error.provider) == ("j1", job.token(), "unknown", "miragic")
    assert job.status is status


async def test_a_failure_without_reason_says_so(diary: Diary) -> None:
    """A provider that gives no reason is quoted as giving none."""
    job = diary.job(key="mine")
    job.claim()
    await soon(conclude(job, Report(status=JobStatus.FAILED)))
    with pytest.raises(JobFailedError, match="the miragic job mine failed: the provider gives no reason") as caught:
        await soon(job)
    assert caught.value.token is None


@pytest.mark.parametrize(("reason", "words"), [("no link", "no link"), (None, "none given")])
async def test_a_hollow_success_is_a_failure_that_was_paid_for(diary: Diary, reason: str | None, words: str) -> None:
    """Success without a result fails the job; the provider has charged for it all the same."""
    job = diary.job(id="j1", status=JobStatus.RUNNING)
    job.claim()
    await soon(conclude(job, Report(status=JobStatus.SUCCEEDED, reason=reason)))
    with pytest.raises(JobFailedError, match=f"is finished without a usable result: {words}") as caught:
        await soon(job)
    assert caught.value.billed == "yes"
    assert job.status is JobStatus.FAILED
    assert "redeem" not in diary.entries


async def test_a_result_that_cannot_be_redeemed_keeps_its_own_error(diary: Diary) -> None:
    """An error of this library is handed on as it is; the job has still succeeded."""
    diary.redeemed = DownloadError("not whole", url="https://a.example/x.png")
    job = diary.job(id="j1", status=JobStatus.RUNNING)
    job.claim()
    await soon(conclude(job, DONE))
    with pytest.raises(DownloadError, match="not whole") as caught:
        await soon(job)
    assert caught.value.url == "https://a.example/x.png"
    assert job.status is JobStatus.SUCCEEDED
    assert isinstance(diary.outcomes[0], DownloadError)


async def test_an_unforeseen_failure_becomes_an_error_of_ours(diary: Diary, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever goes wrong while reading a result, the waiters get an answer and the log the traceback."""
    diary.redeemed = KeyError("surprise")
    job = diary.job(id="j1", status=JobStatus.RUNNING)
    job.claim()
    await soon(conclude(job, DONE))
    with pytest.raises(ResponseError, match="the miragic job j1 could not be read: KeyError") as caught:
        await soon(job)
    assert caught.value.billed == "yes"
    assert caught.value.__cause__ is None
    assert "could not be read" in caplog.text


async def test_an_outcome_that_cannot_be_recorded_is_handed_over_all_the_same(
    diary: Diary, caplog: pytest.LogCaptureFixture
) -> None:
    """A recorder that fails on settling is logged once, as critical, and withholds nothing."""
    diary.broken = True
    job = diary.job(id="j1", status=JobStatus.RUNNING)
    job.claim()
    await soon(conclude(job, DONE))
    assert await soon(job) == "picture"
    (line,) = criticals(caplog)
    assert "the outcome" in line
    assert job.key in line


async def test_recording_that_is_cancelled_is_not_mistaken_for_a_failure(diary: Diary) -> None:
    """Cancellation goes through: the job stays claimed and nobody is told a result that was not recorded."""
    job = diary.job(id="j1", status=JobStatus.RUNNING)
    job.claim()
    task = asyncio.ensure_future(conclude(job, DONE))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(task)
    assert not job.done


# --- refused ---


async def test_a_refused_purchase_fails_the_job(diary: Diary) -> None:
    """A refusal is recorded, then told to whoever holds the job."""
    job = diary.job()
    await soon(refuse(job, BadRequestError("bad prompt", status=400, billed="no")))
    assert diary.entries == ["settled, done=False", "ended failed"]
    with pytest.raises(BadRequestError, match="bad prompt"):
        await soon(job)
    assert job.status is JobStatus.FAILED


async def test_an_uncertain_purchase_stays_uncertain(diary: Diary) -> None:
    """Nobody can say whether it was bought, so the status says that."""
    job = diary.job()
    await soon(refuse(job, SubmissionUncertainError("nobody knows", key=job.key)))
    assert job.status is JobStatus.UNCERTAIN
    assert job.done


async def test_a_job_that_is_settled_cannot_be_refused(diary: Diary) -> None:
    """The first claim wins against a refusal as well."""
    job = diary.job(id="j1", status=JobStatus.RUNNING)
    job.claim()
    await soon(refuse(job, BadRequestError("late", status=400)))
    assert diary.entries == []
    assert not job.done
