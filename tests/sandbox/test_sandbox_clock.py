"""The sandbox's clock: running, frozen, moved by hand, and jumping by itself."""

from __future__ import annotations

import asyncio
import math

import pytest

from mirage_async.sandbox.clock import VirtualClock
from mirage_async.testing import FakeClock

pytestmark = pytest.mark.anyio


def test_it_follows_the_clock_below() -> None:
    """Until it is told otherwise it shows the machine's time."""
    base = FakeClock(start=5.0, epoch=1000.0)
    clock = VirtualClock(base)
    assert (clock.monotonic(), clock.time()) == (5.0, 1000.0)
    assert not clock.frozen
    assert repr(clock) == "<VirtualClock 5.000 s, running, 0 waiting>"


async def test_a_frozen_clock_stands_still_and_resumes_where_it_stood() -> None:
    """Time that passes while it is frozen never happened."""
    base = FakeClock(start=5.0)
    clock = VirtualClock(base)
    clock.freeze()
    await base.advance(100.0)
    assert clock.frozen
    assert clock.monotonic() == 5.0
    clock.resume()
    await base.advance(1.0)
    assert clock.monotonic() == 6.0


async def test_resuming_a_running_clock_changes_nothing() -> None:
    """A clock that runs runs on."""
    base = FakeClock(start=5.0)
    clock = VirtualClock(base)
    clock.resume()
    assert clock.monotonic() == 5.0


def test_freezing_can_pin_the_date() -> None:
    """Two runs that are pinned to one date show the same times."""
    clock = VirtualClock(FakeClock(start=0.1))
    clock.freeze(at=1_750_000_000.0)
    clock.advance(0.3)
    assert clock.time() == 1_750_000_000.3


@pytest.mark.parametrize("at", [math.nan, math.inf])
def test_a_date_that_is_none_is_refused(at: float) -> None:
    """Nothing is frozen at no date."""
    clock = VirtualClock(FakeClock())
    with pytest.raises(ValueError, match="at must be 0 to 220000000000 seconds since 1970, got"):
        clock.freeze(at=at)
    assert not clock.frozen


@pytest.mark.parametrize("seconds", [-1.0, -math.inf, math.nan])
def test_it_never_goes_back(seconds: float) -> None:
    """A jump is forward."""
    with pytest.raises(ValueError, match="seconds must be 0 or more"):
        VirtualClock(FakeClock()).advance(seconds)


@pytest.mark.parametrize("seconds", [3e11, math.inf])
def test_it_never_leaves_the_calendar(seconds: float) -> None:
    """Answers show dates, and there are none without end."""
    with pytest.raises(ValueError, match="seconds must lead to no later than 220000000000 since 1970, got"):
        VirtualClock(FakeClock()).advance(seconds)


async def test_a_jump_wakes_everybody_in_order_and_at_their_moment() -> None:
    """Timers go off in the order of their moments, each seeing its own, also those a timer arranges on the way."""
    clock = VirtualClock()
    clock.freeze()
    start = clock.monotonic()
    seen: list[tuple[str, float]] = []

    def note(name: str) -> None:
        seen.append((name, round(clock.monotonic() - start, 6)))

    def first() -> None:
        note("first")
        clock.call_at(start + 1.5, lambda: note("arranged on the way"))

    clock.call_at(start + 2.0, lambda: note("second"))
    clock.call_at(start + 1.0, first)
    clock.call_at(start + 9.0, lambda: note("too late"))
    clock.call_at(start + 1.2, lambda: note("called off")).cancel()
    clock.advance(3.0)
    assert seen == [("first", 1.0), ("arranged on the way", 1.5), ("second", 2.0)]
    assert clock.waiting == 1


