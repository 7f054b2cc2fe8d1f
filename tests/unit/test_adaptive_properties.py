"""What holds of the adaptive policy whatever it is told: bounds, order, finite work, and that nobody starves."""

from __future__ import annotations

import json
import math
from typing import Any, Literal, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from virtual_days import sighting, view

from mirage_async.exceptions import ConfigurationError
from mirage_async.models import Pace
from mirage_async.scheduler import AdaptiveInterval, _looks
from mirage_async.scheduler._durations import BUCKETS

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


Told: TypeAlias = tuple[float, float, Literal["pending", "done", "lost"], float, float | None]

times = st.floats(0, 1e5) | st.floats(0, 1e300) | st.sampled_from([0.0, 1e-9, math.nan, math.inf, -1.0])
moments = st.floats(0, 1e6) | st.sampled_from([math.nan, math.inf, -math.inf, -1e9])
bars = st.none() | st.floats(0, 1) | st.sampled_from([math.nan, math.inf, -1.0, 99.0, 1e-300])
told = st.tuples(times, times, st.sampled_from(["pending", "done", "lost"]), moments, bars)


def taught(policy: AdaptiveInterval, looks: list[Told]) -> AdaptiveInterval:
    """Tell a policy all that, in whatever order and at whatever moments of whatever clock."""
    for seen, longer, outcome, at, bar in looks:
        shown = () if bar is None else ((seen, bar), (longer, bar), (-1.0, bar))
        policy.next_interval(view(seen, polls=0, progress=bar))
        policy.observe(sighting(seen, seen + longer, outcome, at=at, shown=shown))
    return policy


@settings(max_examples=60)
@given(looks=st.lists(told, max_size=40), bar=bars, minimum=st.floats(0.01, 5), longest=st.floats(1, 2000))
def test_nobody_starves_whatever_was_seen(looks: list[Told], bar: float | None, minimum: float, longest: float) -> None:
    """Moments to ask at follow each other, none sooner than the minimum and none later than the maximum, for ever.

    So a job that has ended is found within `maximum`, and one that never ends costs at most so many calls as `minimum`
    has room for.
    """
    policy = taught(AdaptiveInterval(minimum=minimum, maximum=minimum + longest, seed=1), looks)
    elapsed = 0.0
    for polls in range(60):
        interval = policy.next_interval(view(elapsed, polls=polls, progress=bar))
        assert minimum <= interval <= minimum + longest
        assert elapsed < elapsed + interval
        elapsed += interval


@settings(max_examples=40)
@given(looks=st.lists(told, max_size=60))
def test_the_work_is_bounded_whatever_is_seen(looks: list[Told]) -> None:
    """The tables neither grow nor are made anew more often than the sightings are worth, and an export stays small."""
    policy = taught(AdaptiveInterval(seed=1), looks)
    exported = policy.export()
    assert len(exported["models"]) <= 1
    for each in exported["models"]:
        assert max(len(each["events"]), len(each["at_risk"]), len(each["at_first"])) <= BUCKETS
    assert len(json.dumps(exported)) < 6000


@pytest.mark.parametrize("burst", [1, 50, 5000])
def test_tables_are_made_at_most_ten_times_a_second(burst: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many jobs end at once: a second of them costs ten plans."""
    policy, made = AdaptiveInterval(seed=1), list[float]()
    policy.next_interval(view(0))
    plan = _looks.plan

    def counted(*given: Any) -> tuple[list[int], float]:
        made.append(given[-1])
        return plan(*given)

    monkeypatch.setattr(_looks, "plan", counted)
    for number in range(burst):
        policy.observe(sighting(3, 4, "done", at=number / burst))
    assert min(burst, 2) <= len(made) + 1 <= 11


@pytest.mark.parametrize("odd", [math.inf, -math.inf, math.nan, 1e300, -1e300])
def test_a_clock_that_jumps_stops_no_learning(odd: float) -> None:
    """A moment out of all order is survived: what comes after it is learned from as ever."""
    policy, other = AdaptiveInterval(jitter=0), AdaptiveInterval(jitter=0)
    for each, first in ((policy, odd), (other, -1.0)):
        each.observe(sighting(3, 4, "done", at=first))
        for number in range(40):
            each.observe(sighting(40, 41, "done", at=float(number)))
    assert policy.statistics()[0].median == pytest.approx(other.statistics()[0].median, rel=0.02)
    assert policy.statistics()[0].median > 30


@settings(max_examples=40)
@given(
    looks=st.lists(st.tuples(st.floats(0, 60), st.floats(0, 60), st.sampled_from(["pending", "done"])), max_size=30),
    elapsed=st.floats(0, 300),
    jitter=st.floats(0, 0.9),
)
def test_jitter_stays_within_its_share(looks: list[tuple[float, float, Any]], elapsed: float, jitter: float) -> None:
    """An interval differs from the one without jitter by its share, twice that (at most half) for a new kind of job."""
    still, shaky = AdaptiveInterval(jitter=0, minimum=1e-6), AdaptiveInterval(jitter=jitter, minimum=1e-6)
    for policy in (still, shaky):
        policy.next_interval(view(0.0))
        for number, (seen, longer, outcome) in enumerate(looks):
            policy.observe(sighting(seen, seen + longer, outcome, at=float(number)))
    share = max(jitter, min(0.5, 2 * jitter)) if still.export()["models"][0]["evidence"] <= 10 else jitter
    exact = still.next_interval(view(elapsed))
    for _ in range(20):
        varied = shaky.next_interval(view(elapsed))
        assert exact * (1 - share) * 0.999 <= varied <= min(600.0, exact * (1 + share) * 1.001)


@settings(max_examples=40)
@given(looks=st.lists(told, max_size=40), typical=st.none() | st.floats(allow_nan=True))
def test_every_export_is_taken_by_another_policy_and_comes_out_of_it_as_it_went_in(
    looks: list[Told], typical: float | None
) -> None:
    """Whatever was seen, through JSON and back: two that load it ask at the same moments."""
    first = AdaptiveInterval(seed=1)
    pace = Pace(first=1, interval=1, maximum=1, max_wait=1, typical=typical)
    first.next_interval(view(0, pace=pace))
    exported = json.dumps(taught(first, looks).export(), allow_nan=False)
    second, third = AdaptiveInterval(jitter=0), AdaptiveInterval(jitter=0)
    second.load(exported)
    assert json.dumps(second.export()) == exported
    third.load(second.export())
    for elapsed in (0.0, 0.3, 5.0, 1e3, 1e5):
        assert second.next_interval(view(elapsed)) == third.next_interval(view(elapsed))


@settings(max_examples=40)
@given(mine=st.lists(told, max_size=20), theirs=st.lists(told, max_size=20))
def test_what_is_merged_is_as_sound_as_its_parts(mine: list[Told], theirs: list[Told]) -> None:
    """Evidence of both, no more than a model holds, and an export that a third policy takes."""
    both, other = taught(AdaptiveInterval(seed=1), mine), taught(AdaptiveInterval(seed=2), theirs)
    jobs = sum(each.jobs_finished for policy in (both, other) for each in policy.statistics())
    both.load(other.export())
    assert sum(each.jobs_finished for each in both.statistics()) == jobs
    assert all(each["evidence"] <= 101 for each in both.export()["models"])
    try:
        AdaptiveInterval().load(both.export())
    except ConfigurationError as error:
        pytest.fail(str(error))
    assert 0.25 <= both.next_interval(view(3.0)) <= 600
