"""How long the jobs of one kind take, learned from looks at them, and when to look at one next.

Time is cut into buckets that grow by a twelfth of an octave or so; for each bucket the model counts the jobs that
ended in it and the jobs that were at risk of doing so. Their quotient is a hazard, and hazards make good use of jobs
that are unfinished still: whoever counts finished jobs alone learns the short ones first and believes in them. Where
evidence is thin the hazard of a fitted lognormal takes over; old evidence fades, and when durations change for good
most of it is dropped at once.

Nothing here waits, asks or reads a clock.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left, bisect_right
from operator import mul

from mirage_async.scheduler import _looks
from mirage_async.scheduler._fitting import UNIFORM_SHARE, Prior, below, between, lognormal_step

__all__ = ["BUCKETS", "EDGES", "DurationModel"]

BUCKETS = 128
EDGES = (0.0, *(0.25 * 2 ** (number / 8) for number in range(BUCKETS)))  # 0.25 s to 4.2 h, eight to the octave
_LAST = BUCKETS
_LOGS = (0.0, *(math.log(edge) for edge in EDGES[1:]))
_CENTRES = (math.log(0.2), *((low + high) / 2 for low, high in itertools.pairwise(_LOGS[1:])))

_MEMORY = 100.0  # finished jobs after which evidence weighs a third
_FADING = 1 - 1 / _MEMORY
_PRIOR_JOBS = 8.0  # jobs at risk that the fitted lognormal counts as
_DOUBT = 0.01  # share of jobs that may take any time at all, however sure the rest is
_ANY_TIME = tuple(  # how those are spread: evenly over the logarithm from half a second to eight hours
    0.0 if edge <= 0.5 else math.log(edge / 0.5) / math.log(8 * 3600 / 0.5)  # noqa: PLR2004 - see the line above
    for edge in EDGES
)
_HEAVY = 1e6
_IMPOSSIBLE = 1e-12
_NEW = 10.0  # evidence below which what the first look found finished is reckoned anew with every fit
_STEPS = 3  # of the fit each time

_DRIFT_SLACK = 0.5  # standard deviations per job that are not held against the model
_DRIFT_LIMIT = 6.0
_DRIFT_JOBS = 5.0  # evidence below which there is nothing to drift from
_DRIFT_KEPT = 0.1

_REBUILD_EVERY = 0.1  # seconds
_REBUILD_SETTLED = 0.5  # seconds, once there is evidence of so many jobs that a few more say little
_SETTLED = 50.0
_REBUILD_SHARE = 0.1  # of the evidence so far has to be new
_FAVOURITE_DELAY = 20.0  # looks that one typical duration of delay is worth, where nobody says otherwise
_CHEAPEST, _DEAREST = 1 / 30, 4.0


class DurationModel:
    """The learned durations of one kind of job; all times in seconds since the job (or its phase) began.

    Args:
        prior: what is believed before the first job.
        allowed: `windows` of `EDGES`, the same for all models of one policy.
        delay_cost: looks that a second of delay is worth; None takes 20 per median duration, 1/30 to 4.

    Attributes:
        rebuilt_at: when the tables were brought up to date last.
        fresh_until: until when they need not be, whatever it is told by then; for whoever would save the call.
    """

    __slots__ = (
        "_allowed",
        "_area",
        "_at_first",
        "_at_risk",
        "_events",
        "_falling",
        "_finished",
        "_fixed_cost",
        "_rising",
        "_scale",
        "_targets",
        "_unused",
        "deviation",
        "drifts",
        "evidence",
        "expected_cost",
        "fresh_until",
        "jobs",
        "mean",
        "median",
        "price",
        "prior",
        "rebuilt_at",
    )

    def __init__(self, *, prior: Prior, allowed: list[tuple[int, int]], delay_cost: float | None) -> None:
        self.prior = prior
        self.mean = prior.mean  # of the logarithm of the fitted lognormal
        self.deviation = prior.deviation
        self.jobs = 0  # finished ones seen, ever
        self.drifts = 0
        self.evidence = 0.0  # finished jobs, faded
        self._allowed = allowed
        self._fixed_cost = delay_cost
        self._events = [0.0] * BUCKETS
        self._at_first = [0.0] * BUCKETS  # jobs that the first look found finished, by its bucket
        self._at_risk = [0.0] * (BUCKETS + 1)  # as differences from bucket to bucket: a look touches two of them
        self._scale = 1.0  # the weight of new evidence; growing it fades the old at no cost
        self._rising = self._falling = 0.0
        self._unused = 0.0  # evidence the tables do not know yet
        self.rebuilt_at = self.fresh_until = -math.inf
        self.tabulate()

    # --- what is asked of it ---

    def next_look(self, elapsed: float) -> float:
        """Return the best time for the next look at a job that was unfinished at `elapsed`; later than that."""
        number = bisect_right(EDGES, elapsed) - 1
        if number == _LAST:
            return math.inf
        low, targets = EDGES[number], self._targets
        target = targets[number]
        return target + (targets[number + 1] - target) * (elapsed - low) / (EDGES[number + 1] - low)

    def index(self, last: float, now: float) -> float:
        """Return the delay in seconds expected to have accrued at `now` for a job seen unfinished at `last`.

        That is how long ago it ended on average, counting as 0 the chance that it has not.
        """
        share, area = self._at(last)
        delay = self._at(now)[1] - area - share * (now - last)
        return delay / max(1.0 - share, 1e-12) if delay > 0 else 0.0

    def share_finished(self, elapsed: float) -> float:
        """Return the share of jobs that have ended by `elapsed`."""
        return self._at(elapsed)[0]

    # --- what it is told ---

    def pending(self, seen: float, now: float) -> None:
        """Learn that a job unfinished at `seen` (0 for its beginning) is unfinished at `now`."""
        first = bisect_right(EDGES, seen, 1) - 1
        if first == _LAST or now < EDGES[first + 1]:
            return  # the same bucket
        end = bisect_right(EDGES, now, first + 2) - 1
        self._at_risk[first] += self._scale
        self._at_risk[end] -= self._scale
        finished = self._finished
        self._unused += (finished[end] - finished[first]) / (1.0 - finished[first] + 1e-9)

    def done(self, seen: float, now: float) -> None:
        """Learn that a job unfinished at `seen` has ended by `now`."""
        scale = self._scale = self._scale / _FADING
        first = bisect_right(EDGES, seen, 1, BUCKETS) - 1
        last = bisect_left(EDGES, now, first + 1, BUCKETS) - 1
        if first == last:
            self._events[first] += scale
            self._at_risk[first] += scale
            self._at_risk[first + 1] -= scale
            logarithm = _CENTRES[first]
        elif first == 0 and self.evidence < _NEW:
            # Nothing is known but a bound. Where it lies below that is reckoned anew with every fit: the first of a
            # row of such jobs must not go on saying what was believed before the others came.
            self._at_first[last] += scale
            position, _, _ = between(-math.inf, (_LOGS[last + 1] - self.mean) / self.deviation)
            logarithm = self.mean + self.deviation * position
        else:
            shares = self._spread(first, last, seen, now)
            self._count(first, shares)
            logarithm = sum(map(mul, shares, _CENTRES[first : last + 1]))
        if self.evidence >= _DRIFT_JOBS:
            self._watch_for_drift(logarithm)
        self.jobs += 1
        self.evidence = self.evidence * _FADING + 1.0
        self._unused += 1.0
        if self._scale > _HEAVY:
            self.rescale()

    def refresh(self, at: float) -> None:
        """Bring the tables up to date if that is worth its half a millisecond; at most ten times a second, later twice.

        Args:
            at: the moment on any clock that only goes forward.
        """
        if self._unused < 1.0 or self._unused < _REBUILD_SHARE * self.evidence:
            return
        every = _REBUILD_EVERY if self.evidence < _SETTLED else _REBUILD_SETTLED
        self.fresh_until = self.rebuilt_at + every
        if not (at >= self.fresh_until or at < self.rebuilt_at):  # a clock that went back must not stop the learning
            return
        self.rebuilt_at = self.fresh_until = at
        self._fit()
        self.tabulate()

    # --- its state, as plain numbers ---

    def counts(self) -> tuple[list[float], list[float], list[float]]:
        """Return how many jobs ended and how many were at risk in each bucket, faded to the present.

        The third list counts, by the bucket of that look, the jobs that their first look found finished; they are in
        neither of the others.
        """
        at_risk, running = list[float](), 0.0
        for change in self._at_risk[:BUCKETS]:
            running += change
            at_risk.append(max(0.0, running / self._scale))
        ended, at_first = ([count / self._scale for count in counts] for counts in (self._events, self._at_first))
        return ended, at_risk, at_first

    def restore(self, ended: list[float], at_risk: list[float], at_first: list[float]) -> None:
        """Take over counts as `counts` returned them, one for each bucket, finite and not negative."""
        self._take(ended, at_risk, at_first)
        self.tabulate()

    def absorb(self, other: DurationModel) -> None:
        """Add what another model of the same kind of job has seen, as far as this one has room for it.

        What was seen here counts in full; the other's evidence is faded so that both together weigh no more than a
        model can hold.
        """
        share = min(1.0, max(0.0, _MEMORY - self.evidence) / max(1.0, other.evidence))
        own = self.evidence / max(1e-9, self.evidence + share * other.evidence)
        self.mean = own * self.mean + (1 - own) * other.mean
        self.deviation = own * self.deviation + (1 - own) * other.deviation
        self.jobs += other.jobs
        self.drifts += other.drifts
        self.evidence += share * other.evidence
        pairs = zip(self.counts(), other.counts(), strict=True)
        added = [[mine + share * theirs for mine, theirs in zip(*both, strict=True)] for both in pairs]
        self.restore(*added)

    def rescale(self) -> None:
        """Let new evidence weigh 1 again, and the old accordingly less."""
        self._take(*self.counts())

    # --- how ---

    def _at(self, elapsed: float) -> tuple[float, float]:
        number, finished = bisect_right(EDGES, elapsed) - 1, self._finished
        share, low = finished[number], EDGES[number]
        step = elapsed - low
        if number == _LAST:
            return share, self._area[number] + share * step
        slope = (finished[number + 1] - share) / (EDGES[number + 1] - low)
        return share + slope * step, self._area[number] + step * (share + 0.5 * slope * step)

    def _take(self, ended: list[float], at_risk: list[float], at_first: list[float]) -> None:
        self._scale = 1.0
        self._events, self._at_first = list(ended), list(at_first)
        self._at_risk = [high - low for low, high in zip([0.0, *at_risk], [*at_risk, 0.0], strict=True)]

    def _count(self, first: int, shares: list[float]) -> None:
        """Count a job that ended in the buckets from `first` on with these shares."""
        left, at_risk = 1.0, 0.0
        for number, share in enumerate(shares, first):
            self._events[number] += self._scale * share
            self._at_risk[number] += self._scale * left - at_risk
            at_risk = self._scale * left
            left -= share
        self._at_risk[first + len(shares)] -= at_risk

    def _spread(self, first: int, last: int, seen: float, now: float) -> list[float]:
        """Return the shares in which a job ended in the buckets from `first` to a later `last`; they add up to 1."""
        finished = self._finished
        masses, lengths = list[float](), list[float]()
        for number in range(first, last + 1):
            low, high = EDGES[number], EDGES[number + 1]
            length = min(high, now) - max(low, seen)
            lengths.append(length)
            masses.append((finished[number + 1] - finished[number]) * length / (high - low))
        mass, length = sum(masses), sum(lengths)
        own, even = ((1 - UNIFORM_SHARE) / mass, UNIFORM_SHARE / length) if mass > 0 else (0.0, 1 / length)
        return [own * each + even * part for each, part in zip(masses, lengths, strict=True)]

    def _watch_for_drift(self, logarithm: float) -> None:
        deviations = max(-3.0, min(3.0, (logarithm - self.mean) / self.deviation))
        rising = self._rising + deviations - _DRIFT_SLACK
        falling = self._falling - deviations - _DRIFT_SLACK
        self._rising = rising if rising > 0 else 0.0
        self._falling = falling if falling > 0 else 0.0
        if rising > _DRIFT_LIMIT or falling > _DRIFT_LIMIT:
            self.drifts += 1
            self.fresh_until = self.rebuilt_at
            self.evidence *= _DRIFT_KEPT
            self._scale /= _DRIFT_KEPT
            self._rising = self._falling = 0.0

    def _fit(self) -> None:
        ended, at_risk, at_first = self.counts()
        events, censored = list[tuple[float, float]](), list[tuple[float, float]]()
        for number in range(BUCKETS):
            here, weight = at_risk[number], ended[number]
            if weight > 0:
                events.append((_CENTRES[number], weight))
            left = here - weight - (at_risk[number + 1] if number + 1 < BUCKETS else 0.0)
            if left > 1e-6:  # noqa: PLR2004 - what rounding leaves is no job
                censored.append((_LOGS[number + 1], left))
        early = [(_LOGS[number + 1], weight) for number, weight in enumerate(at_first) if weight > 0]
        for _ in range(_STEPS):
            self.mean, self.deviation = lognormal_step(
                self.prior, self.mean, self.deviation, events=events, censored=censored, early=early
            )

    def tabulate(self) -> None:
        """Make the tables anew: the share finished, its integral, the median, and the next look from each time on."""
        self._unused = 0.0
        finished = self._finished = self._shares()
        self._area = _looks.areas(EDGES, finished)
        number = min(bisect_left(finished, 0.5), _LAST)
        low, high = finished[number - 1], finished[number]
        position = (0.5 - low) / (high - low) if low < high else 1.0
        self.median = EDGES[number - 1] + min(1.0, position) * (EDGES[number] - EDGES[number - 1])
        fixed = self._fixed_cost
        self.price = min(_DEAREST, max(_CHEAPEST, _FAVOURITE_DELAY / self.median)) if fixed is None else fixed
        following, self.expected_cost = _looks.plan(EDGES, finished, self._area, self._allowed, self.price)
        self._targets = [EDGES[number] for number in following]

    def _shares(self) -> list[float]:
        """Return the share finished at each edge."""
        ended, at_risk, at_first = self.counts()
        fitted = [0.0, *(below((edge - self.mean) / self.deviation) for edge in _LOGS[1:])]
        if any(at_first):
            _reckon(ended, at_risk, at_first, fitted)
        doubt = max(_DOUBT, 1 / (self.evidence + 4))
        alive = 1.0
        shares = [0.0]
        for number in range(BUCKETS):
            exposed = at_risk[number] + _PRIOR_JOBS * (1 - fitted[number])
            if exposed > 1e-9:  # noqa: PLR2004 - nobody gets this far
                hazard = (ended[number] + _PRIOR_JOBS * (fitted[number + 1] - fitted[number])) / exposed
                alive *= max(0.0, 1 - hazard)
            shares.append((1 - doubt) * (1 - alive) + doubt * _ANY_TIME[number + 1])
        return shares


def _reckon(ended: list[float], at_risk: list[float], at_first: list[float], fitted: list[float]) -> None:
    """Add the jobs that their first look found finished to the others, spread below it as the fit has it."""
    own = even = total = 0.0
    for number in range(BUCKETS - 1, -1, -1):
        low, high, count = EDGES[number], EDGES[number + 1], at_first[number]
        total += count
        if fitted[number + 1] > _IMPOSSIBLE:
            own += (1 - UNIFORM_SHARE) * count / fitted[number + 1]
            even += UNIFORM_SHARE * count / high
        else:
            even += count / high
        ended[number] += (fitted[number + 1] - fitted[number]) * own + (high - low) * even
        at_risk[number] += max(0.0, total - fitted[number] * own - low * even)
