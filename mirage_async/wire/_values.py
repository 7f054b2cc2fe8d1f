"""Reading single values from answers: providers send numbers as text, moments in three notations, and null."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from typing import TypeGuard

__all__ = ["amount", "fields_of", "is_array", "is_object", "items_of", "moment", "number", "share", "text", "whole"]

_NUMBER = re.compile(r"[+-]?(?:[0-9]{1,15}(?:\.[0-9]{0,15})?|\.[0-9]{1,15})", re.ASCII)
_MILLISECONDS_FROM = 1e11  # as seconds this is the year 5138, as milliseconds 1973


def text(value: object) -> str | None:
    """Return non-blank text, else None."""
    return value if isinstance(value, str) and value.strip() else None


def number(value: object) -> float | None:
    """Return a finite number, also from text such as "42.5"; None for everything else, booleans included."""
    if isinstance(value, str):
        stripped = value.strip()
        return float(stripped) if _NUMBER.fullmatch(stripped) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        result = float(value)
    except OverflowError:  # JSON allows integers of any length
        return None
    return result if math.isfinite(result) else None


def amount(value: object) -> float | None:
    """Return a number of at least 0, such as what something cost, else None."""
    result = number(value)
    return result if result is not None and result >= 0 else None


def whole(value: object) -> int | None:
    """Return a whole number of at least 0, else None."""
    result = number(value)
    return int(result) if result is not None and result >= 0 and result.is_integer() else None


def share(percent: object) -> float | None:
    """Return a percentage as a share from 0 to 1, clamped; None where it is no number."""
    result = number(percent)
    return None if result is None else min(max(result / 100, 0.0), 1.0)


def moment(value: object) -> datetime | None:
    """Return an aware moment from Unix seconds, Unix milliseconds or ISO 8601 text; None where it is none of them.

    Miragic's reference types `createdAt` as a Unix timestamp and shows ISO 8601 text; Mirako sends RFC 3339. Text
    without an offset is taken as UTC.
    """
    seconds = number(value)
    try:
        if seconds is not None:
            return datetime.fromtimestamp(seconds / 1000 if abs(seconds) >= _MILLISECONDS_FROM else seconds, UTC)
        if not isinstance(value, str):
            return None
        found = datetime.fromisoformat(value.strip())
        return found if found.utcoffset() is not None else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError, OSError):
        return None


def fields_of(value: object) -> dict[str, object]:
    """Return a decoded JSON object, or an empty one where the value is something else."""
    return value if is_object(value) else {}


def items_of(value: object) -> list[object]:
    """Return a decoded JSON array, or an empty one where the value is something else."""
    return value if is_array(value) else []


def is_object(value: object) -> TypeGuard[dict[str, object]]:
    """Return whether decoded JSON is an object."""
    return isinstance(value, dict)


def is_array(value: object) -> TypeGuard[list[object]]:
    """Return whether decoded JSON is an array."""
    return isinstance(value, list)
