"""Every request that arrived, in order, with its secrets taken out, and what became of it."""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["RequestLog", "SeenRequest", "redacted", "select", "transcript_of", "without_tokens"]

_MOST_ENTRIES = 100_000
_MOST_BODY_BYTES = 64 * 2**20
_DEEPEST = 50  # objects in objects

_REDACTED = "<redacted>"
_SECRET = re.compile(r"auth|cookie|key|passw|secret|signature|token")
_USER = re.compile(r"^(https?://)[^/?#@]*@")


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenRequest:
    """One request as the sandbox saw it.

    Attributes:
        operation: for example "mirako.create"; "unknown" when no operation has this method and path.
        provider: for example "mirako"; "" when unknown.
        method: HTTP method.
        path: path without the query.
        query: query fields, the last one of each name, redacted like the headers.
        headers: by lower-case name, everything that looks like a credential by its name replaced by "<redacted>".
        authorized: whether the provider's key was sent; for a download, whether any key was sent.
        body: raw bytes as they came, a webhook's token included, and so not in the repr; b"" when the request did not
            arrive whole.
        fields: the decoded form or JSON object, as the body; empty when there was none.
        at: seconds on the sandbox's monotonic clock.
        status: HTTP status of the answer, None as long as, or when, none was sent.
        number: which request it was, counted from 1.
        account: a short name of its key, "" without one.
        job_id: the job it was about, "" when it was about none.
        fault: what went wrong with it on purpose, "" when nothing did.
        answer_digest: BLAKE2b of the answer's body in hexadecimal, with this sandbox's address taken out of it, so
            that it is the same in two runs; "" when the body was not sent whole.
    """

    operation: str
    provider: str
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    authorized: bool
    body: bytes = field(repr=False)
    fields: Mapping[str, Any] = field(repr=False)
    at: float
    status: int | None
    number: int = 0
    account: str = ""
    job_id: str = ""
    fault: str = ""
    answer_digest: str = ""


class RequestLog:
    """The latest requests. An entry grows while its request is being served.

    Args:
        most: how many are kept.
        most_body_bytes: how much of their bodies together; the oldest bodies go first, and their fields with them.
    """

    def __init__(self, *, most: int = _MOST_ENTRIES, most_body_bytes: int = _MOST_BODY_BYTES) -> None:
        self._most = most
        self._most_body_bytes = most_body_bytes
        self._entries: dict[int, SeenRequest] = {}  # by a serial number that never starts again
        self._bodies: deque[tuple[int, int]] = deque()
        self._body_bytes = 0
        self._arrived = 0
        self._serial = 0
        self._counts: Counter[str] = Counter()

    def __len__(self) -> int:
        return self._arrived

    def arrive(self, request: SeenRequest) -> int:
        """Note a request whose head has arrived; return the serial number to amend it by."""
        self._arrived += 1
        self._serial += 1
        self._counts[request.operation] += 1
        self._entries[self._serial] = replace(request, number=self._arrived)
        while len(self._entries) > self._most:
            del self._entries[next(iter(self._entries))]
        return self._serial

    def amend(self, serial: int, **changes: Any) -> None:
        """Fill in what has become known about a request, if it is still kept."""
        entry = self._entries.get(serial)
        if entry is None:
            return
        self._entries[serial] = replace(entry, **changes)
        if "body" in changes:
            self._make_room_for(serial, len(changes["body"]))

    def all(self) -> list[SeenRequest]:
        """Return the requests in order of arrival."""
        return list(self._entries.values())

    def count(self) -> dict[str, int]:
        """Return how many requests each operation has had, those no longer kept included."""
        return dict(self._counts)

    def clear(self) -> None:
        """Forget them all, those being served included, and count from 1 again."""
        self._entries.clear()
        self._bodies.clear()
        self._counts.clear()
        self._body_bytes = self._arrived = 0

    def _make_room_for(self, serial: int, size: int) -> None:
        self._bodies.append((serial, size))
        self._body_bytes += size
        while self._body_bytes > self._most_body_bytes and len(self._bodies) > 1:
            oldest, freed = self._bodies.popleft()
            self._body_bytes -= freed
            entry = self._entries.get(oldest)
            if entry is not None:
                self._entries[oldest] = replace(entry, body=b"", fields={})


def select(
    requests: Iterable[SeenRequest],
    *,
    provider: str | None = None,
    operation: str | None = None,
    method: str | None = None,
    status: int | None = None,
    job_id: str | None = None,
    prompt: str | None = None,
    after: int = 0,
) -> list[SeenRequest]:
    """Return the requests that have all that is given.

    Args:
        requests: where to look.
        provider: such as "mira".
        operation: such as "mira.generate".
        method: HTTP method, in any case.
        status: of the answer.
        job_id: the job they were about.
        prompt: text that their prompt contains.
        after: only requests with a higher number.
    """
    return [
        request
        for request in requests
        if request.number > after
        and (provider is None or request.provider == provider)
        and (operation is None or request.operation == operation)
        and (method is None or request.method == method.upper())
        and (status is None or request.status == status)
        and (job_id is None or request.job_id == job_id)
        and (prompt is None or prompt in str(request.fields.get("prompt", "")))
    ]


def transcript_of(requests: Iterable[SeenRequest], url: str) -> list[dict[str, Any]]:
    """Return what was asked and answered, without what differs between two runs that did the same.

    Left out are the times, the headers, the keys, and the address of the sandbox, which is `url`.
    """
    return [
        {
            "number": request.number,
            "operation": request.operation,
            "method": request.method,
            "path": request.path,
            "query": dict(request.query),
            "fields": _elsewhere(without_tokens(request.fields), url, _DEEPEST),
            "authorized": request.authorized,
            "status": request.status,
            "fault": request.fault,
            "job_id": request.job_id,
            "answer_digest": request.answer_digest,
        }
        for request in requests
    ]


def _elsewhere(value: Any, url: str, depth: int) -> Any:
    """Return a value with another address in place of `url`; what lies deeper than anybody looks is left out."""
    if isinstance(value, str):
        return value.replace(url, "http://sandbox") if url else value
    if isinstance(value, Mapping):
        items = cast("Mapping[str, Any]", value).items()
        return {name: _elsewhere(one, url, depth - 1) for name, one in items} if depth else "..."
    if isinstance(value, list):
        return [_elsewhere(one, url, depth - 1) for one in value] if depth else "..."  # pyright: ignore[reportUnknownVariableType]
    return value


def without_tokens(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields fit to leave the process: the tokens of webhooks are their receivers' secrets."""
    return {name: _without_token(value) for name, value in fields.items()}


def _without_token(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    fields = dict(cast("dict[str, Any]", value))
    if "auth_token" in fields:
        fields["auth_token"] = _REDACTED
    if isinstance(fields.get("url"), str):
        fields["url"] = _USER.sub(r"\1", fields["url"])
    return fields


def redacted(named: Mapping[str, str]) -> dict[str, str]:
    """Return headers or query fields without what looks like a credential by its name."""
    return {name: _REDACTED if _SECRET.search(name.lower()) else value for name, value in named.items()}
