"""The journal: what was paid for, or may have been, on disk before anything depends on it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import secrets
import sqlite3
import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import msgspec
from anyio import to_thread

from mirage_async.exceptions import ConfigurationError, InputError, JournalError
from mirage_async.journal import _schema
from mirage_async.journal._entry import Entry, EntryState, state_of
from mirage_async.journal._folder import Folder
from mirage_async.journal._lookups import Found, Lookups
from mirage_async.journal._moves import Fact, IntentRow, Losses, OutcomeRow, not_intended
from mirage_async.journal._network import check_file_system
from mirage_async.journal._own_keys import OwnKeys, end_of, notes_of_rivals
from mirage_async.journal._requests import read_packed
from mirage_async.journal._seats import make_folder
from mirage_async.journal._settling import check_id_is_free, check_settled_by_hand
from mirage_async.journal._statements import ACCEPTED, HANDED_OVER, INTENDED, SETTLED, WITHDRAWN
from mirage_async.journal._writer import Write, Writer

if TYPE_CHECKING:
    import os
    from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence

    from mirage_async.jobs import Intent, Job
    from mirage_async.journal._schema import Durability
    from mirage_async.wire import Call

__all__ = ["Journal", "JournalStatistics"]

T = TypeVar("T")

_logger = logging.getLogger("mirage_async.journal")

WEEK = 7 * 24 * 3600.0  # seconds
# Rows written until it is looked for what is over, and rows that are looked at. Looking at all of a million would take
# most of a second, in which nobody can buy. A purchase writes its one row four times, so this keeps up all the same.
_PRUNE_EVERY, _PRUNED_AT_A_TIME = 10_000, 20_000


class JournalStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of a journal at one moment.

    Attributes:
        rows: rows written so far, a purchase has about four.
        commits: groups they were committed in.
        failures: groups that could not be committed.
        unwritten: facts about paid jobs that are not on disk, because the disk refuses them; they are tried again.
    """

    rows: int
    commits: int
    failures: int
    unwritten: int


