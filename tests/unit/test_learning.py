"""What the scheduler tells a policy that learns, whom it asks about first, and what becomes of it end to end."""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from mirage_async import Limits, Mirage
from mirage_async.exceptions import RateLimitError, ResponseError
from mirage_async.jobs import Job, JobKind, NullRecorder, new_job
from mirage_async.models import JobStatus, Pace
from mirage_async.sandbox import Sandbox
from mirage_async.scheduler import (
    AdaptiveInterval,
    FixedInterval,
    IntervalPolicy,
    JobView,
    LearningPolicy,
    Scheduler,
    Sighting,
)
from mirage_async.testing import FakeClock
from mirage_async.wire import Piece, Report

if TYPE_CHECKING:
    from collections.abc import Callable

    from mirage_async.exceptions import MirageError

pytestmark = pytest.mark.anyio

PACE = Pace(first=3, interval=2, maximum=16, max_wait=100)
QUEUED = Report(status=JobStatus.QUEUED)
RUNNING = Report(status=JobStatus.RUNNING)
DONE = Report(status=JobStatus.SUCCEEDED, pieces=(Piece(url="https://a.example/x.png"),))
HOLLOW = Report(status=JobStatus.SUCCEEDED)


def running(progress: float) -> Report:
    """Return the report of a job that is so far."""
    return Report(status=JobStatus.RUNNING, progress=progress)


class Pupil(FixedInterval):
    """Asks every ten seconds and keeps what it is told."""

    def __init__(self) -> None:
        super().__init__(10, jitter=0)
        self.sightings: list[Sighting] = []
        self.views: list[JobView] = []

    def next_interval(self, job: JobView) -> float:
        """Return ten seconds."""
        self.views.append(job)
        return super().next_interval(job)

    def observe(self, sighting: Sighting) -> None:
        """Keep it."""
        self.sightings.append(sighting)

    @property
    def told(self) -> list[tuple[str, float, float, str]]:
        """Phase, last look, this look and outcome of each sighting."""
        return [(told.phase, told.seen, told.now, told.outcome) for told in self.sightings]


class Desk:
    """One provider account on virtual time, whose status calls bring the prepared answers, the last for ever."""

    def __init__(self, policy: IntervalPolicy, *answers: Report | MirageError, limits: Limits | None = None) -> None:
        self.clock = FakeClock()
        self.scheduler = Scheduler(policy=policy, clock=self.clock)
        self.account = self.scheduler.account("miragic", limits or Limits())
        self.answers = list(answers)
        self.asked: list[str | None] = []
        self.gate: asyncio.Event | None = None
        self.kind: JobKind[str] = JobKind(
            provider="miragic",
            name="image",
            pace=PACE,
            clock=self.clock,
            recorder=NullRecorder(),
            waker=self.scheduler,
            look=self.look,
            redeem=self.redeem,
            ended=lambda _: None,
            account=self.account,
        )

    async def look(self, job: Job[str]) -> Report:
        """Wait at the gate, if there is one, and answer."""
        self.asked.append(job.id)
        if self.gate is not None:
            await self.gate.wait()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def redeem(self, job: Job[str], report: Report) -> str:  # noqa: ARG002 - the kind's signature
        """Return the result."""
        return f"picture of {job.id}"

    def job(self, job_id: str = "j1", *, model: str = "m") -> Job[str]:
        """Make an accepted job."""
        return new_job(self.kind, id=job_id, model=model, status=JobStatus.QUEUED)

    def watch(self, job_id: str = "j1", *, wait: float = 1000) -> Job[str]:
        """Make an accepted job and have it watched."""
        job = self.job(job_id)
        self.scheduler.watch(job, self.clock.monotonic() + wait)
        return job


# --- what is told ---


async def test_a_job_seen_queued_running_and_done_teaches_both_phases() -> None:
    """Every look is told for each phase the job has been in; running began between the two looks around it."""
    policy = Pupil()
    desk = Desk(policy, QUEUED, QUEUED, RUNNING, RUNNING, DONE)
    await desk.clock.advance(7)
    desk.watch()
    await desk.clock.advance(200)
    assert policy.told == [
        ("queued", 0, 10, "pending"),
        ("queued", 10, 20, "pending"),
        ("queued", 20, 30, "pending"),
        ("running", 0, 5, "pending"),
        ("queued", 30, 40, "pending"),
        ("running", 5, 15, "pending"),
        ("queued", 40, 50, "done"),
        ("running", 15, 25, "done"),
    ]
    last = policy.sightings[-1]
    assert (last.provider, last.kind, last.model, last.pace, last.at) == ("miragic", "image", "m", PACE, 57)
    assert (last.progress, last.shown) == (None, ())
    await desk.scheduler.aclose()


