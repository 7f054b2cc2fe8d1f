"""What becomes of a hint: early, late, repeated, out of order, forged by the thousand; one job, one end, one value."""

from __future__ import annotations

import asyncio
import gc
import itertools
import random
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import pytest
from webhook_bench import BODY, DONE, RUNNING, SIGNING, Bench, signed

from mirage_async.exceptions import ClosedError, SubmissionUncertainError, WaitTimeoutError
from mirage_async.jobs import Job, conclude, new_job, refuse
from mirage_async.models import JobStatus
from mirage_async.webhooks import Hint
from mirage_async.webhooks._expected import WAKE_INTERVAL
from mirage_async.webhooks._inbox import MOST_PARKED, MOST_SEEN, PARKED_FOR, Inbox, Seen

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mirage_async.wire import Report

pytestmark = pytest.mark.anyio

T = TypeVar("T")


async def soon(work: Awaitable[T]) -> T:
    """Await something that must not take long."""
    with anyio.fail_after(30):
        return await work


async def test_a_webhook_has_the_job_asked_about_at_once_and_the_answer_resolves_it() -> None:
    """One status call, long before the scheduler's own."""
    bench = Bench(interval=500)
    job = await bench.accepted()
    await bench.clock.advance(7)
    bench.answer = DONE
    assert bench.deliver(job).status == 204
    await bench.clock.advance(0)
    assert await soon(job.result()) == "picture of task-1"
    assert (bench.asked, job.polls) == ([7], 1)


async def test_the_body_is_never_believed() -> None:
    """It says COMPLETED, the provider says running, twice: the wait goes on, at the scheduler's own pace."""
    bench = Bench(interval=10)
    job = await bench.accepted()
    await bench.clock.advance(1)
    bench.deliver(job)
    await bench.clock.advance(1)
    assert (job.status, bench.asked) == (JobStatus.RUNNING, [1])
    await bench.clock.advance(9)
    bench.answer = DONE
    await bench.clock.advance(5)
    assert await soon(job.result()) == "picture of task-1"
    assert bench.asked == [1, 3, 13]


@pytest.mark.parametrize("early", [False, True], ids=["accepted", "early"])
async def test_a_webhook_that_is_a_moment_ahead_of_the_providers_own_state_is_followed_by_a_second_look(
    *, early: bool
) -> None:
    """The first status call still says running; the next is not left to the scheduler, which would take its time."""
    bench = Bench(interval=500)
    job = bench.job()
    if early:
        bench.deliver(job)
        await bench.accept(job)
    else:
        await bench.accept(job)
        bench.deliver(job)
    await bench.clock.advance(0.5)
    bench.answer = DONE
    await bench.clock.advance(WAKE_INTERVAL)
    assert await soon(job.result()) == "picture of task-1"
    assert bench.asked == [0, WAKE_INTERVAL]


@pytest.mark.parametrize(
    ("provider", "status", "looks"),
    [
        ("mirako", "COMPLETED", 2),
        ("mirako", " failed", 2),
        ("mirako", "IN_PROGRESS", 1),
        ("mirako", "finished, honestly", 1),
        ("mirako", None, 1),
        ("miragic", "COMPLETED", 2),
        ("miragic", "PENDING", 1),
        ("milady", "COMPLETED", 1),
    ],
)
async def test_there_is_one_more_look_where_the_body_claims_the_end_and_never_a_third(
    provider: str, status: str | None, looks: int
) -> None:
    """In the words of that provider's status; a provider that answers at once has none."""
    bench = Bench(interval=500)
    bench.kind = bench.make_kind(provider=provider)
    job = await bench.accepted()
    bench.receiver.expected.arrived(Hint(provider=provider, key=job.key, status=status))
    await bench.clock.advance(100)
    assert bench.asked == [0, WAKE_INTERVAL][:looks]
    assert bench.receiver.statistics().hints_woken == 1


