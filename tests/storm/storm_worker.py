"""A program that buys pictures and avatars until it is killed, or one that recovers what the one before left behind.

It is a whole program of its own, run as `python storm_worker.py PLAN`, where PLAN is JSON for a `Plan`.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from storm_diary import Diary, watch

from mirage_async import Avatar, Generation, ImageRequest, Job, Mirage
from mirage_async.exceptions import JobFailedError, RateLimitError, SubmissionUncertainError
from mirage_async.journal import Journal
from mirage_async.scheduler import FixedInterval, Scheduler

if TYPE_CHECKING:
    from collections.abc import Awaitable

__all__ = ["KINDS", "Plan", "key_of", "kind_of"]

AT_ONCE = 12
MOST = 2_000
KINDS = (
    "mirako.create",
    "miragic.create",
    "mira.generate",
    "mirako.avatar_create",
    "milady.generate",
    "mirako.generate",
)
FORGOTTEN = {"forgets intents": "intended", "forgets ids": "accepted", "forgets outcomes": "settled"}
_FURTHER: dict[str, dict[str, Any]] = {
    "mirako.create": {"provider": "mirako", "aspect_ratio": "1:1"},
    "miragic.create": {"provider": "miragic", "size": "256x256"},
    "mira.generate": {"provider": "mira", "n": 2},
    "milady.generate": {"provider": "milady", "n": 2},
}


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What one process is to do.

    Attributes:
        url: of the server.
        folder: holds the journal, the diaries and what was handed over.
        name: of the diary.
        trial: which one this is; the keys follow from it.
        first: number of the first purchase.
        keyed: buy under keys of our own.
        prompts: have the journal store the prompts.
        fatal: where to die, and at which pass; None where somebody else sees to that.
        recovers: recover instead of buying.
        again: what to ask for again after that: keys by number.
        sabotage: what is broken on purpose, to see whether the judge finds it; "" for nothing.
    """

    url: str
    folder: str
    name: str
    trial: int
    first: int = 1
    keyed: bool = False
    prompts: bool = False
    fatal: tuple[str, int] | None = None
    recovers: bool = False
    again: dict[int, str] = {}
    sabotage: str = ""


def kind_of(number: int) -> str:
    """Return what is bought under a number: the name of the operation at the server."""
    return KINDS[number % len(KINDS)]


def key_of(trial: int, number: int) -> str:
    """Return the caller's own key of a purchase."""
    return uuid.uuid5(uuid.NAMESPACE_OID, f"{trial} {number}").hex


class Worker:
    """Buys, or recovers, and puts what it gets into files.

    Args:
        plan: what to do.
        mirage: the hub.
        diary: where it says what it got.
    """

    def __init__(self, plan: Plan, mirage: Mirage, diary: Diary) -> None:
        self._plan = plan
        self._mirage = mirage
        self._diary = diary
        self._folder = Path(plan.folder, "results")
        self._portrait = Path(plan.folder, "portrait.png").read_bytes()

    async def buy(self) -> None:
        """Buy one after the other, some at once, for as long as this process lives."""
        numbers = itertools.islice(itertools.count(self._plan.first), MOST)

        async def customer() -> None:
            for number in numbers:
                key = key_of(self._plan.trial, number) if self._plan.keyed else None
                await self._receive(self._bought(number, key))

        await asyncio.gather(*(customer() for _ in range(AT_ONCE)))

    async def recover(self) -> None:
        """Take what is owed, and ask for everything again where that buys nothing twice."""
        on_uncertain: Literal["resubmit", "report"] = "resubmit" if self._plan.sabotage == "sends again" else "report"
        jobs = await self._mirage.recover(on_uncertain=on_uncertain, max_wait=60)
        self._diary.note("recovered", jobs=[job.key for job in jobs])
        await asyncio.gather(*(self._receive(job) for job in jobs))
        asked = iter(self._plan.again.items())

        async def customer() -> None:
            for number, key in asked:
                await self._receive(self._bought(number, key))

        await asyncio.gather(*(customer() for _ in range(AT_ONCE)))

    async def _bought(self, number: int, key: str | None) -> Any:
        kind, prompt = kind_of(number), f"a lighthouse at dusk, picture #{number}."
        mirako: Any = self._mirage.mirako if key is None else self._mirage.mirako.keyed(key)
        if kind == "mirako.generate":
            return await mirako.generate(prompt, aspect_ratio="1:1")
        if kind == "mirako.avatar_create":
            return await (await mirako.build_avatar(prompt, self._portrait))
        job: Job[Generation] = await self._mirage.submit(ImageRequest(prompt=prompt, key=key, **_FURTHER[kind]))
        return await job

    async def _receive(self, purchase: Awaitable[Any]) -> None:
        """Wait for a result and keep it; the endings that the server's troubles bring about are told, too."""
        try:
            result = await purchase
        except SubmissionUncertainError as error:
            self._diary.note("uncertain", error.key or "")
        except (JobFailedError, RateLimitError) as error:
            self._diary.note("failed", error=type(error).__name__, billed=error.billed)
        else:
            key = await self._keep(result, purchase)
            self._diary.note("kept", key)

    async def _keep(self, result: Generation | Avatar, purchase: object) -> str:
        if isinstance(result, Avatar):
            await asyncio.to_thread(_write_whole, self._folder / f"{result.id}.json", msgspec.json.encode(result))
            return purchase.key if isinstance(purchase, Job) else ""
        for index, image in enumerate(result.images, 1):
            await image.save(self._folder / f"{result.key}-{index}", overwrite=True)
        return result.key or ""


def _write_whole(path: Path, data: bytes) -> None:
    draft = path.with_suffix(".part")
    draft.write_bytes(data)
    draft.replace(path)


async def _forget(*_: object) -> None:
    """Stand in for a method of the journal that is to write nothing."""


def break_something(sabotage: str) -> None:
    """Break the product in this process."""
    if sabotage in FORGOTTEN:
        setattr(Journal, FORGOTTEN[sabotage], _forget)


async def run(plan: Plan) -> None:
    """Do what the plan says."""
    break_something(plan.sabotage)
    folder = Path(plan.folder)
    diary = Diary(folder / f"{plan.name}.diary", plan.fatal)
    watch(diary)
    journal = Journal(folder / "journal", store_prompts=plan.prompts)
    urls = dict.fromkeys(("mirako", "miragic", "mira", "milady"), plan.url)
    async with Mirage(base_urls=urls, journal=journal, scheduler=Scheduler(policy=FixedInterval(0.03))) as mirage:
        worker = Worker(plan, mirage, diary)
        diary.note("ready")
        await (worker.recover() if plan.recovers else worker.buy())
    diary.note("closed")


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    asyncio.run(run(msgspec.json.decode(sys.argv[1], type=Plan)))
