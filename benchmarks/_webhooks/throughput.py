"""What a delivery costs: the receiver beside a bare handler, in one server process, by its CPU time."""

from __future__ import annotations

import asyncio
import multiprocessing
import random
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from aiohttp import web

from benchmarks._webhooks.load import post, send_all
from mirage_async._clock import SystemClock
from mirage_async.jobs import Job, JobKind, NullRecorder, new_job
from mirage_async.models import JobStatus, Pace
from mirage_async.webhooks import WebhookReceiver

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from multiprocessing.connection import Connection

__all__ = ["Throughput", "measure_throughput"]

SECRET = "V1StGXR8_Z5jdHi6B-myT0p3Lq9wNcYs"  # noqa: S105 - of a benchmark
# About as long as what Mirako is taken to deliver without a picture.
BODY = (
    b'{"id":"7f3a","status":"COMPLETED","delayTime":812,"executionTime":4127,"output":{"note":"' + b"x" * 800 + b'"}}'
)
PREFIXES = ("/bare", "/hooks")


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """One number of connections.

    Attributes:
        connections: kept-alive connections that send one delivery after the other.
        bare: CPU microseconds a request of a handler that reads the body and answers 204, one for each repeat.
        receiver: the same for the receiver, which verifies, decodes and wakes the future of a job.
        ratio: bare divided by receiver, the median over the repeats.
    """

    connections: int
    bare: Sequence[float]
    receiver: Sequence[float]
    ratio: float


class _Waker:
    """Wakes the future of a job, and asks nobody."""

    def __init__(self) -> None:
        self.futures: dict[str, asyncio.Future[None]] = {}

    def wake(self, job: Job[Any]) -> None:
        self.futures.pop(job.key).set_result(None)


def _serve(connection: Connection) -> None:
    """Be the server process: do what comes over the pipe until it is closed."""
    asyncio.run(_run(connection))


async def _run(connection: Connection) -> None:
    waker, receiver = _Waker(), WebhookReceiver(public_url="http://127.0.0.1/hooks", secret=SECRET)
    kind: JobKind[None] = JobKind(
        provider="mirako",
        name="image",
        pace=Pace(first=1, interval=1, maximum=1, max_wait=1),
        clock=SystemClock(),
        recorder=NullRecorder(),
        waker=cast("Any", waker),
        look=cast("Any", None),
        redeem=cast("Any", None),
        ended=lambda _: None,
        account=None,
    )

    async def bare(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(status=204)

    plain = web.Application()
    plain.router.add_post("/{provider}/{token}", bare)
    app = web.Application()
    app.add_subapp("/bare", plain)
    app.add_subapp("/hooks", receiver.aiohttp_app())
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    connection.send(runner.addresses[0][1])
    orders: asyncio.Queue[Any] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    loop.add_reader(connection.fileno(), lambda: _receive(connection, orders))
    jobs: list[Job[None]] = []
    while (order := await orders.get()) is not None:
        if order == "cpu":
            connection.send(time.process_time())
        elif order == "woken":
            connection.send(len(jobs) - len(waker.futures))
        else:
            jobs = [new_job(kind, key=key, id="7f3a", status=JobStatus.QUEUED) for key in order]
            waker.futures = {job.key: loop.create_future() for job in jobs}
            for job in jobs:
                receiver.expect(job)
            connection.send(len(jobs))
    loop.remove_reader(connection.fileno())
    await runner.cleanup()


def _receive(connection: Connection, orders: asyncio.Queue[Any]) -> None:
    try:
        orders.put_nowait(connection.recv())
    except EOFError:
        orders.put_nowait(None)


def _requests(receiver: WebhookReceiver, keys: Sequence[str], prefix: str) -> list[bytes]:
    """Return a delivery for each key, at the receiver's address or, just the same, at the bare handler's."""
    made: list[bytes] = []
    for key in keys:
        url, bearer = receiver.callback("mirako", key)
        headers = {
            "Authorization": f"Bearer {bearer}",
            "Content-Type": "application/json",
            "User-Agent": "provider/1.0",
            "Accept": "*/*",
        }
        made.append(post(url.removeprefix("http://127.0.0.1").replace("/hooks", prefix), headers, BODY))
    return made


def measure_throughput(*, requests: int, repeats: int, connections: Sequence[int], seed: int) -> list[Throughput]:
    """Measure both handlers in turn, in the same process of its own.

    Raises:
        RuntimeError: an answer is not 204, or a job was not woken.
    """
    dice = random.Random(seed)
    receiver = WebhookReceiver(public_url="http://127.0.0.1/hooks", secret=SECRET)
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    child = context.Process(target=_serve, args=(theirs,), daemon=True)
    child.start()
    theirs.close()
    port: int = ours.recv()

    def ask(order: object) -> Any:
        ours.send(order)
        return ours.recv()

    def cost(prefix: str, lines: int) -> float:
        """Return the CPU microseconds a request took the server."""
        keys = [dice.randbytes(16).hex() for _ in range(requests)]
        ask(keys)
        sent = _requests(receiver, keys, prefix)
        before = ask("cpu")
        asyncio.run(send_all(port, sent, connections=lines, status=204))
        spent: float = ask("cpu") - before
        if ask("woken") != (requests if prefix == "/hooks" else 0):
            msg = "the receiver did not wake every job"
            raise RuntimeError(msg)
        return 1e6 * spent / requests

    measured: list[Throughput] = []
    for lines in connections:
        costs: Mapping[str, list[float]] = {prefix: [] for prefix in PREFIXES}
        for prefix in PREFIXES:
            cost(prefix, lines)  # what is only paid once
        for _ in range(repeats):
            for prefix in PREFIXES:
                costs[prefix].append(cost(prefix, lines))
        bare, full = costs["/bare"], costs["/hooks"]
        ratio = statistics.median(one / other for one, other in zip(bare, full, strict=True))
        measured.append(Throughput(connections=lines, bare=bare, receiver=full, ratio=ratio))
    ours.close()
    child.join(timeout=5)
    if child.is_alive():
        child.terminate()
        child.join()
    return measured
