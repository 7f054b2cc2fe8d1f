"""How much the promise of a webhook is worth, learned for each kind of job: the safety poll behind it waits so long.

Before the first webhook has come there is nothing to count on, and jobs are asked about as if none were expected: an
address that leads nowhere must not cost anybody time. From then on the question is TCP's: how long to wait for an
acknowledgement before asking again. So is the answer (Jacobson 1988, RFC 6298): the smoothed mean of what it took so
far plus four times its smoothed deviation. Two things differ. It is never more than twice the mean, so that a job whose
webhook is lost is asked about within one expected duration of its expected end. And a kind of job of which half of the
latest webhooks did not come, those that are merely late not counted, is asked about as if none were expected, until
they come again. The scheduler stretches each wait at random, by a fifth at most, so that jobs submitted together are
not asked about together.
"""

from __future__ import annotations

__all__ = ["Reliability"]

_GAIN, _DEVIATION_GAIN = 1 / 8, 1 / 4  # RFC 6298's alpha and beta
_DEVIATIONS = 4.0
_MOST_MEANS = 2.0
_MEMORY = 0.9  # of earlier outcomes, for each new one: some ten count
_BENEFIT = 2.0  # outcomes that came as promised, for a start: it takes three that did not to call webhooks unreliable
_ENOUGH = 0.5


class Reliability:
    """What is known of the webhooks of one kind of job."""

    __slots__ = ("_came", "_deviation", "_mean", "_measured", "_missed", "_proven")

    def __init__(self) -> None:
        self._mean = self._deviation = 0.0
        self._measured = False
        self._proven = False  # a webhook has come, and a status call has said that it was right
        self._came = 0.0
        self._missed = 0.0

    @property
    def share(self) -> float:
        """Of the latest webhooks, the share that came, 0 to 1."""
        return (self._came + _BENEFIT) / (self._came + self._missed + _BENEFIT)

    @property
    def fails(self) -> bool:
        """Whether so many did not come that the promise is worth nothing."""
        return self.share <= _ENOUGH

    @property
    def patience(self) -> float:
        """Seconds from the acceptance of a job for which asking is not worth it; 0.0 where webhooks fail to come."""
        if not self._proven or self.fails:
            return 0.0
        return min(self._mean + _DEVIATIONS * self._deviation, _MOST_MEANS * self._mean)

    def came(self, after: float) -> None:
        """Note a webhook that came when it was news, `after` seconds from the acceptance of its job."""
        self._proven = True
        self._came = _MEMORY * self._came + 1.0
        self._missed *= _MEMORY
        self._lasted(after)

    def missed(self, after: float, *, held_back: bool = False) -> None:
        """Note that a job was found finished before its webhook came.

        Args:
            after: seconds from its acceptance.
            held_back: it was not asked about for a while, because its webhook was expected. Then nobody knows when it
                really ended, and what is learned from it must not make the next one wait longer.
        """
        self._came *= _MEMORY
        self._missed = _MEMORY * self._missed + 1.0
        if not held_back or after < self._mean:
            self._lasted(after)

    def came_after_all(self) -> None:
        """Note the webhook of a job that was noted as missed."""
        self._proven = True
        self._missed = max(0.0, self._missed - 1.0)
        self._came += 1.0

    def _lasted(self, seconds: float) -> None:
        if self._measured:
            self._deviation += _DEVIATION_GAIN * (abs(seconds - self._mean) - self._deviation)
            self._mean += _GAIN * (seconds - self._mean)
        else:
            self._mean, self._deviation, self._measured = seconds, seconds / 2, True

    def __repr__(self) -> str:
        return f"<Reliability {self.share:.0%}, {self.patience:.1f} s>"
