"""From the socket to the bytes of a picture: what base64 in an answer and a download to disk cost.

    python benchmarks/decode.py              all of it, some eight minutes
    python benchmarks/decode.py --quick      one repeat of each, about a minute
    python benchmarks/decode.py --json

A local server in a process of its own has its answers ready; the public clients, `openai`, plain aiohttp and a raw
socket fetch the same pictures. Each measurement has a process of its own, the ways take turns, and what is compared
is CPU time, memory and the longest turn of the event loop. Downloads go to a file system in memory, where there is one
with room for them, and two ways once more to the disk of the temporary folder. There a small picture has no mark: what
a disk takes of the processor to make and to flush a file is nobody's work here. The exit code is 1 if a figure is worse
than its mark.
"""

from __future__ import annotations

import sys
from pathlib import Path

if sys.path and Path(sys.path[0]).resolve() == Path(__file__).resolve().parent:
    # Run as a script, a file here would stand in for the standard library's `concurrent`.
    sys.path.insert(0, str(Path(sys.path.pop(0)).resolve().parent))

import argparse
import json
import os
import shutil
import statistics
import subprocess
import tempfile
from dataclasses import asdict, dataclass
from random import Random
from typing import TYPE_CHECKING

from benchmarks._decode.server import serving
from benchmarks._decode.trials import DOWNLOADS, MB, ON_DISK, WAYS, Figures
from benchmarks._mark import Mark

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

