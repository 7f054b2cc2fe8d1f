"""What `generate` does: buy, save, and tell where the pictures are."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

from mirage_async.cli._display import displayed
from mirage_async.cli._exits import ExitCode
from mirage_async.cli._hubs import check_key, hub_on, minded, whereabouts
from mirage_async.cli._keeping import keep_all
from mirage_async.cli._lines import tell, warn
from mirage_async.cli._record import picture_record, write_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mirage_async.cli._board import Row
    from mirage_async.cli._keeping import Kept
    from mirage_async.cli._output import Output
    from mirage_async.hub import Mirage
    from mirage_async.jobs import Job
    from mirage_async.models import Generation, ImageRequest

__all__ = ["buy"]

_logger = logging.getLogger("mirage_async.cli")


async def buy(request: ImageRequest, output: Output, *, sandbox: bool, as_json: bool, quiet: bool) -> ExitCode:
    """Buy what was asked for, save it and print where it is.

    Returns:
        `DONE`, or `FAILURE` where a picture could not be saved as asked.

    Raises:
        MirageError: it was not bought, or nobody knows, or the wait is over.
        CommandError: there is no key.
    """
    async with hub_on(sandbox=sandbox) as hub, minded(hub) as open_jobs:
        check_key(hub, request.provider or "")
        with displayed(lines=False, quiet=quiet) as board:
            row = board.add(request.provider or "", request.prompt)
            try:
                generation = await _drawn(hub, request, row, open_jobs)
                row.state = "saving"
                kept = await keep_all(generation, output)
            except Exception:
                row.end("failed")
                raise
            row.end("done" if all(one.problem is None for one in kept) else "failed")
        missing = generation.requested - len(generation.images)
        if missing > 0 and not quiet:
            warn(f"{generation.provider} delivered {len(generation.images)} of {generation.requested} pictures")
        code = await _report(kept, open_jobs)
        _print(kept, generation, as_json=as_json)
        return code


async def _drawn(hub: Mirage, request: ImageRequest, row: Row, open_jobs: list[Job[Generation]]) -> Generation:
    row.begin()
    job = await hub.submit(request)
    open_jobs.append(job)
    _logger.info("submitted: %r, token %s", job, job.token_or_none())
    return await row.follow(job)


def _print(kept: Sequence[Kept], generation: Generation, *, as_json: bool) -> None:
    try:
        for one in kept:
            if one.path is not None and as_json:
                write_json(picture_record(one.path, generation, one.image))
            elif one.path is not None:
                sys.stdout.write(f"{one.path}\n")
        sys.stdout.flush()
    except OSError:  # nobody reads stdout any more: say elsewhere where the pictures are
        for one in kept:
            if one.path is not None:
                tell(f"saved {str(one.path)!r}")
        raise


async def _report(kept: Sequence[Kept], jobs: Sequence[Job[Generation]]) -> ExitCode:
    """Tell what could not be saved as asked, and where it can be had instead."""
    problems = [one for one in kept if one.problem is not None]
    for one in problems:
        tell(f"error: {one.problem}")
    if any(one.path is None for one in problems):
        for job in jobs:
            for line in await whereabouts(job):
                tell(line)
    return ExitCode.FAILURE if problems else ExitCode.DONE
