"""N generations at concurrency C: how fast, how late, and at what cost for the client.

    python benchmarks/concurrent.py --provider all --jobs 200 --concurrency 50 --sandbox
    python benchmarks/concurrent.py --provider miragic --jobs 5 --concurrency 5 --spend 5      buys 5 pictures

The sandbox runs in a process of its own, so the CPU time reported is the client's alone. Its jobs take exactly
`--durations` seconds, which is what makes the detection delay known; at the providers nobody can say when a job ended.
"""

from __future__ import annotations

import sys
from pathlib import Path

if sys.path and Path(sys.path[0]).resolve() == Path(__file__).resolve().parent:
    sys.path.pop(0)  # run as a script, this file would stand in for the standard library's `concurrent`

import argparse
import asyncio
import json
import math
import random
import resource
import statistics
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from benchmarks._child import serving_in_child
from mirage_async import Limits, Mirage
from mirage_async.exceptions import MirageError
from mirage_async.sandbox import Sandbox
from mirage_async.scheduler import BackoffInterval, Scheduler

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence
    from multiprocessing.connection import Connection

PROVIDERS = ("mirako", "miragic", "mira", "milady")
SHAPES: Mapping[str, tuple[str, ...]] = {
    "mirako": ("16:9", "1:1", "4:3", "3:2"),
    "miragic": ("16:9", "1:1", "4:3", "3:2"),
    "mira": ("1:1", "2:3", "3:2"),
    "milady": ("16:9", "1:1", "4:3", "9:16"),
}
PROMPT = "a lighthouse in the fog"  # one prompt, so that the sandbox draws few pictures and serves many


@dataclass(kw_only=True)
class Seen:
    """What was measured while the jobs ran; times in seconds."""

    latencies: list[float] = field(default_factory=list[float])
    delays: list[float] = field(default_factory=list[float])
    polls: list[int] = field(default_factory=list[int])
    failures: Counter[str] = field(default_factory=Counter[str])


@dataclass(frozen=True, kw_only=True)
class Report:
    """One run; seconds unless the name says otherwise, None where nothing is known."""

    provider: str
    jobs: int
    concurrency: int
    seconds: float
    jobs_per_second: float
    latency_median: float | None
    latency_p95: float | None
    latency_max: float | None
    polls_per_job: float | None
    detection_delay_median: float | None
    detection_delay_p95: float | None
    client_cpu_ms_per_job: float
    failures: Mapping[str, int]


async def one(mirage: Mirage, provider: str, shape: str, durations: float | None, seen: Seen) -> None:
    """Buy one picture and read it."""
    began = time.monotonic()
    try:
        job = await mirage.submit(PROMPT, provider=provider, aspect_ratio=shape)
        accepted = time.monotonic()
        generation = await job
        await generation.image.read()
    except MirageError as error:
        seen.failures[type(error).__name__] += 1
        return
    seen.latencies.append(time.monotonic() - began)
    if generation.job_id is None:
        return  # a provider that answers with the picture: nothing is polled, nothing is detected late
    seen.polls.append(generation.polls)
    if durations is not None and job.detected_at is not None:
        seen.delays.append(max(0.0, job.detected_at - accepted - durations))


async def measure(options: argparse.Namespace, base_urls: Mapping[str, str] | None) -> Report:
    """Run all jobs with `concurrency` of them under way at any time."""
    chosen = PROVIDERS if options.provider == "all" else (options.provider,)
    shapes = random.Random(options.seed)
    names = (chosen[number % len(chosen)] for number in range(options.jobs))
    requests = iter([(name, shapes.choice(SHAPES[name])) for name in names])
    seen = Seen()
    durations = options.durations if options.sandbox else None

    async def worker(mirage: Mirage) -> None:
        for provider, shape in requests:
            await one(mirage, provider, shape, durations, seen)

    # The documents' schedule, which is the same in every run: this is about what the library costs, not about what the
    # default policy has learned by the end of it; see polling.py for that.
    scheduler = Scheduler(policy=BackoffInterval())
    async with Mirage(base_urls=base_urls, limits=Limits(), scheduler=scheduler) as mirage:
        began, cpu = time.monotonic(), cpu_seconds()
        await asyncio.gather(*(worker(mirage) for _ in range(options.concurrency)))
        seconds, cpu = time.monotonic() - began, cpu_seconds() - cpu
    return Report(
        provider=options.provider,
        jobs=options.jobs,
        concurrency=options.concurrency,
        seconds=seconds,
        jobs_per_second=len(seen.latencies) / seconds,
        latency_median=percentile(seen.latencies, 50),
        latency_p95=percentile(seen.latencies, 95),
        latency_max=percentile(seen.latencies, 100),
        polls_per_job=statistics.fmean(seen.polls) if seen.polls else None,
        detection_delay_median=percentile(seen.delays, 50),
        detection_delay_p95=percentile(seen.delays, 95),
        client_cpu_ms_per_job=1000 * cpu / options.jobs,
        failures=dict(seen.failures),
    )


