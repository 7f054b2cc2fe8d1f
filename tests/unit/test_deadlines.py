"""Deadlines of many pieces of work behind one timer. The event loop's own time is turned by hand; nothing sleeps."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any

import pytest

from mirage_async._deadlines import Deadlines

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.anyio


class Timers:
    """The timers that were set on the running event loop, and its time, which stands still."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        self.set: list[tuple[float, Callable[..., object], tuple[Any, ...]]] = []
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "time", lambda: self.now)
        monkeypatch.setattr(loop, "call_at", lambda at, call, *args: self.set.append((at, call, args)))

    async def turn_to(self, moment: float) -> None:
        """Run the timers up to a moment, then whoever they woke."""
        while due := [timer for timer in self.set if timer[0] <= moment]:
            first = min(due, key=lambda timer: timer[0])
            self.set.remove(first)
            self.now, call, args = first
            call(*args)
        self.now = moment
        await settled()


async def settled() -> None:
    """Let everybody run who can."""
    for _ in range(5):
        await asyncio.sleep(0)


async def wait_within(deadlines: Deadlines, seconds: float) -> None:
    """Wait for nothing, under a deadline."""
    with deadlines.within(seconds):
        await asyncio.get_running_loop().create_future()


async def test_a_block_ends_with_a_timeout_error_when_its_time_is_over_and_not_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The deadline counts from entering the block."""
    timers = Timers(monkeypatch)
    task = asyncio.create_task(wait_within(Deadlines(), 5.0))
    await settled()
    await timers.turn_to(104.9)
    assert not task.done()
    await timers.turn_to(105.0)
    with pytest.raises(TimeoutError):
        await task
    assert task.cancelling() == 0


async def test_one_timer_serves_all_and_each_block_ends_at_its_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks that end later than the first set no timers; one that ends earlier sets one more."""
    timers = Timers(monkeypatch)
    deadlines = Deadlines()
    tasks = {seconds: asyncio.create_task(wait_within(deadlines, seconds)) for seconds in (5.0, 6.0, 9.0, 3.0)}
    await settled()
    assert [at for at, _, _ in timers.set] == [105.0, 103.0]
    ended = []
    for moment in (103.0, 105.0, 106.0, 109.0):
        await timers.turn_to(moment)
        ended.append([seconds for seconds, task in tasks.items() if task.done()])
    assert ended == [[3.0], [5.0, 3.0], [5.0, 6.0, 3.0], [5.0, 6.0, 9.0, 3.0]]
    await asyncio.gather(*tasks.values(), return_exceptions=True)
    assert timers.set == []


async def test_a_block_that_ends_in_time_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The timer that was set for it finds nothing to do and sets no other."""
    timers = Timers(monkeypatch)
    deadlines = Deadlines()
    with deadlines.within(5.0):
        await asyncio.sleep(0)
    await timers.turn_to(200.0)
    assert timers.set == []
    with deadlines.within(5.0):
        assert [at for at, _, _ in timers.set] == [205.0]


async def test_a_cancellation_stays_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever cancels the task gets what was asked for, although the deadline had a say."""
    timers = Timers(monkeypatch)
    task = asyncio.create_task(wait_within(Deadlines(), 5.0))
    await settled()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await timers.turn_to(math.nextafter(105.0, math.inf))


@pytest.mark.parametrize("deadline_first", [True, False])
async def test_a_cancellation_in_the_moment_of_the_deadline_is_not_swallowed(
    monkeypatch: pytest.MonkeyPatch, *, deadline_first: bool
) -> None:
    """Both come in the same turn of the loop, in either order: the task is cancelled."""
    timers = Timers(monkeypatch)
    task = asyncio.create_task(wait_within(Deadlines(), 5.0))
    await settled()
    ((_, look, args),) = timers.set
    for step in (look, lambda _: task.cancel()) if deadline_first else (lambda _: task.cancel(), look):
        step(*args)
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_error_of_the_block_comes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the deadline has passed, but the block went on to raise something else."""
    timers = Timers(monkeypatch)

    async def stubborn() -> None:
        with Deadlines().within(5.0):
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                raise ValueError("mine") from None

    task = asyncio.create_task(stubborn())
    await settled()
    await timers.turn_to(105.0)
    with pytest.raises(ValueError, match="mine"):
        await task


async def test_a_cancellation_that_was_overcome_before_does_not_hide_the_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A task that was cancelled once and went on has a count that never goes back to 0."""
    timers = Timers(monkeypatch)

    async def survivor() -> None:
        with pytest.raises(asyncio.CancelledError):
            await asyncio.get_running_loop().create_future()
        await wait_within(Deadlines(), 5.0)

    task = asyncio.create_task(survivor())
    await settled()
    task.cancel()
    await settled()
    await timers.turn_to(105.0)
    with pytest.raises(TimeoutError):
        await task


async def test_an_end_that_is_moved_counts_from_the_last_move(monkeypatch: pytest.MonkeyPatch) -> None:
    """Moving it sets no timer while one is set for an earlier moment."""
    timers = Timers(monkeypatch)
    deadlines = Deadlines()
    with deadlines.movable(5.0) as end:
        await timers.turn_to(104.0)
        end.renew(5.0)
        assert len(timers.set) == 1
        await timers.turn_to(108.9)
    task = asyncio.create_task(renewing(deadlines, 5.0))
    await settled()
    await timers.turn_to(113.8)
    assert not task.done()
    await timers.turn_to(114.0)
    with pytest.raises(TimeoutError):
        await task


async def test_a_block_that_rests_lasts_until_it_is_renewed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No timer runs meanwhile; the new end holds like the first."""
    timers = Timers(monkeypatch)

    async def resting() -> None:
        with Deadlines().movable(5.0) as end:
            end.rest()
            await rested
            end.renew(1.0)
            await asyncio.get_running_loop().create_future()

    rested = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(resting())
    await settled()
    await timers.turn_to(1000.0)
    assert not timers.set
    rested.set_result(None)
    await settled()
    await timers.turn_to(1000.9)
    assert not task.done()
    await timers.turn_to(1001.0)
    with pytest.raises(TimeoutError):
        await task


async def renewing(deadlines: Deadlines, seconds: float) -> None:
    """Move the end once, and wait for nothing."""
    with deadlines.movable(seconds / 2) as end:
        end.renew(seconds)
        await asyncio.get_running_loop().create_future()
