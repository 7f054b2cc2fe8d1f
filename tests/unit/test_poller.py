"""What a poller rests on: woken at once or in the next round, cancelled, or both."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import TYPE_CHECKING

import pytest

from mirage_async.scheduler._poller import Rest

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.anyio


class Resting:
    """A task that rests, and what has come of it."""

    def __init__(self) -> None:
        self.rest = Rest(loop=asyncio.get_running_loop())
        self.said: list[str] = []
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        try:
            await self.rest
        except asyncio.CancelledError:
            self.said.append("cancelled")
            raise
        assert asyncio.current_task() is self.task
        self.said.append("woken")


async def called_by_the_loop(work: Callable[[], object]) -> None:
    """Have the event loop itself call `work`."""
    asyncio.get_running_loop().call_soon(work)
    await asyncio.sleep(0)


async def rounds(count: int) -> None:
    """Let the event loop go round."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_callback_of_the_loop_has_the_task_go_on_at_once() -> None:
    """What the task does next has been done when the call returns."""
    resting = Resting()
    await rounds(1)
    seen: list[list[str]] = []

    def wake() -> None:
        resting.rest.end(at_once=True)
        seen.append(list(resting.said))

    await called_by_the_loop(wake)
    assert seen == [["woken"]]
    await resting.task


async def test_a_task_has_another_go_on_in_the_next_round() -> None:
    """A task cannot run another one, only have the loop do so."""
    resting = Resting()
    await rounds(1)
    resting.rest.end()
    assert resting.said == []
    await rounds(1)
    assert resting.said == ["woken"]


@pytest.mark.parametrize("at_once", [False, True])
async def test_whoever_is_woken_twice_goes_on_once(*, at_once: bool) -> None:
    """The second time is harmless."""
    resting = Resting()
    await rounds(1)

    def wake() -> None:
        resting.rest.end(at_once=at_once)
        resting.rest.end(at_once=at_once)

    await called_by_the_loop(wake)
    await resting.task
    assert resting.said == ["woken"]


async def test_a_cancellation_reaches_a_task_that_rests() -> None:
    """Nothing else would have it go on."""
    resting = Resting()
    await rounds(1)
    assert resting.task.cancel()
    resting.rest.end()  # too late
    with pytest.raises(asyncio.CancelledError):
        await resting.task
    assert resting.said == ["cancelled"]


async def test_a_cancellation_right_after_the_waking_is_not_lost() -> None:
    """The task is told in the place where it rests, as with any future."""
    resting = Resting()
    await rounds(1)
    resting.rest.end()
    assert resting.task.cancel()
    assert not resting.rest.cancel()
    with pytest.raises(asyncio.CancelledError):
        await resting.task
    assert resting.said == ["cancelled"]


async def test_a_task_goes_on_in_its_own_context() -> None:
    """Whose context the waking callback runs in does not matter."""
    name: ContextVar[str] = ContextVar("name", default="nobody's")
    rest = Rest(loop=asyncio.get_running_loop())

    async def work() -> str:
        name.set("its own")
        await rest
        return name.get()

    task = asyncio.create_task(work())
    await rounds(1)
    name.set("the waker's")
    await called_by_the_loop(lambda: rest.end(at_once=True))
    assert await task == "its own"
