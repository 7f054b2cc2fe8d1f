"""The adaptive interval policy: its bounds, what it learns and forgets, what it takes over, what it never does."""

from __future__ import annotations

import copy
import doctest
import json
import math
import random
import re
import statistics
import subprocess
import sys
import textwrap
from collections import Counter
from typing import TYPE_CHECKING, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirage_async.exceptions import ConfigurationError, InputError
from mirage_async.models import JobStatus, Pace
from mirage_async.scheduler import AdaptiveInterval, FixedInterval, IntervalPolicy, JobView, Sighting

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SCOUTS = 6
PACE = Pace(first=1, interval=2, maximum=15, max_wait=300)


def view(
    elapsed: float,
    *,
    polls: int = 1,
    progress: float | None = None,
    model: str | None = None,
    phase: str = "running",
    phase_elapsed: float | None = None,
    pace: Pace = PACE,
) -> JobView:
    """Return what the policy sees of a job."""
    return JobView(
        provider="miragic",
        kind="image",
        model=model,
        pace=pace,
        status=JobStatus.RUNNING,
        progress=progress,
        elapsed=elapsed,
        polls=polls,
        phase=phase,
        phase_elapsed=phase_elapsed,
    )


def sighting(
    seen: float,
    now: float,
    outcome: Literal["pending", "done", "lost"] = "pending",
    *,
    at: float = 0.0,
    model: str | None = None,
    phase: str = "running",
    shown: tuple[tuple[float, float], ...] = (),
    pace: Pace = PACE,
) -> Sighting:
    """Return what a look told."""
    return Sighting(
        provider="miragic",
        kind="image",
        model=model,
        phase=phase,
        pace=pace,
        seen=seen,
        now=now,
        outcome=outcome,
        progress=None,
        at=at,
        shown=shown,
    )


class Day:
    """Jobs that come one after the other, asked about on virtual time."""

    def __init__(self, policy: IntervalPolicy, *, pace: Pace = PACE) -> None:
        self.policy = policy
        self.pace = pace
        self.now = 0.0
        self.looks = 0
        self.delay = 0.0

    def job(self, duration: float, bar: Callable[[float], float] | None = None, *, model: str | None = None) -> None:
        """Ask about one job until it is found finished."""
        seen, shown, polls = 0.0, list[tuple[float, float]](), 0
        while True:
            progress = shown[-1][1] if shown else None
            now = seen + self.policy.next_interval(
                view(seen, polls=polls, progress=progress, model=model, pace=self.pace)
            )
            polls += 1
            done = now >= duration
            if isinstance(self.policy, AdaptiveInterval):
                self.policy.observe(
                    sighting(
                        seen,
                        now,
                        "done" if done else "pending",
                        at=self.now + now,
                        model=model,
                        shown=tuple(shown) if done else (),
                        pace=self.pace,
                    )
                )
            if done:
                break
            seen = now
            if bar is not None:
                shown.append((seen, bar(seen)))
        self.now += now
        self.looks += polls
        self.delay += now - duration

    def bill(self, delay_cost: float) -> float:
        """Return what the jobs since the last bill cost."""
        cost = self.looks + delay_cost * self.delay
        self.looks, self.delay = 0, 0.0
        return cost


def trained(jobs: int = 50, *, median: float = 8.0, jitter: float = 0.0) -> AdaptiveInterval:
    """Return a policy that saw so many jobs of eight seconds or so."""
    policy, source = AdaptiveInterval(jitter=jitter, seed=1), random.Random(2)
    day = Day(policy)
    for _ in range(jobs):
        day.job(source.lognormvariate(math.log(median), 0.4))
    return policy


