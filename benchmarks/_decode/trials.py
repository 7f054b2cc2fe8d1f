"""One measurement: a way to a picture, taken in a process of its own.

    python -m benchmarks._decode.trials WAY ORIGIN SIZE REPEATS FOLDER

prints one JSON object. The first picture is a small one that makes the connection and loads what loads late; the
figures are those of the pictures after it.
"""

from __future__ import annotations

import sys

if __name__ == "__main__" and sys.argv[1].endswith(" plain"):
    sys.modules["pybase64"] = None  # type: ignore[assignment]  # as if the `speed` extra were not installed

import asyncio
import base64
import gc
import json
import os
import resource
import selectors
import socket
import time
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import urlsplit

import aiohttp

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from mirage_async import Generation

__all__ = ["DOWNLOADS", "ON_DISK", "WAYS", "Figures"]

SMALL = 64 << 10
READ_BUFFER = 128 << 10  # what the library gives aiohttp
MB = 1 << 20

Take: TypeAlias = Callable[[], Awaitable[object]]
"""Gets a picture."""

Prepare: TypeAlias = Callable[[int], Take]
"""Makes ready for pictures of so many bytes."""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What one way to a picture took.

    Attributes:
        cpu: CPU time of the process for one MB of picture, the kernel's share included, in microseconds.
        traced: most memory that Python objects took at a time, in bytes.
        resident: the same as the system saw it.
        stall: the longest turn of the event loop, in milliseconds.
    """

    cpu: float
    traced: int
    resident: int
    stall: float


# -- ways --------------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def through_mira(origin: str, _folder: Path) -> AsyncIterator[Prepare]:
    """`MiraClient.generate`, answered with the picture as OpenAI's servers answer."""
    from mirage_async import MiraClient  # noqa: PLC0415 - each process loads what it measures

    async with MiraClient(base_url=origin) as first:

        def prepare(size: int) -> Take:
            client = first.with_options(base_url=f"{origin}/{size}")

            async def take() -> object:
                return await (await client.generate("a lighthouse")).image.read()

            return take

        yield prepare


@asynccontextmanager
async def through_mirako(origin: str, _folder: Path) -> AsyncIterator[Prepare]:
    """A task of Mirako's that is found finished: the status answer holds the picture."""
    from mirage_async import MirakoClient  # noqa: PLC0415 - as above

    async with MirakoClient(base_url=origin) as first:

        def prepare(size: int) -> Take:
            client = first.with_options(base_url=f"{origin}/{size}")

            async def take() -> object:
                return await (await client.job("t1")).image.read()

            return take

        yield prepare


@asynccontextmanager
async def through_openai(origin: str, _folder: Path) -> AsyncIterator[Prepare]:
    """`AsyncOpenAI.images.generate`, and the standard library for the base64 that it leaves to its caller."""
    from openai import AsyncOpenAI  # noqa: PLC0415 - as above

    async with AsyncOpenAI(api_key="none", base_url=origin, max_retries=0) as first:

        def prepare(size: int) -> Take:
            client = first.with_options(base_url=f"{origin}/{size}/v1")

            async def take() -> object:
                data = (await client.images.generate(model="gpt-image-1", prompt="a lighthouse")).data or []
                return base64.b64decode(data[0].b64_json or "")

            return take

        yield prepare


@asynccontextmanager
async def through_aiohttp(origin: str, _folder: Path) -> AsyncIterator[Prepare]:
    """What people write by hand: aiohttp, `json()` and the standard library."""
    async with aiohttp.ClientSession() as session:

        def prepare(size: int) -> Take:
            async def take() -> object:
                async with session.post(f"{origin}/{size}/v1/images/generate", json={"prompt": "x"}) as response:
                    return base64.b64decode((await response.json())["data"][0]["b64_json"])

            return take

        yield prepare


@asynccontextmanager
async def dropped(origin: str, _folder: Path) -> AsyncIterator[Prepare]:
    """The same answer read by aiohttp with our buffer and thrown away: below this, nobody who uses aiohttp can get."""
    async with aiohttp.ClientSession(read_bufsize=READ_BUFFER) as session:

        def prepare(size: int) -> Take:
            async def take() -> object:
                async with session.post(f"{origin}/{size}/v1/images/generate", json={"prompt": "x"}) as response:
                    while await response.content.readany():
                        pass
                return None

            return take

        yield prepare


def files_in(folder: Path) -> Iterator[Path]:
    """Yield a new name for each picture, as programs do: to replace one is to clear up after it as well."""
    return (folder / f"{number}.png" for number in count())


@asynccontextmanager
async def to_disk(origin: str, folder: Path) -> AsyncIterator[Prepare]:
    """`GeneratedImage.save`: a link, streamed to disk. One purchase serves every time: the raw socket buys nothing."""
    from mirage_async import MiraClient  # noqa: PLC0415 - as above

    files = files_in(folder)
    async with MiraClient(base_url=origin) as first:

        def prepare(size: int) -> Take:
            client = first.with_options(base_url=f"{origin}/{size}/link")
            bought: list[Generation] = []

            async def take() -> object:
                if not bought:
                    bought.append(await client.generate("a lighthouse"))
                return await bought[0].image.save(next(files))

            return take

        yield prepare


@asynccontextmanager
async def into_memory(origin: str, _folder: Path) -> AsyncIterator[Prepare]:
    """`GeneratedImage.read`: a link, read into memory."""
    from mirage_async import MiraClient  # noqa: PLC0415 - as above

    async with MiraClient(base_url=origin) as first:

        def prepare(size: int) -> Take:
            client = first.with_options(base_url=f"{origin}/{size}/link")

            async def take() -> object:
                return await (await client.generate("a lighthouse")).image.read()

            return take

        yield prepare