async def test_an_early_webhook_that_claims_nothing_is_followed_by_one_look() -> None:
    """The one that every hint has made."""
    bench = Bench(interval=500)
    job = bench.job()
    bench.deliver(job, b"")
    await bench.accept(job)
    await bench.clock.advance(100)
    assert bench.asked == [0]


async def test_a_second_look_is_not_made_at_a_job_that_has_ended_or_is_not_waited_for() -> None:
    """The first one was enough, or the wait is over."""
    for wait, answer in ((1000.0, DONE), (0.3, RUNNING)):
        bench = Bench(interval=500)
        job = await bench.accepted(wait=wait)
        bench.answer = answer
        bench.deliver(job)
        await bench.clock.advance(100)
        assert bench.asked == [0]
        assert bench.receiver.statistics().hints_woken == 1
        await asyncio.gather(job.result(), return_exceptions=True)


async def test_a_webhook_that_says_failed_does_not_fail_a_job() -> None:
    """Whatever it says, it is a reason to ask."""
    bench = Bench()
    job = await bench.accepted()
    bench.answer = DONE
    bench.deliver(job, b'{"id": "other-task", "status": "FAILED", "error": "no"}')
    await bench.clock.advance(0)
    assert await soon(job.result()) == "picture of task-1"


async def test_an_early_webhook_waits_for_the_answer_to_the_purchase() -> None:
    """It is parked under our own key, and the job is asked about as soon as there is an id to ask with."""
    bench = Bench(interval=500)
    job = bench.job()
    bench.answer = DONE
    assert bench.deliver(job).status == 204
    assert bench.receiver.statistics().parked == 1
    await bench.clock.advance(3)
    assert bench.asked == []
    await bench.accept(job)
    await bench.clock.advance(0)
    assert await soon(job.result()) == "picture of task-1"
    assert bench.asked == [3]
    assert bench.receiver.statistics().parked == 0


async def test_a_late_webhook_changes_nothing() -> None:
    """The job has ended; the sender is told that all is well."""
    bench = Bench()
    job = await bench.accepted()
    bench.answer = DONE
    await bench.clock.advance(200)
    assert await soon(job.result()) == "picture of task-1"
    asked = list(bench.asked)
    assert bench.deliver(job).status == 204
    await bench.clock.advance(100)
    assert bench.asked == asked
    assert bench.receiver.statistics().hints_late == 1


async def test_a_webhook_for_a_job_that_is_gone_is_parked() -> None:
    """Nobody holds the job any more, and expecting its webhook did not keep it alive."""
    bench = Bench()
    job = await bench.accepted()
    key = job.key
    bench.answer = DONE
    await bench.clock.advance(200)
    await soon(job.result())
    del job
    gc.collect()
    assert bench.receiver.statistics().expected == 0
    twin: Job[str] = new_job(bench.kind, key=key, id="task-1", status=JobStatus.QUEUED)
    assert bench.deliver(twin).status == 204
    statistics = bench.receiver.statistics()
    assert (statistics.hints_unknown, statistics.parked) == (1, 1)


async def test_a_webhook_for_a_job_whose_wait_is_over_does_no_harm() -> None:
    """Nobody watches it; whoever asks for it again asks the provider at once anyway."""
    bench = Bench()
    job = await bench.accepted(wait=20)
    await bench.clock.advance(30)
    with pytest.raises(WaitTimeoutError):
        await soon(job.result())
    asked = len(bench.asked)
    assert bench.deliver(job).status == 204
    await bench.clock.advance(50)
    assert len(bench.asked) == asked
    statistics = bench.receiver.statistics()
    assert (statistics.hints_woken, statistics.hints_unwatched) == (0, 1)


