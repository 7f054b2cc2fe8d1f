"""What the sandbox costs: time to start, pictures a second, and the requests a second below which nothing gets.

    python benchmarks/sandbox.py
    python benchmarks/sandbox.py --quick --json
    python benchmarks/sandbox.py --sheet pictures.png

The exit code is 1 where the command is slower to start than it may be. `--sheet` measures nothing: it makes a page of
pictures to look at.

Except for the first line of figures the sandbox runs in a process of its own: the CPU time reported is the server's
alone. Pictures are bought by a plain aiohttp client as an application would; the floor is measured with requests sent
many in one go, since otherwise the client, not the server, would set the pace.
"""

from __future__ import annotations

import sys
from pathlib import Path

if sys.path and Path(sys.path[0]).resolve() == Path(__file__).resolve().parent:
    sys.path.pop(0)  # run as a script, its neighbour would stand in for the standard library's `concurrent`

import argparse
import asyncio
import base64
import http.client
import io
import json
import os
import resource
import statistics
import subprocess
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import aiohttp
from PIL import Image, ImageDraw, ImageFont

from benchmarks._child import START_LIMIT, serving_in_child
from mirage_async.sandbox import Sandbox
from mirage_async.testing import sandboxed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
    from multiprocessing.connection import Connection

    from mirage_async import GeneratedImage

COMMAND = (sys.executable, "-m", "mirage_async", "sandbox", "--port", "0", "-q")
START_BOUND = 0.5  # seconds; a test suite should not notice that it started a server
UNFINISHED = 3600.0  # seconds; longer than any run, so that a job stays unfinished
BATCH = 50  # requests sent in one go where the client must cost next to nothing
BEARER = {"Authorization": "Bearer sk-benchmark"}
API_KEY = {"X-API-Key": "sk-benchmark"}
CHEAP = "/v1/avatar/list"  # a request that draws nothing

PROMPTS = ("a lighthouse at dusk", "firs in the snow", "dunes at noon", "an owl under the stars")
RATIOS: Mapping[str, Sequence[Mapping[str, Any]]] = {  # what is asked for with each of the prompts
    "mirako": [{"aspect_ratio": ratio} for ratio in ("16:9", "1:1", "3:4", "9:16")],
    "miragic": [{"size": size} for size in ("1024x512", "768x768", "640x1024", "2048x1152")],
    "mira": [{"size": size} for size in ("1536x1024", "1024x1024", "1024x1536", "auto")],
    "milady": [{"aspect_ratio": ratio} for ratio in ("21:9", "1:1", "9:21", "4:3")],
}
CELL = (400, 400)  # pixels of a picture on the page, at most
MARGIN = 16
LINE = 20  # pixels from one line of text to the next


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Several measurements of one thing, in seconds."""

    median: float
    least: float
    most: float
    repeats: int


@dataclass(frozen=True, kw_only=True)
class Pace:
    """One provider's pictures: drawn for the first time, or served again."""

    provider: str
    prompts: str
    pictures: int
    pictures_per_second: float
    bytes_per_picture: float
    server_cpu_ms_per_picture: float


@dataclass(frozen=True, kw_only=True)
class Floor:
    """Requests that cost the sandbox as little as any."""

    requests: int
    requests_per_second: float
    server_cpu_ms_per_request: float


@dataclass(frozen=True, kw_only=True)
class Report:
    """One run."""

    concurrency: int
    start_bound: float
    in_process: Spread
    command_ready: Spread
    command_ready_cpu: Spread
    command_answer: Spread
    paces: Sequence[Pace]
    floor: Floor


# --- starting ---------------------------------------------------------------------------------------------------------


async def start_in_process(seed: int) -> float:
    """Return the seconds from the call to the first answered request."""
    async with aiohttp.ClientSession(headers=BEARER) as session:
        began = time.perf_counter()
        async with Sandbox(seed=seed) as sandbox, session.get(sandbox.url + CHEAP) as response:
            await response.read()
            return time.perf_counter() - began


@dataclass(frozen=True, kw_only=True)
class Start:
    """Seconds from the start of the command to its ready line, their CPU time, and seconds to its first answer."""

    ready: float
    cpu: float
    answer: float


def start_command() -> Start:
    """Start the command and ask it once."""
    # An installed package has bytecode; the first start writes it where it is missing.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    began = time.perf_counter()
    with subprocess.Popen(COMMAND, stdout=subprocess.PIPE, text=True, env=environment) as process:  # noqa: S603 - ours
        try:
            url = read_ready(process)["url"]
            ready = time.perf_counter() - began
            cpu = cpu_of(process.pid)
            ask_once(url)
            return Start(ready=ready, cpu=cpu, answer=time.perf_counter() - began)
        finally:
            process.terminate()


