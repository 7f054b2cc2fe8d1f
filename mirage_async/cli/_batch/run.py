"""One run of a batch, from the lines to the page: what is owed is collected, the rest is bought, all of it is kept."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
from typing import TYPE_CHECKING

import msgspec

from mirage_async.cli._aside import stderr_aside
from mirage_async.cli._batch.folder import BatchFolder, held_folder, write_whole
from mirage_async.cli._batch.interruption import Interruption, minding_signals
from mirage_async.cli._batch.items import items_of, purchases_of
from mirage_async.cli._batch.manifest import Manifest
from mirage_async.cli._batch.page import render
from mirage_async.cli._batch.plan import plan_for
from mirage_async.cli._batch.progress import Tally, displayed
from mirage_async.cli._batch.report import ending, tell_before, tell_uncertain
from mirage_async.cli._batch.till import budget_for, unpriced
from mirage_async.cli._batch.troubles import lines_in_words
from mirage_async.cli._batch.worker import Worker
from mirage_async.cli._exits import CommandError, ExitCode
from mirage_async.cli._hubs import ends_with_us, hub_on
from mirage_async.cli._lines import AdvisedError, counted, tell
from mirage_async.clients import Providers
from mirage_async.exceptions import MirageError
from mirage_async.hub import Mirage
from mirage_async.journal import EntryState, Journal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mirage_async.cli._batch.items import Purchase
    from mirage_async.cli._batch.order import BatchOrder, Bound
    from mirage_async.cli._batch.plan import Plan, Task
    from mirage_async.cli._batch.record import Record
    from mirage_async.journal import Entry

__all__ = ["fulfil"]

_MOST_PROBLEMS = 20  # reasons told of


async def fulfil(order: BatchOrder) -> ExitCode:
    """Do what is left of a batch.

    Returns:
        `DONE` where every picture is in the folder; `PARTIAL` where some are missing; where all are, the code they have
        in common.

    Raises:
        AdvisedError: it was told to stop before the end; says how to go on.
        CommandError: a line is wrong, the folder does not serve, or a provider has no key; nothing was bought.
        MirageError: the journal cannot be read or written; nothing was bought.
    """
    purchases = await _checked(order)
    sandbox = order.sandbox or bool(os.environ.get("MIRAGE_SANDBOX_URL"))
    async with stderr_aside():
        with held_folder(order.folder, sandbox=sandbox) as folder:
            return await _Run(order, folder).go(purchases)


async def _checked(order: BatchOrder) -> Sequence[Purchase]:
    """Return the purchases the lines take, or tell of all that is wrong with them."""
    items, unreadable = items_of(order.lines, order.base, order.defaults)
    keys = dict.fromkeys(Providers.classes(), "sandbox") if order.sandbox else None
    async with Mirage(keys) as hub:
        purchases, refused = await purchases_of(hub, items)
    problems = sorted([*order.problems, *unreadable, *refused])
    reasons: dict[str, list[int]] = {}
    for problem in problems:
        reasons.setdefault(problem.reason, []).append(problem.number)
    for reason, numbers in list(reasons.items())[:_MOST_PROBLEMS]:
        tell(f"{lines_in_words(numbers)}: {reason}")
    if problems:
        more = (
            f" (there are {len(reasons)} reasons, {_MOST_PROBLEMS} are told)" if len(reasons) > _MOST_PROBLEMS else ""
        )
        lines = counted(len(problems), "line")
        raise CommandError(f"{lines} of {order.source!r} cannot be bought{more}: nothing was sent")
    if order.comments and not order.quiet:
        tell(f"{counted(order.comments, 'comment line')} skipped")
    if not purchases:
        raise CommandError(f"{order.source!r} asks for nothing")
    return purchases


class _Run:
    def __init__(self, order: BatchOrder, folder: BatchFolder) -> None:
        self._order = order
        self._folder = folder
        self._fleeting = ends_with_us(sandbox=order.sandbox)
        if self._fleeting:
            folder.forget_journal()
        else:
            folder.check_journal()
        self._manifest = Manifest(folder.manifest)
        self._removed = False  # the folder, in the middle of the run

    async def go(self, purchases: Sequence[Purchase]) -> ExitCode:
        with contextlib.ExitStack() as minding:
            plan, tally, worker, interruption = await self._worked(purchases, minding)
            heard = True
            try:
                code = self._end(plan, tally, worker, interruption)
            finally:  # all is kept and told: there is time for a slow reader of stdout, unless somebody wants to leave
                minding.close()
                heard = interruption.leaving or await worker.printed()
        if not heard:
            return ExitCode.INTERRUPTED
        return ExitCode.FAILURE if worker.unheard else code

    async def _worked(
        self, purchases: Sequence[Purchase], minding: contextlib.ExitStack
    ) -> tuple[Plan, Tally, Worker, Interruption]:
        """Do the work, and close all it took; from its beginning until `minding` ends, signals are minded."""
        order = self._order
        # What is over is never forgotten: a key that is on record is what keeps its purchase from being made again.
        journal = Journal(self._folder.journal, retention=math.inf)
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(journal.aclose)
            hub = await stack.enter_async_context(hub_on(sandbox=order.sandbox, journal=journal))
            await stack.enter_async_context(hub)
            recovered = await hub.recover()
            self._folder.check_alone()
            plan = self._plan(purchases)
            tally = Tally(len(plan.tasks), len(plan.over))
            worker = Worker(order, hub=hub, journal=journal, folder=self._folder, manifest=self._manifest, tally=tally)
            interruption = Interruption(worker.stop_for_good, worker.leave)
            minding.enter_context(minding_signals(interruption))
            try:
                await self._work(worker, plan, tally)
                await asyncio.sleep(0)  # a signal of this moment is heard here
            except asyncio.CancelledError:
                if not interruption.leaving:
                    raise
                interruption.task.uncancel()
            finally:
                interruption.over = True  # closing takes some two seconds, and what is on the wire needs them
            await self._put_back(journal)
            del recovered  # until now they were held, so that whoever asks with their keys gets these very jobs
            worker.finish_printing()
        return plan, tally, worker, interruption

    async def _put_back(self, journal: Journal) -> None:
        """Have the next run find what was bought, where somebody has removed the folder in the middle of this one."""
        if self._folder.removed:
            try:
                await self._folder.put_back(journal)
            except (CommandError, MirageError) as error:
                tell(f"error: {str(self._folder.path)!r} was removed and cannot be put back: {error}")
            self._removed = True

    def _plan(self, purchases: Sequence[Purchase]) -> Plan:
        order, folder = self._order, self._folder
        plan = plan_for(
            purchases,
            folder.batch.id,
            folder.entries(),
            self._manifest.records,
            folder.path,
            retry_failed=order.retry_failed,
            resumable=not self._fleeting,
        )
        folder.remember((task.key, task.purchase) for task in plan.tasks)
        self._manifest.begin()
        if not order.quiet:
            tell_before(plan, folder)
        return plan

    async def _work(self, worker: Worker, plan: Plan, tally: Tally) -> None:
        if not plan.owed and not plan.fresh:
            return
        order = self._order
        with displayed(tally, quiet=order.quiet) as show:
            worker.show = show
            if order.bound is not None and order.bound.unit == "credits":
                await worker.collect(plan.owed)  # which may tell what it has cost
                await self._buy_for_credits(worker, plan, order.bound)
                return
            budget = None if order.bound is None else budget_for(order.bound, order.price, self._folder.entries())
            async with asyncio.TaskGroup() as group:
                group.create_task(worker.collect(plan.owed))
                group.create_task(worker.buy(plan.fresh, budget))

    async def _buy_for_credits(self, worker: Worker, plan: Plan, bound: Bound) -> None:
        """Buy for what is left of a sum, unless nobody can say what that is."""
        entries, price = self._folder.entries(), self._order.price
        if plan.fresh and (unknown := unpriced(price, entries)):
            worker.refuse(
                f"what was bought from {' and '.join(unknown)} before has no known price, so nobody can say what is "
                f"left of {bound}: give --price C, the credits a picture costs there"
            )
        else:
            await worker.buy(plan.fresh, budget_for(bound, price, entries))

    def _end(self, plan: Plan, tally: Tally, worker: Worker, interruption: Interruption) -> ExitCode:
        records = self._records(plan, worker)
        problem = self._keep(records)
        if not self._fleeting:
            uncertain = any(record.state == "uncertain" for record in records)
            nameless = {entry.key for entry in self._entries() if entry.blocking} if uncertain else ()
            tell_uncertain(records, self._folder, nameless)
        code = ending(records, self._folder, plan, tally, worker, quiet=self._order.quiet, kept=problem is None)
        missing = problem is not None or any(record.state in {"unbought", "unsaved"} for record in records)
        again = f"to go on with the batch, and buy nothing twice: {self._order.again}"
        if self._folder.lost:
            again = f"once {str(self._folder.path)!r} is where it was, {again.removeprefix('to ')}"
        if problem is not None:
            tell(f"error: {problem}")
            code = ExitCode.FAILURE
        if interruption.leaving or (interruption.stopping and missing):
            raise AdvisedError("interrupted", code=ExitCode.INTERRUPTED, advice=again)
        if problem is not None or (missing and worker.reason is not None and not worker.over_budget):
            tell(again, whole=True)
        return code

    def _keep(self, records: Sequence[Record]) -> str | None:
        """Write the manifest and the page; return why that is not possible, or None."""
        try:
            self._folder.check()
            listed = self._manifest.finish(records)
            write_whole(self._folder.page, render(listed).encode())
        except OSError as error:
            return self._folder.reason(error)
        except CommandError as error:
            return str(error)
        return None

    def _records(self, plan: Plan, worker: Worker) -> list[Record]:
        """Return what became of all purchases; of those that were cut short the journal knows."""
        known = {**plan.over, **{key: self._manifest.records[key] for key in worker.written}}
        entries = {each.key: each for each in self._entries() if each.state is not EntryState.UNPAID}
        found = [known[task.key] if task.key in known else self._found(task, entries) for task in plan.tasks]
        return [self._without_file(record) for record in found] if self._removed else found

    def _entries(self) -> Sequence[Entry]:
        if self._fleeting or self._folder.lost:
            return ()
        try:
            return self._folder.entries()
        except (MirageError, OSError) as error:  # there may be no room to read it; what was cut short is left out then
            tell(f"error: the journal cannot be read: {error}")
            return ()

    def _without_file(self, record: Record) -> Record:
        if record.state != "done" or all((self._folder.path / name).is_file() for name in record.files):
            return record
        return msgspec.structs.replace(record, state="unsaved", files=(), error="its picture was removed")

    def _found(self, task: Task, entries: Mapping[str, Entry]) -> Record:
        return task.found(entries.get(task.key), self._manifest.records.get(task.key))
