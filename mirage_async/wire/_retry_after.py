"""How long a provider asks to wait, in seconds."""

from __future__ import annotations

import re
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from mirage_async.wire._message import Reply

__all__ = ["from_header"]

# int() would also take "1_0", "-1" and digits of other scripts; float() even "nan" and "1e9".
_SECONDS = re.compile(r"[0-9]{1,9}", re.ASCII)


def from_header(reply: Reply) -> float | None:
    """Return the seconds of the `Retry-After` header, or None where it is missing or malformed.

    A date is measured against the answer's own `Date`, so a wrong clock on this side does no harm; without one it
    is measured against `reply.received_at`. A date in the past is 0.
    """
    value = reply.headers.get("retry-after", "").strip()
    if not value:  # as nearly always, and every status answer is looked at
        return None
    if _SECONDS.fullmatch(value):
        return float(value)
    until = _http_date(value)
    if until is None:
        return None
    now = _http_date((reply.headers.get("date") or "").strip())
    return max(until.timestamp() - (reply.received_at if now is None else now.timestamp()), 0.0)


def _http_date(value: str) -> datetime | None:
    if not value.endswith("GMT"):  # HTTP dates are always GMT; the parser below would accept far more
        return None
    try:
        found = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return found if found.tzinfo is not None else None
