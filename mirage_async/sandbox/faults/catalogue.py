"""Faults by name, as they are ordered on a command line, over the control routes and inside a prompt."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from mirage_async.sandbox.faults.fault import Fault
from mirage_async.sandbox.faults.flaws import FLAWS, MEANINGS, POINTS
from mirage_async.sandbox.identifiers import number_from

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mirage_async.sandbox.faults.flaws import Point

__all__ = ["GLOSSARY", "NAMES", "Directive", "FaultName", "directives_in", "named_fault", "shortened"]

_HTML = "<!DOCTYPE html><html><body><h1>{status}</h1><p>The server is having a rest.</p></body></html>"
_GARBAGE = b"\x16\x03\x01 this is not HTTP\r\n\r\n"
_SLOW = 2.0  # seconds
_CUT = 20  # bytes
_LONGEST_PROMPT = 4000  # characters that are kept of one
_LONGEST_ORDER = 50  # characters
_MOST_ORDERS = 50
_STATUS = re.compile(r"[45][0-9]{2}")
_MARK = re.compile(r"\[\[fault:(?P<order>[^\[\]]*)\]\]")
_ORDER = re.compile(r"(?P<name>[a-z0-9-]+?(?::[a-z0-9.]+?)?)(?:x(?P<times>[0-9]{1,6}|\*))?(?:@(?P<point>[a-z]+))?")


def _seconds(text: str, default: float) -> float:
    try:
        seconds = float(text) if text else default
    except ValueError:
        raise ValueError(f"want seconds, got {text!r}") from None
    if not seconds >= 0:
        raise ValueError(f"want seconds, zero or more, got {text!r}")
    return seconds


def _bytes(text: str) -> int:
    if text and not text.isdecimal():
        raise ValueError(f"want a number of bytes, got {text!r}")
    return int(text or _CUT)


def _plain(fault: Fault) -> Callable[[str], Fault]:
    """Return what makes a fault that leaves nothing to choose."""

    def make(argument: str) -> Fault:
        if argument:
            raise ValueError(f"it takes nothing after the colon, got {argument!r}")
        return fault

    return make


_MADE: Mapping[str, Callable[[str], Fault]] = {
    "hang": lambda text: Fault(stall=_seconds(text, math.inf)),
    "reset": _plain(Fault(reset=True)),
    "reset-after": _plain(Fault(reset=True, when="after")),
    "lost": _plain(Fault(stall=0, when="after")),
    "truncated": lambda text: Fault(cut=_bytes(text)),
    "cut-head": _plain(Fault(cut_head=True)),
    "garbage": _plain(Fault(garbage=_GARBAGE)),
    "dribble": lambda text: Fault(dribble=_seconds(text, _SLOW)),
    "slow": lambda text: Fault(dribble=_seconds(text, _SLOW)),
    "late": lambda text: Fault(stall=_seconds(text, _SLOW)),
}

NAMES: tuple[str, ...] = (*_MADE, *FLAWS)
"""Every name but the statuses 400-599, which are names as well."""

_DELIVERY_FLAWS = [name for name, point in FLAWS.items() if point in ("webhook", "early")]
_HOMES: Mapping[str, Point] = {**FLAWS, "slow": "picture", "late": "webhook"}

_ALL_MEANINGS: Mapping[str, str] = {
    "400-599": "that status in the provider's words; 429:2 adds Retry-After, 429:date as a date, 502:html sends a page",
    "hang": "nothing is done, and no answer comes until the client leaves; hang:3 closes after 3 seconds",
    "reset": "a TCP reset in place of the work",
    "reset-after": "the work is done and charged, then a TCP reset",
    "lost": "the work is done and charged, then the connection is closed without an answer",
    "truncated": "the work is done, and the answer ends after 20 bytes of its body; truncated:100 after 100",
    "cut-head": "the connection is closed in the middle of the answer's head; nothing is done",
    "garbage": "bytes that are not HTTP; nothing is done",
    "dribble": "the work is done, and the answer takes 2 seconds to arrive; dribble:5 takes 5",
    "slow": "the picture takes 2 seconds to arrive; slow:5 takes 5",
    "late": "the delivery arrives 2 seconds late; late:5 is 5",
    **MEANINGS,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultName:
    """A name, explained.

    Attributes:
        name: as in `NAMES`, or "400-599" for the statuses.
        point: where it strikes when a prompt orders it and names no point; for "any" that is the purchase.
        meaning: what it looks like from outside.
    """

    name: str
    point: Point
    meaning: str


GLOSSARY: tuple[FaultName, ...] = tuple(
    FaultName(name=name, point=_HOMES.get(name, "any"), meaning=meaning) for name, meaning in _ALL_MEANINGS.items()
)
"""Every name there is."""


def named_fault(name: str) -> Fault:
    """Return the fault of that name.

    "429", "429:2" (Retry-After: 2), "429:date" (Retry-After as a date a second ahead), "502:html", "hang" or "hang:3",
    "truncated:100", "dribble:5", and every name of `FLAWS`.

    Raises:
        ValueError: there is none, or what follows the colon does not suit it.
    """
    head, _, argument = name.partition(":")
    try:
        if head in _MADE:
            return _MADE[head](argument)
        if head in FLAWS and not argument:
            return Fault(flaw=head)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        if _STATUS.fullmatch(head):
            return _status(int(head), argument)
    except ValueError as error:
        raise ValueError(f"fault {name!r}: {error}") from None
    raise ValueError(f"unknown fault {name!r}; known: a status 400-599, {', '.join(NAMES)}")


def _status(status: int, argument: str) -> Fault:
    if argument == "html":
        return Fault(status=status, body=_HTML.format(status=status))
    if argument == "date":
        return Fault(status=status, retry_at=1.0)
    try:
        return Fault(status=status, retry_after=_seconds(argument, 0.0) if argument else None)
    except ValueError:
        raise ValueError(f"want seconds, date or html after the colon, got {argument!r}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Directive:
    """A fault that a prompt orders for itself.

    Attributes:
        order: the words between the brackets.
        fault: what goes wrong.
        point: where.
        times: how often; None for always.
        is_counted: whether the order itself says how often. Without it, a flaw strikes every purchase.
    """

    order: str
    fault: Fault
    point: Point
    times: int | None
    is_counted: bool


def directives_in(prompt: str) -> tuple[Directive, ...]:
    """Return the faults that stand in a prompt, such as "[[fault:429x3]]" or "[[fault:503:html x*@status]]".

    Raises:
        ValueError: something between such brackets orders nothing, or there are too many of them.
    """
    orders = [match["order"].replace(" ", "") for match in _MARK.finditer(prompt)]
    if len(orders) > _MOST_ORDERS:
        raise ValueError(f"a prompt may order up to {_MOST_ORDERS} faults, got {len(orders)}")
    return tuple(_directive(order) if len(order) <= _LONGEST_ORDER else _too_long(order) for order in orders)


def shortened(prompt: str) -> str:
    """Return what is kept of a prompt: all of it up to 4,000 characters, otherwise so many.

    Those are its beginning, its length, a number that depends on every character of it, and all faults it orders.
    """
    if len(prompt) <= _LONGEST_PROMPT:
        return prompt
    orders = (match["order"].replace(" ", "") for match in _MARK.finditer(prompt))
    tail = f" ... {len(prompt)}/{number_from(prompt)} " + "".join(f"[[fault:{order}]]" for order in orders)
    return _MARK.sub(" ", prompt)[: _LONGEST_PROMPT - len(tail)] + tail


def _too_long(order: str) -> Directive:
    raise ValueError(
        f"a fault has up to {_LONGEST_ORDER} characters, got {len(order)} in {order[:_LONGEST_ORDER]!r}..."
    )


@lru_cache(maxsize=1024)
def _directive(order: str) -> Directive:
    match = _ORDER.fullmatch(order)
    if match is None:
        raise ValueError(
            f"cannot read the fault {order!r}; want NAME[:ARGUMENT][xTIMES or x*][@{' or @'.join(POINTS)}]"
        )
    name, times, point = match["name"], match["times"], match["point"]
    fault = named_fault(name)
    if point is not None and point not in POINTS:
        raise ValueError(f"fault {order!r}: unknown point {point!r}; known: {', '.join(POINTS)}")
    if times == "0":
        raise ValueError(f"fault {order!r}: times must be a whole number from 1, or * for always, got 0")
    if point == "webhook" and fault.point == "any" and fault.stall is None:
        raise ValueError(f"fault {order!r}: a delivery takes late and {', '.join(_DELIVERY_FLAWS)}")
    home = _HOMES.get(name.partition(":")[0], "any")
    if point is None or home == "early":
        point = "submit" if home == "any" else home
    often = None if times == "*" else int(times or 1)
    return Directive(order=order, fault=fault, point=point, times=often, is_counted=times is not None)
