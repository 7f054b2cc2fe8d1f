"""What a batch tells a person before it begins and when it has ended."""

from __future__ import annotations

import shlex
from collections import Counter
from typing import TYPE_CHECKING

from mirage_async.cli._batch.worker import INTERRUPTED
from mirage_async.cli._exits import ExitCode
from mirage_async.cli._lines import counted, tell

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mirage_async.cli._batch.folder import BatchFolder
    from mirage_async.cli._batch.plan import Plan
    from mirage_async.cli._batch.progress import Tally
    from mirage_async.cli._batch.record import Record, State
    from mirage_async.cli._batch.worker import Worker

__all__ = ["ending", "tell_before", "tell_uncertain"]

_MOST_UNCERTAIN = 20  # keys told of
_BAD: tuple[State, ...] = ("unsaved", "pending", "uncertain", "refused", "failed")


def tell_before(plan: Plan, folder: BatchFolder) -> None:
    """Say what earlier runs have left, where there were any."""
    if plan.over or plan.owed:
        done = sum(record.state == "done" for record in plan.over.values())
        failed = len(plan.over) - done
        words = [f"{done} of {len(plan.tasks)} are done"]
        words += [f"{failed} have failed (--retry-failed buys them again)"] if failed else []
        bought = len(plan.owed) - plan.doubtful
        words += [f"{bought} were bought and are collected"] if bought else []
        words += [f"of {plan.doubtful} nobody knows whether they were bought"] if plan.doubtful else []
        words += [f"{len(plan.fresh)} are to be bought"] if plan.fresh else []
        tell(f"going on with {str(folder.path)!r}: {', '.join(words)}")
    if plan.strays:
        tell(
            f"{len(plan.strays)} purchases of earlier runs belong to no line any more; to collect them: "
            f"mirage-async jobs wait --journal {shlex.quote(str(folder.journal))} -o DIR"
        )


def tell_uncertain(records: Sequence[Record], folder: BatchFolder) -> None:
    """Say which purchases nobody knows the end of, and how to settle them."""
    doubtful = [record for record in records if record.state == "uncertain"]
    if not doubtful:
        return
    place = shlex.quote(str(folder.journal))
    these = "this one was" if len(doubtful) == 1 else f"these {len(doubtful)} were"
    tell(f"nobody knows whether {these} bought: look at the provider's dashboard, then say what became of it:")
    for record in doubtful[:_MOST_UNCERTAIN]:
        settle = f"mirage-async jobs resolve --journal {place} {record.key} (--id ID | --not-bought | --give-up)"
        tell(f"line {record.line}: {settle}")
    if len(doubtful) > _MOST_UNCERTAIN:
        tell(f"all of them: mirage-async jobs list --journal {place}")


def ending(records: Sequence[Record], folder: BatchFolder, tally: Tally, worker: Worker, *, quiet: bool) -> ExitCode:
    """Tell how it ended, and return the exit code for that."""
    states = Counter(record.state for record in records)
    if worker.reason is not None and worker.reason != INTERRUPTED:
        tell(f"the buying has stopped: {worker.reason}")
    if not quiet:
        words = [f"{states['done']} of {len(records)} done"]
        words += [f"{states[name]} {name}" for name in _BAD if states[name]]
        words += [f"{states['unbought']} not bought"] if states["unbought"] else []
        words += [f"{tally.money} spent by this run"] if tally.money else []
        collected = counted(sum(tally.collected.values()), "credit")
        words += [f"{collected} of earlier runs collected"] if tally.collected else []
        tell(f"{', '.join(words)}; {folder.page!s} shows them, {folder.manifest.name} lists them")
    if states["done"] == len(records):
        return ExitCode.DONE
    alike = not states["done"] and not states["unbought"] and len(worker.codes) == 1
    return next(iter(worker.codes)) if alike else ExitCode.PARTIAL
