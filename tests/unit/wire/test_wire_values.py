"""Single values in answers, which providers write in more ways than one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from mirage_async.wire._values import amount, moment, number, whole

NOON = datetime(2025, 11, 5, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    "value",
    [
        "2025-11-05T12:00:00Z",
        "2025-11-05T12:00:00.000Z",
        " 2025-11-05T12:00:00 ",
        "2025-11-05T13:00:00+01:00",
        1762344000,
        1762344000.0,
        1762344000000,
        "1762344000.00",
    ],
)
def test_g5_a_moment_is_read_from_every_notation(value: object) -> None:
    """Unix seconds, Unix milliseconds and ISO 8601; the result is always aware."""
    found = moment(value)
    assert found == NOON
    assert found is not None
    assert found.tzinfo is not None


def test_g5_an_offset_is_kept() -> None:
    """It is the same moment either way."""
    found = moment("2025-11-05T13:00:00+01:00")
    assert found is not None
    assert found.utcoffset() == timezone(timedelta(hours=1)).utcoffset(None)


@pytest.mark.parametrize("value", [None, True, "", "yesterday", [], {}, 1e300, -1e15, 10**400, float("nan")])
def test_g5_what_is_no_moment_is_none(value: object) -> None:
    """Nothing depends on it, so nothing breaks over it."""
    assert moment(value) is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1, 1.0),
        (0.5, 0.5),
        ("42.5", 42.5),
        ("-3", -3.0),
        (".5", 0.5),
        ("1e5", None),
        ("nan", None),
        ("１", None),  # noqa: RUF001 - a digit of another script
        (float("inf"), None),
        (10**400, None),
        (True, None),
        (None, None),
    ],
)
def test_a_number_is_finite_or_none(value: object, expected: float | None) -> None:
    """Text counts, booleans do not."""
    assert number(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(5, 5.0), ("0.5", 0.5), (0, 0.0), (-1, None), ("-0.5", None), (float("inf"), None), (float("nan"), None)],
)
def test_an_amount_is_never_negative(value: object, expected: float | None) -> None:
    """What a provider gives back is nothing that a budget could spend."""
    assert amount(value) == expected


@pytest.mark.parametrize(("value", "expected"), [(5, 5), ("7", 7), (0, 0), (-1, None), (1.5, None), ("x", None)])
def test_a_whole_number_is_never_negative(value: object, expected: int | None) -> None:
    """Such as a size in bytes."""
    assert whole(value) == expected
