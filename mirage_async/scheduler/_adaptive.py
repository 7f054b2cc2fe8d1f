"""The interval policy that learns how long jobs take and asks when the answer is likely to have changed."""

from __future__ import annotations

import math
import random
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import msgspec

from mirage_async.exceptions import InputError
from mirage_async.models import Pace
from mirage_async.scheduler import _exports, _looks
from mirage_async.scheduler._delays import DelayBounds
from mirage_async.scheduler._durations import EDGES, DurationModel
from mirage_async.scheduler._fitting import Prior
from mirage_async.scheduler._progress import ProgressModel

if TYPE_CHECKING:
    from mirage_async.scheduler._intervals import JobView

__all__ = ["AdaptiveInterval", "ModelStatistics", "Sighting"]

_Key: TypeAlias = tuple[str, str, str | None, str]

_KEYS = 512
_NEW_JOBS = 10.0  # finished, of a kind; before, intervals vary more, so that jobs are seen at many ages
_NEW_JITTER, _MOST_JITTER = 2.0, 0.5
_SCOUTS = 6  # jobs of a kind that are looked at early whatever is known
_BEGINNING = 0.25  # seconds; a job that was never seen and is older has been counted, and a call for it has failed
_RARE_SCOUTS = frozenset(step << power for step in (2, 3) for power in range(2, 30))  # the 8th, 12th, 16th, 24th, ...
_EARLY = (0.25, 0.5)  # shares of the regular first interval
_TELLS_LITTLE = 0.5  # share finished at the regular first look
_SHORTEST_HINT, _LONGEST_HINT = 1e-3, 1e6  # seconds
_LONGEST_STEP = 3.5  # times the interval without progress that progress may ask for
_PATIENT_POLLS, _WEARY_POLLS = 6, 16  # between them, a job's progress loses the power to ask for short intervals
_FORESEEN = 0.6  # of the first interval, where progress is going to tell the rest
_FORESEEN_FROM = 12.0  # looks that a median duration of delay is worth


class Sighting(msgspec.Struct, frozen=True, kw_only=True):
    """What one look at a job told, in the clock of the phase it is in.

    Attributes:
        provider: the provider's name.
        kind: "image" or "avatar".
        model: the model asked for, or None.
        phase: "queued" from the moment the provider accepted the job, also where it runs by now, or "running"; whatever
            it is, the time to the end of the job is learned.
        pace: what the provider's document suggests.
        seen: seconds since the phase began at the last look that saw the job unfinished in it, 0 for none.
        now: seconds since the phase began at this look.
        outcome: "pending"; "done"; or "lost" for a job that failed, was cancelled or is given up, of which nothing
            is learned but how long it was unfinished.
        progress: share done, 0 to 1, that this look showed, or None.
        shown: for "done" alone: what earlier looks in this phase showed, as pairs of seconds since the phase began
            and share done. Without them nothing is learned about progress, and none is trusted.
        polls: status calls made for the job so far, this one included, for statistics; 0 where that is not known.
        late: for a job that has ended: how many seconds ago at most, as far as the looks prove, for statistics; None
            where they prove nothing. Other evidence may have narrowed `seen` to `now` further.
        at: seconds on any clock that only goes forward; the tables are made anew at most ten times a second.
    """

    provider: str
    kind: str
    model: str | None
    phase: str
    pace: Pace
    seen: float
    now: float
    outcome: Literal["pending", "done", "lost"]
    progress: float | None
    at: float
    shown: tuple[tuple[float, float], ...] = ()
    polls: int = 0
    late: float | None = None


class ModelStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What has been learned about one kind of job.

    Attributes:
        provider: the provider's name.
        kind: "image" or "avatar".
        model: the model asked for, or None.
        phase: "queued" or "running".
        jobs_finished: finished jobs seen so far, in earlier processes whose export was loaded, too.
        median: half of the jobs end within so many seconds, as far as is known.
        delay_cost: status calls that a second of delay is taken to be worth.
        drift_alarms: how often durations changed so much that old evidence was dropped.
        progress_trusted: whether the provider's progress tells more than the durations alone.
        polls_per_job: status calls of the jobs that ended in this process, well or badly, on average; None before any
            of which they are known.
        delay_bound_mean: mean of the bounds of the delay with which their ends were noticed, in seconds, or None before
            any; see `AccountStatistics`.
        delay_bound_p95: seconds that 95 % of these bounds do not exceed, at most a quarter too many, or None.
        jobs_watched: jobs of this kind and model, in whatever phase, that somebody asks about; the scheduler counts.
        polls_sent: status calls begun for such jobs, likewise, as long as the kind is not forgotten.
    """

    provider: str
    kind: str
    model: str | None
    phase: str
    jobs_finished: int
    median: float
    delay_cost: float
    drift_alarms: int
    progress_trusted: bool
    polls_per_job: float | None = None
    delay_bound_mean: float | None = None
    delay_bound_p95: float | None = None
    jobs_watched: int = 0
    polls_sent: int = 0


class _Model:
    """All that is learned under one key."""

    __slots__ = ("begun", "delays", "drifts", "durations", "ended", "hint", "polls", "progress")

    def __init__(self, hint: float | None, durations: DurationModel, progress: ProgressModel | None = None) -> None:
        self.hint = hint
        self.durations = durations
        self.progress = ProgressModel() if progress is None else progress
        self.begun = durations.jobs  # jobs whose first look was asked for, since durations changed last
        self.drifts = durations.drifts
        self.ended = self.polls = 0  # jobs, as far as it is known how many status calls they took, and those calls
        self.delays = DelayBounds()

    def scouts(self, first: float) -> bool:
        """Count a job, and return whether to look at it earlier than pays, to learn from it.

        Args:
            first: the time of the regular first look, in seconds since the job began.
        """
        if self.drifts != self.durations.drifts:
            self.drifts, self.begun = self.durations.drifts, 0
        self.begun += 1
        if self.begun <= _SCOUTS:
            return True
        # A first look that finds most jobs finished teaches a bound and no more: a belief that long can last for ever,
        # because the looks it leads to never contradict it. While nobody finishes, more scouts would tell no more.
        rare = self.begun in _RARE_SCOUTS and 2 * self.durations.jobs >= self.begun
        return rare and self.durations.share_finished(first) > _TELLS_LITTLE


class AdaptiveInterval:
    """Ask when it is worth it: as seldom as possible, as soon as possible after the end.

    The policy learns how long the jobs of each provider, kind, model and phase take, from the looks themselves, and
    chooses the moments that keep status calls plus `delay_cost` times the delay lowest on average. Before it has seen a
    job it goes by the typical duration the provider's document suggests; some twenty finished jobs later it is close
    to the best there is. The first six jobs of a kind, and ever fewer later ones, are scouts: they are asked about
    sooner than pays, the first from when on the document begins to ask and then at doubling intervals, so that
    durations that have nothing to do with the document's are noticed at once. It follows when durations change. A
    progress that proves right shortens the way, one that does not is ignored.

    Whoever asks the provider reports with `observe`; `next_interval` learns nothing and only counts the jobs that are
    new to it, for the scouts. It does no I/O and reads no clock. At most 512 kinds of jobs are kept; the one that was
    longest not reported on is forgotten first. Not safe to use from several threads at once.

    Args:
        delay_cost: status calls that one second of noticing late is worth, above 0: with 1, a second sooner is worth
            one more call; with 0.1, ten seconds are. None takes 20 calls per median duration of the kind of job, at
            least 1/30 and at most 4 a second, which makes about three calls a job and a delay of a tenth of its
            duration.
        minimum: the shortest interval in seconds, above 0.
        maximum: the longest interval in seconds, at least `minimum`. Ten minutes do for jobs of up to three quarters of
            an hour; where it is shorter, jobs of many minutes are asked about more often than is worth it.
        jitter: share by which each interval varies at random, 0 to below 1, so that jobs submitted together are not
            asked about together; twice that, at most 0.5, for a kind of job of which fewer than ten were seen
            to finish. `minimum` and `maximum` hold all the same.
        seed: makes the random variation repeatable; None does not.

    Raises:
        InputError: a number is out of its range.
    """

    def __init__(
        self,
        *,
        delay_cost: float | None = None,
        minimum: float = 0.25,
        maximum: float = 600.0,
        jitter: float = 0.1,
        seed: int | None = None,
    ) -> None:
        self._delay_cost = None if delay_cost is None else _number("delay_cost", delay_cost, above=0.0)
        self.minimum = _number("minimum", minimum, above=0.0)
        self._maximum = _number("maximum", maximum, least=self.minimum)
        self._jitter = _number("jitter", jitter, least=0.0, below=1.0)
        self._jitter_when_new = max(self._jitter, min(_MOST_JITTER, _NEW_JITTER * self._jitter))
        self.seed = seed
        self._random = random.Random(seed)
        self._allowed = _looks.windows(EDGES, minimum=self.minimum, maximum=self._maximum)
        self._models: OrderedDict[_Key, _Model] = OrderedDict()

    # --- what the scheduler asks and tells ---

    def next_interval(self, job: JobView) -> float:
        """Return seconds until the next status call of `job`, within `minimum` and `maximum`."""
        key = (job.provider, job.kind, job.model, job.phase)
        model = self._models.get(key) or self._new_model(key, job.pace)
        durations = model.durations
        elapsed = job.elapsed if job.phase_elapsed is None else job.phase_elapsed
        if not 0.0 <= elapsed < math.inf:
            elapsed = 0.0
        step = durations.next_look(elapsed) - elapsed
        if job.polls == 0 and elapsed < _BEGINNING:
            if model.scouts(elapsed + step):
                step = min(step, _soon(job.pace)) if durations.jobs == 0 else step * self._random.uniform(*_EARLY)
        elif durations.jobs < _SCOUTS >= model.begun:
            step = min(step, max(elapsed, _soon(job.pace)))  # a scout that is not done yet
        if job.progress is not None:
            step = self._with_progress(model, job.progress, job.polls, elapsed, step)
        if job.polls == 0 and durations.price * durations.median >= _FORESEEN_FROM and model.progress.sharp():
            step *= _FORESEEN
        jitter = self._jitter if durations.evidence > _NEW_JOBS else self._jitter_when_new
        step *= 1.0 + jitter * (2.0 * self._random.random() - 1.0)
        if step < self.minimum:
            return self.minimum
        return min(step, self._maximum)

    def observe(self, sighting: Sighting) -> None:
        """Learn from a look at a job.

        A sighting whose times are no order of finite numbers from 0 on is passed over. So are a number of polls below
        1 and a delay that is no number from 0 on, but not what else their sighting tells.
        """
        seen, now = sighting.seen, sighting.now
        if not 0.0 <= seen <= now < math.inf:
            return
        key = (sighting.provider, sighting.kind, sighting.model, sighting.phase)
        model = self._models.get(key) or self._new_model(key, sighting.pace)
        self._models.move_to_end(key)
        durations, outcome = model.durations, sighting.outcome
        if outcome == "pending":
            durations.pending(seen, now)
        else:
            if outcome == "done":
                if sighting.shown:
                    model.progress.learn(sighting.shown, seen, now, durations)
                durations.done(seen, now)
            if sighting.polls > 0:
                model.ended += 1
                model.polls += sighting.polls
            if sighting.late is not None:
                model.delays.add(sighting.late)
        if sighting.at >= durations.fresh_until or sighting.at < durations.rebuilt_at:
            durations.refresh(sighting.at)

    def urgency(self, job: JobView, last: float) -> float:
        """Return what not having asked about `job` is expected to have cost by now, in status calls.

        Under a limit on status calls the job with the largest value goes first.

        Args:
            job: as it stands now.
            last: seconds since its phase began at the last look that saw it unfinished, 0 for none; a time after
                now costs nothing.
        """
        now = job.elapsed if job.phase_elapsed is None else job.phase_elapsed
        if not 0.0 <= last <= now < math.inf:
            return 0.0
        key = (job.provider, job.kind, job.model, job.phase)
        durations = (self._models.get(key) or self._new_model(key, job.pace)).durations
        return durations.price * durations.index(last, now)

    # --- what people ask ---

    def statistics(self) -> tuple[ModelStatistics, ...]:
        """Return what has been learned of each kind of job, the one longest not reported on first."""
        return tuple(
            ModelStatistics(
                provider=provider,
                kind=kind,
                model=name,
                phase=phase,
                jobs_finished=model.durations.jobs,
                median=model.durations.median,
                delay_cost=model.durations.price,
                drift_alarms=model.durations.drifts,
                progress_trusted=any(band.trusted for band in model.progress.bands),
                polls_per_job=model.polls / model.ended if model.ended else None,
                delay_bound_mean=model.delays.mean,
                delay_bound_p95=model.delays.p95,
            )
            for (provider, kind, name, phase), model in self._models.items()
        )

    def export(self) -> dict[str, Any]:
        """Return what has been learned as a dict of JSON values, for `load` in a later process.

        A kind of job takes some one to three kilobytes as JSON; there are no prompts, ids or keys in it.
        """
        return _exports.dump(
            [(key, model.hint, model.durations, model.progress) for key, model in self._models.items()]
        )

    def load(self, exported: dict[str, Any] | str | bytes) -> None:
        """Take over what `export` returned, in this process or another, as the dict or as its JSON text.

        Meant for the start; what has been learned of a kind of job by then is kept, and what the export tells of it is
        added. So load an export once. The tables are made for the `delay_cost`, `minimum` and `maximum` of this policy,
        whatever those of the other.

        To keep it in a file, with no harm done where that is missing, damaged or of another version:

        >>> import json
        >>> from pathlib import Path
        >>> from mirage_async.exceptions import ConfigurationError
        >>> kept, policy = Path("durations.json"), AdaptiveInterval()
        >>> try:
        ...     policy.load(kept.read_bytes())
        ... except (FileNotFoundError, ConfigurationError) as error:
        ...     print("starting cold:", type(error).__name__)
        starting cold: FileNotFoundError
        >>> # async with Mirage(scheduler=Scheduler(policy=policy)) as mirage: ...
        >>> partial = kept.with_suffix(".part")
        >>> _ = partial.write_text(json.dumps(policy.export()), encoding="utf-8")
        >>> _ = partial.replace(kept)  # a whole file or the old one, whenever the process ends

        Raises:
            ConfigurationError: it is not what `export` returns, or of a version this one does not know; nothing was
                taken over.
        """
        ready = [(key, each, *each.models(self._allowed, self._delay_cost)) for key, each in _exports.read(exported)]
        for key, learned, durations, progress in ready:
            model = self._models.get(key)
            if model is None:
                self._keep(key, _Model(learned.typical, durations, progress))
            else:
                model.durations.absorb(durations)
                model.progress.absorb(progress)
                model.begun += durations.jobs
                model.drifts = model.durations.drifts

    def clear(self) -> None:
        """Forget all that has been learned."""
        self._models.clear()

    def __repr__(self) -> str:
        return f"AdaptiveInterval(delay_cost={self._delay_cost}, {len(self._models)} kinds of jobs)"

    # --- how ---

    def _new_model(self, key: _Key, pace: Pace) -> _Model:
        hint = pace.typical
        if hint is not None and not _SHORTEST_HINT <= hint <= _LONGEST_HINT:
            hint = None
        durations = DurationModel(prior=Prior.of(hint), allowed=self._allowed, delay_cost=self._delay_cost)
        model = _Model(hint, durations)
        self._keep(key, model)
        return model

    def _keep(self, key: _Key, model: _Model) -> None:
        self._models[key] = model
        self._models.move_to_end(key)
        if len(self._models) > _KEYS:
            self._models.popitem(last=False)

    def _with_progress(self, model: _Model, progress: float, polls: int, elapsed: float, step: float) -> float:
        """Return the interval progress suggests, within bounds that the one without it (`step`) sets.

        Upwards the bound is fixed. Downwards it closes the more often this job was asked about: a job that stands at
        99 % for an hour costs a few calls more than one that shows nothing.
        """
        suggested = model.progress.next_look(elapsed, progress, model.durations.price)
        if suggested is None:
            return step
        step = min(step, self._maximum)
        weariness = (polls - _PATIENT_POLLS) / (_WEARY_POLLS - _PATIENT_POLLS)
        return max(min(suggested, step * _LONGEST_STEP), step * max(0.0, min(1.0, weariness)))


def _soon(pace: Pace) -> float:
    """Return from when on the document begins to ask; where that is at once, a quarter of its interval."""
    soon = pace.first if pace.first > 0 else pace.interval / 4
    return soon if soon > 0 else math.inf


def _number(
    name: str, value: float, *, above: float = -math.inf, least: float = -math.inf, below: float = math.inf
) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not (above < value < below and value >= least):
        bounds = [f"above {above:g}"] * (above > -math.inf) + [f"at least {least:g}"] * (least > -math.inf)
        msg = f"{name} must be a number {' and '.join([*bounds, f'below {below:g}'])}; got {value!r}"
        raise InputError(msg)
    return float(value)
