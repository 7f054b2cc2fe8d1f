"""Killed at any moment, a program loses nothing it has paid for, and its successors buy nothing twice.

Twenty trials run each time, and cover every point once; 200 others in long mode, as many as `MIRAGE_STORM` says:
`python -m pytest -m long --no-cov tests/storm`. A trial alone: `python -m pytest -m "" --no-cov "tests/storm" -k "[137]"`.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING

import pytest
from storm_trials import Trial, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.anyio

NORMAL = 20
LONG = int(os.environ.get("MIRAGE_STORM", "200"))
TRIALS = [*range(NORMAL), *(pytest.param(n, marks=pytest.mark.long) for n in range(NORMAL, NORMAL + LONG))]


@pytest.fixture(scope="module")
def tally(request: pytest.FixtureRequest) -> Iterator[Counter[str]]:
    """Add up what the trials have shown, and print it in the end."""
    counts: Counter[str] = Counter()
    yield counts
    line = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items())
    request.config.get_terminal_writer().line(f"\nstorm: {line}")


@pytest.mark.parametrize("number", TRIALS)
async def test_what_was_paid_for_survives_a_kill(number: int, tmp_path: Path, tally: Counter[str]) -> None:
    """Each payment at the server is kept, recovered or reported as uncertain, and there is one for each purchase."""
    verdict = await run(Trial.of(number), tmp_path)
    tally["trials"] += 1
    tally.update({name: count for name, count in asdict(verdict).items() if name != "flaws"})
    assert verdict.flaws == []
    assert verdict.uncertain <= verdict.in_flight
