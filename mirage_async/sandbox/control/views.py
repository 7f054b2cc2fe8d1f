"""What control answers show: the values that the Python methods return, as JSON can say them.

Clients may have sent anything, and it all stands in the log: numbers too large for JSON's readers, text that is none,
objects in objects without end. What cannot be said as it is, is said nearly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from mirage_async.sandbox.faults.fault import Fault
from mirage_async.sandbox.requestlog import without_tokens

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mirage_async.sandbox.clock import VirtualClock
    from mirage_async.sandbox.requestlog import SeenRequest

__all__ = ["clock_view", "plain", "request_view"]

_LONGEST = 200
_DEEPEST = 50
_SMALLEST = -(2**63)
_LARGEST = 2**64 - 1
_LEFT_OUT = "..."


def plain(value: Any, *, longest: int | None = None) -> Any:
    """Return `value` in terms of JSON; texts of more than `longest` characters are cut.

    Dataclasses become objects, faults objects of what is not as usual, bytes one character each. Infinities become
    "inf", whole numbers beyond 64 bits hexadecimal text, and what lies too deep "...".
    """
    return _plain(value, longest, _DEEPEST)


def clock_view(clock: VirtualClock) -> dict[str, Any]:
    """Return what a clock shows and does."""
    mode = "auto-advancing" if clock.auto_advancing else "frozen" if clock.frozen else "running"
    return {"monotonic": clock.monotonic(), "time": clock.time(), "mode": mode, "waiting": clock.waiting}


def request_view(request: SeenRequest) -> dict[str, Any]:
    """Return a request without its body and its secrets, long texts cut."""
    view: dict[str, Any] = plain(replace(request, body=b"", fields=without_tokens(request.fields)), longest=_LONGEST)
    del view["body"]
    return view


def _plain(value: Any, longest: int | None, depth: int) -> Any:
    if isinstance(value, Fault):
        value = _given(value)
    elif is_dataclass(value):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, Mapping):
        return _LEFT_OUT if not depth else _plain_items(value, longest, depth - 1)  # pyright: ignore[reportUnknownArgumentType]
    if isinstance(value, list | tuple | set | frozenset):
        items = cast("Iterable[Any]", value)
        return _LEFT_OUT if not depth else [_plain(one, longest, depth - 1) for one in items]
    return _scalar(value, longest)


def _plain_items(value: Mapping[Any, Any], longest: int | None, depth: int) -> dict[str, Any]:
    return {_text(str(name), longest): _plain(one, longest, depth) for name, one in value.items()}


def _given(fault: Fault) -> dict[str, Any]:
    """Return the fields of a fault that somebody chose, as they would be ordered again."""
    return {field.name: given for field in fields(fault) if (given := getattr(fault, field.name)) != field.default}


def _scalar(value: Any, longest: int | None) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, int) and not _SMALLEST <= value <= _LARGEST:
        # In hexadecimal, because Python refuses to write very long numbers in decimal.
        return _text(hex(value), longest)
    if value is None or isinstance(value, bool | int | float):
        return value
    return _text(value.decode("latin-1") if isinstance(value, bytes) else str(value), longest)


def _text(text: str, longest: int | None) -> str:
    """Return a text without half characters, cut where it is too long."""
    whole = text.encode("utf-8", "replace").decode()
    return whole if longest is None or len(whole) <= longest else whole[:longest] + _LEFT_OUT
