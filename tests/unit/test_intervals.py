"""Interval policies: the first interval, the growth, the ceiling and the jitter."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirage_async.exceptions import InputError
from mirage_async.models import JobStatus, Pace
from mirage_async.scheduler import BackoffInterval, FixedInterval, JobView

if TYPE_CHECKING:
    from mirage_async.scheduler import IntervalPolicy

PACE = Pace(first=3, interval=2, maximum=20, max_wait=100)


def view(polls: int, pace: Pace = PACE) -> JobView:
    """Return what a policy sees of a job after so many answered status calls."""
    return JobView(
        provider="miragic",
        kind="image",
        model=None,
        pace=pace,
        status=JobStatus.RUNNING,
        progress=None,
        elapsed=1.0,
        polls=polls,
    )


def intervals(policy: IntervalPolicy, count: int) -> list[float]:
    """Return the first intervals of a job."""
    return [policy.next_interval(view(polls)) for polls in range(count)]


def test_a_fixed_interval_is_always_the_same() -> None:
    """Without jitter every interval is the number given, the first one included."""
    assert intervals(FixedInterval(0.5, jitter=0), 4) == [0.5] * 4


def test_backoff_follows_the_documents_pace() -> None:
    """By default: the document's first wait, its interval, growth by half, its ceiling."""
    assert intervals(BackoffInterval(jitter=0), 8) == [3, 2, 3, 4.5, 6.75, 10.125, 15.1875, 20]


def test_backoff_takes_its_own_numbers_where_they_are_given() -> None:
    """`first`, `interval`, `factor` and `maximum` override the document."""
    policy = BackoffInterval(first=0, interval=1, factor=3, maximum=5, jitter=0)
    assert intervals(policy, 5) == [0, 1, 3, 5, 5]


def test_a_factor_of_one_does_not_grow() -> None:
    """A factor of 1 keeps the interval."""
    assert intervals(BackoffInterval(factor=1, jitter=0), 4) == [3, 2, 2, 2]


@pytest.mark.parametrize("factor", [1.5, 1e4, 1e5, 1e300])
def test_the_growth_stays_finite_for_ever(factor: float) -> None:
    """A job asked about a million times has an interval like any other, however fast they grew."""
    policy = BackoffInterval(factor=factor, jitter=0)
    assert [policy.next_interval(view(polls)) for polls in (20, 65, 10**6)] == [20, 20, 20]


@given(
    polls=st.integers(0, 10_000),
    jitter=st.floats(0, 0.99),
    factor=st.floats(1, 10),
    pace=st.builds(
        Pace,
        first=st.floats(0, 1e4),
        interval=st.floats(0.01, 1e4),
        maximum=st.floats(0.01, 1e4),
        max_wait=st.just(1.0),
    ),
)
def test_jitter_stays_within_its_share(polls: int, jitter: float, factor: float, pace: Pace) -> None:
    """An interval differs from the unjittered one by at most the share, whatever the numbers."""
    exact = BackoffInterval(factor=factor, jitter=0).next_interval(view(polls, pace))
    varied = BackoffInterval(factor=factor, jitter=jitter).next_interval(view(polls, pace))
    assert exact * (1 - jitter) * 0.999999 <= varied <= exact * (1 + jitter) * 1.000001
    assert exact <= max(pace.first, pace.maximum)


@pytest.mark.parametrize("policy", [FixedInterval(10), BackoffInterval(first=10)], ids=["fixed", "backoff"])
def test_jitter_spreads_jobs_that_were_submitted_together(policy: IntervalPolicy) -> None:
    """By default intervals vary by a tenth to both sides, and they do vary."""
    drawn = [policy.next_interval(view(0)) for _ in range(500)]
    assert 9 <= min(drawn) < 9.3
    assert 10.7 < max(drawn) <= 11


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), True, "5", None])
def test_a_fixed_interval_must_be_seconds_above_zero(seconds: Any) -> None:
    """The message shows what was given."""
    with pytest.raises(InputError, match=re.escape(f"seconds must be a number of seconds above 0; got {seconds!r}")):
        FixedInterval(seconds)


@pytest.mark.parametrize("jitter", [-0.1, 1, float("nan"), True, "x"])
def test_jitter_must_be_a_share_below_one(jitter: Any) -> None:
    """A jitter of 1 could mean no interval at all."""
    message = re.escape(f"jitter must be at least 0 and below 1; got {jitter!r}")
    with pytest.raises(InputError, match=message):
        FixedInterval(1, jitter=jitter)
    with pytest.raises(InputError, match=message):
        BackoffInterval(jitter=jitter)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("first", -1),
        ("first", float("nan")),
        ("interval", 0),
        ("interval", True),
        ("maximum", 0),
        ("maximum", float("inf")),
        ("factor", 0.99),
        ("factor", float("inf")),
        ("factor", float("nan")),
        ("factor", True),
        ("factor", "2"),
    ],
)
def test_the_numbers_of_a_backoff_are_checked(name: str, value: Any) -> None:
    """Each number out of range is refused by name."""
    with pytest.raises(InputError, match=f"{name} must be a number of .*; got {re.escape(repr(value))}"):
        BackoffInterval(**{name: value})


def test_policies_describe_themselves() -> None:
    """A log line with a policy in it says which one."""
    assert repr(FixedInterval(2)) == "FixedInterval(2)"
    assert repr(BackoffInterval(first=1)) == "BackoffInterval(first=1, interval=None, maximum=None)"
