"""What the clients of one hub share: one pool, one scheduler, one set of background work, and one way to close it."""

from __future__ import annotations

import asyncio
import contextlib
import math
import weakref
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Self

import anyio

from mirage_async._deadlines import Deadline, Deadlines
from mirage_async._tasks import TaskSet
from mirage_async._transport import Transport
from mirage_async.clients._ledger import Ledger
from mirage_async.clients._memory import Memory
from mirage_async.downloads import Downloader
from mirage_async.exceptions import ClosedError, ConfigurationError
from mirage_async.jobs import Hints, NullHints, NullRecorder, Recorder
from mirage_async.scheduler import AdaptiveInterval, Scheduler

if TYPE_CHECKING:
    from types import TracebackType

    import aiohttp

    from mirage_async._clock import Clock
    from mirage_async._transport import Endpoint
    from mirage_async.clients._buyer import Buyer
    from mirage_async.jobs import Job
    from mirage_async.journal import Journal
    from mirage_async.scheduler import Limits
    from mirage_async.scheduler._pauses import Pauses
    from mirage_async.webhooks import WebhookReceiver

__all__ = ["Runtime"]

MOST_PAUSES = 1024  # of keys without a client that are remembered
POST_GRACE = 2.0  # seconds that requests which may cost money get to bring home their id when everything closes


