"""Deadlines of many pieces of work behind one timer. The clock is turned by hand; nothing sleeps."""

from __future__ import annotations

import asyncio

import pytest

from mirage_async._deadlines import Deadlines
from mirage_async.testing import FakeClock

pytestmark = pytest.mark.anyio


async def settled() -> None:
    """Let everybody run who can."""
    for _ in range(5):
        await asyncio.sleep(0)


async def wait_within(deadlines: Deadlines, seconds: float | None) -> None:
    """Wait for nothing, under a deadline."""
    with deadlines.within(seconds):
        await asyncio.get_running_loop().create_future()


async def test_a_block_ends_with_a_timeout_error_when_its_time_is_over_and_not_before() -> None:
    """The deadline counts from the call that sets it."""
    clock = FakeClock(start=100.0)
    task = asyncio.create_task(wait_within(Deadlines(clock), 5.0))
    await settled()
    await clock.advance(4.9)
    assert not task.done()
    await clock.advance(0.1)
    with pytest.raises(TimeoutError):
        await task
    assert task.cancelling() == 0


async def test_one_timer_serves_all_and_each_block_ends_at_its_own_time() -> None:
    """Blocks that end later than the first set no timers; one that ends earlier moves the one there is."""
    clock = FakeClock()
    deadlines = Deadlines(clock)
    tasks = {seconds: asyncio.create_task(wait_within(deadlines, seconds)) for seconds in (5.0, 6.0, 9.0, 3.0)}
    await settled()
    assert "1 timers" in repr(clock)
    ended = []
    for seconds in (3.0, 2.0, 1.0, 3.0):
        await clock.advance(seconds)
        ended.append([seconds for seconds, task in tasks.items() if task.done()])
    assert ended == [[3.0], [5.0, 3.0], [5.0, 6.0, 3.0], [5.0, 6.0, 9.0, 3.0]]
    await asyncio.gather(*tasks.values(), return_exceptions=True)
    assert "0 timers" in repr(clock)


async def test_a_block_that_ends_in_time_is_left_alone() -> None:
    """The timer that was set for it finds nothing to do and sets no other."""
    clock = FakeClock()
    deadlines = Deadlines(clock)
    with deadlines.within(5.0):
        assert len(deadlines) == 1
        await asyncio.sleep(0)
    assert len(deadlines) == 0
    await clock.advance(100.0)
    assert "0 timers" in repr(clock)
    with deadlines.within(5.0):
        assert "1 timers" in repr(clock)


async def test_a_late_look_ends_all_that_are_over_by_then() -> None:
    """A loop that was held up catches up with one look, not with one for each of those that ended meanwhile."""
    clock = FakeClock()
    deadlines = Deadlines(clock)
    tasks = [asyncio.create_task(wait_within(deadlines, 5.0 + number / 100)) for number in range(100)]
    await settled()
    clock._now += 7.0
    await clock.advance(1.0)
    assert [task.done() for task in tasks] == [True] * 100
    assert "0 timers" in repr(clock)
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_what_came_while_the_loop_stood_still_is_taken() -> None:
    """Those that are over by then get a moment for it, and nobody else cuts it short; then they end."""
    clock = FakeClock()
    deadlines = Deadlines(clock)
    tasks = [asyncio.create_task(wait_within(deadlines, seconds)) for seconds in (5.0, 6.0)]
    await settled()
    clock._now += 100.0
    await clock.advance(0.5)
    tasks.append(asyncio.create_task(wait_within(deadlines, 0.2)))
    await clock.advance(0.4)
    assert not any(task.done() for task in tasks)
    await clock.advance(0.1)
    assert all(task.done() for task in tasks)
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_loop_that_is_late_every_time_ends_what_is_over_all_the_same() -> None:
    """It gets one respite, and another one only after a look that was in time or has ended something."""
    clock = FakeClock()
    deadlines = Deadlines(clock)
    for _ in range(2):
        task = asyncio.create_task(wait_within(deadlines, 5.0))
        await settled()
        clock._now += 6.0
        await clock.advance(0.0)
        assert not task.done()
        clock._now += 2.0
        await clock.advance(0.0)
        assert task.done()
        await asyncio.gather(task, return_exceptions=True)


async def test_what_comes_in_the_very_turn_of_the_deadline_is_taken() -> None:
    """It is there, and whoever waits for it has only not had the time to take it."""
    clock = FakeClock()
    deadlines = Deadlines(clock)
    coming: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def taking() -> str:
        with deadlines.within(5.0):
            result = await coming
        await settled()  # the deadline has no say any more
        return result

    task = asyncio.create_task(taking())
    await settled()
    clock._now += 5.0
    coming.set_result("it")
    deadlines._look()  # as an event loop does it: what sockets bring comes before what timers do
    assert await task == "it"
    assert task.cancelling() == 0


async def test_a_block_that_is_renewed_in_the_turn_of_the_deadline_goes_on() -> None:
    """Its new end holds."""
    clock = FakeClock()
    deadlines = Deadlines(clock)
    with deadlines.movable(5.0) as end:
        clock._now += 5.0
        deadlines._look()
        end.renew(3.0)
        await settled()
        assert not end.passed
        assert deadlines._looks_at == 8.0


