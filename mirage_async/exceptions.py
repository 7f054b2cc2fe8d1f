"""Every error of the library, by what the caller can do about it.

::

    MirageError
    ├── ConfigurationError             a key, address or option is missing or wrong; nothing was sent
    ├── InputError (ValueError)        an argument the provider would refuse; nothing was sent
    ├── ClosedError (RuntimeError)     the client was closed while somebody waited, or is used after it
    ├── APIError                       the provider answered, and the answer is an error
    │   ├── AuthenticationError        401
    │   ├── InsufficientCreditsError   402
    │   ├── PermissionDeniedError      403
    │   ├── NotFoundError              404
    │   ├── BadRequestError            400, 405, 413, 415, 422
    │   │   └── ContentRejectedError   refused by the provider's moderation
    │   ├── RateLimitError             429
    │   └── ServerError                5xx
    ├── ConnectionFailedError          no connection was ever obtained; nothing was sent
    ├── SubmissionUncertainError       sent, and nobody can say whether it was bought
    ├── ResponseError                  an answer that cannot be understood
    ├── JobError                       something about one accepted job
    │   ├── JobFailedError             the provider gave up on it
    │   ├── JobCancelledError          it was cancelled at the provider
    │   ├── JobExpiredError            the provider's own time limit ended it
    │   └── WaitTimeoutError (TimeoutError)   our wait is over; the job lives on
    ├── DownloadError                  a finished picture could not be fetched
    │   └── DownloadExpiredError       its link no longer works and there is no fresh one
    ├── BudgetExceededError            a batch's budget does not allow the purchase; nothing was sent
    ├── WebhookVerificationError       a delivery that nobody trustworthy signed
    └── JournalError                   the journal cannot keep its promise

`billed` says what is known about money: `"no"`, `"yes"` (the provider has accepted the job) or `"unknown"`. All errors
can be pickled, and none carries a key, a prompt or picture data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from mirage_async.models import Tried

__all__ = [
    "APIError",
    "AuthenticationError",
    "BadRequestError",
    "Billed",
    "BudgetExceededError",
    "ClosedError",
    "ConfigurationError",
    "ConnectionFailedError",
    "ContentRejectedError",
    "DownloadError",
    "DownloadExpiredError",
    "InputError",
    "InsufficientCreditsError",
    "JobCancelledError",
    "JobError",
    "JobExpiredError",
    "JobFailedError",
    "JournalError",
    "MirageError",
    "NotFoundError",
    "PermissionDeniedError",
    "RateLimitError",
    "ResponseError",
    "ServerError",
    "SubmissionUncertainError",
    "WaitTimeoutError",
    "WaitedFor",
    "WebhookVerificationError",
]

Billed: TypeAlias = Literal["no", "yes", "unknown"]
WaitedFor: TypeAlias = Literal["place", "slot", "pause", "spacing", "polls", "polls_per_second", "journal", "job"]


def _rebuild(kind: type[MirageError], message: str, attributes: dict[str, object]) -> MirageError:
    error = kind.__new__(kind, message)
    Exception.__init__(error, message)
    error.__dict__.update(attributes)
    return error


class MirageError(Exception):
    """The root: `except MirageError` catches all that this library raises on purpose.

    Attributes:
        message: one line for people, the same as `str(error)`.
        billed: what is known about money: "no", "yes" or "unknown".
        provider: the provider's name, or None where no provider is involved.
        tried: where `providers` were named, those that were tried, in order; the last one raised this error.
    """

    billed: Billed = "no"
    tried: tuple[Tried, ...] = ()

    def __init__(self, message: str, *, provider: str | None = None, billed: Billed | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.provider = provider
        if billed is not None:
            self.billed = billed

    def __reduce__(self) -> tuple[object, ...]:
        """Rebuild from the message and the attributes, whatever the constructor of the class asks for."""
        return _rebuild, (type(self), self.message, dict(self.__dict__))


class ConfigurationError(MirageError):
    """A key, address or option is missing or wrong. Mend the configuration; nothing was sent or bought."""


class InputError(MirageError, ValueError):
    """An argument that the provider's document does not allow; the message shows it and what is allowed."""


class ClosedError(MirageError, RuntimeError):
    """The client was closed. An accepted job goes on at the provider: `token` attaches to it again.

    Attributes:
        token: the job's token, or None where the provider gave no id.
    """

    def __init__(
        self, message: str, *, provider: str | None = None, billed: Billed | None = None, token: str | None = None
    ) -> None:
        super().__init__(message, provider=provider, billed=billed)
        self.token = token