def cpu_of(process: int) -> float:
    """Return the CPU seconds of another process, as exact as Linux tells: to a hundredth as a rule."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    user, system = int(fields[11]), int(fields[12])
    return (user + system) / os.sysconf("SC_CLK_TCK")


def read_ready(process: subprocess.Popen[str]) -> Mapping[str, Any]:
    """Return the line with which the command says that it listens."""
    for line in process.stdout or ():
        event: Mapping[str, Any] = json.loads(line)
        if event.get("event") == "ready":
            return event
    sys.exit(f"sandbox.py: {' '.join(COMMAND)} ended with exit code {process.wait()} before it was ready")


def ask_once(url: str) -> None:
    """Send one request over a connection of its own and read the answer."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=START_LIMIT)
    connection.request("GET", CHEAP, headers=BEARER)
    connection.getresponse().read()
    connection.close()


def spread(values: Sequence[float]) -> Spread:
    """Summarize measurements of one thing."""
    return Spread(median=statistics.median(values), least=min(values), most=max(values), repeats=len(values))


# --- buying -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Client:
    """A plain client of one sandbox; every method buys one picture and returns the number of its bytes."""

    session: aiohttp.ClientSession
    url: str

    async def mirako(self, prompt: str) -> int:
        """Create a task, ask for it until it is completed, decode the picture."""
        fields = {"prompt": prompt, "aspect_ratio": "1:1"}
        task = (await self.post("/v1/image/async_generate", json=fields, headers=BEARER))["data"]["task_id"]
        data: dict[str, str] = {}
        while "image" not in data:
            data = (await self.ask(f"/v1/image/async_generate/{task}/status", BEARER))["data"]
        return len(base64.b64decode(data["image"]))

    async def miragic(self, prompt: str) -> int:
        """Create a job, ask for it until it is completed, download the picture."""
        fields = {"prompt": prompt, "model": "flux", "width": "1024", "height": "1024"}
        job = (await self.post("/api/v1/image/generate", data=fields, headers=API_KEY))["data"]["jobId"]
        link = None
        while link is None:
            link = (await self.ask(f"/api/v1/image/jobs/{job}", API_KEY))["data"]["processedImageUrl"]
        return await self.download(link)

    async def mira(self, prompt: str) -> int:
        """Wait for the link, download the picture."""
        answer = await self.post("/v1/images/generate", json={"prompt": prompt, "size": "1024x1024"}, headers=BEARER)
        return await self.download(answer["data"][0]["url"])

    async def milady(self, prompt: str) -> int:
        """Wait for the link, download the picture."""
        answer = await self.post("/api/v1/generate-image", json={"prompt": prompt}, headers=BEARER)
        return await self.download(answer["images"][0]["url"])

    async def post(self, path: str, **options: Any) -> Any:
        """Send a purchase and return the decoded answer."""
        async with self.session.post(self.url + path, **options) as response:
            return await response.json()

    async def ask(self, path: str, headers: Mapping[str, str]) -> Any:
        """Ask how far a job is and return the decoded answer."""
        async with self.session.get(self.url + path, headers=headers) as response:
            return await response.json()

    async def download(self, link: str) -> int:
        """Read what is behind a link."""
        async with self.session.get(link) as response:
            return len(await response.read())


async def together(tasks: Sequence[Callable[[], Awaitable[int]]], concurrency: int) -> int:
    """Do all tasks, so many of them at a time, and return the sum of what they return."""
    waiting, total = iter(tasks), 0

    async def worker() -> None:
        nonlocal total
        for task in waiting:
            done = await task()
            total += done

    await asyncio.gather(*(worker() for _ in range(concurrency)))
    return total


# --- the sandbox's own process ----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Server:
    """A sandbox in a child process."""

    url: str
    pipe: Connection

    def cpu_seconds(self) -> float:
        """Return the CPU time its process has used, the kernel's share included."""
        self.pipe.send("cpu")
        used: float = self.pipe.recv()
        return used


@contextmanager
def sandbox_process(*, seed: int, durations: float) -> Generator[Server]:
    """Run a sandbox in a child process; it ends with the block, or with this process."""
    with serving_in_child(serve, seed, durations) as (url, pipe):
        yield Server(url=url, pipe=pipe)


