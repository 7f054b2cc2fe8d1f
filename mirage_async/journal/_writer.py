"""The one thread that writes: it takes whatever has queued up while it was busy and commits that as one group.

There is no timer: what a few turns of the event loop bring is handed over together, and under load the time a flush
takes fills the next group. Where little happens those turns are three, and cost some microseconds; where much does,
more of them make for fewer and larger groups, and each group costs a flush and a handful of waits for the interpreter's
lock, which a busy event loop gives away for some microseconds at a time. Who waits for a write waits on a future of the
loop; a group wakes all its waiters with one call.

A write that fails is one of two kinds. An *intent* fails for whoever asked, who then buys nothing. Everything else is a
*fact*, about something that is paid for: it stays here and is written again, before anything newer, until it succeeds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import queue
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import groupby
from operator import attrgetter, methodcaller
from pathlib import Path  # noqa: TC003 - msgspec reads the annotations
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeAlias, TypeVar

import msgspec

from mirage_async._disk import flush_folder
from mirage_async._tasks import fail, fulfil
from mirage_async.exceptions import JournalError
from mirage_async.journal._statements import Move, Row, write_rows

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Prepared", "Write", "Writer"]

T = TypeVar("T")

_logger = logging.getLogger("mirage_async.journal")

Prepared: TypeAlias = "tuple[Row, Sequence[tuple[Path, bytes]]]"
"""A row, and the files that are written before it."""

FIRST_RETRY: Final = 1.0  # seconds until facts that could not be written are tried again; doubled each time
LONGEST_RETRY: Final = 30.0  # seconds
CLOSE_GRACE: Final = 10.0  # seconds the thread gets to write what is left
_loop_of = methodcaller("get_loop")
_move_of = attrgetter("move")
_place_of = attrgetter("place")
_TURNS: Final = 16  # of the event loop, whose rows are handed over together at most
_QUIET_TURNS: Final = 3  # without another row, after which they are handed over
_GATHERING: Final = 0.05  # seconds after which they are, where a turn of the event loop takes its time
_MOST_IN_GROUP: Final = 10_000
_CLOSED: Final = "the journal is closed"


class Write(msgspec.Struct, gc=False):
    """One row to write.

    Attributes:
        move: its kind.
        row: its parameters; none yet where something is to make them.
        make: makes them, in the thread, or None once they are made.
        is_fact: whether it has to be written sooner or later, whatever happens.
        about: whose text a log adds to it: whose it is, and what it is to say.
        waiter: a future that ends when the row is durable, or None where nobody waits.
    """

    move: Move
    row: Row = ()
    make: Callable[[], Prepared] | None = None
    is_fact: bool = False
    about: object = ""
    waiter: asyncio.Future[None] | None = None


class _Work(msgspec.Struct, gc=False):
    """Something else to do with the connection, in its turn."""

    do: Callable[[sqlite3.Connection], Any]
    waiter: asyncio.Future[Any] | None = None


_Batch: TypeAlias = tuple[Move, list[Row]]
_Item: TypeAlias = "list[Write] | _Work | None"  # None ends it


class Writer:
    """Writes to one database, from one thread.

    Args:
        connection: used by the thread alone from now on, which closes it in the end.
        flush: whether files are flushed to the disk, as the database is.
        check: called in the thread before intents are written; raises where what is written would help nobody.
        told: called in the event loop for a row with a waiter that is not written, and why; returns the error the
            waiter gets, or None where it goes on all the same.
        on_end: called in the thread as the last thing it does.
        on_recovery: called in the thread once it has written all that it could not write for a while.

    Attributes:
        commits: groups committed.
        rows: rows written.
        failures: groups that could not be committed.
        closed: nothing more can be written.
    """

    here: ClassVar[int] = os.getpid()  # kept, since asking the system for each row costs as much as all else about it

    def __init__(
        self,
        connection: sqlite3.Connection,
        *,
        flush: bool,
        check: Callable[[], object],
        told: Callable[[Write, Exception], Exception | None],
        on_end: Callable[[], object],
        on_recovery: Callable[[], object] = lambda: None,
    ) -> None:
        self._connection = connection
        self._flush = flush
        self._check_file = check
        self._told = told
        self._on_end = on_end
        self._on_recovery = on_recovery
        self._queue: queue.SimpleQueue[_Item] = queue.SimpleQueue()
        self._gathered: list[Write] = []
        self._gathered_in: asyncio.AbstractEventLoop | None = None  # in these turns of which
        self._ended = False  # the thread takes nothing more
        self._backlog: deque[Write] = deque()
        self._retry = FIRST_RETRY
        self._due = 0.0  # monotonic seconds; when the backlog is tried again, whatever else there is to do
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()  # so that nothing is queued behind the end
        self._process = self.here
        self.closed = False
        self.commits = self.rows = self.failures = 0

    @property
    def unwritten(self) -> int:
        """Facts that could not be written so far."""
        return len(self._backlog)

    def put(self, write: Write, loop: asyncio.AbstractEventLoop) -> None:
        """Queue a row, from the event loop that everybody who writes is in.

        Raises:
            JournalError: the writer is closed, or belongs to another process.
        """
        if self.closed or self._process != self.here:
            self.check()
        self._gathered.append(write)
        if self._gathered_in is not loop:  # the first of these turns, or a loop has ended in the middle of them
            self._gathered_in = loop
            loop.call_soon(self._gather_on, loop, loop.time() + _GATHERING, _TURNS, _QUIET_TURNS, 1)

    def do(self, work: Callable[[sqlite3.Connection], T]) -> asyncio.Future[T]:
        """Have the thread do something with the connection, after everything queued so far; return where its result is.

        Raises:
            JournalError: as `put`. The future raises it as well, and what `work` raises.
        """
        self.check()
        waiter: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._hand_over()
        self._add(_Work(work, waiter))
        return waiter

    def soon(self, work: Callable[[sqlite3.Connection], object]) -> None:
        """Have the thread do something with the connection, with nobody waiting; raises as `put` does."""
        self.check()
        self._hand_over()
        self._add(_Work(work))

    def close(self) -> None:
        """Have the thread end once everything queued so far is written; `join` waits for that."""
        if self._process == self.here and not self.closed:
            self.closed = True
            self._hand_over()
            with self._lock:
                if self._thread is not None:
                    self._queue.put(None)
                    return
            self._end()

    def abandon(self) -> None:
        """End at once where the thread was never needed; nothing else for a journal that nobody has any more."""
        if self._process != self.here or not self._lock.acquire(blocking=False):  # this may be in the middle of it
            return
        try:
            idle = self._thread is None and not self._ended and not self._gathered
            self.closed = self.closed or idle
            self._ended = self._ended or idle
        finally:
            self._lock.release()
        if idle:
            self._end()

    def join(self) -> None:
        """Wait for the end of the thread, up to ten seconds."""
        if self._process == self.here and self._thread is not None:
            self._thread.join(CLOSE_GRACE)

    def check(self) -> None:
        """Raise `JournalError` where nothing can be written: it is closed, or belongs to another process."""
        if self._process != self.here:
            msg = f"the journal belongs to process {self._process}, not to its child {self.here}: open another one"
            raise JournalError(msg)
        if self.closed:
            raise JournalError(_CLOSED)

    def _gather_on(self, loop: asyncio.AbstractEventLoop, until: float, turns: int, quiet: int, seen: int) -> None:
        rows = len(self._gathered)
        turns, quiet = turns - 1, _QUIET_TURNS if rows > seen else quiet - 1
        if turns and quiet and loop.time() < until:
            loop.call_soon(self._gather_on, loop, until, turns, quiet, rows)
        else:
            self._hand_over()

    def _hand_over(self) -> None:
        gathered, self._gathered, self._gathered_in = self._gathered, [], None
        if gathered:
            self._add(gathered)

    def _add(self, item: list[Write] | _Work) -> None:
        with self._lock:
            if not self._ended:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="mirage-async-journal", daemon=True)
                    self._thread.start()
                self._queue.put(item)
                return
        self._turn_away([item])

    # --- what follows runs in the thread ---

    def commit_now(self, writes: Sequence[Write]) -> None:
        """Write rows at once, in a transaction of their own; for what `do` was given.

        Raises:
            sqlite3.Error, OSError: none of them is written.
        """
        if self._backlog:
            msg = "facts about earlier purchases have to be written first"
            raise OSError(msg)
        self._check_file()
        self._write(_in_order(self._ready(writes)))
        self.commits += 1
        self.rows += len(writes)

    def catch_up(self) -> None:
        """Try at once to write what could not be written so far; for what `do` was given."""
        if self._backlog:
            self._commit([])

    def _run(self) -> None:
        items: list[_Item] = []
        try:
            more = True
            while more:
                items = self._taken()
                more = self._deal_with(items)
                items = []  # whose jobs nobody needs to keep until there is more to do
        except BaseException:  # a log handler that raises, for one; whoever waits must not wait for ever
            _logger.critical("the journal's thread has ended; nothing more is written", exc_info=True)
            self._turn_away(items)
        finally:
            self._end()

    def _end(self) -> None:
        with self._lock:
            self.closed = self._ended = True
        while not self._queue.empty():
            self._turn_away([self._queue.get()])
        if self._backlog:
            _logger.critical("the journal is closed with %d facts that are not on disk", len(self._backlog))
            for write in self._backlog:
                _logger.critical("not on disk: %s", _described(write))
            self._backlog.clear()  # which knows the jobs, which know the journal
        self._connection.close()
        self._on_end()

    def _taken(self) -> list[_Item]:
        """Wait for something to do and return all that has queued up; nothing where it is time to try again."""
        items: list[_Item] = []
        rows = 0
        with contextlib.suppress(queue.Empty):
            items.append(self._queue.get(timeout=self._wait() if self._backlog else None))
            while rows < _MOST_IN_GROUP:
                rows += len(items[-1]) if isinstance(items[-1], list) else 1
                items.append(self._queue.get_nowait())
        return items

    def _wait(self) -> float:
        return max(0.0, self._due - time.monotonic())

    def _deal_with(self, items: Sequence[_Item]) -> bool:
        """Do what there is, in its order; False once nothing more will come."""
        group: list[Write] = []
        for item in items:
            if isinstance(item, list):
                group += item
                continue
            if group or (item is None and self._backlog):
                self._commit(group)
                group = []
            if item is None:
                return False
            self._work(item)
        if group or not items or (self._backlog and not self._wait()):
            self._commit(group)
        return True

    def _work(self, item: _Work) -> None:
        try:
            result = item.do(self._connection)
        except Exception as error:
            if item.waiter is None:
                _logger.warning("the journal could not be tidied", exc_info=True)
            else:
                _tell([item.waiter], _end_with_error, error)
        else:
            if item.waiter is not None:
                _tell([item.waiter], _end_with_result, result)

    def _commit(self, group: list[Write]) -> None:
        """Write the facts that are still to be written, then the group, all or nothing."""
        group, facts = self._without_vain_intents(group), list(self._backlog)
        if not (group or facts):
            return
        try:
            self._write([*_in_order(self._ready(facts)), *_by_move(self._ready(group))])
        except Exception as error:
            if _is_of_the_disk(error):
                self._failed(group, error)
                return
            self._backlog.clear()  # a row that cannot be written must not keep the others from it
            if len(facts) + len(group) > 1:
                for each in (*facts, *group):
                    self._commit([each])
                return
            for write in (*facts, *group):
                _logger.critical("a row of the journal can never be written: %s", _described(write), exc_info=True)
            self._fail(group, error)
        else:
            self.commits += 1
            self.rows += len(facts) + len(group)
            if facts:
                self._on_recovery()
                _logger.warning("the journal writes again; what could not be written meanwhile is written now")
            self._backlog.clear()
            self._retry = FIRST_RETRY
            waiters = [write.waiter for write in group if write.waiter is not None]
            for _, those in groupby(waiters, key=_loop_of):
                _tell(list(those), _end_with_result, None)

    def _without_vain_intents(self, group: list[Write]) -> list[Write]:
        """Return a group without its intents, which fail, where nobody would find what is written."""
        intents = [write for write in group if not write.is_fact]
        if intents:
            try:
                self._check_file()
            except OSError as error:
                self.failures += 1
                self._fail(intents, error)
                return [write for write in group if write.is_fact]
        return group

    def _ready(self, writes: Sequence[Write]) -> Sequence[Write]:
        """Make the parameters that are not made yet, and write the files that go before their rows."""
        for write in writes:
            if write.make is not None:
                write.row, files = write.make()
                if files:
                    _write_files(files, flush=self._flush)
                write.make = None
        return writes

    def _write(self, batches: Sequence[_Batch]) -> None:
        write_rows(self._connection, batches)

    def _failed(self, group: list[Write], error: Exception) -> None:
        self.failures += 1
        if self._backlog:
            self._retry = min(self._retry * 2, LONGEST_RETRY)
        self._backlog.extend(write for write in group if write.is_fact)
        self._due = time.monotonic() + self._retry
        self._fail(group, error)

    def _fail(self, group: list[Write], error: Exception) -> None:
        """Tell those who wait for a group that it is not written; of what is a fact nobody is told a second time."""
        for write in group:
            waiter, write.waiter = write.waiter, None
            if waiter is not None:
                _call(waiter.get_loop(), self._fail_one, write, waiter, error)

    def _fail_one(self, write: Write, waiter: asyncio.Future[None], error: Exception) -> None:
        """Tell one of them, in the event loop that it waits in."""
        told: Exception | None = error
        try:
            told = self._told(write, error)
        finally:  # also where a log handler raises
            if told is None:
                fulfil(waiter, None)
            else:
                fail(waiter, told)

    def _turn_away(self, items: Iterable[_Item]) -> None:
        """Tell those who wait that nothing will come."""
        for item in items:
            if isinstance(item, list):
                self._fail(item, JournalError(_CLOSED))
            elif item is not None and item.waiter is not None:
                _tell([item.waiter], _end_with_error, JournalError(_CLOSED))


def _note_child() -> None:
    Writer.here = os.getpid()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_child)


def _in_order(writes: Sequence[Write]) -> list[_Batch]:
    """Return the rows of facts that could not be written before; several may be about one job, one after the other."""
    return [(move, _newest(those)) for move, those in groupby(writes, key=_move_of)]


def _by_move(writes: Sequence[Write]) -> list[_Batch]:
    """Return the rows of a group, like with like, which are written faster together.

    No order is lost. Who makes the next move with a job has waited for the last one to be durable, except for noting
    that its outcome was handed over, which goes with any other; and an intent goes before what withdraws it.
    """
    batches: dict[Move, list[Write]] = {}
    for write in writes:
        batches.setdefault(write.move, []).append(write)
    return [(move, _newest(batches[move])) for move in sorted(batches, key=_place_of)]


def _newest(writes: Iterable[Write]) -> list[Row]:
    """Return the rows of one kind, of each job the last: two handles of one token may both tell how it ended."""
    return list({write.row[0]: write.row for write in writes}.values())


def _is_of_the_disk(error: Exception) -> bool:
    """Whether no row could have been written, as opposed to one of them."""
    return isinstance(error, OSError | sqlite3.OperationalError) or type(error) is sqlite3.DatabaseError


def _described(write: Write) -> str:
    """Say which row it is, and of what came with it only what is needed to find it by hand."""
    whose = f"of {write.row[0]!r:.80}" if write.make is None else "that was not even made"
    return f"the {write.move.name} {whose}" + (f" ({write.about})" if write.about else "")


def _write_files(files: Iterable[tuple[Path, bytes]], *, flush: bool) -> None:
    """Write each file whole or not at all, for its owner alone."""
    folders: set[Path] = set()
    for path, data in files:
        draft = path.with_name(f".{path.name}.part")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            if flush:
                os.fsync(descriptor)
        draft.replace(path)
        folders.add(path.parent)
    if flush:
        for folder in folders:
            flush_folder(folder)


def _tell(waiters: list[asyncio.Future[Any]], end: Callable[[Any, Any], None], outcome: object) -> None:
    _call(waiters[0].get_loop(), end, waiters, outcome)


def _call(loop: asyncio.AbstractEventLoop, *call: Any) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed, and whoever waited is gone
        loop.call_soon_threadsafe(*call)


def _end_with_result(waiters: list[asyncio.Future[Any]], result: object) -> None:
    for waiter in waiters:
        fulfil(waiter, result)


def _end_with_error(waiters: list[asyncio.Future[Any]], error: BaseException) -> None:
    for waiter in waiters:
        fail(waiter, error)
