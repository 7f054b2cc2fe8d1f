"""How often a paid POST arrives when its answer goes wrong: this library beside four others.

    python benchmarks/double_billing.py                                    everybody, a minute
    python benchmarks/double_billing.py --only mirage_async openai --quick
    python benchmarks/double_billing.py --blocking                         the others' blocking clients, a bit longer

One server reads each POST to its end, as a provider does who then sells the picture, counts it, and only then
misbehaves. Every client buys one picture, with its own re-sends and pauses as they come. The exit code is 1 if a POST
of ours did not arrive exactly once, if a caller was not told that the purchase is uncertain, or if anybody's purchase
failed without a reason.
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
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from typing import TYPE_CHECKING

from benchmarks._bare.peers import INSTALL, missing_peers
from benchmarks._double_billing.clients import OURS, peers
from benchmarks._double_billing.faults import ALL, FAULTS, NO_FAULT, REFUSALS, STALL_TIMEOUT
from benchmarks._double_billing.server import KEYED, misbehaving_server
from benchmarks._mark import Mark

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from benchmarks._double_billing.clients import Client
    from benchmarks._double_billing.faults import Fault

US = "mirage_async"
PEERS = ("openai", "fal-client", "replicate", "runwayml")
PATIENCE = 200.0  # seconds for one purchase; ten attempts with their pauses can take a hundred
RESENDS = 2  # of ours, where the server says that it did not take the request


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One purchase.

    Attributes:
        client: who bought; one of ours by its provider.
        fault: what the server did, having read the POST.
        posts: how many arrived whole.
        error: the class of what the caller got instead of a success, or None.
        uncertain: whether that says of itself that the picture may have been bought.
    """

    client: str
    fault: str
    posts: int
    error: str | None
    uncertain: bool


@dataclass(frozen=True, kw_only=True)
class Report:
    """All purchases, and how they were made."""

    seed: int
    blocking: bool
    versions: Mapping[str, str]
    not_installed: Sequence[str]
    cells: Sequence[Cell]
    keyed: int  # POSTs of all that had an idempotency key, by which a provider could tell a second one from the first
    marks: Sequence[Mark]


async def buy(client: Client, base_url: str, timeout: float | None) -> Exception | None:
    """Buy one picture and return what was raised."""
    async with client.opened(base_url, timeout) as purchase:
        try:
            async with asyncio.timeout(PATIENCE):
                await purchase()
        except Exception as error:  # noqa: BLE001 - whatever a library raises is what its caller learns
            return error
    return None


async def everything(clients: Mapping[str, Client], faults: Sequence[Fault]) -> tuple[list[Cell], int]:
    """Have each client meet each fault, and count all POSTs that had an idempotency key.

    Ours come first, then all others at once, since some of them pause for long.
    """
    table = {str(number): pair for number, pair in enumerate((name, fault) for name in clients for fault in faults)}
    acts = {
        number: [replace(act, write=clients[name].success if act.write is None else act.write) for act in fault.acts]
        for number, (name, fault) in table.items()
    }
    cells = []
    with misbehaving_server(acts) as (origin, posts), ThreadPoolExecutor(len(table)) as threads:
        asyncio.get_running_loop().set_default_executor(threads)
        errors: dict[str, Exception | None] = {}
        for turn in (OURS, PEERS):
            # Whoever has to be quick comes last, when the others have been opened and only wait.
            numbers = sorted((n for n in table if table[n][0] in turn), key=lambda n: table[n][1].timeout is not None)
            purchases = (buy(clients[table[n][0]], f"{origin}/{n}", table[n][1].timeout) for n in numbers)
            errors |= dict(zip(numbers, await asyncio.gather(*purchases), strict=True))
        counted = posts()
    for number, (name, fault) in table.items():
        error = errors[number]
        uncertain = getattr(error, "billed", None) == "unknown"
        kind = None if error is None else type(error).__name__
        cells.append(Cell(client=name, fault=fault.name, posts=counted[number], error=kind, uncertain=uncertain))
    return cells, counted[KEYED]


def judged(cells: Sequence[Cell]) -> list[Mark]:
    """Hold our cells against what is promised, and everybody's against a purchase in which nothing goes wrong."""
    ours = [cell for cell in cells if cell.client in OURS]
    lost = [cell for cell in ours if cell.fault in {fault.name for fault in FAULTS}]
    refused = [cell for cell in ours if cell.fault in {fault.name for fault in REFUSALS}]  # none in the short form
    failed = [cell for cell in cells if cell.fault == NO_FAULT.name and (cell.posts, cell.error) != (1, None)]
    unsent = [cell for cell in cells if not cell.posts]
    return [
        Mark(name="our POSTs of a purchase, most", figure=max(cell.posts for cell in lost), bound=1),
        Mark(name="our POSTs of a purchase, fewest", figure=min(cell.posts for cell in lost), bound=1, at_least=True),
        Mark(
            name="our POSTs where it refuses, most",
            figure=max((cell.posts for cell in refused), default=0),
            bound=1 + RESENDS,
        ),
        Mark(name="our callers not told of the uncertainty", figure=sum(not cell.uncertain for cell in lost), bound=0),
        Mark(name="purchases that failed by themselves, anybody's", figure=len(failed) + len(unsent), bound=0),
    ]


