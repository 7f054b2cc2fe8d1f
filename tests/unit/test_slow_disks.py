"""Who writes the chunks of a download: the event loop, or a thread while the disk makes us wait. No disk is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from mirage_async import downloads
from mirage_async.testing import FakeClock

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mirage_async._saving import Draft


class Slow:
    """Stands for a file whose every write takes as long as is said."""

    def __init__(self, clock: FakeClock, seconds: Iterable[float]) -> None:
        self._clock = clock
        self._seconds = iter(seconds)

    def write(self, chunk: bytes) -> None:
        """Take so long."""
        self._clock._now += next(self._seconds) * len(chunk)


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
