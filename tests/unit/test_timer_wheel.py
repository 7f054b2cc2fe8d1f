"""The wheel of due things, against a brute-force oracle."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirage_async.scheduler import _wheel
from mirage_async.scheduler._wheel import TICK, TimerWheel


class Bench:
    """A wheel, and beside it the plain mapping of what is due in which tick, which is the truth."""

    def __init__(self) -> None:
        self.due: dict[str, int] = {}
        self.wheel: TimerWheel[str] = TimerWheel(self.due.get)

    def put(self, item: str, when: float) -> None:
        """Add an item, or move it."""
        self.withdraw(item)
        self.due[item] = self.wheel.add(when, item)

    def withdraw(self, item: str) -> None:
        """Take an item out, if it is there."""
        if item in self.due:
            del self.due[item]
            self.wheel.withdrawn()

    def pop(self, now: float, *, most: int = 1000) -> list[str]:
        """Take out what is due."""
        popped = []
        for item in self.wheel.pop_due(now, most=most):
            del self.due[item]
            popped.append(item)
        return popped

    @property
    def places(self) -> int:
        """Return how many places in lists are taken."""
        return sum(len(slot.items) for slot in self.wheel._slots.values())

    def check(self) -> None:
        """Compare the wheel with the truth."""
        assert len(self.wheel) == len(self.due)
        ticks = self.due.values()
        assert self.wheel.next_at() == (min(ticks) * TICK if ticks else math.inf)
        assert len(self.wheel) == len(self.due)


STEPS = st.lists(
    st.tuples(st.sampled_from(["put", "withdraw", "pop"]), st.sampled_from("abcdefgh"), st.integers(0, 40)),
    max_size=120,
)


@given(STEPS, st.sampled_from([0, 3, _wheel._COMPACT_ABOVE]))
def test_the_wheel_agrees_with_a_brute_force_oracle(steps: list[tuple[str, str, int]], compact_above: int) -> None:
    """After any additions, moves, withdrawals and pops the wheel knows what is left, and gives it tick by tick."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_wheel, "_COMPACT_ABOVE", compact_above)
        bench = Bench()
        for action, item, number in steps:
            if action == "put":
                bench.put(item, number * TICK / 3)
            elif action == "withdraw":
                bench.withdraw(item)
            else:
                expected = {name: tick for name, tick in bench.due.items() if tick * TICK <= number * TICK / 3}
                popped = bench.pop(number * TICK / 3)
                assert sorted(popped) == sorted(expected)
                assert [expected[name] for name in popped] == sorted(expected.values())
            bench.check()


@given(st.floats(0, 1e7))
def test_nothing_is_taken_out_early_or_more_than_a_tick_late(when: float) -> None:
    """A tick ends at or after the moment it was made for, but for rounding."""
    bench = Bench()
    bench.put("a", when)
    at = bench.wheel.next_at()
    assert when - TICK * 1e-5 <= at <= when + TICK * 1.00001


@given(st.floats(0, 1e6), st.floats(0, 1e4))
def test_slack_lets_an_item_be_late_by_so_much_and_never_early(when: float, slack: float) -> None:
    """Beyond its tick an item is late by its slack at most."""
    bench = Bench()
    wheel = bench.wheel
    bench.due["a"] = wheel.add(when, "a", slack=slack)
    assert when - TICK * 1e-5 <= wheel.next_at() <= when + slack + TICK * 1.00001


@given(STEPS, st.integers(1, 5))
def test_in_slices_the_same_comes_out_in_the_same_order(steps: list[tuple[str, str, int]], most: int) -> None:
    """What is left of a tick stays in it, can be withdrawn, and comes first the next time."""
    whole, sliced = Bench(), Bench()
    for action, item, number in steps:
        when = number * TICK / 3
        if action == "put":
            whole.put(item, when)
            sliced.put(item, when)
        elif action == "withdraw":
            whole.withdraw(item)
            sliced.withdraw(item)
        else:
            expected = whole.pop(when)
            popped: list[str] = []
            while part := sliced.pop(when, most=most):
                assert len(part) == min(most, len(expected) - len(popped))
                popped += part
                sliced.check()
            assert popped == expected
        sliced.check()


def test_items_with_slack_share_ticks() -> None:
    """A thousand moments of ten minutes, spread over a minute, take a hundred ticks instead of a thousand."""
    wheel = Bench().wheel
    chance = random.Random(1)
    ticks = {wheel.add(600 + chance.uniform(0, 60), "a", slack=0.6) for _ in range(1000)}
    assert len(ticks) <= 190


def test_equal_moments_come_out_in_the_order_they_went_in() -> None:
    """Jobs that are due together are asked about first come, first served."""
    bench = Bench()
    for item in "dbca":
        bench.put(item, 5)
    assert bench.pop(4.999) == []
    assert bench.pop(5) == ["d", "b", "c", "a"]
    assert bench.pop(100) == []


def test_an_empty_queue_has_no_next_moment() -> None:
    """Nothing due, nothing next; also after everything was withdrawn."""
    bench = Bench()
    assert bench.wheel.next_at() == math.inf
    bench.put("a", 1)
    bench.withdraw("a")
    assert (bench.wheel.next_at(), len(bench.wheel)) == (math.inf, 0)


@pytest.mark.parametrize("live", [1, 10, 500])
def test_the_queue_stays_within_twice_its_live_size(live: int) -> None:
    """However often items move, stale entries never outnumber the live ones by more than a constant."""
    bench, chance = Bench(), random.Random(1)
    for turn in range(20_000):
        bench.put(str(chance.randrange(live)), 1000 + turn + chance.random())
        assert bench.places <= 2 * len(bench.due) + _wheel._COMPACT_ABOVE + 1
    bench.check()


def test_an_item_moved_back_to_the_same_moment_comes_out_once() -> None:
    """Moving away and back leaves two entries that look alive; the item is given out once."""
    bench = Bench()
    bench.put("a", 5)
    bench.put("a", 7)
    bench.put("a", 5)
    bench.check()
    assert bench.pop(10) == ["a"]
    bench.check()


def test_an_item_moved_within_one_moment_leaves_nothing_behind() -> None:
    """A flood of hints within one tick of the clock (15 ms on Windows) does not grow the queue."""
    bench = Bench()
    for _ in range(1000):
        bench.put("a", 5)
    assert bench.places <= 2 * len(bench.due) + _wheel._COMPACT_ABOVE + 1
    bench.check()