async def test_the_policy_sees_the_phase_and_its_age() -> None:
    """Queued since it was accepted, then running since the middle of the two looks around it."""
    policy = Pupil()
    desk = Desk(policy, QUEUED, RUNNING, QUEUED)
    desk.watch()
    await desk.clock.advance(30)
    assert [(view.phase, view.phase_elapsed) for view in policy.views] == [
        ("queued", 0),
        ("queued", 10),
        ("running", 5),
        ("running", 15),
    ]
    await desk.scheduler.aclose()


async def test_the_wait_for_a_place_is_no_part_of_a_phase() -> None:
    """What counts is when the provider accepted the job, not when it was submitted here."""
    policy = Pupil()
    desk = Desk(policy, DONE)
    job = desk.job()
    await desk.clock.advance(100)
    desk.scheduler.watch(job, 1000)
    await desk.clock.advance(10)
    assert policy.told == [("queued", 0, 10, "done")]
    assert [(view.elapsed, view.phase_elapsed) for view in policy.views] == [(100, 0)]
    await desk.scheduler.aclose()


async def test_a_job_that_runs_when_it_is_accepted_is_in_both_phases_from_the_start() -> None:
    """An acceptance that says "running" is as good as a look."""
    policy = Pupil()
    desk = Desk(policy, DONE)
    job = desk.job()
    job.move(JobStatus.RUNNING)
    desk.scheduler.watch(job, 1000)
    await desk.clock.advance(10)
    assert policy.told == [("queued", 0, 10, "done"), ("running", 0, 10, "done")]
    await desk.scheduler.aclose()


async def test_a_slow_answer_is_no_news_of_the_time_after_the_question() -> None:
    """A job was unfinished when it was asked about, and finished when the answer came."""
    policy = Pupil()
    desk = Desk(policy, RUNNING, DONE)
    desk.watch()
    for _ in range(2):
        desk.gate = asyncio.Event()
        await desk.clock.advance(10)
        await desk.clock.advance(4)
        desk.gate.set()
        await desk.clock.advance(0)
    assert policy.told == [
        ("queued", 0, 10, "pending"),
        ("running", 0, 5, "pending"),
        ("queued", 10, 28, "done"),
        ("running", 5, 23, "done"),
    ]
    assert desk.scheduler.statistics().accounts[0].delay_bound_mean == 18
    await desk.scheduler.aclose()


@pytest.mark.parametrize("status", [JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.EXPIRED])
async def test_a_job_that_failed_is_lost(status: JobStatus) -> None:
    """Its end says nothing about how long jobs take."""
    policy = Pupil()
    desk = Desk(policy, QUEUED, Report(status=status))
    desk.watch()
    await desk.clock.advance(100)
    assert policy.told == [("queued", 0, 10, "pending"), ("queued", 10, 20, "lost")]
    await desk.scheduler.aclose()


async def test_a_success_that_is_asked_about_again_is_done_at_its_first_sight() -> None:
    """The job is told done once, and its delay counted once."""
    policy = Pupil()
    desk = Desk(policy, QUEUED, HOLLOW, RUNNING, HOLLOW, DONE)
    job = desk.watch()
    await desk.clock.advance(50)
    assert await job == "picture of j1"
    assert policy.told == [("queued", 0, 10, "pending"), ("queued", 10, 20, "done")]
    account = desk.scheduler.statistics().accounts[0]
    assert (account.jobs_finished, account.polls_per_job, account.delay_bound_mean) == (1, 5, 10)
    await desk.scheduler.aclose()


