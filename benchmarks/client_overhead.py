"""What a client library adds to a generation: CPU of submit, status calls and decode, beside aiohttp by hand.

    python benchmarks/client_overhead.py                    everybody, some minutes
    python benchmarks/client_overhead.py --without-peers    this library alone, a minute
    python benchmarks/client_overhead.py --only mirage_async fal-client --quick

The server is a process of its own and answers at once with what it has ready, and nobody waits between status calls:
what is left is the client's work. Both sides of a comparison make the same requests, in the same process, in turns.
The exit code is 1 if a figure misses its mark, 2 if a library to compare with is missing.
"""

from __future__ import annotations

import sys
from pathlib import Path

if sys.path and Path(sys.path[0]).resolve() == Path(__file__).resolve().parent:
    # Run as a script, a file here would stand in for the standard library's `concurrent`.
    sys.path.insert(0, str(Path(sys.path.pop(0)).resolve().parent))

import argparse
import asyncio
import gc
import json
import time
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from benchmarks._bare.dialects import Plan
from benchmarks._bare.figures import Spread, spread, table
from benchmarks._bare.peers import INSTALL, PEERS, missing_peers
from benchmarks._bare.process import raise_file_limit
from benchmarks._bare.server import bare_server, counts, new_fast_loop
from benchmarks._bare.sides import OURS, raw_side

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from benchmarks._bare.sides import Side

LEVELS = (1, 64, 512)
LOOKS = 3  # status calls of each job
MARKS: Mapping[str, Mapping[int, float]] = {
    "mirage_async": {1: 1.4, 64: 1.25, 512: 1.25},
    "mirage_async, learning": {1: 1.4, 64: 1.25, 512: 1.25},
}
BATCH: Mapping[int, int] = {1: 300, 64: 1024, 512: 2048}  # generations of one repeat
FILES = 4096  # open files that 512 at once need with room to spare


@dataclass(frozen=True, kw_only=True)
class Row:
    """One side at one number of generations at once; CPU in microseconds a generation."""

    name: str
    dialect: str
    at_once: int
    cpu: Spread
    raw_cpu: Spread
    ratio: Spread  # of the pairs measured one after the other
    mark: float | None
    requests: float  # a generation, as the server counted them
    raw_requests: float
    failures: Mapping[str, int]

    @property
    def met(self) -> bool:
        """Whether the mark is met, or there is none."""
        return self.mark is None or (self.ratio.median <= self.mark and not self.failures)


@dataclass(kw_only=True)
class Tally:
    """What the repeats of one side came to."""

    cpu: list[float] = field(default_factory=list[float])
    failures: Counter[str] = field(default_factory=Counter[str])


async def batch(generate: Callable[[], Awaitable[None]], count: int, at_once: int) -> tuple[int, Counter[str]]:
    """Make `count` generations, `at_once` of them under way at any time; say how many came and what went wrong."""
    turns = iter(range(count))
    failures: Counter[str] = Counter()

    async def worker() -> None:
        for _ in turns:
            try:
                await generate()
            except Exception as error:  # noqa: BLE001 - whatever a library raises is what it is measured for
                failures[type(error).__name__] += 1

    await asyncio.gather(*(worker() for _ in range(at_once)))
    return count - failures.total(), failures


async def measured(tally: Tally, generate: Callable[[], Awaitable[None]], count: int, at_once: int) -> None:
    """Add one repeat to a tally."""
    gc.collect()
    began = time.process_time()
    came, failures = await batch(generate, count, at_once)
    cpu = time.process_time() - began
    tally.failures += failures
    tally.cpu.append(1e6 * cpu / came if came else float("inf"))


async def requests_of(base_url: str, generate: Callable[[], Awaitable[None]], count: int, at_once: int) -> float:
    """Warm up, and return how many requests the server saw for a generation."""
    before = counts(base_url)["requests"]
    await batch(generate, count, at_once)
    return (counts(base_url)["requests"] - before) / count


