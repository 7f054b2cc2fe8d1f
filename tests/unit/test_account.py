"""One provider account: its places, its rate, its pauses."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any, TypeVar, cast

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirage_async.scheduler import Account, Limits
from mirage_async.scheduler._account import LONGEST_PAUSE, Entry
from mirage_async.scheduler._delays import DelayBounds

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


def test_calls_are_spaced_after_a_throttle_ever_more_and_ever_less() -> None:
    """50 ms after the first throttle, doubled by each up to 2 s; a good answer takes a tenth, and below 10 ms all."""
    account = Account("mira", Limits(polls=None))
    ready(account, 200)
    now, spacings = 0.0, list[float]()
    for _ in range(8):
        account.pause(now, 0.0)
        now += 10
        assert account.take(now) is not None
        opens = account.opens_at(now)
        assert opens is not None
        spacings.append(opens - now)
    assert spacings == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2, 2])
    good = 0
    while account.opens_at(now) != now:
        account.calm()
        good += 1
        opens = account.opens_at(now)
        assert opens == pytest.approx(now + 2 * 0.9**good) or (opens == now and 2 * 0.9**good < 0.01)
    assert good == 51


def test_spaced_calls_begin_no_sooner_than_they_may() -> None:
    """After the pause the calls that became due do not all begin at once."""
    account = Account("mira", Limits(polls=None))
    entries = ready(account, 3)
    account.pause(0, 1)
    assert account.take(1) is entries[0]
    assert account.take(1.049) is None
    assert account.take(1.05) is entries[1]
    account.calm()
    assert account.opens_at(1.05) == pytest.approx(1.095)


@pytest.mark.parametrize("asked", [None, 5.0], ids=["no wish", "a wish"])
def test_one_burst_of_throttles_doubles_the_spacing_once(asked: float | None) -> None:
    """Answers that come while the pause lasts tell what is known already."""
    account = Account("mira", Limits(polls=None))
    ready(account, 2)
    for _ in range(32):
        account.pause(0, asked)
    assert account.take(10) is not None
    assert account.opens_at(10) == pytest.approx(10.05)


def test_a_spacing_wider_than_the_rate_holds_and_a_narrower_one_changes_nothing() -> None:
    """The stricter of the two counts."""
    account = Account("mira", Limits(polls_per_second=10))
    ready(account, 3)
    account.pause(0, 0.0)
    assert account.take(0) is not None
    assert account.opens_at(0) == pytest.approx(0.1)
    account.pause(1, 0.0)
    account.pause(2, 0.0)
    assert account.take(2) is not None
    assert account.opens_at(2) == pytest.approx(2.2)


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


def test_the_most_urgent_note_is_taken_first() -> None:
    """Urgency decides where not all calls may begin at once."""
    account = Account("mira", Limits(polls=1))
    entries = ready(account, 8)
    urgency = {entry: number for number, entry in enumerate(entries)}
    taken = [account.take(0, urgency.__getitem__) for _ in range(9)]
    assert taken == [*reversed(entries), None]


def test_who_has_been_passed_over_for_long_is_owed_every_fourth_call() -> None:
    """Twelve calls for each that was in line when they came; until then urgency alone decides."""
    account = Account("mira", Limits(polls=1))
    slow = ready(account, 2)
    taken: list[Entry] = []
    for call in range(40):
        ready(account, 1)
        found = account.take(call, lambda entry: float(entry not in slow))
        assert found is not None
        taken.append(found)
    assert [call for call, entry in enumerate(taken, 1) if entry in slow] == [13, 25]


def test_without_scarcity_nobody_asks_how_urgent_a_note_is() -> None:
    """Where every ready call may begin at once the order does not matter."""
    account = Account("mira", Limits(polls=8))
    entries = ready(account, 8)

    def urgency(entry: Entry) -> float:
        raise AssertionError(entry)

    assert [account.take(0, urgency) for _ in range(8)] == entries


def test_of_equally_urgent_notes_the_oldest_is_taken() -> None:
    """Equals keep their order."""
    account = Account("mira", Limits(polls=1))
    entries = ready(account, 5)
    assert [account.take(0, lambda _: 1.0) for _ in range(5)] == entries


def test_urgencies_are_asked_for_every_fifty_milliseconds_at_most() -> None:
    """Until then the last ranking holds, and who came since comes after it."""
    account = Account("mira", Limits(polls=1))
    asked: list[Entry] = []

    def urgency(entry: Entry) -> float:
        asked.append(entry)
        return float(len(asked))

    first = ready(account, 6)
    assert account.take(0, urgency) is first[5]
    late = ready(account, 2)
    assert account.take(0.049, urgency) is first[4]
    assert len(asked) == 6
    assert account.take(0.05, urgency) is late[1]
    assert len(asked) == 6 + 6


def test_a_long_line_is_ranked_less_often() -> None:
    """Ranking ten thousand calls twenty times a second would leave no time for anything else."""
    account = Account("mira", Limits(polls=1))
    ready(account, 10_000)
    asked = 0

    def urgency(_: Entry) -> float:
        nonlocal asked
        asked += 1
        return 0.0

    for step in range(99):
        account.take(step / 200, urgency)
    assert 5_900 < asked <= 6_000  # three times, of every fifth


def test_a_very_long_line_is_ranked_in_parts() -> None:
    """Of six thousand each ranking looks at every third, and the next one at others: none takes very long."""
    account = Account("mira", Limits(polls=1))
    entries = ready(account, 6_000)
    numbers = {entry: number for number, entry in enumerate(entries)}
    looked: list[set[int]] = []
    for step in range(3):
        seen: set[int] = set()

        def urgency(entry: Entry, seen: set[int] = seen) -> float:
            seen.add(numbers[entry])
            return float(numbers[entry])

        found = account.take(step, urgency)
        assert found is not None
        assert numbers[found] == max(seen)
        looked.append(seen)
    assert all(1999 <= len(seen) <= 2000 for seen in looked)
    assert not looked[0] & looked[1]


def test_a_note_that_left_the_line_is_not_taken_from_the_ranking() -> None:
    """A job forgotten after the ranking costs no call and is not counted as ready."""
    account = Account("mira", Limits(polls=1))
    entries = ready(account, 4)
    assert account.take(0, lambda _: 0.0) is entries[0]
    account.ready.discard(entries[1])
    assert account.statistics(0).polls_ready == 2
    assert [account.take(0, lambda _: 0.0) for _ in range(3)] == [entries[2], entries[3], None]


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


# --- what is counted ---


def test_finished_jobs_and_delays_are_counted() -> None:
    """Polls of finished jobs on average, the exact mean of the bounds, and the 95th percentile within a quarter."""
    account = Account("mira", Limits())
    before = account.statistics(0)
    assert (before.jobs_finished, before.polls_per_job) == (0, None)
    assert (before.delay_bound_mean, before.delay_bound_p95) == (None, None)
    for polls in (1, 2, 6):
        account.finished(polls)
    for number in range(1, 101):
        account.noticed(number / 10)
    after = account.statistics(0)
    assert (after.jobs_finished, after.polls_per_job) == (3, 3)
    assert after.delay_bound_mean == pytest.approx(5.05)
    assert after.delay_bound_p95 is not None
    assert 9.5 <= after.delay_bound_p95 <= 10


@settings(deadline=None)
@given(bounds=st.lists(st.floats(0, 1e6), min_size=1, max_size=200))
def test_the_95th_percentile_is_never_too_small_and_at_most_a_quarter_too_large(bounds: list[float]) -> None:
    """Counted in steps of a quarter from a millisecond to twenty minutes; below and above, the largest bounds it."""
    delays = DelayBounds()
    for bound in bounds:
        delays.add(bound)
    exact = sorted(bounds)[math.ceil(0.95 * len(bounds)) - 1]
    assert delays.p95 is not None
    assert exact * (1 - 1e-9) <= delays.p95 <= max(bounds)
    if exact <= 1200:
        assert delays.p95 <= max(0.001, exact * 1.25) * (1 + 1e-9)
    assert delays.mean == pytest.approx(math.fsum(bounds) / len(bounds))


def test_an_account_describes_itself() -> None:
    """The repr has provider and counts."""
    assert repr(Account("mira", Limits())) == "<Account mira 0 watched, 0 polls in flight>"