class Runtime:
    """The shared parts; made and closed by the hub, or by a client that stands alone.

    Args:
        scheduler: asks about jobs and lends its clock to everything else; None makes one with the default policy.
        session: a caller's own session for API calls, never closed here.
        proxy: address of an HTTP proxy for API calls and downloads.
        webhooks: gives providers addresses to call back, and hears from them; None where nobody does.
        journal: keeps what was paid for, and is closed in the end; None where nobody does.
    """

    def __init__(
        self,
        *,
        scheduler: Scheduler | None = None,
        session: aiohttp.ClientSession | None = None,
        proxy: str | None = None,
        webhooks: WebhookReceiver | None = None,
        journal: Journal | None = None,
    ) -> None:
        self.scheduler = Scheduler() if scheduler is None else scheduler
        self.scheduler.claim()
        if journal is not None:
            journal.claim()
        self.clock = self.scheduler.clock
        self.waits: Clock = _UntilClosed(self)
        self.transport = Transport(self.clock, session=session, proxy=proxy)
        self.downloader = Downloader(clock=self.clock, proxy=proxy)
        self.journal = journal
        self.recorder: Recorder = NullRecorder() if journal is None else journal
        self.webhooks = webhooks
        self.hints: Hints = NullHints() if webhooks is None else webhooks.expected
        self.buyers = TaskSet()  # purchases nobody waits for: they wait for a place, or for their request in `posts`
        self.posts = TaskSet()  # requests on the wire: cancelling one would not un-buy it
        self.open_buyers: weakref.WeakSet[Buyer] = weakref.WeakSet()  # told once nothing is on the wire any more
        self.closed = False
        self._ledgers: weakref.WeakValueDictionary[object, Ledger] = weakref.WeakValueDictionary()
        self._pauses: weakref.WeakValueDictionary[object, Pauses] = weakref.WeakValueDictionary()
        # A key's last client may be gone after each request, and another one made for the next: a pause holds for both.
        self._recent: OrderedDict[object, Pauses] = OrderedDict()
        self.waiting = Deadlines(self.clock)
        self._closing: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.memory = self._memory()
        self.known: weakref.WeakValueDictionary[str, Job[Any]] = weakref.WeakValueDictionary()  # by caller's own key
        self._turns: weakref.WeakValueDictionary[str, anyio.Lock] = weakref.WeakValueDictionary()

    def ledger(self, provider: str, endpoint: Endpoint, limits: Limits | None, *, otherwise: Limits) -> Ledger:
        """Return the account of a key at an address, with its jobs; the same one as long as a client of it is alive.

        Args:
            provider: the provider's name.
            endpoint: address and key.
            limits: the limits asked for; others than the account was opened with get an account of their own, again
                one for all who ask for these, with the pauses of the first. None takes the account there is.
            otherwise: the limits of a new account where `limits` is None.
        """
        place = (provider, *endpoint.identity)
        found = self._ledgers.get((place, limits))
        if found is None:
            limited = otherwise if limits is None else limits
            alias = (provider, endpoint.alias)  # which holds no key: it may outlive the clients
            account = self.scheduler.account(provider, limited, self._pauses.get(alias))
            self._pauses[alias] = self._recent[alias] = account.pauses
            self._recent.move_to_end(alias)
            if len(self._recent) > MOST_PAUSES:
                self._recent.popitem(last=False)  # it lives on with its accounts, if it has any
            found = Ledger(account, self._owe)
            self._ledgers[place, limits] = found
            self._ledgers.setdefault((place, None), found)
        return found

    def _owe(self, job: Job[Any]) -> None:
        """Have the next `recover()` return a job that nobody here keeps any more."""
        if self.journal is not None and job.may_be_billed and not job.taken and not self.closed:
            self.journal.release(job.key)

    def turn(self, key: str) -> anyio.Lock:
        """Return what those hold, one at a time, who buy under this key."""
        return self._turns.setdefault(key, anyio.Lock())

    def check_open(self, who: str = "client") -> None:
        """Raise `ClosedError` after the end, and `ConfigurationError` in another event loop than before."""
        if self.closed:
            msg = f"the {who} is closed"
            raise ClosedError(msg)
        self.check_loop()

    def check_loop(self) -> None:
        """Raise `ConfigurationError` in another event loop than the first."""
        self._check(asyncio.get_running_loop())

    def check_not_elsewhere(self) -> None:
        """Raise `ConfigurationError` outside the event loop of a runtime in use: in a thread, or between two runs."""
        if self._loop is None or self.closed:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            msg = "a client in use takes other limits in its event loop alone, and none runs in this thread now"
            raise ConfigurationError(msg) from None
        self._check(loop)

    def _check(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            msg = "a client belongs to the event loop it is first used in; make another one for this loop"
            raise ConfigurationError(msg)

    def until_closed(self) -> WaitUntilClosed:
        """End what waits inside as soon as everything closes, with `ClosedError`.

        For waits only: a request on the wire is not cut short by closing, since that would not un-send it.
        """
        return WaitUntilClosed(self, math.inf)

    def until(self, deadline: float) -> WaitUntil:
        """End what waits inside at `deadline`, in the clock's seconds, or as soon as everything closes.

        For waits only. What it gives tells afterwards whether the deadline has ended it.
        """
        return WaitUntil(self, deadline)

    def _memory(self) -> Memory | None:
        policy = self.scheduler.policy
        if self.journal is None or not isinstance(policy, AdaptiveInterval):
            return None
        return Memory(self.journal, policy, self.clock)

    async def aclose(self) -> None:
        """Close everything. Every call returns once all is closed; cancelling one does not stop the closing."""
        if self._closing is None:
            self.closed = True
            self._closing = asyncio.get_running_loop().create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        self.waiting.end_all()
        # The event loop may end, and cancel this task, before the grace is over or in any of these: each has its turn.
        async with contextlib.AsyncExitStack() as closing:
            if self.journal is not None:
                closing.push_async_callback(self.journal.aclose)
            if self.memory is not None:
                closing.push_async_callback(self.memory.aclose)
            closing.push_async_callback(self.transport.aclose)
            closing.push_async_callback(self.downloader.aclose)
            closing.callback(self._let_go)
            await asyncio.gather(self.scheduler.aclose(), self._close_posts())

    def _let_go(self) -> None:
        for buyer in tuple(self.open_buyers):
            buyer.let_go()

    async def _close_posts(self) -> None:
        await self.posts.aclose(grace=POST_GRACE)
        await self.buyers.aclose(grace=POST_GRACE)


class _Wait(Deadline):
    """A block that waits, and ends when everything closes."""

    __slots__ = ("_runtime",)

    def __init__(self, runtime: Runtime, at: float) -> None:
        super().__init__(runtime.waiting, at)
        self._runtime = runtime

    def __enter__(self) -> Self:
        self._runtime.check_open()
        self.begin()
        return self


class WaitUntilClosed(_Wait):
    """A block that ends with `ClosedError` when everything closes."""

    __slots__ = ()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.has_ended(exc_type):
            raise _closed() from None


class WaitUntil(_Wait):
    """A block that ends at a deadline, without a word, and with `ClosedError` when everything closes.

    Attributes:
        over: the deadline has ended it.
    """

    __slots__ = ("over",)

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        self.over = self.has_ended(exc_type)
        if self.over and self._runtime.closed:
            raise _closed() from None
        return self.over


def _closed() -> ClosedError:
    return ClosedError("the client was closed")


class _UntilClosed:
    """The runtime's clock, whose sleeps end when everything closes."""

    __slots__ = ("_runtime", "call_at", "monotonic", "time")

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.monotonic = runtime.clock.monotonic
        self.time = runtime.clock.time
        self.call_at = runtime.clock.call_at

    async def sleep(self, seconds: float) -> None:
        with self._runtime.until_closed():
            await self._runtime.clock.sleep(seconds)
