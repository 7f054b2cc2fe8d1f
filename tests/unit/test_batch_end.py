"""The end of a batch: left, closed, stopped, cancelled, dropped; nothing bought is lost and no task is left."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from batch_shop import FakeShop, Source, batch, refusal, rest, take, turns

from mirage_async import Budget, ImageRequest
from mirage_async.batch import Batch, BatchStatistics
from mirage_async.exceptions import (
    ClosedError,
    JobFailedError,
    MirageError,
    SubmissionUncertainError,
    WaitTimeoutError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


pytestmark = pytest.mark.anyio


async def test_a_broken_off_loop_stops_buying_and_keeps_what_is_bought() -> None:
    """Nothing new is sent from that moment on, finished and unfinished jobs are kept, and no task is left."""
    source, shop, tasks = Source(), FakeShop(), asyncio.all_tasks()
    ender = asyncio.get_running_loop()

    async def end_two() -> None:
        await turns()
        shop.open.pop("1").set_result(None)
        shop.open.pop("2").set_result(None)

    ending = ender.create_task(end_two())
    async for outcome in batch(source, shop, limit=4):
        await turns()
        taken = outcome.index
        break
    await ending
    pulled = source.pulled
    await turns()
    assert pulled == source.pulled == len(shop.bought) == 5
    assert asyncio.all_tasks() <= tasks
    assert {name for name, job in shop.jobs.items() if job in shop.kept} == {"0", "1", "2", "3", "4"} - {str(taken)}
    assert [name for name, job in shop.jobs.items() if job.taken] == [str(taken)]


async def test_a_break_from_a_batch_that_is_kept_only_pauses_it() -> None:
    """It goes on where it was left."""
    source = Source(10)
    made = batch(source, FakeShop(at_once=True), limit=2)
    async for first in made:
        assert first.index == 0
        break
    await turns()
    assert source.pulled == 3
    assert len(await rest(made)) == 9


async def test_leaving_the_block_closes_the_batch() -> None:
    """Whatever is in flight is kept, and the iteration is over, for those who wait for it as well."""
    shop, tasks = FakeShop(), asyncio.all_tasks()
    async with batch(Source(), shop, limit=2) as made:
        waiting = asyncio.ensure_future(rest(made))
        await turns()
        assert made.statistics() == BatchStatistics(
            pulled=2,
            in_flight=2,
            waiting=0,
            succeeded=0,
            failed=0,
            uncertain=0,
            purchases=0,
            pictures=0,
            credits=0.0,
            stopped=False,
        )
    assert await waiting == []
    await made.aclose()
    assert await rest(made) == []
    assert set(shop.kept) == set(shop.jobs.values())
    assert made.statistics().stopped
    assert made.statistics().in_flight == 0
    assert repr(made) == "<Batch 2 pulled, 0 succeeded, stopped>"
    assert asyncio.all_tasks() <= tasks


async def test_cancelling_a_wait_for_an_outcome_closes_the_batch() -> None:
    """As cancelling any caller does: nothing more is bought, and what is bought is kept."""
    source, shop = Source(), FakeShop()
    made = batch(source, shop, limit=2)
    with anyio.move_on_after(0.01):
        await anext(made)
    await turns()
    assert source.pulled == 2
    assert set(shop.kept) == set(shop.jobs.values())
    assert await rest(made) == []


async def test_stop_hands_over_what_is_in_flight() -> None:
    """Nothing more is pulled or bought."""
    source, shop = Source(), FakeShop()
    made = batch(source, shop, limit=2)
    first = asyncio.ensure_future(anext(made))
    await turns()
    made.stop()
    made.stop()
    await shop.finish("0")
    await shop.finish("1")
    assert ((await first).index, [outcome.index for outcome in await rest(made)]) == (0, [1])
    assert (source.pulled, shop.kept) == (2, [])


async def test_stop_before_the_first_outcome_buys_nothing() -> None:
    """The iteration is empty."""
    source = Source()
    made = batch(source, FakeShop())
    made.stop()
    assert await rest(made) == []
    assert source.pulled == 0


async def test_stop_ends_a_wait_for_the_input() -> None:
    """An input that has nothing to say does not hold up the end."""
    closed = []

    async def items() -> AsyncIterator[str]:
        try:
            yield "a"
            await asyncio.Event().wait()
        finally:
            closed.append(True)

    made = batch(items(), FakeShop(at_once=True))
    assert (await take(made)).index == 0
    await turns()
    made.stop()
    assert await rest(made) == []
    assert closed == [True]


async def test_stop_gives_an_item_that_waits_for_the_budget_an_outcome() -> None:
    """Everything pulled has one."""
    shop = FakeShop()
    made = batch([ImageRequest(prompt="a", n=8)], shop, budget=Budget(pictures=5), split=True)
    first = asyncio.ensure_future(anext(made))
    await turns()
    made.stop()
    outcome = await first
    assert isinstance(outcome.error, ClosedError)
    assert "the batch was stopped before this was bought" in str(outcome.error)
    assert (outcome.part, outcome.parts) == (2, 2)
    await shop.finish("a")
    assert [each.part for each in await rest(made)] == [1]


async def test_closing_ends_a_wait_for_the_input() -> None:
    """As `stop` does."""

    async def items() -> AsyncIterator[str]:
        yield "a"
        await asyncio.Event().wait()

    tasks = asyncio.all_tasks()
    async with batch(items(), FakeShop(at_once=True)) as made:
        assert (await take(made)).index == 0
        await turns()
    assert await rest(made) == []
    assert asyncio.all_tasks() <= tasks


@pytest.mark.parametrize("taken", [0, 1, 3])
async def test_closing_closes_an_input_that_is_an_asynchronous_generator(taken: int) -> None:
    """There and then, so that what it holds open is let go of; twice does no harm, and nothing else is closed."""
    told: list[str] = []

    async def items() -> AsyncIterator[str]:
        try:
            for name in "ab":
                yield name
        finally:
            await asyncio.sleep(0)
            told.append("closed")

    source = items()
    made = batch(source, FakeShop(at_once=True), limit=1)
    async with made:
        outcomes = [outcome async for outcome in made] if taken > 1 else [await take(made) for _ in range(taken)]
    assert len(outcomes) == min(taken, 2)
    assert told == (["closed"] if taken else [])
    await made.aclose()
    with pytest.raises(StopAsyncIteration):
        await anext(source)


async def test_an_input_that_was_cancelled_is_no_input_that_has_ended() -> None:
    """Somebody cancelled what feeds it, and not the batch: what was pulled is handed over, and then that is said."""

    async def items() -> AsyncIterator[str]:
        yield "a"
        raise asyncio.CancelledError

    made = batch(items(), FakeShop(at_once=True))
    assert (await take(made)).index == 0
    with pytest.raises(MirageError, match="the input of the batch was cancelled, so there may be more in it"):
        await take(made)
    assert await rest(made) == []


async def test_a_job_that_ends_after_its_wait_was_over_is_not_taken() -> None:
    """The outcome tells of the wait, so whoever attaches to the job is the first to have its pictures."""
    shop = FakeShop()
    made = batch(["a", "b"], shop)
    first = asyncio.ensure_future(anext(made))
    await turns()
    await shop.finish("a", WaitTimeoutError("later", token="t"))
    assert isinstance((await first).error, WaitTimeoutError)
    assert not shop.jobs["a"].taken
    second = asyncio.ensure_future(anext(made))
    await turns()
    await shop.finish("b", JobFailedError("no"))
    assert isinstance((await second).error, JobFailedError)
    assert shop.jobs["b"].taken


async def test_a_closed_hub_ends_the_batch() -> None:
    """What was in flight says so, and then the iteration does."""
    shop = FakeShop()
    made = batch(Source(), shop, limit=2)
    first = asyncio.ensure_future(anext(made))
    await turns()
    for name in ("0", "1"):
        await shop.finish(name, ClosedError("the client was closed", token=name, billed="yes"))
    assert isinstance((await first).error, ClosedError)
    assert isinstance((await take(made)).error, ClosedError)
    with pytest.raises(ClosedError, match="the client was closed"):
        await take(made)
    assert await rest(made) == []


async def test_an_unforeseen_error_is_one_outcome(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged with its traceback, counts as maybe bought, and harms nobody else."""
    shop = FakeShop()
    made = batch(["a", "b"], shop, ordered=True)
    first = asyncio.ensure_future(anext(made))
    await turns()
    await shop.finish("b")
    with caplog.at_level(logging.ERROR):
        await shop.finish("a", ZeroDivisionError("oops"))
    error = (await first).error
    assert type(error) is MirageError
    assert (str(error), error.billed) == ("an unforeseen ZeroDivisionError, as logged", "unknown")
    assert "item 0 of a batch failed in an unforeseen way" in caplog.text
    assert (await take(made)).generation is not None


