"""Jobs made of what the journal has on record: for a caller who asks again, and for whoever recovers."""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING, Any, TypeVar

from anyio import to_thread

from mirage_async import media
from mirage_async.clients._redeem import renewal
from mirage_async.exceptions import DownloadError, InputError, SubmissionUncertainError
from mirage_async.jobs import Job, new_job
from mirage_async.journal import EntryState
from mirage_async.models import GeneratedImage, Generation, JobStatus
from mirage_async.wire import Piece

if TYPE_CHECKING:
    from pathlib import Path

    from mirage_async.clients._desk import Desk
    from mirage_async.downloads import Downloader
    from mirage_async.jobs import JobKind
    from mirage_async.journal import Entry, Journal, StoredImage, StoredOutcome
    from mirage_async.wire import Call

__all__ = ["job_of", "known_job", "remembered", "uncertain_error"]

T = TypeVar("T")

_ENDS = {
    EntryState.SUCCEEDED: JobStatus.SUCCEEDED,
    EntryState.FAILED: JobStatus.FAILED,
    EntryState.CANCELLED: JobStatus.CANCELLED,
    EntryState.EXPIRED: JobStatus.EXPIRED,
}
_OPEN = frozenset({EntryState.INTENDED, EntryState.UNCERTAIN})


async def known_job(desk: Desk, key: str, kind: JobKind[T], call: Call, *, max_wait: float | None) -> Job[T] | None:
    """Return the job that was bought under a caller's own key; None where nothing was, and it is free to be bought.

    Args:
        desk: of the account.
        key: the caller's own.
        kind: of the job.
        call: the request as it would be sent.
        max_wait: as for `job_of`.

    Raises:
        InputError: the key stands for another request, or for one that was given up by hand.
        SubmissionUncertainError: it may have been bought, and nobody knows.
        JournalError: the journal cannot be read.
    """
    journal = desk.runtime.journal
    assert journal is not None  # noqa: S101 - without one, the hub takes no keys
    entry = await journal.entry(key)
    if entry is not None and entry.state in _OPEN and _has_ended(desk, key):
        entry = await journal.entry(key)  # it has while that was read
    alive: Job[T] | None = _alive(desk, key)
    if entry is None or entry.state is EntryState.UNPAID:
        return None if alive is None or alive.done else alive
    _check_same(entry, desk, kind, call)
    if entry.state is EntryState.ABANDONED:
        msg = f"the purchase with the key {key} was given up by hand; another one needs another key"
        raise InputError(msg, provider=desk.provider)
    if alive is not None and (alive.stopped is None or entry.state in _OPEN):
        return alive
    if entry.state in _OPEN:
        raise uncertain_error(entry)
    return remembered(desk, job_of(desk, kind, entry, max_wait=max_wait))


def _alive(desk: Desk, key: str) -> Job[Any] | None:
    """Return the job of a key that somebody here works on or has the end of.

    The journal knows better about one whose purchase is uncertain: it may have been settled by hand or by a webhook.
    """
    job = desk.runtime.known.get(key)
    if job is None or job.status is JobStatus.UNCERTAIN:
        return None
    if job.done and job.id is None and not job.may_be_billed:
        return None  # it bought nothing, so what is on record since was bought by another process
    # Else its caller left before anything was sent.
    return job if job.done or job.id is not None or desk.ledger.is_buying(job) else None


def _has_ended(desk: Desk, key: str) -> bool:
    job = desk.runtime.known.get(key)
    return job is not None and job.done


def remembered(desk: Desk, job: Job[T]) -> Job[T]:
    """Have the job be the one that a caller who asks with its key gets, as long as somebody holds it."""
    desk.runtime.known[job.key] = job
    return job


def _check_same(entry: Entry, desk: Desk, kind: JobKind[Any], call: Call) -> None:
    same = entry.provider == desk.provider and entry.kind == kind.name
    if not same or not entry.may_be_of(call):
        msg = (
            f"key must be one of its own for each request; got {entry.key!r}, which stands for another request already"
        )
        raise InputError(msg, provider=desk.provider)


