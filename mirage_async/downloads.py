"""Fetching finished pictures: links that may be followed, bytes that are whole, files that appear in one step.

A picture behind a link is paid for, so its download tries hard: trouble with the connection, a busy server and a body
that is not a whole picture are tried again, a link that has run out is asked for again from the job. The link itself
is somebody else's text, so it is dialled without credentials, and by default only over https and only at public
addresses. That is checked where it cannot be evaded: when the socket is made, for every address of every hop.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeAlias

import anyio
import msgspec
from anyio import to_thread

from mirage_async import media
from mirage_async._addresses import without_query
from mirage_async._clock import Clock
from mirage_async._fetching import AgainError, Fetcher, GoneError
from mirage_async._growing import GrowingBytes
from mirage_async._retry import Retrier
from mirage_async._saving import Draft
from mirage_async.exceptions import ClosedError, DownloadError, DownloadExpiredError, MirageError
from mirage_async.models import GeneratedImage

if TYPE_CHECKING:
    from pathlib import Path

    from mirage_async._fetching import Sink
    from mirage_async.wire import Piece

__all__ = ["Downloader", "Renew"]

Renew: TypeAlias = Callable[[], Awaitable[str | None]]
"""Asks the job for a fresh link; None where there is none to be had."""

MAX_BYTES = 32 << 20  # well above the largest picture any of the providers makes
TRIES = 8  # the delays below add up to 36 s, 44 s at most with their random share
BUDGET = 60.0  # seconds in which attempts may begin
_BATCH = 1 << 20  # bytes of a picture in memory that a thread writes before a cancellation is looked at
SLOW_WRITE = 0.002  # seconds; a disk that needs longer for one network chunk is left to threads for a while
QUICK_OPEN = 0.0005  # seconds; a folder where making a file takes longer, as over a network, is left to threads
MOST_FOLDERS = 64  # remembered as quick
WARY, WARIEST = 0.002, 60.0  # seconds: that while after a write just as slow, and at most
_logger = logging.getLogger("mirage_async")


class Downloader:
    """Fetches pictures over a connection pool of its own, which never sees a key.

    Also a `models.Reader`: for a picture made elsewhere it applies the rules for public links.

    Args:
        clock: whose time the waits between attempts take.
        proxy: address of an HTTP proxy, or None. The proxy resolves host names, so behind one the check of dialled
            addresses is the proxy's task; links with a private literal address are still refused here.
        limit: downloads at once, at least 1; further ones queue.
        max_bytes: the largest picture accepted.
    """

    def __init__(self, *, clock: Clock, proxy: str | None = None, limit: int = 16, max_bytes: int = MAX_BYTES) -> None:
        self._clock = clock
        self._fetcher = Fetcher(clock=clock, proxy=proxy, limit=limit, max_bytes=max_bytes)
        self._reading: set[asyncio.Task[bytes]] = set()
        self._disk = _Disk(clock)

    def image(
        self, piece: Piece, *, name: str, provider: str, allow_private: bool, renew: Renew | None = None
    ) -> GeneratedImage:
        """Return the picture for what a provider handed over, bytes or a link; nothing is fetched yet.

        Args:
            piece: as the codec decoded it. Its `file_size` is a hint: another size is logged, a picture that is
                whole is taken all the same, since storage may have re-encoded it.
            name: a file name without suffix and folders.
            provider: for messages.
            allow_private: follow the link to any address, over http and on any port; for a provider on loopback.
            renew: asks the job for a fresh link once this one has run out, or None where there is no such way.
        """
        source = self._new_source(provider, allow_private=allow_private, renew=renew, file_size=piece.file_size)
        image = GeneratedImage(
            source,
            url=piece.url,
            mime_type=piece.mime_type,
            revised_prompt=piece.revised_prompt,
            text=piece.text,
            name=name,
        )
        if piece.data is not None:
            image.take(piece.data, piece.facts, piece.flaw)
        return image

    async def read(self, image: GeneratedImage) -> bytes:
        """Return the whole picture; `GeneratedImage.read` tells the rules.

        Raises:
            DownloadError: it could not be fetched whole.
            DownloadExpiredError: the link no longer works and there is no fresh one.
            ClosedError: the downloader is closed.
        """
        return await self._source(image).read(image)

    async def save(self, image: GeneratedImage, path: Path, *, overwrite: bool) -> Path:
        """Write the whole picture and return the path it got; `GeneratedImage.save` tells the rules.

        Raises:
            FileExistsError: the target exists and `overwrite` is False; known early, it costs no download.
            OSError: the file cannot be written.
            DownloadError: as `read`.
            ClosedError: as `read`.
        """
        return await self._source(image).save(image, path, overwrite=overwrite)

    async def aclose(self) -> None:
        """Close the pool; whoever still waits for a picture gets `ClosedError`. May be called twice."""
        self._fetcher.stop()
        if self._reading:
            await asyncio.wait(tuple(self._reading))
        await self._fetcher.aclose()

    def _source(self, image: GeneratedImage) -> _Source:
        reader = image._reader  # noqa: SLF001 - the context of a picture lives with its own reader
        if isinstance(reader, _Source):
            return reader
        return self._new_source(None, allow_private=False, renew=None, file_size=None)

    def _new_source(
        self, provider: str | None, *, allow_private: bool, renew: Renew | None, file_size: int | None
    ) -> _Source:
        return _Source(
            fetcher=self._fetcher,
            reading=self._reading,
            clock=self._clock,
            disk=self._disk,
            provider=provider,
            allow_private=allow_private,
            renew=renew,
            file_size=file_size,
        )

    def __repr__(self) -> str:
        return f"<Downloader {self._fetcher.state}>"


class _Source(msgspec.Struct, kw_only=True, eq=False):
    """Reads one picture: knows where it came from and lets several readers share one download."""

    fetcher: Fetcher
    reading: set[asyncio.Task[bytes]]
    clock: Clock
    disk: _Disk
    provider: str | None
    allow_private: bool
    renew: Renew | None
    file_size: int | None
    task: asyncio.Task[bytes] | None = None
    waiting: int = 0

    async def read(self, image: GeneratedImage) -> bytes:
        """Return the bytes; the download ends early only when the last of its readers is cancelled."""
        if image.data is not None:
            if image.flaw is not None:
                message = f"the picture came cut short, and there is no other: {image.flaw}; `data` holds what came"
                raise DownloadError(message, provider=self.provider)
            return image.data
        if self.task is None:
            # A task of its own, so that no single reader's cancellation can cut the others short.
            self.task = asyncio.create_task(self._read(image))
            self.reading.add(self.task)
            self.task.add_done_callback(self.reading.discard)
        task = self.task
        self.waiting += 1
        try:
            return await asyncio.shield(task)
        finally:
            self.waiting -= 1
            if not self.waiting:
                task.cancel()
                self.task = None

    async def save(self, image: GeneratedImage, path: Path, *, overwrite: bool) -> Path:
        """Write the picture; a link is streamed to disk, unless a reader is fetching it already."""
        draft = Draft(path, image.name)
        try:
            await self.disk.open(draft, _known_suffix(image), overwrite=overwrite)
            if image.data is not None or self.task is not None:
                facts = await _copy(await self.read(image), draft)
            else:
                facts = await self._download(image, _FileSink(draft, self.disk))
                image.note(facts)
            suffix = "" if facts is None else facts.suffix  # inline bytes may be of a type unknown here
            return await to_thread.run_sync(lambda: draft.publish(suffix, overwrite=overwrite))
        except BaseException:
            # The thread is started at once: a second cancellation can cut the wait short, but not the clearing up. A
            # cancelled scope of anyio's cancels again and again, which is not meant as a second one.
            with anyio.CancelScope(shield=True):
                await asyncio.shield(asyncio.get_running_loop().run_in_executor(None, draft.discard))
            raise

    async def _read(self, image: GeneratedImage) -> bytes:
        sink = _MemorySink()
        await self._download(image, sink)
        return sink.data.take()

    async def _download(self, image: GeneratedImage, sink: Sink) -> media.Facts:
        with self.fetcher.until_closed():
            return await self._fetch(image, sink)

    async def _fetch(self, image: GeneratedImage, sink: Sink) -> media.Facts:
        """Try until the picture is whole, the link is gone for good, or time and attempts have run out."""
        url, renew, retrier, attempts = image.url, self.renew, None, 0
        if url is None:
            raise DownloadError("the picture has neither bytes nor a link", provider=self.provider)
        while True:
            await self.fetcher.take_slot(sink)
            try:
                retrier = retrier or Retrier(self.clock, tries=TRIES, budget=BUDGET)
                attempts += 1
                outcome = await self._attempt(url, sink)
            finally:
                self.fetcher.give_slot_back(sink)
            if isinstance(outcome, media.Facts):
                return outcome
            if isinstance(outcome, GoneError):
                url = image.url = await self._fresh_link(url, renew, outcome.status)
                renew = None
                continue
            # Where the server's wish does not fit into the budget, our own delay has to do.
            if not (await retrier.again(outcome.floor) or (outcome.floor and await retrier.again())):
                raise self._error(DownloadError, f"not fetched in {attempts} attempts, last: {outcome}", url)

    async def _attempt(self, url: str, sink: Sink) -> media.Facts | AgainError | GoneError:
        try:
            facts, length = await self.fetcher.attempt(url, sink, allow_private=self.allow_private)
        except (AgainError, GoneError) as error:
            return error
        except DownloadError as error:
            error.provider = self.provider
            raise
        if self.file_size not in {None, length}:
            _logger.info("%s: a whole picture of %d bytes, announced were %s", self.provider, length, self.file_size)
        return facts

    async def _fresh_link(self, url: str, renew: Renew | None, status: int) -> str:
        reason = f"the link no longer works (the server answers {status})"
        try:
            fresh = None if renew is None else await renew()
        except ClosedError:
            raise
        except MirageError as error:
            raise self._error(DownloadError, f"{reason}, and asking for a fresh one failed: {error}", url) from error
        if fresh is None:
            # 401 is no storage's word for a link that has run out: it may well work for somebody else.
            kind = DownloadError if status == 401 else DownloadExpiredError  # noqa: PLR2004
            raise self._error(kind, reason, url)
        return fresh

    def _error(self, kind: type[DownloadError], message: str, url: str) -> DownloadError:
        shown = without_query(url)
        return kind(f"{message}: {shown}", provider=self.provider, url=shown)


class _MemorySink:
    """Keeps the bytes, once: joining chunks at the end would hold them twice."""

    __slots__ = ("data",)

    def __init__(self) -> None:
        self.data = GrowingBytes()

    async def restart(self) -> None:
        self.data = GrowingBytes()

    def take(self, piece: bytes | memoryview, coming: int) -> bool:
        if not self.data:
            self.data = GrowingBytes(len(piece) + coming)
        self.data.append(piece)
        return True

    async def wait_for(self, piece: bytes) -> None:
        raise AssertionError(len(piece))  # pragma: no cover - everything is taken at once


class _Disk:
    """Makes the files of all downloads and writes their chunks, and knows whether that makes us wait.

    On the event loop, against the custom: what a network chunk has is a copy of some 100 KiB into the page cache, a
    tenth of a millisecond, and the hop to a thread and back costs more than that. A file system that does make us
    wait (a network share, a disk that cannot keep up) shows it by a slow write, and then threads write for a while.
    That grows with the square of the wait. On a busy machine most slow writes take some milliseconds and are no disk's
    fault, another program got the processor: no reason to be wary for more than a few chunks. A share that flushes for
    a fifth of a second does so again, and must not hold the event loop up more than once a minute.

    It is the same with making a file, which takes a tenth of a millisecond where nothing has to be asked over a
    network. But a share that hangs does so here, so the first file of a folder is made in a thread, and further ones
    are, too, unless the last one was made as fast as that.
    """

    __slots__ = ("_clock", "_quick", "_wary_until")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._quick: set[Path] = set()  # folders
        self._wary_until = -math.inf  # monotonic seconds

    @property
    def waits(self) -> bool:
        """Whether a write may well make us wait, and is better done in a thread."""
        return self._clock.monotonic() < self._wary_until

    async def open(self, draft: Draft, suffix: str | None, *, overwrite: bool) -> None:
        """Open a draft, as `Draft.open` does."""
        near = {draft.path, draft.folder}  # in one of them it will be made
        if not self.waits and not near.isdisjoint(self._quick):
            self._open(draft, near, suffix, overwrite=overwrite)
        else:
            await to_thread.run_sync(lambda: self._open(draft, near, suffix, overwrite=overwrite))

    def _open(self, draft: Draft, near: set[Path], suffix: str | None, *, overwrite: bool) -> None:
        began = self._clock.monotonic()
        try:
            draft.open(suffix, overwrite=overwrite)
        finally:  # a share that is gone says so after a minute, and again the next time
            slow = self._clock.monotonic() - began > QUICK_OPEN
            if slow:
                self._quick -= near
        if not slow:
            if len(self._quick) >= MOST_FOLDERS:
                self._quick.clear()  # one more thread for each of them
            self._quick.add(draft.folder)

    def write(self, draft: Draft, chunk: bytes | memoryview) -> None:
        """Append a chunk, and learn from how long it took, also to fail."""
        began = self._clock.monotonic()
        try:
            draft.write(chunk)
        finally:
            ended = self._clock.monotonic()
            if ended - began > SLOW_WRITE:
                wary = min(WARY * ((ended - began) / SLOW_WRITE) ** 2, WARIEST)
                self._wary_until = max(self._wary_until, ended + wary)


class _FileSink:
    """Writes the bytes piece by piece, holding none."""

    __slots__ = ("_begun", "_disk", "_draft", "_failed")

    def __init__(self, draft: Draft, disk: _Disk) -> None:
        self._draft = draft
        self._disk = disk
        self._begun = False
        self._failed: OSError | None = None  # what kept a piece from being written, or written whole

    async def restart(self) -> None:
        self._failed = None
        if self._begun:
            await to_thread.run_sync(self._draft.rewind)

    def take(self, piece: bytes | memoryview, coming: int) -> bool:  # noqa: ARG002 - a file grows by itself
        self._begun = True
        if self._disk.waits:
            return False
        try:
            self._disk.write(self._draft, piece)
        except OSError as error:
            self._failed = error  # the connection is not to blame, so it is told elsewhere
        return self._failed is None

    async def wait_for(self, piece: bytes) -> None:
        if self._failed is not None:
            raise self._failed
        if self._disk.waits:
            await to_thread.run_sync(self._disk.write, self._draft, piece)
        else:
            self._disk.write(self._draft, piece)


async def _copy(data: bytes, draft: Draft) -> media.Facts | None:
    view = memoryview(data)
    for start in range(0, len(view), _BATCH):
        await to_thread.run_sync(draft.write, view[start : start + _BATCH])
    return media.inspect(data)


def _known_suffix(image: GeneratedImage) -> str | None:
    """Return the suffix a picture will get as far as its type is known; a provider may be wrong about it."""
    return next((suffix for suffix, kind in media.PICTURE_SUFFIXES.items() if kind == image.mime_type), None)