@asynccontextmanager
async def written(origin: str, folder: Path) -> AsyncIterator[Prepare]:
    """A picture read by aiohttp with our buffer and written on the event loop, as the raw socket writes it."""
    files = files_in(folder)
    async with aiohttp.ClientSession(read_bufsize=READ_BUFFER) as session:

        def prepare(size: int) -> Take:
            async def take() -> object:
                async with session.get(f"{origin}/{size}/picture.png") as response:
                    part = folder / "aiohttp.part"
                    file = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                    while chunk := await response.content.readany():
                        os.write(file, chunk)
                    os.fsync(file)
                    os.close(file)
                    return part.replace(next(files))

            return take

        yield prepare


@asynccontextmanager
async def raw_socket(origin: str, folder: Path) -> AsyncIterator[Prepare]:
    """A blocking socket and one buffer: the least a download to disk can cost."""
    address, files = urlsplit(origin), files_in(folder)
    buffer = memoryview(bytearray(1 << 18))
    with socket.create_connection((address.hostname or "", address.port or 0)) as connection:

        def prepare(size: int) -> Take:
            async def take() -> object:
                connection.sendall(f"GET /{size}/picture.png HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                return _to_file(connection, buffer, next(files))

            return take

        yield prepare


def _to_file(connection: socket.socket, buffer: memoryview, target: Path) -> Path:
    part = target.with_suffix(".part")
    file = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    received = connection.recv_into(buffer)
    head, _, _ = bytes(buffer[:received]).partition(b"\r\n\r\n")
    written = len(head) + 4
    left = int(head.lower().rpartition(b"content-length:")[2]) + written
    while True:
        os.write(file, buffer[written:received])
        left -= received
        if left == 0:
            break
        written, received = 0, connection.recv_into(buffer)
    os.fsync(file)
    os.close(file)
    return part.replace(target)


WAYS: dict[str, Callable[[str, Path], AbstractAsyncContextManager[Prepare]]] = {
    "mira": through_mira,
    "mira plain": through_mira,
    "mirako": through_mirako,
    "mirako plain": through_mirako,
    "openai": through_openai,
    "aiohttp": through_aiohttp,
    "dropped": dropped,
    "read": into_memory,
    "save": to_disk,
    "written": written,
    "socket": raw_socket,
    "save disk": to_disk,
    "socket disk": raw_socket,
}
DOWNLOADS = ("read", "save", "written", "socket")
ON_DISK = ("save disk", "socket disk")


# -- measuring ---------------------------------------------------------------------------------------------------------


class Turns(selectors.DefaultSelector):
    """A selector that knows, while it is `watching`, how long the loop was busy between two visits.

    It does not watch while CPU time is measured: its own questions take five microseconds of every turn. A turn during
    which the system gave the processor to somebody else counts with its CPU time only: what other programs do to us is
    not what is measured here.
    """

    def __init__(self) -> None:
        super().__init__()
        self.watching = False
        self.longest = 0.0
        self._began: tuple[float, float, int] | None = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Wait for events as any selector does."""
        if not self.watching:
            return super().select(timeout)
        if self._began is not None:
            wall, cpu, switches = (now - then for now, then in zip(_now(), self._began, strict=True))
            self.longest = max(self.longest, cpu if switches else wall)
        events = super().select(timeout)
        self._began = _now()
        return events


def _now() -> tuple[float, float, int]:
    return time.perf_counter(), time.thread_time(), resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw


def cpu_seconds() -> float:
    """Return the CPU time this process has used, the kernel's share included."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def resident(name: str) -> int:
    """Return a line of the process's status, such as "VmRSS" (memory in use) or "VmHWM" (its peak), in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) << 10


def forgotten_peak() -> int:
    """Let the system forget the peak of this process and return the memory in use."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return resident("VmRSS")


def grown_up() -> None:
    """Hold a large block once, as every process has that lives for a while.

    Until then glibc gives memory back to the system at every turn, and the page faults of buffers that are taken anew
    drown everything else, for whichever client.
    """
    bytearray(24 << 20)


async def peak_resident(take: Take) -> int:
    """Return by how many bytes one picture drives up the memory of the process."""
    gc.collect()
    before = forgotten_peak()
    await take()
    return resident("VmHWM") - before


async def peak_traced(take: Take) -> int:
    """Return how many bytes Python objects take at a time while a picture is fetched."""
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    await take()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak - before


async def measured(way: AbstractAsyncContextManager[Prepare], size: int, repeats: int, turns: Turns) -> Figures:
    """Take the way and report."""
    async with way as prepare:
        await prepare(SMALL)()
        take = prepare(size)
        memory = await peak_resident(take)
        grown_up()
        await take()
        began = cpu_seconds()
        for _ in range(repeats):
            await take()
        cpu = cpu_seconds() - began
        turns.watching = True
        for _ in range(repeats):
            await take()
        await asyncio.sleep(0)  # the turn that ended just now counts, too
        stall = turns.longest
        traced = await peak_traced(take)
    return Figures(cpu=1e6 * cpu * MB / size / repeats, traced=traced, resident=memory, stall=1000 * stall)


def main() -> None:
    """Be the child process."""
    way, origin, size, repeats, folder = sys.argv[1:]
    turns = Turns()

    def make_loop() -> asyncio.AbstractEventLoop:
        return asyncio.SelectorEventLoop(turns)

    with asyncio.Runner(loop_factory=make_loop) as runner:
        figures = runner.run(measured(WAYS[way](origin, Path(folder)), int(size), int(repeats), turns))
    print(json.dumps(asdict(figures)))


if __name__ == "__main__":
    main()
