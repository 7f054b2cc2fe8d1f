"""One provider account: its places, its rate, its pauses."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar, cast

import anyio
import pytest

from mirage_async.scheduler import Account, Limits
from mirage_async.scheduler._account import LONGEST_PAUSE, Entry

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from mirage_async.jobs import Job

pytestmark = pytest.mark.anyio

T = TypeVar("T")


async def soon(work: Awaitable[T]) -> T:
    """Await something that must not take long."""
    with anyio.fail_after(5):
        return await work


def a_job() -> Job[Any]:
    """Return something to take a place for; the account only ever compares it."""
    return cast("Job[Any]", object())


def ready(account: Account, count: int) -> list[Entry]:
    """Put notes into the ready queue."""
    entries = [Entry(a_job(), account) for _ in range(count)]
    account.ready.extend(entries)
    return entries


async def turn() -> None:
    """Let every task go as far as it can."""
    for _ in range(10):
        await asyncio.sleep(0)


# --- places ---


async def test_places_are_given_first_come_first_served() -> None:
    """With `Limits(jobs=1)` purchases wait in line for the place."""
    account = Account("mira", Limits(jobs=1))
    jobs = [a_job() for _ in range(4)]
    order: list[int] = []

    async def buy(number: int) -> None:
        await account.take_place(jobs[number])
        order.append(number)

    tasks = [asyncio.ensure_future(buy(number)) for number in range(4)]
    await turn()
    assert order == [0]
    assert (account.statistics(0).jobs_in_flight, account.statistics(0).jobs_waiting) == (1, 3)
    for number in range(4):
        account.give_place_back(jobs[number])
        await turn()
    assert order == [0, 1, 2, 3]
    await soon(asyncio.gather(*tasks))
    assert account.statistics(0).jobs_in_flight == 0


async def test_without_a_limit_there_are_no_places_to_count() -> None:
    """`jobs=None` gives every purchase its place at once."""
    account = Account("mira", Limits())
    for _ in range(1000):
        await soon(account.take_place(a_job()))
    assert account.statistics(0).jobs_in_flight == 0


async def test_a_place_can_be_given_back_twice() -> None:
    """A wait that is over and then the job itself both give the place back; it counts once."""
    account = Account("mira", Limits(jobs=1))
    first, second = a_job(), a_job()
    account.give_place_back(first)
    await soon(account.take_place(first))
    account.give_place_back(first)
    account.give_place_back(first)
    await soon(account.take_place(second))
    assert account.statistics(0).jobs_in_flight == 1


async def test_raising_the_limit_lets_the_waiting_in() -> None:
    """Limits can change at run time, also to none."""
    account = Account("mira", Limits(jobs=1))
    await soon(account.take_place(a_job()))
    tasks = [asyncio.ensure_future(account.take_place(a_job())) for _ in range(3)]
    await turn()
    account.set_limits(Limits(jobs=3))
    await turn()
    assert [task.done() for task in tasks] == [True, True, False]
    account.set_limits(Limits())
    await soon(asyncio.gather(*tasks))
    assert account.statistics(0).limits == Limits()


async def test_leaving_the_line_frees_nothing_and_blocks_nobody() -> None:
    """A cancelled purchase loses its turn, not somebody else's place."""
    account = Account("mira", Limits(jobs=1))
    first = a_job()
    await soon(account.take_place(first))
    tasks = [asyncio.ensure_future(account.take_place(a_job())) for _ in range(2)]
    await turn()
    tasks[0].cancel()
    await turn()
    assert not tasks[1].done()
    account.give_place_back(first)
    await soon(tasks[1])


# --- pauses ---


def test_pauses_without_a_wish_grow_and_start_small_again() -> None:
    """1, 2, 4 ... at most 30 seconds; one good answer starts them afresh."""
    account = Account("mira", Limits())
    pauses = []
    now = 0.0
    for _ in range(8):
        account.pause(now, None)
        pauses.append(account.paused_until - now)
        now = account.paused_until
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 30]
    account.calm()
    account.pause(now, None)
    assert account.paused_until - now == 1
    assert account.throttles == 9


@pytest.mark.parametrize(("asked", "pause"), [(0.0, 0), (3.5, 3.5), (60.0, 60), (61.0, 60), (1e9, 60)])
def test_a_wish_is_honoured_up_to_a_minute(asked: float, pause: float) -> None:
    """A provider that asks for more is asked again after a minute, since a job waits."""
    account = Account("mira", Limits())
    account.pause(100, asked)
    assert account.paused_until == 100 + pause
    assert LONGEST_PAUSE == 60


def test_a_shorter_wish_does_not_shorten_a_pause() -> None:
    """The longest pause asked for holds."""
    account = Account("mira", Limits())
    account.pause(0, 20)
    account.pause(1, 2)
    assert account.statistics(1).paused_for == 19


def test_a_paused_account_gives_nothing_out_and_says_when_it_will() -> None:
    """While it lasts, no status call begins; the moment of its end is known."""
    account = Account("mira", Limits())
    entries = ready(account, 1)
    account.pause(0, 10)
    assert account.take(9.99) is None
    assert account.opens_at(3) == 10
    assert account.take(10) is entries[0]


# --- taking ---


def test_ready_notes_are_taken_in_order_and_counted() -> None:
    """First due, first asked about."""
    account = Account("mira", Limits())
    entries = ready(account, 3)
    assert [account.take(0) for _ in range(4)] == [*entries, None]
    assert all(entry.flying for entry in entries)
    assert account.statistics(0).polls_sent == 3


def test_notes_nobody_watches_any_more_are_skipped() -> None:
    """A job forgotten while it waited in line costs no status call."""
    account = Account("mira", Limits())
    entries = ready(account, 3)
    entries[0].job = entries[2].job = None
    assert [account.take(0), account.take(0)] == [entries[1], None]
    assert account.sent == 1


def test_a_rate_spaces_the_calls_evenly() -> None:
    """At 4 a second a call may begin every quarter of a second, without a burst after idling."""
    account = Account("mira", Limits(polls_per_second=4))
    ready(account, 3)
    assert account.take(100) is not None
    assert account.take(100.2) is None
    assert account.opens_at(100.2) == 100.25
    assert account.take(100.25) is not None
    assert account.take(100.49) is None
    assert account.take(200) is not None


def test_a_full_account_opens_when_a_place_is_free() -> None:
    """With every place taken there is no moment to wait for."""
    account = Account("mira", Limits(polls=1))
    ready(account, 1)
    assert account.opens_at(0) == 0
    account.in_flight = 1
    assert account.opens_at(0) is None
    assert not account.has_room()
    account.set_limits(Limits(polls=None))
    assert account.has_room()


def test_an_account_with_nothing_ready_has_no_moment_to_wait_for() -> None:
    """An idle account arms no timer."""
    assert Account("mira", Limits()).opens_at(0) is None


def test_a_limit_lowered_meanwhile_stops_pollers_from_taking_more() -> None:
    """Pollers beyond the new limit finish their call and take no other."""
    account = Account("mira", Limits(polls=4))
    ready(account, 2)
    account.in_flight = 4
    account.set_limits(Limits(polls=3))
    assert account.take(0) is None
    account.in_flight = 3
    assert account.take(0) is not None


def test_an_account_describes_itself() -> None:
    """The repr has provider and counts."""
    assert repr(Account("mira", Limits())) == "<Account mira 0 watched, 0 polls in flight>"
