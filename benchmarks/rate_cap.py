"""Who is asked about first where a limit allows fewer status calls than are due, and what is made of spare ones.

    python benchmarks/rate_cap.py                   all of it, some minutes
    python benchmarks/rate_cap.py --quick           fewer jobs, half the time, rougher figures
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
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from benchmarks._rate_cap.loads import KINDS, LOADS, Arrival, draw
from benchmarks._rate_cap.ranking import ranking
from benchmarks._rate_cap.trials import Bill, Clairvoyant, InDueOrder, clairvoyant_index, scheduled
from mirage_async.scheduler import AdaptiveInterval, BackoffInterval, FixedInterval

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

RATES = (1.3, 2.0, 4.0)  # status calls for each job
REPEATS = 5
JOBS, QUICK_JOBS = 4000, 2500  # first come first served takes long to reach its worst
QUICK_SLACK = 0.1  # share by which a figure may pass its mark, for the noise of a small sample

FIFO, ADAPTIVE, EARLY = "every 2 s, first come first served", "AdaptiveInterval", "AdaptiveInterval, ask_early"
SCHEDULE, INDEX = "clairvoyant schedule and index", "clairvoyant index"
WAYS: dict[str, Callable[[Sequence[Arrival], float, int], Bill]] = {
    FIFO: lambda jobs, rate, _: scheduled(jobs, FixedInterval(2.0), rate),
    "backoff x1.5 from 1 to 15 s": lambda jobs, rate, _: scheduled(jobs, BackoffInterval(), rate),
    "AdaptiveInterval in due order": lambda jobs, rate, seed: scheduled(jobs, InDueOrder(seed), rate),
    ADAPTIVE: lambda jobs, rate, seed: scheduled(jobs, AdaptiveInterval(seed=seed), rate),
    EARLY: lambda jobs, rate, seed: scheduled(jobs, AdaptiveInterval(seed=seed), rate, ask_early=True),
    SCHEDULE: lambda jobs, rate, _: scheduled(jobs, Clairvoyant(), rate),
    INDEX: lambda jobs, rate, _: clairvoyant_index(jobs, rate),
}


class Figure(NamedTuple):
    """Median, lowest and highest of the repeats."""

    median: float
    lowest: float
    highest: float

    def __str__(self) -> str:
        return f"{self.median:.3g} [{self.lowest:.3g}-{self.highest:.3g}]"


def figure(values: Iterable[float]) -> Figure:
    """Sum up the repeats."""
    found = sorted(values)
    return Figure(statistics.median(found), found[0], found[-1])


@dataclass(frozen=True, kw_only=True)
class Row:
    """One way under one load and limit.

    Attributes:
        delay: mean of a job's delay, in the status calls it is worth.
        over_index: the same as a multiple of the clairvoyant index's, of the same jobs.
        cost: status calls a job and `delay` together.
        used: share of the allowed status calls that were made.
        delays: mean delay in seconds by kind.
        others: the most status calls to others that anybody had to wait for, in any repeat.
        bound: the stated bound for that.
        longest_wait: the longest any call that was due waited for its turn, in seconds, in any repeat.
    """

    load: str
    rate: float
    way: str
    delay: Figure
    over_index: Figure
    cost: Figure
    used: Figure
    delays: dict[str, Figure]
    others: int
    bound: int
    longest_wait: float


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A figure that has to stay on one side of a bound."""

    name: str
    figure: Figure
    bound: float
    at_least: bool
    met: bool


@dataclass(kw_only=True)
class Report:
    """All figures."""

    seed: int
    jobs: int
    repeats: int
    rows: list[Row] = field(default_factory=list[Row])
    ranking: dict[str, Figure] = field(default_factory=dict[str, Figure])
    marks: list[Mark] = field(default_factory=list[Mark])


def measure(loads: Iterable[str], jobs: int, repeats: int, seed: int, slack: float) -> Report:
    """Run everything, all ways on the same jobs one after the other."""
    report = Report(seed=seed, jobs=jobs, repeats=repeats)
    for load in loads:
        for rate in RATES:
            bills: dict[str, list[Bill]] = {way: [] for way in WAYS}
            for repeat in range(repeats):
                arrivals = draw(load, jobs, REPEATS * seed + repeat)
                for way, go in WAYS.items():
                    bills[way].append(go(arrivals, rate, repeat))
            report.rows += [_row(load, rate, way, bills) for way in WAYS]
            report.marks += _marks(load, rate, bills, slack)
    report.ranking = {name: figure(values) for name, values in ranking(repeats).items()}
    longest, bound = report.ranking["longest ranking, ms"], 50.0
    report.marks.append(
        Mark(name="longest ranking, ms", figure=longest, bound=bound, at_least=False, met=longest.median <= bound)
    )
    return report


