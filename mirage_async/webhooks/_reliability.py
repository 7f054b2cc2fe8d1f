"""How much the promise of a webhook is worth, learned for each kind of job: the safety poll behind it waits so long.

The question is TCP's: how long to wait for an acknowledgement before asking again. So is the answer (Jacobson 1988, RFC
6298): the smoothed mean of what it took so far plus four times its smoothed deviation. Two things differ. It is never
more than twice the mean, so that a job whose webhook is lost is asked about within one expected duration of its
expected end. And a kind of job of which half of the latest webhooks did not come, those that are merely late not
counted, is asked about as if none were expected, until they come again.
"""

from __future__ import annotations

__all__ = ["Reliability"]

_GAIN, _DEVIATION_GAIN = 1 / 8, 1 / 4  # RFC 6298's alpha and beta
_DEVIATIONS = 4.0
_MOST_MEANS = 2.0
_MEMORY = 0.9  # of earlier outcomes, for each new one: some ten count
_BENEFIT = 2.0  # outcomes that came as promised, for a start: whoever sets a receiver up expects it to be reached
_ENOUGH = 0.5


class Reliability:
    """What is known of the webhooks of one kind of job.

    Args:
        typical: seconds such a job is taken to last before any has ended.
    """

    __slots__ = ("_came", "_deviation", "_mean", "_measured", "_missed")

    def __init__(self, typical: float) -> None:
        self._mean = typical
        self._deviation = typical / 2
        self._measured = False
        self._came = 0.0
        self._missed = 0.0

    @property
    def share(self) -> float:
        """Of the latest webhooks, the share that came, 0 to 1."""
        return (self._came + _BENEFIT) / (self._came + self._missed + _BENEFIT)

    @property
    def patience(self) -> float:
        """Seconds from the acceptance of a job for which asking is not worth it; 0.0 where webhooks fail to come."""
        if self.share <= _ENOUGH:
            return 0.0
        return min(self._mean + _DEVIATIONS * self._deviation, _MOST_MEANS * self._mean)

    def came(self, after: float) -> None:
        """Note a webhook that came when it was news, `after` seconds from the acceptance of its job."""
        self._came = _MEMORY * self._came + 1.0
        self._missed *= _MEMORY
        if self._measured:
            self._deviation += _DEVIATION_GAIN * (abs(after - self._mean) - self._deviation)
            self._mean += _GAIN * (after - self._mean)
        else:
            self._mean, self._deviation, self._measured = after, after / 2, True

    def missed(self) -> None:
        """Note that a job was found finished before its webhook came."""
        self._came *= _MEMORY
        self._missed = _MEMORY * self._missed + 1.0

    def came_after_all(self) -> None:
        """Note the webhook of a job that was noted as missed."""
        self._missed = max(0.0, self._missed - 1.0)
        self._came += 1.0

    def __repr__(self) -> str:
        return f"<Reliability {self.share:.0%}, {self.patience:.1f} s>"
