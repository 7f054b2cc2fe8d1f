"""What the other libraries hold for a generation that waits, the caller's own task and the connections included."""

from __future__ import annotations

import asyncio
import time

from benchmarks._bare.peers import PEERS
from benchmarks._bare.process import private_bytes
from benchmarks._bare.server import counts

__all__ = ["PEER_COUNTS", "peer_in_flight"]

PEER_COUNTS = {"openai": 400, "fal-client": 800, "replicate": 800, "runwayml": 800}
PAUSE = 3600.0  # between status calls: all are asleep when it is measured
BURST = 20  # begun at a time, so that nobody's pool is ever short
PATIENCE = 60.0


def peer_in_flight(name: str, base_url: str) -> float:
    """Return bytes a generation, all of them waiting in the way that is their library's."""
    return asyncio.run(_peer_in_flight(name, base_url, PEER_COUNTS[name]))


async def _peer_in_flight(name: str, base_url: str, count: int) -> float:
    _, opener = PEERS[name]
    tasks: list[asyncio.Task[None]] = []

    async def generate() -> None:
        await one()

    async with opener(PAUSE)(base_url) as one:

        async def begin(more: int) -> None:
            for _ in range(0, more, BURST):
                expected = _begun(base_url) + BURST
                tasks.extend(asyncio.create_task(generate()) for _ in range(BURST))
                patience = time.monotonic() + PATIENCE
                while _begun(base_url) < expected and time.monotonic() < patience:  # noqa: ASYNC110 - it is elsewhere
                    await asyncio.sleep(0.01)
            await asyncio.sleep(1.0)  # for the looks that come before the first pause

        await begin(2 * BURST)
        before = private_bytes()
        await begin(count)
        after = private_bytes()
        ended = sum(task.done() for task in tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if ended:
        msg = f"{ended} of {name}'s generations ended although nothing ends here"
        raise RuntimeError(msg)
    return (after - before) / count


def _begun(base_url: str) -> int:
    seen = counts(base_url)
    return seen["jobs"] + seen["pictures"]
