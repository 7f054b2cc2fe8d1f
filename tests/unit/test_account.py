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
from mirage_async.scheduler._delays import DelayBounds
from mirage_async.scheduler._entry import Entry
from mirage_async.scheduler._pauses import LONGEST_PAUSE, Pauses

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from mirage_async.jobs import Job

pytestmark = pytest.mark.anyio

T = TypeVar("T")


async def soon(work: Awaitable[T]) -> T:
    """Await something that must not take long."""
    with anyio.fail_after(30):
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


async def test_a_limit_that_comes_later_counts_the_jobs_there_are() -> None:
    """Jobs that were let in without limit take their places; the next purchase waits until enough have ended."""
    account = Account("mira", Limits())
    jobs = [a_job() for _ in range(3)]
    account.entries = dict.fromkeys(Entry(job, account) for job in jobs)
    account.set_limits(Limits(jobs=2))
    account.set_limits(Limits(jobs=None))
    account.set_limits(Limits(jobs=2))
    assert account.statistics(0).jobs_in_flight == 3
    task = asyncio.ensure_future(account.take_place(a_job()))
    account.give_place_back(jobs[0])
    await turn()
    assert not task.done()
    account.give_place_back(jobs[1])
    await soon(task)


async def test_a_limit_that_comes_later_counts_what_is_being_bought() -> None:
    """From that moment on: also when it is accepted, and while it is both bought and asked about."""
    account = Account("mira", Limits())
    jobs = [a_job() for _ in range(3)]
    account.buying.update(jobs)
    account.entries = dict.fromkeys([Entry(jobs[2], account), Entry(a_job(), account)])
    account.set_limits(Limits(jobs=3))
    assert account.statistics(0).jobs_in_flight == 4
    for job in jobs:
        await soon(account.take_place(job))  # where its turn to buy comes after the limit: it has its place
        account.buying.discard(job)
    assert account.statistics(0).jobs_in_flight == 4
    task = asyncio.ensure_future(account.take_place(a_job()))
    account.give_place_back(jobs[0])
    await turn()
    assert (task.done(), account.statistics(0).jobs_in_flight, account.statistics(0).jobs_waiting) == (False, 3, 1)
    account.give_place_back(jobs[1])
    await soon(task)


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
        pauses.append(account.pauses.until - now)
        now = account.pauses.until
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 30]
    account.pauses.calm(now)
    account.pause(now, None)
    assert account.pauses.until - now == 1
    assert account.throttles == 9


@pytest.mark.parametrize(
    ("asked", "pause"), [(-3.0, 1), (0.0, 1), (0.5, 1), (3.5, 3.5), (60.0, 60), (61.0, 60), (1e9, 60)]
)
def test_a_wish_is_honoured_up_to_a_minute(asked: float, pause: float) -> None:
    """A provider that asks for more is asked again after a minute, since a job waits; for less, after our own pause."""
    account = Account("mira", Limits())
    account.pause(100, asked)
    assert account.pauses.until == 100 + pause
    assert LONGEST_PAUSE == 60


@pytest.mark.parametrize("asked", [0.0, -5.0, 1.0])
def test_our_own_pauses_grow_under_small_wishes_as_without_any(asked: float) -> None:
    """A wish is a floor under our own pause, never a replacement; a date just past is a wish for nothing."""
    account, now, pauses = Account("mira", Limits()), 0.0, list[float]()
    for _ in range(7):
        for _ in range(32):  # one burst each
            account.pause(now, asked)
        pauses.append(account.pauses.until - now)
        now = account.pauses.until
    assert pauses == [1, 2, 4, 8, 16, 30, 30]


def test_a_pause_leaves_something_for_good_answers_to_take_back() -> None:
    """An answer to what was asked before the end of the pause is none."""
    account = Account("mira", Limits())
    assert (account.pauses.uneasy, account.pauses.until) == (False, -math.inf)
    account.pause(0, 10)
    account.pauses.calm(9)
    assert (account.pauses.uneasy, account.pauses.until) == (True, 10)
    for _ in range(16):
        account.pauses.calm(math.inf)
    assert account.pauses.uneasy is False