def _row(load: str, rate: float, way: str, bills: dict[str, list[Bill]]) -> Row:
    own, best = bills[way], bills[INDEX]
    return Row(
        load=load,
        rate=rate,
        way=way,
        delay=figure(bill.weighted for bill in own),
        over_index=_ratio(own, best),
        cost=figure(_cost(bill, rate) for bill in own),
        used=figure(bill.calls for bill in own),
        delays={kind: figure(bill.mean(kind) for bill in own) for kind in KINDS if own[0].delays[kind]},
        others=max(bill.others for bill in own),
        bound=max(bill.bound for bill in own),
        longest_wait=max(bill.longest_wait for bill in own),
    )


def _cost(bill: Bill, rate: float) -> float:
    return bill.weighted + bill.calls * rate


def _ratio(above: list[Bill], below: list[Bill]) -> Figure:
    return figure(one.weighted / other.weighted for one, other in zip(above, below, strict=True))


def _marks(load: str, rate: float, bills: dict[str, list[Bill]], slack: float) -> list[Mark]:
    def mark(name: str, found: Figure, bound: float, *, at_least: bool = False, slack: float = slack) -> Mark:
        met = found.median >= bound * (1 - slack) if at_least else found.median <= bound * (1 + slack)
        return Mark(name=f"{load}, {rate:g}: {name}", figure=found, bound=bound, at_least=at_least, met=met)

    costs = zip(bills[ADAPTIVE], bills[SCHEDULE], strict=True)
    marks = [
        mark("delay with ask_early by the clairvoyant index's", _ratio(bills[EARLY], bills[INDEX]), 1.12),
        mark(
            "calls and delay by the clairvoyant schedule's",
            figure(_cost(a, rate) / _cost(b, rate) for a, b in costs),
            1.12,
        ),
    ]
    if load == "mixed":
        marks += [
            mark(f"first come first served by {way}", _ratio(bills[FIFO], bills[way]), 12, at_least=True)
            for way in (ADAPTIVE, EARLY)
        ]
    kept = [bill.others / bill.bound for way in (ADAPTIVE, EARLY) for bill in bills[way] if bill.bound]
    return [*marks, mark("calls anybody waited for by the stated bound, at most", figure([max(kept)]), 1.0, slack=0)]


def text(report: Report) -> str:
    """Return the report for people, as Markdown."""
    parts = [f"{report.jobs} jobs, {report.repeats} repeats: median [lowest-highest]"]
    for load in dict.fromkeys(row.load for row in report.rows):
        for rate in RATES:
            rows = [row for row in report.rows if (row.load, row.rate) == (load, rate)]
            kinds = list(rows[0].delays)
            lines = [
                (
                    row.way,
                    str(row.delay),
                    str(row.over_index),
                    f"{row.cost.median:.3g}",
                    f"{row.used.median:.0%}",
                    *(f"{row.delays[kind].median:.3g}" for kind in kinds),
                    f"{row.others} of {row.bound}" if row.bound else "",
                    f"{row.longest_wait:.0f} s" if row.bound else "",
                )
                for row in rows
            ]
            heads = ("", "weighted delay", "by index", "calls + delay", "used", *kinds, "others first", "longest wait")
            parts += [f"{load}, {rate:g} status calls a job", table(heads, lines)]
    parts.append(
        table(("ranking 10,000 calls that are due", ""), [(name, str(each)) for name, each in report.ranking.items()])
    )
    marks = [
        (
            each.name,
            str(each.figure),
            f"{'>=' if each.at_least else '<='} {each.bound:g}",
            "met" if each.met else "MISSED",
        )
        for each in report.marks
    ]
    return "\n\n".join([*parts, table(("mark", "figure", "bound", ""), marks)])


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *rows))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the simulation and print its report."""
    parser = argparse.ArgumentParser(description="status calls under a limit: a simulation")
    parser.add_argument("--quick", action="store_true", help="fewer jobs: rougher figures")
    parser.add_argument("--only", choices=LOADS, nargs="+", default=list(LOADS), help="these loads alone")
    parser.add_argument("--jobs", type=int, metavar="N", help="jobs of each load")
    parser.add_argument("--repeats", type=int, default=REPEATS, metavar="N", help="draws of jobs for each figure")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same figures")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    jobs = options.jobs or (QUICK_JOBS if options.quick else JOBS)
    report = measure(options.only, jobs, options.repeats, options.seed, QUICK_SLACK if options.quick else 0.0)
    print(json.dumps(asdict(report)) if options.json else text(report))
    sys.exit(0 if all(mark.met for mark in report.marks) else 1)


if __name__ == "__main__":
    main()
