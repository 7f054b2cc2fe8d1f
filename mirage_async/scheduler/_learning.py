"""What is asked of an interval policy, and what looks at jobs show, told to one that learns from it."""

from __future__ import annotations

import itertools
import logging
import math
import random
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

import msgspec

from mirage_async._retry import delays
from mirage_async.jobs import NullHints
from mirage_async.models import JobStatus
from mirage_async.scheduler._adaptive import AdaptiveInterval, ModelStatistics, Sighting
from mirage_async.scheduler._entry import KindCounts
from mirage_async.scheduler._intervals import JobView

if TYPE_CHECKING:
    from collections.abc import Callable

    from mirage_async.jobs import Job
    from mirage_async.scheduler._entry import Entry
    from mirage_async.scheduler._intervals import IntervalPolicy
    from mirage_async.wire import Report

__all__ = ["LONGEST_INTERVAL", "MARKS", "Learning", "begin", "view_of"]

_logger = logging.getLogger("mirage_async.scheduler")

LONGEST_INTERVAL = 30 * 24 * 3600.0  # seconds, as long as any wait: a policy's way to say "never"
_SOON, _SOON_SHARE = 0.25, 0.05  # seconds, and share of the age of a job, that news of its end may have taken
_LEAST_INTERVAL = 0.25  # seconds between the last look and the one before, where the policy has no minimum
_STRETCH = 0.2  # of the time a hint is given, by which it varies upwards: a kind of job has one number for all of them
MOST_KINDS = 512  # of jobs that are counted; one more, and those of which no job is watched are forgotten
MARKS = 16  # of progress that a note keeps, thinned evenly beyond

_Outcome: TypeAlias = Literal["pending", "done", "lost"]


def begin(entry: Entry, job: Job[Any], now: float, *, attached: bool) -> None:
    """Start the clocks of a note: the job was accepted just now, or is of an unknown age.

    The job's own `submitted_at` is no use here, since the wait for a place comes after it.
    """
    entry.started = now
    entry.began = job.running_at if job.status is JobStatus.RUNNING else None
    entry.looked = None if attached else now
    entry.teaches = not attached


def view_of(entry: Entry, job: Job[Any], now: float) -> JobView:
    """Return what a policy may know about a job."""
    kind, began = job.kind, entry.began
    return JobView(
        provider=kind.provider,
        kind=kind.name,
        model=job.model,
        pace=kind.pace,
        status=job.status,
        progress=job.progress,
        elapsed=now - job.submitted_at,
        polls=entry.polls,
        phase="queued" if began is None else "running",
        phase_elapsed=now - (entry.started if began is None else began),
    )


