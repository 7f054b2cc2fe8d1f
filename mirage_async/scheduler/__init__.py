"""Asking providers about jobs: when, how many at once, and when to stop."""

from mirage_async.scheduler._account import Account, AccountStatistics
from mirage_async.scheduler._adaptive import AdaptiveInterval, ModelStatistics, Sighting
from mirage_async.scheduler._intervals import (
    BackoffInterval,
    FixedInterval,
    IntervalPolicy,
    JobView,
    LearningPolicy,
)
from mirage_async.scheduler._limits import Limits
from mirage_async.scheduler._scheduler import Scheduler
from mirage_async.scheduler._statistics import SchedulerStatistics

__all__ = [
    "Account",
    "AccountStatistics",
    "AdaptiveInterval",
    "BackoffInterval",
    "FixedInterval",
    "IntervalPolicy",
    "JobView",
    "LearningPolicy",
    "Limits",
    "ModelStatistics",
    "Scheduler",
    "SchedulerStatistics",
    "Sighting",
]
