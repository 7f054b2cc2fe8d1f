"""Links to finished pictures: unguessable names, some of which stop working after a while."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mirage_async.sandbox.answers import RefusalError

if TYPE_CHECKING:
    from mirage_async._clock import Clock
    from mirage_async.sandbox.drawing.pictures import Picture

__all__ = ["Link", "Links"]


_MOST_KEPT = 100_000
_MEMORY = 3600.0  # seconds for which it is known that a link has expired


@dataclass(frozen=True, slots=True)
class Link:
    """Where a link leads.

    Attributes:
        picture: what it shows.
        job_id: the job that made it.
        expires_at: when it stops working; None for never.
        flaws: what is wrong with its bytes.
    """

    picture: Picture
    job_id: str
    expires_at: float | None
    flaws: frozenset[str]


class Links:
    """Pictures by the token in their link. Issuing a new link leaves earlier ones as they are.

    An hour after it expired a link is forgotten, and so is the oldest one where there are too many.

    Args:
        clock: where time comes from.
        most: how many are kept.
    """

    def __init__(self, clock: Clock, *, most: int = _MOST_KEPT) -> None:
        self._clock = clock
        self._most = most
        self._links: dict[str, Link] = {}
        self._temporary: deque[str] = deque()

    def __len__(self) -> int:
        return len(self._links)

    def add(
        self,
        token: str,
        picture: Picture,
        *,
        job_id: str,
        lifetime: float | None = None,
        flaws: frozenset[str] = frozenset(),
    ) -> None:
        """Make `token` lead to `picture` for `lifetime` seconds, or for ever when None."""
        if "expired" in flaws:
            lifetime = 0.0
        expires_at = None if lifetime is None else self._clock.monotonic() + lifetime
        self._links[token] = Link(picture, job_id, expires_at, flaws)
        if expires_at is not None:
            self._temporary.append(token)
        self._forget()

    def find(self, token: str) -> Link | None:
        """Return the link of that name, expired or not."""
        return self._links.get(token)

    def clear(self) -> None:
        """Forget all of them."""
        self._links.clear()
        self._temporary.clear()

    def open(self, token: str, *, flaws: frozenset[str] = frozenset()) -> Link:
        """Return the link behind `token`; among the `flaws` of a request may be that it finds it expired.

        Raises:
            RefusalError: 404 when there is no such link, 410 when it has expired.
        """
        link = self._links.get(token)
        if link is None:
            raise RefusalError(404, "No such picture.", code="NOT_FOUND")
        over = link.expires_at is not None and self._clock.monotonic() >= link.expires_at
        if over or "expired" in flaws:
            raise RefusalError(410, "This link has expired; ask for the job's status to get a new one.", code="EXPIRED")
        return link

    def _forget(self) -> None:
        """Let go of what expired long ago, and of what is too much.

        Temporary links have one lifetime, or none at all, so that looking at the oldest is enough.
        """
        long_ago = self._clock.monotonic() - _MEMORY
        while self._temporary:
            link = self._links.get(self._temporary[0])
            if link is not None and (link.expires_at is None or link.expires_at > long_ago):
                break
            self._links.pop(self._temporary.popleft(), None)
        while len(self._links) > self._most:
            del self._links[next(iter(self._links))]
