"""Orders to the clock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mirage_async.sandbox.control.orders import ClockOrder
from mirage_async.sandbox.control.views import clock_view

if TYPE_CHECKING:
    from mirage_async.sandbox.control.commands import Console
    from mirage_async.sandbox.control.gate import Order

__all__ = ["move_clock", "show_clock"]

_FIELDS = ("seconds", "at", "after")
_TAKES = {"freeze": "at", "resume": "", "advance": "seconds", "auto_advance": "after"}


async def show_clock(console: Console, order: Order) -> Any:
    """Show what the clock says and does."""
    order.filters()
    return clock_view(console.world.clock)


async def move_clock(console: Console, order: Order) -> Any:
    """Freeze the clock, let it run or jump, and show it."""
    move = order.body(ClockOrder)
    _check_fields(move)
    clock = console.world.clock
    if move.action == "freeze":
        clock.freeze(at=move.at)
    elif move.action == "resume":
        clock.resume()
    elif move.seconds is not None:
        clock.advance(move.seconds)
    elif move.after is None:
        clock.auto_advance()
    else:
        clock.auto_advance(after=move.after)
    return clock_view(clock)


def _check_fields(move: ClockOrder) -> None:
    if move.action not in _TAKES:
        raise ValueError(f"action must be one of {', '.join(_TAKES)}; got {move.action!r}")
    takes = _TAKES[move.action]
    for name in _FIELDS:
        if name != takes and getattr(move, name) is not None:
            raise ValueError(f"{move.action} takes {takes or 'no further field'}, got {name}={getattr(move, name)!r}")
    if move.action == "advance" and move.seconds is None:
        raise ValueError("advance takes seconds, and none were given")
