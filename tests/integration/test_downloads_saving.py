"""Pictures on disk: names, modes, atomic publication, and nothing left behind."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest
from picture_servers import JPEG, LARGE, PNG, Gate, QuickClock, linked, serving

from mirage_async import _fetching, _saving, downloads
from mirage_async._saving import Draft
from mirage_async.downloads import Downloader
from mirage_async.exceptions import DownloadError
from mirage_async.wire import Piece

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio


@pytest.fixture
def clock() -> QuickClock:
    """Return the clock the downloader of the test waits on."""
    return QuickClock()


@pytest.fixture
async def downloader(clock: QuickClock) -> AsyncIterator[Downloader]:
    """Return a downloader that is closed after the test."""
    downloader = Downloader(clock=clock, limit=4, max_bytes=8 << 20)
    yield downloader
    await downloader.aclose()


def listing(folder: Path) -> list[str]:
    """Return the files below a folder, hidden ones included."""
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


@pytest.mark.parametrize(
    ("wish", "data", "result"),
    [
        ("x.png", PNG, "x.png"),
        ("x.PNG", PNG, "x.PNG"),
        ("x", PNG, "x.png"),
        ("x.jpg", PNG, "x.png"),
        ("x.jpeg", JPEG, "x.jpeg"),
        ("x.jpg", JPEG, "x.jpg"),
        ("x.webp", JPEG, "x.jpg"),
        ("sd-3.5", PNG, "sd-3.5.png"),
        ("a/b/c.png", PNG, "a/b/c.png"),
        ("", PNG, "milady-1.png"),
    ],
)
@pytest.mark.parametrize("inline", [False, True], ids=["link", "bytes"])
async def test_the_suffix_follows_the_bytes(
    downloader: Downloader, tmp_path: Path, wish: str, data: bytes, result: str, *, inline: bool
) -> None:
    """A right suffix stays, a wrong one is replaced, a missing or foreign one is completed; folders are made."""
    async with serving((200, data)) as server:
        image = linked(downloader, server.url)
        if inline:
            image.fill(data)
        path = await image.save(tmp_path / wish)
        assert path == tmp_path / result
        assert path.read_bytes() == data
        assert listing(tmp_path) == [result]
        assert image.width == 40
        assert image.data == (data if inline else None)


async def test_bytes_of_an_unknown_type_keep_their_name(downloader: Downloader, tmp_path: Path) -> None:
    """Inline bytes are paid for, whatever they are; they are written under the name asked for."""
    image = downloader.image(Piece(data=b"?"), name="n", provider="mira", allow_private=False)
    assert await image.save(tmp_path / "x") == tmp_path / "x"
    assert await downloader.save(image, tmp_path, overwrite=False) == tmp_path / "n"


async def test_a_large_picture_is_streamed_to_disk(
    downloader: Downloader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The picture passes through in batches and is never held whole, nor readable for others meanwhile."""
    batches: list[int] = []
    modes: set[int] = set()
    write = Draft.write

    def record(self: Draft, data: bytes) -> None:
        batches.append(len(data))
        modes.update(file.stat().st_mode & 0o777 for file in tmp_path.iterdir())
        write(self, data)

    monkeypatch.setattr(Draft, "write", record)
    old = os.umask(0o027)
    try:
        async with serving((200, LARGE[:-9]), (200, LARGE)) as server:
            path = await linked(downloader, server.url).save(tmp_path / "large.png")
    finally:
        os.umask(old)
    assert path.read_bytes() == LARGE
    assert path.stat().st_mode & 0o777 == 0o640
    assert modes == {0o600}
    assert len(batches) >= 6
    assert max(batches) < 2 << 20


async def test_an_existing_file_costs_no_download(downloader: Downloader, tmp_path: Path) -> None:
    """Where the target can be told beforehand, nothing is fetched."""
    target = tmp_path / "x.png"
    target.write_bytes(b"mine")
    async with serving((200, PNG)) as server:
        with pytest.raises(FileExistsError, match=r"not overwritten, the file exists: '.*x\.png'"):
            await linked(downloader, server.url).save(target)
        with pytest.raises(FileExistsError, match=r"x\.png"):
            await linked(downloader, server.url, mime_type="image/png").save(tmp_path / "x")
        assert server.requests == []
    assert target.read_bytes() == b"mine"


async def test_an_existing_file_is_noticed_at_the_end(downloader: Downloader, tmp_path: Path) -> None:
    """A target that only the bytes reveal, or that appears meanwhile, is not overwritten either."""
    target = tmp_path / "x.png"
    target.write_bytes(b"mine")
    async with serving((200, PNG)) as server:
        with pytest.raises(FileExistsError, match=r"x\.png"):
            await linked(downloader, server.url).save(tmp_path / "x")
        assert len(server.requests) == 1
    assert target.read_bytes() == b"mine"
    assert listing(tmp_path) == ["x.png"]


