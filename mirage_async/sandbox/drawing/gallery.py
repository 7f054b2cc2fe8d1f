"""Pictures on demand: drawn in worker threads, once each, and kept while there is room."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import anyio
import anyio.to_thread
import PIL  # noqa: F401  # pyright: ignore[reportUnusedImport] - where it is missing, one learns that at the start

from mirage_async.sandbox.drawing.inspection import average_colour

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mirage_async.sandbox.drawing.pictures import Colour, Picture

__all__ = ["Gallery"]

_THREADS = 2


def draw(picture: Picture) -> bytes:
    """Draw in a worker thread, where the first picture loads what draws; a sandbox starts sooner for it."""
    from mirage_async.sandbox.drawing import scene  # noqa: PLC0415

    return scene.draw(picture)


class Gallery:
    """A cache in front of the painter. Whoever asks for a picture that is being drawn waits for that one.

    Args:
        max_bytes: room for encoded pictures; the one not asked for longest goes first. It will be drawn again, byte
            for byte the same, when it is wanted.
    """

    def __init__(self, *, max_bytes: int = 64 * 2**20) -> None:
        self._max_bytes = max_bytes
        self._size = 0
        self._kept: OrderedDict[Picture, bytes] = OrderedDict()
        self._locks: WeakValueDictionary[Picture, asyncio.Lock] = WeakValueDictionary()
        self._threads = anyio.CapacityLimiter(_THREADS)

    def __len__(self) -> int:
        return len(self._kept)

    async def render(self, picture: Picture) -> bytes:
        """Return the encoded bytes of `picture`."""
        kept = self._recall(picture)
        if kept is not None:
            return kept
        lock = self._locks.setdefault(picture, asyncio.Lock())
        async with lock:
            kept = self._recall(picture)
            if kept is not None:
                return kept
            drawn = await anyio.to_thread.run_sync(draw, picture, limiter=self._threads)
            self._keep(picture, drawn)
            return drawn

    async def tints(self, references: Iterable[bytes]) -> tuple[Colour, ...]:
        """Return the average colour of each reference picture."""
        return tuple(
            [await anyio.to_thread.run_sync(average_colour, data, limiter=self._threads) for data in references]
        )

    def _recall(self, picture: Picture) -> bytes | None:
        kept = self._kept.get(picture)
        if kept is not None:
            self._kept.move_to_end(picture)
        return kept

    def _keep(self, picture: Picture, drawn: bytes) -> None:
        self._kept[picture] = drawn
        self._size += len(drawn)
        while self._size > self._max_bytes and len(self._kept) > 1:
            _, dropped = self._kept.popitem(last=False)
            self._size -= len(dropped)