async def test_attached_jobs_teach_nothing() -> None:
    """Nobody knows how old they are; neither does a policy hear of a job that is watched anew."""
    policy = Pupil()
    desk = Desk(policy, RUNNING, RUNNING, DONE)
    desk.job().attach(None)
    await desk.clock.advance(30)
    assert policy.told == []
    again = desk.watch("again", wait=0.2)  # too short for a last look
    await desk.clock.advance(20)
    waiter = asyncio.ensure_future(again.result(max_wait=50))
    await desk.clock.advance(1)
    assert await waiter == "picture of again"
    assert policy.told == []
    await desk.scheduler.aclose()


async def test_an_attached_job_has_a_delay_from_the_second_look_on() -> None:
    """One found finished at the first look may have been so for days."""
    desk = Desk(FixedInterval(10, jitter=0), DONE)
    desk.job().attach(None)
    await desk.clock.advance(0)
    account = desk.scheduler.statistics().accounts[0]
    assert (account.jobs_finished, account.delay_bound_mean) == (1, None)
    desk.answers = [RUNNING, DONE]
    desk.job("second").attach(None)
    await desk.clock.advance(10)
    assert desk.scheduler.statistics().accounts[0].delay_bound_mean == 10
    await desk.scheduler.aclose()


async def test_a_word_nobody_knows_and_a_failed_call_show_nothing() -> None:
    """They are no looks that saw the job unfinished."""
    policy = Pupil()
    desk = Desk(policy, Report(status=None, word="PONDERING"), ResponseError("unreadable"), DONE)
    desk.watch()
    await desk.clock.advance(30)
    assert policy.told == [("queued", 0, 30, "done")]
    await desk.scheduler.aclose()


async def test_progress_is_told_at_each_look_and_in_all_at_the_end() -> None:
    """The marks are in the clock of the phase, and a phase has those since it began."""
    policy = Pupil()
    queued = Report(status=JobStatus.QUEUED, progress=0.0)
    desk = Desk(policy, queued, running(0.25), running(0.5), DONE)
    desk.watch()
    await desk.clock.advance(40)
    assert [(told.phase, told.progress, told.shown) for told in policy.sightings] == [
        ("queued", 0.0, ()),
        ("queued", 0.25, ()),
        ("running", 0.25, ()),
        ("queued", 0.5, ()),
        ("running", 0.5, ()),
        ("queued", None, ((10, 0.0), (20, 0.25), (30, 0.5))),
        ("running", None, ((5, 0.25), (15, 0.5))),
    ]
    await desk.scheduler.aclose()


async def test_a_lost_job_shows_no_marks() -> None:
    """Its progress led nowhere."""
    policy = Pupil()
    desk = Desk(policy, running(0.5), Report(status=JobStatus.FAILED))
    desk.watch()
    await desk.clock.advance(20)
    assert [told.shown for told in policy.sightings] == [(), (), (), ()]
    await desk.scheduler.aclose()


async def test_at_most_sixteen_marks_are_kept_thinned_evenly() -> None:
    """However often a job is asked about, its note stays small, and the newest mark is in it."""
    policy = Pupil()
    desk = Desk(policy, *(running(step / 100) for step in range(1, 61)), DONE)
    desk.watch()
    sizes = set[int]()
    for _ in range(60):
        await desk.clock.advance(10)
        (entry,) = desk.account.entries
        sizes.add(len(entry.shown or ()))
    await desk.clock.advance(10)
    assert max(sizes) == 16
    shown = policy.sightings[-2].shown
    assert 8 <= len(shown) <= 16
    assert shown[-1] == (600, 0.6)
    assert list(shown) == sorted(shown)
    await desk.scheduler.aclose()


async def test_a_policy_that_does_not_learn_costs_no_marks() -> None:
    """Nobody would read them."""
    desk = Desk(FixedInterval(10, jitter=0), running(0.5))
    desk.watch()
    await desk.clock.advance(30)
    (entry,) = desk.account.entries
    assert entry.shown is None
    assert desk.scheduler.statistics().models == ()
    await desk.scheduler.aclose()


