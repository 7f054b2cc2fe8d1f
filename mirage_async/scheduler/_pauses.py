"""What the holder of a key was asked by the provider: to pause, and to go on gently."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import anyio

from mirage_async._retry import delays

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Pauses"]

LONGEST_PAUSE = 60.0  # seconds; a provider that asks for more is asked again after this anyway, since a job waits
FIRST_SPACING, LONGEST_SPACING = 0.05, 2.0  # seconds between status calls after a throttle, doubling in between
_RECOVERY = 0.9  # of the spacing, which every good answer leaves
_NO_SPACING = 0.01  # seconds; below this it is over
_LONG_AGO = -math.inf


class Pauses:
    """The pauses of one provider and key, shared by all accounts of it, whatever their limits.

    Attributes:
        until: when the last pause ends, in monotonic seconds.
        spacing: seconds to keep between two status calls of an account, and between any two purchases.
        uneasy: something is left of a pause that a good answer takes back.
        turns: held by the purchase that is sent next while `uneasy`; the others come after it in the order of asking.
        purchased_at: when the last of these was sent.
    """

    __slots__ = ("__weakref__", "_own", "purchased_at", "spacing", "turns", "uneasy", "until")

    def __init__(self) -> None:
        self.until = _LONG_AGO
        self.spacing = 0.0
        self.uneasy = False
        self.turns = anyio.Lock()
        self.purchased_at = _LONG_AGO
        self._own: Iterator[float] | None = None

    def begin(self, now: float, seconds: float | None, asked: float) -> None:
        """Pause, or pause longer; see `Account.pause`."""
        self.uneasy = True
        wait = 0.0 if seconds is None else min(seconds, LONGEST_PAUSE)
        if asked >= self.until:  # else one burst of calls in flight together tells the same news many times
            self.spacing = min(LONGEST_SPACING, max(FIRST_SPACING, 2 * self.spacing))
            if self._own is None:
                self._own = delays(1.0, 2.0, 30.0)
            wait = max(next(self._own), wait)
        self.until = max(self.until, now + wait)

    def calm(self, asked: float) -> None:
        """Note a good answer: the next pause starts small, and the spacing shrinks by a tenth (below 10 ms: to 0).

        Only needed while `uneasy`. What was asked before the end of the pause says nothing about how the provider fares
        after it, so that answer changes nothing.

        Args:
            asked: when the question left, in monotonic seconds.
        """
        if asked < self.until:
            return
        self._own = None
        self.spacing *= _RECOVERY
        if self.spacing < _NO_SPACING:
            self.spacing = 0.0
            self.uneasy = False

    def purchase_at(self, now: float) -> float:
        """Return when the purchase whose turn it is may be sent, as things stand."""
        return max(now, self.until, self.purchased_at + self.spacing)
