"""An account as the clients see it: its limits and pauses, and the jobs that the scheduler does not hold."""

from __future__ import annotations

import logging
import weakref
from typing import TYPE_CHECKING, Any

from mirage_async.models import JobStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Sized

    from mirage_async.jobs import Job
    from mirage_async.scheduler import Account

__all__ = ["Ledger"]

_logger = logging.getLogger("mirage_async.clients")

MOST_ORPHANS = 100
_WORTHLESS = frozenset({JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.EXPIRED})


class Ledger:
    """The jobs of one account that the scheduler does not hold.

    Args:
        account: limits and pauses.
        owe: told of jobs that somebody may still want the outcome of, and that are no longer kept here.
    """

    __slots__ = ("__weakref__", "_leaving", "_owe", "_strayed", "account", "buying", "orphans", "posting", "stopped")

    def __init__(self, account: Account, owe: Callable[[Job[Any]], None] = lambda _: None) -> None:
        self.account = account
        self._owe = owe
        self._leaving: weakref.WeakSet[Job[Any]] = weakref.WeakSet()  # no longer kept, and not over yet
        self.buying = account.buying  # one set, since a limit that is set later counts them
        self.posting: set[Job[Any]] = set()  # of these: their request is on the wire
        self.stopped: weakref.WeakSet[Job[Any]] = weakref.WeakSet()  # no longer watched, but somebody has the handle
        self._strayed = False  # any job was ever added to `_leaving` or `stopped`; each look into these costs a bit
        self.orphans: dict[Job[Any], None] = {}  # paid or maybe paid, and whoever asked for them was cancelled

    def adopt(self, job: Job[Any]) -> None:
        """Keep a job whose caller was cancelled, so that what was paid for can still be fetched from `jobs`."""
        self.orphans[job] = None
        if len(self.orphans) > MOST_ORPHANS:
            oldest = next(iter(self.orphans))
            del self.orphans[oldest]
            _logger.warning(
                "%r (key %s, id %s) was bought for a cancelled caller and is let go", oldest, oldest.key, oldest.id
            )
            if oldest.done:
                self._owe(oldest)
            else:
                self._leaving.add(oldest)
                self._strayed = True

    def is_buying(self, job: Job[Any]) -> bool:
        """Whether somebody works on the purchase of a job."""
        return job in self.buying or job in self.posting

    def ended(self, job: Job[Any]) -> None:
        """Note that nobody works on a job any more."""
        if not job.done:
            self.stopped.add(job)
            self._strayed = True
        elif self._strayed:
            self.stopped.discard(job)
            if job in self._leaving:
                self._leaving.discard(job)
                self._owe(job)

    def count(self, watched: Sized) -> int:
        """Return how many jobs `jobs` returns, without going through those that are watched."""
        others = {*self.buying, *self.stopped, *self.orphans}
        return len(watched) + sum(1 for job in others if job.ticket is None and not (job.done and self._is_over(job)))

    def _is_over(self, job: Job[Any]) -> bool:
        """Whether a job that is done is not, or no longer, kept for whoever may want its outcome."""
        return job not in self.orphans or job.taken or job.status in _WORTHLESS

    def jobs(self, watched: list[Job[Any]]) -> tuple[Job[Any], ...]:
        """Return the unfinished jobs, and the orphans nobody has taken the outcome of."""
        for job in [job for job in self.orphans if job.taken or job.status in _WORTHLESS]:
            del self.orphans[job]
        found = dict.fromkeys([*self.buying, *watched, *self.stopped])
        return tuple({job: None for job in found if not job.done} | self.orphans)