async def test_a_policy_whose_methods_fail_is_logged_once_and_harms_no_job(caplog: pytest.LogCaptureFixture) -> None:
    """It is the user's code; the jobs are paid for."""

    class Broken(FixedInterval):
        def observe(self, sighting: Sighting) -> None:
            raise KeyError(sighting.phase)

        def urgency(self, job: JobView, last: float) -> float:
            raise ValueError(job.provider, last)

        def statistics(self) -> tuple[Any, ...]:
            raise OSError

    desk = Desk(Broken(10, jitter=0), RUNNING, *[RUNNING] * 3, DONE, limits=Limits(polls=1))
    jobs = [desk.watch(str(number)) for number in range(4)]
    await desk.clock.advance(100)
    assert [await job for job in jobs] == [f"picture of {number}" for number in range(4)]
    assert desk.scheduler.statistics().models == desk.scheduler.statistics().models == ()
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert sorted(record.getMessage().split()[0] for record in errors) == ["observe", "statistics", "urgency"]
    assert all(record.exc_info is not None for record in errors)
    await desk.scheduler.aclose()


# --- who goes first ---


class Urgent(FixedInterval):
    """Finds young jobs more urgent, unless it has an answer prepared."""

    def __init__(self, answer: object = None) -> None:
        super().__init__(10, jitter=0)
        self.answer = answer
        self.asked: list[tuple[float, float]] = []

    def urgency(self, job: JobView, last: float) -> Any:
        """Return the prepared answer, else less the older the job is."""
        assert job.phase_elapsed is not None
        self.asked.append((job.phase_elapsed, last))
        return -job.phase_elapsed if self.answer is None else self.answer


async def test_the_most_urgent_job_is_asked_about_first() -> None:
    """Where the calls have to wait for each other, urgency decides."""
    desk = Desk(Urgent(), RUNNING, limits=Limits(polls=1))
    desk.gate = asyncio.Event()
    desk.watch("slow")
    await desk.clock.advance(10)
    for number in range(8):
        desk.watch(str(number))
        await desk.clock.advance(1)
    await desk.clock.advance(10)
    assert desk.scheduler.statistics().accounts[0].polls_ready == 8
    desk.gate.set()
    await desk.clock.advance(0)
    assert desk.asked == ["slow", "7", "6", "5", "4", "3", "2", "1", "0"]
    await desk.scheduler.aclose()


async def test_urgency_is_told_the_last_look_in_the_clock_of_the_phase() -> None:
    """Of a job never seen unfinished in its phase that is 0."""
    policy = Urgent()
    desk = Desk(policy, RUNNING, limits=Limits(polls_per_second=10))
    desk.watch("first")
    desk.watch("second")
    await desk.clock.advance(10.05)
    assert policy.asked == [(10, 0), (10, 0)]
    policy.asked.clear()
    await desk.clock.advance(0.05)
    desk.scheduler.watch(desk.job("third"), 1000, at_once=True)
    for job in desk.scheduler.watched(desk.account):
        desk.scheduler.wake(job)
    await desk.clock.advance(1)
    told = {(round(elapsed, 2), round(last, 2)) for elapsed, last in policy.asked}
    assert told == {(5.2, 5.0), (5.15, 5.05), (0.1, 0.0), (5.3, 5.0), (5.25, 5.05)}
    await desk.scheduler.aclose()


