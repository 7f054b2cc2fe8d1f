"""What a process can say about itself, and may ask for."""

from __future__ import annotations

import asyncio
import gc
import resource
import time
from pathlib import Path
from typing import Self

__all__ = ["StallWatch", "peak_bytes", "private_bytes", "raise_file_limit"]

_OLDEST = 2  # generation of the garbage collector


def raise_file_limit(wanted: int) -> str | None:
    """Let this process and its children open enough files; say so where that took a change."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= wanted:
        return None
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return f"raised the limit of open files from {soft} to {allowed}"


def peak_bytes() -> int:
    """Return the most memory this process has had resident at any time. Linux only."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def private_bytes() -> int:
    """Return the resident memory this process shares with no other, after a garbage collection. Linux only."""
    gc.collect()
    fields = (line.split() for line in Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines()[1:])
    return 1024 * sum(int(size) for name, size, *_ in fields if name in {"Private_Clean:", "Private_Dirty:"})


class StallWatch:
    """How long the event loop kept others waiting, and how much of that was garbage collection.

    Used as `async with`; a task sleeps five milliseconds again and again and notes by how much it oversleeps. On a
    machine that others use as well, a late wake-up is not always this process's doing, so the CPU time of the loop's
    own thread between two wake-ups is noted too: without blocking calls, that is the share of the loop itself.

    Attributes:
        longest: seconds by which the worst sleep was too long.
        busiest: the same, as far as our own CPU accounts for it: at most what was used between two wake-ups.
        busiest_beside_collections: the same without garbage collection.
        longest_collection: CPU seconds of the longest garbage collection.
        collections: CPU seconds of all of them together.
        full_collections: how many looked at every object there is.
    """

    NAP = 0.005

    def __init__(self) -> None:
        self.longest = 0.0
        self.busiest = 0.0
        self.busiest_beside_collections = 0.0
        self.longest_collection = 0.0
        self.collections = 0.0
        self.full_collections = 0
        self._began = 0.0
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        gc.callbacks.append(self._collecting)
        self._task = asyncio.create_task(self._nap())
        return self

    async def __aexit__(self, *_: object) -> None:
        gc.callbacks.remove(self._collecting)
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _nap(self) -> None:
        while True:
            began, cpu, collected = time.monotonic(), time.thread_time(), self.collections
            await asyncio.sleep(self.NAP)
            late = time.monotonic() - began - self.NAP
            busy = min(time.thread_time() - cpu, late)
            self.longest = max(self.longest, late)
            self.busiest = max(self.busiest, busy)
            self.busiest_beside_collections = max(self.busiest_beside_collections, busy - self.collections + collected)

    def _collecting(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._began = time.thread_time()
            return
        took = time.thread_time() - self._began
        self.collections += took
        self.longest_collection = max(self.longest_collection, took)
        self.full_collections += info["generation"] == _OLDEST
