"""Miragic: form posts that start a job, and a job that ends in a short-lived link.

The rules come from Miragic's image generation reference.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from mirage_async.exceptions import InputError, ResponseError
from mirage_async.models import JobStatus, Pace
from mirage_async.wire._answers import accepted_fields, denies_success, outer_fields
from mirage_async.wire._checks import (
    checked_id,
    choice,
    key_text,
    passed_id,
    prompt_text,
    web_address,
    whole_number,
)
from mirage_async.wire._errors import refusal
from mirage_async.wire._json import Fields, inner, plain
from mirage_async.wire._message import Call, Form, Piece, Reply, Report, Submitted
from mirage_async.wire._results import link
from mirage_async.wire._values import amount, fields_of, moment, share, text
from mirage_async.wire._wording import one_line

__all__ = [
    "BASE_URL",
    "CALLBACK_TOKEN",
    "MAX_SIDE",
    "MIN_SIDE",
    "MODELS",
    "NAME",
    "PACE",
    "credential",
    "generate_call",
    "job_state",
    "read_status",
    "read_submitted",
    "status_call",
]

NAME = "miragic"
BASE_URL = "https://backend.miragic.ai"
CALLBACK_TOKEN = False
"""No token goes along with an address to call back: whatever calls there has the address alone."""

MODELS = ("flux", "turbo", "gptimage", "kontext")
MIN_SIDE = 256
MAX_SIDE = 2048

PACE = Pace(first=0, interval=2, maximum=15, max_wait=300, typical=5)
"""Miragic's reference asks at once, then every 2 s, and advises growing intervals and an end to it all.