async def test_a_webhook_after_everything_was_closed_does_no_harm() -> None:
    """The receiver may live longer than the hub."""
    bench = Bench()
    job = await bench.accepted()
    await bench.scheduler.aclose()
    assert bench.deliver(job).status == 204
    await bench.clock.advance(50)
    assert bench.asked == []
    statistics = bench.receiver.statistics()
    assert (statistics.hints_woken, statistics.hints_unwatched) == (0, 1)
    with pytest.raises(ClosedError):
        await job.result()


async def test_a_webhook_while_the_purchase_is_being_written_down_is_early() -> None:
    """The provider's id is known by then, but nobody asks about the job yet."""
    bench = Bench(interval=500)
    bench.answer = DONE

    class Slow(type(bench.ledger)):  # type: ignore[misc]
        async def accepted(self, job: Job[Any]) -> None:
            bench.deliver(job)

    bench.kind = bench.make_kind(recorder=Slow())
    job = await bench.accepted()
    await bench.clock.advance(0)
    assert await soon(job.result()) == "picture of task-1"
    assert bench.receiver.statistics().hints_early == 1


async def test_a_hint_that_waits_for_its_turn_is_counted_as_what_becomes_of_it() -> None:
    """As woken as long as a status call is to come; as late or unwatched where none came because of it."""
    bench = Bench(interval=1.5)
    job = await bench.accepted()
    for _ in range(3):
        bench.deliver(job, b"")
    assert bench.receiver.statistics().hints_woken == 3
    await bench.clock.advance(1)
    bench.answer = DONE
    await bench.clock.advance(4)  # the scheduler's own call was quicker than their turn
    await soon(job.result())
    assert len(bench.asked) == 2
    statistics = bench.receiver.statistics()
    assert (statistics.hints_woken, statistics.hints_late) == (1, 2)
    bench = Bench(interval=500)
    job = await bench.accepted(wait=1)
    for _ in range(3):
        bench.deliver(job, b"")
    await bench.clock.advance(4)
    statistics = bench.receiver.statistics()
    assert (statistics.hints_woken, statistics.hints_unwatched) == (1, 2)
    with pytest.raises(WaitTimeoutError):
        await job.result()


async def test_a_webhook_for_a_job_of_another_provider_wakes_nobody() -> None:
    """A key is only one together with its provider."""
    bench = Bench()
    job = await bench.accepted()
    bench.receiver.expected.arrived(Hint(provider="miragic", key=job.key))
    await bench.clock.advance(1)
    assert bench.asked == []
    assert bench.receiver.statistics().hints_unknown == 1


async def test_a_webhook_for_an_uncertain_purchase_is_kept() -> None:
    """The answer to the purchase was lost; the hint carries our key and says under which id the provider has it."""
    bench = Bench()
    job = bench.job()
    await refuse(job, SubmissionUncertainError("lost", provider="mirako", key=job.key))
    bench.deliver(job)
    kept = bench.receiver.expected.inbox.take("mirako", job.key, bench.clock.monotonic())
    assert kept is not None
    assert kept.job_id == "task-1"


async def test_a_job_announced_as_finished_between_the_claim_and_the_result_is_late() -> None:
    """Its result is on the way."""
    bench = Bench()
    job = await bench.accepted()
    assert job.claim()
    bench.deliver(job)
    assert bench.receiver.statistics().hints_late == 1
    await conclude(job, DONE)
    assert await soon(job.result()) == "picture of task-1"


# --- all orders ---


class Story:
    """One job, and the five things that can happen to it.

    Args:
        signing: whether deliveries are signed.
    """

    def __init__(self, *, signing: bool) -> None:
        self.bench = Bench(interval=50, signing_secrets={"mirako": SIGNING} if signing else None)
        self.bench.answer = DONE  # the work is done before anybody hears of it
        self.job = self.bench.job()
        self.headers = signed(BODY, self.bench.clock.time()) if signing else {}
        self.impatient = asyncio.create_task(self.job.result())
        self.patient = asyncio.create_task(self.job.result())

    async def submit_reply(self) -> None:
        """The provider answers the purchase."""
        await self.bench.accept(self.job)

    async def webhook(self) -> None:
        """The provider announces the end; the first or, just the same, once more."""
        assert self.bench.deliver(self.job, BODY, self.headers).status == 204

    async def poll_result(self) -> None:
        """It is time for a status call of the scheduler's own, if it has anybody to ask about."""
        await self.bench.clock.advance(150)

    async def cancellation(self) -> None:
        """One of two waiters is cancelled."""
        self.impatient.cancel()


