"""Who sleeps until a job changes: nobody, one future, or several.

Nearly every job has a single waiter and a hundred thousand jobs may be waited for, so the usual case is the bare future
and costs no container.
"""

from __future__ import annotations

import asyncio
from typing import TypeAlias

from mirage_async._tasks import fulfil

__all__ = ["Sleeper", "Sleepers", "joined", "left", "wake", "wake_all"]

Sleeper: TypeAlias = asyncio.Future[None]
Sleepers: TypeAlias = Sleeper | dict[Sleeper, None] | None


def joined(sleepers: Sleepers, sleeper: Sleeper) -> Sleepers:
    """Return the sleepers with one more."""
    if sleepers is None:
        return sleeper
    if not isinstance(sleepers, dict):
        sleepers = {sleepers: None}
    sleepers[sleeper] = None
    return sleepers


def left(sleepers: Sleepers, sleeper: Sleeper) -> Sleepers:
    """Return the sleepers without one; harmless when it is not among them."""
    if isinstance(sleepers, dict):
        sleepers.pop(sleeper, None)
        return sleepers or None
    return None if sleepers is sleeper else sleepers


def wake(sleeper: Sleeper) -> None:
    """Wake one; harmless for one that is awake or was cancelled."""
    fulfil(sleeper, None)


def wake_all(sleepers: Sleepers) -> None:
    """Wake them all."""
    if sleepers is None:
        return
    for sleeper in sleepers if isinstance(sleepers, dict) else (sleepers,):
        wake(sleeper)
