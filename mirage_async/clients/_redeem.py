"""From a finished job's report to the `Generation` its waiters get."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import anyio

from mirage_async.exceptions import ClosedError, DownloadError, ResponseError
from mirage_async.models import Generation, Timings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mirage_async.clients._runtime import Runtime
    from mirage_async.jobs import Job
    from mirage_async.models import GeneratedImage
    from mirage_async.wire import Report

__all__ = ["redeem_pictures", "renewal"]

RENEWAL_TIMEOUT = 60.0  # seconds to ask for a fresh link

_logger = logging.getLogger("mirage_async.clients")


async def redeem_pictures(runtime: Runtime, job: Job[Generation], report: Report, *, allow_private: bool) -> Generation:
    """Build the result. Pictures behind short-lived links are read now; the rest are read when somebody asks.

    A picture that cannot be fetched does not fail the job: it is paid for, and `read()` tries again later.
    """
    provider = job.provider
    name = f"{provider}-{job.id or job.key[-12:]}"
    images: list[GeneratedImage] = []
    for index, piece in enumerate(report.pieces):
        if piece.flaw is not None:
            # Paid for, and no better one is to be had. `read()` will say so; the bytes stay at hand.
            _logger.warning("a picture of %r is not whole: %s", job, piece.flaw)
        image = runtime.downloader.image(
            piece,
            name=f"{name}-{index + 1}" if len(report.pieces) > 1 else name,
            provider=provider,
            allow_private=allow_private,
            renew=renewal(job, index) if report.temporary and job.id is not None else None,
        )
        images.append(image)
    began = runtime.clock.monotonic()
    if report.temporary:
        async with anyio.create_task_group() as group:
            for image in images:
                group.start_soon(_read_early, job, image)
    return Generation(
        images=tuple(images),
        provider=provider,
        model=job.model,
        job_id=job.id,
        key=job.key,
        requested=job.requested,
        credits=report.credits,
        timings=_timings(job, runtime.clock.monotonic() - began if report.temporary else None),
        polls=job.polls,
        raw=report.raw,
    )


async def _read_early(job: Job[Generation], image: GeneratedImage) -> None:
    try:
        await image.read()
    except (DownloadError, ClosedError) as error:
        _logger.warning("a picture of %r could not be fetched yet (%s); read() tries again", job, error)


def renewal(job: Job[Generation], index: int) -> Callable[[], Awaitable[str | None]]:
    """Return a way to ask the job for a fresh link, for the picture at `index`."""

    async def renew() -> str | None:
        try:
            with anyio.fail_after(RENEWAL_TIMEOUT):
                report = await job.kind.look(job)
        except TimeoutError:
            msg = f"{job.provider} gave no usable answer within {RENEWAL_TIMEOUT:g} s"
            raise ResponseError(msg, provider=job.provider) from None
        return report.pieces[index].url if index < len(report.pieces) else None

    return renew


def _timings(job: Job[Generation], downloaded: float | None) -> Timings:
    detected = job.detected_at if job.detected_at is not None else job.submitted_at
    if job.running_at is None:
        return Timings(running=detected - job.submitted_at, detected=detected - job.submitted_at, downloaded=downloaded)
    return Timings(
        queued=job.running_at - job.submitted_at,
        running=detected - job.running_at,
        detected=detected - job.submitted_at,
        downloaded=downloaded,
    )
