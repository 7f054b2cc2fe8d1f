"""The simulated day is lived through as a reader would, on virtual time and in its short form; its marks are real."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_day_of_drift_cold_starts_an_outage_and_a_lying_bar_is_cheap_in_every_hour() -> None:
    """Two days of 3550 jobs: near the best schedules, in no hour dearer than without learning, fooled by no bar."""
    script = ROOT / "benchmarks" / "polling.py"
    ended = subprocess.run(
        [sys.executable, "-W", "error", str(script), "--day", "--quick", "--json", "--seed", "0"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    day = json.loads(ended.stdout)
    ours, prior, backoff, loops, fixed = day["policies"].values()
    assert day["overall"]["AdaptiveInterval, the default"] <= 1.15
    assert all(learned <= 1.05 * unlearned for learned, unlearned in zip(ours, prior, strict=True))
    assert day["lying"] <= 1.05
    assert day["honest"] < 0.85
    assert min(sum(day["jobs"]), len(ours), len(backoff), len(loops), len(fixed)) == 24
    assert sum(day["jobs"]) == 3550
    assert day["overall"]["AdaptiveInterval, the default"] * 1.4 < min(
        day["overall"][name] for name in list(day["overall"])[2:4]
    )
