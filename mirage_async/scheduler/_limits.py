"""What a provider account may have going on at once."""

from __future__ import annotations

import math

import msgspec

from mirage_async.exceptions import InputError

__all__ = ["Limits"]


class Limits(msgspec.Struct, frozen=True):
    """Limits of one provider account, shared by all its jobs; None means unlimited.

    A copy of a client that was given other limits is an account of its own and counts its own calls and jobs, though
    the key is the same; only pauses hold for both.

    Args:
        jobs: jobs in flight, from the purchase to the end of the job or of the wait for it; at least 1.
        polls: status calls in flight; at least 1.
        polls_per_second: status calls begun per second, evenly spaced and not saved up; above 0. In any w seconds at
            most 1 + polls_per_second * (w + t) begin, where t is 10 ms or the time of one call, whichever is less: by
            so much a call may make up for one that began late because the machine was busy.
        ask_early: whether status calls that `polls_per_second` would leave unused are made before they are due, for
            the job where not having asked is expected to have cost most, if that is worth a tenth of a call. It takes
            a policy whose `urgency` tells this in status calls, as that of `AdaptiveInterval` does, and makes up to
            some three times as many calls, though never more than `polls_per_second`, which it needs.

    Raises:
        InputError: a limit is out of range.
    """

    jobs: int | None = None
    polls: int | None = 32
    polls_per_second: float | None = None
    ask_early: bool = False

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
        if not isinstance(self.ask_early, bool):
            msg = f"Limits.ask_early must be True or False; got {self.ask_early!r}"
            raise InputError(msg)
        if self.ask_early and rate is None:
            msg = "Limits.ask_early needs polls_per_second, since it spends all that is allowed; got None for it"
            raise InputError(msg)
