"""The one place for waiting and trying again.

`backoff` supplies the growing delays (its generators only: its decorators measure the wall clock and sleep on their
own). The waiting itself happens here, on an injected clock: a provider's Retry-After is a floor under our own delay,
never a replacement for it, and a wait that would not fit into the budget is not begun.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import backoff

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mirage_async._clock import Clock

__all__ = ["Retrier", "delays"]

_spread = random.Random()


def delays(initial: float, factor: float, maximum: float) -> Iterator[float]:
    """Yield `initial`, `initial * factor`, ... seconds, never more than `maximum`, without end."""
    generator = backoff.expo(base=factor, factor=initial, max_value=maximum)
    next(generator)  # the generators of `backoff` are primed once; what that yields differs between its versions
    yield from generator


class Retrier:
    """Counts the attempts of one operation and waits between them.

    Args:
        clock: whose time is waited on.
        tries: attempts allowed in all, at least 1.
        budget: seconds from now in which attempts may begin.
        initial: the first delay in seconds.
        factor: how fast the delay grows.
        maximum: the longest delay of our own in seconds.
        max_floor: the longest wait a provider may ask for in seconds; a longer one ends the attempts.
    """

    __slots__ = ("_clock", "_deadline", "_delays", "_left", "_max_floor")

    def __init__(
        self,
        clock: Clock,
        *,
        tries: int,
        budget: float,
        initial: float = 0.5,
        factor: float = 2.0,
        maximum: float = 10.0,
        max_floor: float = 60.0,
    ) -> None:
        self._clock = clock
        self._left = tries - 1
        self._deadline = clock.monotonic() + budget
        self._delays = delays(initial, factor, maximum)
        self._max_floor = max_floor

    async def again(self, floor: float | None = None) -> bool:
        """Wait for the next attempt; return False at once where there is none left or no time for it.

        Up to a quarter of our own delay is added at random, so that many callers refused together do not return
        together. Cancelling the wait raises through.

        Args:
            floor: the least the provider wants us to wait, in seconds (its Retry-After).
        """
        own = next(self._delays)
        floor = 0.0 if floor is None else floor
        wait = max(own, floor) + own * _spread.uniform(0.0, 0.25)
        if self._left < 1 or floor > self._max_floor or self._clock.monotonic() + wait > self._deadline:
            return False
        self._left -= 1
        await self._clock.sleep(wait)
        return True