def test_accounts_of_one_key_share_what_the_provider_asked_and_count_apart() -> None:
    """Whichever was throttled, both pause, both go on gently, and a good answer to either helps both."""
    pauses = Pauses()
    wide, narrow = Account("mira", Limits(), pauses), Account("mira", Limits(polls=1), pauses)
    apart = Account("mira", Limits())
    for account in (wide, narrow, apart):
        ready(account, 2)
    wide.pause(0, 10)
    narrow.pause(3, 8)
    assert [account.opens_at(3) for account in (wide, narrow, apart)] == [11, 11, 3]
    assert [account.throttles for account in (wide, narrow, apart)] == [1, 1, 0]
    assert [account.statistics(3).spacing for account in (wide, narrow, apart)] == [0.05, 0.05, 0]
    assert wide.pauses is narrow.pauses
    assert pauses.purchase_at(3) == 11
    assert [wide.take(11) is None, narrow.take(11) is None] == [False, False]
    narrow.pauses.calm(11)
    assert wide.opens_at(11) == pytest.approx(11.045)


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
        now += 30  # our own pause lasts no longer, whatever the wish
        assert account.take(now) is not None
        opens = account.opens_at(now)
        assert opens < math.inf
        spacings.append(opens - now)
    assert spacings == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2, 2])
    good = 0
    while account.opens_at(now) != now:
        account.pauses.calm(now)
        good += 1
        opens = account.opens_at(now)
        assert opens == pytest.approx(now + 2 * 0.9**good) or (opens == now and 2 * 0.9**good < 0.01)
    assert good == 51
    assert account.statistics(now).spacing == 0


def test_spaced_calls_begin_no_sooner_than_they_may() -> None:
    """After the pause the calls that became due do not all begin at once."""
    account = Account("mira", Limits(polls=None))
    entries = ready(account, 3)
    account.pause(0, 1)
    assert account.statistics(1).spacing == 0.05
    assert account.take(1) is entries[0]
    assert account.take(1.049) is None
    assert account.take(1.05) is entries[1]
    account.pauses.calm(1.0)
    assert account.opens_at(1.05) == pytest.approx(1.095)


@pytest.mark.parametrize("asked", [None, 5.0, 0.0], ids=["no wish", "a wish", "a wish for nothing"])
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
    assert account.take(1) is not None
    assert account.opens_at(1) == pytest.approx(1.1)
    account.pause(2, 0.0)
    account.pause(4, 0.0)
    assert account.take(8) is not None
    assert account.opens_at(8) == pytest.approx(8.2)


def test_purchases_held_up_by_a_pause_are_sent_one_after_the_other() -> None:
    """The next so long after the last as is the pace of the moment."""
    account = Account("mira", Limits())
    pauses = account.pauses
    assert pauses.purchase_at(0) == 0
    account.pause(0, 10)
    assert pauses.purchase_at(1) == 10
    pauses.purchased_at = 10
    assert pauses.purchase_at(10) == pytest.approx(10.05)
    pauses.calm(10)
    assert pauses.purchase_at(10) == pytest.approx(10.045)
    for _ in range(30):
        pauses.calm(10)
    assert pauses.purchase_at(10) == 10


def test_only_answers_to_what_was_asked_after_the_pause_take_anything_back() -> None:
    """Whatever left before it, or during it, says nothing of how the provider fares afterwards."""
    account = Account("mira", Limits())
    account.pause(0, None)
    for asked in (-3, 0, 0.999):
        account.pauses.calm(asked)
    assert account.statistics(1).spacing == 0.05
    account.pause(1, None)
    assert account.statistics(1).paused_for == 2
    account.pauses.calm(3)
    assert account.statistics(3).spacing == pytest.approx(0.09)
    account.pause(3, None)
    assert account.statistics(3).paused_for == 1


def test_what_a_ready_call_waits_for_can_be_told() -> None:
    """The pause first, then the place, then whichever of the two spacings ends later."""
    account = Account("mira", Limits(polls=1))
    ready(account, 9)
    assert account.held_up_by(0) == "job"
    assert account.take(0) is not None
    account.in_flight = 1
    assert account.held_up_by(1) == "polls"
    account.pause(1, 5)
    assert account.held_up_by(3) == "pause"
    account.in_flight = 0
    assert account.held_up_by(6) == "pause"  # the account opens in this very moment
    assert account.take(6) is not None
    assert account.held_up_by(6) == "spacing"
    account.set_limits(Limits(polls_per_second=0.5))
    assert account.held_up_by(6) == "polls_per_second"
    assert account.take(8) is not None
    assert account.held_up_by(9) == "polls_per_second"


# --- taking ---


def test_ready_notes_are_taken_in_order_and_counted() -> None:
    """First due, first asked about."""
    account = Account("mira", Limits())
    entries = ready(account, 3)
    assert [account.take(0) for _ in range(4)] == [*entries, None]
    assert all(entry.flying for entry in entries)
    assert account.statistics(0).polls_sent == 3


def test_who_is_in_line_keeps_the_place() -> None:
    """Being due once more changes nothing."""
    account = Account("mira", Limits())
    entries = ready(account, 2)
    account.ready.append(entries[0])
    assert [account.take(0) for _ in range(3)] == [*entries, None]


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