def cpu_seconds() -> float:
    """Return the CPU time this process has used, the kernel's share included."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def percentile(values: Sequence[float], share: float) -> float | None:
    """Return the value below which `share` percent of the values lie (nearest rank), or None without values."""
    ranked = sorted(values)
    return ranked[max(0, math.ceil(len(ranked) * share / 100) - 1)] if ranked else None


@contextmanager
def sandbox_process(*, seed: int, durations: float) -> Generator[dict[str, str]]:
    """Run a sandbox in a child process and yield its addresses; it ends with the block, or with this process."""
    with serving_in_child(serve, seed, durations) as (base_urls, _):
        yield base_urls


def serve(connection: Connection, seed: int, durations: float) -> None:
    """Be the child process: run a sandbox until the parent closes its end of the pipe."""

    async def until_closed() -> None:
        async with Sandbox(seed=seed, durations=durations) as sandbox:
            connection.send(sandbox.base_urls)
            await asyncio.to_thread(connection.poll, None)

    asyncio.run(until_closed())


def text(report: Report) -> str:
    """Return the report for people."""

    def shown(value: float | None, unit: str = "s") -> str:
        return "unknown" if value is None else f"{value:.3f} {unit}".rstrip()

    failures = ", ".join(f"{count} {name}" for name, count in sorted(report.failures.items())) or "none"
    latency = f"{shown(report.latency_median)} / {shown(report.latency_p95)} / {shown(report.latency_max)}"
    delay = f"{shown(report.detection_delay_median)} / {shown(report.detection_delay_p95)}"
    return "\n".join(
        (
            f"{report.provider}: {report.jobs} jobs, {report.concurrency} at a time, {report.seconds:.2f} s",
            f"  throughput                     {report.jobs_per_second:.1f} jobs/s",
            f"  latency median / p95 / max     {latency}",
            f"  detection delay median / p95   {delay}",
            f"  polls per polled job           {shown(report.polls_per_job, '')}",
            f"  client CPU per job             {report.client_cpu_ms_per_job:.2f} ms",
            f"  failures                       {failures}",
        )
    )


def positive(value: str) -> int:
    """Read a whole number of at least 1."""
    number = int(value)
    if number < 1:
        msg = f"must be at least 1, got {value}"
        raise argparse.ArgumentTypeError(msg)
    return number


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; what would cost money without permission ends here with exit code 2."""
    parser = argparse.ArgumentParser(description="N generations at concurrency C")
    parser.add_argument("--provider", choices=(*PROVIDERS, "all"), default="all")
    parser.add_argument("--jobs", type=positive, default=100, metavar="N")
    parser.add_argument("--concurrency", type=positive, default=20, metavar="C")
    parser.add_argument("--sandbox", action="store_true", help="use a local sandbox instead of your keys")
    parser.add_argument("--spend", type=positive, metavar="N", help="with your keys: buy at most N pictures")
    parser.add_argument("--durations", type=float, default=1.0, metavar="S", help="seconds each sandbox job takes")
    parser.add_argument("--seed", type=int, default=0, help="the same seed sends the same requests")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    if not options.sandbox and options.spend is None:
        sys.exit(refusal("real keys cost money: pass --sandbox, or --spend N with the purchases you allow"))
    if not options.sandbox and options.jobs > options.spend:
        sys.exit(refusal(f"{options.jobs} jobs are more than the {options.spend} purchases --spend allows"))
    if not 0 <= options.durations < math.inf:
        sys.exit(refusal(f"--durations must be seconds, zero or more; got {options.durations}"))
    return options


def refusal(why: str) -> int:
    """Print one line about why nothing was done and return the exit code for usage."""
    print(f"concurrent.py: {why}", file=sys.stderr)
    return 2


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print its report."""
    options = parsed(arguments)
    if options.sandbox:
        with sandbox_process(seed=options.seed, durations=options.durations) as base_urls:
            report = asyncio.run(measure(options, base_urls))
    else:
        report = asyncio.run(measure(options, None))
    print(json.dumps(asdict(report)) if options.json else text(report))
    sys.exit(1 if report.failures else 0)


if __name__ == "__main__":
    main()