def schedule(policy: AdaptiveInterval, count: int = 12) -> list[float]:
    """Return the intervals of a job that never ends."""
    elapsed, intervals = 0.0, list[float]()
    for polls in range(count):
        intervals.append(policy.next_interval(view(elapsed, polls=polls)))
        elapsed += intervals[-1]
    return intervals


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("delay_cost", value) for value in (0, -1, math.nan, math.inf, True, "1")),
        *(("minimum", value) for value in (0, -1, math.nan, math.inf, False)),
        *(("maximum", value) for value in (0.1, math.nan, math.inf, "60")),
        *(("jitter", value) for value in (-0.1, 1, math.nan, None)),
    ],
)
def test_the_numbers_of_an_adaptive_interval_are_checked(name: str, value: Any) -> None:
    """Each number out of range is refused by name."""
    with pytest.raises(InputError, match=f"^{name} must be a number .*; got {re.escape(repr(value))}$"):
        AdaptiveInterval(**{name: value})


elapsed_times = st.floats(0, 1e6) | st.sampled_from([math.nan, math.inf, -1.0, 0.0])


@settings(max_examples=60)
@given(
    bounds=st.tuples(st.floats(0.01, 100), st.floats(0, 1000)),
    delay_cost=st.none() | st.floats(1e-4, 1e3),
    typical=st.none() | st.floats(0, 1e7) | st.sampled_from([math.nan, math.inf, -5.0]),
    looks=st.lists(
        st.tuples(
            elapsed_times,
            elapsed_times,
            st.sampled_from(["pending", "done", "lost"]),
            st.none() | st.floats(allow_nan=True),
        ),
        max_size=25,
    ),
)
def test_an_interval_is_always_within_its_bounds(
    bounds: tuple[float, float],
    delay_cost: float | None,
    typical: float | None,
    looks: list[tuple[float, float, Any, float | None]],
) -> None:
    """Whatever it was told, and whatever a job looks like, the policy answers with a number between its bounds."""
    minimum, maximum = bounds[0], bounds[0] + bounds[1]
    policy = AdaptiveInterval(delay_cost=delay_cost, minimum=minimum, maximum=maximum)
    pace = Pace(first=1, interval=1, maximum=1, max_wait=1, typical=typical)
    for polls, (seen, now, outcome, progress) in enumerate(looks):
        job = view(now, polls=polls, progress=progress, pace=pace)
        assert minimum <= policy.next_interval(job) <= maximum
        shown = () if progress is None else ((seen, progress),)
        policy.observe(sighting(seen, now, outcome, at=float(polls), shown=shown))
        assert 0 <= policy.urgency(job, seen) < math.inf


def test_a_job_that_never_ends_is_asked_about_ever_less_often() -> None:
    """After a week of waiting it is asked about every ten minutes, no more often; the first hour costs a few dozen."""
    policy, elapsed, polls = trained(), 0.0, 0
    while elapsed < 3600:
        elapsed, polls = elapsed + policy.next_interval(view(elapsed, polls=polls)), polls + 1
    assert polls < 60
    assert policy.next_interval(view(7 * 86_400, polls=polls)) == 600


def test_a_job_stuck_at_99_percent_costs_a_few_calls_more_only() -> None:
    """The provider was honest a hundred times; this once its bar stands still before the end for two hours."""
    policy, source = AdaptiveInterval(seed=1), random.Random(3)
    day = Day(policy)
    for _ in range(100):
        duration = source.lognormvariate(math.log(8), 0.4)
        day.job(duration, lambda now, duration=duration: now / duration)  # type: ignore[misc]
    assert policy.statistics()[0].progress_trusted
    day.bill(1)
    day.job(7200)
    without = day.looks
    day.bill(1)
    day.job(7200, lambda _now: 0.99)
    assert day.looks < without + 20


def regular(policy: AdaptiveInterval, *, pace: Pace = PACE, model: str | None = None, phase: str = "running") -> float:
    """Return the first interval of a job after all that are looked at early because nothing is known."""
    for _ in range(SCOUTS):
        policy.next_interval(view(0, polls=0, pace=pace, model=model, phase=phase))
    return policy.next_interval(view(0, polls=0, pace=pace, model=model, phase=phase))


def test_the_documents_hint_sets_the_first_schedule() -> None:
    """Without experience the first call comes as late as the typical duration suggests."""
    first = {
        typical: regular(
            AdaptiveInterval(jitter=0), pace=Pace(first=1, interval=1, maximum=1, max_wait=1, typical=typical)
        )
        for typical in (None, 5.0, 60.0)
    }
    assert 2 < first[5.0] < 6
    assert 25 < first[60.0] < 60
    assert 3 < (first[None] or 0) < 15