class Learning:
    """Asks a policy for intervals, and passes on what is seen if it wants that.

    Beyond `next_interval` the policy need not have any of the methods of `LearningPolicy`. One that fails is logged
    once for each of them, as there may be a hundred thousand jobs to ask it about, and nothing else comes of it: in
    place of an interval it is the one of the document that counts.

    A job was unfinished when it was asked about, and finished when the answer came; whatever happened in between may
    have happened on either side.

    Args:
        policy: who may learn; what it has of these methods it has from the beginning.

    Attributes:
        ranks: whether the policy tells how urgent a status call is.
    """

    __slots__ = (
        "_counts",
        "_failed",
        "_learns",
        "_least",
        "_observe",
        "_policy",
        "_random",
        "_sent_before",
        "_urgency",
        "ranks",
    )

    def __init__(self, policy: IntervalPolicy) -> None:
        self._policy = policy
        self._observe: Callable[[Sighting], object] = getattr(policy, "observe", _ignore)
        self._urgency: Callable[[JobView, float], Any] = getattr(policy, "urgency", _ignore)
        self._learns = self._observe is not _ignore
        self.ranks = self._urgency is not _ignore
        self._failed: set[str] = set()
        self._counts: dict[tuple[str, str, str | None], KindCounts] = {}
        self._sent_before = 0  # for kinds that are forgotten
        adaptive = policy if isinstance(policy, AdaptiveInterval) else None
        self._random = random.Random(None if adaptive is None else adaptive.seed)
        self._least = _LEAST_INTERVAL if adaptive is None else adaptive.minimum

    def interval(self, entry: Entry, job: Job[Any], now: float) -> float:
        """Return seconds until the next status call for a job."""
        kind, interval = job.kind, math.nan
        view = view_of(entry, job, now)
        try:
            interval = float(self._policy.next_interval(view))  # which may well be a Decimal, or numpy's
        except Exception as error:  # noqa: BLE001 - logged, once
            self._complain("next_interval", error)
        if not 0 <= interval < math.inf:
            # A faulty policy of a user's must not strand a job that was paid for.
            self._complain("next_interval", ValueError(f"it returned {interval}, which is no number of seconds"))
            interval = kind.pace.interval
        if type(kind.hints) is not NullHints:  # which expect nothing
            patience = kind.hints.patience(job)
            if patience > interval:
                interval = patience * self._random.uniform(1.0, 1.0 + _STRETCH)
        return LONGEST_INTERVAL if interval > LONGEST_INTERVAL else interval  # noqa: FURB136 - is dearer by far

    def patience(self, misses: int) -> float:
        """Return how many seconds to leave a job alone after so many status calls in a row without usable answer.

        Up to a quarter is added at random, so that those that failed together are not repeated together.
        """
        seconds = next(itertools.islice(delays(1.0, 2.0, 30.0), min(misses, 8) - 1, None))
        return seconds * self._random.uniform(1.0, 1.25)

    def last_look(self, span: float, end: float, *, before: float, latest: float) -> float:
        """Return when to make the last look before the end of a wait, infinity where it needs no moment of its own.

        That is where the next look comes early enough anyway, or the one just made was as late, or would be followed
        too soon.

        Args:
            span: see `mirage_async.jobs.last_look_time`.
            end: of the wait, in monotonic seconds.
            before: the moment of the look before, or when the job was accepted.
            latest: when the next look is made at the latest.
        """
        if latest <= end - span / 4 or before + self._least > end - span:
            return math.inf
        return end - span * self._random.uniform(0.5, 1.0)

    def unfinished(self, entry: Entry, job: Job[Any], report: Report, *, asked: float, now: float) -> None:
        """Take note of a job that was seen unfinished, and tell the policy.

        Args:
            entry: the scheduler's note, which is brought up to date.
            job: what it is about.
            report: the answer.
            asked: when the question was sent, in monotonic seconds.
            now: when the answer came.
        """
        if entry.ended:
            return
        last = entry.started if entry.looked is None else entry.looked
        if entry.began is None and report.status is JobStatus.RUNNING:
            entry.began = (last + asked) / 2
        if entry.teaches and self._learns:
            self._tell(entry, job, report, "pending", (last, asked), at=now)
            if report.progress is not None:
                _mark(entry, asked, report.progress)
        entry.looked = asked

    def finished(self, entry: Entry, job: Job[Any], report: Report, *, now: float, hinted: float | None) -> None:
        """Take note of a job that was seen finished, and tell the policy; only the first time counts.

        Args:
            entry: the scheduler's note, which is brought up to date.
            job: what it is about.
            report: the answer.
            now: when it came, in monotonic seconds.
            hinted: when somebody had said, since the look before, that the job has changed; None for nobody.
        """
        if entry.ended:
            return
        entry.ended = True
        late = None if entry.looked is None else now - entry.looked
        if late is not None:
            entry.account.noticed(late)
        if entry.teaches and self._learns:
            outcome: _Outcome = "done" if report.status is JobStatus.SUCCEEDED else "lost"
            self._tell(entry, job, report, outcome, _ended(entry, report, now, hinted), at=now, late=late)
        entry.shown = None

    def urgency(self, now: float, entry: Entry) -> float:
        """Return how urgent the status call of a note is."""
        job, looked = entry.job, entry.looked
        assert job is not None  # noqa: S101 - a forgotten job leaves the line; says so to the type checker
        start = entry.started if entry.began is None else entry.began
        last = 0.0 if looked is None or looked < start else looked - start
        try:
            value = float(self._urgency(view_of(entry, job, now), last))  # any number, as with `next_interval`
        except Exception as error:  # noqa: BLE001 - logged, once
            self._complain("urgency", error)
            return 0.0
        if math.isnan(value):  # which would leave the order of a heap to chance
            self._complain("urgency", ValueError("it returned NaN"))
            return 0.0
        return value

    def statistics(self) -> tuple[ModelStatistics, ...]:
        """Return what the policy has learned, () for one that does not say."""
        try:
            learned: object = getattr(self._policy, "statistics", tuple)()
        except Exception as error:  # noqa: BLE001 - logged, once
            self._complain("statistics", error)
            return ()
        if not isinstance(learned, tuple):
            return ()
        return tuple(self._counted(each) for each in cast("tuple[ModelStatistics, ...]", learned))

    def counts_of(self, job: Job[Any]) -> KindCounts:
        """Return what is counted of a job's kind and model, of which any number may come and go."""
        key = (job.kind.provider, job.kind.name, job.model)
        counts = self._counts.get(key)
        if counts is None:
            if len(self._counts) >= MOST_KINDS:
                self._forget_kinds()
            counts = self._counts[key] = KindCounts()
        return counts

    @property
    def polls_sent(self) -> int:
        """Status calls begun so far, of whatever kind."""
        return self._sent_before + sum(counts.sent for counts in self._counts.values())

    def _forget_kinds(self) -> None:
        """Forget the kinds of which no job is watched, but not how many calls were made for them."""
        kept = {key: counts for key, counts in self._counts.items() if counts.watched}
        self._sent_before = self.polls_sent - sum(counts.sent for counts in kept.values())
        self._counts = kept

    def _counted(self, learned: ModelStatistics) -> ModelStatistics:
        if not isinstance(learned, ModelStatistics):
            return learned  # a policy of a user's own says what it likes
        counts = self._counts.get((learned.provider, learned.kind, learned.model))
        if counts is None:
            return learned
        return msgspec.structs.replace(learned, jobs_watched=counts.watched, polls_sent=counts.sent)

    def _tell(
        self,
        entry: Entry,
        job: Job[Any],
        report: Report,
        outcome: _Outcome,
        span: tuple[float, float],
        *,
        at: float,
        late: float | None = None,
    ) -> None:
        """Tell the policy of one look, once for each phase the job has been in."""
        kind, began, (last, moment) = job.kind, entry.began, span
        queued = ("queued", entry.started)
        marks = entry.shown if outcome == "done" else None
        try:
            for phase, start in (queued,) if began is None else (queued, ("running", began)):
                sighting = Sighting(
                    provider=kind.provider,
                    kind=kind.name,
                    model=job.model,
                    phase=phase,
                    pace=kind.pace,
                    seen=last - start if last > start else 0.0,
                    now=moment - start,
                    outcome=outcome,
                    progress=report.progress,
                    at=at,
                    polls=job.polls,
                    late=late,
                    shown=_since(start, marks) if marks else (),
                )
                self._observe(sighting)
        except Exception as error:  # noqa: BLE001 - logged, once
            self._complain("observe", error)

    def _complain(self, method: str, error: Exception) -> None:
        if method not in self._failed:
            self._failed.add(method)
            message = "%s of the interval policy %r failed; said once, going on without"
            _logger.error(message, method, self._policy, exc_info=error)