async def test_overwriting_is_possible_on_request(downloader: Downloader, tmp_path: Path) -> None:
    """With `overwrite=True` the new picture takes the place of the old file."""
    target = tmp_path / "x.png"
    target.write_bytes(b"old")
    async with serving((200, PNG)) as server:
        assert await linked(downloader, server.url).save(target, overwrite=True) == target
    assert target.read_bytes() == PNG
    assert listing(tmp_path) == ["x.png"]


async def test_a_failed_download_leaves_nothing(downloader: Downloader, tmp_path: Path) -> None:
    """The hidden file goes with the failure, and an old file stays."""
    target = tmp_path / "x.png"
    target.write_bytes(b"old")
    async with serving((200, PNG[:-3])) as server:
        with pytest.raises(DownloadError, match="has no IEND chunk"):
            await linked(downloader, server.url).save(target, overwrite=True)
    assert listing(tmp_path) == ["x.png"]
    assert target.read_bytes() == b"old"


@pytest.mark.parametrize("native", [True, False], ids=["task", "scope"])
async def test_a_cancelled_save_leaves_nothing(downloader: Downloader, tmp_path: Path, *, native: bool) -> None:
    """Cancelling raises through and takes the hidden file along."""
    gate = Gate(LARGE)
    async with serving(gate) as server:
        image = linked(downloader, server.url)
        if native:
            task = asyncio.create_task(image.save(tmp_path))
            await gate.entered.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            async with anyio.create_task_group() as group:
                group.start_soon(image.save, tmp_path)
                await gate.entered.wait()
                group.cancel_scope.cancel()
        assert listing(tmp_path) == []
        gate.opened.set()


async def test_saving_joins_a_reader_that_is_under_way(downloader: Downloader, tmp_path: Path) -> None:
    """A picture that is being read is not fetched a second time for the file."""
    gate = Gate()
    async with serving(gate) as server:
        image = linked(downloader, server.url)
        reader = asyncio.create_task(image.read())
        await gate.entered.wait()
        saver = asyncio.create_task(image.save(tmp_path))
        await asyncio.sleep(0.01)
        gate.opened.set()
        assert (await saver).read_bytes() == await reader == PNG
        assert len(server.requests) == 1


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch, clock: QuickClock) -> Writes:
    """Let every write note its thread, and take as long as it is told to."""
    writes = Writes()
    write = Draft.write

    def noting(draft: Draft, data: bytes) -> None:
        writes.elsewhere.append(threading.get_ident() != here)
        clock.now += writes.pauses.pop(0) if writes.pauses else writes.pause
        write(draft, data)

    here = threading.get_ident()
    monkeypatch.setattr(Draft, "write", noting)
    return writes


class Writes:
    """What was written where, and how long each write takes in seconds."""

    def __init__(self) -> None:
        self.elsewhere: list[bool] = []
        self.pauses: list[float] = []
        self.pause = 0.0


@pytest.mark.parametrize("pause", [0.0, 0.1])
async def test_a_disk_that_makes_us_wait_is_left_to_threads(
    downloader: Downloader, tmp_path: Path, writes: Writes, pause: float
) -> None:
    """A write into the page cache costs less than the way to a thread; a slow one must not hold up the event loop.

    One slow write is enough for all files that follow.
    """
    writes.pause = pause
    async with serving((200, LARGE)) as server:
        for _ in range(2):
            path = await linked(downloader, server.url).save(tmp_path / "x", overwrite=True)
            assert path.read_bytes() == LARGE
    assert len(writes.elsewhere) > 3
    assert writes.elsewhere == [pause > 0 and number > 0 for number in range(len(writes.elsewhere))]


async def test_a_disk_that_was_slow_is_trusted_again(
    downloader: Downloader, tmp_path: Path, writes: Writes, clock: QuickClock
) -> None:
    """After a while without another slow write."""
    writes.pauses = [0.01]
    async with serving((200, LARGE)) as server:
        await linked(downloader, server.url).save(tmp_path / "x")
        assert writes.elsewhere == [False, *[True] * (len(writes.elsewhere) - 1)]
        assert len(writes.elsewhere) > 1
        clock.now += 1.0
        writes.elsewhere.clear()
        await linked(downloader, server.url).save(tmp_path / "x", overwrite=True)
        assert not any(writes.elsewhere)


