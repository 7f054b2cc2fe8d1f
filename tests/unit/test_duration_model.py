"""The learned durations: the schedule against a brute force, censored evidence, drift, tables that stay sane."""

from __future__ import annotations

import itertools
import math
import random
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirage_async.scheduler import _looks
from mirage_async.scheduler._durations import EDGES, DurationModel
from mirage_async.scheduler._fitting import Prior

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ALLOWED = _looks.windows(EDGES, minimum=0.25, maximum=3600)


def model(typical: float | None = None, delay_cost: float | None = 4.0) -> DurationModel:
    """Return a model that knows at most a hint."""
    return DurationModel(prior=Prior.of(typical), allowed=ALLOWED, delay_cost=delay_cost)


def lognormal(median: float, sigma: float, seed: int) -> Callable[[], float]:
    """Return what draws durations."""
    source = random.Random(seed)
    return lambda: source.lognormvariate(math.log(median), sigma)


def watch(durations: DurationModel, duration: float, at: float) -> int:
    """Look at one job as the model says until it is done; return the number of looks."""
    seen, looks = 0.0, 0
    while True:
        now, looks = durations.next_look(seen), looks + 1
        if now >= duration:
            durations.done(seen, now)
            durations.refresh(at)
            return looks
        durations.pending(seen, now)
        seen = now


def train(durations: DurationModel, draw: Callable[[], float], count: int) -> DurationModel:
    """Let so many jobs pass, one after the other."""
    for number in range(count):
        watch(durations, draw(), durations.jobs + number / count)
    return durations


def cost_of(
    looks: Sequence[int], times: Sequence[float], finished: Sequence[float], area: Sequence[float], delay_cost: float
) -> float:
    """Return what looking at these times costs; what is unfinished at the last one needs one look more."""
    cost, here = 0.0, 0
    for there in looks:
        span = times[there] - times[here]
        cost += 1 - finished[here] + delay_cost * (area[there] - area[here] - finished[here] * span)
        here = there
    return cost + 1 - finished[-1]


@given(
    steps=st.lists(st.floats(0.1, 10), min_size=1, max_size=7),
    masses=st.lists(st.floats(0, 1), min_size=9, max_size=9),
    delay_cost=st.floats(0.01, 20),
)
def test_the_plan_is_the_best_of_all_schedules(steps: list[float], masses: list[float], delay_cost: float) -> None:
    """No subset of the times costs less than what the dynamic program chooses, and it costs what it says."""
    times = [0.0, *itertools.accumulate(steps)]
    total = sum(masses) + 1e-9
    finished = [0.0, *(part / total for part in itertools.accumulate(masses[: len(steps)]))]
    area = _looks.areas(times, finished)
    allowed = _looks.windows(times, minimum=0, maximum=math.inf)
    following, expected = _looks.plan(times, finished, area, allowed, delay_cost)
    last = len(times) - 1
    every = ([*chosen, last] for size in range(last) for chosen in itertools.combinations(range(1, last), size))
    best = min(cost_of(looks, times, finished, area, delay_cost) for looks in every)
    chosen, here = list[int](), 0
    while here != last:
        here = following[here]
        chosen.append(here)
    assert expected == pytest.approx(best)
    assert cost_of(chosen, times, finished, area, delay_cost) == pytest.approx(best)


def test_windows_keep_the_shortest_and_the_longest_interval() -> None:
    """A look follows within both bounds wherever the grid has such a time, else at the nearest later one."""
    times = [0.0, 1.0, 2.0, 4.0, 8.0]
    assert _looks.windows(times, minimum=1.5, maximum=4.0) == [(2, 4), (3, 4), (3, 4), (4, 5)]
    assert _looks.windows(times, minimum=100, maximum=200) == [(4, 5)] * 4


looks = st.lists(st.tuples(st.sampled_from(["pending", "done"]), st.floats(0, 1e5), st.floats(0, 1e5)), max_size=60)


@settings(max_examples=60)
@given(looks=looks, typical=st.none() | st.floats(0.01, 1e5), delay_cost=st.none() | st.floats(1e-4, 1e3))
def test_whatever_is_seen_the_tables_stay_sane(
    looks: list[tuple[str, float, float]], typical: float | None, delay_cost: float | None
) -> None:
    """Shares never fall and stay within 0 and 1, every next look is later, and no number is anything but finite."""
    durations = model(typical, delay_cost)
    for number, (outcome, seen, longer) in enumerate(looks):
        (durations.pending if outcome == "pending" else durations.done)(seen, seen + longer)
        durations.refresh(float(number))
    shares = [durations.share_finished(edge) for edge in EDGES]
    assert all(0 <= low <= high <= 1 for low, high in pairwise(shares))
    assert all(durations.next_look(edge) > edge for edge in EDGES)
    assert 0 < durations.median <= EDGES[-1]
    assert math.isfinite(durations.expected_cost)
    assert durations.price > 0
    assert all(math.isfinite(count) and count >= 0 for counts in durations.counts() for count in counts)


