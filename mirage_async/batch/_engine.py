"""What makes a batch run: one task that pulls, one for each purchase, and whoever takes the outcomes.

An item is pulled only where there is a place for it, and keeps the place until its outcome has been taken. That one
rule bounds what is in flight, what waits finished, and how far the input is read ahead, in order or not.

The engine does not know the `Batch` that people hold, so that dropping it is noticed: a loop that is left with `break`
stops buying in that moment. Results stay in their jobs until somebody takes the outcome, so that whatever is not taken
in the end can be left in the clients' `jobs`.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
from collections import deque
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from mirage_async._tasks import TaskSet
from mirage_async.batch._items import parts_of, request_of
from mirage_async.batch._statistics import BatchStatistics
from mirage_async.exceptions import (
    AuthenticationError,
    BudgetExceededError,
    ClosedError,
    InsufficientCreditsError,
    MirageError,
    SubmissionUncertainError,
)
from mirage_async.models import ImageRequest, Outcome, Tried

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection

    from mirage_async.batch._budget import Share, Till
    from mirage_async.jobs import Job
    from mirage_async.models import Generation

__all__ = ["Engine", "Shop", "Terms"]

_logger = logging.getLogger("mirage_async.batch")

_OF_THE_ACCOUNT = (AuthenticationError, InsufficientCreditsError)  # whatever is asked for next meets the same


class Shop(Protocol):
    """Whoever sells what is asked for, from one of the providers a request names."""

    def names(self, request: ImageRequest) -> tuple[str, ...]:
        """Return the providers a request may be bought from."""
        ...

    def max_images(self, request: ImageRequest) -> int:
        """Return the most pictures that each of them takes in one request."""
        ...

    async def claim(self, request: ImageRequest, parts: int) -> None:
        """Bring on record that the caller's own key of a request stands for all of its parts."""
        ...

    async def buy(
        self, request: ImageRequest, accepted: Callable[[Job[Generation]], None], without: Collection[str]
    ) -> tuple[Generation, tuple[Tried, ...]]:
        """Buy and wait, telling of each job that is bought, and leave the result untaken in the last one.

        Of several providers, nothing is bought from those in `without`.
        """
        ...

    def keep(self, job: Job[Any]) -> None:
        """Keep a job until somebody takes its result."""
        ...


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """How a batch buys; `Batch` documents the options it comes from."""

    limit: int
    ordered: bool
    split: bool
    provider: str | None
    providers: tuple[str, ...]


def _unsent(index: int, error: Exception) -> MirageError:
    """Return the error of an item that was not bought."""
    if isinstance(error, MirageError):
        return error
    _logger.error("item %d of a batch could not be bought", index, exc_info=error)
    return MirageError(f"an unforeseen {type(error).__name__}, as logged; nothing was sent", billed="no")


class _Entry:
    """One purchase, from the moment its item is pulled until its outcome is taken."""

    __slots__ = ("error", "finished", "generation", "index", "jobs", "launched", "part", "parts", "request", "tried")

    def __init__(self, index: int, request: ImageRequest, part: int, parts: int) -> None:
        self.index = index
        self.request = request
        self.part = part
        self.parts = parts
        self.jobs: list[Job[Generation]] = []
        self.tried: tuple[Tried, ...] = ()
        self.generation: Generation | None = None
        self.error: MirageError | None = None
        self.launched = False  # there is a task that will finish it
        self.finished = False


