"""What may be said by hand about a purchase, and what may not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mirage_async.exceptions import InputError
from mirage_async.journal._entry import EntryState
from mirage_async.wire import passed_id

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mirage_async.journal._entry import Entry

__all__ = ["check_id_is_free", "check_settled_by_hand"]

_OPEN: Final = frozenset({EntryState.INTENDED, EntryState.UNCERTAIN, EntryState.ACCEPTED})
_LET_GO: Final = frozenset({EntryState.UNPAID, EntryState.ABANDONED})  # what has no use for its id any more


def check_settled_by_hand(found: Entry, *, id: str | None, unpaid: bool) -> None:  # noqa: A002 - as the journal's method
    """Raise `InputError` unless somebody may settle an entry in this way."""
    if found.state not in _OPEN:
        msg = f"only a purchase whose end is open can be settled by hand; {found.key} is {found.state.value}"
        raise InputError(msg, provider=found.provider)
    if id is None:
        return
    if unpaid:
        msg = f"a purchase has an id or was not bought, not both; got {id!r} and unpaid=True"
        raise InputError(msg, provider=found.provider)
    if found.blocking:
        msg = f"{found.provider} gives what it sends back at once no id to ask with; got {id!r:.60}"
        raise InputError(msg, provider=found.provider)
    passed_id("id", id, provider=found.provider)


def check_id_is_free(found: Entry, id: str, holders: Iterable[Entry]) -> None:  # noqa: A002 - same
    """Raise `InputError` where the job that an entry is to get is that of another purchase.

    Args:
        found: the entry.
        id: the provider's id of the job.
        holders: all entries on record that have it.
    """
    for other in holders:
        if other.key != found.key and other.state not in _LET_GO:
            msg = (
                f"the {found.provider} job {id} is that of another purchase, which is {other.state.value} under the "
                f"key {other.key}; {found.key} must be another job, or was not bought"
            )
            raise InputError(msg, provider=found.provider)