EVENTS: dict[str, Callable[[Story], Awaitable[None]]] = {
    "submit reply": Story.submit_reply,
    "webhook": Story.webhook,
    "duplicate": Story.webhook,
    "poll result": Story.poll_result,
    "cancellation": Story.cancellation,
}


@pytest.mark.parametrize("signing", [False, True], ids=["unsigned", "signed"])
@pytest.mark.parametrize("order", list(itertools.permutations(EVENTS)), ids=" > ".join)
async def test_every_order_ends_in_one_resolution_with_the_same_value(order: tuple[str, ...], *, signing: bool) -> None:
    """Reply, webhook, duplicate, poll and cancellation in any order: one outcome is recorded, every waiter gets it."""
    story = Story(signing=signing)
    await asyncio.sleep(0)
    for name in order:
        await EVENTS[name](story)
        await story.bench.clock.advance(0)
    assert await soon(story.patient) == "picture of task-1"
    assert await soon(story.job.result()) == "picture of task-1"
    assert story.bench.ledger.outcomes == ["picture of task-1"]
    assert story.job.status is JobStatus.SUCCEEDED
    assert story.job.polls <= 2
    outcome = (await asyncio.gather(story.impatient, return_exceptions=True))[0]
    assert outcome == "picture of task-1" or isinstance(outcome, asyncio.CancelledError)
    await story.bench.scheduler.aclose()


@pytest.mark.parametrize("seed", range(20))
async def test_events_that_happen_in_one_turn_of_the_loop_end_the_same_way(seed: int) -> None:
    """Nothing settles in between: the reply is being recorded while webhooks come and the clock goes on."""
    dice = random.Random(seed)
    story = Story(signing=dice.random() < 0.5)
    order = dice.sample(list(EVENTS), k=len(EVENTS))
    await soon(asyncio.gather(*(EVENTS[name](story) for name in order)))
    await story.bench.clock.advance(1)
    assert await soon(story.patient) == "picture of task-1"
    assert story.bench.ledger.outcomes == ["picture of task-1"]
    await story.bench.scheduler.aclose()


# --- many hints ---


async def test_ten_thousand_forged_hints_cost_at_most_one_status_call_an_interval() -> None:
    """Whoever has stolen an address can hurry us every two seconds, and nothing more."""
    bench = Bench(interval=30)
    job = await bench.accepted()
    seconds = 20
    for _ in range(seconds * 10):
        for _ in range(50):
            assert bench.deliver(job).status == 204
        await bench.clock.advance(0.1)
    assert bench.receiver.statistics().hints_woken == 10_000
    gaps = [later - earlier for earlier, later in itertools.pairwise(bench.asked)]
    assert len(bench.asked) <= seconds / WAKE_INTERVAL + 1
    assert min(gaps) >= WAKE_INTERVAL - 0.01


async def test_a_burst_of_hints_while_a_status_call_is_under_way_is_one_more_call() -> None:
    """They are merged into the call that comes when the interval is over."""
    bench = Bench(interval=500)
    gate = asyncio.Event()

    async def slow(_: Job[Any]) -> Report:
        bench.asked.append(bench.clock.monotonic())
        await gate.wait()
        return RUNNING

    bench.kind = bench.make_kind(look=slow)
    job = await bench.accepted()
    for _ in range(500):
        bench.deliver(job)
        await asyncio.sleep(0)
    await bench.clock.advance(1)
    gate.set()
    await bench.clock.advance(0.5)
    assert bench.asked == [0]
    await bench.clock.advance(20)
    assert bench.asked == [0, WAKE_INTERVAL]