The picture of its example took 4.8 s.
"""

_EDITING_MODEL = "kontext"
# The reference says of PENDING that the task is being processed: there is no queue to tell apart from work.
_STATES = {"PENDING": JobStatus.RUNNING, "COMPLETED": JobStatus.SUCCEEDED, "FAILED": JobStatus.FAILED}
# The prose of the reference, its table, and its example each call the link something else. `metadata.apiResponse.link`
# of the example is the upstream's own copy and none of our business.
_LINKS = ("download_signed_url", "processedImageUrl", "imageUrl")


def credential(key: str) -> tuple[str, str]:
    """Return name and value of the header that carries the key.

    Raises:
        ConfigurationError: the key cannot travel in a header.
    """
    return "X-API-Key", key_text(key, provider=NAME)


def generate_call(
    prompt: str, *, model: str, width: int, height: int, image_url: str | None, multipart: bool = True
) -> Call:
    """Return the request that starts a job.

    Args:
        prompt: what to draw, not blank; sent as it is.
        model: one of `MODELS`.
        width: 256 to 2048 pixels.
        height: 256 to 2048 pixels.
        image_url: absolute http(s) URL of a picture to work from, only with the model "kontext". The samples of
            Miragic's reference send one with "flux", its table forbids that; the table is taken at its word.
        multipart: encode as multipart/form-data, as the reference's curl and JavaScript samples do; False encodes as
            its Python sample does, application/x-www-form-urlencoded.

    Raises:
        InputError: an argument Miragic's reference does not allow.
    """
    fields: tuple[tuple[str, str], ...] = (
        ("prompt", prompt_text(prompt, provider=NAME)),
        ("model", choice("model", model, MODELS, provider=NAME)),
        ("width", str(whole_number("width", width, MIN_SIDE, MAX_SIDE, provider=NAME))),
        ("height", str(whole_number("height", height, MIN_SIDE, MAX_SIDE, provider=NAME))),
    )
    if image_url is not None:
        fields = (*fields, ("image_url", _reference(image_url, model)))
    path = "/api/v1/image/generate"
    if multipart:
        return Call(method="POST", path=path, body=Form(fields), private=(prompt,))
    body = urlencode(fields).encode("ascii")
    return Call(
        method="POST", path=path, body=body, content_type="application/x-www-form-urlencoded", private=(prompt,)
    )


def status_call(job_id: str) -> Call:
    """Return the request for the state of a job.

    Raises:
        InputError: `job_id` is not what a job id looks like.
    """
    return Call(method="GET", path=f"/api/v1/image/jobs/{passed_id('job_id', job_id, provider=NAME)}")


def read_submitted(reply: Reply) -> Submitted:
    """Read the answer to `generate_call`: any 2xx with an id, which may already bring the result.

    Raises:
        APIError: Miragic refused, by status or by `success: false` in a 2xx.
        ResponseError: there is no usable id.
    """
    answer = accepted_fields(reply, NAME)
    data = plain(inner(answer, "data", provider=NAME))
    found = data.get("jobId")
    job_id = checked_id(data.get("id") if found is None or found == "" else found, NAME)
    word = text(data.get("status"))
    return Submitted(id=job_id, report=_report(word, data, answer) if word else None)


def read_status(reply: Reply) -> Report:
    """Read the state of a job. A word this version does not know gives status None, so the wait goes on.

    A job that FAILED is a failed job whatever `success` says beside it; the reason is `errorMessage`, which may be
    missing. The link of a finished job is temporary.

    Raises:
        APIError: Miragic answered with an error; it says nothing about the job itself.
        ResponseError: there is no state in the answer.
    """
    answer = outer_fields(reply, NAME)
    data = plain(inner(answer, "data", provider=NAME)) if _has_data(answer) else {}
    word = text(data.get("status"))
    if denies_success(answer) and (word is None or job_state(word) is not JobStatus.FAILED):
        raise refusal(reply, NAME)
    if word is None:
        raise ResponseError(f"{NAME} sent no job status", provider=NAME)
    return _report(word, data, answer)


def _has_data(answer: Fields) -> bool:
    return bytes(memoryview(answer.get("data", b""))[:1]) == b"{"


def _reference(image_url: str, model: str) -> str:
    if model != _EDITING_MODEL:
        message = f"model must be {_EDITING_MODEL!r} where image_url is given; got {model!r}"
        raise InputError(message, provider=NAME)
    return web_address("image_url", image_url, provider=NAME)


def job_state(word: str) -> JobStatus | None:
    """Return the state of a job that a word stands for, None for one this version does not know."""
    return _STATES.get(word.strip().upper())


def _report(word: str, data: dict[str, Any], answer: Fields) -> Report:
    status, progress = job_state(word), share(data.get("progress"))
    if status is None or not status.terminal:
        return Report(status=status, word=word, progress=progress)
    pieces, reason = _pieces(data) if status is JobStatus.SUCCEEDED else ((), None)
    if status is JobStatus.FAILED:
        reason = _reason(data) or _reason(plain(answer))
    return Report(
        status=status,
        word=word,
        progress=progress,
        pieces=pieces,
        temporary=bool(pieces),
        reason=reason,
        credits=amount(data.get("creditsUsed")),
        took=_took(data) if status is JobStatus.SUCCEEDED else None,
        raw={**plain(answer, without=("data",)), "data": data},
    )


def _pieces(data: dict[str, Any]) -> tuple[tuple[Piece, ...], str | None]:
    found = next(filter(None, (text(data.get(name)) for name in _LINKS)), None)
    if found is None:
        return (), "the answer has no link to the picture"
    url = link(found)
    return ((Piece(url=url),), None) if url else ((), "the link to the picture is not an absolute http(s) URL")


def _took(data: dict[str, Any]) -> float | None:
    """Return how long a finished job took.

    The example's `updatedAt` is the moment it was finished: `processingTimeMs` after `createdAt`. Both are of one
    clock, so it does not matter what that one shows.
    """
    created, updated = moment(data.get("createdAt")), moment(data.get("updatedAt"))
    seconds = (updated - created).total_seconds() if created is not None and updated is not None else 0.0
    return seconds if seconds > 0 else None


def _reason(fields: dict[str, Any]) -> str | None:
    error = fields.get("error")
    said = text(fields.get("errorMessage")) or text(error) or text(fields_of(error).get("message"))
    return one_line(said) or None if said else None
