"""Many jobs at once: what a waiting one holds, what a turn to ask costs, and whether anybody notices them coming.

    python benchmarks/in_flight.py                       all of it, half an hour
    python benchmarks/in_flight.py --only memory         one part: memory, turns, finish or peers
    python benchmarks/in_flight.py --quick --json        up to 10,000 jobs, two repeats
    python benchmarks/in_flight.py --explain mirako      no measurement: where the bytes of a job are

Linux only. Every measurement has a process of its own; the server, another one, is the least that speaks HTTP. The exit
code is 1 if a figure misses its mark, 2 if a library to compare with is missing.
"""

from __future__ import annotations

import sys
from pathlib import Path

if sys.path and Path(sys.path[0]).resolve() == Path(__file__).resolve().parent:
    # Run as a script, a file here would stand in for the standard library's `concurrent`.
    sys.path.insert(0, str(Path(sys.path.pop(0)).resolve().parent))

import argparse
import itertools
import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from benchmarks._bare.dialects import Plan
from benchmarks._bare.figures import Mark, Spread, spread, table
from benchmarks._bare.peers import INSTALL, missing_peers
from benchmarks._bare.process import raise_file_limit
from benchmarks._bare.server import bare_server
from benchmarks._in_flight.explaining import explain
from benchmarks._in_flight.finishing import Finished, finish
from benchmarks._in_flight.holding import Held, Submitted, control, jobs_in_flight, raw_submits
from benchmarks._in_flight.peers import PEER_COUNTS, peer_in_flight
from benchmarks._in_flight.turns import Turns, by_scheduler, by_tasks

if TYPE_CHECKING:
    from collections.abc import Sequence

PARTS = ("memory", "turns", "peers", "finish")
COUNTS = (1_000, 10_000, 100_000)
INTERVALS = {1_000: 1.0, 10_000: 3.0, 100_000: 10.0}  # seconds between the status calls of one job
ANSWERS = {False: "answers at once", True: "answers later"}
SIGMA = 0.25  # of the logarithms of the durations of jobs that finish: nearly all within half to double the median
OURS_AMONG_PEERS = 800  # jobs
FILES = 4096  # open files that the submitters need with room to spare
MOST_BYTES = 1024.0
MOST_CPU = 0.5  # of a task for each job
LONGEST_STALL = 0.05  # seconds


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes a job; `library` is what remains of `awaited` without the caller's own tasks."""

    provider: str
    jobs: int
    alone: Spread
    awaited: Spread
    callers: Spread
    library: Spread


@dataclass(frozen=True, kw_only=True)
class Submits:
    """The submits of so many jobs; seconds, and microseconds of CPU a job."""

    name: str
    jobs: int
    submitters: int
    cpu: Spread
    longest_stall: Spread
    busiest: Spread
    busiest_beside_collections: Spread
    longest_collection: Spread
    collections: Spread
    full_collections: Spread


@dataclass(frozen=True, kw_only=True)
class Turn:
    """CPU of one status call that costs nothing itself, and of having a job watched, in microseconds.

    `waits` tells whether the answer comes with the next round of the event loop, or at once.
    """

    jobs: int
    interval: float
    waits: bool
    scheduler: Spread
    tasks: Spread
    ratio: Spread
    start_scheduler: Spread
    start_tasks: Spread
    start_ratio: Spread


@dataclass(kw_only=True)
class Report:
    """All figures."""

    memory: list[Memory] = field(default_factory=list[Memory])
    submits: list[Submits] = field(default_factory=list[Submits])
    turns: list[Turn] = field(default_factory=list[Turn])
    peers: dict[str, Spread] = field(default_factory=dict[str, Spread])
    finished: list[Finished] = field(default_factory=list[Finished])
    marks: list[Mark] = field(default_factory=list[Mark])