def test_a_write_the_system_takes_in_parts_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one call leaves over, the next ones write."""
    write = os.write
    draft = drafted(tmp_path / "x.png")
    monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:1000]))
    draft.write(LARGE[:4500])
    assert draft.publish(".png", overwrite=False).read_bytes() == PNG + LARGE[:4500]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.ETIMEDOUT], ids=["full", "far away"])
async def test_a_disk_in_trouble_is_not_taken_for_a_bad_connection(
    downloader: Downloader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: QuickClock, code: int
) -> None:
    """An error of the file system reaches the caller unchanged, after one attempt; a `TimeoutError`, too."""

    def fails(*_arguments: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Draft, "write", fails)
    async with serving((200, LARGE)) as server:
        with pytest.raises(OSError, match=os.strerror(code)):
            await linked(downloader, server.url).save(tmp_path)
        assert len(server.requests) == 1
    assert clock.slept == []
    assert listing(tmp_path) == []


async def test_a_folder_that_cannot_be_written_to_is_an_os_error(
    downloader: Downloader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system's own error is passed on: a missing permission, or a file where a folder should be."""
    image = downloader.image(Piece(data=PNG), name="n", provider="mira", allow_private=False)
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="file"):
        await image.save(tmp_path / "file" / "x.png")

    def refuse(*_arguments: object, **_options: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(PermissionError, match="Permission denied"):
        await image.save(tmp_path / "x.png")


# -- the file itself -------------------------------------------------------------------------------------------------


def drafted(path: Path) -> Draft:
    """Return a draft with some bytes in it."""
    draft = Draft(path, "name")
    draft.open(None, overwrite=False)
    draft.write(PNG)
    return draft


def test_without_hard_links_the_name_is_claimed_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """File systems without links still never overwrite, and leave nothing behind."""

    def no_links(*_arguments: object, **_options: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    draft = drafted(tmp_path / "x.png")
    assert draft.publish(".png", overwrite=False).read_bytes() == PNG
    draft = drafted(tmp_path / "x.jpg")
    with pytest.raises(FileExistsError, match=r"x\.png"):
        draft.publish(".png", overwrite=False)
    draft.discard()
    assert listing(tmp_path) == ["x.png"]


def test_a_claim_is_given_back_when_renaming_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The empty file that held the name does not stay."""

    def no_links(*_arguments: object, **_options: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    def no_rename(*_arguments: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "link", no_links)
    monkeypatch.setattr(Path, "replace", no_rename)
    draft = drafted(tmp_path / "x.png")
    with pytest.raises(OSError, match="Input/output error"):
        draft.publish(".png", overwrite=False)
    draft.discard()
    assert listing(tmp_path) == []


def test_other_trouble_with_links_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what means "no links here" leads to the other way."""

    def broken(*_arguments: object, **_options: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "link", broken)
    draft = drafted(tmp_path / "x.png")
    with pytest.raises(OSError, match="Input/output error"):
        draft.publish(".png", overwrite=False)
    draft.discard()
    draft.discard()
    assert listing(tmp_path) == []


def test_a_discarded_draft_cannot_be_opened(tmp_path: Path) -> None:
    """A thread that comes late, after its caller has given up, leaves nothing behind."""
    draft = Draft(tmp_path / "x.png", "name")
    draft.discard()
    with pytest.raises(InterruptedError, match="given up"):
        draft.open(None, overwrite=False)
    assert listing(tmp_path) == []


def test_a_planted_link_is_not_followed(tmp_path: Path) -> None:
    """A symbolic link in the target's place counts as an existing file and is replaced only on request."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    trap = tmp_path / "x.png"
    trap.symlink_to(victim)
    draft = Draft(trap, "name")
    with pytest.raises(FileExistsError, match=r"x\.png"):
        draft.open(None, overwrite=False)
    draft.open(None, overwrite=True)
    draft.write(PNG)
    assert draft.publish(".png", overwrite=True).read_bytes() == PNG
    assert victim.read_bytes() == b"mine"
    assert _saving._FLAGS & os.O_NOFOLLOW


async def test_an_attempt_that_is_given_up_waits_for_its_thread(
    downloader: Downloader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next one writes to the same file, which must not get a piece of the last one late."""
    monkeypatch.setattr(_fetching, "ATTEMPT_BOUND", 0.05)
    monkeypatch.setattr(downloads._Disk, "waits", True)
    write, held_up, late = downloads._Disk.write, threading.Event(), threading.Event()
    pieces = 0

    def slowly(disk: downloads._Disk, draft: Draft, piece: bytes | memoryview) -> None:
        nonlocal pieces
        pieces += 1
        if pieces == 1:  # another program has the processor, before the file is locked
            held_up.wait(5)
            monkeypatch.setattr(_fetching, "ATTEMPT_BOUND", 60.0)
            write(disk, draft, piece)
            late.set()
            return
        held_up.set()  # the next attempt is under way
        late.wait(5)
        write(disk, draft, piece)

    monkeypatch.setattr(downloads._Disk, "write", slowly)
    asyncio.get_running_loop().call_later(0.2, held_up.set)
    async with serving((200, LARGE)) as server:
        path = await linked(downloader, server.url).save(tmp_path / "x.png")
        assert len(server.requests) == 2
    assert path.read_bytes() == LARGE


async def test_what_kept_one_attempt_from_writing_is_forgotten_by_the_next(tmp_path: Path, clock: QuickClock) -> None:
    """The connection broke before anybody was told; now the disk is well again."""
    draft = drafted(tmp_path / "x.png")
    sink = downloads._FileSink(draft, downloads._Disk(clock))
    descriptor, draft._fd = draft._fd, -1
    assert not sink.take(PNG, 0)
    draft._fd = descriptor
    await sink.restart()
    assert sink.take(PNG, 0)
    assert draft.publish(".png", overwrite=False).read_bytes() == PNG
