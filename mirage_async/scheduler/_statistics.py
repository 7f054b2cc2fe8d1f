"""The counts of a whole scheduler."""

from __future__ import annotations

import msgspec

from mirage_async.scheduler._account import AccountStatistics
from mirage_async.scheduler._adaptive import ModelStatistics

__all__ = ["SchedulerStatistics"]


class SchedulerStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of a scheduler at one moment.

    Attributes:
        jobs_watched: jobs somebody asks about, over all accounts.
        polls_in_flight: status calls under way.
        polls_sent: status calls begun so far.
        jobs_concluded: jobs seen finished so far.
        waits_expired: waits that ended before their job did.
        accounts: the same and more for each provider account.
        models: what the policy has learned of each kind of job, if it learns.
    """

    jobs_watched: int
    polls_in_flight: int
    polls_sent: int
    jobs_concluded: int
    waits_expired: int
    accounts: tuple[AccountStatistics, ...]
    models: tuple[ModelStatistics, ...] = ()
