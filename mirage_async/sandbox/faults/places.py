"""What an operation can show of the faults there are: what is ordered for it and could never be seen is refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from mirage_async.sandbox.faults.flaws import ANSWER_FLAWS, DELIVERY_FLAWS, FLAWS

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from mirage_async.sandbox.faults.catalogue import Directive
    from mirage_async.sandbox.faults.fault import Fault
    from mirage_async.sandbox.faults.flaws import Point

__all__ = ["WEBHOOK", "Place", "Stage", "check_directive", "check_rule"]

Stage: TypeAlias = Literal["submit", "status", "list", "picture", "webhook"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """An operation, as far as faults are concerned.

    Attributes:
        stage: what it is for its job: what buys it, asks for it, lists it, hands out its picture, or announces its end.
        flaws: the flaws it can show, itself or, for a purchase, in what its job will show for as long as it lives.
        embedded_flaws: the same for a request whose answer holds the picture itself; None for no difference.
        embeds: whether its answers always hold the picture itself.
        leads_to: the operations that are about its job later on.
    """

    stage: Stage
    flaws: frozenset[str] = ANSWER_FLAWS
    embedded_flaws: frozenset[str] | None = None
    embeds: bool = False
    leads_to: tuple[str, ...] = ()

    def takes(self, fault: Fault, *, embedded: bool) -> bool:
        """Tell whether it can show `fault`, in an answer that holds the picture itself or in another one."""
        if fault.flaw is not None:
            return fault.flaw in self._flaws(embedded=embedded)
        return self.stage != "webhook" or fault.stall is not None

    def meets(self, point: Point) -> bool:
        """Tell whether it is where `point` strikes, for what comes after a purchase."""
        if self.stage == "status":
            return point in ("status", "result") or (point == "picture" and self.embeds)
        return point in ("webhook", "early") if self.stage == "webhook" else point == self.stage

    def menu(self, *, embedded: bool) -> str:
        """Return what it takes, for a person."""
        return self._list(self._flaws(embedded=embedded))

    def whole_menu(self) -> str:
        """Return what it takes from one request or another, for a person."""
        return self._list(self.flaws | (self.embedded_flaws or self.flaws))

    def _flaws(self, *, embedded: bool) -> frozenset[str]:
        return self.embedded_flaws if embedded and self.embedded_flaws is not None else self.flaws

    def _list(self, flaws: Collection[str]) -> str:
        others = "a stall" if self.stage == "webhook" else "statuses, trouble with the connection"
        return f"{others}, {', '.join(flaw for flaw in FLAWS if flaw in flaws)}"


WEBHOOK = Place(stage="webhook", flaws=DELIVERY_FLAWS)
"""Deliveries, of whatever provider."""


def check_rule(operation: str, place: Place, fault: Fault) -> None:
    """Refuse a fault that no request to `operation` could ever show.

    Raises:
        ValueError: it is such a fault; the message lists the others.
    """
    if not (place.takes(fault, embedded=False) or place.takes(fault, embedded=True)):
        raise ValueError(f"{fault} never strikes {operation}, which takes {place.whole_menu()}")


def check_directive(
    directive: Directive, operation: str, points: frozenset[Point], places: Mapping[str, Place]
) -> None:
    """Refuse a directive that neither the purchase it stands in nor anything about its job could ever show.

    Args:
        directive: what the prompt orders.
        operation: the purchase.
        points: where in a job's life the purchase stands.
        places: all operations.

    Raises:
        ValueError: it is such a directive; the message lists what could be ordered for its point.
    """
    embedded = "picture" in points
    later = (places[name] for name in places[operation].leads_to)
    reached = [
        *([places[operation]] if directive.point in points else []),
        # Who holds the picture already has nothing to download.
        *(place for place in later if place.meets(directive.point) and not (embedded and place.stage == "picture")),
    ]
    if not any(place.takes(directive.fault, embedded=embedded) for place in reached):
        menu = "; ".join(place.menu(embedded=embedded) for place in reached) or "nothing"
        raise ValueError(
            f"fault {directive.order!r} would never show: at the point {directive.point} a purchase from {operation} "
            f"takes {menu}"
        )
