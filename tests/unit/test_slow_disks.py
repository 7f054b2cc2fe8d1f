"""Who makes the file of a download and writes its chunks: the event loop, or a thread. No disk is needed."""

from __future__ import annotations

import errno
import threading
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from mirage_async import downloads
from mirage_async.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mirage_async._saving import Draft


class Slow:
    """Stands for a file whose every write takes as long as is said, and then fails if that is said, too."""

    def __init__(self, clock: FakeClock, seconds: Iterable[float], *, fails: bool = False) -> None:
        self._clock = clock
        self._seconds = iter(seconds)
        self._fails = fails

    def write(self, chunk: bytes) -> None:
        """Take so long."""
        self._clock._now += next(self._seconds) * len(chunk)
        if self._fails:
            raise OSError(errno.ETIMEDOUT, "the share is gone")


def on_the_loop(seconds: list[float]) -> list[bool]:
    """Return for each of some writes, one millisecond apart, whether the event loop would do it."""
    clock = FakeClock()
    disk, draft, found = downloads._Disk(clock), cast("Draft", Slow(clock, seconds)), list[bool]()
    for _ in seconds:
        found.append(not disk.waits)
        disk.write(draft, b"x")
        clock._now += 0.001
    return found


def test_a_quick_disk_is_written_to_on_the_loop() -> None:
    """So is one that takes nearly as long as is allowed."""
    assert all(on_the_loop([0.0001, 0.99 * downloads.SLOW_WRITE] * 100))


def test_a_program_that_took_the_processor_makes_nobody_wary_for_long() -> None:
    """Some milliseconds now and then cost a dozen chunks their place on the loop."""
    found = on_the_loop(([0.003] + [0.0001] * 99) * 10)
    assert found.count(False) <= 15 * 10
    assert on_the_loop([0.003] * 1000).count(True) == 1


@pytest.mark.parametrize("every", [18, 20, 25, 40, 100, 500])
def test_a_share_that_flushes_now_and_then_holds_the_loop_up_hardly_ever(every: int) -> None:
    """A fifth of a second in one write of many is a thread's to wait for, but for the first in a minute."""
    seconds = ([0.0001] * (every - 1) + [0.2]) * 50
    slow_on_loop = sum(
        on_loop for on_loop, took in zip(on_the_loop(seconds), seconds, strict=True) if took > downloads.SLOW_WRITE
    )
    assert slow_on_loop == 1


def test_a_disk_is_trusted_again_after_a_minute() -> None:
    """However long it stood still."""
    clock = FakeClock()
    disk = downloads._Disk(clock)
    disk.write(cast("Draft", Slow(clock, [300.0])), b"x")
    clock._now += downloads.WARIEST - 0.1
    assert disk.waits
    clock._now += 0.2
    assert not disk.waits


def test_a_write_that_fails_after_a_while_was_a_slow_one() -> None:
    """A share that is gone is not met on the event loop a second time."""
    clock = FakeClock()
    disk = downloads._Disk(clock)
    with pytest.raises(OSError, match="the share is gone"):
        disk.write(cast("Draft", Slow(clock, [30.0], fails=True)), b"x")
    assert disk.waits


class Folders:
    """Stand for files whose making takes as long as their folder does, and note whether the event loop made them."""

    def __init__(self, **seconds: float) -> None:
        self.clock = FakeClock()
        self.seconds = seconds
        self.gone = False  # then it takes as long to fail
        self.disk = downloads._Disk(self.clock)

    async def made_on_the_loop(self, path: str, *, inside: bool = False) -> bool:
        """Make a file, or one inside of a path that is a folder."""
        draft = Made(path, self, inside=inside)
        with pytest.raises(OSError, match="the share is gone") if self.gone else nullcontext():
            await self.disk.open(cast("Draft", draft), ".png", overwrite=True)
        return draft.maker == threading.get_ident()


class Made:
    """Stands for such a file."""

    def __init__(self, path: str, folders: Folders, *, inside: bool) -> None:
        self.path = Path(path)
        self.folder = self.path.parent
        self.maker = 0  # the thread
        self._folders = folders
        self._inside = inside

    def open(self, suffix: str | None, *, overwrite: bool) -> None:
        """Take as long as the folder does."""
        assert (suffix, overwrite) == (".png", True)
        self.folder = self.path if self._inside else self.folder
        self._folders.clock._now += self._folders.seconds[self.folder.name]
        self.maker = threading.get_ident()
        if self._folders.gone:
            raise OSError(errno.ETIMEDOUT, "the share is gone")


@pytest.mark.anyio
async def test_the_first_file_of_a_folder_is_made_in_a_thread() -> None:
    """The folder may be on a share that hangs; one that was quick is nearly always quick again."""
    folders = Folders(quick=0.9 * downloads.QUICK_OPEN, other=0.0)
    assert not await folders.made_on_the_loop("quick/1.png")
    assert await folders.made_on_the_loop("quick/2.png")
    assert await folders.made_on_the_loop("quick", inside=True)
    assert not await folders.made_on_the_loop("other", inside=True)
    assert await folders.made_on_the_loop("other/1.png")


@pytest.mark.anyio
async def test_a_folder_that_takes_its_time_is_left_to_threads() -> None:
    """Also one below a quick one, which its path does not tell apart from a file in that; once it does."""
    folders = Folders(quick=0.0, share=2 * downloads.QUICK_OPEN)
    assert [await folders.made_on_the_loop("share/1.png") for _ in range(3)] == [False] * 3
    for _ in range(2):
        assert not await folders.made_on_the_loop("quick/1.png")
        assert await folders.made_on_the_loop("quick/share", inside=True)
        assert not await folders.made_on_the_loop("quick/share", inside=True)
    folders.seconds["quick"] = 1.0
    assert not await folders.made_on_the_loop("quick/1.png")


@pytest.mark.anyio
async def test_a_folder_that_takes_its_time_to_fail_is_left_to_threads() -> None:
    """One that fails at once, as where a file has the name already, is as quick as before."""
    folders = Folders(share=0.0)
    await folders.made_on_the_loop("share/1.png")
    folders.gone = True
    assert [await folders.made_on_the_loop("share/2.png") for _ in range(2)] == [True] * 2
    folders.seconds["share"] = 30.0
    assert [await folders.made_on_the_loop("share/3.png") for _ in range(3)] == [True, False, False]


@pytest.mark.anyio
async def test_while_the_disk_makes_us_wait_files_are_made_in_threads_too() -> None:
    """A write took long: making a file may as well."""
    folders = Folders(quick=0.0)
    await folders.made_on_the_loop("quick/1.png")
    folders.disk.write(cast("Draft", Slow(folders.clock, [1.0])), b"x")
    assert not await folders.made_on_the_loop("quick/2.png")
    folders.clock._now += downloads.WARIEST
    assert await folders.made_on_the_loop("quick/3.png")


@pytest.mark.anyio
async def test_only_so_many_folders_are_remembered() -> None:
    """An application may have one for each picture."""
    folders = Folders(**{f"f{number}": 0.0 for number in range(200)})
    for number in range(200):
        assert not await folders.made_on_the_loop(f"f{number}/1.png")
        assert await folders.made_on_the_loop(f"f{number}/2.png")
        assert len(folders.disk._quick) <= downloads.MOST_FOLDERS