def _ignore(*_: object) -> None:
    """Stand in for a method that a policy does not have."""


def _ended(entry: Entry, report: Report, now: float, hinted: float | None) -> tuple[float, float]:
    """Return between which moments a job ended that was found finished: at most what the looks prove.

    A provider that tells how long the job took tells when it ended, whatever its clock shows: that began to count a
    little before its answer came here. A duration that the looks contradict is passed over.

    A hint that led to this look is taken to have been sent at the end and to have arrived soon.
    """
    # A hint may be late (a first delivery that failed and was repeated) or made up. Neither can do much harm: the look
    # itself shows that the job has ended by now, and no later than the policy would have looked anyway, so that what
    # is learned is too long by less than one interval. Nor does that feed on itself, with longer durations leading to
    # later looks that leave room for later hints: most looks come before the end that is expected, and one that finds
    # the job finished before its hint arrives teaches what it sees. A hint that the provider does not confirm is
    # forgotten with the look it led to, and what the statistics call proven knows of no hints.
    last = entry.started if entry.looked is None else entry.looked
    if report.took is not None:
        end = entry.started + report.took
        if last < end <= now:
            return max(last, end - max(_SOON, _SOON_SHARE * report.took)), end
    if hinted is None:
        return last, now
    return max(last, hinted - max(_SOON, _SOON_SHARE * (hinted - entry.started))), now


def _since(start: float, marks: list[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """Return the marks of progress made in a phase, in its clock."""
    return tuple((moment - start, progress) for moment, progress in marks if moment >= start)


def _mark(entry: Entry, moment: float, progress: float) -> None:
    """Keep what progress was shown when; every other mark goes once there are too many."""
    if entry.shown is None:
        entry.shown = []
    elif len(entry.shown) >= MARKS:
        del entry.shown[::2]
    entry.shown.append((moment, progress))
