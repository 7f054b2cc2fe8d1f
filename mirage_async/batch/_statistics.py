"""What a batch tells about itself."""

from __future__ import annotations

import msgspec

__all__ = ["BatchStatistics"]


class BatchStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of a batch at one moment.

    Attributes:
        pulled: items taken from the input.
        in_flight: purchases under way.
        waiting: outcomes that are there and that nobody has taken yet.
        succeeded: purchases that ended with pictures.
        failed: outcomes with an error that is no uncertain purchase.
        uncertain: purchases of which nobody can say whether they were made.
        purchases: purchases made or maybe made; a request that failed over after a failed job counts twice.
        pictures: pictures asked for by these.
        credits: what these cost, in the providers' own units: as they said, or else as was reckoned.
        stopped: whether nothing more will be bought: by `stop`, by the budget, or because the batch or the hub closed.
    """

    pulled: int
    in_flight: int
    waiting: int
    succeeded: int
    failed: int
    uncertain: int
    purchases: int
    pictures: int
    credits: float
    stopped: bool
