"""What is left to do of a batch: decided before anything is bought, from the journal, the manifest and the files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from mirage_async.cli._batch.items import Purchase
from mirage_async.cli._batch.record import Record
from mirage_async.cli._exits import CommandError
from mirage_async.cli._lines import counted
from mirage_async.journal import Entry, EntryState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from mirage_async.cli._batch.record import State
    from mirage_async.exceptions import Billed

__all__ = ["BOUGHT_ALL_THE_SAME", "Plan", "Task", "plan_for"]

_OVER = frozenset({EntryState.FAILED, EntryState.CANCELLED, EntryState.EXPIRED})
_STATES: Mapping[EntryState, tuple[State, Billed]] = {  # of a purchase that brought no pictures
    EntryState.INTENDED: ("uncertain", "unknown"),
    EntryState.UNCERTAIN: ("uncertain", "unknown"),
    EntryState.ACCEPTED: ("pending", "yes"),
    EntryState.SUCCEEDED: ("unsaved", "yes"),
    EntryState.UNPAID: ("refused", "no"),
}
_MOST_NAMES = 5  # lines told of
BOUGHT_ALL_THE_SAME = "it was bought, as an earlier run has seen, and what came of it could not be written down"
"""What is said of a purchase whose answer was there when the disk was full."""

_GIVEN_UP = "given up by hand: it may have been bought"


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """One purchase under the key it goes by this time."""

    key: str
    purchase: Purchase

    def found(self, entry: Entry | None, earlier: Record | None = None) -> Record:
        """Return the record of a purchase that brought no pictures.

        Args:
            entry: what the journal says of it.
            earlier: what the manifest did; it may know more where the disk was full.
        """
        if entry is None:
            return self.record(state="unbought")
        state, billed = _STATES.get(entry.state, ("failed", "unknown"))
        if state == "uncertain" and _was_bought(earlier):
            job_id = entry.id or (None if earlier is None else earlier.job_id)
            return self.record(state=state, billed="yes", job_id=job_id, error=BOUGHT_ALL_THE_SAME)
        # What was said before somebody has settled it by hand is of no interest any more.
        outcome = entry.outcome if entry.settled or entry.state is EntryState.UNCERTAIN else None
        error = None if outcome is None or outcome.error is None else outcome.error.message
        return self.record(state=state, billed=billed, job_id=entry.id, error=error)

    def record(self, **facts: object) -> Record:
        """Return the manifest's record of it, with what became of it."""
        purchase = self.purchase
        request = purchase.request
        known = {
            "line": purchase.number,
            "part": purchase.part,
            "parts": purchase.parts,
            "key": self.key,
            "provider": request.provider or "",
            "model": request.model,
            "prompt": request.prompt,
            "requested": request.n or 1,
        }
        return Record(**{**known, **facts})  # type: ignore[arg-type]  # the callers name the record's own fields


class Plan(msgspec.Struct, kw_only=True):
    """What is left to do.

    Attributes:
        tasks: all purchases, in the order of the lines.
        over: the records of those that need nothing more: they are done, or have failed for good.
        owed: those that were made, or may have been, and whose pictures are not in the folder.
        doubtful: how many of these nobody knows the end of.
        given_up: how many a person has given up.
        fresh: those to buy.
        strays: open purchases in the journal that no line asks for any more.
        left: pictures in the folder that no line asks for any more.
    """

    tasks: list[Task]
    over: dict[str, Record]
    owed: list[Task]
    doubtful: int = 0
    given_up: int = 0
    fresh: list[Task]
    strays: list[Entry]
    left: int = 0

    @property
    def done(self) -> int:
        """How many purchases earlier runs have brought to their end."""
        return sum(record.state == "done" for record in self.over.values())