async def test_short_blocks_beside_a_long_one_leave_no_timers_behind() -> None:
    """Whatever comes and goes meanwhile, one timer is set."""
    clock = FakeClock()
    deadlines = Deadlines(clock)
    with deadlines.within(3600.0):
        for _ in range(50):
            with deadlines.within(1.0):
                await asyncio.sleep(0)
            await clock.advance(2.0)
        assert "1 timers" in repr(clock)


async def test_a_block_without_an_end_costs_no_timer() -> None:
    """None is no deadline at all, not even one that `end_all` could bring about."""
    clock = FakeClock()
    deadlines = Deadlines(clock)
    with deadlines.within(None):
        assert len(deadlines) == 0
        assert "0 timers" in repr(clock)


async def test_all_blocks_can_be_ended_before_their_time() -> None:
    """Each as if its time were over, once; a deadline that passes in the same moment changes nothing."""
    clock = FakeClock()
    deadlines = Deadlines(clock)
    tasks = [asyncio.create_task(wait_within(deadlines, seconds)) for seconds in (5.0, 50.0)]
    await settled()
    deadlines.end_all()
    deadlines.end_all()
    for task in tasks:
        with pytest.raises(TimeoutError):
            await task
        assert task.cancelling() == 0
    assert len(deadlines) == 0


async def test_a_cancellation_stays_one() -> None:
    """Whoever cancels the task gets what was asked for, although the deadline had a say."""
    clock = FakeClock()
    task = asyncio.create_task(wait_within(Deadlines(clock), 5.0))
    await settled()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await clock.advance(6.0)


@pytest.mark.parametrize("deadline_first", [True, False])
async def test_a_cancellation_in_the_moment_of_the_deadline_is_not_swallowed(*, deadline_first: bool) -> None:
    """Both come in the same turn of the loop, in either order: the task is cancelled."""
    deadlines = Deadlines(FakeClock())
    task = asyncio.create_task(wait_within(deadlines, 5.0))
    await settled()
    for step in (deadlines.end_all, task.cancel) if deadline_first else (task.cancel, deadlines.end_all):
        step()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_error_of_the_block_comes_through() -> None:
    """Also when the deadline has passed, but the block went on to raise something else."""
    clock = FakeClock()

    async def stubborn() -> None:
        with Deadlines(clock).within(5.0):
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                raise ValueError("mine") from None

    task = asyncio.create_task(stubborn())
    await settled()
    await clock.advance(5.0)
    with pytest.raises(ValueError, match="mine"):
        await task


async def test_a_cancellation_that_was_overcome_before_does_not_hide_the_deadline() -> None:
    """A task that was cancelled once and went on has a count that never goes back to 0."""
    clock = FakeClock()

    async def survivor() -> None:
        with pytest.raises(asyncio.CancelledError):
            await asyncio.get_running_loop().create_future()
        await wait_within(Deadlines(clock), 5.0)

    task = asyncio.create_task(survivor())
    await settled()
    task.cancel()
    await settled()
    await clock.advance(5.0)
    with pytest.raises(TimeoutError):
        await task


async def test_an_end_that_is_moved_counts_from_the_last_move() -> None:
    """Moving it sets no timer while one is set for an earlier moment."""
    clock = FakeClock()
    deadlines = Deadlines(clock)
    with deadlines.movable(5.0) as end:
        await clock.advance(4.0)
        end.renew(5.0)
        assert "1 timers" in repr(clock)
        await clock.advance(4.9)

    async def renewing() -> None:
        with deadlines.movable(2.5) as end:
            end.renew(5.0)
            await asyncio.get_running_loop().create_future()

    task = asyncio.create_task(renewing())
    await settled()
    await clock.advance(4.9)
    assert not task.done()
    await clock.advance(0.1)
    with pytest.raises(TimeoutError):
        await task


async def test_an_end_that_is_moved_forward_comes_sooner() -> None:
    """It sets a timer of its own where no other is set for an earlier moment."""
    clock = FakeClock()

    async def hurrying() -> None:
        with Deadlines(clock).movable(50.0) as end:
            end.renew(1.0)
            await asyncio.get_running_loop().create_future()

    task = asyncio.create_task(hurrying())
    await settled()
    await clock.advance(1.0)
    with pytest.raises(TimeoutError):
        await task


async def test_a_block_that_rests_lasts_until_it_is_renewed() -> None:
    """The new end holds like the first."""
    clock = FakeClock()
    rested: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def resting() -> None:
        with Deadlines(clock).movable(5.0) as end:
            end.rest()
            await rested
            end.renew(1.0)
            await asyncio.get_running_loop().create_future()

    task = asyncio.create_task(resting())
    await settled()
    await clock.advance(1000.0)
    assert not task.done()
    assert "0 timers" in repr(clock)
    rested.set_result(None)
    await settled()
    await clock.advance(0.9)
    assert not task.done()
    await clock.advance(0.1)
    with pytest.raises(TimeoutError):
        await task
