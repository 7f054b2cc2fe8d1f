"""Webhooks: what a delivery costs a service, how soon it resolves its job, and how many status calls are left.

    python benchmarks/webhooks.py              all of it, some minutes
    python benchmarks/webhooks.py --quick      the same with fewer and shorter jobs, under a minute
    python benchmarks/webhooks.py --json

Three parts. The receiver beside a bare aiohttp handler that reads the body and answers 204: both in one server process,
mounted alike, in turn, by the CPU time of that process. A delivery beside a status call about the same job. And many
jobs at a sandbox that wait together and are resolved by its deliveries. The exit code is 1 if a target is missed.
"""

from __future__ import annotations

import sys
from pathlib import Path

if sys.path and Path(sys.path[0]).resolve() == Path(__file__).resolve().parent:
    # Run as a script, a file here would stand in for the standard library's `concurrent`.
    sys.path.insert(0, str(Path(sys.path.pop(0)).resolve().parent))

import argparse
import asyncio
import json
import statistics
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from benchmarks._mark import Mark
from benchmarks._webhooks.jobs import Latency, Waiting, measure_latency, measure_waiting
from benchmarks._webhooks.throughput import Throughput, measure_throughput

if TYPE_CHECKING:
    from collections.abc import Sequence

RATIO = 0.75  # of a bare handler's throughput, at least
POLLS = 1.1  # status calls a job, at most, the verifying one included
CONNECTIONS = (1, 64)


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much is measured.

    Attributes:
        requests: in one repeat of the throughput.
        repeats: of the throughput, for each handler and number of connections.
        deliveries: of the latency.
        jobs: that wait together.
        durations: seconds those last, from and to.
    """

    requests: int
    repeats: int
    deliveries: int
    jobs: int
    durations: tuple[float, float]


FULL = Size(requests=2_000, repeats=25, deliveries=300, jobs=10_000, durations=(60.0, 120.0))
QUICK = Size(requests=1_000, repeats=9, deliveries=50, jobs=500, durations=(4.0, 6.0))


@dataclass(frozen=True, kw_only=True)
class Report:
    """All of it."""

    throughput: Sequence[Throughput]
    latency: Latency
    waiting: Waiting
    targets: Sequence[Mark]


def measure(size: Size, seed: int) -> Report:
    """Run the three parts one after the other."""
    throughput = measure_throughput(requests=size.requests, repeats=size.repeats, connections=CONNECTIONS, seed=seed)
    latency = asyncio.run(measure_latency(repeats=size.deliveries, seed=seed))
    waiting = asyncio.run(measure_waiting(jobs=size.jobs, durations=size.durations, seed=seed))
    targets = [
        Mark(
            name=f"receiver / bare handler, {one.connections} connections", figure=one.ratio, bound=RATIO, at_least=True
        )
        for one in throughput
    ]
    targets.append(Mark(name="status calls a job", figure=waiting.polls_per_job, bound=POLLS))
    targets.append(Mark(name="deliveries refused", figure=waiting.refused, bound=0))
    return Report(throughput=throughput, latency=latency, waiting=waiting, targets=targets)


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Return the median of some values, and the least and the largest."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def text(report: Report) -> str:
    """Return the report for people, as Markdown."""
    waiting = report.waiting
    parts = [
        "CPU microseconds of the server for one delivery, median (least-most)",
        table(
            ("connections", "bare handler", "receiver", "bare / receiver"),
            [
                (str(one.connections), spread(one.bare), spread(one.receiver), f"{one.ratio:.2f}")
                for one in report.throughput
            ],
        ),
        "Milliseconds, one at a time, median (least-most)",
        table(
            ("from a delivery to its result", "one status round trip"),
            [(spread(report.latency.resolved), spread(report.latency.round_trip))],
        ),
        f"{waiting.jobs} jobs, {waiting.most_waiting} of them under way at once",
        table(
            ("status calls a job", "delivery to result, median", "99 %", "client CPU a job", "deliveries refused"),
            [
                (
                    f"{waiting.polls_per_job:.3f}",
                    f"{waiting.delay_median:.2f} s",
                    f"{waiting.delay_p99:.2f} s",
                    f"{waiting.cpu_ms_per_job:.2f} ms",
                    str(waiting.refused),
                )
            ],
        ),
        "Targets",
        table(
            ("", "figure", "target", ""),
            [
                (
                    target.name,
                    f"{target.figure:.3f}",
                    f"{'>=' if target.at_least else '<='} {target.bound:g}",
                    "met" if target.met else "MISSED",
                )
                for target in report.targets
            ],
        ),
    ]
    return "\n\n".join(parts)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="webhooks: cost, latency, and the status calls that are left")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter jobs: under a minute, rougher figures")
    parser.add_argument("--seed", type=int, default=0, help="the same seed sends the same deliveries")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print its report."""
    options = parsed(arguments)
    report = measure(QUICK if options.quick else FULL, options.seed)
    print(json.dumps(asdict(report)) if options.json else text(report))
    sys.exit(0 if all(target.met for target in report.targets) else 1)


if __name__ == "__main__":
    main()
