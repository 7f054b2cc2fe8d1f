"""What can be wrong with a job, an answer or a delivery that arrives whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["FLAWS", "POINTS", "FlawName", "Point"]

Point: TypeAlias = Literal["submit", "status", "result", "picture", "webhook", "early", "any"]
"""Where in a job's life something strikes.

"submit" is the request that buys, "status" a status call, "result" the answer that tells the result (a status call of a
finished job, or the answer of a blocking request), "picture" wherever the bytes of a picture are handed out, "webhook"
a delivery, "early" the moment before the submit reply, "any" every request.
"""

POINTS: Final[tuple[Point, ...]] = ("submit", "status", "result", "picture", "webhook")
"""The points a person can name."""

FlawName: TypeAlias = Literal[
    "invalid-json",
    "error-body",
    "unknown-status",
    "backwards",
    "stuck",
    "failed",
    "cancelled",
    "timed-out",
    "no-image",
    "data-url",
    "fewer",
    "mislabelled",
    "corrupt",
    "expired",
    "early",
    "duplicate",
    "reordered",
    "wrong-token",
    "undelivered",
]

FLAWS: Mapping[str, Point] = {
    "invalid-json": "any",
    "error-body": "any",
    "unknown-status": "status",
    "backwards": "submit",
    "stuck": "submit",
    "failed": "submit",
    "cancelled": "submit",
    "timed-out": "submit",
    "no-image": "result",
    "data-url": "result",
    "fewer": "result",
    "mislabelled": "picture",
    "corrupt": "picture",
    "expired": "picture",
    "early": "early",
    "duplicate": "webhook",
    "reordered": "webhook",
    "wrong-token": "webhook",
    "undelivered": "webhook",
}
"""Every flaw, and where it shows unless it was ordered with the job itself."""
