"""What `generate` does: buy, save, and tell where the pictures are."""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import TYPE_CHECKING, Any

from mirage_async.cli._display import displayed
from mirage_async.cli._exits import ExitCode
from mirage_async.cli._hubs import check_key, ends_with_us, hub_on, minded, whereabouts
from mirage_async.cli._keeping import keep_all
from mirage_async.cli._lines import AdvisedError, tell, warn
from mirage_async.cli._record import picture_record, write_json
from mirage_async.exceptions import WaitTimeoutError

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

_ENDED = "the sandbox has ended and the picture with it: nothing goes on, nothing was paid"


async def buy(request: ImageRequest, output: Output, *, sandbox: bool, as_json: bool, quiet: bool) -> ExitCode:
    """Buy what was asked for, save it and print where it is.

    Returns:
        `DONE`, or `FAILURE` where a picture could not be saved as asked.

    Raises:
        MirageError: it was not bought, or nobody knows, or the wait is over.
        CommandError: there is no key.
    """
    fleeting = ends_with_us(sandbox=sandbox)
    try:
        return await _bought(request, output, sandbox=sandbox, as_json=as_json, quiet=quiet)
    except asyncio.CancelledError:
        if fleeting:
            tell(_ENDED)
        raise
    except WaitTimeoutError as error:
        if not fleeting:
            raise
        reason = f"the wait is over, and {error.provider} is not done with job {error.job_id}"
        raise AdvisedError(reason, code=ExitCode.TIMED_OUT, advice=_ENDED) from error


async def _bought(request: ImageRequest, output: Output, *, sandbox: bool, as_json: bool, quiet: bool) -> ExitCode:
    fleeting = ends_with_us(sandbox=sandbox)
    async with hub_on(sandbox=sandbox) as hub, minded(hub, ways_back=_none if fleeting else None) as open_jobs:
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
        code = await _report(kept, () if fleeting else open_jobs)
        if not any(one.path is None and one.problem is not None for one in kept):
            open_jobs.clear()  # all is in safety: an interruption from here on has nothing to tell of
        _print(kept, generation, as_json=as_json)
        return code


async def _none(_: Job[Any]) -> Sequence[str]:
    """Know no way back to a job whose sandbox ends with the command."""
    return []


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
