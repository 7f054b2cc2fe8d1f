"""Limits are checked where they are made."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest

from mirage_async.exceptions import InputError
from mirage_async.scheduler import Limits


def test_the_defaults_bound_the_status_calls_only() -> None:
    """Jobs and rate are unlimited, status calls in flight are 32."""
    limits = Limits()
    assert (limits.jobs, limits.polls, limits.polls_per_second) == (None, 32, None)


@pytest.mark.parametrize(
    "limits", [{"jobs": 1}, {"polls": 1}, {"polls": None}, {"polls_per_second": 0.01}, {"polls_per_second": 500}]
)
def test_none_and_every_number_in_range_is_welcome(limits: dict[str, Any]) -> None:
    """None means unlimited; the smallest limits are 1 and anything above 0."""
    made = Limits(**limits)
    assert {name: getattr(made, name) for name in limits} == limits


@pytest.mark.parametrize("name", ["jobs", "polls"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True, "3"])
def test_a_count_must_be_a_whole_number_of_at_least_one(name: str, value: Any) -> None:
    """The message names the limit and what was given."""
    with pytest.raises(InputError, match=re.escape(f"Limits.{name} must be a whole number of at least 1, or None")):
        Limits(**{name: value})


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), True, "3"])
def test_a_rate_must_be_a_number_above_zero(value: Any) -> None:
    """The message names the limit and what was given."""
    with pytest.raises(InputError, match=re.escape(f"above 0, or None for no limit; got {value!r}")):
        Limits(polls_per_second=value)


def test_asking_early_is_a_choice_and_needs_a_rate() -> None:
    """Without a limit on the rate there would be no end to what could be asked early."""
    assert not Limits(polls_per_second=3).ask_early
    assert Limits(polls_per_second=3, ask_early=True).ask_early
    with pytest.raises(InputError, match=r"Limits\.ask_early needs polls_per_second"):
        Limits(ask_early=True)
    with pytest.raises(InputError, match=r"Limits\.ask_early must be True or False; got 1"):
        Limits(polls_per_second=3, ask_early=1)  # type: ignore[arg-type]


def test_limits_do_not_change() -> None:
    """Limits are shared by clients, so they are values."""
    with pytest.raises(AttributeError):
        Limits().jobs = 3  # type: ignore[misc]
    assert Limits(jobs=2) == Limits(jobs=2)
    assert msgspec.structs.replace(Limits(jobs=2), jobs=None) == Limits()
