"""Trouble to order: what a fault is, and the queue each operation takes them from."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["Fault", "FaultQueues"]

_LOWEST_STATUS = 200
_HIGHEST_STATUS = 599


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that goes wrong with one request. Exactly one of the six kinds is given.

    Args:
        status: answer with this HTTP status, 200-599. Without a `body` the provider's own error shape is sent.
        headers: further headers of that answer; only with `status`.
        body: bytes, text, or anything JSON can say, in place of the error shape; only with `status`. With status 200
            it replaces a genuine answer.
        reset: close the connection hard, so that the client sees a TCP reset.
        stall: say nothing for so many seconds, then close; `float("inf")` waits until the client leaves.
        cut: send the genuine answer's head, with its full length, and at most so many bytes of its body, always at
            least one too few; then close. The work is always done first.
        cut_head: send only the first half of the answer's head, then close.
        garbage: send these raw bytes where HTTP was expected, then close.
        when: "before" strikes in place of the work, so nothing is bought. "after" strikes once the work is done, the
            job exists and has been charged; the client just does not learn of it.
    """

    status: int | None = None
    headers: Mapping[str, str] | None = None
    body: Any = None
    reset: bool = False
    stall: float | None = None
    cut: int | None = None
    cut_head: bool = False
    garbage: bytes | None = None
    when: Literal["before", "after"] = "before"

    def __post_init__(self) -> None:
        self._check_one_kind()
        if self.status is None and (self.headers is not None or self.body is not None):
            raise ValueError("headers and body belong to a status, and no status was given")
        if self.status is not None and not _whole(self.status, _LOWEST_STATUS, _HIGHEST_STATUS):
            raise ValueError(f"status must be a whole number from 200 to 599, got {self.status!r}")
        self._check_answer()
        if self.stall is not None and (isinstance(self.stall, bool) or math.isnan(self.stall) or self.stall < 0):
            raise ValueError(f"stall must be seconds, zero or more, got {self.stall!r}")
        if self.cut is not None and not _whole(self.cut, 0, None):
            raise ValueError(f"cut must be a number of bytes, zero or more, got {self.cut!r}")
        if self.garbage is not None and not isinstance(self.garbage, bytes):
            raise ValueError(f"garbage must be bytes, got {self.garbage!r}")
        if self.when not in ("before", "after"):
            raise ValueError(f'when must be "before" or "after", got {self.when!r}')

    @property
    def after_the_work(self) -> bool:
        """Whether the work is done, and paid for, before the fault strikes."""
        return self.when == "after" or self.cut is not None

    def _check_answer(self) -> None:
        """Check what will be sent with a status, so that a mistake shows here and not in the middle of a request."""
        if self.headers is not None and not (
            isinstance(self.headers, Mapping)
            and all(isinstance(part, str) for header in self.headers.items() for part in header)
        ):
            raise ValueError(f"headers must be a mapping of text to text, got {self.headers!r}")
        if not isinstance(self.body, bytes | str):
            try:
                msgspec.json.encode(self.body)
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
        }
        given = [name for name, is_given in kinds.items() if is_given]
        if len(given) != 1:
            raise ValueError(f"a fault is exactly one of {', '.join(kinds)}; got {', '.join(given) or 'none'}")


class FaultQueues:
    """Faults that wait for their request, one first-in first-out queue for each operation.

    Args:
        operations: the operations that exist.
    """

    def __init__(self, operations: Collection[str]) -> None:
        self._queues: dict[str, deque[Fault]] = {name: deque() for name in sorted(operations)}

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def add(self, operation: str, *faults: Fault) -> None:
        """Queue `faults` for the next requests to `operation`, one each.

        Raises:
            ValueError: there is no such operation, or no fault was given.
        """
        if operation not in self._queues:
            raise ValueError(f"unknown operation {operation!r}; known: {', '.join(self._queues)}")
        if not faults:
            raise ValueError(f"no fault was given for {operation!r}")
        self._queues[operation].extend(faults)

    def take(self, operation: str) -> Fault | None:
        """Return the next fault of `operation`, or None."""
        queue = self._queues[operation]
        return queue.popleft() if queue else None


def _whole(value: object, low: int, high: int | None) -> bool:
    if isinstance(value, bool) or not isinstance(value, int):
        return False
    return value >= low and (high is None or value <= high)