class _Known:
    """What is on record of the purchases under all their keys."""

    def __init__(self, entries: Iterable[Entry], records: Mapping[str, Record], folder: Path) -> None:
        self.entries = {entry.key: entry for entry in entries}
        self.records = records
        self._folder = folder

    def task(self, purchase: Purchase, batch: str, *, retry_failed: bool) -> Task:
        """Return the purchase under the key of its last attempt, or of a new one."""
        attempt = 0
        while (later := purchase.key(batch, attempt + 1)) in self.entries or later in self.records:
            attempt += 1
        key = purchase.key(batch, attempt)
        if retry_failed and self.failed(key):
            key = purchase.key(batch, attempt + 1)
        return Task(key=key, purchase=purchase)

    def failed(self, key: str) -> bool:
        entry = self.entries.get(key)
        if entry is not None:
            return entry.state in _OVER
        return key in self.records and self.records[key].state == "failed"

    def finished(self, task: Task) -> Record | None:
        """Return the record of a purchase that needs nothing more, as its line is now."""
        record, entry = self.records.get(task.key), self.entries.get(task.key)
        if entry is not None and entry.state is EntryState.ABANDONED:
            return task.record(state="failed", error=_GIVEN_UP, billed="unknown")
        if record is None:
            return None
        complete = record.state == "done" and all((self._folder / name).is_file() for name in record.files)
        failed = record.state == "failed" and self.failed(task.key)
        return msgspec.structs.replace(record, line=task.purchase.number) if complete or failed else None


def plan_for(
    purchases: Sequence[Purchase],
    batch: str,
    entries: Iterable[Entry],
    records: Mapping[str, Record],
    folder: Path,
    *,
    retry_failed: bool,
    resumable: bool,
) -> Plan:
    """Decide what is left to do.

    Args:
        purchases: in the order of the lines.
        batch: its id.
        entries: of the journal.
        records: of the manifest.
        folder: where the pictures are.
        retry_failed: whether what failed is to be bought once more.
        resumable: whether the journal is the one the manifest goes with; that of a sandbox is new each time.

    Raises:
        CommandError: the journal does not know what the manifest says was bought.
    """
    known = _Known(entries, records, folder)
    tasks = [known.task(purchase, batch, retry_failed=retry_failed) for purchase in purchases]
    plan = Plan(tasks=tasks, over={}, owed=[], fresh=[], strays=[])
    for task in tasks:
        entry, record = known.entries.get(task.key), known.finished(task)
        if record is not None:
            plan.over[task.key] = record
            plan.given_up += record.error == _GIVEN_UP
        elif entry is not None and entry.state is not EntryState.UNPAID:
            plan.owed.append(task)
            doubtful = entry.state in {EntryState.INTENDED, EntryState.UNCERTAIN}
            plan.doubtful += doubtful and not _was_bought(records.get(task.key))
        else:
            plan.fresh.append(task)
    if resumable and plan.fresh:
        _check_journal(known)
    mine = {task.key for task in tasks}
    plan.strays = [entry for entry in known.entries.values() if entry.owed and entry.key not in mine]
    plan.left = sum(len(record.files) for key, record in records.items() if record.state == "done" and key not in mine)
    return plan


def _was_bought(record: Record | None) -> bool:
    """Whether an earlier run has had the answer: it had pictures to save."""
    return record is not None and record.billed == "yes" and record.state in {"done", "unsaved"}


def _check_journal(known: _Known) -> None:
    """Refuse to buy with a journal that does not know all that was bought: it could be again, and no budget would hold.

    What the manifest says was bought has to be in it, whether or not a line still asks for that.
    """
    lost = [record for key, record in known.records.items() if record.billed != "no" and key not in known.entries]
    if lost:
        names = ", ".join(
            "a line that is gone" if record.line is None else record.title for record in lost[:_MOST_NAMES]
        )
        raise CommandError(
            f"the journal of this folder does not know of {counted(len(lost), 'purchase')} made before ({names}"
            f"{', ...' if len(lost) > _MOST_NAMES else ''}): put back the one they were made with, or name another "
            "folder with -o"
        )
