"""How the command ends: one table of exit codes, and which error ends in which."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from mirage_async.exceptions import (
    APIError,
    AuthenticationError,
    ConfigurationError,
    InputError,
    InsufficientCreditsError,
    JobError,
    RateLimitError,
    WaitTimeoutError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["EPILOG", "CommandError", "ExitCode", "code_for"]


class ExitCode(enum.IntEnum):
    """What a script can tell apart; `EPILOG` says it in words."""

    DONE = 0
    FAILURE = 1
    USAGE = 2
    REFUSED = 3
    AUTHENTICATION = 4
    CREDITS = 5
    TIMED_OUT = 6
    PARTIAL = 7
    INTERRUPTED = 130


_MEANINGS: Mapping[ExitCode, str] = {
    ExitCode.DONE: "done",
    ExitCode.FAILURE: "failure (network, disk, or nobody can say whether it was bought)",
    ExitCode.USAGE: "usage: an argument, option or address is wrong; nothing was sent",
    ExitCode.REFUSED: "the provider refused the request, or failed at it",
    ExitCode.AUTHENTICATION: "no API key, or one the provider does not accept",
    ExitCode.CREDITS: "credits or rate limit exhausted",
    ExitCode.TIMED_OUT: "timed out; the job lives on and can be resumed",
    ExitCode.PARTIAL: "some of several are missing (they failed, or a budget ended first), the others are saved",
    ExitCode.INTERRUPTED: "interrupted; says how to resume what was accepted",
}

EPILOG = "\b\nExit codes:\n" + "\n".join(f"  {code:>3}  {meaning}" for code, meaning in _MEANINGS.items())
"""The table as help texts show it; the first line keeps the help from being wrapped."""

_BY_ERROR: tuple[tuple[type[Exception], ExitCode], ...] = (  # the first that fits
    (InputError, ExitCode.USAGE),
    (ConfigurationError, ExitCode.USAGE),
    (AuthenticationError, ExitCode.AUTHENTICATION),
    (InsufficientCreditsError, ExitCode.CREDITS),
    (RateLimitError, ExitCode.CREDITS),
    (WaitTimeoutError, ExitCode.TIMED_OUT),
    (JobError, ExitCode.REFUSED),
    (APIError, ExitCode.REFUSED),
)


class CommandError(Exception):
    """A reason of the command itself to end with one line and a code.

    Attributes:
        code: the exit code.
    """

    def __init__(self, message: str, *, code: ExitCode = ExitCode.USAGE) -> None:
        super().__init__(message)
        self.code = code


def code_for(error: BaseException) -> ExitCode:
    """Return the exit code for an error; `FAILURE` where the table has nothing better."""
    if isinstance(error, CommandError):
        return error.code
    return next((code for kind, code in _BY_ERROR if isinstance(error, kind)), ExitCode.FAILURE)
