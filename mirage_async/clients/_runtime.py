"""What the clients of one hub share: one pool, one scheduler, one set of background work."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import anyio

from mirage_async._tasks import TaskSet
from mirage_async._transport import Transport
from mirage_async.downloads import Downloader
from mirage_async.exceptions import ClosedError
from mirage_async.jobs import NullRecorder, Recorder
from mirage_async.scheduler import Scheduler

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    import aiohttp

__all__ = ["Runtime"]

POST_GRACE = 2.0  # seconds that requests which may cost money get to bring home their id when everything closes


class Runtime:
    """The shared parts; made and closed by the hub, or by a client that stands alone.

    Args:
        scheduler: asks about jobs and lends its clock to everything else; None makes one with the default policy.
        session: a caller's own session for API calls, never closed here.
        proxy: address of an HTTP proxy for API calls and downloads.
    """

    def __init__(
        self,
        *,
        scheduler: Scheduler | None = None,
        session: aiohttp.ClientSession | None = None,
        proxy: str | None = None,
    ) -> None:
        self.scheduler = Scheduler() if scheduler is None else scheduler
        self.clock = self.scheduler.clock
        self.transport = Transport(self.clock, session=session, proxy=proxy)
        self.downloader = Downloader(clock=self.clock, proxy=proxy)
        self.recorder: Recorder = NullRecorder()
        self.buyers = TaskSet()  # purchases that have not sent anything yet, or wait for the answer in `posts`
        self._until_closed: set[anyio.CancelScope] = set()
        self.posts = TaskSet()  # requests on the wire: cancelling one would not un-buy it
        self.on_close: list[Callable[[], None]] = []  # told once nothing is on the wire any more
        self.closed = False

    @contextlib.contextmanager
    def until_closed(self) -> Generator[anyio.CancelScope, None, None]:
        """Cancel what runs inside as soon as everything closes; the scope tells whether that happened."""
        if self.closed:
            msg = "the client is closed"
            raise ClosedError(msg)
        with anyio.CancelScope() as scope:
            self._until_closed.add(scope)
            try:
                yield scope
            finally:
                self._until_closed.discard(scope)

    async def aclose(self) -> None:
        """Close everything; calling it again does nothing."""
        if self.closed:
            return
        self.closed = True
        for scope in tuple(self._until_closed):
            scope.cancel()
        await self.scheduler.aclose()
        await self.posts.aclose(grace=POST_GRACE)
        await self.buyers.aclose(grace=POST_GRACE)
        for told in self.on_close:
            told()
        await self.downloader.aclose()
        await self.transport.aclose()