def serve(connection: Connection, seed: int, durations: float) -> None:
    """Be the child process: run a sandbox, and tell its CPU time, until the parent closes its end of the pipe."""

    def answer() -> None:
        try:
            while connection.recv():
                used = resource.getrusage(resource.RUSAGE_SELF)
                connection.send(used.ru_utime + used.ru_stime)
        except EOFError:
            return

    async def until_closed() -> None:
        async with Sandbox(seed=seed, durations=durations) as sandbox:
            connection.send(sandbox.url)
            await asyncio.to_thread(answer)

    asyncio.run(until_closed())


# --- measuring --------------------------------------------------------------------------------------------------------


async def measure_pictures(server: Server, *, pictures: int, concurrency: int, seed: int) -> list[Pace]:
    """Buy every provider's pictures twice over: with a new prompt each, and all with one prompt."""
    paces: list[Pace] = []
    async with aiohttp.ClientSession() as session:
        client = Client(session=session, url=server.url)
        for buy in (client.mirako, client.miragic, client.mira, client.milady):
            # The name is in the prompt because one drawing serves all providers that want the same picture.
            same = f"a lighthouse in the fog for {buy.__name__}, {seed}"
            await buy(same)
            new = [f"{same}, number {number}" for number in range(pictures)]
            for kind, prompts in (("new", new), ("again", [same] * (10 * pictures))):
                began, cpu = time.perf_counter(), server.cpu_seconds()
                size = await together([partial(buy, prompt) for prompt in prompts], concurrency)
                seconds, cpu = time.perf_counter() - began, server.cpu_seconds() - cpu
                paces.append(
                    Pace(
                        provider=buy.__name__,
                        prompts=kind,
                        pictures=len(prompts),
                        pictures_per_second=len(prompts) / seconds,
                        bytes_per_picture=size / len(prompts),
                        server_cpu_ms_per_picture=1000 * cpu / len(prompts),
                    )
                )
    return paces


