"""When to ask: the adaptive interval policy against the best schedule there is, and against everybody else.

    python benchmarks/polling.py                           all of it, some minutes
    python benchmarks/polling.py --quick                   the same with fewer repeats, some seconds
    python benchmarks/polling.py --plot polling.svg --json
    python benchmarks/polling.py --day                     ten days of drift, cold starts, an outage and a lying bar

A simulation on virtual time with the policy's real code; no provider, no sandbox and no socket. A status call costs 1,
a second of learning late costs `delay_cost`, and every figure is the sum of both as a multiple of what the best
schedule costs that anybody could choose who knows how long such jobs take. The exit code is 1 if a figure is worse than
its mark.
"""

from __future__ import annotations

import sys
from pathlib import Path

if sys.path and Path(sys.path[0]).resolve() == Path(__file__).resolve().parent:
    # Run as a script, a file here would stand in for the standard library's `concurrent`.
    sys.path.insert(0, str(Path(sys.path.pop(0)).resolve().parent))

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from benchmarks._polling.day import HOURS, OURS, Day, live
from benchmarks._polling.figures import FULL, LEVELS, QUICK, STEADY, Mark, Report, simulate
from benchmarks._polling.plot import draw

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


HINTS = """Jobs that take another time than the document says: how many until the delay is within 1.5 times the best;
calls and delay of the very first job; the best delay"""


def text(report: Report) -> str:
    """Return the report for people, as Markdown."""
    heads = ("", *map(str, LEVELS), "all", "images", "worst", "polls", "delay", "avatars' polls", "delay")
    rows = [
        (
            row.name,
            *(f"{cost:.2f}" for cost in row.by_level),
            f"{row.overall:.2f}",
            f"{row.images:.2f}",
            f"{row.worst:.2f}",
            *(f"{number:.3g}" for name in ("pictures", "avatars") for number in row.places.get(name, ())),
        )
        for row in report.rows
    ]
    parts = [
        "Cost as a multiple of the best schedule's, by polls that a delay of one mean duration is worth",
        table(heads, rows),
        "The same with six laws at which nobody looked when the policy's constants were chosen",
        table(
            ("", *map(str, LEVELS), "all", "worst"),
            [
                (row.name, *(f"{cost:.2f}" for cost in row.by_level), f"{row.overall:.2f}", f"{row.worst:.2f}")
                for row in report.unseen
            ],
        ),
        f"After durations changed for good ({STEADY} polls)",
        table(
            ("", *next(iter(report.drift.values()))),
            [(title, *(f"{cost:.2f}" for cost in spans.values())) for title, spans in report.drift.items()],
        ),
        f"With progress, as a multiple of the best schedule's without ({STEADY} polls)",
        table(
            ("", *next(iter(report.progress.values()))),
            [(title, *(f"{cost:.2f}" for cost in laws.values())) for title, laws in report.progress.items()],
        ),
        "A bar that was exact for 100 jobs and begins to lie, by what the same jobs cost without one",
        table(
            ("", "jobs 1-8", "jobs 1-40", "longest delay", "without a bar"),
            [
                (name, f"{lie.first:.2f}", f"{lie.all:.2f}", f"{lie.longest:.0f} s", f"{lie.longest_without:.0f} s")
                for name, lie in report.lies.items()
            ],
        ),
        HINTS,
        table(
            ("", *next(iter(report.hints.values()))),
            [
                (
                    name,
                    *(
                        f"{each.jobs}; {each.first_polls:.1f}, {each.first_delay:.3g} s; {each.best_delay:.2g} s"
                        for each in lessons.values()
                    ),
                )
                for name, lessons in report.hints.items()
            ],
        ),
        f"200 jobs within half a second, nothing known ({STEADY} polls)",
        table(tuple(report.bursts), [tuple(f"{cost:.2f}" for cost in report.bursts.values())]),
        "Avatars where no interval may exceed the default maximum of 600 s",
        table(
            tuple(report.avatars_at_default_maximum),
            [tuple(f"{cost:.2f}" for cost in report.avatars_at_default_maximum.values())],
        ),
        f"CPU: {report.cpu['poll']:.1f} us a poll, {report.cpu['new tables']:.0f} us for new tables",
        *verdict(report.marks),
    ]
    return "\n\n".join(parts)


def day_text(day: Day) -> str:
    """Return the report of a day for people, as Markdown."""
    parts = [
        "Cost of a day as a multiple of the best schedules', over all and by kind of job",
        table(
            ("", "all", *day.kinds[OURS]),
            [
                (name, f"{day.overall[name]:.2f}", *(f"{cost:.2f}" for cost in kinds.values()))
                for name, kinds in day.kinds.items()
            ],
        ),
        "By hour of submission",
        table(
            ("hour", "jobs", *day.policies),
            [
                (f"{hour}", f"{day.jobs[hour]:.0f}", *(f"{costs[hour]:.2f}" for costs in day.policies.values()))
                for hour in range(HOURS)
            ],
        ),
        f"Jobs with a bar by the same jobs without: honest until noon {day.honest:.2f}, then backwards {day.lying:.2f}",
        *verdict(day.marks),
    ]
    return "\n\n".join(parts)


def verdict(marks: Sequence[Mark]) -> tuple[str, str]:
    """Return the heading and the table of the marks."""
    rows = [
        (
            mark.name,
            f"{mark.figure:.3f}",
            f"{'>=' if mark.at_least else '<='} {mark.bound:g}",
            "met" if mark.met else "MISSED",
        )
        for mark in marks
    ]
    return "Marks", table(("", "figure", "mark", ""), rows)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [heads, ["---"] * len(heads), *([*cells, *[""] * (len(heads) - len(cells))] for cells in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="when to ask: a simulation of polling policies")
    parser.add_argument("--quick", action="store_true", help="fewer repeats: some seconds, rougher figures")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same figures")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--day", action="store_true", help="simulate days, and nothing else")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write polls against delay as an SVG")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the simulation and print its report."""
    options = parsed(arguments)
    if options.day:
        day = live(options.seed, 2 if options.quick else 10)
        print(json.dumps(asdict(day)) if options.json else day_text(day))
        sys.exit(0 if all(mark.met for mark in day.marks) else 1)
    report = simulate(QUICK if options.quick else FULL, options.seed)
    if options.plot is not None:
        options.plot.write_text(draw(report), encoding="utf-8")
    print(json.dumps(asdict(report)) if options.json else text(report))
    sys.exit(0 if all(mark.met for mark in report.marks) else 1)


if __name__ == "__main__":
    main()