@pytest.mark.parametrize(("begins", "first"), [(2.0, 2.0), (0.0, 1.25), (math.nan, 1.25), (500.0, 9.5)])
def test_the_first_jobs_of_a_kind_are_asked_about_early_and_at_doubling_intervals(begins: float, first: float) -> None:
    """From when on the document asks, or a quarter of its interval: a wrong hint must not cost the first user minutes.

    It is never later than the regular first call, and the seventh job is an ordinary one.
    """
    pace = Pace(first=begins, interval=5, maximum=15, max_wait=300, typical=15)
    policy = AdaptiveInterval(jitter=0)
    for _ in range(SCOUTS):
        assert policy.next_interval(view(0, polls=0, pace=pace)) == pytest.approx(first, rel=0.05)
    assert policy.next_interval(view(0, polls=0, pace=pace)) == pytest.approx(9.5, rel=0.05)
    scouting = AdaptiveInterval(jitter=0)
    elapsed = scouting.next_interval(view(0, polls=0, pace=pace))
    while elapsed < 8:
        interval = scouting.next_interval(view(elapsed, pace=pace))
        assert interval <= elapsed
        elapsed += interval


def test_a_document_that_names_no_moment_to_ask_at_sets_none() -> None:
    """Nothing of a pace that makes no sense is used."""
    pace = Pace(first=0, interval=0, maximum=15, max_wait=300, typical=15)
    assert AdaptiveInterval(jitter=0).next_interval(view(0, polls=0, pace=pace)) == pytest.approx(9.5, rel=0.05)


@pytest.mark.parametrize("factor", [1 / 50, 1 / 10, 1 / 3, 3, 10])
def test_a_hint_that_is_wrong_is_found_out_within_a_dozen_jobs(factor: float) -> None:
    """Whatever the document says, jobs 13 to 42 cost at most two fifths more than the best schedule's.

    The best one is a policy's that was told the median and has seen 300 such jobs.
    """
    bills = list[float]()
    for hint, skipped in ((15.0, 12), (15.0 * factor, 300)):
        cost = 0.0
        for seed in range(8):
            pace = Pace(first=2, interval=5, maximum=15, max_wait=300, typical=hint)
            day, source = Day(AdaptiveInterval(delay_cost=1.5 / factor, seed=seed), pace=pace), random.Random(seed)
            for _ in range(skipped):
                day.job(source.lognormvariate(math.log(15 * factor), 0.4))
            day.bill(1)
            for _ in range(30):
                day.job(source.lognormvariate(math.log(15 * factor), 0.4))
            cost += day.bill(1.5 / factor)
        bills.append(cost)
    assert bills[0] < 1.4 * bills[1]


def test_a_long_belief_that_its_own_looks_never_contradict_is_tested_now_and_then() -> None:
    """Where the first call finds nearly every job finished, ever rarer jobs are asked about earlier all the same."""
    policy, early = AdaptiveInterval(delay_cost=0.02, jitter=0), list[int]()
    for number in range(1, 101):
        interval, usual = (policy.next_interval(view(0, polls=polls)) for polls in (0, 1))
        if number > SCOUTS and interval < 0.55 * usual:
            early.append(number)
        policy.observe(sighting(0, 60.0, "done", at=float(number)))
    assert early == [8, 12, 16, 24, 32, 48, 64, 96]


def test_twenty_jobs_teach_a_schedule_that_beats_the_fixed_ones() -> None:
    """Both cost more than the learned one: the period of the documents, and one of a tenth of that."""
    costs = dict[str, float]()
    for name, policy in (
        ("learned", AdaptiveInterval(delay_cost=1.0, seed=1)),
        ("5 s", FixedInterval(5)),
        ("0.5 s", FixedInterval(0.5)),
    ):
        day, source = Day(policy), random.Random(4)
        for number in range(220):
            if number == 20:
                day.bill(1.0)
            day.job(source.lognormvariate(math.log(20), 0.3))
        costs[name] = day.bill(1.0)
    assert costs["learned"] * 1.15 < costs["5 s"]
    assert costs["learned"] * 3 < costs["0.5 s"]


