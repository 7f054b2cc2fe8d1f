"""Waiting and trying again: floor, cap, tries, budget, jitter."""

from __future__ import annotations

import asyncio
import itertools

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirage_async._retry import Retrier, delays
from mirage_async.testing import FakeClock

pytestmark = pytest.mark.anyio


class QuickClock(FakeClock):
    """A clock whose sleeps return at once and are remembered."""

    def __init__(self) -> None:
        super().__init__()
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        """Let the time pass without waiting."""
        self.slept.append(seconds)
        await self.advance(seconds)


async def exhausted(retrier: Retrier, floor: float | None = None) -> int:
    """Return how many further attempts a retrier allows."""
    with anyio.fail_after(30):
        for count in itertools.count():
            if not await retrier.again(floor):
                return count
    raise AssertionError


def test_delays_grow_to_their_maximum_and_go_on_for_ever() -> None:
    """`initial`, times `factor` each, never above `maximum`."""
    assert list(itertools.islice(delays(0.5, 2, 3), 6)) == [0.5, 1, 2, 3, 3, 3]
    assert list(itertools.islice(delays(1, 3, 1000), 4)) == [1, 3, 9, 27]
    assert next(itertools.islice(delays(1, 2, 30), 5000, None)) == 30


@given(st.floats(0.001, 10), st.floats(1, 5), st.floats(0.001, 100))
def test_no_delay_is_above_the_maximum(initial: float, factor: float, maximum: float) -> None:
    """Delays are never negative, never fall and never pass the maximum."""
    drawn = list(itertools.islice(delays(initial, factor, maximum), 50))
    assert all(0 <= delay <= maximum for delay in drawn)
    assert drawn == sorted(drawn)


async def test_the_tries_are_counted_with_the_first_one() -> None:
    """Three tries are one attempt and two more."""
    clock = QuickClock()
    assert await exhausted(Retrier(clock, tries=3, budget=1000)) == 2
    assert await exhausted(Retrier(clock, tries=1, budget=1000)) == 0
    assert len(clock.slept) == 2


async def test_at_most_a_quarter_is_added_at_random() -> None:
    """Callers refused together do not return together, and none returns early."""
    drawn = []
    for _ in range(300):
        clock = QuickClock()
        retrier = Retrier(clock, tries=2, budget=1000, initial=4)
        assert await retrier.again()
        drawn += clock.slept
    assert 4 <= min(drawn) < 4.1
    assert 4.9 < max(drawn) <= 5


async def test_a_retry_after_is_a_floor_not_a_replacement() -> None:
    """The wait is the longer of the two, and the jitter comes on top of the floor."""
    clock = QuickClock()
    retrier = Retrier(clock, tries=9, budget=1000, initial=1, factor=10, maximum=50)
    for floor in (7.0, 7.0, 7.0):
        assert await retrier.again(floor)
    assert 7 <= clock.slept[0] <= 7.25
    assert 10 <= clock.slept[1] <= 12.5
    assert 50 <= clock.slept[2] <= 62.5


async def test_a_floor_above_the_cap_ends_the_attempts_at_once() -> None:
    """A provider that asks for more than we are willing to wait is not waited for."""
    clock = QuickClock()
    assert not await Retrier(clock, tries=9, budget=1000, max_floor=60).again(60.1)
    assert await Retrier(clock, tries=9, budget=1000, max_floor=60).again(60)
    assert len(clock.slept) == 1


async def test_a_wait_that_does_not_fit_into_the_budget_is_not_begun() -> None:
    """No time is spent on a wait whose attempt would come too late."""
    clock = QuickClock()
    retrier = Retrier(clock, tries=9, budget=10, initial=4, factor=1, maximum=4)
    assert await exhausted(retrier) == 2
    assert 8 <= clock.monotonic() <= 10


async def test_cancelling_a_wait_raises_through_and_leaves_no_timer() -> None:
    """A cancelled wait is no attempt."""
    clock = FakeClock()
    task = asyncio.ensure_future(Retrier(clock, tries=3, budget=100).again())
    await clock.advance(0.1)
    assert repr(clock).endswith("1 timers>")
    task.cancel()
    with anyio.fail_after(30), pytest.raises(asyncio.CancelledError):
        await task
    assert repr(clock).endswith("0 timers>")


async def test_the_wait_happens_on_the_clock_that_was_given() -> None:
    """Nothing happens before the clock has moved, and then at once."""
    clock = FakeClock()
    task = asyncio.ensure_future(Retrier(clock, tries=2, budget=100, initial=1).again())
    await clock.advance(0.99)
    assert not task.done()
    await clock.advance(0.26)
    assert task.result() is True
