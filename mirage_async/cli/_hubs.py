"""Opening the hub a command works with: on real providers or a sandbox, and minding what an interruption leaves."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from mirage_async.cli._exits import CommandError, ExitCode
from mirage_async.cli._lines import resume_line, tell
from mirage_async.clients import Providers
from mirage_async.clients._base import MissingKeyError
from mirage_async.exceptions import MirageError
from mirage_async.hub import Mirage

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from mirage_async.jobs import Job

__all__ = ["check_key", "hub_on", "minded", "whereabouts"]


@asynccontextmanager
async def hub_on(*, sandbox: bool) -> AsyncGenerator[Mirage, None]:
    """Make a hub, not yet entered, for the providers of the environment or for a sandbox.

    Args:
        sandbox: use the sandbox that MIRAGE_SANDBOX_URL names, or else one that lives as long as this block. Neither
            real keys nor real addresses are used then.
    """
    running = os.environ.get("MIRAGE_SANDBOX_URL")
    keys = dict.fromkeys(Providers.classes(), "sandbox")
    if not sandbox:
        yield Mirage()
    elif running:
        yield Mirage(keys, base_urls=dict.fromkeys(keys, running))
    else:
        from mirage_async.sandbox import Sandbox  # noqa: PLC0415 - needs an extra that buying does not

        async with Sandbox() as embedded:
            yield Mirage(keys, base_urls=embedded.base_urls)


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
async def minded(hub: Mirage) -> AsyncGenerator[list[Job[Any]], None]:
    """Open a hub, and tell how to resume what was accepted if the command is interrupted.

    Yields a list for the jobs whose results are not in safety yet; jobs the hub itself knows of need not be in it.
    """
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
                told += await _tell([job for job in open_jobs if job.id is not None])
                raise
    except asyncio.CancelledError:
        await _tell([job for job in open_jobs if job not in told])
        raise


async def _tell(jobs: Sequence[Job[Any]]) -> Sequence[Job[Any]]:
    for job in jobs:
        for line in await whereabouts(job):
            tell(line)
    return jobs


async def whereabouts(job: Job[Any]) -> list[str]:
    """Say where the results of a job can still be had, or that it may have been paid for in vain."""
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
    return [f"a {job.provider} picture is at {link}" for link in links]
