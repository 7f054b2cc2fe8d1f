"""What a failed status call means."""

from __future__ import annotations

import pytest

from mirage_async.exceptions import (
    APIError,
    AuthenticationError,
    BadRequestError,
    ConfigurationError,
    ConnectionFailedError,
    InsufficientCreditsError,
    MirageError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    ResponseError,
    ServerError,
)
from mirage_async.scheduler._verdicts import Verdict, judge

PAGE = "\n <html><body>Access denied</body></html>"
OWN = '{"error": "no"}'


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (ServerError("500", status=500), Verdict.ASK_AGAIN),
        (ServerError("503", status=503), Verdict.ASK_AGAIN),
        (ServerError("599", status=599, body=OWN), Verdict.ASK_AGAIN),
        (ResponseError("unreadable"), Verdict.ASK_AGAIN),
        (ConnectionFailedError("refused"), Verdict.ASK_AGAIN),
        (APIError("408", status=408), Verdict.ASK_AGAIN),
        (APIError("409", status=409, body=OWN), Verdict.ASK_AGAIN),
        (APIError("423", status=423), Verdict.ASK_AGAIN),
        (APIError("425", status=425), Verdict.ASK_AGAIN),
        (PermissionDeniedError("403", status=403, body=PAGE), Verdict.ASK_AGAIN),
        (AuthenticationError("401", status=401, body="Please log in to the guest network"), Verdict.ASK_AGAIN),
        (NotFoundError("404", status=404, body=PAGE), Verdict.ASK_AGAIN),
        (RateLimitError("429", status=429), Verdict.SLOW_DOWN),
        (RateLimitError("429 page", status=429, retry_after=0.0, body=PAGE), Verdict.SLOW_DOWN),
        (ServerError("503", status=503, retry_after=5.0), Verdict.SLOW_DOWN),
        (ServerError("500", status=500, retry_after=0.0), Verdict.SLOW_DOWN),
        (PermissionDeniedError("403 later", status=403, retry_after=5.0, body=OWN), Verdict.SLOW_DOWN),
        (APIError("409 later", status=409, retry_after=5.0, body=OWN), Verdict.SLOW_DOWN),
        (NotFoundError("404 later", status=404, retry_after=5.0, body=OWN), Verdict.ASK_AGAIN),
        (InsufficientCreditsError("402 later", status=402, retry_after=5.0, body=OWN), Verdict.GIVE_UP),
        (BadRequestError("400 later", status=400, retry_after=5.0, body=OWN), Verdict.GIVE_UP),
        (AuthenticationError("401 later", status=401, retry_after=5.0, body=OWN), Verdict.GIVE_UP),
        (AuthenticationError("401", status=401, body=OWN), Verdict.GIVE_UP),
        (AuthenticationError("401 empty", status=401), Verdict.GIVE_UP),
        (InsufficientCreditsError("402", status=402, body=OWN), Verdict.GIVE_UP),
        (PermissionDeniedError("403", status=403, body="[1]"), Verdict.GIVE_UP),
        (BadRequestError("400", status=400, body=" \n" + OWN), Verdict.GIVE_UP),
        (APIError("418", status=418), Verdict.GIVE_UP),
        (ConfigurationError("moved"), Verdict.GIVE_UP),
    ],
    ids=lambda value: f"{type(value).__name__} {value}" if isinstance(value, MirageError) else None,
)
def test_only_a_clear_refusal_stops_the_asking(error: MirageError, verdict: Verdict) -> None:
    """Trouble is waited out, a wish to slow down is honoured, a refusal in the provider's own words is believed."""
    assert judge(error, 1) is verdict


def test_an_unknown_job_is_believed_the_fourth_time_in_a_row() -> None:
    """A store that is only eventually consistent may not know a job it has just accepted."""
    error = NotFoundError("404", status=404, body=OWN)
    for found in (error, NotFoundError("404", status=404, body=OWN, retry_after=60.0)):
        verdicts = [judge(found, misses) for misses in range(1, 6)]
        assert verdicts == [Verdict.ASK_AGAIN] * 3 + [Verdict.GIVE_UP] * 2


@pytest.mark.parametrize("misses", [1, 100, 10_000])
def test_patience_with_trouble_never_ends_by_itself(misses: int) -> None:
    """However often a status call fails, only the job's own deadline ends the wait."""
    assert judge(ServerError("502", status=502), misses) is Verdict.ASK_AGAIN
    assert judge(ResponseError("unreadable"), misses) is Verdict.ASK_AGAIN
