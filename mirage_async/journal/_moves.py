"""The moves of a purchase on their way to the disk: held while they wait their turn, made into rows by the thread.

There are thousands of them at a time under load, and none outlives its turn in a journal that is closed in the end, so
the garbage collector need not look at them; as closures they cost it more than all else that a purchase holds while it
waits.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec

from mirage_async.exceptions import JournalError
from mirage_async.jobs import Intent, Job
from mirage_async.journal._entry import EntryState
from mirage_async.journal._outcomes import links_of, store
from mirage_async.journal._requests import digest_of, label_digest, packed

if TYPE_CHECKING:
    from mirage_async.journal._writer import Prepared, Write

__all__ = ["Fact", "IntentRow", "Losses", "OutcomeRow", "not_intended"]

_logger = logging.getLogger("mirage_async.journal")

_UNWRITTEN = (
    "the journal in %s has not written what became of a purchase. Where the disk is the reason, that is tried again as "
    "long as this process lives. Until then, keep this: provider %s, kind %s, key %s, id %s, state %s, "
    "links %s"
)


class IntentRow(msgspec.Struct, frozen=True, gc=False):
    """The row of a request that is about to leave.

    Attributes:
        job: whose it is.
        intent: what the request is.
        run: who answers for it.
        kept_as: the file that all of the request goes to, or None where prompts are not stored.
        moment: when it was about to leave, in seconds since the epoch.
        moment_of_clock: the same in the seconds of the job's clock.
    """

    job: Job[Any]
    intent: Intent
    run: str
    kept_as: Path | None
    moment: float
    moment_of_clock: float

    def __call__(self) -> Prepared:
        """Make the row, and with it the file."""
        job, intent = self.job, self.intent
        call = intent.call
        row = (
            job.key,
            job.provider,
            intent.account,
            job.kind.name,
            int(intent.blocking),  # SQLite's driver looks for ways to adapt a bool, and finds none
            int(intent.announced),
            job.model,
            job.requested,
            digest_of(call),
            None if call.label is None else label_digest(call.label),
            self.moment,
            self.moment + intent.deadline - self.moment_of_clock,
            self.run,
            int(intent.own_key),
        )
        return row, () if self.kept_as is None else [(self.kept_as, packed(call))]


class OutcomeRow(msgspec.Struct, frozen=True, gc=False):
    """The row of an outcome.

    Attributes:
        key: of the job.
        outcome: a `Generation`, an `Avatar` or a `MirageError`.
        state: what that means.
        spooled: the bytes of pictures that came inside the answer go to files, since they can be had nowhere else.
        known: the prompt was known, and cut out of the provider's words.
        prompts: keep what repeats the prompt.
        path_of: where the file of a name is.
        moment: when it was known, in seconds since the epoch.
    """

    key: str
    outcome: object
    state: EntryState
    spooled: bool
    known: bool
    prompts: bool
    path_of: Callable[[str], Path]
    moment: float

    def __call__(self) -> Prepared:
        """Make the row, and with it the files of the pictures."""
        stored, files = store(self.outcome, key=self.key, spooled=self.spooled, prompts=self.prompts, known=self.known)
        text = msgspec.json.encode(stored).decode()
        return (self.key, self.state.value, text, self.moment), [(self.path_of(name), data) for name, data in files]


class Fact(msgspec.Struct, frozen=True, gc=False):
    """What a row says about a paid job, for a log: told only where the row cannot be written.

    Attributes:
        job: the job.
        id: the provider's, as it was then.
        state: what has become of it.
        outcome: a `Generation` whose pictures are linked to from nowhere else, or None.
    """

    job: Job[Any]
    id: str | None
    state: EntryState
    outcome: object = None

    @property
    def links(self) -> str:
        """Where its pictures are."""
        return " ".join(links_of(self.outcome)) or "none"

    def __str__(self) -> str:
        return f"{self.job.provider}, {self.job.key}, {self.state}, id {self.id}"


class Losses:
    """What those who wait are told about rows that are not written.

    Args:
        folder: of the journal.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._told: set[str] = set()  # keys of jobs of which it was said

    def tell(self, write: Write, error: Exception) -> Exception | None:
        """Return what the waiter gets; for a fact, say once all that is needed to find the job, and let it go on."""
        about = write.about
        if not isinstance(about, Fact):
            return not_intended(self._folder, cast("Job[Any]", about), error)
        job = about.job
        if job.key not in self._told:
            self._told.add(job.key)
            who = job.provider, job.kind.name, job.key, about.id, about.state.value, about.links
            _logger.critical(_UNWRITTEN, self._folder, *who, exc_info=error)
        return None

    def forget(self) -> None:
        """Say it again the next time, since all is written now."""
        self._told.clear()


def not_intended(folder: Path, job: Job[Any], error: Exception) -> JournalError:
    """Return what a purchase fails with whose intent is not on disk."""
    closed = isinstance(error, JournalError)
    msg = str(error) if closed else f"the journal in {str(folder)!r} cannot be written ({error}), so nothing was sent"
    failed = JournalError(msg, provider=job.provider)
    failed.__cause__ = None if closed else error
    return failed
