"""Links to finished pictures: unguessable names, some of which stop working after a while."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mirage_async.sandbox.answers import RefusalError

if TYPE_CHECKING:
    from mirage_async._clock import Clock
    from mirage_async.sandbox.drawing.pictures import Picture

__all__ = ["Links"]


@dataclass(frozen=True, slots=True)
class _Link:
    picture: Picture
    expires_at: float | None


class Links:
    """Pictures by the token in their link. Issuing a new link leaves earlier ones as they are."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._links: dict[str, _Link] = {}

    def add(self, token: str, picture: Picture, *, lifetime: float | None = None) -> None:
        """Make `token` lead to `picture` for `lifetime` seconds, or for ever when None."""
        expires_at = None if lifetime is None else self._clock.monotonic() + lifetime
        self._links[token] = _Link(picture, expires_at)

    def open(self, token: str) -> Picture:
        """Return the picture behind `token`.

        Raises:
            RefusalError: 404 when there is no such link, 410 when it has expired.
        """
        link = self._links.get(token)
        if link is None:
            raise RefusalError(404, "No such picture.", code="NOT_FOUND")
        if link.expires_at is not None and self._clock.monotonic() >= link.expires_at:
            raise RefusalError(410, "This link has expired; ask for the job's status to get a new one.", code="EXPIRED")
        return link.picture
