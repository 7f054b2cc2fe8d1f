"""What a provider account may have going on at once."""

from __future__ import annotations

import math

import msgspec

from mirage_async.exceptions import InputError

__all__ = ["Limits"]


class Limits(msgspec.Struct, frozen=True):
    """Limits of one provider account, shared by all its jobs; None means unlimited.

    Args:
        jobs: jobs in flight, from the purchase to the end of the job or of the wait for it; at least 1.
        polls: status calls in flight; at least 1.
        polls_per_second: status calls begun per second; above 0.

    Raises:
        InputError: a limit is out of range.
    """

    jobs: int | None = None
    polls: int | None = 32
    polls_per_second: float | None = None

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("jobs", "polls"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                msg = f"Limits.{name} must be a whole number of at least 1, or None for no limit; got {value!r}"
                raise InputError(msg)
        rate = self.polls_per_second
        if rate is not None and (
            isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate < math.inf
        ):
            msg = f"Limits.polls_per_second must be a number above 0, or None for no limit; got {rate!r}"
            raise InputError(msg)