async def measure_floor(server: Server, *, requests: int, concurrency: int) -> Floor:
    """Ask for an unfinished job over and over, so cheaply that the server is what limits the pace."""
    async with aiohttp.ClientSession() as session:
        client = Client(session=session, url=server.url)
        fields = {"prompt": "a lighthouse in the fog", "aspect_ratio": "1:1"}
        task = (await client.post("/v1/image/async_generate", json=fields, headers=BEARER))["data"]["task_id"]
    batches = max(1, requests // (concurrency * BATCH))
    connections = [partial(ask_in_batches, server.url, task, batches) for _ in range(concurrency)]
    began, cpu = time.perf_counter(), server.cpu_seconds()
    answered = await together(connections, concurrency)
    seconds, cpu = time.perf_counter() - began, server.cpu_seconds() - cpu
    return Floor(
        requests=answered, requests_per_second=answered / seconds, server_cpu_ms_per_request=1000 * cpu / answered
    )


async def ask_in_batches(url: str, task: str, batches: int) -> int:
    """Send status calls a batch at a time on one connection; return how many were answered."""
    place = urlsplit(url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    head = f"GET /v1/image/async_generate/{task}/status HTTP/1.1\r\nHost: {place.netloc}\r\n"
    request = f"{head}Authorization: {BEARER['Authorization']}\r\n\r\n".encode()
    answered = 0
    for _ in range(batches):
        writer.write(request * BATCH)
        for _ in range(BATCH):
            answer = await reader.readuntil(b"\r\n\r\n")
            length = answer.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
            await reader.readexactly(int(length))
            answered += answer.startswith(b"HTTP/1.1 200 ")
    writer.close()
    await writer.wait_closed()
    return answered


def measure(*, repeats: int, pictures: int, requests: int, concurrency: int, seed: int) -> Report:
    """Take every measurement."""
    in_process = [asyncio.run(start_in_process(seed)) for _ in range(repeats)]
    start_command()
    commands = [start_command() for _ in range(repeats)]
    with sandbox_process(seed=seed, durations=0.0) as server:
        paces = asyncio.run(measure_pictures(server, pictures=pictures, concurrency=concurrency, seed=seed))
    with sandbox_process(seed=seed, durations=UNFINISHED) as server:
        floor = asyncio.run(measure_floor(server, requests=requests, concurrency=concurrency))
    return Report(
        concurrency=concurrency,
        start_bound=START_BOUND,
        in_process=spread(in_process),
        command_ready=spread([start.ready for start in commands]),
        command_ready_cpu=spread([start.cpu for start in commands]),
        command_answer=spread([start.answer for start in commands]),
        paces=paces,
        floor=floor,
    )


# --- looking ----------------------------------------------------------------------------------------------------------


async def sheet(path: Path, seed: int) -> None:
    """Buy four pictures from every provider, each of another shape, and put them on one page."""
    async with sandboxed(seed=seed) as (mirage, _):

        async def cell(provider: str, prompt: str, shape: Mapping[str, Any]) -> Image.Image:
            bought = await mirage.generate(prompt, provider=provider, **shape)
            asked = f"{provider}, {next(iter(shape.values()))}"
            return labelled(bought.image, await bought.image.read(), asked, prompt)

        orders = [cell(name, *order) for name, shapes in RATIOS.items() for order in zip(PROMPTS, shapes, strict=True)]
        cells = await asyncio.gather(*orders)
    page = Image.new("RGB", (len(PROMPTS) * cells[0].width, len(RATIOS) * cells[0].height), "white")
    for number, picture in enumerate(cells):
        row, column = divmod(number, len(PROMPTS))
        page.paste(picture, (column * picture.width, row * picture.height))
    page.save(path)  # the suffix decides the format


def labelled(bought: GeneratedImage, data: bytes, asked: str, prompt: str) -> Image.Image:
    """Return a picture made small, with what was asked for and what came below it."""
    picture = Image.open(io.BytesIO(data))
    came = f"{bought.mime_type}, {picture.width} x {picture.height}, {len(data) / 1000:.0f} KB"
    small = picture.convert("RGB")
    small.thumbnail(CELL)
    width, height = CELL
    cell = Image.new("RGB", (width + 2 * MARGIN, height + 2 * MARGIN + 3 * LINE), "white")
    cell.paste(small, (MARGIN + (width - small.width) // 2, MARGIN + height - small.height))
    lines = f"{asked}\n{came}\n{prompt}"
    ImageDraw.Draw(cell).text((MARGIN, MARGIN + height + 4), lines, fill="black", font=ImageFont.load_default(14))
    return cell


# --- reporting --------------------------------------------------------------------------------------------------------


def text(report: Report) -> str:
    """Return the report for people."""

    def start(name: str, times: Spread) -> str:
        return f"  {name:<34}{times.median:>8.3f} s ({times.least:.3f}-{times.most:.3f})"

    lines = [
        f"start, median of {report.in_process.repeats} (lowest-highest); ready within {report.start_bound:g} s",
        start("in process, to the first answer", report.in_process),
        start("command, to the ready line", report.command_ready),
        start("the same, CPU", report.command_ready_cpu),
        start("command, to the first answer", report.command_answer),
        f"pictures of about 1024x1024, {report.concurrency} at a time",
        "  provider  prompts  pictures/s  KB/picture  server CPU ms/picture",
    ]
    lines += [
        f"  {pace.provider:<10}{pace.prompts:<7}{pace.pictures_per_second:>12.1f}"
        f"{pace.bytes_per_picture / 1000:>12.1f}{pace.server_cpu_ms_per_picture:>23.2f}"
        for pace in report.paces
    ]
    floor = report.floor
    lines.append(f"floor, {floor.requests} status calls of an unfinished job, {report.concurrency} connections")
    lines.append(
        f"  {floor.requests_per_second:.0f} requests/s, server CPU {floor.server_cpu_ms_per_request:.3f} ms/request"
    )
    return "\n".join(lines)


def complaint(report: Report) -> str | None:
    """Return why the run is a failure, or None."""
    took, bound = report.command_ready.median, report.start_bound
    return f"sandbox.py: the ready line took {took:.3f} s; {bound:g} s is the bound" if took > bound else None


def positive(value: str) -> int:
    """Read a whole number of at least 1."""
    number = int(value)
    if number < 1:
        msg = f"must be at least 1, got {value}"
        raise argparse.ArgumentTypeError(msg)
    return number


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark and print its report."""
    parser = argparse.ArgumentParser(description="What the sandbox costs")
    parser.add_argument("--concurrency", type=positive, default=8, metavar="C", help="requests under way at a time")
    parser.add_argument("--seed", type=int, default=0, help="the same seed draws the same pictures")
    parser.add_argument("--quick", action="store_true", help="a tenth of the work, for a first look")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--sheet", type=Path, metavar="FILE.png", help="measure nothing, make a page of pictures")
    options = parser.parse_args(arguments)
    if options.sheet is not None:
        asyncio.run(sheet(options.sheet, options.seed))
        return
    repeats, pictures, requests = (5, 10, 800) if options.quick else (15, 100, 8000)
    report = measure(
        repeats=repeats, pictures=pictures, requests=requests, concurrency=options.concurrency, seed=options.seed
    )
    print(json.dumps(asdict(report)) if options.json else text(report))
    sys.exit(complaint(report))


if __name__ == "__main__":
    main()