async def test_an_uncertain_outcome_nobody_takes_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """There is no job to keep, so this line is the only trace; an error that cost nothing leaves none."""

    class Blocking(FakeShop):
        async def buy(self, request: ImageRequest, accepted: Any, without: Any) -> Any:  # noqa: ARG002 - there is no job
            await asyncio.sleep(0)
            if request.prompt == "a":
                raise SubmissionUncertainError("who knows (key 0f)", key="0f")
            raise refusal()

    made = batch(["a", "b", "c"], Blocking(), ordered=True, limit=3)
    assert isinstance((await take(made)).error, SubmissionUncertainError)
    again = batch(["b", "a"], Blocking())
    await take(again)
    await turns()
    with caplog.at_level(logging.WARNING):
        await made.aclose()
        assert caplog.text == ""
        await again.aclose()
    assert "nobody takes the outcome of item 1 of a batch: who knows (key 0f)" in caplog.text


async def test_a_batch_may_be_dropped_in_another_thread() -> None:
    """Its purchases are ended in their own event loop."""
    shop = FakeShop()
    held = [batch(Source(), shop, limit=2)]
    with suppress(TimeoutError):
        await asyncio.wait_for(asyncio.shield(asyncio.ensure_future(_begin(held[0]))), 30)
    thread = threading.Thread(target=held.clear)
    thread.start()
    await asyncio.to_thread(thread.join)
    await turns()
    assert set(shop.kept) == {job for job in shop.jobs.values() if not job.taken}
    assert len(shop.bought) == 3


async def _begin(made: Batch) -> None:
    first = asyncio.ensure_future(anext(made))
    await turns()
    shop: Any = made._engine._shop
    await shop.finish("0")
    await first
    await turns()


def test_a_batch_may_outlive_its_event_loop() -> None:
    """Dropping it then touches nothing."""
    shop = FakeShop()
    held: list[Batch] = []

    async def begin() -> None:
        held.append(batch(Source(), shop, limit=2))
        await _begin(held[0])

    asyncio.run(begin())
    held.clear()
    gc.collect()
    assert len(shop.bought) == 3
