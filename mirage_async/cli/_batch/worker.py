"""Does the work of a batch: collects what is owed, buys what is not, saves the pictures, and writes it all down."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING, Any

import msgspec

from mirage_async.cli._aside import Aside, wait_for_stderr
from mirage_async.cli._batch.plan import BOUGHT_ALL_THE_SAME
from mirage_async.cli._batch.troubles import Troubles
from mirage_async.cli._exits import ExitCode, code_for
from mirage_async.cli._lines import for_shell, one_line, tell
from mirage_async.cli._streams import fit_for_stdout
from mirage_async.exceptions import (
    BudgetExceededError,
    ClosedError,
    ConnectionFailedError,
    JournalError,
    MirageError,
    SubmissionUncertainError,
)
from mirage_async.jobs import ended_well
from mirage_async.journal import EntryState

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mirage_async.batch import Batch, Budget
    from mirage_async.cli._batch.folder import BatchFolder
    from mirage_async.cli._batch.manifest import Manifest
    from mirage_async.cli._batch.order import BatchOrder
    from mirage_async.cli._batch.plan import Task
    from mirage_async.cli._batch.progress import Tally
    from mirage_async.cli._batch.record import Record
    from mirage_async.hub import Mirage
    from mirage_async.journal import Journal
    from mirage_async.models import Generation, Outcome

__all__ = ["INTERRUPTED", "Worker"]

INTERRUPTED = "interrupted"
"""Why the buying stopped where a person said so."""

_MOMENT = 1.0  # seconds; whoever reads at all needs far less
_NOBODY_READS = "nobody reads stdout any more"
_MOST_UNREACHED = 5  # requests in a row that did not reach anybody: then the others will not, either


class Worker:
    """Works off the tasks of a batch.

    Args:
        order: what was asked for.
        hub: buys.
        journal: of the hub.
        folder: takes the pictures.
        manifest: takes the records.
        tally: counts them.

    Attributes:
        show: is called with each record.
        reason: why the buying stopped before the end, or None.
        over_budget: whether that was because the budget is used up.
        codes: the exit codes of what went wrong.
        written: keys of the records it has written.
    """

    def __init__(
        self,
        order: BatchOrder,
        *,
        hub: Mirage,
        journal: Journal,
        folder: BatchFolder,
        manifest: Manifest,
        tally: Tally,
    ) -> None:
        self._order = order
        self._hub = hub
        self._journal = journal
        self._folder = folder
        self._manifest = manifest
        self._tally = tally
        self._batch: Batch | None = None
        self._places = asyncio.Semaphore(order.limit)  # for pictures that are being saved, and jobs that are owed
        self._busy = 0
        self._troubles = Troubles(folder.manifest)
        self._unreached = 0  # requests in a row
        self._doubtful: set[str] = set()  # since an earlier run, which has told of them
        self._held_back: list[str] | None = [] if _shares_a_terminal(order) else None
        self._stdout = Aside(sys.stdout, self._stop_unheard)
        self.show: Callable[[Record], None] = lambda _: None
        self.reason: str | None = None
        self.over_budget = False
        self.codes: set[ExitCode] = set()
        self.written: set[str] = set()
        self._asked_for: set[str] = set()  # keys of what this run is to buy
        self._bought: set[str] = set()  # keys of what this run has taken from its own purchases
        tally.flying = self._flying

    def _flying(self) -> int:
        return self._busy + (0 if self._batch is None else self._batch.statistics().in_flight)

    # --- stopping ---

    def stop_for_good(self) -> None:
        """Buy nothing more, because a person says so."""
        self._stop(INTERRUPTED)
        tell(f"nothing more is bought; {self._flying()} in flight are finished first (Ctrl-C again ends at once)")

    def leave(self) -> None:
        """Say that a person, or the system, wants it to end at once."""
        self._stop(INTERRUPTED)
        cut = self._cut_off()
        owed = max(self._flying() - cut, 0)
        words = [f"{owed} in flight stay owed, and the next run collects them"] if owed or not cut else []
        these = "1 is cut off and becomes" if cut == 1 else f"{cut} are cut off and become"
        words += [f"{these} uncertain: its answer would be the picture, which cannot be collected"] if cut else []
        tell(f"ending at once; {'; '.join(words)}")

    def _cut_off(self) -> int:
        """Return how many requests are on the wire whose answers are the pictures: nobody can come back for these."""
        try:
            entries = self._folder.entries()
        except (MirageError, OSError):  # then nobody knows, and what becomes of them is told in the end
            return 0
        return sum(
            each.blocking and each.state is EntryState.INTENDED and each.key in self._asked_for for each in entries
        )

    def refuse(self, reason: str) -> None:
        """Buy nothing, because of the budget."""
        self.over_budget = True
        self._stop(reason)

    def _stop(self, reason: str) -> None:
        self.reason = self.reason or reason
        self._tally.stopping = True
        if self._batch is not None:
            self._batch.stop()

    # --- collecting ---

    async def collect(self, tasks: Sequence[Task]) -> None:
        """Get what was bought before."""
        async with asyncio.TaskGroup() as group:
            for task in tasks:
                await self._places.acquire()
                group.create_task(self._occupying(self._collect(task)))

    async def _collect(self, task: Task) -> None:
        try:
            job = await self._hub.submit(self._request(task))  # which buys nothing: the journal knows the key
            generation = await ended_well(job)
        except MirageError as error:
            if isinstance(error, SubmissionUncertainError):
                self._doubtful.add(task.key)
            await self._record_failure(task, error)
        else:
            if await self._save(task, generation):
                await job  # only now does it count as handed over

    # --- buying ---

    async def buy(self, tasks: Sequence[Task], budget: Budget | None) -> None:
        """Buy, as far as the budget goes."""
        if self.reason is not None:
            return
        self._asked_for = {task.key for task in tasks}
        requests = map(self._request, tasks)
        self._batch = self._hub.batch(requests, limit=self._order.limit, budget=budget)
        async with self._batch, asyncio.TaskGroup() as group:
            async for outcome in self._batch:
                await self._places.acquire()
                group.create_task(self._occupying(self._take(tasks[outcome.index], outcome)))

    async def _take(self, task: Task, outcome: Outcome) -> None:
        self._bought.add(task.key)
        self._mind_reach(outcome.error)
        if outcome.generation is not None:
            await self._save(task, outcome.generation)
        elif isinstance(outcome.error, BudgetExceededError):
            self.refuse(self._exceeded(outcome.error))
        elif isinstance(outcome.error, JournalError):
            self._stop(str(outcome.error))  # which has sent nothing, and so would the others
        elif outcome.error is not None:
            await self._record_failure(task, outcome.error)

    def _exceeded(self, error: BudgetExceededError) -> str:
        if error.provider is not None:
            return (
                f"{error.provider} does not say what it takes, so {self._order.bound} cannot be reckoned there: with "
                "--price C, the credits a picture costs, the same command goes on"
            )
        return f"{self._order.bound} does not allow another purchase; with a higher one the same command goes on"

    def _mind_reach(self, error: MirageError | None) -> None:
        """Stop where nobody is reached any more: each further line would only take its time to say so."""
        self._unreached = self._unreached + 1 if isinstance(error, ConnectionFailedError) else 0
        if self._unreached >= _MOST_UNREACHED:
            self._stop(f"{self._unreached} requests in a row were not sent, the last because of this: {error}")

    def _request(self, task: Task) -> Any:
        return msgspec.structs.replace(task.purchase.request, key=task.key)

    async def _occupying(self, work: Any) -> None:
        self._busy += 1
        try:
            await work
        finally:
            self._busy -= 1
            self._places.release()

    # --- keeping ---

    async def _save(self, task: Task, generation: Generation) -> bool:
        """Save the pictures of a purchase and write down where they are; False where that is not possible."""
        began = time.monotonic()
        names: list[str] = []
        error: str | None = None
        stem = self._folder.stem(task.key, task.purchase)
        try:
            self._folder.check()  # a folder of this name would be made, and not be the one of the batch
            for number, image in enumerate(generation.images, 1):
                name = stem if number == 1 else f"{stem}-{number}"
                path = await image.save(self._folder.path / name, overwrite=True)
                names.append(path.name)
        except OSError as raised:
            error = f"the picture cannot be saved: {self._folder.reason(raised)}"
            self._stop(error)  # what is bought from now on could not be saved either
        except MirageError as raised:
            error = str(raised)
        if error is not None:
            self.codes.add(ExitCode.FAILURE)
        timings = generation.timings
        spent = sum(filter(None, (timings.detected, timings.downloaded, time.monotonic() - began)))
        self._write(
            task.record(
                state="done" if error is None else "unsaved",
                model=generation.model,
                files=tuple(names),
                width=generation.images[0].width if names else None,
                height=generation.images[0].height if names else None,
                credits=generation.credits,
                job_id=generation.job_id,
                seconds=round(spent, 3),
                error=error,
                billed="yes",
            )
        )
        return error is None

    async def _record_failure(self, task: Task, error: MirageError) -> None:
        """Write down why there are no pictures; what that means for the money the journal knows."""
        try:
            entry = await self._journal.entry(task.key)
        except MirageError:
            found = task.record(state="refused" if error.billed == "no" else "uncertain", billed=error.billed)
        else:
            unpaid = entry is None or entry.state is EntryState.UNPAID
            if unpaid and isinstance(error, ClosedError):
                return  # its turn did not come
            earlier = self._manifest.records.get(task.key)
            found = task.record(state="refused") if entry is None else task.found(entry, earlier)
        self.codes.add(code_for(error))
        if found.error != BOUGHT_ALL_THE_SAME:
            billed = error.billed if found.state == "failed" else found.billed
            found = msgspec.structs.replace(found, error=one_line(for_shell(str(error))), billed=billed)
        self._write(found)

    def _write(self, record: Record) -> None:
        try:
            self.written.add(record.key)
            self._manifest.add(record)
        except OSError as error:
            self._stop(f"the manifest cannot be written: {self._folder.reason(error)}")
        self._tally.count(record, ours=record.key in self._bought)
        self.show(record)
        if record.state != "done" and record.key not in self._doubtful:
            self._troubles.tell(record)
        self._print(record)

    # --- stdout ---

    def _print(self, record: Record) -> None:
        """Print what was saved, at once or, where it would tear the bar on the same terminal, at the end."""
        if self._order.as_json:
            self._print_text(fit_for_stdout(msgspec.json.encode(record).decode()))
        elif record.state == "done":
            for name in record.files:
                self._print_text(str(self._folder.path / name))

    def _print_text(self, text: str) -> None:
        if self._held_back is not None:
            self._held_back.append(text)
        else:
            self._stdout.write(f"{text}\n")

    def _stop_unheard(self) -> None:
        self._stop(_NOBODY_READS)

    @property
    def unheard(self) -> bool:
        """Whether stdout has failed, so that something was not printed."""
        return self._stdout.failed

    def finish_printing(self) -> None:
        """Print what was held back, and tell which lines have met the same trouble.

        Waits a moment for whoever reads it.
        """
        self._troubles.sum_up()
        held, self._held_back = self._held_back, None
        if held:
            wait_for_stderr(_MOMENT)  # the bar stands above
        for text in held or ():
            self._print_text(text)
        self._stdout.wait(_MOMENT)
        if self.unheard:
            self._stop_unheard()

    async def printed(self) -> bool:
        """Wait until all is printed or nobody reads; False where a person does not want to wait for that any more."""
        try:
            await self._stdout.written()
        except asyncio.CancelledError:
            return False
        finally:
            self._stdout.close()
        return True


def _shares_a_terminal(order: BatchOrder) -> bool:
    return not order.quiet and sys.stdout.isatty() and sys.stderr.isatty()
