"""Background work: kept, watched, ended."""

from __future__ import annotations

import asyncio
import gc
import logging

import anyio
import pytest

from mirage_async._tasks import TaskSet, fail, fulfil

pytestmark = pytest.mark.anyio


async def turn() -> None:
    """Let every task go as far as it can."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_task_nobody_holds_runs_to_its_end() -> None:
    """The set keeps its tasks alive through garbage collection and lets go of them afterwards."""
    tasks, gate, done = TaskSet(), asyncio.Event(), asyncio.Event()

    async def work() -> None:
        await gate.wait()
        done.set()

    tasks.spawn(work())
    await turn()
    gc.collect()
    assert len(tasks) == 1
    gate.set()
    with anyio.fail_after(30):
        await done.wait()
    await turn()
    assert len(tasks) == 0


async def test_a_failure_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Nobody waits for background work, so what it raises goes to the log with its traceback."""
    tasks = TaskSet()

    async def work() -> None:
        msg = "surprise"
        raise ValueError(msg)

    tasks.spawn(work())
    await turn()
    (record,) = caplog.records
    assert (record.levelno, record.getMessage()) == (logging.ERROR, "background work failed")
    assert record.exc_info is not None
    assert "surprise" in str(record.exc_info[1])
    assert len(tasks) == 0


async def test_work_may_leave_when_nothing_is_left_to_do() -> None:
    """What takes itself out is gone at once, and its end is not looked at any more."""
    tasks, left = TaskSet(), []

    async def work() -> None:
        await asyncio.sleep(0)
        tasks.leave()
        left.append(len(tasks))

    task = tasks.spawn(work())
    other = tasks.spawn(asyncio.sleep(0))
    await task
    await other
    assert left == [1]
    await turn()
    assert len(tasks) == 0


async def test_closing_waits_for_work_that_finishes_in_time(caplog: pytest.LogCaptureFixture) -> None:
    """Within the grace nothing is cancelled."""
    tasks, gate, finished = TaskSet(), asyncio.Event(), []

    async def work() -> None:
        await gate.wait()
        finished.append(True)

    tasks.spawn(work())
    closing = asyncio.ensure_future(tasks.aclose(grace=5))
    await turn()
    assert not closing.done()
    gate.set()
    with anyio.fail_after(30):
        await closing
    assert finished == [True]
    assert not caplog.records


@pytest.mark.parametrize("grace", [0, 0.001])
async def test_closing_cancels_what_outlasts_the_grace(grace: float, caplog: pytest.LogCaptureFixture) -> None:
    """The rest is cancelled and waited for, and a cancellation is no failure."""
    tasks, cleaned = TaskSet(), []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)

    tasks.spawn(work())
    tasks.spawn(work())
    await turn()
    with anyio.fail_after(30):
        await tasks.aclose(grace=grace)
    await turn()
    assert cleaned == [True, True]
    assert len(tasks) == 0
    assert not caplog.records


async def test_closing_an_empty_set_returns_at_once() -> None:
    """Nothing to wait for, nothing waited."""
    with anyio.fail_after(30):
        await TaskSet().aclose(grace=60)


async def test_background_work_may_close_its_own_set() -> None:
    """The task that closes does not wait for itself."""
    tasks, closed = TaskSet(), asyncio.Event()

    async def work() -> None:
        await tasks.aclose(grace=60)
        closed.set()

    tasks.spawn(work())
    with anyio.fail_after(30):
        await closed.wait()


async def test_what_is_held_is_waited_for_like_a_task() -> None:
    """Until it is dropped or done; and what comes while that is waited for, too."""
    tasks = TaskSet()
    first, second, dropped = (asyncio.get_running_loop().create_future() for _ in range(3))
    for each in (first, dropped):
        tasks.hold(each)
    tasks.drop(dropped)
    assert len(tasks) == 1
    closing = asyncio.ensure_future(tasks.aclose(grace=5))
    await turn()
    tasks.hold(second)
    first.set_result(None)
    await turn()
    assert not closing.done()
    second.set_result(None)
    with anyio.fail_after(30):
        await closing
    assert not dropped.done()


async def test_what_is_held_is_cancelled_when_the_grace_is_over() -> None:
    """As a task is."""
    tasks, held = TaskSet(), asyncio.get_running_loop().create_future()
    tasks.hold(held)
    with anyio.fail_after(30):
        await tasks.aclose(grace=0)
    assert held.cancelled()


async def test_a_future_that_is_done_takes_nothing_more() -> None:
    """Whoever has the outcome learns that nobody was told, and sees to it otherwise."""
    error = ValueError("no")
    waiting, failing, left = (asyncio.get_running_loop().create_future() for _ in range(3))
    left.cancel()
    assert (fulfil(waiting, 1), fulfil(waiting, 2), fail(waiting, error)) == (True, False, False)
    assert (fail(failing, error), fail(failing, error), fulfil(failing, 1)) == (True, False, False)
    assert (fulfil(left, 1), fail(left, error)) == (False, False)
    assert (await waiting, failing.exception()) == (1, error)
