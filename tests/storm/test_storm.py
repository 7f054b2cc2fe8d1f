"""Killed at any moment, a program loses nothing it has paid for, and its successors buy nothing twice.

Twenty trials run each time, and cover every point once. Long mode runs 200 others, or as many as `MIRAGE_STORM` says:
`python -m pytest -m long --no-cov tests/storm`. One alone: `python -m pytest -m "" --no-cov tests/storm -k "[137]"`.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING

import pytest
from storm_trials import Trial, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(sys.platform == "win32", reason="only POSIX has SIGKILL")]

NORMAL = 20
LONG = int(os.environ.get("MIRAGE_STORM", "200"))
TRIALS = [*range(NORMAL), *(pytest.param(n, marks=pytest.mark.long) for n in range(NORMAL, NORMAL + LONG))]
SUMMARY = """
storm: {trials} trials, {killed} programs killed, {paid} purchases charged for:
{kept} kept ({recovered} of them by recover(), {asked_again} by asking again under their key),
{failed} told to have failed at the provider, {uncertain_paid} uncertain, {flaws} lost, bought twice or otherwise wrong;
{in_flight} in flight when killed ({unanswered} of them at the server, unanswered), {uncertain} told as uncertain"""


@pytest.fixture(scope="module")
def tally(request: pytest.FixtureRequest) -> Iterator[Counter[str]]:
    """Add up what the trials have shown, and print it in the end."""
    counts: Counter[str] = Counter()
    yield counts
    if counts["long"]:
        capture = request.config.pluginmanager.getplugin("capturemanager")
        assert capture is not None
        with capture.global_and_fixture_disabled():
            request.config.get_terminal_writer().line(SUMMARY.format_map(counts))


@pytest.mark.parametrize("number", TRIALS)
async def test_what_was_paid_for_survives_a_kill(number: int, tmp_path: Path, tally: Counter[str]) -> None:
    """Each payment at the server is kept, recovered or reported as uncertain, and there is one for each purchase."""
    verdict = await run(Trial.of(number), tmp_path)
    tally["trials"] += 1
    tally["long"] += number >= NORMAL
    tally.update(asdict(verdict) | {"flaws": len(verdict.flaws)})
    assert verdict.flaws == []
    assert verdict.uncertain <= verdict.in_flight


@pytest.mark.parametrize(
    ("sabotage", "moment", "found"),
    [
        ("forgets intents", "after the reply", "is lost"),
        ("forgets ids", "polling", "was not in flight"),
        ("forgets outcomes", "after the outcome", "was not in flight"),
        ("sends again", "mid-POST, taken", "was bought 2 times"),
    ],
)
async def test_the_judge_finds_what_is_broken(sabotage: str, moment: str, found: str, tmp_path: Path) -> None:
    """A trial of a product that forgets, or that buys again unasked, does not pass."""
    trial = Trial(number=0, moment=moment, again=(), keyed=False, programs=1, prompts=True, noisy=False)
    verdict = await run(trial, tmp_path, sabotage=sabotage)
    assert any(found in flaw for flaw in verdict.flaws), verdict
