"""Two bounded memories: hints that came before their jobs, and ids of deliveries that were taken."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Hashable

__all__ = ["Hint", "Inbox", "Seen"]

MOST_PARKED = 10_000
PARKED_FOR = 900.0  # seconds
MOST_SEEN = 100_000


class Hint(msgspec.Struct, frozen=True, kw_only=True):
    """What a delivery says: that one job is said to have changed. Only the first two attributes are proven.

    Attributes:
        provider: the provider's name.
        key: our key of the job.
        job_id: the provider's id of it, as the body claims, or None.
        status: the status, as the body claims, or None.
    """

    provider: str
    key: str
    job_id: str | None = None
    status: str | None = None


class Inbox:
    """Hints for jobs that cannot be asked about yet, the latest for each job.

    At most 10,000 are kept, each for 15 minutes; the oldest makes room. A hint that is lost here costs the time until
    the next status call.
    """

    __slots__ = ("_parked",)

    def __init__(self) -> None:
        self._parked: OrderedDict[tuple[str, str], tuple[float, Hint]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._parked)

    def put(self, hint: Hint, now: float) -> None:
        """Keep a hint; `now` is in seconds of any clock that only goes forward."""
        self._expire(now)
        self._parked[hint.provider, hint.key] = now + PARKED_FOR, hint
        self._parked.move_to_end((hint.provider, hint.key))
        if len(self._parked) > MOST_PARKED:
            self._parked.popitem(last=False)

    def take(self, provider: str, key: str, now: float) -> Hint | None:
        """Take out what came for a job, or return None."""
        self._expire(now)
        found = self._parked.pop((provider, key), None)
        return None if found is None else found[1]

    def _expire(self, now: float) -> None:
        while self._parked:
            until, _ = next(iter(self._parked.values()))
            if until > now:
                return
            self._parked.popitem(last=False)


class Seen:
    """What was seen a while ago or sooner, at most 100,000 of it; the oldest makes room.

    Args:
        lifetime: seconds.
    """

    __slots__ = ("_lifetime", "_until")

    def __init__(self, lifetime: float) -> None:
        self._lifetime = lifetime
        self._until: OrderedDict[Hashable, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._until)

    def add(self, what: Hashable, now: float) -> bool:
        """Remember `what`; False where it is remembered already."""
        while self._until and next(iter(self._until.values())) <= now:
            self._until.popitem(last=False)
        if what in self._until:
            return False
        self._until[what] = now + self._lifetime
        if len(self._until) > MOST_SEEN:
            self._until.popitem(last=False)
        return True
