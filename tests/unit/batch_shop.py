"""Whoever sells, played by the test, and the usual way to take what a batch hands over."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any, cast

import anyio
import msgspec

from mirage_async import Generation, ImageRequest, Outcome
from mirage_async.batch import Batch
from mirage_async.exceptions import (
    ConnectionFailedError,
    InputError,
    MirageError,
    WaitTimeoutError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Iterator

    from mirage_async.jobs import Job
    from mirage_async.models import Tried

__all__ = ["MOST", "FakeJob", "FakeShop", "Source", "batch", "refusal", "rest", "take", "turns"]

MOST = 4  # pictures in one request


class FakeJob:
    """As much of a job as a batch touches."""

    def __init__(self, provider: str) -> None:
        self.provider = provider
        self.done = False
        self.taken = False
        self.error: MirageError | None = None

    @property
    def ending(self) -> tuple[object, MirageError | None] | None:
        """How it ended, if it did."""
        return (None, self.error) if self.done else None

    def __await__(self) -> Generator[Any, None, None]:
        """Take the result, which must be there."""
        assert self.done
        self.taken = True
        return iter(())  # type: ignore[return-value]  # an iterator is all that await needs


class FakeShop:
    """Sells on the test's word: each purchase waits until `finish` says how it ends, unless it sells at once."""

    def __init__(self, *, at_once: bool = False) -> None:
        self.at_once = at_once
        self.bought: list[ImageRequest] = []
        self.claimed: list[tuple[ImageRequest, int]] = []
        self.open: dict[str, asyncio.Future[Any]] = {}
        self.jobs: dict[str, FakeJob] = {}
        self.kept: list[FakeJob] = []
        self.now = self.most = 0

    def names(self, request: ImageRequest) -> tuple[str, ...]:
        """Know two providers."""
        names = request.providers or (request.provider,)
        for name in names:
            if name not in {"mira", "miragic"}:
                msg = f"provider must be 'mira' or 'miragic'; got {name!r}"
                raise InputError(msg)
        return cast("tuple[str, ...]", names)

    def max_images(self, request: ImageRequest) -> int:
        """Sell four at a time."""
        self.names(request)
        return MOST

    async def claim(self, request: ImageRequest, parts: int) -> None:
        """Note what a key is to stand for."""
        self.claimed.append((request, parts))

    async def buy(
        self, request: ImageRequest, accepted: Callable[[Job[Generation]], None], without: Collection[str]
    ) -> tuple[Generation, tuple[Tried, ...]]:
        """Wait for the test to decide."""
        left = tuple(name for name in request.providers if name not in without)
        request = msgspec.structs.replace(request, providers=left)
        self.bought.append(request)
        name, provider = request.prompt, self.names(request)[0]
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            if not self.at_once:
                job = self.jobs[name] = FakeJob(provider)
                accepted(cast("Job[Generation]", job))
                self.open[name] = asyncio.get_running_loop().create_future()
                ending = await self.open[name]
                job.done = True
                if isinstance(ending, BaseException):
                    job.error = None if isinstance(ending, WaitTimeoutError) else cast("MirageError", ending)
                    raise ending
                if isinstance(ending, Generation):
                    return ending, ()
            return Generation(images=(), provider=provider, key=name), ()
        finally:
            self.now -= 1

    def keep(self, job: Any) -> None:
        """Note what is to be kept."""
        self.kept.append(job)

    async def finish(self, name: str, ending: object = None) -> None:
        """End a purchase well, or with an error, and let everybody go as far as they can."""
        self.open.pop(name).set_result(ending)
        await turns()


async def turns() -> None:
    """Let every task go as far as it can."""
    for _ in range(20):
        await asyncio.sleep(0)


class Source:
    """An endless input that counts how far it was read."""

    def __init__(self, end: float = math.inf) -> None:
        self.pulled = 0
        self.end = end

    def __iter__(self) -> Iterator[str]:
        """Give "0", "1", and so on."""
        while self.pulled < self.end:
            self.pulled += 1
            yield str(self.pulled - 1)


def batch(requests: Any, shop: FakeShop, **options: Any) -> Batch:
    """Return a batch that buys from Mira."""
    return Batch(requests, shop, **{"provider": "mira", **options})


async def take(of: Batch) -> Outcome:
    """Take an outcome that must come soon."""
    with anyio.fail_after(30):
        return await anext(of)


async def rest(of: Batch) -> list[Outcome]:
    """Take all outcomes that are left."""
    with anyio.fail_after(30):
        return [outcome async for outcome in of]


def refusal(kind: Any = ConnectionFailedError, **more: Any) -> MirageError:
    """Return an error that proves nothing was paid."""
    error: MirageError = kind("no", provider="mira", **more)
    return error
