"""Which request meets which fault: orders for the server, for operations and in prompts, counted and seeded."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mirage_async.sandbox.faults.catalogue import directives_in, named_fault
from mirage_async.sandbox.faults.places import check_directive, check_rule
from mirage_async.sandbox.identifiers import number_from

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mirage_async.sandbox.faults.catalogue import Directive
    from mirage_async.sandbox.faults.fault import Fault
    from mirage_async.sandbox.faults.flaws import Point
    from mirage_async.sandbox.faults.places import Place

__all__ = ["FaultRule", "FaultRules", "Occasion"]

_WHOLE = 2.0**63
_MOST = 1_000_000
_MOST_COUNTED = 100_000  # orders in prompts
_DELIVERY_POINTS = frozenset({"webhook", "early"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Occasion:
    """A request or a delivery, as far as faults are concerned.

    Attributes:
        operation: for example "mirako.create".
        points: where in a job's life it stands.
        prompt: the prompt it is about, "" when it is about none.
        job_id: the job it is about, "" while there is none.
    """

    operation: str
    points: frozenset[Point]
    prompt: str = ""
    job_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultRule:
    """A fault that waits, as it stands at one moment.

    Attributes:
        id: its number, counted up from 1.
        operation: the operation it waits for; "miragic.*" is all of a provider, "*" all there are.
        fault: what goes wrong.
        remaining: how often it will still strike; None for ever.
        probability: the share of the requests it could strike that it does strike, above 0 to 1.
        prompt: text that the request's prompt must contain, "" for any.
        struck: how often it has struck.
    """

    id: int
    operation: str
    fault: Fault
    remaining: int | None
    probability: float
    prompt: str
    struck: int


@dataclass(slots=True, kw_only=True)
class _Rule:
    id: int
    operation: str
    fault: Fault
    remaining: int | None
    probability: float
    prompt: str
    struck: int = 0
    met: int = 0

    def applies(self, occasion: Occasion, place: Place) -> bool:
        """Tell whether it could strike, and would then be seen."""
        if self.prompt not in occasion.prompt or not place.takes(self.fault, embedded="picture" in occasion.points):
            return False
        point = self.fault.point
        if occasion.points & _DELIVERY_POINTS:
            # Deliveries are requests of our own: they meet what is meant for them, and by name also a stall.
            return point in occasion.points or (occasion.points == {"webhook"} and self._is_stall_for(occasion))
        if point == "any" or point in occasion.points:
            return True
        if self.operation != occasion.operation:
            return False
        # Ordered by name for the purchase, a flaw is the job's own, wherever it will show. Ordered by name for a status
        # call, it is that of one answer: an end, or a link in the result.
        return "submit" in occasion.points or point == "submit" or "result" in occasion.points

    def _is_stall_for(self, occasion: Occasion) -> bool:
        return self.fault.stall is not None and self.operation == occasion.operation

    def strikes(self, seed: int) -> bool:
        """Tell whether it strikes this time; the same times in every run with one seed."""
        self.met += 1
        if self.probability < 1 and number_from(seed, "fault", self.id, self.met) / _WHOLE >= self.probability:
            return False
        self.struck += 1
        if self.remaining is not None:
            self.remaining -= 1
        return True

    def view(self) -> FaultRule:
        return FaultRule(
            id=self.id,
            operation=self.operation,
            fault=self.fault,
            remaining=self.remaining,
            probability=self.probability,
            prompt=self.prompt,
            struck=self.struck,
        )


class FaultRules:
    """Every fault that waits. A prompt's own come first, then an operation's, a provider's, and the server's.

    Args:
        operations: the operations that exist, each with what it can show.
        seed: decides what a probability below 1 strikes.
        most_counted: for how many orders in prompts it remembers how often they struck; the oldest are forgotten first.
    """

    def __init__(self, operations: Mapping[str, Place], *, seed: int, most_counted: int = _MOST_COUNTED) -> None:
        providers = sorted({name.partition(".")[0] for name in operations})
        self._rules: dict[str, list[_Rule]] = {
            **{name: [] for name in sorted(operations)},
            **{f"{provider}.*": [] for provider in providers},
            "*": [],
        }
        self._places = operations
        self._seed = seed
        self._ids = itertools.count(1)
        self._most_counted = most_counted
        self._met_in_prompts: dict[tuple[int, str, str], int] = {}

    def __len__(self) -> int:
        return sum(rule.remaining or 1 for rules in self._rules.values() for rule in rules)

    def view(self) -> list[FaultRule]:
        """Return what waits, oldest first."""
        rules = itertools.chain.from_iterable(self._rules.values())
        return sorted((rule.view() for rule in rules), key=lambda rule: rule.id)

    def add(
        self,
        operation: str,
        *faults: Fault | str,
        times: int | None = 1,
        probability: float = 1.0,
        prompt: str = "",
    ) -> list[int]:
        """Have `faults` wait for requests to `operation`, and return their numbers.

        Raises:
            ValueError: there is no such operation or fault, or an argument is out of range.
        """
        if operation not in self._rules:
            raise ValueError(f"unknown operation {operation!r}; known: {', '.join(self._rules)}")
        if not faults:
            raise ValueError(f"no fault was given for {operation!r}")
        if times is not None and (isinstance(times, bool) or not isinstance(times, int) or not 1 <= times <= _MOST):
            raise ValueError(f"times must be a whole number from 1 to {_MOST}, or None for ever, got {times!r}")
        if isinstance(probability, bool) or not 0 < probability <= 1:
            raise ValueError(f"probability must be above 0 and at most 1, got {probability!r}")
        made = [named_fault(fault) if isinstance(fault, str) else fault for fault in faults]
        for fault in made:
            # Nothing is certain about a rule for many operations.
            if operation in self._places:
                check_rule(operation, self._places[operation], fault)
        rules = [
            _Rule(
                id=next(self._ids),
                operation=operation,
                fault=fault,
                remaining=times,
                probability=probability,
                prompt=prompt,
            )
            for fault in made
        ]
        self._rules[operation].extend(rules)
        return [rule.id for rule in rules]

    def remove(self, rule_id: int) -> bool:
        """Forget one rule; False when there is none of that number."""
        for rules in self._rules.values():
            for rule in rules:
                if rule.id == rule_id:
                    rules.remove(rule)
                    return True
        return False

    def clear(self) -> None:
        """Forget them all, and how often prompts have had theirs; what is ordered next strikes as in a new sandbox."""
        for rules in self._rules.values():
            rules.clear()
        self._met_in_prompts.clear()
        # A rule's number is part of its luck.
        self._ids = itertools.count(1)

    def take(self, occasion: Occasion) -> Fault | None:
        """Return what goes wrong this time, if anything does.

        Raises:
            ValueError: the prompt orders a fault that does not exist, or one that its purchase could never show.
        """
        return self._from_prompt(occasion) or self._from_rules(occasion)

    def _from_prompt(self, occasion: Occasion) -> Fault | None:
        if "[[fault:" not in occasion.prompt:
            return None
        directives = directives_in(occasion.prompt)
        if "submit" in occasion.points:
            for directive in directives:
                check_directive(directive, occasion.operation, occasion.points, self._places)
        here = (directive for directive in directives if directive.point in occasion.points)
        return next((directive.fault for directive in here if self._has_turn(directive, occasion)), None)

    def _has_turn(self, directive: Directive, occasion: Occasion) -> bool:
        """Tell whether an order strikes once more, and count it."""
        is_purchase = "submit" in occasion.points
        if directive.times is None or (is_purchase and directive.fault.flaw is not None and not directive.is_counted):
            return True
        # A purchase may be sent again, and then it is another job: what strikes it is counted for the prompt.
        scope = "" if is_purchase else occasion.job_id
        key = (number_from(occasion.prompt), directive.order, scope)
        met = self._met_in_prompts.get(key, 0)
        if met >= directive.times:
            return False
        self._met_in_prompts[key] = met + 1
        if len(self._met_in_prompts) > self._most_counted:
            del self._met_in_prompts[next(iter(self._met_in_prompts))]
        return True

    def _from_rules(self, occasion: Occasion) -> Fault | None:
        provider = occasion.operation.partition(".")[0]
        place = self._places[occasion.operation]
        for pattern in (occasion.operation, f"{provider}.*", "*"):
            for rule in self._rules.get(pattern, ()):
                if rule.applies(occasion, place) and rule.strikes(self._seed):
                    if rule.remaining == 0:
                        self._rules[pattern].remove(rule)
                    return rule.fault
        return None
