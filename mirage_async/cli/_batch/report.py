"""What a batch tells a person before it begins and when it has ended."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from mirage_async.cli._batch.worker import INTERRUPTED
from mirage_async.cli._exits import ExitCode
from mirage_async.cli._lines import command_line, counted, tell

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from mirage_async.cli._batch.folder import BatchFolder
    from mirage_async.cli._batch.plan import Plan
    from mirage_async.cli._batch.progress import Tally
    from mirage_async.cli._batch.record import Record, State
    from mirage_async.cli._batch.worker import Worker

__all__ = ["ending", "tell_before", "tell_uncertain"]

_MOST_UNCERTAIN = 20  # keys told of
_BAD: tuple[State, ...] = ("unsaved", "pending", "uncertain", "refused", "failed")


def tell_before(plan: Plan, folder: BatchFolder) -> None:
    """Say what it will take, and what earlier runs have left, where there were any."""
    _tell_splits(plan)
    if plan.over or plan.owed:
        failed = len(plan.over) - plan.done - plan.given_up
        bought = len(plan.owed) - plan.doubtful
        words = [f"{plan.done} of {len(plan.tasks)} {'is' if plan.done == 1 else 'are'} done"]
        words += [f"{failed} {'has' if failed == 1 else 'have'} failed (--retry-failed buys again)"] if failed else []
        words += [f"{_were(plan.given_up)} given up by hand"] if plan.given_up else []
        words += [f"{_were(bought)} bought and {'is' if bought == 1 else 'are'} collected"] if bought else []
        words += [f"nobody knows whether {_were(plan.doubtful)} bought"] if plan.doubtful else []
        words += [f"{_are(len(plan.fresh))} to be bought"] if plan.fresh else []
        tell(f"going on with {str(folder.path)!r}: {', '.join(words)}", whole=True)
    if plan.left and plan.fresh:
        belong = "belongs" if plan.left == 1 else "belong"
        tell(
            f"{counted(plan.left, 'picture')} of earlier runs {belong} to no line any more (a changed line or option "
            f"asks for another picture); {_are(len(plan.fresh))} to be bought"
        )
    if plan.strays:
        belong = "belongs" if len(plan.strays) == 1 else "belong"
        tell(
            f"{counted(len(plan.strays), 'purchase')} of earlier runs {belong} to no line any more; to collect: "
            f"mirage-async jobs wait --journal {command_line(str(folder.journal))} -o DIR",
            whole=True,
        )


def _tell_splits(plan: Plan) -> None:
    """Say where lines take more requests than one."""
    split = {task.purchase.number for task in plan.tasks if task.purchase.parts > 1}
    if split:
        lines = counted(len({task.purchase.number for task in plan.tasks}), "line")
        how_many = "1 line is" if len(split) == 1 else f"{len(split)} lines are"
        tell(f"{counted(len(plan.tasks), 'request')} for {lines} ({how_many} split)")


def _are(count: int) -> str:
    return f"{count} is" if count == 1 else f"{count} are"


def _by_whom(records: Sequence[Record], plan: Plan) -> str:
    """Say how much of what is done earlier runs have left, where that is any."""
    done = [record.key in plan.over for record in records if record.state == "done"]
    return f" ({sum(done)} by earlier runs, {len(done) - sum(done)} by this one)" if any(done) else ""


def _spent(records: Sequence[Record], plan: Plan, tally: Tally) -> str:
    """Say what this run has cost, or why that is not said."""
    fresh = {task.key for task in plan.fresh}
    bought = sum(record.billed != "no" for record in records if record.key in fresh)
    if not bought:
        return "nothing bought by this run"
    return f"{tally.money or 'an unknown sum'} spent by this run"


def _were(count: int) -> str:
    return f"{count} was" if count == 1 else f"{count} were"


def tell_uncertain(records: Sequence[Record], folder: BatchFolder, nameless: Container[str] = ()) -> None:
    """Say which purchases nobody knows the end of, and how to settle them.

    Args:
        records: of the batch.
        folder: of the batch.
        nameless: keys of those that are answered with the pictures: they have no id to ask with.
    """
    doubtful = [record for record in records if record.state == "uncertain"]
    if not doubtful:
        return
    place = command_line(str(folder.journal))
    unknown = sum(record.billed != "yes" for record in doubtful)
    if unknown:
        these = "this one was" if unknown == 1 else f"these {unknown} were"
        tell(f"nobody knows whether {these} bought: look at the provider's dashboard, then say what became of it:")
    for record in sorted(doubtful, key=lambda each: each.billed == "yes")[:_MOST_UNCERTAIN]:
        settle = f"mirage-async jobs resolve --journal {place} {record.key}"
        tell(f"{record.title}{_ways(record, settle, nameless=record.key in nameless)}", whole=True)
    if len(doubtful) > _MOST_UNCERTAIN:
        tell(f"all of them: mirage-async jobs list --journal {place}", whole=True)


def _ways(record: Record, settle: str, *, nameless: bool) -> str:
    """Say what can be done about a purchase, given what is known of it."""
    if record.billed != "yes":
        return f": {settle} ({'' if nameless else '--id ID | '}--not-bought | --give-up)"
    if record.job_id is None or nameless:
        return f": {record.error}; it is lost: {settle} --give-up"
    return (
        f": {record.error}; to collect it, do this and run the batch again: {settle} --id {command_line(record.job_id)}"
    )


def ending(
    records: Sequence[Record], folder: BatchFolder, plan: Plan, tally: Tally, worker: Worker, *, quiet: bool, kept: bool
) -> ExitCode:
    """Tell how it ended, and where that can be read if it is `kept`; return the exit code for it."""
    states = Counter(record.state for record in records)
    if worker.reason is not None and worker.reason != INTERRUPTED:
        tell(f"the buying has stopped: {worker.reason}")
    if not quiet:
        words = [f"{states['done']} of {len(records)} done{_by_whom(records, plan)}"]
        words += [f"{states[name]} {name}" for name in _BAD if states[name]]
        words += [f"{states['unbought']} not bought"] if states["unbought"] else []
        words += [_spent(records, plan, tally)]
        collected = counted(sum(tally.collected.values()), "credit")
        words += [f"{collected} of earlier runs collected"] if tally.collected else []
        where = f"; {folder.page!s} shows them, {folder.manifest.name} lists them" if kept else ""
        tell(f"{', '.join(words)}{where}", whole=True)
    if states["done"] == len(records):
        return ExitCode.DONE
    alike = not states["done"] and not states["unbought"] and len(worker.codes) == 1
    return next(iter(worker.codes)) if alike else ExitCode.PARTIAL