def test_a_day_of_drift_cold_starts_and_a_lying_bar_is_survived() -> None:
    """Durations double, every tenth job starts cold, and the bar goes backwards: no stretch costs twice its best."""
    day, source = Day(AdaptiveInterval(delay_cost=1.0, seed=5)), random.Random(6)
    for median in (8.0, 16.0, 8.0):
        for number in range(150):
            if number == 50:
                day.bill(1.0)
            duration = source.lognormvariate(math.log(median), 0.4) + (40 if source.random() < 0.1 else 0)
            day.job(duration, lambda now, duration=duration: 1 - now / duration)  # type: ignore[misc]
        assert day.bill(1.0) / 100 < {8.0: 7.0, 16.0: 9.0}[median]


def test_progress_that_is_right_saves_a_third() -> None:
    """A hundred jobs with an honest bar cost much less than the same jobs without."""
    costs = list[float]()
    for honest in (True, False):
        day, source = Day(AdaptiveInterval(delay_cost=2.0, seed=7)), random.Random(8)
        for number in range(160):
            if number == 60:
                day.bill(2.0)
            duration = source.lognormvariate(math.log(10), 0.5)
            day.job(duration, (lambda now, duration=duration: now / duration) if honest else None)  # type: ignore[misc]
        costs.append(day.bill(2.0))
    assert costs[0] < 0.7 * costs[1]


def test_each_model_and_phase_has_durations_of_its_own() -> None:
    """What was learned of one kind of job changes nothing for another."""
    policy = AdaptiveInterval(jitter=0)
    before = regular(policy, phase="queued")
    for number in range(30):
        policy.observe(sighting(0, 60, at=float(number)))
        policy.observe(sighting(60, 61, "done", at=float(number)))
    assert regular(policy) > 2 * before
    assert regular(policy, phase="queued") == regular(policy, model="flux") == before


def test_the_clock_of_the_phase_counts_where_it_is_known() -> None:
    """`phase_elapsed` goes before `elapsed`."""
    policy = trained()
    assert policy.next_interval(view(500, phase_elapsed=2)) == policy.next_interval(view(2))
    assert policy.next_interval(view(500)) > policy.next_interval(view(2))


def test_a_lost_job_is_no_finished_one() -> None:
    """Failures say nothing about how long success takes."""
    policy = trained()
    before = schedule(policy)
    for number in range(50):
        policy.observe(sighting(0, 0.5, "lost", at=1e6 + number))
    assert schedule(policy) == before
    assert policy.statistics()[0].jobs_finished == 50


@pytest.mark.parametrize(("seen", "now"), [(2, 1), (-1, 1), (math.nan, 1), (0, math.nan), (0, math.inf), (math.inf, 1)])
def test_a_sighting_whose_times_make_no_sense_is_passed_over(seen: float, now: float) -> None:
    """It neither raises nor teaches."""
    policy = trained()
    before = policy.export()
    policy.observe(sighting(seen, now, "pending", at=1e6))
    policy.observe(sighting(seen, now, "done", at=1e6))
    assert policy.export() == before


def test_statistics_tell_what_was_learned() -> None:
    """Per kind of job: finished jobs, the learned median, the delay cost that follows from it, alarms."""
    (learned,) = trained(60).statistics()
    assert (learned.provider, learned.kind, learned.model, learned.phase) == ("miragic", "image", None, "running")
    assert learned.jobs_finished == 60
    source = random.Random(2)
    drawn = statistics.median(source.lognormvariate(math.log(8), 0.4) for _ in range(60))
    assert learned.median == pytest.approx(drawn, rel=0.1)
    assert learned.delay_cost == pytest.approx(20 / learned.median)
    assert not learned.progress_trusted
    assert learned.drift_alarms <= 1
    assert AdaptiveInterval(delay_cost=3).statistics() == ()
    assert repr(AdaptiveInterval(delay_cost=3)) == "AdaptiveInterval(delay_cost=3.0, 0 kinds of jobs)"