class Runs:
    """Measurements, each in a fresh process, and what they are to be like."""

    def __init__(self, pool: ProcessPoolExecutor, options: argparse.Namespace) -> None:
        self._pool = pool
        self._options = options
        self.counts: Sequence[int] = options.counts
        self.repeats: int = options.repeats

    def fresh(self, work: Any, *arguments: object) -> Any:
        """Return what `work` returns in a process of its own."""
        print(".", end="", file=sys.stderr, flush=True)
        return self._pool.submit(work, *arguments).result()

    def memory(self, report: Report, base_url: str) -> None:
        """Measure what waiting jobs hold, and how the event loop fares while they are submitted."""
        for count in self.counts:
            # Miragic's jobs are the same objects; once is enough to see that.
            for provider in ("mirako", "miragic") if count == COUNTS[1] else ("mirako",):
                self._hold(report, base_url, provider, count)

    def _hold(self, report: Report, base_url: str, provider: str, count: int) -> None:
        # The room of requests on their way is free afterwards and the waits would hide in it: few jobs, few at a time.
        submitters = max(1, min(self._options.submitters, count // 1000))
        callers: list[float] = []
        held: list[Held] = []
        raw: list[Submitted] = []
        for _ in range(self.repeats):
            callers.append(self.fresh(control, count))
            held.append(self.fresh(jobs_in_flight, provider, base_url, count, submitters))
            if provider == "mirako" and count == self.counts[-1]:
                raw.append(self.fresh(raw_submits, base_url, count, submitters))
        library = spread([one.awaited - own for one, own in zip(held, callers, strict=True)])
        report.memory.append(
            Memory(
                provider=provider,
                jobs=count,
                alone=spread([one.alone for one in held]),
                awaited=spread([one.awaited for one in held]),
                callers=spread(callers),
                library=library,
            )
        )
        report.marks.append(Mark(f"bytes a job, {count} of {provider}", library.median, MOST_BYTES))
        submits = summed_up(provider, count, [one.submits for one in held])
        report.submits.append(submits)
        if raw:
            report.submits.append(summed_up("by hand with aiohttp", count, raw))
            report.marks.append(Mark(f"stall while {count} come, s", submits.busiest.median, LONGEST_STALL))

    def turns(self, report: Report) -> None:
        """Measure a turn to ask, beside a task for each job."""
        for count, waits in itertools.product(self.counts, (False, True)):
            interval = INTERVALS[count]
            pairs: list[tuple[Turns, Turns]] = [
                (self.fresh(by_scheduler, count, interval, waits), self.fresh(by_tasks, count, interval, waits))
                for _ in range(self.repeats)
            ]
            turn = Turn(
                jobs=count,
                interval=interval,
                waits=waits,
                scheduler=spread([ours.cpu_per_poll for ours, _ in pairs]),
                tasks=spread([tasks.cpu_per_poll for _, tasks in pairs]),
                ratio=spread([ours.cpu_per_poll / tasks.cpu_per_poll for ours, tasks in pairs]),
                start_scheduler=spread([ours.cpu_per_start for ours, _ in pairs]),
                start_tasks=spread([tasks.cpu_per_start for _, tasks in pairs]),
                start_ratio=spread([ours.cpu_per_start / tasks.cpu_per_start for ours, tasks in pairs]),
            )
            report.turns.append(turn)
            name = f"CPU of a turn over a task's, {count} jobs, {ANSWERS[waits]}"
            report.marks.append(Mark(name, turn.ratio.median, MOST_CPU))

    def peers(self, report: Report, base_url: str) -> None:
        """Measure the other libraries, and this one in as many jobs."""
        held = [self.fresh(jobs_in_flight, "mirako", base_url, OURS_AMONG_PEERS, 1) for _ in range(self.repeats)]
        report.peers["mirage_async"] = spread([one.awaited for one in held])
        for name in PEER_COUNTS:
            report.peers[name] = spread([self.fresh(peer_in_flight, name, base_url) for _ in range(self.repeats)])

    def finish(self, report: Report, seed: int) -> None:
        """Have many jobs really finish, once."""
        count, median = self._options.jobs, self._options.median
        with bare_server(Plan(ends="times", median=median, sigma=SIGMA, seed=seed)) as base_url:
            finished = self.fresh(finish, base_url, count, self._options.submitters)
        report.finished.append(finished)
        report.marks.append(Mark(f"failures of {count} real jobs", sum(finished.failures.values()), 0))


def summed_up(name: str, count: int, runs: Sequence[Submitted]) -> Submits:
    """Sum up repeats of submits."""
    return Submits(
        name=name,
        jobs=count,
        submitters=runs[0].submitters,
        cpu=spread([run.cpu for run in runs]),
        longest_stall=spread([run.longest_stall for run in runs]),
        busiest=spread([run.busiest for run in runs]),
        busiest_beside_collections=spread([run.busiest_beside_collections for run in runs]),
        longest_collection=spread([run.longest_collection for run in runs]),
        collections=spread([run.collections for run in runs]),
        full_collections=spread([run.full_collections for run in runs]),
    )


def measure(options: argparse.Namespace) -> Report:
    """Run the parts that were asked for."""
    report = Report()
    context = multiprocessing.get_context("spawn")
    with (
        bare_server(Plan(ends="never")) as base_url,
        ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1) as pool,
    ):
        runs = Runs(pool, options)
        if "memory" in options.only:
            runs.memory(report, base_url)
        if "turns" in options.only:
            runs.turns(report)
        if "peers" in options.only:
            runs.peers(report, base_url)
        if "finish" in options.only:
            runs.finish(report, options.seed)
    print(file=sys.stderr)
    return report


def text(report: Report) -> str:
    """Return the report for people, as Markdown."""
    parts = []
    if report.memory:
        parts += ["Resident bytes a job", memory_table(report), "While they are submitted", submits_table(report)]
    if report.turns:
        parts += ["CPU of a turn to ask, microseconds", turns_table(report)]
    if report.peers:
        rows = [
            (name, str(PEER_COUNTS.get(name, OURS_AMONG_PEERS)), f"{values:.0f}")
            for name, values in report.peers.items()
        ]
        parts += [
            "Resident bytes a generation, the caller's task included; openai's is a request held open",
            table(PEERS_HEAD, rows),
        ]
    for run in report.finished:
        parts += [f"{run.jobs} jobs that finish", finished_lines(run)]
    marks = [(mark.name, f"{mark.figure:.3g}", f"<= {mark.bound:g}", mark.verdict) for mark in report.marks]
    return "\n\n".join([*parts, "Marks", table(("", "figure", "mark", ""), marks)])


PEERS_HEAD = ("", "waiting", "bytes")


def memory_table(report: Report) -> str:
    """Return the table of bytes."""
    heads = ("", "jobs", "nobody awaits them", "each awaited by a task", "the tasks alone", "difference: the library")
    return table(
        heads,
        [
            (row.provider, str(row.jobs), *(f"{v:.0f}" for v in (row.alone, row.awaited, row.callers, row.library)))
            for row in report.memory
        ],
    )


def submits_table(report: Report) -> str:
    """Return the table of stalls."""
    heads = (
        "",
        "jobs",
        "at a time",
        "CPU, us a job",
        "longest stall, ms",
        "of it own CPU",
        "without collections",
        "longest collection",
        "all collections, s",
        "full ones",
    )
    return table(
        heads,
        [
            (
                row.name,
                str(row.jobs),
                str(row.submitters),
                f"{row.cpu:.0f}",
                *(
                    f"{values * 1000:.0f}"
                    for values in (
                        row.longest_stall,
                        row.busiest,
                        row.busiest_beside_collections,
                        row.longest_collection,
                    )
                ),
                f"{row.collections:.1f}",
                f"{row.full_collections:.0f}",
            )
            for row in report.submits
        ],
    )


def turns_table(report: Report) -> str:
    """Return the table of turns."""
    heads = ("jobs", "every", "", "scheduler", "a task each", "ratio", "to watch a job", "to start a task", "ratio")
    return table(
        heads,
        [
            (
                str(row.jobs),
                f"{row.interval:g} s",
                ANSWERS[row.waits],
                f"{row.scheduler:.1f}",
                f"{row.tasks:.1f}",
                f"{row.ratio:.2f}",
                f"{row.start_scheduler:.1f}",
                f"{row.start_tasks:.1f}",
                f"{row.start_ratio:.2f}",
            )
            for row in report.turns
        ],
    )


def finished_lines(run: Finished) -> str:
    """Return what one run of real jobs came to."""
    failures = ", ".join(f"{count} {name}" for name, count in sorted(run.failures.items())) or "none"
    rows = [
        ("submits under way at a time", str(run.submitters)),
        ("seconds, of which submitting", f"{run.seconds:.1f}, {run.submit_seconds:.1f}"),
        ("jobs a second", f"{run.jobs_per_second:.0f}"),
        ("most jobs at once", str(run.most_at_once)),
        ("status calls a job", f"{run.polls_per_job:.2f}"),
        ("CPU a job, ms", f"{run.cpu / 1000:.2f}"),
        ("most memory, MB", f"{run.peak_bytes / 1e6:.0f}"),
        ("longest stall, ms; of it own CPU", f"{run.longest_stall * 1000:.0f}; {run.busiest * 1000:.0f}"),
        ("own CPU without collections, ms", f"{run.busiest_beside_collections * 1000:.0f}"),
        ("longest collection, ms", f"{run.longest_collection * 1000:.0f}"),
        ("failures", failures),
    ]
    return table(("", ""), rows)


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="many jobs at once: memory, turns to ask, stalls")
    parser.add_argument("--only", choices=PARTS, nargs="+", default=list(PARTS), help="these parts alone")
    parser.add_argument("--counts", type=int, nargs="+", choices=COUNTS, help="jobs that wait, for memory and turns")
    parser.add_argument("--repeats", type=int, metavar="N", help="processes for each figure")
    parser.add_argument("--submitters", type=int, default=64, metavar="N", help="submits under way at a time")
    parser.add_argument("--jobs", type=int, default=None, metavar="N", help="jobs that really finish")
    parser.add_argument("--median", type=float, default=60.0, metavar="S", help="seconds half of those jobs end within")
    parser.add_argument("--quick", action="store_true", help="up to 10,000 jobs and two repeats")
    parser.add_argument("--seed", type=int, default=0, help="of the durations of the jobs that finish")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--without-peers", action="store_true", help="leave the other libraries out")
    parser.add_argument("--explain", choices=("mirako", "miragic"), help="show where the bytes of a job are, and end")
    options = parser.parse_args(arguments)
    if options.without_peers:
        options.only = [part for part in options.only if part != "peers"]
    if "peers" in options.only and options.explain is None and (missing := missing_peers()):
        print(f"not installed: {', '.join(missing)}; {INSTALL}, or pass --without-peers", file=sys.stderr)
        sys.exit(2)
    options.counts = options.counts or (COUNTS[:2] if options.quick else COUNTS)
    options.repeats = options.repeats or (2 if options.quick else 5)
    options.jobs = options.jobs or (5_000 if options.quick else 100_000)
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print its report."""
    options = parsed(arguments)
    if (note := raise_file_limit(FILES)) is not None:
        print(note, file=sys.stderr)
    if options.explain is not None:
        with bare_server(Plan(ends="never")) as base_url:
            print(explain(options.explain, base_url))
        return
    report = measure(options)
    print(json.dumps(asdict(report)) if options.json else text(report))
    sys.exit(0 if all(mark.met for mark in report.marks) else 1)


if __name__ == "__main__":
    main()
