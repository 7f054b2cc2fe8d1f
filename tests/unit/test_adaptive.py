"""The adaptive interval policy: what it learns and forgets, and what it never does."""

from __future__ import annotations

import copy
import math
import random
import re
import statistics
from collections import Counter
from operator import truediv
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from virtual_days import SCOUTS, Day, regular, schedule, sighting, trained, view

from mirage_async.exceptions import InputError
from mirage_async.models import Pace
from mirage_async.scheduler import AdaptiveInterval, FixedInterval

if TYPE_CHECKING:
    from collections.abc import Callable


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


def test_a_job_whose_first_calls_fail_is_one_scout_and_no_more() -> None:
    """It is asked about again and again without having been seen; the next five of its kind are scouts all the same."""
    pace = Pace(first=2, interval=5, maximum=15, max_wait=300, typical=15)
    policy = AdaptiveInterval(jitter=0)
    elapsed = policy.next_interval(view(0, polls=0, pace=pace))
    for _ in range(3 * SCOUTS):
        again = policy.next_interval(view(elapsed, polls=0, pace=pace))
        assert again <= elapsed  # a scout still
        elapsed += 1.0
    firsts = [policy.next_interval(view(0, polls=0, pace=pace)) for _ in range(SCOUTS)]
    assert firsts == pytest.approx([2.0] * (SCOUTS - 1) + [9.5], rel=0.05)


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


LIARS: dict[str, Callable[[float, float], float]] = {
    "backwards": lambda now, duration: 1 - now / duration,
    "half as far": lambda now, duration: 0.5 * now / duration,
    "sawtooth": lambda now, duration: 7 * now / duration % 1,
    "stuck at 6 %": lambda _now, _duration: 0.06,
    "stuck at 26 %": lambda _now, _duration: 0.26,
    "stuck at 99 %": lambda _now, _duration: 0.99,
}


def billed(
    policy: AdaptiveInterval, durations: list[float], bar: Callable[[float, float], float] | None, delay_cost: float
) -> tuple[float, float]:
    """Return what jobs cost one after the other, and the longest delay of all."""
    day, longest = Day(policy), 0.0
    for duration in durations:
        before = day.delay
        day.job(duration, None if bar is None else lambda now, duration=duration: bar(now, duration))  # type: ignore[misc]
        longest = max(longest, day.delay - before)
    return day.bill(delay_cost), longest


def test_a_bar_that_was_right_and_begins_to_lie_does_not_hurt_for_long() -> None:
    """It was exact for a hundred jobs of half a minute; the next eight cost at most two fifths more than without a bar.

    No end is noticed more than one and a half typical durations late. That takes all of what keeps a liar in bounds:
    little credit that can be saved up, all of a bar silenced by one part of it, and no push far beyond the durations.
    """
    delay_cost, costs, longest = 20 / 30, dict[str, float](), dict[str, float]()
    for seed in range(12):
        source = random.Random(seed)
        durations = [source.lognormvariate(math.log(30), 0.5) for _ in range(108)]
        fooled, bare = (AdaptiveInterval(delay_cost=delay_cost, seed=seed) for _ in range(2))
        billed(fooled, durations[:100], truediv, delay_cost)
        billed(bare, durations[:100], None, delay_cost)
        for name, bar in (("none", None), *LIARS.items()):
            policy = copy.deepcopy(bare if bar is None else fooled)
            cost, late = billed(policy, durations[100:], bar, delay_cost)
            costs[name] = costs.get(name, 0.0) + cost
            longest[name] = max(longest.get(name, 0.0), late)
    assert {name for name in LIARS if costs[name] > 1.4 * costs["none"]} == set()
    assert {name for name in LIARS if longest[name] > 45} == set()


def test_a_first_look_comes_early_where_progress_is_going_to_tell_the_rest() -> None:
    """It costs a call and saves more; where progress is not sharp, or a delay is cheap, it does not."""
    policy, source = AdaptiveInterval(delay_cost=2.0, jitter=0), random.Random(8)
    billed(policy, [source.lognormvariate(math.log(10), 0.5) for _ in range(100)], truediv, 2.0)
    sharp = policy.export()
    blunt = copy.deepcopy(sharp)
    for band in blunt["models"][0]["bands"]:
        band["credit"] = 0.0

    def first(exported: dict[str, Any], delay_cost: float) -> float:
        other = AdaptiveInterval(delay_cost=delay_cost, jitter=0)
        other.load(exported)
        return other.next_interval(view(0, polls=0))

    assert first(sharp, 2.0) == pytest.approx(0.6 * first(blunt, 2.0))
    assert first(sharp, 0.5) == first(blunt, 0.5)


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


@pytest.mark.parametrize("late", [-5.0, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("polls", [0, -7])
def test_counts_that_make_no_sense_leave_the_statistics_alone(polls: int, late: float) -> None:
    """The means and the percentile stay those of the sightings before; the duration counts all the same."""
    policy = AdaptiveInterval()
    good = msgspec.structs.replace(sighting(1.0, 2.0, "done"), polls=2, late=0.5)
    policy.observe(good)
    policy.observe(msgspec.structs.replace(good, polls=polls, late=late))
    (told,) = policy.statistics()
    assert (told.jobs_finished, told.polls_per_job) == (2, 2.0)
    assert (told.delay_bound_mean, told.delay_bound_p95) == (0.5, 0.5)


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
