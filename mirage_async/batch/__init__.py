"""Many requests: so many at a time, in order or as they finish, within a budget."""

from mirage_async.batch._batch import Batch
from mirage_async.batch._budget import Budget
from mirage_async.batch._statistics import BatchStatistics

__all__ = ["Batch", "BatchStatistics", "Budget"]