@pytest.mark.parametrize(
    ("answer", "logged"),
    [(math.nan, 1), ("high", 1), ((), 1), (10**400, 1), (math.inf, 0), (Decimal(5), 0)],
    ids=["NaN", "text", "a tuple", "beyond a float", "infinity", "a Decimal"],
)
async def test_an_urgency_that_tells_nothing_leaves_the_order_as_it_is(
    answer: object, logged: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Then first come, first served; whatever is no number is logged once, and never leaves the timer's callback."""
    desk = Desk(Urgent(answer), RUNNING, limits=Limits(polls=1))
    for number in range(8):
        desk.watch(str(number))
    await desk.clock.advance(10)
    assert desk.asked == [str(number) for number in range(8)]
    assert [record.getMessage().split()[0] for record in caplog.records] == ["urgency"] * logged
    await desk.scheduler.aclose()


@pytest.mark.parametrize("number", [float, Decimal, Fraction], ids=lambda number: number.__name__)
async def test_an_urgency_may_be_any_number(number: Callable[[float], Any]) -> None:
    """As an interval may: the later jobs are the more urgent ones here."""

    class Upwards(FixedInterval):
        def urgency(self, job: JobView, last: float) -> Any:  # noqa: ARG002 - it goes by the model
            return number(float(job.model or 0))

    desk = Desk(Upwards(10, jitter=0), RUNNING, limits=Limits(polls=1))
    for name in range(8):
        desk.scheduler.watch(desk.job(str(name), model=str(name)), 1000)
    await desk.clock.advance(10)
    assert desk.asked == [str(name) for name in reversed(range(8))]
    await desk.scheduler.aclose()


async def test_a_forgotten_job_is_not_counted_as_ready() -> None:
    """`polls_ready` is the number of calls that will be made."""
    desk = Desk(FixedInterval(10, jitter=0), RUNNING, limits=Limits(polls=1))
    desk.gate = asyncio.Event()
    jobs = [desk.watch(str(number)) for number in range(5)]
    await desk.clock.advance(10)
    desk.scheduler.forget(jobs[2])
    desk.scheduler.forget(jobs[3])
    assert desk.scheduler.statistics().accounts[0].polls_ready == 2
    desk.gate.set()
    await desk.clock.advance(0)
    assert desk.asked == ["0", "1", "4"]
    await desk.scheduler.aclose()


async def test_a_throttled_account_goes_on_gently() -> None:
    """What became due during the pause is asked about 50 ms apart at first, and faster with every good answer."""
    desk = Desk(FixedInterval(100, jitter=0), RateLimitError("429", status=429, retry_after=5.0), RUNNING)
    for number in range(40):
        desk.scheduler.watch(desk.job(str(number)), 1000, at_once=number == 0)
    await desk.clock.advance(0)
    for job in desk.scheduler.watched(desk.account):
        desk.scheduler.wake(job)
    await desk.clock.advance(5)
    begun = [len(desk.asked)]
    for _ in range(20):
        await desk.clock.advance(0.05)
        begun.append(len(desk.asked))
    assert begun[0] == 2
    assert begun[1] == 3
    assert begun[-1] == 41
    steps = [after - before for before, after in itertools.pairwise(begun)]
    assert steps[0] == 1
    assert max(steps) > 4
    await desk.scheduler.aclose()


# --- what narrows it ---


async def test_a_hint_that_proves_right_places_the_end_close_to_it() -> None:
    """The job was seen unfinished at ten seconds; somebody says at 14 that it has changed, and it has."""
    pupil = Pupil()
    desk = Desk(pupil, QUEUED, DONE)
    job = desk.watch()
    await desk.clock.advance(14)
    desk.scheduler.wake(job)
    await desk.clock.advance(0)
    assert job.done
    assert pupil.told[0] == ("queued", 0, 10, "pending")
    seen, now = pupil.sightings[-1].seen, pupil.sightings[-1].now
    assert (seen, now) == pytest.approx((13.3, 14))
    account = desk.scheduler.statistics().accounts[0]
    assert account.delay_bound_mean == pytest.approx(4)  # proven is no more than before
    await desk.scheduler.aclose()


async def test_a_hint_says_nothing_about_what_was_seen_unfinished_later() -> None:
    """Of a job that a look right before the hint still saw unfinished, no end before that look is learned."""
    pupil = Pupil()
    desk = Desk(pupil, QUEUED, DONE)
    job = desk.watch()
    await desk.clock.advance(10.1)
    desk.scheduler.wake(job)
    await desk.clock.advance(0)
    assert (pupil.sightings[-1].seen, pupil.sightings[-1].now) == pytest.approx((10, 10.1))
    await desk.scheduler.aclose()


async def test_a_hint_that_the_provider_does_not_confirm_is_forgotten() -> None:
    """It cost one look; what the next one finds is learned as if nobody had said anything."""
    pupil = Pupil()
    desk = Desk(pupil, QUEUED, DONE)
    job = desk.watch()
    await desk.clock.advance(4)
    desk.scheduler.wake(job)
    await desk.clock.advance(10.02)
    assert pupil.told[0] == ("queued", 0, 4, "pending")
    assert (pupil.sightings[-1].seen, pupil.sightings[-1].now) == pytest.approx((4, 14), abs=0.03)
    await desk.scheduler.aclose()


async def test_a_hint_whose_status_call_failed_narrows_nothing() -> None:
    """By the time of the next answer it says too little."""
    pupil = Pupil()
    desk = Desk(pupil, ResponseError("garbled"), DONE)
    job = desk.watch()
    await desk.clock.advance(4)
    desk.scheduler.wake(job)
    await desk.clock.advance(0)
    assert not job.done
    await desk.clock.advance(10.02)
    assert [(phase, seen, outcome) for phase, seen, _, outcome in pupil.told] == [("queued", 0, "done")]
    await desk.scheduler.aclose()


async def test_a_hint_repeated_while_the_first_is_looked_into_leads_to_one_more_look() -> None:
    """The repetition came after the question, so the answer to that one does not settle it."""
    pupil = Pupil()
    desk = Desk(pupil, QUEUED, DONE)
    desk.gate = asyncio.Event()
    job = desk.watch()
    await desk.clock.advance(4)
    desk.scheduler.wake(job)
    await desk.clock.advance(1)
    desk.scheduler.wake(job)
    desk.scheduler.wake(job)
    desk.gate.set()
    await desk.clock.advance(0)
    assert len(desk.asked) == 2
    assert pupil.told == [("queued", 0, 4, "pending"), ("queued", 4.75, 5, "done")]
    await desk.scheduler.aclose()


async def test_somebody_who_wants_to_know_is_no_hint() -> None:
    """Watching a job that is watched already looks at it at once and says nothing about when it ended."""
    pupil = Pupil()
    desk = Desk(pupil, DONE)
    job = desk.watch()
    await desk.clock.advance(4)
    desk.scheduler.watch(job, 1000, at_once=True)
    await desk.clock.advance(0)
    assert pupil.told == [("queued", 0, 4, "done")]
    await desk.scheduler.aclose()


@pytest.mark.parametrize(
    ("took", "span"),
    [(12.0, (11.4, 12.0)), (10.1, (10.0, 10.1)), (20.0, (19.0, 20.0)), (9.0, (10.0, 20.0)), (21.0, (10.0, 20.0))],
)
async def test_a_duration_told_by_the_provider_is_learned_within_what_the_looks_prove(
    took: float, span: tuple[float, float]
) -> None:
    """Seen unfinished at 10 s and finished at 20 s: what is said to have taken less or more is passed over."""
    pupil = Pupil()
    told = Report(status=JobStatus.SUCCEEDED, pieces=DONE.pieces, took=took)
    desk = Desk(pupil, QUEUED, told)
    desk.watch()
    await desk.clock.advance(20)
    assert (pupil.sightings[-1].seen, pupil.sightings[-1].now) == pytest.approx(span)
    await desk.scheduler.aclose()


# --- end to end ---


def test_a_learning_policy_is_a_policy() -> None:
    """The protocol describes what is there."""
    policy: LearningPolicy = AdaptiveInterval()
    assert policy.next_interval is not None


async def test_sixty_jobs_teach_the_policy_how_long_they_take() -> None:
    """The median is learned, the later jobs cost few calls, and the scheduler's statistics say so."""
    # At the default price of delay three tenths of a second are hardly worth a second call.
    scheduler = Scheduler(policy=AdaptiveInterval(delay_cost=60, minimum=0.01, seed=1))
    polls: list[int] = []
    async with (
        Sandbox(durations=0.3) as sandbox,
        Mirage(dict.fromkeys(sandbox.base_urls, "key"), base_urls=sandbox.base_urls, scheduler=scheduler) as mirage,
    ):
        with anyio.fail_after(20):
            for count in (8, 12, 20, 20):
                jobs = [await mirage.submit("a lighthouse", provider="miragic") for _ in range(count)]
                await asyncio.gather(*jobs)
                polls.append(sum(job.polls for job in jobs))
        statistics = scheduler.statistics()
    (model,) = [model for model in statistics.models if model.phase == "queued"]
    assert model.jobs_finished == 60
    assert model.polls_per_job == sum(polls) / 60
    assert model.delay_bound_mean is not None
    assert model.delay_bound_p95 is not None
    assert 0 < model.delay_bound_mean < model.delay_bound_p95 < 1.5
    assert 0.2 < model.median < 0.45
    assert polls[-1] / 20 < 4
    account = next(account for account in statistics.accounts if account.provider == "miragic")
    assert account.jobs_finished == 60
    assert account.polls_per_job == sum(polls) / 60
    assert account.delay_bound_mean is not None
    assert 0 < account.delay_bound_mean < 0.5
