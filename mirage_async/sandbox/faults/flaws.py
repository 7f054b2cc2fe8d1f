"""What can be wrong with a job, an answer or a delivery that arrives whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "ANSWER_FLAWS",
    "BYTE_FLAWS",
    "DELIVERY_FLAWS",
    "END_FLAWS",
    "FLAWS",
    "JOB_FLAWS",
    "LINK_FLAWS",
    "MEANINGS",
    "POINTS",
    "FlawName",
    "Point",
]

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

ANSWER_FLAWS: Final[frozenset[str]] = frozenset({"invalid-json", "error-body"})
"""What any answer can show."""

END_FLAWS: Final[frozenset[str]] = frozenset({"stuck", "failed", "cancelled", "timed-out"})
"""How a job, or a purchase that is being waited for, can come to no good end."""

JOB_FLAWS: Final[frozenset[str]] = END_FLAWS | {"unknown-status", "backwards"}
"""What status calls can show of a job."""

BYTE_FLAWS: Final[frozenset[str]] = frozenset({"mislabelled", "corrupt"})
"""What can be wrong with a picture's bytes."""

LINK_FLAWS: Final[frozenset[str]] = BYTE_FLAWS | {"expired"}
"""What can be wrong with a picture behind a link."""

DELIVERY_FLAWS: Final[frozenset[str]] = frozenset({"early", "duplicate", "reordered", "wrong-token", "undelivered"})
"""What can be wrong with a delivery to a webhook."""

MEANINGS: Mapping[str, str] = {
    "invalid-json": "the answer's body ends after two thirds",
    "error-body": "status 200, and in the body the provider's own error; nothing is done",
    "unknown-status": "the job is in a status that nobody has heard of, until it ends",
    "backwards": "the job goes back to the queue, again and again, until it ends",
    "stuck": "the job never ends by itself",
    "failed": "the job fails, and says so",
    "cancelled": "the job ends as cancelled, where the provider has a word for that, otherwise as failed",
    "timed-out": "the job ends as timed out, where the provider has a word for that, otherwise as failed",
    "no-image": "the job is done, and its result holds no picture",
    "data-url": "a data URL stands where a link or plain base64 was promised",
    "fewer": "one picture fewer than was ordered, where more than one was",
    "mislabelled": "the picture is of another format than it says",
    "corrupt": "the last third of the picture's bytes is missing",
    "expired": "the link to the picture has expired already",
    "early": "the job ends at once, and its delivery arrives before the answer to the purchase",
    "duplicate": "the delivery is sent once more after it was accepted",
    "reordered": "the delivery waits until another one has overtaken it",
    "wrong-token": "the delivery carries a token that nobody gave out",
    "undelivered": "the delivery is never sent",
}
"""What each of them looks like from outside."""
