"""Which status may follow which. Nothing else in the library decides that.

::

    submitting ──┬─> queued ──> running ──┬─> succeeded
                 │      └─────────────────┼─> failed
                 │                        ├─> cancelled
                 │                        └─> expired
                 └─> uncertain ──> any of the above, once something heals it

A blocking provider answers the purchase itself, so `submitting` may go straight to any end. A provider that reports
`queued` after `running` is not believed: that is no move and no error (see `_settle.note`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mirage_async.models import JobStatus

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["MOVES", "check_move"]

_ENDS = frozenset({JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.EXPIRED})

MOVES: Mapping[JobStatus, frozenset[JobStatus]] = {
    JobStatus.SUBMITTING: _ENDS | {JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.UNCERTAIN},
    JobStatus.QUEUED: _ENDS | {JobStatus.RUNNING},
    JobStatus.RUNNING: _ENDS,
    JobStatus.UNCERTAIN: _ENDS | {JobStatus.QUEUED, JobStatus.RUNNING},
    JobStatus.SUCCEEDED: frozenset(),
    JobStatus.FAILED: frozenset(),
    JobStatus.CANCELLED: frozenset(),
    JobStatus.EXPIRED: frozenset(),
}


def check_move(old: JobStatus, new: JobStatus) -> None:
    """Raise `RuntimeError` unless the table allows `old` to become `new`.

    An illegal move is a mistake in this library, never something a provider or a user can cause.
    """
    if new not in MOVES[old]:
        msg = f"a job cannot go from {old.value} to {new.value}"
        raise RuntimeError(msg)
