"""What looks at jobs show, told to a policy that learns from it."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

from mirage_async.models import JobStatus
from mirage_async.scheduler._adaptive import Sighting
from mirage_async.scheduler._intervals import JobView

if TYPE_CHECKING:
    from collections.abc import Callable

    from mirage_async.jobs import Job
    from mirage_async.scheduler._adaptive import ModelStatistics
    from mirage_async.scheduler._entry import Entry
    from mirage_async.scheduler._intervals import IntervalPolicy
    from mirage_async.wire import Report

__all__ = ["MARKS", "Learning", "begin", "view_of"]

_logger = logging.getLogger("mirage_async.scheduler")

_SOON, _SOON_SHARE = 0.25, 0.05  # seconds, and share of the age of a job, that news of its end may have taken
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
    """Passes on what is seen, to policies that want it.

    A policy need not have any of the methods of `LearningPolicy`. One that fails is logged once for each of them, and
    nothing else comes of it.
    """

    __slots__ = ("_failed",)

    def __init__(self) -> None:
        self._failed: set[str] = set()

    def looked(
        self,
        policy: IntervalPolicy,
        entry: Entry,
        job: Job[Any],
        report: Report,
        *,
        asked: float,
        now: float,
        hinted: float | None = None,
    ) -> None:
        """Take note of a usable answer, and tell the policy.

        A job was unfinished when it was asked about, and finished when the answer came; whatever happened in between
        may have happened on either side. A word that nobody knows shows nothing.

        Args:
            policy: who may learn from it.
            entry: the scheduler's note, which is brought up to date.
            job: what it is about.
            report: the answer.
            asked: when the question was sent, in monotonic seconds.
            now: when the answer came.
            hinted: when somebody had said, since the look before, that the job has changed; None for nobody.
        """
        if report.status is None or entry.ended:
            return
        told = getattr(policy, "observe", None) if entry.teaches else None
        if report.status.terminal:
            entry.ended = True
            late = None if entry.looked is None else now - entry.looked
            if late is not None:
                entry.account.noticed(late)
            if told is not None:
                outcome: _Outcome = "done" if report.status is JobStatus.SUCCEEDED else "lost"
                span = _ended(entry, report, now, hinted)
                self._tell(policy, told, _sightings(entry, job, report, outcome, span, at=now, late=late))
            entry.shown = None
            return
        if report.status is JobStatus.RUNNING and entry.began is None:
            since = entry.started if entry.looked is None else entry.looked
            entry.began = (since + asked) / 2
        if told is not None:
            last = entry.started if entry.looked is None else entry.looked
            self._tell(policy, told, _sightings(entry, job, report, "pending", (last, asked), at=now))
            if report.progress is not None:
                _mark(entry, asked, report.progress)
        entry.looked = asked

    def urgency(self, policy: IntervalPolicy, now: float) -> Callable[[Entry], float] | None:
        """Return what tells how urgent the status call of a note is, or None where the policy does not care."""
        if not hasattr(policy, "urgency"):
            return None

        def urgency(entry: Entry) -> float:
            job = entry.job
            assert job is not None  # noqa: S101 - a forgotten job leaves the line; says so to the type checker
            start = entry.started if entry.began is None else entry.began
            last = 0.0 if entry.looked is None else max(0.0, entry.looked - start)
            value = self._ask(policy, "urgency", view_of(entry, job, now), last)
            return value if isinstance(value, int | float) and not math.isnan(value) else 0.0

        return urgency

    def statistics(self, policy: IntervalPolicy) -> tuple[ModelStatistics, ...]:
        """Return what the policy has learned, () for one that does not say."""
        learned = self._ask(policy, "statistics") if hasattr(policy, "statistics") else None
        return cast("tuple[ModelStatistics, ...]", learned) if isinstance(learned, tuple) else ()

    def _tell(self, policy: IntervalPolicy, observe: Callable[[Sighting], object], sightings: list[Sighting]) -> None:
        try:
            for sighting in sightings:
                observe(sighting)
        except Exception as error:  # noqa: BLE001 - logged, once
            self._complain(policy, "observe", error)

    def _ask(self, policy: IntervalPolicy, method: str, *args: object) -> object:
        """Return what a method of the policy returns, None where it raises."""
        try:
            return cast("object", getattr(policy, method)(*args))
        except Exception as error:  # noqa: BLE001 - logged, once
            self._complain(policy, method, error)
            return None

    def _complain(self, policy: IntervalPolicy, method: str, error: Exception) -> None:
        if method not in self._failed:
            self._failed.add(method)
            message = "%s of the interval policy %r failed; said once, going on without"
            _logger.error(message, method, policy, exc_info=error)


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


def _sightings(
    entry: Entry,
    job: Job[Any],
    report: Report,
    outcome: _Outcome,
    span: tuple[float, float],
    *,
    at: float,
    late: float | None = None,
) -> list[Sighting]:
    """Return one sighting for each phase the job has been in."""
    kind = job.kind
    last, moment = span
    marks = entry.shown if outcome == "done" else None
    sightings: list[Sighting] = []
    for phase, start in (("queued", entry.started), ("running", entry.began)):
        if start is None:
            continue
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
            shown=tuple((at - start, progress) for at, progress in marks if at >= start) if marks else (),
        )
        sightings.append(sighting)
    return sightings


def _mark(entry: Entry, moment: float, progress: float) -> None:
    """Keep what progress was shown when; every other mark goes once there are too many."""
    if entry.shown is None:
        entry.shown = []
    elif len(entry.shown) >= MARKS:
        del entry.shown[::2]
    entry.shown.append((moment, progress))
