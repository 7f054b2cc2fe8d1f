"""Which request meets which fault: orders for the server, for operations and in prompts, counted and seeded."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from mirage_async.sandbox.faults.catalogue import directives_in, named_fault
from mirage_async.sandbox.identifiers import number_from

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mirage_async.sandbox.faults.fault import Fault
    from mirage_async.sandbox.faults.flaws import Point

__all__ = ["FaultRule", "FaultRules", "Occasion"]

_WHOLE = 2.0**63
_MOST = 1_000_000
_PLACES = {
    "list": "which takes statuses and trouble with the connection",
    "picture": "which takes statuses, trouble with the connection, and flaws of pictures",
    "status": "which takes everything but flaws of deliveries",
    "submit": "which takes everything but flaws of deliveries",
    "webhook": "which takes flaws of deliveries and a stall",
}
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

    def applies(self, occasion: Occasion) -> bool:
        """Tell whether it could strike."""
        if self.prompt not in occasion.prompt:
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
        operations: the operations that exist, each with what it is for its job: "submit", "status", "list", "picture"
            or "webhook".
        seed: decides what a probability below 1 strikes.
    """

    def __init__(self, operations: Mapping[str, str], *, seed: int) -> None:
        providers = sorted({name.partition(".")[0] for name in operations})
        self._rules: dict[str, list[_Rule]] = {
            **{name: [] for name in sorted(operations)},
            **{f"{provider}.*": [] for provider in providers},
            "*": [],
        }
        self._stages = operations
        self._seed = seed
        self._ids = itertools.count(1)
        self._met_in_prompts: Counter[tuple[str, str, str]] = Counter()

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
            _check_place(operation, self._stages.get(operation), fault)
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
        """Forget them all, and how often prompts have had theirs."""
        for rules in self._rules.values():
            rules.clear()
        self._met_in_prompts.clear()

    def take(self, occasion: Occasion) -> Fault | None:
        """Return what goes wrong this time, if anything does.

        Raises:
            ValueError: the prompt orders a fault that does not exist.
        """
        return self._from_prompt(occasion) or self._from_rules(occasion)

    def _from_prompt(self, occasion: Occasion) -> Fault | None:
        if "[[fault:" not in occasion.prompt:
            return None
        for directive in _directives_in(occasion.prompt):
            if directive.point not in occasion.points:
                continue
            # A purchase may be sent again, and then it is another job: what strikes it is counted for the prompt.
            scope = "" if directive.point == "submit" else occasion.job_id
            key = (occasion.prompt, directive.order, scope)
            if directive.times is None or self._met_in_prompts[key] < directive.times:
                self._met_in_prompts[key] += 1
                return directive.fault
        return None

    def _from_rules(self, occasion: Occasion) -> Fault | None:
        provider = occasion.operation.partition(".")[0]
        for pattern in (occasion.operation, f"{provider}.*", "*"):
            for rule in self._rules.get(pattern, ()):
                if rule.applies(occasion) and rule.strikes(self._seed):
                    if rule.remaining == 0:
                        self._rules[pattern].remove(rule)
                    return rule.fault
        return None


_directives_in = lru_cache(maxsize=256)(directives_in)


def _check_place(operation: str, stage: str | None, fault: Fault) -> None:
    """Refuse what could never strike; nothing is certain about a rule for many operations."""
    if stage is None:
        return
    if fault.point == "any":
        fits = stage != "webhook" or fault.stall is not None
    elif fault.point in _DELIVERY_POINTS:
        fits = stage == "webhook"
    else:
        fits = stage in ("submit", "status") or stage == fault.point
    if not fits:
        raise ValueError(f"{fault} never strikes {operation}, {_PLACES[stage]}")