ROOT = Path(__file__).resolve().parents[1]
ANSWERS = tuple(way for way in WAYS if way not in {*DOWNLOADS, *ON_DISK})
ANSWER_SIZES = (1, 5, 20)  # MB
DOWNLOAD_SIZES = (5, 30)
LARGE = DOWNLOAD_SIZES[-1]  # what is for each file, whatever its size, hardly counts here
IN_MEMORY = Path("/dev/shm")  # noqa: S108 - each run has a folder of its own in it
ROOM = 1 << 30  # bytes of it that the files of one measurement may take
SIZES = sorted({*ANSWER_SIZES, *DOWNLOAD_SIZES})
WORK = 120  # MB that each measurement of CPU time fetches
REPEATS = 9
DOWNLOAD_REPEATS = 15  # of shorter ones
BOUND = 300.0  # seconds one measurement may take
TITLES = {
    "mira": "MiraClient.generate",
    "mira plain": "the same without pybase64",
    "mirako": "MirakoClient, status answer",
    "mirako plain": "the same without pybase64",
    "openai": "AsyncOpenAI.images.generate + b64decode",
    "aiohttp": "aiohttp, json() + b64decode",
    "dropped": "aiohttp, read and thrown away",
    "read": "GeneratedImage.read",
    "save": "GeneratedImage.save",
    "written": "aiohttp, read + write on the event loop",
    "socket": "raw socket, recv_into + write",
    "save disk": "GeneratedImage.save, to a disk",
    "socket disk": "raw socket, to a disk",
}


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Median, lowest and highest of the repeats."""

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Sum up."""
        return cls(median=statistics.median(values), lowest=min(values), highest=max(values))

    def __str__(self) -> str:
        shown = (f"{value:.0f}" if value >= 100 else f"{value:.2f}" for value in asdict(self).values())  # noqa: PLR2004
        return "{} ({} to {})".format(*shown)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One way at one size: CPU in microseconds for one MB, memory as multiples of the picture, the stall in ms."""

    way: str
    size: int
    cpu: Spread
    ratio: Spread | None
    traced: Spread
    resident: Spread
    stall: Spread


@dataclass(frozen=True, kw_only=True)
class Report:
    """All rows and marks, and the folder where downloads went that were not for a disk, if there were any."""

    folder: str | None
    rows: tuple[Row, ...]
    marks: tuple[Mark, ...]


def one(way: str, origin: str, size: int, folder: str) -> Figures:
    """Measure one way once, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks._decode.trials", way, origin, str(size * MB)]
    command += [str(max(2, WORK // size)), folder]
    ended = subprocess.run(  # noqa: S603 - our own Python, our own module
        command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, timeout=BOUND, check=False
    )
    if ended.returncode:
        msg = f"{way}, {size} MB: {ended.stderr.decode()}"
        raise RuntimeError(msg)
    for file in Path(folder).iterdir():
        file.unlink()
    return Figures(**json.loads(ended.stdout))


def rows_of(
    ways: Sequence[str], base: str, origin: str, sizes: Iterable[int], *, repeats: int, within: Path
) -> Iterable[Row]:
    """Measure the ways in turn and compare each with `base`, if that is one of them, of the same round.

    Each round has an order of its own: whoever comes next finds memory as the last one left it.
    """
    order = Random(0)
    with tempfile.TemporaryDirectory(dir=within) as folder:
        for size in sizes:
            rounds = [
                {way: one(way, origin, size, folder) for way in order.sample(ways, len(ways))} for _ in range(repeats)
            ]
            for way in ways:
                taken = [each[way] for each in rounds]
                yield Row(
                    way=way,
                    size=size,
                    cpu=Spread.of([figures.cpu for figures in taken]),
                    ratio=Spread.of([each[way].cpu / each[base].cpu for each in rounds]) if base in ways else None,
                    traced=Spread.of([figures.traced / size / MB for figures in taken]),
                    resident=Spread.of([figures.resident / size / MB for figures in taken]),
                    stall=Spread.of([figures.stall for figures in taken]),
                )


def folder_in_memory(otherwise: Path) -> Path:
    """Return where files cost no disk."""
    try:
        roomy = shutil.disk_usage(IN_MEMORY).free >= ROOM and os.access(IN_MEMORY, os.W_OK)
    except OSError:
        roomy = False
    return IN_MEMORY if roomy else otherwise


def marks_of(rows: Mapping[tuple[str, int], Row]) -> Iterable[Mark]:
    """Hold the figures against what was promised."""
    for size in ANSWER_SIZES:
        for way, factor in (("mira", 10.0), ("mira plain", 4.0)):
            if (row := rows.get((way, size))) is not None:
                if row.ratio is not None:
                    figure = 1 / row.ratio.median
                    yield Mark(name=f"CPU, openai over {way}, {size} MB", figure=figure, bound=factor, at_least=True)
                yield Mark(name=f"memory, {way}, {size} MB", figure=row.resident.median, bound=1.2)
                yield Mark(name=f"longest turn in ms, {way}, {size} MB", figure=row.stall.median, bound=3.0)
    for size in DOWNLOAD_SIZES:
        if (row := rows.get(("save", size))) is not None:
            if row.ratio is not None:
                yield Mark(name=f"CPU, save over a raw socket, {size} MB", figure=row.ratio.median, bound=1.4)
            yield Mark(name=f"memory in MB, save, {size} MB", figure=row.resident.median * size, bound=2.0)
            yield Mark(name=f"longest turn in ms, save, {size} MB", figure=row.stall.median, bound=3.0)
    row = rows.get(("save disk", LARGE))
    if row is not None and row.ratio is not None:
        yield Mark(name=f"CPU, save to a disk over a raw socket, {LARGE} MB", figure=row.ratio.median, bound=1.4)


def measure(options: argparse.Namespace) -> Report:
    """Run everything."""
    answers = [way for way in ANSWERS if way in options.only]
    downloads = [way for way in DOWNLOADS if way in options.only]
    on_disk = [way for way in ON_DISK if way in options.only]
    answer_sizes = [size for size in ANSWER_SIZES if size in options.sizes]
    download_sizes = [size for size in DOWNLOAD_SIZES if size in options.sizes]
    disk = Path(tempfile.gettempdir())
    memory = folder_in_memory(disk)
    repeats = (1, 1) if options.quick else (REPEATS, DOWNLOAD_REPEATS)
    with serving(options.seed) as origin:
        rows = (
            *rows_of(answers, "openai", origin, answer_sizes, repeats=repeats[0], within=disk),
            *rows_of(downloads, "socket", origin, download_sizes, repeats=repeats[1], within=memory),
            *rows_of(on_disk, "socket disk", origin, download_sizes, repeats=repeats[1], within=disk),
        )
    folder = str(memory) if downloads and download_sizes else None
    return Report(folder=folder, rows=rows, marks=tuple(marks_of({(row.way, row.size): row for row in rows})))


def text(report: Report) -> str:
    """Return the report for people, as Markdown."""
    heads = (
        "",
        "MB",
        "CPU, us a MB",
        "over openai or socket",
        "memory, objects",
        "memory, resident",
        "longest turn, ms",
    )
    cells = [
        (
            TITLES[row.way],
            str(row.size),
            *map(str, (row.cpu, row.ratio or "", row.traced, row.resident)),
            "blocking" if row.way.startswith("socket") else str(row.stall),
        )
        for row in report.rows
    ]
    marks = [
        (
            mark.name,
            f"{mark.figure:.2f}",
            f"{'>=' if mark.at_least else '<='} {mark.bound:g}",
            "met" if mark.met else "MISSED",
        )
        for mark in report.marks
    ]
    where = (f"Downloads went to {report.folder}, but for those to a disk.",) if report.folder else ()
    return "\n\n".join((table(heads, cells), *where, table(("", "figure", "mark", ""), marks)))


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *rows))


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="what base64 in an answer and a download to disk cost")
    parser.add_argument("--quick", action="store_true", help="one repeat of each instead of nine or fifteen")
    parser.add_argument("--only", choices=WAYS, nargs="+", default=list(WAYS), help="these ways alone")
    parser.add_argument("--sizes", type=int, choices=SIZES, nargs="+", default=SIZES, help="these sizes alone, in MB")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same pictures")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print its report."""
    options = parsed(arguments)
    report = measure(options)
    marks = [asdict(mark) | {"met": mark.met} for mark in report.marks]
    print(json.dumps(asdict(report) | {"marks": marks}) if options.json else text(report))
    sys.exit(0 if all(mark.met for mark in report.marks) else 1)


if __name__ == "__main__":
    main()
