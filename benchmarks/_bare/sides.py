"""Whoever is measured, as one thing: opened once, then asked for one generation after the other."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from benchmarks._bare.dialects import PICTURE
from benchmarks._bare.raw import RAW, raw_session
from mirage_async import Limits, MiragicClient, MirakoClient
from mirage_async.scheduler import AdaptiveInterval, Scheduler

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from mirage_async.scheduler import JobView

    Generate = Callable[[], Awaitable[None]]
    Side = Callable[[str], AbstractAsyncContextManager[Generate]]

__all__ = ["KEY", "OURS", "PROMPT", "AtOnce", "buying", "check", "raw_side"]

PROMPT = "a lighthouse in the fog"
KEY = "bench-key-not-secret"
_LIMITS = Limits()  # what everybody gets who sets none: at most 32 status calls at once


class AtOnce:
    """Asks again without waiting, so that nothing but work is left."""

    def next_interval(self, job: JobView) -> float:  # noqa: ARG002 - looks at nothing
        """Return no time at all."""
        return 0.0


class _LearningAtOnce(AdaptiveInterval):
    """Does everything `AdaptiveInterval` does, and then asks without waiting all the same."""

    def next_interval(self, job: JobView) -> float:
        """Let the interval be worked out and return no time at all."""
        super().next_interval(job)
        return 0.0


def raw_side(dialect: str) -> Side:
    """Return aiohttp by hand."""

    @asynccontextmanager
    async def opened(base_url: str) -> AsyncGenerator[Generate]:
        exchange = RAW[dialect]
        async with raw_session() as session:

            async def generate() -> None:
                await exchange(session, base_url, PROMPT)

            yield generate

    return opened


def _ours(kind: type[MirakoClient | MiragicClient], policy: Callable[[], AtOnce | _LearningAtOnce]) -> Side:
    @asynccontextmanager
    async def opened(base_url: str) -> AsyncGenerator[Generate]:
        scheduler = Scheduler(policy=policy())
        async with kind(KEY, base_url=base_url, limits=_LIMITS, scheduler=scheduler) as client:
            yield buying(client)

    return opened


def buying(client: MirakoClient | MiragicClient) -> Generate:
    """Return what makes one generation with a client of ours."""

    async def generate() -> None:
        job = await client.submit(PROMPT)
        generation = await job
        check(await generation.image.read())

    return generate


def check(data: bytes) -> None:
    """Make sure that it is the picture the server sent."""
    if data != PICTURE:
        msg = f"the picture is another one: {len(data)} bytes"
        raise ValueError(msg)


OURS: dict[str, tuple[str, Side]] = {
    "mirage_async": ("mirako", _ours(MirakoClient, AtOnce)),
    "mirage_async, learning": ("mirako", _ours(MirakoClient, _LearningAtOnce)),
    "mirage_async, Miragic": ("miragic", _ours(MiragicClient, AtOnce)),
}
"""Our sides by name: the dialect whose exchange they make, and how they are opened."""
