"""What a provider's progress says about the time that is left, trusted only as far as it has proved right.

A job that shows a share p after t seconds would need t * (1 - p) / p more if progress were even. How the real rest
compares to that is learned in four bands of p, as a lognormal of the quotient. Providers round, queue silently, stop
at 99 % or make numbers up; so each band keeps an account of how well it foretold the ends of jobs compared with the
learned durations, which know nothing of progress, and speaks only while it is clearly ahead. However long a provider
was honest, a few jobs with a bar that lies are enough for silence, and what one band loses at once it takes from the
others, too: whatever broke the bar broke all of it.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

from mirage_async.scheduler import _looks
from mirage_async.scheduler._fitting import below, between

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mirage_async.scheduler._durations import DurationModel

__all__ = ["BANDS", "Band", "ProgressModel"]

BANDS = 4
_LEAST, _MOST = 0.05, 0.99  # less says nothing yet; more is rounding, or a provider that is never quite done
_SOONEST, _LATEST = 1e-6, 1e9  # seconds; outside, quotients lose their meaning
_MEMORY = 100.0
_PRIOR_MARKS = 4.0
_PRIOR_DEVIATION = 0.5
_SHARP = 0.15  # variance of a logarithm; forecasts are off by two fifths
_SHARPEST, _BLUNTEST = 0.05, 2.5
_LEAST_VARIANCE = 1e-12  # however exact a bar is, nothing is divided by zero
_NEEDED_MARKS = 10
_NEEDED_CREDIT = 2.0  # natural logarithm: ends foretold e ** 2 times better than by the durations alone
_CREDIT_LIMIT = 4.0  # that can be saved up: the more, the longer a bar is believed that was right and is no longer
_CREDIT_FADING = 0.98
_WORST, _BEST = -3.0, 2.0  # what one mark may add to the account
_ALARMING = 1.0  # loss by one mark from which on the other bands lose as well
_SHARED = 0.7  # of it
_SURPRISE = 0.01  # chance given to what a model holds impossible

_DEVIATION_STEP = math.log(1.25)
_PRICE_STEP = math.log(2) / 2
_CHEAPEST, _DEAREST = -12, 24


class Band:
    """How right the progress of one band has been.

    Attributes:
        marks: sightings of finished jobs it has learned from, faded.
        mean: of the logarithm of the real rest by the foretold one.
        variance: of that logarithm.
        credit: how far ahead of the durations alone its forecasts are, as a logarithm; faded.
    """

    __slots__ = ("credit", "marks", "mean", "variance")

    def __init__(
        self, marks: float = 0.0, mean: float = 0.0, variance: float = _PRIOR_DEVIATION**2, credit: float = 0.0
    ) -> None:
        self.marks = marks
        self.mean = mean
        self.variance = variance
        self.credit = _limited(credit)

    @property
    def trusted(self) -> bool:
        """Whether its forecasts are worth more than none."""
        return self.marks >= _NEEDED_MARKS and self.credit > _NEEDED_CREDIT

    def better(self, other: Band) -> Band:
        """Return the one of both that has learned from more."""
        return other if other.marks > self.marks else self

    def learn(self, foretold: float, low: float, high: float, without: float) -> None:
        """Learn that a job which was foretold a rest ended between `low` and `high` seconds later.

        Args:
            foretold: seconds, above 0.
            low: seconds, 0 or more.
            high: above `low`.
            without: the chance the durations alone had given that.
        """
        deviation = math.sqrt(self.variance)
        expected = math.log(foretold) + self.mean
        lowest = (math.log(low) - expected) / deviation if low > 0 else -math.inf
        highest = (math.log(high) - expected) / deviation
        position, spread, mass = between(lowest, highest)
        gain = math.log((mass + _SURPRISE) / (without + _SURPRISE))
        self.credit = _limited(self.credit * _CREDIT_FADING + max(_WORST, min(_BEST, gain)))
        self.marks = min(_MEMORY, self.marks + 1.0)
        weight = 1 / (self.marks + _PRIOR_MARKS)
        away = max(-2.5, min(2.5, self.mean + position * deviation)) - self.mean
        self.mean += weight * away
        change = away * away * (1 - weight) + spread * deviation * deviation - self.variance
        self.variance = max(_LEAST_VARIANCE, self.variance + weight * change)


class ProgressModel:
    """The learned meaning of the progress of one kind of job."""

    __slots__ = ("bands",)

    def __init__(self) -> None:
        self.bands = tuple(Band() for _ in range(BANDS))

    def absorb(self, other: ProgressModel) -> None:
        """Take over the bands in which another model has learned from more."""
        self.bands = tuple(mine.better(theirs) for mine, theirs in zip(self.bands, other.bands, strict=True))

    def learn(self, shown: Sequence[tuple[float, float]], seen: float, now: float, durations: DurationModel) -> None:
        """Learn from a finished job what its progress was worth.

        Args:
            shown: pairs of seconds elapsed and the progress shown then; nonsense among them is passed over.
            seen: seconds elapsed when it was last seen unfinished.
            now: seconds elapsed when it was seen finished.
            durations: what would have been believed without progress.
        """
        at_end = durations.share_finished(now)
        for elapsed, progress in shown:
            rest = foretold(elapsed, progress)
            if rest is None or elapsed >= now:
                continue
            finished = durations.share_finished(elapsed)
            without = (at_end - durations.share_finished(seen)) / max(1e-9, 1 - finished)
            band = self._band(progress)
            credit = band.credit
            band.learn(rest, max(0.0, seen - elapsed), now - elapsed, without)
            if credit - band.credit > _ALARMING:
                self._doubt(band, _SHARED * (credit - band.credit))

    def next_look(self, elapsed: float, progress: float, delay_cost: float) -> float | None:
        """Return seconds until the best next look, or None where progress says nothing that can be trusted."""
        rest = foretold(elapsed, progress)
        if rest is None or not (band := self._band(progress)).trusted:
            return None
        rest *= math.exp(band.mean)
        deviation = max(_SHARPEST, min(_BLUNTEST, math.sqrt(band.variance)))
        step = round(math.log(deviation) / _DEVIATION_STEP)
        price = round(math.log(max(1e-9, delay_cost * rest)) / _PRICE_STEP)
        return rest * _first_look(step, max(_CHEAPEST, min(_DEAREST, price)))

    def sharp(self) -> bool:
        """Whether all bands but one at most speak, and precisely: then an early first look is worth its price."""
        return sum(band.trusted and band.variance < _SHARP for band in self.bands) >= BANDS - 1

    def _doubt(self, source: Band, loss: float) -> None:
        for band in self.bands:
            if band is not source:
                band.credit = _limited(band.credit - loss)

    def _band(self, progress: float) -> Band:
        return self.bands[min(BANDS - 1, int(progress * BANDS))]


def _limited(credit: float) -> float:
    return max(-_CREDIT_LIMIT, min(_CREDIT_LIMIT, credit))


def foretold(elapsed: float, progress: float) -> float | None:
    """Return the rest in seconds if progress were even, or None where it cannot be told from this."""
    if not (_LEAST <= progress <= 1 and _SOONEST <= elapsed <= _LATEST):
        return None
    share = min(_MOST, progress)
    return elapsed * (1 - share) / share


@lru_cache(maxsize=1024)
def _first_look(deviation_step: int, price_step: int) -> float:
    """Return the best first look at something that takes 1 on average of the logarithm.

    Rounded to steps, a few hundred answers serve for everything; each costs a third of a millisecond once.
    """
    deviation, price = math.exp(deviation_step * _DEVIATION_STEP), math.exp(price_step * _PRICE_STEP)
    places = [number / 8 for number in range(-32, 33)]
    times = [0.0, *(math.exp(place * deviation) for place in places)]
    finished = [0.0, *(below(place) for place in places)]
    allowed = _looks.windows(times, minimum=0.0, maximum=math.inf)
    following, _ = _looks.plan(times, finished, _looks.areas(times, finished), allowed, price)
    return times[following[0]]