def test_urgency_is_what_not_asking_has_cost() -> None:
    """Nothing right after a look, ever more after it; a second counts as much as the delay cost says."""
    policy = trained()
    job = view(8.0)
    assert policy.urgency(job, 8.0) == 0
    assert 0 < policy.urgency(job, 6.0) < policy.urgency(job, 4.0) < policy.urgency(job, 0.0)
    for last in (9.0, -1.0, math.nan, math.inf):
        assert policy.urgency(job, last) == 0
    cheap, dear = AdaptiveInterval(delay_cost=0.5), AdaptiveInterval(delay_cost=5)
    assert dear.urgency(job, 2.0) == pytest.approx(10 * cheap.urgency(job, 2.0))


def test_at_most_512_kinds_of_jobs_are_kept() -> None:
    """The one longest not reported on goes first."""
    policy = AdaptiveInterval()
    for number in range(512):
        policy.observe(sighting(0, 1, model=str(number)))
    policy.observe(sighting(0, 1, model="0"))
    policy.next_interval(view(0, model="new"))
    kept = {learned.model for learned in policy.statistics()}
    assert len(kept) == 512
    assert {"0", "2", "new"} < kept
    assert "1" not in kept


def test_the_same_seed_gives_the_same_intervals() -> None:
    """Another seed gives others, and without jitter there is nothing to vary."""
    assert schedule(AdaptiveInterval(seed=3)) == schedule(AdaptiveInterval(seed=3))
    assert schedule(AdaptiveInterval(seed=3)) != schedule(AdaptiveInterval(seed=4))
    assert schedule(AdaptiveInterval(seed=3, jitter=0)) == schedule(AdaptiveInterval(seed=4, jitter=0))


@pytest.mark.parametrize("jobs_seen", [0, 50])
def test_jitter_spreads_jobs_that_were_submitted_together(jobs_seen: int) -> None:
    """A thousand jobs within a fifth of a second do not meet again in one tenth of a second."""
    peaks = list[int]()
    for jitter in (0.0, 0.1):
        policy = trained(jobs_seen, jitter=jitter)
        source, calls = random.Random(9), Counter[int]()
        for _ in range(1000):
            start, elapsed = source.uniform(0, 0.2), 0.0
            for polls in range(3):
                elapsed += policy.next_interval(view(elapsed, polls=polls))
                calls[int((start + elapsed) / 0.1)] += 1
        peaks.append(max(calls.values()))
    assert peaks[1] < 0.5 * peaks[0]
    assert peaks[1] < 260


def test_an_export_is_json_and_takes_everything_along() -> None:
    """A policy that loads it asks as the other would have, and exports the same."""
    first = trained(60)
    day, source = Day(first), random.Random(3)
    for _ in range(60):
        duration = source.lognormvariate(math.log(5), 0.4)
        day.job(duration, lambda now, duration=duration: now / duration, model="flux")  # type: ignore[misc]
    exported = json.loads(json.dumps(first.export(), allow_nan=False))
    second = AdaptiveInterval(jitter=0)
    second.load(exported)
    assert second.export() == exported
    told = [[(each.jobs_finished, each.progress_trusted) for each in one.statistics()] for one in (first, second)]
    assert told[0] == told[1] == [(60, False), (60, True)]
    assert schedule(second) == pytest.approx(schedule(first), rel=0.1)
    job = view(2.0, progress=0.3, model="flux")
    assert second.next_interval(job) == pytest.approx(first.next_interval(job), rel=0.1)


def test_loading_leaves_other_kinds_of_jobs_alone() -> None:
    """Only what the export names is replaced."""
    policy = AdaptiveInterval()
    policy.observe(sighting(0, 1, "done", model="flux"))
    policy.load(trained().export())
    assert [(each.model, each.jobs_finished) for each in policy.statistics()] == [("flux", 1), (None, 50)]


