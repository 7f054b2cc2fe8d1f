"""The clocks, and the sandboxed hub for other people's test suites."""

from __future__ import annotations

import asyncio
import time

import anyio
import pytest

from mirage_async import testing
from mirage_async._clock import Clock, SystemClock
from mirage_async.exceptions import InputError
from mirage_async.scheduler import Limits
from mirage_async.testing import FakeClock, sandboxed

pytestmark = pytest.mark.anyio


async def test_the_clock_stands_still_until_it_is_moved() -> None:
    """Nothing but `advance` moves it."""
    clock: Clock = FakeClock(start=5, epoch=1000)
    assert (clock.monotonic(), clock.time()) == (5, 1000)
    await asyncio.sleep(0)
    assert (clock.monotonic(), clock.time()) == (5, 1000)


async def test_advancing_moves_both_faces() -> None:
    """Monotonic and calendar time move together."""
    clock = FakeClock(start=5, epoch=1000)
    await clock.advance(2.5)
    assert (clock.monotonic(), clock.time()) == (7.5, 1002.5)


async def test_timers_run_in_order_at_their_own_moment() -> None:
    """What falls due on the way runs in the order of its moments, equal ones as they were arranged."""
    clock = FakeClock()
    ran: list[tuple[str, float]] = []
    for name, when in (("c", 3.0), ("a", 1.0), ("b", 3.0), ("late", 5.1)):
        clock.call_at(when, lambda name=name: ran.append((name, clock.monotonic())))  # type: ignore[misc]
    await clock.advance(5)
    assert ran == [("a", 1), ("c", 3), ("b", 3)]
    await clock.advance(1)
    assert ran[-1] == ("late", 5.1)


async def test_a_timer_in_the_past_runs_with_the_next_advance() -> None:
    """The clock never goes back for it."""
    clock = FakeClock(start=10)
    ran: list[float] = []
    clock.call_at(3, lambda: ran.append(clock.monotonic()))
    assert ran == []
    await clock.advance(0)
    assert ran == [10]


async def test_a_cancelled_timer_does_not_run() -> None:
    """Calling off is final, and harmless after the run."""
    clock = FakeClock()
    ran: list[str] = []
    off = clock.call_at(1, lambda: ran.append("off"))
    on = clock.call_at(1, lambda: ran.append("on"))
    off.cancel()
    await clock.advance(1)
    on.cancel()
    assert ran == ["on"]


async def test_a_timer_may_arrange_the_next() -> None:
    """Timers made by timers run in the same advance if they fall into it."""
    clock = FakeClock()
    ran: list[float] = []

    def again() -> None:
        ran.append(clock.monotonic())
        clock.call_at(clock.monotonic() + 1, again)

    clock.call_at(1, again)
    await clock.advance(3.5)
    assert ran == [1, 2, 3]


async def test_a_sleeper_wakes_when_its_time_has_come() -> None:
    """Sleeping tasks run as far as they can at each moment on the way."""
    clock = FakeClock()
    woken: list[tuple[str, float]] = []

    async def sleeper(name: str, *naps: float) -> None:
        for nap in naps:
            await clock.sleep(nap)
            woken.append((name, clock.monotonic()))

    tasks = [asyncio.ensure_future(sleeper("a", 1, 1, 1)), asyncio.ensure_future(sleeper("b", 1.5))]
    await clock.advance(2.9)
    assert woken == [("a", 1), ("b", 1.5), ("a", 2)]
    await clock.advance(0.1)
    assert all(task.done() for task in tasks)


@pytest.mark.parametrize("seconds", [0, -1])
async def test_sleeping_for_nothing_gives_others_a_turn(seconds: float) -> None:
    """Zero or less is a cancellation point and no wait."""
    with anyio.fail_after(30):
        await FakeClock().sleep(seconds)
    task = asyncio.ensure_future(FakeClock().sleep(seconds))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancelled_sleeper_leaves_no_timer() -> None:
    """Also one that is cancelled in the moment it wakes."""
    clock = FakeClock()
    tasks = [asyncio.ensure_future(clock.sleep(1)) for _ in range(2)]
    await clock.advance(0)
    assert repr(clock) == "<FakeClock 0 s, 2 timers>"
    tasks[0].cancel()
    await clock.advance(0)
    assert repr(clock) == "<FakeClock 0 s, 1 timers>"
    clock.call_at(0.5, tasks[1].cancel)
    await clock.advance(1)
    assert tasks[1].cancelled()


async def test_a_sleeper_cancelled_in_the_turn_it_wakes_is_cancelled() -> None:
    """The timer of a sleeper that has just been cancelled does no harm."""
    clock = FakeClock()
    task = asyncio.ensure_future(clock.sleep(1))
    await clock.advance(0)
    (_, _, timer) = clock._timers[0]
    wake = timer.callback
    assert wake is not None
    task.cancel()
    wake()
    wake()
    await clock.advance(1)
    assert task.done()


async def test_the_clock_never_goes_back() -> None:
    """A negative advance is refused."""
    clock = FakeClock()
    with pytest.raises(InputError, match=r"seconds must be 0 or more.*; got -1"):
        await clock.advance(-1)
    assert clock.monotonic() == 0


async def test_the_system_clock_is_the_machines() -> None:
    """It shows the machine's time, and its timers run on the loop."""
    clock: Clock = SystemClock()
    assert abs(clock.monotonic() - time.monotonic()) < 1
    assert abs(clock.time() - time.time()) < 1
    ran, never = asyncio.Event(), asyncio.Event()
    clock.call_at(clock.monotonic() - 1, ran.set)
    clock.call_at(clock.monotonic() - 1, never.set).cancel()
    with anyio.fail_after(30):
        await clock.sleep(-1)
        await ran.wait()
    assert not never.is_set()


async def test_a_sandboxed_hub_buys_from_its_sandbox() -> None:
    """Both are running inside, wired to each other, and closed afterwards."""
    with anyio.fail_after(20):
        async with sandboxed(durations=0, seed=3, limits=Limits(jobs=2)) as (mirage, sandbox):
            generation = await mirage.generate("a cat", provider="miragic", size="256x256")
            assert generation.image.mime_type == "image/jpeg"
            assert sandbox.statistics().purchases == {"miragic": 1}
            assert mirage.statistics().scheduler.accounts[0].limits == Limits(jobs=2)
    assert repr(mirage) == "<Mirage closed>"


async def test_a_strict_sandbox_enforces_the_documents() -> None:
    """`strict` is handed on."""
    async with sandboxed(strict=True) as (_, sandbox):
        assert sandbox._world.strict


def test_the_module_exports_what_it_promises() -> None:
    """Fake clock and sandboxed hub."""
    assert testing.__all__ == ["FakeClock", "sandboxed"]
