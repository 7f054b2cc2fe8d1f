"""Who is asked about first where a limit allows fewer status calls than are due, and what is made of spare ones.

    python benchmarks/rate_cap.py                   all of it, some minutes
    python benchmarks/rate_cap.py --quick           fewer jobs, about a minute, rougher figures
    python benchmarks/rate_cap.py --seed 3 --json

The real scheduler with its real limiter and policies, in an event loop whose time is virtual; no provider, no sandbox
and no socket. One job a second is submitted on average; the limit allows R status calls a second, so R for each job. A
job's delay is the time from its end to the status call that sees it, weighted with what a second of it is worth for
that kind of job. The exit code is 1 if a figure is worse than its mark.
"""

from __future__ import annotations

import sys
from pathlib import Path

if sys.path and Path(sys.path[0]).resolve() == Path(__file__).resolve().parent:
    # Run as a script, a file here would stand in for the standard library's `concurrent`.
    sys.path.insert(0, str(Path(sys.path.pop(0)).resolve().parent))

import argparse
import json
import statistics
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from benchmarks._rate_cap.loads import KINDS, LOADS, Arrival, draw
from benchmarks._rate_cap.trials import Bill, Clairvoyant, InDueOrder, clairvoyant_index, scheduled
from mirage_async.scheduler import AdaptiveInterval, BackoffInterval, FixedInterval

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

RATES = (1.3, 2.0, 4.0)
REPEATS = 5
JOBS, QUICK_JOBS = 6000, 2000
QUICK_SLACK = 0.05  # share by which a figure may pass its mark, for the noise of a small sample

OURS, EARLY, FIFO = "AdaptiveInterval, ask_early", "AdaptiveInterval", "every 2 s, first come first served"
INDEX, SCHEDULE = "clairvoyant index", "clairvoyant schedule and index"

WAYS: dict[str, Callable[[Sequence[Arrival], float, int], Bill]] = {
    FIFO: lambda jobs, rate, seed: scheduled(jobs, FixedInterval(2.0), rate),  # noqa: ARG005 - one signature for all
    "backoff x1.5 from 1 to 15 s": lambda jobs, rate, seed: scheduled(jobs, BackoffInterval(), rate),  # noqa: ARG005
    "AdaptiveInterval in due order": lambda jobs, rate, seed: scheduled(jobs, InDueOrder(seed), rate),
    EARLY: lambda jobs, rate, seed: scheduled(jobs, AdaptiveInterval(seed=seed), rate),
    OURS: lambda jobs, rate, seed: scheduled(jobs, AdaptiveInterval(seed=seed), rate, ask_early=True),
    SCHEDULE: lambda jobs, rate, seed: scheduled(jobs, Clairvoyant(), rate),  # noqa: ARG005
    INDEX: lambda jobs, rate, seed: clairvoyant_index(jobs, rate),  # noqa: ARG005
}
