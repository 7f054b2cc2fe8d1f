"""What a person asked the batch to do."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mirage_async.cli._exits import CommandError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from mirage_async.cli._batch.lines import Line, Problem

__all__ = ["BatchOrder", "Bound", "bound_of"]

_BOUND = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?(purchases?|pictures?|credits?)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """Where the buying stops.

    Attributes:
        amount: how much may be bought.
        unit: "purchases", "pictures" or "credits".
        typed: what a person has said.
    """

    amount: float
    unit: str
    typed: str

    def __str__(self) -> str:
        return f'--budget "{self.typed}"'


def bound_of(text: str) -> Bound:
    """Read a budget: a number of purchases, pictures or credits.

    Raises:
        CommandError: it is none.
    """
    match = _BOUND.fullmatch(text.strip())
    unit = "" if match is None else (match[2] or "purchases").rstrip("s") + "s"
    if match is None or ("." in match[1] and unit != "credits"):
        raise CommandError(f'--budget must look like "100", "250 pictures" or "12.5 credits"; got {text!r:.60}')
    return Bound(amount=float(match[1]), unit=unit, typed=text.strip())


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchOrder:
    """One run of a batch.

    Attributes:
        source: where the lines came from, for messages; "-" is stdin.
        base: the folder that relative references are in.
        lines: the requests.
        problems: what is wrong with the other lines.
        comments: how many lines were skipped because they are comments.
        defaults: fields of a request for the lines that do not say them.
        folder: for the pictures and all that is known of them.
        limit: the most purchases under way.
        bound: where the buying stops, or None.
        price: credits a picture costs where the provider does not say; None where nobody does.
        retry_failed: whether what failed is bought once more.
        sandbox: whether a sandbox draws.
        as_json: whether stdout gets records and not paths.
        quiet: whether there is no progress.
        again: the command line that goes on with the batch.
    """

    source: str
    base: Path
    lines: Sequence[Line]
    problems: Sequence[Problem]
    comments: int = 0
    defaults: Mapping[str, Any]
    folder: Path
    limit: int
    bound: Bound | None
    price: float | None
    retry_failed: bool
    sandbox: bool
    as_json: bool
    quiet: bool
    again: str
