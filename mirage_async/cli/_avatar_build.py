"""What `avatar build` does: start a build, watch it, and always tell how to find it again."""

from __future__ import annotations

import asyncio
import logging
import sys
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mirage_async.cli._avatar_show import PROVIDER, avatar_record, command_for
from mirage_async.cli._display import displayed
from mirage_async.cli._exits import CommandError, ExitCode, code_for
from mirage_async.cli._hubs import check_key, ends_with_us, hub_on, minded, whereabouts
from mirage_async.cli._lines import AdvisedError, tell
from mirage_async.cli._record import write_json
from mirage_async.exceptions import JobError, MirageError, SubmissionUncertainError, WaitTimeoutError
from mirage_async.models import Avatar, AvatarStatus, JobStatus

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mirage_async.cli._board import Row
    from mirage_async.hub import Mirage
    from mirage_async.jobs import Job

__all__ = ["Order", "build"]

_logger = logging.getLogger("mirage_async.cli")

_STATES = {JobStatus.QUEUED: AvatarStatus.PENDING, JobStatus.RUNNING: AvatarStatus.BUILDING}
_ENDED = "the sandbox has ended and the build with it: nothing goes on, nothing was paid"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What to build, and how to wait for it.

    Attributes:
        name: the avatar's name.
        image: the portrait.
        poll_interval: seconds between two status calls.
        max_wait: seconds to wait at most.
        wait: whether to wait at all.
        sandbox: whether a sandbox builds it.
    """

    name: str
    image: str | Path
    poll_interval: float
    max_wait: float
    wait: bool
    sandbox: bool

    @property
    def fleeting(self) -> bool:
        """Whether the build ends with this command."""
        return ends_with_us(sandbox=self.sandbox)

    @property
    def place(self) -> str:
        """Who builds."""
        return "the sandbox" if self.sandbox else PROVIDER

    def advice(self, avatar_id: str) -> str:
        """Say how to see what became of a build that this command has left alone."""
        if self.fleeting:
            return _ENDED
        again = command_for(f"view {avatar_id}", sandbox=self.sandbox)
        return f"the build goes on at {self.place}; look again with: {again}"


async def build(order: Order, *, as_json: bool, quiet: bool) -> ExitCode:
    """Build an avatar and print its id or its record.

    Returns:
        `DONE`: it is ready or, with nothing to wait for, accepted.

    Raises:
        MirageError: it was not accepted, or nobody knows.
        CommandError: there is no key, the build failed, or the wait is over.
    """
    with warnings.catch_warnings():
        if quiet:
            warnings.simplefilter("ignore", UserWarning)
        try:
            await _order(order, as_json=as_json, quiet=quiet)
        except asyncio.CancelledError:
            if order.fleeting:
                tell(_ENDED)
            raise
    return ExitCode.DONE


async def _order(order: Order, *, as_json: bool, quiet: bool) -> None:
    async def ways_back(job: Job[Any]) -> Sequence[str]:
        return await _ways_back(order, job)

    hub_for_it = hub_on(sandbox=order.sandbox, poll_interval=order.poll_interval)
    async with hub_for_it as hub, minded(hub, ways_back=ways_back) as open_jobs:
        check_key(hub, PROVIDER)
        with displayed(lines=False, quiet=quiet or not order.wait) as board:
            row = board.add(PROVIDER, f"Avatar: {order.name}")
            try:
                job = await _accepted(hub, order, row)
                open_jobs.append(job)
                if not quiet:
                    tell(_begun(order, job.id or ""))
                avatar = await _ready(order, job, row) if order.wait else _pending(order, job)
            except Exception:
                row.end("failed")
                raise
            row.end("done")
        _print(avatar, job, as_json=as_json)


async def _accepted(hub: Mirage, order: Order, row: Row) -> Job[Avatar]:
    row.begin()
    try:
        job = await hub.mirako.build_avatar(order.name, order.image, max_wait=order.max_wait)
    except SubmissionUncertainError as error:
        if order.fleeting:
            raise
        reason = f"{error} (key {error.key})" if error.key and error.key not in str(error) else str(error)
        raise AdvisedError(reason, code=code_for(error), advice=_unsure(order)) from error
    _logger.info("submitted: %r, token %s", job, job.token_or_none())
    return job


async def _ready(order: Order, job: Job[Avatar], row: Row) -> Avatar:
    """Show how the build goes until the avatar is ready, or raise why it is not."""
    try:
        async for update in job.updates():
            row.state = _STATES.get(update.status, update.status.value)
        return await job
    except WaitTimeoutError as error:
        reason = f"avatar {job.id} is not ready after {order.max_wait:g} s: it is {_STATES.get(job.status, job.status)}"
        raise AdvisedError(reason, code=ExitCode.TIMED_OUT, advice=order.advice(job.id or "")) from error
    except JobError as error:  # it has ended, so there is nothing to come back for
        raise CommandError(str(error), code=code_for(error)) from error
    except MirageError as error:  # the provider refuses to be asked, which says nothing about the build
        raise AdvisedError(str(error), code=code_for(error), advice=order.advice(job.id or "")) from error


async def _ways_back(order: Order, job: Job[Any]) -> Sequence[str]:
    if order.fleeting:  # its end is told once, when it has come
        return []
    if job.id is None:
        lines = await whereabouts(job)
        return [*lines, _unsure(order)] if lines else []
    return [] if job.done else [order.advice(job.id)]


def _begun(order: Order, avatar_id: str) -> str:
    if order.fleeting:
        return f"building avatar {avatar_id} in a sandbox that ends with this command"
    again = command_for(f"view {avatar_id}", sandbox=order.sandbox)
    return f"building avatar {avatar_id}; it goes on at {order.place} if you stop here; look again with: {again}"


def _unsure(order: Order) -> str:
    return f"whether it was accepted shows: {command_for('list', sandbox=order.sandbox)}"


def _pending(order: Order, job: Job[Avatar]) -> Avatar:
    return Avatar(id=job.id or "", name=order.name, status=_STATES.get(job.status, AvatarStatus.PENDING))


def _print(avatar: Avatar, job: Job[Avatar], *, as_json: bool) -> None:
    try:
        if as_json:
            spent = None if job.detected_at is None else round(job.detected_at - job.submitted_at, 3)
            write_json({**avatar_record(avatar), "seconds": spent, "polls": job.polls})
        else:
            sys.stdout.write(f"{avatar.id}\n")
        sys.stdout.flush()
    except OSError:  # nobody reads stdout any more: say elsewhere which one it is
        tell(f"avatar {avatar.id} is {avatar.status}")
        raise