async def test_a_running_clock_jumps_as_well() -> None:
    """Freezing is not needed for a jump."""
    base = FakeClock()
    clock = VirtualClock(base)
    woken: list[float] = []
    clock.call_at(10.0, lambda: woken.append(clock.monotonic()))
    clock.advance(4.0)
    await base.advance(5.0)
    assert woken == []
    await base.advance(1.0)
    assert woken == [10.0]


async def test_a_running_clock_wakes_in_real_time() -> None:
    """Timers go off as the clock below passes their moment, whatever the order they came in."""
    base = FakeClock()
    clock = VirtualClock(base)
    woken: list[str] = []
    clock.call_at(2.0, lambda: woken.append("second"))
    clock.call_at(1.0, lambda: woken.append("first"))
    await base.advance(2.0)
    assert woken == ["first", "second"]


async def test_sleeping_ends_with_a_jump() -> None:
    """Who sleeps wakes when the clock has moved; zero only yields."""
    clock = VirtualClock()
    clock.freeze()
    sleeper = asyncio.create_task(clock.sleep(2700.0))
    await asyncio.sleep(0)
    clock.advance(2699.0)
    await asyncio.sleep(0)
    assert not sleeper.done()
    clock.advance(1.0)
    await sleeper
    await clock.sleep(0.0)
    assert clock.waiting == 0


async def test_a_cancelled_sleeper_leaves_no_timer() -> None:
    """Cancelling who sleeps takes the timer away."""
    clock = VirtualClock()
    clock.freeze()
    sleeper = asyncio.create_task(clock.sleep(1.0))
    await asyncio.sleep(0)
    sleeper.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sleeper
    assert clock.waiting == 0


async def test_forty_five_minutes_pass_by_themselves_when_nobody_does_anything() -> None:
    """An auto-advancing clock jumps from one awaited moment to the next."""
    clock = VirtualClock()
    start = clock.monotonic()
    clock.auto_advance(after=0.001)
    assert clock.auto_advancing
    for _ in range(3):
        await asyncio.wait_for(clock.sleep(900.0), 30)
    assert 2700.0 <= clock.monotonic() - start < 2701.0


async def test_it_does_not_jump_over_somebody_at_work() -> None:
    """Work in hand keeps the clock where it is; a rest inside the work lets it go."""
    clock = VirtualClock()
    clock.auto_advance(after=0.001)
    start = clock.monotonic()
    sleeper = asyncio.create_task(clock.sleep(60.0))
    with clock.at_work():
        for _ in range(5):
            await asyncio.sleep(0.002)  # real time, in which it would have jumped
        assert clock.monotonic() == start
        with clock.at_rest():
            await asyncio.wait_for(sleeper, 30)
    assert clock.monotonic() == start + 60.0


async def test_freezing_ends_the_jumping() -> None:
    """Freeze and resume switch it off again."""
    clock = VirtualClock()
    clock.auto_advance(after=0.001)
    woken: list[float] = []
    clock.call_at(clock.monotonic() + 60.0, lambda: woken.append(clock.monotonic()))
    clock.freeze()
    for _ in range(5):
        await asyncio.sleep(0.002)  # real time, in which it would have jumped
    assert not woken
    assert not clock.auto_advancing


async def test_a_closed_clock_wakes_nobody() -> None:
    """Closing forgets the timers and still tells the time."""
    clock = VirtualClock()
    clock.auto_advance(after=0.001)
    woken: list[float] = []
    clock.call_at(clock.monotonic() + 60.0, lambda: woken.append(clock.monotonic()))
    clock.close()
    await asyncio.sleep(0.003)  # real time, in which it would have jumped
    assert not woken
    assert clock.waiting == 0
    assert clock.monotonic() > 0


@pytest.mark.parametrize("after", [0.0, -1.0, math.inf])
def test_a_quiet_of_no_length_is_refused(after: float) -> None:
    """Jumping needs a while of quiet before it."""
    with pytest.raises(ValueError, match="after must be more than 0 seconds, got"):
        VirtualClock(FakeClock()).auto_advance(after=after)
