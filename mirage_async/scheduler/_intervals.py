"""When to ask next: policies for the interval between status calls."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, Protocol

import msgspec

from mirage_async.exceptions import InputError
from mirage_async.models import JobStatus, Pace

if TYPE_CHECKING:
    from mirage_async.scheduler._adaptive import Sighting

__all__ = ["BackoffInterval", "FixedInterval", "IntervalPolicy", "JobView", "LearningPolicy"]


class JobView(msgspec.Struct, frozen=True, kw_only=True):
    """What a policy may know about a job.

    Attributes:
        provider: the provider's name.
        kind: "image" or "avatar".
        model: the model asked for, or None.
        pace: what the provider's document suggests.
        status: where the job stands.
        progress: share done, 0 to 1, or None.
        elapsed: seconds since it was submitted or attached.
        polls: status calls answered so far in this wait.
        phase: "queued" until the job was first seen running, then "running".
        phase_elapsed: seconds since that phase began, as well as is known: "queued" when the provider accepted the job
            or it was attached, "running" in the middle between the two looks around its beginning. None where it is
            `elapsed`, which also counts the wait for a place before the purchase.
    """

    provider: str
    kind: str
    model: str | None
    pace: Pace
    status: JobStatus
    progress: float | None
    elapsed: float
    polls: int
    phase: str = "running"
    phase_elapsed: float | None = None


class IntervalPolicy(Protocol):
    """Decides how long to wait before the next status call. Implement this one method for a policy of your own."""

    def next_interval(self, job: JobView) -> float:
        """Return seconds until the next status call of `job`; 0 asks at once."""
        ...


class LearningPolicy(IntervalPolicy, Protocol):
    """A policy that is also told what the looks at jobs show.

    The scheduler calls what is there: it may have `urgency(view, last)` as well, the larger the sooner where calls
    wait for each other, and `statistics()`, what it has learned; see `AdaptiveInterval`, which has all three.
    """

    def observe(self, sighting: Sighting) -> None:
        """Learn from one look; called once for each phase the job has been in, before the next interval is asked for.

        Jobs that were attached by token or watched anew are left out, since nobody knows how old they are. What this
        raises is logged once and harms no job.
        """
        ...


class FixedInterval:
    """Ask every `seconds`, the first time after as long.

    Args:
        seconds: above 0.
        jitter: share by which each interval varies at random, 0 to below 1, so that jobs submitted together are not
            asked about together.
    """

    def __init__(self, seconds: float, *, jitter: float = 0.1) -> None:
        self._seconds = _positive("seconds", seconds)
        self._jitter = _share("jitter", jitter)
        self._random = random.Random()

    def next_interval(self, job: JobView) -> float:  # noqa: ARG002 - a fixed interval looks at nothing
        """Return the interval, jittered."""
        return self._seconds * self._random.uniform(1 - self._jitter, 1 + self._jitter)

    def __repr__(self) -> str:
        return f"FixedInterval({self._seconds:g})"


class BackoffInterval:
    """Ask soon, then ever less often: `interval * factor ** polls`, at most `maximum`.

    None for `first`, `interval` or `maximum` takes what the provider's document suggests for that kind of job.

    Args:
        first: seconds before the first status call, 0 or more.
        interval: seconds between the first two status calls, above 0.
        factor: growth from one interval to the next, at least 1.
        maximum: the longest interval in seconds, above 0.
        jitter: share by which each interval varies at random, 0 to below 1.
    """

    def __init__(
        self,
        *,
        first: float | None = None,
        interval: float | None = None,
        factor: float = 1.5,
        maximum: float | None = None,
        jitter: float = 0.1,
    ) -> None:
        if first is not None and first != 0:
            _positive("first", first)
        if isinstance(factor, bool) or not isinstance(factor, int | float) or not 1 <= factor < math.inf:
            msg = f"factor must be a number of at least 1; got {factor!r}"
            raise InputError(msg)
        self._first = first
        self._interval = None if interval is None else _positive("interval", interval)
        self._factor = float(factor)
        self._maximum = None if maximum is None else _positive("maximum", maximum)
        self._jitter = _share("jitter", jitter)
        self._random = random.Random()

    def next_interval(self, job: JobView) -> float:
        """Return the interval for the number of status calls made so far, jittered."""
        if job.polls == 0:
            base = job.pace.first if self._first is None else self._first
        else:
            interval = job.pace.interval if self._interval is None else self._interval
            maximum = job.pace.maximum if self._maximum is None else self._maximum
            try:
                # Past this many steps every sensible schedule has reached its maximum.
                base = min(maximum, interval * self._factor ** min(job.polls - 1, 64))
            except OverflowError:  # as has this one
                base = maximum
        return base * self._random.uniform(1 - self._jitter, 1 + self._jitter)

    def __repr__(self) -> str:
        return f"BackoffInterval(first={self._first}, interval={self._interval}, maximum={self._maximum})"


def _positive(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        msg = f"{name} must be a number of seconds above 0; got {value!r}"
        raise InputError(msg)
    return float(value)


def _share(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        msg = f"{name} must be at least 0 and below 1; got {value!r}"
        raise InputError(msg)
    return float(value)