class Journal:
    """Keeps on disk what was paid for, so that no end of a process, however sudden, loses it.

    `Mirage(journal=Journal("journal"))` uses it and closes it. From then on a purchase is written down before it is
    sent, its id before anybody asks about it, and its outcome before anybody gets it; `Mirage.recover()` returns in the
    next process what this one could not finish. Several processes may share a folder.

    The constructor touches the disk, for some milliseconds. All else is written by a thread.

    Args:
        directory: a folder for the journal alone, on a local disk; made, for its owner alone, where it is missing.
        durability: "power" flushes each group of rows to the disk, so that not even the end of the machine loses one;
            "process" leaves that to the system, and only the end of a process loses nothing.
        retention: seconds for which purchases that are over, and their pictures, are kept to be looked at; at least 0.
            What is still owed is kept for ever, and so is what nobody knows the end of. Of a purchase under a caller's
            own key only the result is removed: the key never buys again.
        store_prompts: also keep the requests, with prompts and reference pictures, which `recover()` needs where it is
            to send a doubtful one again, and the prompts that providers revised.

    Raises:
        InputError: an argument out of range.
        JournalError: the folder cannot be written to, or is on a network.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        durability: Durability = "power",
        retention: float = WEEK,
        store_prompts: bool = False,
    ) -> None:
        if durability not in get_args(_schema.Durability):
            msg = f"durability must be 'power' or 'process'; got {durability!r}"
            raise InputError(msg)
        if isinstance(retention, bool) or not isinstance(retention, int | float) or not retention >= 0:
            msg = f"retention must be at least 0 seconds; got {retention!r}"
            raise InputError(msg)
        if not isinstance(store_prompts, bool):
            msg = f"store_prompts must be True or False; got {store_prompts!r}"
            raise InputError(msg)
        self.directory = Path(directory).absolute()
        self._durability: Durability = durability
        self._retention = float(retention)
        self._store_prompts = store_prompts
        self._run = secrets.token_hex(8)
        self._sending: set[str] = set()  # keys of purchases that may be on the wire
        # Jobs that have not got their callers' own keys so far: what is on record of these may be somebody else's.
        self._asking: weakref.WeakKeyDictionary[Job[Any], asyncio.Future[bool]] = weakref.WeakKeyDictionary()
        _schema.check_sqlite()
        make_folder(self.directory)
        check_file_system(self.directory)
        self._folder = Folder(self.directory, durability)
        self._seat, connection = self._folder.sit_down()
        self._losses = Losses(self.directory)
        self._writer = Writer(
            connection,
            flush=durability == "power",
            check=self._seat.check,
            told=self._losses.tell,
            on_end=self._seat.release,
            on_recovery=self._losses.forget,
        )
        self._own_keys = OwnKeys(self._writer, self._folder, self._sending)
        self._lookups = Lookups(self._writer, self._folder, self.picture_path(""))
        self._used = False
        # One that nobody has any more, as where the hub it was made for was refused, must not keep its file.
        weakref.finalize(self, self._writer.abandon).atexit = False
        self._pruned_at, self._pruned_to = 0, 0  # at so many rows written, up to which one

    def claim(self) -> None:
        """Belong to one hub from now on.

        Raises:
            ConfigurationError: it belongs to another already, which would close it while this one buys on.
        """
        if self._used:
            msg = "a journal belongs to one hub; make another one, which may be of the same folder"
            raise ConfigurationError(msg)
        self._used = True

    # --- the recorder of `jobs` ---

    def intended(self, job: Job[Any], intent: Intent) -> Awaitable[None]:
        """Wait until it is on disk that a request which costs money may leave from now on.

        Raises:
            InputError: another process buys, or has bought, under this key of the caller's, or nobody knows; nothing
                may be sent.
            JournalError: it could not be written, so nothing may be sent.
        """
        if self._writer.unwritten:
            msg = f"the journal in {str(self.directory)!r} cannot be written at present, so nothing more is bought"
            raise JournalError(msg, provider=job.provider)
        kept = self._request_path(job.key) if self._store_prompts else None
        row = IntentRow(job, intent, self._run, kept, time.time(), job.kind.clock.monotonic())
        write = Write(INTENDED, make=row, about=job)
        if intent.own_key:
            return self._intended_under_own_key(job, write)
        written = self._written(write)
        self._sending.add(job.key)
        return written

    async def _intended_under_own_key(self, job: Job[Any], write: Write) -> None:
        taking = self._own_keys.take(job.key, write)
        free = False
        try:
            free = await taking.answered()
        except (sqlite3.Error, OSError) as error:
            raise not_intended(self.directory, job, error)  # noqa: B904 - with its cause
        finally:
            if not free:
                self._asking[job] = end_of(taking)
        if not free:
            msg = (
                f"another process has bought, or is buying, under the key {job.key}; nothing was sent. "
                "Asking again with it returns what was bought"
            )
            raise InputError(msg, provider=job.provider, billed="no")
        self._sending.add(job.key)

    async def withdrawn(self, job: Job[Any]) -> None:
        """Return once it is on disk that what was sent last has bought nothing."""
        self._sending.discard(job.key)
        if not await self._has_its_key(job):
            return
        if self._writer.closed:
            _logger.info("that %r was refused is not recorded, so that it will be doubtful: the journal is closed", job)
            return
        fact = Fact(job, job.id, EntryState.UNPAID)
        await self._fact(Write(WITHDRAWN, (job.key, time.time()), is_fact=True, about=fact))

    def accepted(self, job: Job[Any]) -> Awaitable[None]:
        """Wait until the provider's id is on disk."""
        self._sending.discard(job.key)
        fact, row = Fact(job, job.id, EntryState.ACCEPTED), (job.key, job.id, time.time())
        return self._fact(Write(ACCEPTED, row, is_fact=True, about=fact))

    def settled(self, job: Job[Any], outcome: object) -> Awaitable[None]:
        """Wait until the outcome is on disk, and with it the pictures that cannot be had again."""
        self._sending.discard(job.key)
        state, spooled, known = state_of(outcome), job.id is None, bool(job.private)
        prompts, path_of = self._store_prompts, self.picture_path
        row = OutcomeRow(job.key, outcome, state, spooled, known, prompts, path_of, time.time())
        if state is EntryState.UNPAID:
            return self._note_refusal(job, Write(SETTLED, make=row, about=job))
        fact = Fact(job, job.id, state, outcome if spooled else None)
        return self._fact(Write(SETTLED, make=row, is_fact=True, about=fact))

    def handed_over(self, job: Job[Any]) -> None:
        """Note that somebody has been given the outcome; it is written with the next group.

        Nobody writes it down once the journal is closed, so that the outcome will come a second time.
        """
        if not job.may_be_billed:
            return
        if self._writer.closed:
            _logger.info("that the outcome of %r was handed over is not recorded: the journal is closed", job)
            return
        write = Write(HANDED_OVER, (job.key, time.time()), is_fact=True, about="handed over")
        self._writer.put(write, asyncio.get_running_loop())
        if self._writer.rows - self._pruned_at >= _PRUNE_EVERY:
            self._pruned_at = self._writer.rows
            self._writer.soon(self._prune)

    async def _has_its_key(self, job: Job[Any]) -> bool:
        """Whether what is on record of a job's key is about it, which may have left while it asked for the key."""
        taken = self._asking.get(job)
        return taken is None or await asyncio.shield(taken)

    async def _note_refusal(self, job: Job[Any], write: Write) -> None:
        """Write that a purchase was refused, unless what is on record is that of another who may buy."""
        if not await self._has_its_key(job):
            return
        # Nothing is owed of such a purchase, least of all by a disk that would not take its intent.
        with contextlib.suppress(JournalError):
            await self._written(write)

    def _fact(self, write: Write) -> asyncio.Future[None]:
        """Write something about a paid job; the future ends when it is durable, and also where it is not written."""
        loop = asyncio.get_running_loop()
        write.waiter = waiter = loop.create_future()
        try:
            self._writer.put(write, loop)
        except JournalError as error:
            self._losses.tell(write, error)
            waiter.set_result(None)
        return waiter

    def _written(self, write: Write) -> asyncio.Future[None]:
        """Write a row; the future ends when it is durable."""
        loop = asyncio.get_running_loop()
        write.waiter = waiter = loop.create_future()
        self._writer.put(write, loop)
        return waiter

    # --- what the hub and the command line ask for ---

    async def owed(self) -> list[Entry]:
        """Return what earlier processes still owe, the oldest first, and take over the files of those that are gone.

        What this process answers for already, because it bought it or took it, is not returned.

        Raises:
            JournalError: the folder cannot be read or written.
        """
        return await self._asked(self._owed)

    async def take(self, keys: Iterable[str]) -> None:
        """Answer for what was owed by earlier processes from now on.

        Raises:
            JournalError: as `owed`.
        """
        wanted = [(self._run, key) for key in keys]
        await self._asked(lambda connection: _schema.take(connection, wanted))

    def release(self, key: str) -> None:
        """Owe again what this process has answered for; it is written with nobody waiting."""
        self._writer.soon(lambda connection: _schema.take(connection, [("", key)]))

    async def entry(self, key: str) -> Entry | None:
        """Return what is known of a purchase by this process, by those that are gone, and by those that go on.

        Raises:
            JournalError: as `owed`.
        """
        return (await self._looked_up(key)).entry

    async def entry_and_note(self, key: str, name: str) -> tuple[Entry | None, str | None]:
        """Return what `entry` and `noted` do, for the price of one of them."""
        found = await self._looked_up(key, name)
        return found.entry, found.note

    async def knows_id(self, provider: str, id: str) -> bool:  # noqa: A002 - the provider's id is called that everywhere
        """Return whether a job of a provider is that of some purchase on record.

        Raises:
            JournalError: as `owed`.
        """
        found = await self._asked(lambda connection: _schema.select(connection, _schema.BY_ID, (provider, id)))
        return bool(found)

    async def resolve(self, key: str, *, id: str | None = None, unpaid: bool = False) -> Entry:  # noqa: A002 - same
        """Settle by hand what became of a doubtful purchase.

        Args:
            key: of the entry.
            id: the provider's id of the job, where one was found after all: the job is owed again from now on.
            unpaid: it is certain that nothing was bought, so that it may be bought again under the same key. With
                neither this nor an id it is given up: it may have been bought, and nothing more is done about it.

        Returns:
            The entry as it is now.

        Raises:
            InputError: there is no such entry, it is none whose end is open, somebody is at work on it, or the id is
                that of another purchase on record.
            JournalError: as `owed`.
        """
        looked_up = await self._looked_up(key)
        found = looked_up.entry
        if found is None:
            msg = f"the journal in {str(self.directory)!r} knows no purchase with the key {key!r}"
            raise InputError(msg)
        if not looked_up.is_ours:
            msg = f"the process that made the purchase {key} goes on, and settles it itself; end that one first"
            raise InputError(msg, provider=found.provider)
        if found.key in self._sending:
            msg = f"the purchase {key} is being made at this moment by this very process, which settles it itself"
            raise InputError(msg, provider=found.provider)
        check_settled_by_hand(found, id=id, unpaid=unpaid)
        settled_as = EntryState.UNPAID if unpaid else EntryState.ABANDONED
        state = settled_as if id is None else EntryState.ACCEPTED
        await self._asked(lambda connection: self._resolve(connection, found, state, id))
        settled = await self.entry(key)
        assert settled is not None  # noqa: S101 - it was there a moment ago, and only what is over is ever removed
        return settled

    async def note(self, name: str, value: str, *, one_of: Sequence[str] = ()) -> None:
        """Keep a text under a name, in place of what was kept there before.

        Args:
            name: of the text.
            value: the text.
            one_of: callers' own keys of which one at a time may buy from now on: none as long as another one has bought
                and not come to a bad end, in whichever process.

        Raises:
            JournalError: as `owed`.
        """
        await self._readable(self._lookups.keep({name: value, **notes_of_rivals(one_of)}))

    async def noted(self, name: str) -> str | None:
        """Return the text that is kept under a name, by any process that is gone; None where there is none.

        Raises:
            JournalError: as `owed`.
        """
        return (await self._looked_up(name=name)).note

    def check_nothing_lost(self, key: str) -> None:
        """Check that a caller's own key of which nothing is on record has surely bought nothing.

        Where part of a damaged file could not be read, what is lost may have been about any key. So those of which
        nothing is on record are refused, until somebody who has looked at that file, or at the provider's dashboard,
        moves the file out of the folder.

        Raises:
            InputError: such a file was in the folder when something was looked up last that is not on record.
        """
        self._folder.check_nothing_lost(key)

    async def put_back(self) -> None:
        """Write the file anew where somebody has removed it with its folder, so that the next process finds it.

        This one buys nothing more. Pictures that were in the folder are not in it again.

        Raises:
            JournalError: the folder cannot be made or written to.
        """
        await to_thread.run_sync(make_folder, self.directory)
        await self._asked(self._put_back)

    def picture_path(self, name: str) -> Path:
        """Return where the bytes of a `StoredImage.file` are."""
        return self.directory / "pictures" / name

    async def request(self, key: str) -> Call | None:
        """Return the request of a purchase as it was sent; None where prompts are not stored."""
        return await to_thread.run_sync(read_packed, self._request_path(key))

    def statistics(self) -> JournalStatistics:
        """Return the counts of this moment."""
        writer = self._writer
        return JournalStatistics(
            rows=writer.rows, commits=writer.commits, failures=writer.failures, unwritten=writer.unwritten
        )

    async def aclose(self) -> None:
        """Write what is left and let go of the file; may be called twice. Using it later raises `JournalError`."""
        self._writer.close()
        await to_thread.run_sync(self._writer.join)

    def __repr__(self) -> str:
        return f"<Journal {str(self.directory)!r} {self._seat.path.name}>"

    async def _asked(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await self._readable(self._writer.do(work))

    def _looked_up(self, key: str = "", name: str = "") -> Awaitable[Found]:
        return self._readable(self._lookups.ask(key, name))

    async def _readable(self, answer: Awaitable[T]) -> T:
        try:
            return await answer
        except (sqlite3.Error, OSError) as error:
            msg = f"the journal in {str(self.directory)!r} cannot be read or written: {error}"
            raise JournalError(msg) from error

    # --- what follows runs in the writer's thread ---

    def _owed(self, connection: sqlite3.Connection) -> list[Entry]:
        self._folder.take_over(connection)
        self._remove(connection, set(_schema.over(connection, time.time() - self._retention)[0]))
        found = _schema.select_readable(connection, "WHERE run != ? AND NOT handed_over", (self._run,))
        return [self._lookups.with_pictures(connection, entry) for entry in found if entry.owed]

    def _resolve(self, connection: sqlite3.Connection, found: Entry, state: EntryState, id: str | None) -> None:  # noqa: A002 - same
        if id is not None:
            where = _schema.BY_ID, (found.provider, id)
            holders = [*_schema.select(connection, *where), *self._folder.others(*where)]
            check_id_is_free(found, id, holders)
        connection.execute(_schema.RESOLVED, (found.key, state.value, id, time.time()))

    def _put_back(self, connection: sqlite3.Connection) -> None:
        self._writer.catch_up()
        if self._writer.unwritten:
            msg = "what became of earlier purchases has to be written first"
            raise OSError(msg)
        self._folder.copy(connection)

    def _prune(self, connection: sqlite3.Connection) -> None:
        """Remove of the next rows, in turn, what is over for long enough."""
        before = time.time() - self._retention
        keys, self._pruned_to = _schema.over(connection, before, after=self._pruned_to, most=_PRUNED_AT_A_TIME)
        self._remove(connection, set(keys))

    def _remove(self, connection: sqlite3.Connection, keys: Collection[str]) -> None:
        """Remove entries and their files."""
        if keys:
            for folder in (self.picture_path(""), self._request_path("").parent):
                for path in folder.iterdir():
                    if re.split(r"[-.]", path.name.removeprefix("."), maxsplit=1)[0] in keys:
                        path.unlink(missing_ok=True)
            _schema.remove(connection, keys)  # after its files, of which nobody would know otherwise

    def _request_path(self, key: str) -> Path:
        return self.directory / "requests" / f"{key}.msgpack"