class Engine:
    """Pulls, buys and hands over.

    Args:
        source: the items.
        shop: who sells.
        till: the budget.
        terms: how to buy.
    """

    def __init__(self, source: AsyncIterator[Any], shop: Shop, till: Till, terms: Terms) -> None:
        self._source: AsyncIterator[Any] | None = source
        self._shop = shop
        self._till = till
        self._terms = terms
        self._tasks = TaskSet()
        self._pump_task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._line: deque[_Entry] = deque()  # in order: all under way; else: the finished ones
        self._under_way: set[_Entry] = set()
        self._room = asyncio.Event()  # for the task that pulls: a place is free, or a purchase has ended
        self._news = asyncio.Event()  # for whoever takes: an outcome is there, or the end
        self._barred: dict[str, MirageError] = {}
        self._failure: BaseException | None = None
        self._pulling = False
        self._pumped = False
        self._stopping = False
        self._closed = False
        self._counts = {"pulled": 0, "succeeded": 0, "failed": 0, "uncertain": 0}

    # --- taking ---

    async def take(self) -> Outcome:
        """Return the next outcome; raises `StopAsyncIteration` at the end, or what ended the batch early."""
        self._start()
        try:
            while (entry := self._next_finished()) is None:
                if self._at_end():
                    raise self._end()
                self._news.clear()
                await self._news.wait()
        except asyncio.CancelledError:
            self.abandon()
            raise
        return await self._hand_over(entry)

    def _start(self) -> None:
        if self._pump_task is None and not self._closed:
            self._loop = asyncio.get_running_loop()
            self._pump_task = self._tasks.spawn(self._pump())

    def _next_finished(self) -> _Entry | None:
        return self._line.popleft() if self._line and self._line[0].finished else None

    def _at_end(self) -> bool:
        return self._closed or (self._pumped and not self._under_way)

    def _end(self) -> BaseException:
        failure, self._failure = self._failure, None
        return StopAsyncIteration() if failure is None else failure

    async def _hand_over(self, entry: _Entry) -> Outcome:
        self._under_way.discard(entry)
        self._room.set()
        generation = entry.generation
        for job in entry.jobs:
            # Tell the job that its end has reached somebody: not of one that succeeded after the wait for it was over.
            if job.ending is not None and (generation is not None or job.ending[1] is not None):
                with contextlib.suppress(MirageError):
                    await job  # which is done, so this does not wait
        if generation is not None and entry.tried:
            generation = msgspec.structs.replace(generation, tried=entry.tried)
        return Outcome(
            request=entry.request,
            generation=generation,
            error=entry.error,
            index=entry.index,
            part=entry.part,
            parts=entry.parts,
        )

    # --- pulling ---

    async def _pump(self) -> None:
        try:
            await self._pull_all()
        except asyncio.CancelledError:  # the end of pulling, for `stop` as for whatever closes the batch
            if self._closed:
                raise
        except BaseException as error:  # noqa: BLE001 - whatever the input raises is raised to the taker, after the outcomes
            self._failure = error
        finally:
            self._pumped = True
            self._finish_unlaunched()
            self._news.set()

    def _finish_unlaunched(self) -> None:
        """Give what nobody works on any more an outcome, so that nobody waits for it; normally there is none."""
        if not self._closed:
            for entry in [each for each in self._under_way if not each.launched and not each.finished]:
                self._finish(entry, MirageError("the batch has ended before this was bought"))

    async def _pull_all(self) -> None:
        source = self._source
        assert source is not None  # noqa: S101 - it is let go of once this task is over; says so to the type checker
        while True:
            await self._place()
            if self._stopping:
                return
            self._pulling = True
            try:
                item = await anext(source)
            except StopAsyncIteration:
                return
            except asyncio.CancelledError:
                if not self._stopping:  # the input has raised it: nobody here has cancelled anything
                    self._failure = MirageError("the input of the batch was cancelled, so there may be more in it")
                raise
            finally:
                self._pulling = False
            index, self._counts["pulled"] = self._counts["pulled"], self._counts["pulled"] + 1
            await self._launch_item(index, item)

    async def _place(self) -> None:
        """Wait for a free place, or for the end."""
        while len(self._under_way) >= self._terms.limit and not self._stopping:
            self._room.clear()
            await self._room.wait()

    async def _launch_item(self, index: int, item: object) -> None:
        """Buy an item, part by part; what is wrong with it is its outcome."""
        request = ImageRequest(prompt="")
        try:
            request = request_of(item, self._terms.provider, self._terms.providers)
            most = self._shop.max_images(request)
            parts, requests = parts_of(request, most) if self._terms.split else (1, iter((request,)))
            if parts > 1 and request.key is not None:
                await self._shop.claim(request, parts)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with an item must not hold up the batch
            self._finish(self._entry(index, request, 1, 1), _unsent(index, error))
            return
        for part, each in enumerate(requests, 1):
            await self._place()
            await self._launch(self._entry(index, each, part, parts))
            if self._stopping:
                return

    def _entry(self, index: int, request: ImageRequest, part: int, parts: int) -> _Entry:
        entry = _Entry(index, request, part, parts)
        self._under_way.add(entry)
        if self._terms.ordered:
            self._line.append(entry)
        return entry

    async def _launch(self, entry: _Entry) -> None:
        try:
            left, before = self._without_barred(entry.request)
            share = await self._share(left)
        except BudgetExceededError as error:
            self._finish(entry, error)
            self.stop()
        except Exception as error:  # noqa: BLE001 - as above
            self._finish(entry, _unsent(entry.index, error))
        else:
            entry.launched = True
            self._tasks.spawn(self._work(entry, before, share))

    async def _share(self, request: ImageRequest) -> Share:
        """Wait until the budget allows a purchase; raises why it is not to be made."""
        names = self._shop.names(request)
        if barred := next((self._barred[name] for name in names if name in self._barred), None):
            raise copy.copy(barred)
        while (share := None if self._stopping else self._till.take(request, names)) is None:
            if self._stopping:
                msg = "the batch was stopped before this was bought"
                raise ClosedError(msg)
            self._room.clear()
            await self._room.wait()
        return share

    def _without_barred(self, request: ImageRequest) -> tuple[ImageRequest, tuple[Tried, ...]]:
        """Leave out the providers that have refused the account, unless that leaves nobody."""
        left = tuple(name for name in request.providers if name not in self._barred)
        if not left or len(left) == len(request.providers):
            return request, ()
        before = tuple(
            Tried(provider=name, error=copy.copy(self._barred[name])) for name in request.providers if name not in left
        )
        return msgspec.structs.replace(request, providers=left), before

    # --- buying ---

    async def _work(self, entry: _Entry, before: tuple[Tried, ...], share: Share) -> None:
        error: MirageError | None = None
        try:
            without = [each.provider for each in before]
            entry.generation, tried = await self._shop.buy(entry.request, entry.jobs.append, without)
        except asyncio.CancelledError:
            self._keep(entry)
            raise
        except MirageError as raised:
            error, tried = raised, raised.tried
        except Exception as raised:
            _logger.exception("item %d of a batch failed in an unforeseen way", entry.index)
            error, tried = MirageError(f"an unforeseen {type(raised).__name__}, as logged", billed="unknown"), ()
        asked = {each.provider for each in tried}  # also one left out, where it had sold this before
        entry.tried = (*(each for each in before if each.provider not in asked), *tried)
        errors = [each.error for each in tried if each.error is not None] or ([] if error is None else [error])
        for each in errors:
            if isinstance(each, _OF_THE_ACCOUNT) and each.provider is not None:
                self._barred.setdefault(each.provider, copy.copy(each))
        self._till.settle(share, entry.generation, errors)
        if error is not None and before:
            error.tried = entry.tried
        self._finish(entry, error)

    def _finish(self, entry: _Entry, error: MirageError | None) -> None:
        entry.error, entry.finished = error, True
        uncertain = isinstance(error, SubmissionUncertainError)
        self._counts["succeeded" if error is None else "uncertain" if uncertain else "failed"] += 1
        if not self._terms.ordered:
            self._line.append(entry)
        if isinstance(error, ClosedError) and not self._stopping:  # the hub was closed: so it goes for all of them
            self._failure = copy.copy(error)
            self.stop()
        self._room.set()
        self._news.set()

    # --- ending ---

    def stop(self) -> None:
        """Buy nothing more; what is in flight goes on and is handed over."""
        self._stopping = True
        self._room.set()
        if self._pump_task is None:
            self._pumped = True
        elif self._pulling:
            self._pump_task.cancel()

    def abandon(self) -> None:
        """Buy nothing more and leave everything that is bought to the clients' `jobs`; waits for nothing."""
        if self._closed:
            return
        self._closed = self._stopping = True
        self._tasks.cancel()  # a purchase that is cut short keeps its own job
        for entry in self._under_way:
            if entry.finished:
                self._keep(entry)
        self._line.clear()
        self._news.set()

    def _keep(self, entry: _Entry) -> None:
        if entry.jobs:
            self._shop.keep(entry.jobs[-1])
        if entry.error is not None and entry.error.billed != "no":
            _logger.warning("nobody takes the outcome of item %d of a batch: %s", entry.index, entry.error)

    def abandon_from_anywhere(self) -> None:
        """Abandon once the batch itself is gone, in whichever thread that was noticed."""
        loop = self._loop
        if loop is None or loop.is_closed() or self._closed:
            return
        self._stopping = True
        try:
            here = asyncio.get_running_loop() is loop
        except RuntimeError:
            here = False
        if here:
            self.abandon()
        else:
            with contextlib.suppress(RuntimeError):  # the loop has been closed meanwhile
                loop.call_soon_threadsafe(self.abandon)

    async def aclose(self) -> None:
        """Abandon, wait until no task is left, and close an input that is an asynchronous generator."""
        self.abandon()
        await self._tasks.aclose(grace=0)
        source, self._source = self._source, None
        if isinstance(source, AsyncGenerator):
            await source.aclose()

    def statistics(self) -> BatchStatistics:
        """Return the counts of this moment."""
        waiting = sum(entry.finished for entry in self._under_way)
        return BatchStatistics(
            **self._counts,
            in_flight=0 if self._closed else len(self._under_way) - waiting,
            waiting=0 if self._closed else waiting,
            purchases=self._till.purchases,
            pictures=self._till.pictures,
            credits=self._till.credits,
            stopped=self._stopping,
        )
