"""A lognormal fitted to durations of which many are known only to be longer than something.

The lognormal is the shape that the learned distribution falls back to where there is little evidence. It is fitted by
one step of expectation and maximisation at a time, from a prior that counts as a few observations.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["UNIFORM_SHARE", "Prior", "below", "between", "beyond", "lognormal_step"]

_ROOT_HALF = math.sqrt(0.5)
_DENSITY = 1 / math.sqrt(2 * math.pi)
_FAR = 6.0  # standard deviations; beyond, a truncated normal is taken to lie at its edge
_CENSORED_SHARE = 0.05
_FREEDOM = 2.0

UNIFORM_SHARE = 0.1
"""Share of an observation that is spread evenly over what was seen of it, so that no model merely confirms itself."""


class Prior(msgspec.Struct, frozen=True, kw_only=True):
    """What is believed of the logarithm of a duration before anything was seen.

    Attributes:
        mean: of the logarithm of the seconds.
        deviation: standard deviation of that logarithm, above 0.
        mean_weight: observations the mean counts as, above 0.
        deviation_weight: observations the deviation counts as, above 0.
    """

    mean: float
    deviation: float
    mean_weight: float
    deviation_weight: float = 3.0

    @classmethod
    def of(cls, typical: float | None) -> Prior:
        """Return the prior around a hint in seconds, or the wide one that knows of no hint."""
        if typical is None:
            return cls(mean=math.log(10.0), deviation=1.2, mean_weight=0.5)
        return cls(mean=math.log(typical), deviation=0.6, mean_weight=2.0)

    def trust(self, mean: float) -> float:
        """Return how much of its weight the prior mean keeps where the evidence points to `mean`.

        That is the weight which makes a Student distribution of a normal one (two degrees of freedom).
        """
        away = (mean - self.mean) / self.deviation
        return (_FREEDOM + 1) / (_FREEDOM + self.mean_weight * away * away)


def below(deviations: float) -> float:
    """Return the share of a normal distribution below so many standard deviations."""
    return 0.5 * math.erfc(-deviations * _ROOT_HALF)


def beyond(low: float) -> tuple[float, float]:
    """Return mean and variance of a standard normal known to lie above `low`."""
    if low > _FAR:
        return low, 0.0
    hazard = _DENSITY * math.exp(-0.5 * low * low) / below(-low)
    return hazard, max(0.0, 1.0 + low * hazard - hazard * hazard)


def between(low: float, high: float) -> tuple[float, float, float]:
    """Return mean and variance of a standard normal known to lie between two values, and the chance of that.

    Args:
        low: may be minus infinity.
        high: above `low`, finite.
    """
    mass = below(high) - below(low)
    if mass < 1e-9:  # noqa: PLR2004 - far out, where the formulas lose their digits
        nearest = low if low > 0 else high
        return nearest, 0.0, max(mass, 0.0)
    at_low = 0.0 if low == -math.inf else _DENSITY * math.exp(-0.5 * low * low)
    at_high = _DENSITY * math.exp(-0.5 * high * high)
    mean = (at_low - at_high) / mass
    edge = (at_low and low * at_low) - high * at_high
    return mean, max(0.0, 1.0 + edge / mass - mean * mean), mass


def lognormal_step(
    prior: Prior,
    mean: float,
    deviation: float,
    *,
    events: Sequence[tuple[float, float]],
    censored: Sequence[tuple[float, float]],
    early: Sequence[tuple[float, float]] = (),
) -> tuple[float, float]:
    """Return mean and standard deviation of the logarithm after one step from the old ones.

    All censored observations together weigh little more than the finished ones: a fit to unfinished jobs alone has
    no maximum, it drifts to ever longer durations. The prior mean loses weight the further the fit has gone from it:
    a hint is right or it is wrong altogether, and a wrong one must not drag on.

    Args:
        prior: what counts as seen before.
        mean: of the logarithm, before the step.
        deviation: its standard deviation before the step, above 0.
        events: logarithm and weight of finished durations.
        censored: logarithm and weight of durations known to be longer.
        early: logarithm and weight of durations known to be shorter.
    """
    trust = prior.mean_weight * prior.trust(mean)
    seen = sum(weight for _, weight in events) + sum(weight for _, weight in early)
    unfinished = sum(weight for _, weight in censored)
    cap = seen + _CENSORED_SHARE * seen * seen + prior.mean_weight
    factor = min(1.0, cap / unfinished) if unfinished > 0 else 0.0
    parts = [(value, 0.0, weight) for value, weight in events]
    for value, weight in censored:
        above, spread = beyond((value - mean) / deviation)
        parts.append((mean + deviation * above, deviation * deviation * spread, weight * factor))
    for value, weight in early:
        under, spread, _ = between(-math.inf, (value - mean) / deviation)
        parts.append((mean + deviation * under, deviation * deviation * spread, weight * (1 - UNIFORM_SHARE)))
        parts.append((value - 1, 1.0, weight * UNIFORM_SHARE))  # the logarithm of a time that is even up to a bound
    total = sum(weight for _, _, weight in parts)
    weight_of_mean = trust + total
    centre = (trust * prior.mean + sum(value * weight for value, _, weight in parts)) / weight_of_mean
    squares = sum(weight * ((value - centre) ** 2 + spread) for value, spread, weight in parts)
    squares += prior.deviation_weight * prior.deviation**2 + trust * (prior.mean - centre) ** 2
    variance = squares / (prior.deviation_weight + total) * (1 + 1 / weight_of_mean)
    return centre, math.sqrt(variance)
