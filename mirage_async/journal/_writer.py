"""The one thread that writes: it takes whatever has queued up while it was busy and commits that as one group.

There is no timer: a lone write is committed at once, and under load the time a flush takes fills the next group. Who
waits for a write waits on a future of its event loop; a group wakes all its waiters with one call.

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
from collections import deque
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path  # noqa: TC003 - msgspec reads the annotations
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar, cast

import msgspec

from mirage_async.exceptions import JournalError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Parameters", "Prepared", "Write", "Writer"]

T = TypeVar("T")

_logger = logging.getLogger("mirage_async.journal")

Prepared: TypeAlias = "tuple[tuple[Any, ...], Sequence[tuple[Path, bytes]]]"
"""The parameters of a statement, and the files that are written before its row."""

Parameters: TypeAlias = "tuple[Any, ...] | Callable[[], Prepared]"
"""Those of a statement, or what makes them, in the thread."""

FIRST_RETRY: Final = 1.0  # seconds until facts that could not be written are tried again; doubled each time
LONGEST_RETRY: Final = 30.0  # seconds
CLOSE_GRACE: Final = 10.0  # seconds the thread gets to write what is left
_MOST_IN_GROUP: Final = 10_000
_CLOSED: Final = "the journal is closed"


class Write(msgspec.Struct, gc=False):
    """One row to write.

    Attributes:
        statement: the SQL.
        parameters: for it.
        is_fact: whether it has to be written sooner or later, whatever happens.
        waiter: a future of `loop` that ends when the row is durable, or None where nobody waits.
        loop: of the waiter.
    """

    statement: str
    parameters: Parameters
    is_fact: bool
    waiter: asyncio.Future[None] | None = None
    loop: asyncio.AbstractEventLoop | None = None


class _Work(msgspec.Struct, gc=False):
    """Something else to do with the connection, in its turn."""

    do: Callable[[sqlite3.Connection], Any]
    waiter: asyncio.Future[Any] | None = None
    loop: asyncio.AbstractEventLoop | None = None


class Writer:
    """Writes to one database, from one thread.

    Args:
        connection: used by the thread alone from now on, which closes it in the end.
        flush: whether files are flushed to the disk, as the database is.
        on_end: called in the thread as the last thing it does.

    Attributes:
        commits: groups committed.
        rows: rows written.
        failures: groups that could not be committed.
    """

    def __init__(self, connection: sqlite3.Connection, *, flush: bool, on_end: Callable[[], object]) -> None:
        self._connection = connection
        self._flush = flush
        self._on_end = on_end
        self._queue: queue.SimpleQueue[Write | _Work | None] = queue.SimpleQueue()
        self._backlog: deque[Write] = deque()
        self._retry = FIRST_RETRY
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()  # nothing is queued behind the end
        self._process = os.getpid()
        self._closed = False
        self.commits = self.rows = self.failures = 0

    @property
    def unwritten(self) -> int:
        """Facts that could not be written so far."""
        return len(self._backlog)

    @property
    def closed(self) -> bool:
        """Whether nothing more can be written."""
        return self._closed

    def put(self, write: Write) -> None:
        """Queue a row.

        Raises:
            JournalError: the writer is closed, or belongs to another process.
        """
        self._add(write)

    async def do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Have the thread do something with the connection, after everything queued so far.

        Raises:
            JournalError: as `put`.
            Exception: what `work` raises.
        """
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[T] = loop.create_future()
        self._add(_Work(work, waiter, loop))
        return await waiter

    def soon(self, work: Callable[[sqlite3.Connection], object]) -> None:
        """Have the thread do something with the connection, with nobody waiting; raises as `put` does."""
        self._add(_Work(work))

    def close(self) -> None:
        """Have the thread end once everything queued so far is written, and wait for that, up to ten seconds."""
        if self._process != os.getpid():
            return
        with self._lock:
            first, self._closed = not self._closed, True
            if first and self._thread is not None:
                self._queue.put(None)
        if self._thread is not None:
            self._thread.join(CLOSE_GRACE)
        elif first:
            self._end()

    def _add(self, item: Write | _Work) -> None:
        if self._process != os.getpid():
            msg = f"the journal belongs to process {self._process}, not to its child {os.getpid()}: open another one"
            raise JournalError(msg)
        with self._lock:
            if self._closed:
                raise JournalError(_CLOSED)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="mirage-async-journal", daemon=True)
                self._thread.start()
            self._queue.put(item)

    # --- what follows runs in the thread ---

    def _run(self) -> None:
        items: list[Write | _Work | None] = []
        try:
            more = True
            while more:
                items = self._taken()
                more = self._deal_with(items)
        except BaseException:  # a log handler that raises, for one; whoever waits must not wait for ever
            _logger.critical("the journal's thread has ended; nothing more is written", exc_info=True)
            _turn_away(items)
        finally:
            self._end()

    def _end(self) -> None:
        with self._lock:
            self._closed = True
        while not self._queue.empty():
            _turn_away(self._taken())
        if self._backlog:
            _logger.critical("the journal is closed with %d facts that are not on disk", len(self._backlog))
        self._connection.close()
        self._on_end()

    def _taken(self) -> list[Write | _Work | None]:
        """Wait for something to do and return all that has queued up; nothing where it is time to try again."""
        items: list[Write | _Work | None] = []
        with contextlib.suppress(queue.Empty):
            items.append(self._queue.get(timeout=self._retry if self._backlog else None))
            while len(items) < _MOST_IN_GROUP:
                items.append(self._queue.get_nowait())
        return items

    def _deal_with(self, items: Sequence[Write | _Work | None]) -> bool:
        """Do what there is, in its order; False once nothing more will come."""
        group: list[Write] = []
        for item in items:
            if isinstance(item, Write):
                group.append(item)
                continue
            if group or (item is None and self._backlog):
                self._commit(group)
                group = []
            if item is None:
                return False
            self._work(item)
        if group or not items:
            self._commit(group)
        return True

    def _work(self, item: _Work) -> None:
        try:
            result, error = item.do(self._connection), None
        except Exception as raised:
            result, error = None, raised
            if item.loop is None:
                _logger.warning("the journal could not be tidied", exc_info=True)
        if item.loop is not None and error is not None:
            _tell(item.loop, _end_with_error, [(item.waiter, error)])
        elif item.loop is not None:
            _tell(item.loop, _end_with_result, [(item.waiter, result)])

    def _commit(self, group: list[Write]) -> None:
        """Write the facts that are still to be written, then the group, all or nothing."""
        facts = list(self._backlog)
        try:
            ready = [*self._ready(facts), *self._ready(sorted(group, key=_statement_of))]
            self._write(ready)
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
            _tell_all(group, error)
        else:
            self.commits += 1
            self.rows += len(ready)
            if facts:
                _logger.warning("the journal writes again; what could not be written meanwhile is written now")
            self._backlog.clear()
            self._retry = FIRST_RETRY
            _tell_all(group, None)

    def _ready(self, writes: Sequence[Write]) -> Sequence[Write]:
        """Make the parameters that are not made yet, and write the files that go before their rows."""
        for write in writes:
            if callable(write.parameters):
                parameters, files = write.parameters()
                _write_files(files, flush=self._flush)
                write.parameters = parameters
        return writes

    def _write(self, writes: Iterable[Write]) -> None:
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement, rows in groupby(writes, key=_statement_of):
                connection.executemany(statement, [cast("tuple[Any, ...]", write.parameters) for write in rows])
            connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):  # SQLite may have rolled back by itself
                connection.execute("ROLLBACK")
            raise

    def _failed(self, group: list[Write], error: Exception) -> None:
        self.failures += 1
        if self._backlog:
            self._retry = min(self._retry * 2, LONGEST_RETRY)
        self._backlog.extend(write for write in group if write.is_fact)
        _tell_all(group, error)