HOSTILE: dict[str, tuple[tuple[Any, ...], Any, str]] = {
    "another version": (("version",), 2, "version must be 1; got 2"),
    "no version": (("version",), None, "version must be 1; got None"),
    "true as a version": (("version",), True, "version must be 1; got True"),
    "models that are none": (("models",), {}, "Expected `array`"),
    "a model that is none": (("models", 0), 5, "Expected `object`"),
    "an unknown field": (("models", 0, "extra"), 5, "unknown field `extra`"),
    "a negative count": (("models", 0, "events", 3), -1.0, r"`float` >= 0.* `\$.models\[0\].events\[3\]`"),
    "a count that is NaN": (("models", 0, "at_risk", 3), math.nan, r"not finite|`float`"),
    "an infinite count": (("models", 0, "at_risk", 3), math.inf, "`float` <= 1000000"),
    "an endless list": (("models", 0, "events"), [0.0] * 129, "length <= 128"),
    "more ended than at risk": (("models", 0, "at_risk"), [], "jobs ended and only 0 were at risk"),
    "a deviation of nothing": (("models", 0, "deviation"), 0.0, "`float` >= 0.001"),
    "a mean that is NaN": (("models", 0, "mean"), math.nan, "not finite|`float`"),
    "text for a number": (("models", 0, "evidence"), "5", "Expected `float`, got `str`"),
    "a hint of nothing": (("models", 0, "typical"), 0, "`float` > 0"),
    "a missing band": (("models", 0, "bands"), [], "length >= 4"),
    "a band with a credit of its own choice": (("models", 0, "bands", 0, "credit"), 1e9, "`float` <= 12"),
    "a huge count of jobs": (("models", 0, "jobs"), 2**70, "int"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_broken_export_is_refused_and_changes_nothing(name: str) -> None:
    """The error says what is wrong, and the policy goes on as before."""
    path, value, message = HOSTILE[name]
    exported = copy.deepcopy(GOOD)
    place: Any = exported
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    policy = trained(10)
    before = policy.export()
    with pytest.raises(ConfigurationError, match=f"no export of an adaptive interval policy: .*(?:{message})"):
        policy.load(exported)
    assert policy.export() == before


GOOD = trained(30).export()
GOOD_TEXT = json.dumps(GOOD)


@pytest.mark.parametrize("exported", [None, 5, [], {}, "{}", b"[]", "null"])
def test_what_is_no_export_at_all_is_refused(exported: Any) -> None:
    """Anything may be passed; only an export is taken."""
    with pytest.raises(ConfigurationError, match="version must be 1; got None"):
        AdaptiveInterval().load(exported)


@pytest.mark.parametrize(
    "exported",
    ["", b"", "text", b"\xff\xfe", "\ud800", b"[" * 100_000, b"\x00" * 512, GOOD_TEXT[: len(GOOD_TEXT) // 2]],
    ids=["nothing", "no bytes", "text", "no UTF-8", "half a surrogate", "deep", "zeros", "cut short"],
)
def test_a_damaged_file_is_refused_and_changes_nothing(exported: str | bytes) -> None:
    """A write that was cut off, a disk that went bad: one error to catch, and the policy goes on as before."""
    policy = trained(10)
    before = policy.export()
    with pytest.raises(ConfigurationError, match="no export of an adaptive interval policy: no JSON: "):
        policy.load(exported)
    assert policy.export() == before


def test_an_export_that_names_a_kind_twice_is_refused() -> None:
    """It would count twice."""
    doubled = {**GOOD, "models": GOOD["models"] * 2}
    with pytest.raises(ConfigurationError, match=r"models\[1\] is about the same kind of job as one before"):
        AdaptiveInterval().load(doubled)


def test_loading_adds_to_what_was_learned_meanwhile() -> None:
    """Five jobs of the new process and sixty of the old one are sixty-five; the new ones count in full."""
    old, new = trained(60), trained(5)
    new.load(old.export())
    (learned,) = new.statistics()
    assert learned.jobs_finished == 65
    assert schedule(new, 3) == pytest.approx(schedule(old, 3), rel=0.2)
    full, other = trained(400), AdaptiveInterval()
    before = full.statistics()[0].median
    for number in range(400):
        other.observe(sighting(100, 101, "done", at=float(number)))
    full.load(other.export())
    assert other.statistics()[0].median > 95
    assert full.statistics()[0].median == pytest.approx(before, rel=0.1)  # there was room for hardly anything
    assert full.statistics()[0].jobs_finished == 800


def test_progress_loaded_counts_where_it_has_learned_from_more() -> None:
    """A band of progress is taken over from whichever has seen more of it."""
    honest = AdaptiveInterval(seed=1)
    day, source = Day(honest), random.Random(3)
    for _ in range(60):
        duration = source.lognormvariate(math.log(5), 0.4)
        day.job(duration, lambda now, duration=duration: now / duration)  # type: ignore[misc]
    policy = trained(10)
    policy.load(honest.export())
    assert policy.statistics()[0].progress_trusted
    honest.load(trained(10).export())
    assert honest.statistics()[0].progress_trusted


def test_what_fifty_kinds_of_jobs_taught_takes_a_hundred_kilobytes() -> None:
    """The journal keeps it: two to three kilobytes a kind, whatever was seen."""
    policy = AdaptiveInterval(seed=1)
    day, source = Day(policy), random.Random(2)
    for model in range(50):
        for _ in range(30):
            day.job(source.lognormvariate(math.log(5 + model), 0.5), model=f"model {model}")
    assert len(json.dumps(policy.export())) < 50 * 3000


def test_a_new_process_starts_warm(tmp_path: Path) -> None:
    """What one process wrote to a file makes another ask at the very same moments."""
    code = """
        import json, sys
        from mirage_async.models import JobStatus, Pace
        from mirage_async.scheduler import AdaptiveInterval, JobView
        policy = AdaptiveInterval(jitter=0)
        policy.load(open(sys.argv[1], "rb").read())
        pace = Pace(first=1, interval=2, maximum=15, max_wait=300)
        views = (
            JobView(provider="miragic", kind="image", model=None, pace=pace, status=JobStatus.RUNNING, progress=None,
                    elapsed=step / 4, polls=1)
            for step in range(200)
        )
        print(json.dumps([policy.next_interval(view) for view in views]))
    """
    first, again = trained(60), AdaptiveInterval(jitter=0)
    kept = tmp_path / "durations.json"
    kept.write_text(json.dumps(first.export()), encoding="utf-8")
    printed = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(kept)], check=True, capture_output=True, timeout=60
    ).stdout
    again.load(first.export())
    told = [again.next_interval(view(step / 4)) for step in range(200)]
    assert [first.next_interval(view(step)) for step in range(8)] == pytest.approx(told[:32:4], rel=0.2)
    cold = [AdaptiveInterval(jitter=0).next_interval(view(step / 4)) for step in range(200)]
    assert json.loads(printed) == told
    assert cold != pytest.approx(told, rel=0.2)


def test_the_example_of_load_runs_as_it_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It begins without a file and leaves one."""
    monkeypatch.chdir(tmp_path)
    (example,) = doctest.DocTestFinder(recurse=False).find(
        AdaptiveInterval.load, "load", globs={"AdaptiveInterval": AdaptiveInterval}
    )
    assert doctest.DocTestRunner().run(example) == (0, len(example.examples))
    AdaptiveInterval().load((tmp_path / "durations.json").read_bytes())
    assert [path.name for path in tmp_path.iterdir()] == ["durations.json"]


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=60)
@given(field=st.sampled_from(sorted(GOOD["models"][0])), value=json_values)
def test_no_value_in_an_export_poisons_the_policy(field: str, value: Any) -> None:
    """It is refused, or the intervals are as good as ever: numbers within the bounds."""
    exported = copy.deepcopy(GOOD)
    exported["models"][0][field] = value
    policy = AdaptiveInterval()
    try:
        policy.load(exported)
    except ConfigurationError:
        return
    assert all(0.25 <= interval <= 600 for interval in schedule(policy))