def test_a_late_call_makes_up_for_its_lateness_by_ten_milliseconds_at_most() -> None:
    """The machine was busy: the next call is not late as well. After more, or after idling, counting begins anew."""
    account = Account("mira", Limits(polls_per_second=10))
    ready(account, 5)
    assert account.take(0) is not None
    for late, opens in ((0.108, 0.2), (0.211, 0.311), (0.5, 0.6)):
        assert account.take(late) is not None
        assert account.opens_at(0) == pytest.approx(opens)
    fast = Account("mira", Limits(polls_per_second=1000))
    ready(fast, 3)
    assert fast.take(0) is not None
    assert fast.take(0.0025) is not None
    assert fast.opens_at(0) == pytest.approx(0.0035)


@pytest.mark.parametrize(
    ("before", "after", "opens"),
    [(0.01, 10.0, 0.1), (10.0, 0.01, 100.0), (None, 10.0, 0.1), (0.01, None, 0.05)],
    ids=["raised", "lowered", "new", "gone"],
)
def test_another_rate_holds_at_once(before: float | None, after: float | None, opens: float) -> None:
    """Also for the calls that wait: they wait one new interval since the last call, whatever the old one was."""
    account = Account("mira", Limits(polls_per_second=before))
    ready(account, 2)
    assert account.take(0) is not None
    account.set_limits(Limits(polls_per_second=after))
    assert account.opens_at(0.05) == pytest.approx(opens)


# --- taking early ---


def waiting(account: Account, count: int) -> list[Entry]:
    """Let jobs wait for their time."""
    entries = [Entry(a_job(), account) for _ in range(count)]
    for entry in entries:
        entry.due = 1000
    account.entries |= dict.fromkeys(entries)
    return entries


EARLY = Limits(polls_per_second=10, ask_early=True)


def test_spare_calls_go_to_whoever_is_worth_one_early() -> None:
    """A tenth of a call at least; nobody is asked about twice by one ranking, and what is due comes first."""
    account = Account("mira", EARLY)
    first, second, third = waiting(account, 3)
    urgency = {first: 0.5, second: 0.7, third: 0.1}
    (due,) = ready(account, 1)
    urgency[due] = 0.0
    taken = [account.take(number / 5, urgency.__getitem__) for number in range(2)]
    assert taken == [due, second]
    second.due, urgency[second] = None, 9.0
    assert account.take(2 / 5, urgency.__getitem__) is first
    first.due = None
    assert account.take(3 / 5, urgency.__getitem__) is None
    statistics = account.statistics(1)
    assert (statistics.polls_sent, statistics.polls_early) == (3, 2)


def test_who_was_just_asked_about_or_waits_for_trouble_to_pass_is_not_asked_about_early() -> None:
    """A ranking grows old; what it says about these is no longer true."""
    account = Account("mira", Limits(polls_per_second=1000, ask_early=True))
    first, asked, troubled, gone, late = waiting(account, 5)
    troubled.misses = 1
    urgency = {first: 5.0, asked: 4.0, troubled: 3.0, gone: 2.0, late: 1.0}
    assert account.take(0, urgency.__getitem__) is first
    first.due = None
    asked.looked = 0.001
    gone.job = None
    assert account.take(0.01, urgency.__getitem__) is late


def test_an_account_that_asks_early_looks_for_somebody_every_fifty_milliseconds() -> None:
    """It neither spins nor sleeps through, and without a policy that can tell it does not look at all."""
    account = Account("mira", EARLY)
    waiting(account, 2)
    assert account.opens_at(3) == 3
    assert account.take(3, lambda _: 0.0) is None
    assert account.opens_at(3) == pytest.approx(3.05)
    assert account.take(3.05, lambda _: 0.2) is not None
    assert account.opens_at(3.05) == pytest.approx(3.15)
    account.set_limits(Limits(polls=1, polls_per_second=10, ask_early=True))
    account.in_flight = 1
    assert account.opens_at(4) == math.inf
    plain = Account("mira", EARLY)
    waiting(plain, 1)
    assert plain.take(0) is None
    assert plain.opens_at(0) == math.inf


def test_a_full_account_opens_when_a_place_is_free() -> None:
    """With every place taken there is no moment to wait for."""
    account = Account("mira", Limits(polls=1))
    ready(account, 1)
    assert account.opens_at(0) == 0
    account.in_flight = 1
    assert account.opens_at(0) == math.inf
    assert not account.has_room()
    account.set_limits(Limits(polls=None))
    assert account.has_room()


def test_an_account_with_nothing_ready_has_no_moment_to_wait_for() -> None:
    """An idle account arms no timer."""
    assert Account("mira", Limits()).opens_at(0) == math.inf


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