def job_of(desk: Desk, kind: JobKind[Any], entry: Entry, *, max_wait: float | None) -> Job[Any]:
    """Return the job of a purchase that was accepted: one that has its outcome, or one that is asked about from now on.

    Args:
        desk: of the account.
        kind: of the job.
        entry: in state `ACCEPTED`, or settled.
        max_wait: seconds to watch it; None takes the kind's default.

    Raises:
        InputError: what came of it is no longer kept, and nobody can be asked.
    """
    outcome = entry.outcome if entry.settled else None
    if entry.settled and outcome is None and entry.id is None:
        msg = (
            f"the {entry.provider} {entry.kind} was bought under the key {entry.key}, and its result is no longer "
            "kept; another purchase needs another key"
        )
        raise InputError(msg, provider=entry.provider)
    # A finished job whose pictures are not on record is asked about again, as long as its provider knows it. One that
    # has them is only asked for fresh links once the old ones no longer work.
    if outcome is not None and (entry.id is None or all(image.url or image.file for image in outcome.images)):
        return _ended(desk, kind, entry, outcome)
    job = new_job(
        kind, id=entry.id, key=entry.key, model=entry.model, requested=entry.requested, status=JobStatus.QUEUED
    )
    if entry.announced and desk.runtime.webhooks is not None:
        desk.runtime.webhooks.expect(job)
    job.attach(max_wait)
    return job


def _ended(desk: Desk, kind: JobKind[Any], entry: Entry, outcome: StoredOutcome) -> Job[Any]:
    job = new_job(kind, id=entry.id, key=entry.key, model=entry.model, requested=entry.requested)
    job.may_be_billed = True
    job.claim()
    error = None if outcome.error is None else outcome.error.rebuild()
    value = outcome.avatar or (None if error is not None else _generation(desk, job, outcome))
    job.resolve(_ENDS[entry.state], value, error)
    return job


def _generation(desk: Desk, job: Job[Any], outcome: StoredOutcome) -> Generation:
    journal = desk.runtime.journal
    assert journal is not None  # noqa: S101 - the outcome comes from it
    name = f"{job.provider}-{job.id or job.key[-12:]}"
    many = len(outcome.images) > 1
    images = [
        _image(desk, journal, job, image, index, name=f"{name}-{index + 1}" if many else name)
        for index, image in enumerate(outcome.images)
    ]
    return Generation(
        images=tuple(images),
        provider=job.provider,
        model=job.model,
        job_id=job.id,
        key=job.key,
        requested=job.requested,
        credits=outcome.credits,
        timings=outcome.timings,
        polls=outcome.polls,
    )


def _image(desk: Desk, journal: Journal, job: Job[Any], image: StoredImage, index: int, *, name: str) -> GeneratedImage:
    downloader = desk.runtime.downloader
    if image.file is None:
        made = downloader.image(
            Piece(url=image.url, mime_type=image.mime_type, revised_prompt=image.revised_prompt, text=image.text),
            name=name,
            provider=desk.provider,
            allow_private=desk.endpoint.loopback,
            renew=None if job.id is None else renewal(job, index),
        )
    else:
        made = GeneratedImage(
            _Kept(downloader, journal.picture_path(image.file), image.sha256),
            mime_type=image.mime_type,
            revised_prompt=image.revised_prompt,
            text=image.text,
            name=name,
        )
    made.width, made.height = image.width, image.height
    return made


class _Kept:
    """Reads a picture that exists nowhere but in a file of the journal's; implements `models.Reader`."""

    __slots__ = ("_downloader", "_path", "_sha256")

    def __init__(self, downloader: Downloader, path: Path, sha256: str | None) -> None:
        self._downloader = downloader
        self._path = path
        self._sha256 = sha256

    async def read(self, image: GeneratedImage) -> bytes:  # noqa: ARG002 - the port's signature; a file is one picture's
        return await to_thread.run_sync(self._read)

    async def save(self, image: GeneratedImage, path: Path, *, overwrite: bool) -> Path:
        await image.read()
        return await self._downloader.save(image, path, overwrite=overwrite)

    def _read(self) -> bytes:
        try:
            data = self._path.read_bytes()
        except OSError as error:
            msg = f"the picture was kept in {str(self._path)!r}, which cannot be read: {error.strerror or error}"
            raise DownloadError(msg) from error
        if self._sha256 not in {None, hashlib.sha256(data).hexdigest()}:
            msg = f"the picture that was kept in {str(self._path)!r} has been changed since"
            raise DownloadError(msg)
        facts = media.inspect(data)
        flaw = media.incomplete(data, data, len(data), facts=facts) if facts is not None else None
        if flaw is not None:
            msg = f"the picture came cut short, and there is no other: {flaw}; {str(self._path)!r} holds what came"
            raise DownloadError(msg)
        return data


def uncertain_error(entry: Entry) -> SubmissionUncertainError:
    """Return the error that says of a purchase that nobody knows what became of it."""
    moment = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(entry.intended_at))
    msg = (
        f"{entry.provider} may or may not have taken the {entry.kind} that was sent at {moment}: no usable answer is "
        f"on record. Look at the provider's dashboard, then settle it with "
        f"`mirage-async jobs resolve` (key {entry.key})"
    )
    return SubmissionUncertainError(msg, provider=entry.provider, key=entry.key)
