"""What a fault is: one thing that goes wrong with one request."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from mirage_async.sandbox.faults.flaws import FLAWS

if TYPE_CHECKING:
    from mirage_async.sandbox.faults.flaws import FlawName, Point

__all__ = ["Fault"]

_LOWEST_STATUS = 200
_HIGHEST_STATUS = 599
_LONGEST = 1e9  # seconds
_SHOWN = 60  # characters
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FRAMING = ("connection", "content-length", "trailer", "transfer-encoding", "upgrade")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that goes wrong with one request.

    Exactly one of `status`, `reset`, `stall`, `cut`, `cut_head`,
    `garbage`, `dribble` and `flaw` is given.

    Args:
        status: answer with this HTTP status, 200-599. Without a `body` the provider's own error shape is sent.
        headers: further headers of that answer; only with `status`. Those that frame it (Content-Length,
            Transfer-Encoding, Connection, Trailer, Upgrade) are not among them: `cut` and `garbage` break that.
        body: bytes, text, or anything JSON can say, in place of the error shape; only with `status`. With status 200
            it replaces a genuine answer.
        retry_after: seconds for the header Retry-After, as a number; only with `status`.
        retry_at: seconds from now for the header Retry-After, as a date; only with `status`.
        reset: close the connection hard, so that the client sees a TCP reset.
        stall: say nothing for so many seconds, then close; `float("inf")` waits until the client leaves.
        cut: send the genuine answer's head, with its full length, and at most so many bytes of its body, always at
            least one too few; then close. The work is always done first.
        cut_head: send only the first bytes of the answer's status line, then close.
        garbage: send these raw bytes where HTTP was expected, then close.
        dribble: send the genuine answer in small pieces, spread over so many seconds. The work is always done first.
        flaw: the answer arrives whole, but something is wrong with it; the names are explained in the README beside
            the package's code. Ordered for a request that buys, a flaw stays with the job for as long as it lives;
            ordered for any other request, it is that of one answer.
        when: "before" strikes in place of the work, so nothing is bought. "after" strikes once the work is done, the
            job exists and has been charged; the client just does not learn of it.
    """

    status: int | None = None
    headers: Mapping[str, str] | None = None
    body: Any = None
    retry_after: float | None = None
    retry_at: float | None = None
    reset: bool = False
    stall: float | None = None
    cut: int | None = None
    cut_head: bool = False
    garbage: bytes | None = None
    dribble: float | None = None
    flaw: FlawName | None = None
    when: Literal["before", "after"] = "before"

    def __post_init__(self) -> None:
        self._check_one_kind()
        if self.status is None and not all(
            value is None for value in (self.headers, self.body, self.retry_after, self.retry_at)
        ):
            raise ValueError("headers, body and retry_after belong to a status, and no status was given")
        if self.status is not None and not _whole(self.status, _LOWEST_STATUS, _HIGHEST_STATUS):
            raise ValueError(f"status must be a whole number from 200 to 599, got {self.status!r}")
        self._check_answer()
        for name in ("stall", "dribble", "retry_after", "retry_at"):
            seconds = getattr(self, name)
            # A stall may be endless; the others have to come to an end.
            if seconds is not None and not _seconds(seconds, endless=name == "stall"):
                raise ValueError(f"{name} must be seconds, zero or more (up to a billion), got {seconds!r}")
        if self.cut is not None and not _whole(self.cut, 0, None):
            raise ValueError(f"cut must be a number of bytes, zero or more, got {self.cut!r}")
        if self.garbage is not None and not isinstance(self.garbage, bytes):
            raise ValueError(f"garbage must be bytes, got {self.garbage!r}")
        if self.flaw is not None and self.flaw not in FLAWS:
            raise ValueError(f"flaw must be one of {', '.join(FLAWS)}; got {self.flaw!r}")
        if self.when not in ("before", "after"):
            raise ValueError(f'when must be "before" or "after", got {self.when!r}')

    @property
    def after_the_work(self) -> bool:
        """Whether the work is done, and paid for, before the fault strikes."""
        genuine = self.cut is not None or self.dribble is not None or self.flaw not in (None, "error-body")
        return self.when == "after" or genuine

    @property
    def point(self) -> Point:
        """Where in a job's life it strikes."""
        return "any" if self.flaw is None else FLAWS[self.flaw]

    def __str__(self) -> str:
        """Return it as a person would order it, without its defaults: "status=429 retry_after=2"."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return " ".join(
            f"{name}={str(value)[:_SHOWN]}"
            for name, value in given.items()
            if value is not None and value is not False and value != "before"
        )

    def _check_answer(self) -> None:
        """Check what will be sent with a status, so that a mistake shows here and not in the middle of a request."""
        if self.headers is not None and not (
            isinstance(self.headers, Mapping) and all(_is_header(*header) for header in self.headers.items())
        ):
            raise ValueError(f"headers must be a mapping of text to text fit for HTTP, got {self.headers!r}")
        framing = [name for name in self.headers or () if name.lower() in _FRAMING]
        if framing:
            raise ValueError(
                f"headers must not be {', '.join(_FRAMING)}, which cut and garbage are there for; got {framing[0]!r}"
            )
        if not isinstance(self.body, bytes):
            try:
                msgspec.json.encode(self.body)
            except UnicodeEncodeError:
                raise ValueError(f"body must be text that UTF-8 can say, got {self.body!r}") from None
            except (TypeError, OverflowError):
                raise ValueError(f"body must be bytes, text or JSON, got {self.body!r}") from None

    def _check_one_kind(self) -> None:
        kinds = {
            "status": self.status is not None,
            "reset": self.reset,
            "stall": self.stall is not None,
            "cut": self.cut is not None,
            "cut_head": self.cut_head,
            "garbage": self.garbage is not None,
            "dribble": self.dribble is not None,
            "flaw": self.flaw is not None,
        }
        given = [name for name, is_given in kinds.items() if is_given]
        if len(given) != 1:
            raise ValueError(f"a fault is exactly one of {', '.join(kinds)}; got {', '.join(given) or 'none'}")


def _is_header(name: object, value: object) -> bool:
    if not isinstance(name, str) or not isinstance(value, str):
        return False
    return _HEADER_NAME.fullmatch(name) is not None and _HEADER_VALUE.fullmatch(value) is not None


def _whole(value: object, low: int, high: int | None) -> bool:
    if isinstance(value, bool) or not isinstance(value, int):
        return False
    return value >= low and (high is None or value <= high)


def _seconds(value: object, *, endless: bool) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 0 <= value <= _LONGEST or (endless and value == math.inf)
