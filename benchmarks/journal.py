"""What the journal costs: rows a second beside committing each one, and a journalled generation beside another.

    python benchmarks/journal.py            four minutes
    python benchmarks/journal.py --quick    a minute

Rows: as many purchases at a time as there are waiters, each of which waits for its intent, its id and its outcome to be
durable, one after the other; the other side writes the same rows through `aiosqlite` and commits each, as one does.
Generations: the same hub, once with a journal and once without, in turns, against a server in a process of its own; and
then the same with purchases under keys of the caller's own.
Both sides flush to the disk the folder given by --directory is on. The exit code is 1 if a figure misses its mark.
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
import secrets
import tempfile
import time
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from benchmarks._bare.dialects import Plan
from benchmarks._bare.figures import Mark, Spread, spread, table
from benchmarks._bare.process import raise_file_limit
from benchmarks._bare.server import bare_server, new_fast_loop
from benchmarks._bare.sides import KEY, PROMPT, AtOnce, buying, check
from benchmarks._journal.rows import OTHER, OURS
from mirage_async import ImageRequest, Limits, Mirage
from mirage_async.journal import Journal
from mirage_async.scheduler import Scheduler

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

WAITERS = (1, 50, 500)
ROWS = {1: 600, 50: 6_000, 500: 15_000}  # of one repeat
ROWS_BY_HAND = {1: 600, 50: 1_500, 500: 3_000}
FASTER = 10.0  # times the rows a second of the other side, at 500 waiters
DEARER = 1.15  # times the CPU of a generation without a journal, at 500 at once
AT_ONCE = 500
# Of one round. Many, since Python's garbage collector looks through everything once in some 1,200 with a journal
# and in 1,500 without, and takes 40 ms for it: in a short round it would come to one of the sides alone.
GENERATIONS = 6_000
LOOKS = 3
FILES = 4096


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Rows a second and CPU in microseconds a row, at one number of waiters."""

    name: str
    waiters: int
    rate: Spread
    cpu: Spread


@dataclass(frozen=True, kw_only=True)
class Generations:
    """CPU in microseconds a generation."""

    plain: Spread
    journalled: Spread
    own_keys: Spread
    ratio: Spread
    own_keys_ratio: Spread


async def rows(folder: Path, options: argparse.Namespace) -> list[Rows]:
    """Write rows with both sides in turns, at each number of waiters."""
    found = []
    for waiters in WAITERS:
        rates: dict[str, list[float]] = {"journal": [], "aiosqlite, a commit a row": []}
        costs: dict[str, list[float]] = {name: [] for name in rates}
        sides = zip(rates, (OURS, OTHER), (ROWS, ROWS_BY_HAND), strict=True)
        for name, opened, counts in [*sides] * options.repeats:
            count = counts[waiters] // (4 if options.quick else 1)
            with tempfile.TemporaryDirectory(dir=folder) as directory:
                async with opened(Path(directory)) as purchase:
                    rate, cpu = await _written(purchase, count, waiters)
            rates[name].append(rate)
            costs[name].append(cpu)
        found += [Rows(name=name, waiters=waiters, rate=spread(rates[name]), cpu=spread(costs[name])) for name in rates]
        for row in found[-2:]:
            print(f"{row.name}, {waiters} waiting: {row.rate:.0f} rows/s", file=sys.stderr, flush=True)
    return found


async def _written(purchase: Callable[[], Awaitable[int]], count: int, waiters: int) -> tuple[float, float]:
    """Have so many waiters make purchases until `count` rows are written; return the rate and the cost."""
    left = count

    async def waiter() -> None:
        nonlocal left
        while left > 0:
            left -= 3
            await purchase()

    gc.collect()
    cpu, began = time.process_time(), time.perf_counter()
    await asyncio.gather(*(waiter() for _ in range(waiters)))
    wrote = count - left
    return wrote / (time.perf_counter() - began), 1e6 * (time.process_time() - cpu) / wrote