async def compare(
    base_url: str, dialect: str, sides: Mapping[str, Side], *, at_once: int, count: int, repeats: int
) -> list[Row]:
    """Measure the sides of one dialect in turns, aiohttp by hand before each of them."""
    async with AsyncExitStack() as stack:
        raw = await stack.enter_async_context(raw_side(dialect)(base_url))
        opened = {name: await stack.enter_async_context(side(base_url)) for name, side in sides.items()}
        warm_up = max(at_once, count // 4)
        raw_requests = await requests_of(base_url, raw, warm_up, at_once)
        requests = {name: await requests_of(base_url, opened[name], warm_up, at_once) for name in opened}
        tallies = {name: (Tally(), Tally()) for name in opened}
        for _ in range(repeats):
            for name, generate in opened.items():
                by_hand, by_library = tallies[name]
                await measured(by_hand, raw, count, at_once)
                await measured(by_library, generate, count, at_once)
    return [
        Row(
            name=name,
            dialect=dialect,
            at_once=at_once,
            cpu=spread(by_library.cpu),
            raw_cpu=spread(by_hand.cpu),
            ratio=spread([ours / raws for raws, ours in zip(by_hand.cpu, by_library.cpu, strict=True)]),
            mark=MARKS.get(name, {}).get(at_once),
            requests=requests[name],
            raw_requests=raw_requests,
            failures=dict(by_library.failures + by_hand.failures),
        )
        for name, (by_hand, by_library) in tallies.items()
    ]


async def everybody(base_url: str, options: argparse.Namespace) -> list[Row]:
    """Measure the sides that were asked for at all levels, and tell how it goes on stderr."""
    groups: dict[tuple[str, bool], dict[str, Side]] = {}
    for name, (dialect, side) in OURS.items():
        groups.setdefault((dialect, True), {})[name] = side
    for name, (dialect, opener) in PEERS.items():
        groups[(dialect, False)] = {name: opener(0.0)}
    rows = []
    for (dialect, ours), members in groups.items():
        sides = {name: side for name, side in members.items() if name in options.only}
        for at_once in options.at_once if sides else ():
            # The others take many times as long; a quarter of the generations is plenty for them.
            count = max(at_once, BATCH[at_once] // (4 if options.quick or not ours else 1))
            found = await compare(base_url, dialect, sides, at_once=at_once, count=count, repeats=options.repeats)
            for row in found:
                told = f"{row.name}, {at_once} at once: {row.cpu:.0f} us, {row.ratio:.2f} times by hand, {failed(row)}"
                print(told, file=sys.stderr, flush=True)
            rows += found
    return rows


def text(rows: Sequence[Row]) -> str:
    """Return the report for people, as Markdown."""
    heads = ("", "at once", "CPU, us a generation", "by hand", "ratio", "mark", "requests", "by hand", "failures")
    return table(
        heads,
        [
            (
                row.name,
                str(row.at_once),
                f"{row.cpu:.0f}",
                f"{row.raw_cpu:.0f}",
                f"{row.ratio:.2f}",
                "-" if row.mark is None else f"<= {row.mark:g} {'met' if row.met else 'MISSED'}",
                f"{row.requests:.2f}",
                f"{row.raw_requests:.2f}",
                failed(row),
            )
            for row in rows
        ],
    )


def failed(row: Row) -> str:
    """Return what went wrong and how often."""
    return ", ".join(f"{count} {name}" for name, count in sorted(row.failures.items())) or "no failure"


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="what a client library adds to a generation")
    parser.add_argument("--repeats", type=int, default=7, metavar="N", help="pairs of measurements, at least 5")
    parser.add_argument("--quick", action="store_true", help="a quarter of the generations in each repeat")
    parser.add_argument("--seed", type=int, default=0, help="nothing here is random; for the sake of its siblings")
    parser.add_argument("--uvloop", action="store_true", help="run the clients on uvloop as well")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--without-peers", action="store_true", help="measure this library alone")
    parser.add_argument("--at-once", choices=LEVELS, type=int, nargs="+", default=LEVELS, help="at these levels")
    everyone = [*OURS, *PEERS]
    parser.add_argument("--only", choices=everyone, nargs="+", default=everyone, metavar="NAME", help="measure these")
    options = parser.parse_args(arguments)
    if options.without_peers:
        options.only = [name for name in options.only if name in OURS]
    if missing := [name for name in missing_peers() if name in options.only]:
        print(f"not installed: {', '.join(missing)}; {INSTALL}, or pass --without-peers", file=sys.stderr)
        sys.exit(2)
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print its report."""
    options = parsed(arguments)
    if (note := raise_file_limit(FILES)) is not None:
        print(note, file=sys.stderr)
    with (
        bare_server(Plan(looks=LOOKS)) as base_url,
        asyncio.Runner(loop_factory=new_fast_loop if options.uvloop else None) as runner,
    ):
        rows = runner.run(everybody(base_url, options))
    print(json.dumps([asdict(row) for row in rows]) if options.json else text(rows))
    sys.exit(0 if all(row.met for row in rows) else 1)


if __name__ == "__main__":
    main()