async def test_the_real_webhook_after_a_forged_one_is_at_most_an_interval_late() -> None:
    """The hint that came too soon after another is not dropped but waits its turn."""
    bench = Bench(interval=500)
    job = await bench.accepted()
    await bench.clock.advance(10)
    bench.deliver(job)
    await bench.clock.advance(0.5)
    bench.answer = DONE
    bench.deliver(job)
    await bench.clock.advance(2)
    assert await soon(job.result()) == "picture of task-1"
    assert bench.asked == [10, 12]


async def test_a_hint_that_waits_its_turn_finds_the_job_finished_or_gone() -> None:
    """Then nothing is asked."""
    for gone in (False, True):
        bench = Bench(interval=1)
        job = await bench.accepted()
        bench.deliver(job)
        await bench.clock.advance(0.1)
        bench.deliver(job)
        bench.answer = DONE
        await bench.clock.advance(1.5)
        asked = len(bench.asked)
        if gone:
            await soon(job.result())
            del job
            gc.collect()
        await bench.clock.advance(10)
        assert len(bench.asked) == asked


async def test_of_two_handles_on_one_job_the_newer_is_woken() -> None:
    """And the older one's end does not make the receiver forget the newer."""
    bench = Bench(interval=500)
    older = await bench.accepted()
    bench.deliver(older)
    bench.deliver(older)  # which waits its turn, and keeps the older one's note meanwhile
    newer: Job[str] = new_job(bench.kind, key=older.key, id="task-1", status=JobStatus.QUEUED)
    bench.receiver.expect(newer)
    newer.attach(100)
    bench.scheduler.forget(older)
    del older
    gc.collect()
    await bench.clock.advance(5)
    bench.answer = DONE
    bench.deliver(newer)
    await bench.clock.advance(0)
    assert await soon(newer.result()) == "picture of task-1"


# --- memories ---


def hint(number: int) -> Hint:
    """Return one of many hints."""
    return Hint(provider="mirako", key=f"{number:032x}")


def test_the_inbox_keeps_ten_thousand_and_lets_the_oldest_go() -> None:
    """A flood of genuine hints for jobs nobody knows costs a bounded amount of memory."""
    inbox = Inbox()
    for number in range(MOST_PARKED + 5):
        inbox.put(hint(number), 0.0)
    assert len(inbox) == MOST_PARKED
    assert inbox.take("mirako", hint(4).key, 0.0) is None
    assert inbox.take("mirako", hint(5).key, 0.0) == hint(5)
    assert inbox.take("mirako", hint(5).key, 0.0) is None


def test_the_inbox_keeps_a_hint_for_a_quarter_of_an_hour() -> None:
    """And the latest of several about one job, from when it came."""
    inbox = Inbox()
    inbox.put(hint(1), 0.0)
    inbox.put(hint(2), 10.0)
    inbox.put(hint(1), 20.0)
    assert inbox.take("mirako", hint(2).key, PARKED_FOR + 10.0) is None
    assert inbox.take("mirako", hint(1).key, PARKED_FOR + 19.9) == hint(1)
    inbox.put(hint(1), 1000.0)
    inbox.put(hint(3), 1000.0 + PARKED_FOR)
    assert len(inbox) == 1


def test_ids_are_remembered_for_a_while_and_a_bounded_number_of_them() -> None:
    """The oldest makes room."""
    seen = Seen(10.0)
    assert [seen.add("a", 0.0), seen.add("a", 9.9), seen.add("a", 10.0), seen.add("a", 15.0)] == [
        True,
        False,
        True,
        False,
    ]
    for number in range(MOST_SEEN + 1):
        seen.add(number, 15.0)
    assert len(seen) == MOST_SEEN
    assert seen.add("a", 15.0)
