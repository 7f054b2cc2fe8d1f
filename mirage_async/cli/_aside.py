"""Writing to a standard stream from a thread: whoever reads slowly, or not at all for a while, holds up no purchase."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import queue
import sys
import threading
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

from mirage_async.cli._running import run_in_loop, signals
from mirage_async.cli._streams import divert_stderr

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine

__all__ = ["Aside", "run_with_stderr_aside", "stderr_aside", "wait_for_stderr"]

T = TypeVar("T")

_PAUSE = 0.05  # seconds, where a stream does not wait by itself for whoever reads it
_PATIENCE = 2.0  # seconds for a slow reader of stderr once a command is to end
_of_stderr: list[Aside] = []


class Aside:
    """Writes to a stream, in order, from a thread of its own.

    What waits to be written is kept in memory. Once the stream has failed, all that follows is dropped.

    Args:
        stream: what to write to; nobody else does meanwhile.
        on_failure: called once in the event loop where the stream fails.

    Attributes:
        failed: whether the stream has failed.
    """

    def __init__(self, stream: TextIO, on_failure: Callable[[], object] = lambda: None) -> None:
        self.failed = False
        self._loop = asyncio.get_running_loop()
        self._on_failure = on_failure
        self._put = _writing_to(stream)
        self._waiting: queue.SimpleQueue[str | threading.Event | None] = queue.SimpleQueue()
        self._at_work = False
        # The process does not wait for this thread: it may hang for as long as nobody reads.
        threading.Thread(target=self._work, name="mirage-async-output", daemon=True).start()

    def write(self, text: str) -> None:
        """Have a text written; returns at once."""
        self._waiting.put(text)

    @property
    def behind(self) -> bool:
        """Whether something is still to be written."""
        return self._at_work or not self._waiting.empty()

    def wait(self, seconds: float) -> bool:
        """Block until all so far is written, or cannot be; False where that takes longer."""
        written = threading.Event()
        self._waiting.put(written)
        return written.wait(seconds)

    async def written(self) -> None:
        """Wait until all so far is written, or cannot be."""
        written = _Announced(self._loop)
        self._waiting.put(written)
        await written.heard.wait()

    def close(self) -> None:
        """End the thread when all is written."""
        self._waiting.put(None)

    def _work(self) -> None:
        while (text := self._waiting.get()) is not None:
            if isinstance(text, threading.Event):
                text.set()
            elif not self.failed:
                self._at_work = True
                self._write(text)
                self._at_work = False

    def _write(self, text: str) -> None:
        try:
            self._put(text)
        except (OSError, ValueError):
            self.failed = True
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._on_failure)


class _Announced(threading.Event):
    """An event that a coroutine can wait for."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.heard = asyncio.Event()
        self._loop = loop

    def set(self) -> None:
        super().set()
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self.heard.set)


def _writing_to(stream: TextIO) -> Callable[[str], None]:
    """Return what writes a text to a stream, past its buffer where it has one.

    A thread that hangs while it holds the lock of a buffer would keep the process from ending.
    """
    with contextlib.suppress(OSError, ValueError):  # it fails again when something is written
        stream.flush()
    buffer = getattr(stream, "buffer", None)
    raw = getattr(buffer, "raw", buffer)
    if not isinstance(raw, io.RawIOBase):
        return lambda text: _write_through(stream, text)
    encoding, errors = stream.encoding, stream.errors or "strict"
    return lambda text: _write_all(raw, text.replace("\n", os.linesep).encode(encoding, errors))


def _write_through(stream: TextIO, text: str) -> None:
    stream.write(text)
    stream.flush()


def _write_all(raw: io.RawIOBase, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        count = raw.write(rest)
        if count is None:
            time.sleep(_PAUSE)
        else:
            rest = rest[count:]


@asynccontextmanager
async def stderr_aside() -> AsyncGenerator[None]:
    """Write to stderr from a thread until the block ends, and wait then until all is written.

    A terminal is no exception: somebody may have stopped it with Ctrl-S.
    """
    aside = Aside(sys.stderr)
    _of_stderr.append(aside)
    try:
        with divert_stderr(aside.write, lambda: aside.behind):
            yield
    finally:
        try:
            await _written(aside)
        finally:
            _of_stderr.remove(aside)
            aside.close()


async def _written(aside: Aside) -> None:
    """Wait until all is written, or for a moment only, once somebody wants the process to end."""
    try:
        if not signals.have_come:
            await aside.written()
    finally:
        if signals.have_come:
            aside.wait(_PATIENCE)


def run_with_stderr_aside(work: Coroutine[Any, Any, T]) -> T:
    """Do in an event loop what a command does there, and write to stderr from a thread meanwhile."""

    async def done() -> T:
        async with stderr_aside():
            return await work

    return run_in_loop(done())


def wait_for_stderr(seconds: float) -> None:
    """Block until stderr has got all so far, where a thread writes there, or the time is over."""
    for aside in _of_stderr:
        aside.wait(seconds)
