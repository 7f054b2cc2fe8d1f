"""What the journal says about one purchase."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

import msgspec

from mirage_async.exceptions import (
    APIError,
    JobCancelledError,
    JobExpiredError,
    JobFailedError,
    MirageError,
    ResponseError,
    SubmissionUncertainError,
)
from mirage_async.journal._outcomes import StoredOutcome
from mirage_async.journal._requests import digest_of, label_digest

if TYPE_CHECKING:
    from mirage_async.wire import Call

__all__ = ["Entry", "EntryState", "state_of"]


class EntryState(enum.StrEnum):
    """How far a purchase got, as far as it was written down.

    ::

        intended ──┬─> accepted ──┬─> succeeded
           │       │              ├─> failed | cancelled | expired
           │       ├─> succeeded, failed      (a provider that answers with the pictures)
           │       └─> uncertain ──> accepted (found after all) | abandoned (by hand)
           └─> unpaid ──> intended            (sent again: the next attempt)
    """

    INTENDED = "intended"
    UNPAID = "unpaid"
    ACCEPTED = "accepted"
    UNCERTAIN = "uncertain"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    ABANDONED = "abandoned"


_SETTLED = frozenset({EntryState.SUCCEEDED, EntryState.FAILED, EntryState.CANCELLED, EntryState.EXPIRED})
_ANSWERS = (APIError, ResponseError, JobFailedError, JobCancelledError, JobExpiredError)  # of the provider's
_OPEN = frozenset({EntryState.INTENDED, EntryState.ACCEPTED, EntryState.UNCERTAIN})


def state_of(outcome: object) -> EntryState:
    """Return the state of a purchase that ended with a result or an error."""
    if not isinstance(outcome, MirageError):
        return EntryState.SUCCEEDED
    if isinstance(outcome, SubmissionUncertainError):
        return EntryState.UNCERTAIN
    if outcome.billed == "no":
        return EntryState.UNPAID
    if outcome.billed == "unknown" and not isinstance(outcome, _ANSWERS):
        return EntryState.UNCERTAIN  # it is about an attempt after one that nobody knows the end of
    if isinstance(outcome, JobCancelledError):
        return EntryState.CANCELLED
    return EntryState.EXPIRED if isinstance(outcome, JobExpiredError) else EntryState.FAILED


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One purchase in the journal. It holds no key, no picture and, unless asked to, no prompt.

    Attributes:
        key: our own key of the job.
        provider: the provider's name.
        account: an alias of provider, address and API key that tells nothing of the key.
        kind: "image" or "avatar".
        blocking: the provider answers with the pictures themselves and gives no id.
        announced: the provider was given an address to call back.
        model: the model asked for, or None.
        requested: pictures asked for.
        digest: SHA-256 of the request as it was sent, 64 hexadecimal digits.
        label: SHA-256 of what the provider lists the result under (the name of an avatar), or None.
        id: the provider's id of the job, or None.
        state: how far it got.
        attempts: how often it was sent.
        doubtful: attempts before the last of which nobody can say whether they bought something.
        intended_at: when the last attempt was about to leave; seconds since the epoch, and so are the other moments.
        deadline: until when whoever asked for it wanted to wait.
        updated_at: when this entry was written last.
        outcome: what came of it, or None where nothing has yet.
        handed_over: whether a waiter has been given the outcome.
    """

    key: str
    provider: str
    account: str
    kind: str
    blocking: bool
    announced: bool
    model: str | None
    requested: int
    digest: str
    label: str | None
    id: str | None
    state: EntryState
    attempts: int
    doubtful: int
    intended_at: float
    deadline: float
    updated_at: float
    outcome: StoredOutcome | None
    handed_over: bool

    @property
    def settled(self) -> bool:
        """Whether it was bought and its end is known."""
        return self.state in _SETTLED

    @property
    def owed(self) -> bool:
        """Whether something that was paid for, or may have been, has not reached anybody yet."""
        return not self.handed_over and (self.state in _OPEN or self.settled)

    def may_be_of(self, call: Call) -> bool:
        """Whether a request may be the one this purchase was made with.

        It cannot be told where only one of the two says where to call back; the provider's own way to say so differs.
        """
        return self.digest == digest_of(call) or self.announced != bool(call.callback)

    def is_called(self, name: str) -> bool:
        """Whether that is the name under which the provider was to list the result."""
        return self.label == label_digest(name)