async def generations(base_url: str, folder: Path, options: argparse.Namespace) -> Generations:
    """Make generations with and without a journal, in turns, and then the same under the caller's own keys."""
    count = GENERATIONS // (4 if options.quick else 1)
    plain, journalled = await _pairs(base_url, folder, count, options.rounds, lambda hub: buying(hub.mirako))
    bare, own_keys = await _pairs(base_url, folder, count, -(-options.rounds // 3), _buying_under_own_keys)
    return Generations(
        plain=spread(plain),
        journalled=spread(journalled),
        own_keys=spread(own_keys),
        ratio=spread([ours / bare for bare, ours in zip(plain, journalled, strict=True)]),
        own_keys_ratio=spread([ours / other for other, ours in zip(bare, own_keys, strict=True)]),
    )


async def _pairs(
    base_url: str, folder: Path, count: int, rounds: int, side: Callable[[Mirage], Callable[[], Awaitable[None]]]
) -> tuple[list[float], list[float]]:
    """Return what generations without a journal cost, and what those of `side` do with one, round by round."""
    plain, journalled = [], []
    with tempfile.TemporaryDirectory(dir=folder) as directory:
        journal = Journal(directory)
        async with _hub(base_url, None) as without, _hub(base_url, journal) as with_one:
            for _ in range(rounds + 1):  # the first is for warming up
                plain.append(await _generated(buying(without.mirako), count))
                journalled.append(await _generated(side(with_one), count, journal))
    return plain[1:], journalled[1:]


@asynccontextmanager
async def _hub(base_url: str, journal: Journal | None) -> AsyncGenerator[Mirage]:
    scheduler = Scheduler(policy=AtOnce())
    async with Mirage(
        {"mirako": KEY}, base_urls={"mirako": base_url}, limits=Limits(), scheduler=scheduler, journal=journal
    ) as hub:
        yield hub


def _buying_under_own_keys(hub: Mirage) -> Callable[[], Awaitable[None]]:
    async def generate() -> None:
        job = await hub.submit(ImageRequest(prompt=PROMPT, provider="mirako", key=secrets.token_hex(16)))
        check(await (await job).image.read())

    return generate


async def _generated(generate: Callable[[], Awaitable[None]], count: int, journal: Journal | None = None) -> float:
    turns = iter(range(count))

    async def worker() -> None:
        for _ in turns:
            await generate()

    gc.collect()
    began = time.process_time()
    await asyncio.gather(*(worker() for _ in range(min(AT_ONCE, count))))
    if journal is not None:
        await journal.noted("")  # once all that was queued before is written, whose cost is not the next one's
    return 1e6 * (time.process_time() - began) / count


def marks(written: Sequence[Rows], generated: Generations) -> list[Mark]:
    """Return the figures that have to be met."""
    ours, other = (row.rate.median for row in written if row.waiters == WAITERS[-1])
    return [
        Mark(f"rows a second at {WAITERS[-1]} waiting: the other side's share", other / ours, 1 / FASTER),
        Mark(f"CPU of a generation at {AT_ONCE} at once, times that without", generated.ratio.median, DEARER),
    ]


def text(written: Sequence[Rows], generated: Generations) -> str:
    """Return the report for people, as Markdown."""
    first = table(
        ("", "waiting", "rows a second", "CPU, us a row"),
        [(row.name, str(row.waiters), f"{row.rate:.0f}", f"{row.cpu:.0f}") for row in written],
    )
    ours, other = (row.rate.median for row in written if row.waiters == WAITERS[-1])
    second = table(
        (f"{AT_ONCE} at once", "CPU, us a generation", "times that without"),
        [
            ("without a journal", f"{generated.plain:.0f}", ""),
            ("with a journal", f"{generated.journalled:.0f}", f"{generated.ratio:.2f}"),
            ("under callers' own keys", f"{generated.own_keys:.0f}", f"{generated.own_keys_ratio:.2f}"),
        ],
    )
    verdicts = [
        f"{ours / other:.1f} times the rows a second at {WAITERS[-1]} (mark: at least {FASTER:g}): {{}}",
        f"{generated.ratio.median:.2f} times the CPU of a generation (mark: at most {DEARER:g}): {{}}",
    ]
    said = [words.format(mark.verdict) for words, mark in zip(verdicts, marks(written, generated), strict=True)]
    return "\n\n".join([first, second, "\n".join(said)])


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="what the journal costs")
    parser.add_argument("--repeats", type=int, default=7, metavar="N", help="of each measurement, at least 5")
    parser.add_argument("--rounds", type=int, default=15, metavar="N", help="of generations, at least 5")
    parser.add_argument("--quick", action="store_true", help="a quarter of the rows and generations in each repeat")
    parser.add_argument("--seed", type=int, default=0, help="nothing here is random; for the sake of its siblings")
    parser.add_argument("--directory", type=Path, default=None, help="a folder on the disk to measure")
    parser.add_argument("--uvloop", action="store_true", help="run the client on uvloop as well")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print its report."""
    options = parsed(arguments)
    if (note := raise_file_limit(FILES)) is not None:
        print(note, file=sys.stderr)
    with (
        bare_server(Plan(looks=LOOKS)) as base_url,
        asyncio.Runner(loop_factory=new_fast_loop if options.uvloop else None) as runner,
    ):
        # In this order: what a process has done before makes its garbage collector work more.
        generated = runner.run(generations(base_url, options.directory, options))
        written = runner.run(rows(options.directory, options))
    if options.json:
        print(json.dumps({"rows": [asdict(row) for row in written], "generations": asdict(generated)}))
    else:
        print(text(written, generated))
    sys.exit(0 if all(mark.met for mark in marks(written, generated)) else 1)


if __name__ == "__main__":
    main()
