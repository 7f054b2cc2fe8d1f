"""From an HTTP answer to the error class that says what the caller can do about it."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING, NoReturn

from mirage_async.exceptions import (
    APIError,
    AuthenticationError,
    BadRequestError,
    ConfigurationError,
    ContentRejectedError,
    InsufficientCreditsError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    ResponseError,
    ServerError,
)
from mirage_async.wire import _retry_after
from mirage_async.wire._problem import Problem, read_problem
from mirage_async.wire._wording import one_line

if TYPE_CHECKING:
    from mirage_async.wire._message import Reply

__all__ = ["is_well_formed_error", "raise_for_status", "refusal", "retry_after"]

_KINDS: dict[int, type[APIError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    402: InsufficientCreditsError,
    403: PermissionDeniedError,
    404: NotFoundError,
    405: BadRequestError,
    413: BadRequestError,
    415: BadRequestError,
    422: BadRequestError,
    429: RateLimitError,
}
_MODERATED = frozenset({200, 400, 403, 422})  # 200: an answer that says `success: false` and nothing else
_MODERATION = re.compile(r"content[ _-]?(?:block|filter|polic|reject|violat)|moderat|safety|nsfw", re.IGNORECASE)
_POLICY = re.compile(r"\bpolic(?:y|ies)\b|disallowed|prohibited", re.IGNORECASE)  # in a 403 these speak of plans
# The codes that integrators of Miragic have met; a refusal inside a 200 has nothing else to tell it apart by.
_KINDS_BY_CODE: dict[str, type[APIError]] = {
    "INSUFFICIENT_CREDITS": InsufficientCreditsError,
    "INVALID_API_KEY": AuthenticationError,
}


def raise_for_status(reply: Reply, provider: str) -> None:
    """Return for a 2xx answer, raise for everything else.

    Raises:
        APIError: 4xx and 5xx, as the subclass of the status. `billed` is "no" where the status is a refusal or 429,
            "unknown" for 5xx and for a status that does not say whether work was begun (408, 409 and the like).
        ConfigurationError: 307 or 308: the base URL has moved. Requests with a key are not redirected.
        ResponseError: any other status.
    """
    status = reply.status
    if 200 <= status < 300:  # noqa: PLR2004 - HTTP's own numbers
        return
    if status in {HTTPStatus.TEMPORARY_REDIRECT, HTTPStatus.PERMANENT_REDIRECT}:
        message = f"{provider} answered {status}: its address has moved and redirects are not followed; check base_url"
        raise ConfigurationError(message, provider=provider)
    if status < HTTPStatus.BAD_REQUEST or status > 599:  # noqa: PLR2004 - the last status there is
        message = f"{provider} answered {status}, which its document does not know"
        raise ResponseError(message, provider=provider)
    _raise(reply, provider, read_problem(reply))


def refusal(reply: Reply, provider: str) -> APIError:
    """Return the error for a 2xx answer that says `success: false`; nothing was bought."""
    problem = read_problem(reply)
    kind = _KINDS_BY_CODE.get((problem.code or "").upper(), BadRequestError)
    return _error(reply, provider, problem, kind)


def retry_after(reply: Reply) -> float | None:
    """Return the seconds the provider asks to wait: from the header, else from the body, else None. Never negative."""
    seconds = _retry_after.from_header(reply)
    return read_problem(reply).retry_after if seconds is None else seconds


def is_well_formed_error(reply: Reply) -> bool:
    """Return whether the body is a JSON object with an error text in it: the provider's own answer, not a proxy's."""
    return read_problem(reply).structured


def _raise(reply: Reply, provider: str, problem: Problem) -> NoReturn:
    fallback = ServerError if reply.status >= HTTPStatus.INTERNAL_SERVER_ERROR else APIError
    raise _error(reply, provider, problem, _KINDS.get(reply.status, fallback))


def _error(reply: Reply, provider: str, problem: Problem, kind: type[APIError]) -> APIError:
    if reply.status in _MODERATED and _is_moderation(problem, reply.status):
        kind = ContentRejectedError
    header = _retry_after.from_header(reply)
    error = kind(
        one_line(f"{provider} answered {reply.status}: {problem.text or _phrase(reply.status)}"),
        status=reply.status,
        provider=provider,
        billed="no" if reply.status in _KINDS or reply.status < HTTPStatus.MULTIPLE_CHOICES else "unknown",
        code=problem.code,
        retry_after=problem.retry_after if header is None else header,
        request_id=_request_id(reply) or problem.request_id,
        body=problem.body,
        details=problem.details,
    )
    if isinstance(error, InsufficientCreditsError):
        error.required = problem.required
    return error


def _is_moderation(problem: Problem, status: int) -> bool:
    said = f"{problem.text} {problem.code or ''}"
    return bool(_MODERATION.search(said) or (status != HTTPStatus.FORBIDDEN and _POLICY.search(said)))


def _request_id(reply: Reply) -> str | None:
    found = reply.headers.get("x-request-id") or reply.headers.get("request-id") or ""
    return one_line(found, 128) or None


def _phrase(status: int) -> str:
    try:
        return f"{HTTPStatus(status).phrase}, without an error text"
    except ValueError:
        return "no error text"
