"""What a failed status call means for the job: nothing, usually."""

from __future__ import annotations

import enum
import logging
from typing import TYPE_CHECKING, Any

from mirage_async.exceptions import (
    APIError,
    AuthenticationError,
    BadRequestError,
    ConfigurationError,
    InsufficientCreditsError,
    MirageError,
    NotFoundError,
    RateLimitError,
    ResponseError,
)

if TYPE_CHECKING:
    from mirage_async.jobs import Job

__all__ = ["Verdict", "foreseen", "judge"]

_logger = logging.getLogger("mirage_async.scheduler")

# A store that is only eventually consistent may not know a job it has just accepted. This many answers "no such job"
# in a row are believed, since the interval between them grows.
NOT_FOUND_IN_A_ROW = 4

_FOR_GOOD = (AuthenticationError, BadRequestError, InsufficientCreditsError, NotFoundError)  # whenever one comes back
_PASSING = frozenset({408, 409, 423, 425})


class Verdict(enum.Enum):
    """What to do after a status call without usable answer."""

    ASK_AGAIN = "ask again"
    SLOW_DOWN = "slow the whole account down, then ask again"
    GIVE_UP = "stop asking and tell the waiters"


def judge(error: MirageError, not_found: int) -> Verdict:
    """Decide what a failed status call means.

    A job that was paid for is never failed by a bad status call: server errors, resets, unreadable answers and error
    pages of something in between are waited out until the job's own deadline. Only an answer by which the provider
    clearly refuses to be asked (a wrong key, an address that moved) stops the asking, and even then the job's status
    stays and the wait can be resumed. Whoever forbids it now and says when to come back (Retry-After) does not
    refuse. That a job, a request or a key is wrong is no matter of time.

    Args:
        error: what the status call raised.
        not_found: answers "no such job" in a row, this one included.
    """
    if isinstance(error, RateLimitError) or _says_when(error):
        return Verdict.SLOW_DOWN
    if isinstance(error, ConfigurationError):
        return Verdict.GIVE_UP
    if not isinstance(error, APIError) or error.status >= 500 or error.status in _PASSING or _is_page(error):  # noqa: PLR2004 - HTTP's own number
        return Verdict.ASK_AGAIN
    if type(error) is BadRequestError and error.status < 400:  # noqa: PLR2004 - HTTP's own number
        return Verdict.ASK_AGAIN  # "success: false" without a reason this version knows: trouble inside, or nothing
    if isinstance(error, NotFoundError) and not_found < NOT_FOUND_IN_A_ROW:
        return Verdict.ASK_AGAIN
    return Verdict.GIVE_UP


def foreseen(error: Exception, job: Job[Any]) -> MirageError:
    """Return what a status call raised as an error that can be judged, having logged what nobody has foreseen."""
    if isinstance(error, MirageError):
        return error
    _logger.error("a status call for %r failed in an unforeseen way", job, exc_info=error)
    return ResponseError(f"the status call failed with {type(error).__name__}")


def _says_when(error: MirageError) -> bool:
    """Whether the provider told when to come back, in answer to what may be different then."""
    return isinstance(error, APIError) and error.retry_after is not None and not isinstance(error, _FOR_GOOD)


def _is_page(error: APIError) -> bool:
    """Whether a proxy or firewall wrote the answer: the providers speak JSON or say nothing at all."""
    text = error.body.lstrip()
    return bool(text) and text[0] not in "{["