def _statement_of(write: Write) -> str:
    """What a group is sorted by: like rows are written faster together.

    No order is lost. Who makes the next move with a job has waited for the last one to be durable, except for noting
    that its outcome was handed over, which goes with any other.
    """
    return write.statement


def _is_of_the_disk(error: Exception) -> bool:
    """Whether no row could have been written, as opposed to one of them."""
    return isinstance(error, OSError | sqlite3.OperationalError) or type(error) is sqlite3.DatabaseError


def _described(write: Write) -> str:
    """Say which row it is, and nothing of what came with it."""
    whose = "that was not even made" if callable(write.parameters) else f"of {write.parameters[0]!r:.80}"
    return f"{' '.join(write.statement.split()[:4])} ... {whose}"


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
    if flush and os.name == "posix":
        for folder in folders:  # a file is durable once the folder that names it is
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _turn_away(items: Iterable[Write | _Work | None]) -> None:
    """Tell those who wait that nothing will come."""
    for item in items:
        if item is not None and item.loop is not None:
            _tell(item.loop, _end_with_error, [(item.waiter, JournalError(_CLOSED))])


def _tell_all(group: list[Write], error: Exception | None) -> None:
    """Wake the waiters of a group, with one call an event loop."""
    waiting = [write for write in group if write.waiter is not None]
    for loop, writes in groupby(waiting, key=lambda write: write.loop):
        assert loop is not None  # noqa: S101 - a waiter has one
        _tell(loop, _end_with_error if error else _end_with_result, [(write.waiter, error) for write in writes])
    for write in waiting:
        write.waiter = write.loop = None


def _tell(loop: asyncio.AbstractEventLoop, end: Callable[[Any], None], outcomes: list[tuple[Any, Any]]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed, and whoever waited is gone
        loop.call_soon_threadsafe(end, outcomes)


def _end_with_result(outcomes: list[tuple[asyncio.Future[Any], Any]]) -> None:
    for waiter, result in outcomes:
        if not waiter.done():
            waiter.set_result(result)


def _end_with_error(outcomes: list[tuple[asyncio.Future[Any], BaseException]]) -> None:
    for waiter, error in outcomes:
        if not waiter.done():
            waiter.set_exception(error)