@given(elapsed=st.floats(0, 1e5))
def test_looks_follow_each_other_until_the_end_of_the_tables(elapsed: float) -> None:
    """From any moment on the schedule moves forward, and leaves the tables after a bounded number of looks."""
    durations, count = model(), 0
    while elapsed < math.inf:
        following = durations.next_look(elapsed)
        assert following > elapsed
        elapsed, count = following, count + 1
        assert count < 130


def test_a_hundred_jobs_teach_their_median() -> None:
    """The learned median is near the true one, whatever was believed before."""
    for typical in (None, 2.0, 60.0):
        assert train(model(typical), lognormal(8, 0.4, 1), 100).median == pytest.approx(8, rel=0.12)


def test_without_a_delay_cost_a_typical_duration_is_worth_twenty_looks() -> None:
    """The delay cost follows the learned median, between one look in half a minute and four a second."""
    assert model(20, None).price == pytest.approx(20 / model(20).median)
    assert model(0.5, None).price == 4
    assert model(6000, None).price == pytest.approx(1 / 30)


def test_a_burst_of_unfinished_jobs_is_not_taken_for_short_ones() -> None:
    """While a tenth of the jobs has ended, the model knows the others by their age; who counts the ended is fooled."""
    draw, durations = lognormal(10, 0.5, 3), model()
    jobs, ended = [draw() for _ in range(300)], list[float]()
    for second in range(1, 6):
        for duration in jobs:
            if duration > second:
                durations.pending(second - 1, second)
            elif duration > second - 1:
                durations.done(second - 1, second)
                ended.append(duration)
            durations.refresh(float(second))
    assert len(ended) < 0.12 * len(jobs)
    assert sorted(ended)[len(ended) // 2] < 5
    assert 7 < durations.median < 16


def test_nothing_but_unfinished_jobs_does_not_drive_the_model_to_infinity() -> None:
    """A thousand jobs that nobody saw end are evidence for longer ones, of limited weight."""
    durations = model()
    for second in range(1, 30):
        for _ in range(1000):
            durations.pending(second - 1, second)
        durations.refresh(float(second))
    assert 10 < durations.median < 300


@pytest.mark.parametrize("factor", [2.0, 0.5])
def test_an_alarm_is_raised_when_durations_change_for_good(factor: float) -> None:
    """Durations that double or halve are noticed within thirty jobs, and soon learned."""
    for seed in range(5):
        durations = train(model(), lognormal(8, 0.4, seed), 100)
        before = durations.drifts
        draw = lognormal(8 * factor, 0.4, seed + 100)
        train(durations, draw, 30)
        assert durations.drifts > before
        assert train(durations, draw, 40).median == pytest.approx(8 * factor, rel=0.25)


def test_steady_durations_raise_hardly_an_alarm() -> None:
    """Three thousand jobs of one law raise at most a few false alarms."""
    alarms = sum(train(model(), lognormal(8, 0.5, seed), 1000).drifts for seed in range(3))
    assert alarms <= 6


@pytest.mark.parametrize(("before", "every"), [(1, 0.1), (10, 0.5)])
def test_the_tables_are_made_at_most_ten_times_a_second_and_twice_once_much_is_known(before: int, every: float) -> None:
    """A thousand finished jobs within a moment cost one rebuild."""
    durations = model(60.0)
    for moment in range(10):
        for _ in range(before):
            durations.done(30, 50)
        durations.refresh(10.0 * moment)
    known = durations.median
    for _ in range(10):
        durations.done(25, 45)
        durations.refresh(90.0 + 0.98 * every)
    assert durations.median == known
    durations.refresh(90.0 + 1.02 * every)
    assert durations.median < known


def test_the_index_is_the_delay_to_expect() -> None:
    """It is how long ago the job ended, on average over all the moments it may have ended at, 0 where it did not."""
    durations = train(model(), lognormal(8, 0.5, 2), 50)
    for last, now in ((0.0, 6.0), (5.0, 5.1), (7.0, 19.0), (100.0, 200.0), (1e4, 1e5)):
        steps = 20_000
        width = (now - last) / steps
        begin = durations.share_finished(last)
        shares = (durations.share_finished(last + (number + 0.5) * width) - begin for number in range(steps))
        assert durations.index(last, now) == pytest.approx(width * sum(shares) / (1 - begin), rel=1e-3, abs=1e-9)
    assert durations.index(5.0, 5.0) == 0


def test_counts_taken_over_are_the_counts_given() -> None:
    """A model set up from another's counts schedules as that one does."""
    first = train(model(), lognormal(8, 0.5, 2), 60)
    first.tabulate()
    second = model()
    second.evidence, second.mean, second.deviation = first.evidence, first.mean, first.deviation
    second.restore(*first.counts())
    assert [second.next_look(edge) for edge in EDGES] == [first.next_look(edge) for edge in EDGES]


def test_old_evidence_fades() -> None:
    """Evidence never weighs more than the last hundred jobs or so, however many there were."""
    durations = train(model(), lognormal(1, 0.3, 5), 2000)
    assert durations.jobs == 2000
    assert 95 < durations.evidence <= 100
