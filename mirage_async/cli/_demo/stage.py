"""The demo from curtain to curtain: a sandbox, a hub on it, the performance, and what is printed."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

from mirage_async.cli._demo.folder import write_page
from mirage_async.cli._demo.page import render
from mirage_async.cli._demo.performance import perform
from mirage_async.cli._demo.plan import plan
from mirage_async.cli._display import displayed
from mirage_async.cli._exits import ExitCode
from mirage_async.cli._lines import tell
from mirage_async.cli._record import picture_record, write_json
from mirage_async.hub import Mirage
from mirage_async.sandbox import Sandbox
from mirage_async.scheduler import FixedInterval, Scheduler

if TYPE_CHECKING:
    from pathlib import Path

    from mirage_async.cli._demo.exhibit import Exhibition

__all__ = ["give"]

_POLL_INTERVAL = 0.2  # seconds; the sandbox takes 1 to 4 for a job


async def give(folder: Path, *, seed: int, pictures: int, as_json: bool) -> ExitCode:
    """Give the demo and print where everything is.

    Returns:
        `DONE`, or `PARTIAL` where a job failed.
    """
    sandbox = Sandbox(seed=seed)
    try:
        async with sandbox:
            # Keys of the environment stay out of it: this account exists on this machine only.
            keys = dict.fromkeys(sandbox.base_urls, "sandbox")
            scheduler = Scheduler(policy=FixedInterval(_POLL_INTERVAL))
            async with Mirage(keys, base_urls=sandbox.base_urls, scheduler=scheduler) as hub:
                with displayed(lines=True) as board:
                    exhibition = await perform(hub, plan(pictures), folder, board, pictures=pictures, seed=seed)
    except asyncio.CancelledError:
        tell("the sandbox has ended and its jobs with it: nothing to resume, nothing was paid")
        raise
    page = write_page(folder, render(exhibition))
    _print(exhibition, page, as_json=as_json)
    return ExitCode.PARTIAL if exhibition.failures else ExitCode.DONE


def _print(exhibition: Exhibition, page: Path, *, as_json: bool) -> None:
    for exhibit in exhibition.exhibits:
        for one in exhibit.prints:
            if as_json and exhibit.generation is not None:
                record = picture_record(one.path, exhibit.generation, one.image)
                write_json({**record, "prompt": exhibit.prompt})
            else:
                sys.stdout.write(f"{one.path}\n")
    if as_json:
        totals = {"pictures": exhibition.pictures, "failed": exhibition.failures}
        write_json({"page": str(page), **totals, "seconds": round(exhibition.seconds, 3)})
    else:
        sys.stdout.write(f"{page}\n")
    sys.stdout.flush()