class APIError(MirageError):
    """The provider answered with an error.

    Attributes:
        status: the HTTP status.
        code: the provider's own machine-readable word, or None.
        retry_after: seconds the provider asks to wait, or None.
        request_id: the provider's id of the exchange, for its support desk, or None.
        body: the beginning of the answer as text, at most 8 KiB.
        details: whatever structured detail came with it, or None.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int,
        provider: str | None = None,
        billed: Billed | None = None,
        code: str | None = None,
        retry_after: float | None = None,
        request_id: str | None = None,
        body: str = "",
        details: object = None,
    ) -> None:
        super().__init__(message, provider=provider, billed=billed)
        self.status = status
        self.code = code
        self.retry_after = retry_after
        self.request_id = request_id
        self.body = body
        self.details = details


class AuthenticationError(APIError):
    """401: the key is missing, wrong or revoked."""


class InsufficientCreditsError(APIError):
    """402: the account cannot pay.

    Attributes:
        required: what the request would have cost, in the provider's own unit, or None.
    """

    required: float | None = None


class PermissionDeniedError(APIError):
    """403: the key is fine, the account may not do this."""


class NotFoundError(APIError):
    """404: no such job, avatar or address."""


class BadRequestError(APIError):
    """400, 405, 413, 415 or 422: the provider does not accept the request as it is."""


class ContentRejectedError(BadRequestError):
    """The provider's moderation refused the prompt or a picture; sending it again will not help."""


class RateLimitError(APIError):
    """429: too many requests, and the wait asked for is longer than we are willing to wait on our own."""


class ServerError(APIError):
    """5xx: the provider is in trouble."""


class ConnectionFailedError(MirageError):
    """No connection was ever obtained (DNS, refused, TLS, proxy), so nothing was sent."""


class SubmissionUncertainError(MirageError):
    """The request left, no usable answer came: it may or may not have been bought.

    Look at the provider's dashboard, or send again on purpose with `resend_uncertain=True`.

    Attributes:
        key: our local key of the job, to reconcile with later.
        status: the HTTP status if one was read, or None.
    """

    billed: Billed = "unknown"

    def __init__(
        self,
        message: str,
        *,
        provider: str | None = None,
        billed: Billed | None = None,
        key: str | None = None,
        status: int | None = None,
    ) -> None:
        super().__init__(message, provider=provider, billed=billed)
        self.key = key
        self.status = status


class ResponseError(MirageError):
    """An answer came that is not what the provider's document describes."""

    billed: Billed = "unknown"


class JobError(MirageError):
    """Something about one job that the provider has accepted.

    Attributes:
        job_id: the provider's id, or None for a provider that has none.
        token: attaches to the job again (`client.job(error.token)`), or None where there is no id.
    """

    billed: Billed = "unknown"

    def __init__(
        self,
        message: str,
        *,
        provider: str | None = None,
        billed: Billed | None = None,
        job_id: str | None = None,
        token: str | None = None,
    ) -> None:
        super().__init__(message, provider=provider, billed=billed)
        self.job_id = job_id
        self.token = token


class JobFailedError(JobError):
    """The provider gave up on the job; the message carries its reason. Trying again is a new purchase."""


class JobCancelledError(JobError):
    """The job was cancelled at the provider's side."""


class JobExpiredError(JobError):
    """The provider's own time limit ended the job."""


class WaitTimeoutError(JobError, TimeoutError):
    """Our wait is over and the job lives on: attach again with `token`, nothing has to be bought twice.

    `billed` is "yes" for an accepted job, "unknown" while its request is on the wire, and "no" where the wait ran out
    before anything was sent.

    Attributes:
        waited_for: what was being waited for when the time ran out. Before the purchase: "place" (among the jobs in
            flight, `Limits.jobs`), "slot" (for the request among those on the wire) or "journal" (to have it on disk
            that the request is about to leave). Before it or before a status call: "pause" (the provider asked for
            one) or "spacing" (the gentle pace after one). Before a status call: "polls" or "polls_per_second" (a turn
            under that limit). Otherwise "job": it was not finished, as far as anybody had seen.
    """

    billed: Billed = "yes"

    def __init__(
        self,
        message: str,
        *,
        provider: str | None = None,
        billed: Billed | None = None,
        job_id: str | None = None,
        token: str | None = None,
        waited_for: WaitedFor = "job",
    ) -> None:
        super().__init__(message, provider=provider, billed=billed, job_id=job_id, token=token)
        self.waited_for = waited_for


class DownloadError(MirageError):
    """A finished, paid picture could not be fetched whole. Reading it again tries again; nothing is bought.

    Attributes:
        url: the address without its query, which may be a secret, or None.
    """

    billed: Billed = "yes"

    def __init__(
        self, message: str, *, provider: str | None = None, billed: Billed | None = None, url: str | None = None
    ) -> None:
        super().__init__(message, provider=provider, billed=billed)
        self.url = url


class DownloadExpiredError(DownloadError):
    """The link no longer works and the provider offers no fresh one."""


class BudgetExceededError(MirageError):
    """The budget of a batch does not allow this purchase, nor any after it; nothing was sent."""


class WebhookVerificationError(MirageError):
    """A delivery whose credential is missing or wrong."""


class JournalError(MirageError):
    """The journal cannot be written or read, so its promise cannot be kept."""
