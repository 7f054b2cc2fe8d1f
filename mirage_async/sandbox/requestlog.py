"""Every request that arrived, in order, with its secrets taken out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["RequestLog", "SeenRequest", "redacted"]

_SECRET_HEADERS = frozenset({"authorization", "cookie", "proxy-authorization", "x-api-key"})


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenRequest:
    """One request as the sandbox saw it.

    Attributes:
        operation: for example "mirako.create"; "unknown" when no operation has this method and path.
        provider: for example "mirako"; "" when unknown.
        method: HTTP method.
        path: path without the query.
        query: query fields, the last one of each name.
        headers: by lower-case name, credentials replaced by "<redacted>".
        authorized: whether the provider's key was sent; for a download, whether any key was sent.
        body: raw bytes; b"" when the request did not arrive whole.
        fields: the decoded form or JSON object; empty when there was none.
        at: seconds on the sandbox's monotonic clock.
        status: HTTP status of the answer, None as long as, or when, none was sent.
    """

    operation: str
    provider: str
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    authorized: bool
    body: bytes
    fields: Mapping[str, Any]
    at: float
    status: int | None


class RequestLog:
    """The requests so far. An entry grows while its request is being served."""

    def __init__(self) -> None:
        self._entries: list[SeenRequest] = []

    def __len__(self) -> int:
        return len(self._entries)

    def arrive(self, request: SeenRequest) -> int:
        """Note a request whose head has arrived; return its place."""
        self._entries.append(request)
        return len(self._entries) - 1

    def amend(self, place: int, **changes: Any) -> None:
        """Fill in what has become known about the request at `place`."""
        self._entries[place] = replace(self._entries[place], **changes)

    def all(self) -> list[SeenRequest]:
        """Return the requests in order of arrival."""
        return self._entries.copy()

    def count(self) -> dict[str, int]:
        """Return how many requests each operation has had."""
        return dict(Counter(entry.operation for entry in self._entries))


def redacted(headers: Mapping[str, str]) -> dict[str, str]:
    """Return lower-case `headers` without credentials."""
    return {name: "<redacted>" if name in _SECRET_HEADERS else value for name, value in headers.items()}