def measure(options: argparse.Namespace) -> Report:
    """Make all purchases."""
    random.seed(options.seed)  # the others' pauses
    missing = [name for name in missing_peers() if name in options.only]
    chosen = {name: peer for name, peer in peers(blocking=options.blocking).items() if name in options.only}
    clients = {**OURS, **{name: peer for name, peer in chosen.items() if name not in missing}}
    cells, keyed = asyncio.run(everything(clients, [fault for fault in ALL if fault.quick or not options.quick]))
    return Report(
        seed=options.seed,
        blocking=options.blocking,
        versions={name: version(name) for name in clients if name not in OURS},
        not_installed=missing,
        cells=cells,
        keyed=keyed,
        marks=judged(cells),
    )


def text(report: Report) -> str:
    """Return the report for people."""
    others = ", ".join(f"{name} {number}" for name, number in report.versions.items()) or "none"
    legend = (
        f"POSTs of one purchase that arrived whole. {US}: {'; '.join(OURS)}.",
        f"Others, {'blocking' if report.blocking else 'asynchronous'} clients: {others}.",
        f"Where the server stalls, everybody's timeout is {STALL_TIMEOUT:g} s; all else is as it comes.",
        "'once': the first time only, all further POSTs are answered as they should be.",
        f"POSTs with an idempotency key, by which a second one could be told from the first: {report.keyed or 'none'}.",
    )
    parts = [
        "\n".join(legend),
        counts(report.cells, (NO_FAULT, *FAULTS), "the server then"),
        counts(report.cells, REFUSALS, "it refuses by"),
        "What the caller gets, and whether that says that the picture may have been bought:",
        aligned([("", "raised", "uncertain", "where the server"), *outcomes(report.cells)]),
        aligned([("mark", "figure", "bound", ""), *(verdict(mark) for mark in report.marks)]),
    ]
    if report.not_installed:
        parts.append(f"Not installed, so not measured: {', '.join(report.not_installed)}.\nTo have them all: {INSTALL}")
    return "\n\n".join(part for part in parts if part)


def counts(cells: Sequence[Cell], faults: Iterable[Fault], head: str) -> str:
    """Return a table of POSTs, or nothing where none of the faults was met."""
    clients = list(dict.fromkeys(cell.client for cell in cells))
    posts = {(cell.fault, cell.client): str(cell.posts) for cell in cells}
    met = [fault.name for fault in faults if (fault.name, clients[0]) in posts]
    rows = [(name, *(posts[name, client] for client in clients)) for name in met]
    return aligned([(head, *clients), *rows]) if rows else ""


def outcomes(cells: Sequence[Cell]) -> list[tuple[str, str, str, str]]:
    """Return who got what, and when; our clients are one where all of them got it."""
    cells = [cell for cell in cells if cell.fault in {fault.name for fault in FAULTS}]
    met = list(dict.fromkeys(cell.fault for cell in cells))
    found: dict[tuple[str, str, str], list[Cell]] = {}
    for cell in cells:
        said = "-" if cell.error is None else "yes" if cell.uncertain else "no"
        who = US if cell.client in OURS else cell.client
        found.setdefault((who, cell.error or "nothing: a success", said), []).append(cell)
    rows = []
    for (who, error, said), those in found.items():
        buyers = dict.fromkeys(cell.client for cell in those)
        name = ", ".join(buyers) if who == US and len(buyers) < len(OURS) else who
        faults = [fault for fault in met if fault in {cell.fault for cell in those}]
        rows.append((name, error, said, "does any of this" if faults == met else ", ".join(faults)))
    return rows


def verdict(mark: Mark) -> tuple[str, str, str, str]:
    """Return a mark as a row."""
    bound = f"{'>=' if mark.at_least else '<='} {mark.bound:g}"
    return mark.name, f"{mark.figure:g}", bound, "met" if mark.met else "MISSED"


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table whose columns are as wide as they need to be; the first row is its head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [rows[0], ["-" * width for width in widths], *rows[1:]]
    return "\n".join(f"| {' | '.join(map(str.ljust, line, widths))} |" for line in lines)


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="POSTs of one purchase when its answer goes wrong")
    parser.add_argument("--quick", action="store_true", help="a third of the faults, none that needs a timeout")
    parser.add_argument("--seed", type=int, default=0, help="of the others' pauses between their attempts")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--blocking", action="store_true", help="measure the others' blocking clients")
    everyone = (US, *PEERS)
    parser.add_argument(
        "--only", choices=everyone, nargs="+", default=everyone, metavar="NAME", help=f"measure these beside {US}"
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print its report."""
    options = parsed(arguments)
    report = measure(options)
    print(json.dumps(asdict(report)) if options.json else text(report))
    sys.exit(0 if all(mark.met for mark in report.marks) else 1)


if __name__ == "__main__":
    main()
