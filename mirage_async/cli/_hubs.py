"""Opening the hub a command works with: on real providers or a sandbox, and minding what an interruption leaves."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from mirage_async.cli._exits import CommandError, ExitCode
from mirage_async.cli._keeping import keep_elsewhere
from mirage_async.cli._lines import resume_line, tell
from mirage_async.clients import Providers
from mirage_async.clients._base import MissingKeyError
from mirage_async.exceptions import MirageError
from mirage_async.hub import Mirage
from mirage_async.scheduler import FixedInterval, Scheduler

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

    from mirage_async.jobs import Job
    from mirage_async.journal import Journal

__all__ = ["check_key", "ends_with_us", "hub_on", "minded", "whereabouts"]


@asynccontextmanager
async def hub_on(
    *, sandbox: bool, poll_interval: float | None = None, journal: Journal | None = None
) -> AsyncGenerator[Mirage, None]:
    """Make a hub, not yet entered, for the providers of the environment or for a sandbox.

    Args:
        sandbox: use the sandbox that MIRAGE_SANDBOX_URL names, or else one that lives as long as this block. Neither
            real keys nor real addresses are used then.
        poll_interval: seconds between two status calls of a job, above 0; None learns how long jobs take.
        journal: keeps what is bought, and is closed with the hub; None keeps nothing.

    Raises:
        InputError: `poll_interval` is out of range.
    """
    scheduler = None if poll_interval is None else Scheduler(policy=FixedInterval(poll_interval))
    keys = dict.fromkeys(Providers.classes(), "sandbox")
    if not sandbox:
        yield Mirage(scheduler=scheduler, journal=journal)
    elif not ends_with_us(sandbox=sandbox):
        running = os.environ["MIRAGE_SANDBOX_URL"]
        yield Mirage(keys, base_urls=dict.fromkeys(keys, running), scheduler=scheduler, journal=journal)
    else:
        from mirage_async.sandbox import Sandbox  # noqa: PLC0415 - needs an extra that buying does not

        async with Sandbox() as embedded:
            yield Mirage(keys, base_urls=embedded.base_urls, scheduler=scheduler, journal=journal)


def ends_with_us(*, sandbox: bool) -> bool:
    """Whether the hub works with a sandbox of its own, so that nothing goes on when the command has ended."""
    return sandbox and not os.environ.get("MIRAGE_SANDBOX_URL")


def check_key(hub: Mirage, provider: str) -> None:
    """Make the provider's client, and say that it is a matter of authentication where only the key is missing.

    Raises:
        InputError: there is no such provider.
        CommandError: it has no key.
        ConfigurationError: its address or key is none.
    """
    try:
        hub.client(provider)
    except MissingKeyError as error:
        raise CommandError(str(error), code=ExitCode.AUTHENTICATION) from None


@asynccontextmanager
async def minded(
    hub: Mirage, *, ways_back: Callable[[Job[Any]], Awaitable[Sequence[str]]] | None = None
) -> AsyncGenerator[list[Job[Any]], None]:
    """Open a hub, and tell how to resume what was accepted if the command is interrupted.

    Yields a list for the jobs whose results are not in safety yet; jobs the hub itself knows of need not be in it.

    Args:
        hub: is closed at the end.
        ways_back: what to tell about a job, in lines; None takes `whereabouts`.
    """
    lines_of = whereabouts if ways_back is None else ways_back
    open_jobs: list[Job[Any]] = []
    told: list[Job[Any]] = []
    try:
        async with hub:
            try:
                yield open_jobs
            except asyncio.CancelledError:
                for name in hub.statistics().unfinished_jobs:
                    open_jobs += [job for job in hub.client(name).jobs if job not in open_jobs]
                # Told before the hub closes, which may take two seconds: nobody has to be patient to get them.
                told += await _tell([job for job in open_jobs if job.id is not None], lines_of)
                raise
    except asyncio.CancelledError:
        await _tell([job for job in open_jobs if job not in told], lines_of)
        raise


async def _tell(
    jobs: Sequence[Job[Any]], lines_of: Callable[[Job[Any]], Awaitable[Sequence[str]]]
) -> Sequence[Job[Any]]:
    for job in jobs:
        for line in await lines_of(job):
            tell(line)
    return jobs


async def whereabouts(job: Job[Any]) -> list[str]:
    """Say where the results of a job can still be had, or that it may have been paid for in vain.

    A picture that can be had nowhere else, since it came with the answer, is saved among the temporary files.
    """
    token = job.token_or_none()
    if token is not None:
        return [resume_line(token)]
    if not job.done and job.stopped is None:
        return [f"a {job.provider} request was on its way: it may have been bought (key {job.key})"]
    try:
        generation = await job
    except MirageError as error:
        unknown = error.billed == "unknown"
        return [f"a {job.provider} request was cut off: it may have been bought (key {job.key})"] if unknown else []
    links = [image.url for image in generation.images if image.url is not None]
    only_here = [image for image in generation.images if image.url is None]
    kept = [
        await keep_elsewhere(image, f"a {job.provider} picture could not be put where it was wanted")
        for image in only_here
    ]
    return [*(f"a {job.provider} picture is at {link}" for link in links), *(f"{one.problem}" for one in kept)]
