"""The queue of due things, against a brute-force oracle."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirage_async.scheduler import _due
from mirage_async.scheduler._due import DueQueue


class Bench:
    """A queue, and beside it the plain mapping of what is due when, which is the truth."""

    def __init__(self) -> None:
        self.due: dict[str, float] = {}
        self.queue: DueQueue[str] = DueQueue(lambda item, when: self.due.get(item) == when)

    def put(self, item: str, when: float) -> None:
        """Add an item, or move it."""
        self.withdraw(item)
        self.due[item] = when
        self.queue.push(when, item)

    def withdraw(self, item: str) -> None:
        """Take an item out, if it is there."""
        if item in self.due:
            del self.due[item]
            self.queue.withdrawn()

    def pop(self, now: float) -> list[str]:
        """Take out what is due."""
        popped = []
        for item in self.queue.pop_due(now):
            del self.due[item]
            popped.append(item)
        return popped

    def check(self) -> None:
        """Compare the queue with the truth."""
        assert len(self.queue) == len(self.due)
        assert self.queue.next_at() == min(self.due.values(), default=None)
        assert len(self.queue) == len(self.due)


STEPS = st.lists(
    st.tuples(st.sampled_from(["put", "withdraw", "pop"]), st.sampled_from("abcdefgh"), st.integers(0, 40)),
    max_size=120,
)


@given(STEPS, st.sampled_from([0, 3, _due._COMPACT_ABOVE]))
def test_the_queue_agrees_with_a_brute_force_oracle(steps: list[tuple[str, str, int]], compact_above: int) -> None:
    """After any pushes, moves, withdrawals and pops the queue knows what is left, and gives it earliest first."""
    ticks = itertools.count()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_due, "_COMPACT_ABOVE", compact_above)
        bench = Bench()
        for action, item, number in steps:
            if action == "put":
                bench.put(item, number + next(ticks) / 1000)  # a moment of its own, as on a real clock
            elif action == "withdraw":
                bench.withdraw(item)
            else:
                expected = sorted((when, name) for name, when in bench.due.items() if when <= number)
                assert bench.pop(number) == [name for _, name in expected]
            bench.check()


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
    assert bench.queue.next_at() is None
    bench.put("a", 1)
    bench.withdraw("a")
    assert (bench.queue.next_at(), len(bench.queue)) == (None, 0)


@pytest.mark.parametrize("live", [1, 10, 500])
def test_the_queue_stays_within_twice_its_live_size(live: int) -> None:
    """However often items move, stale entries never outnumber the live ones by more than a constant."""
    bench, chance = Bench(), random.Random(1)
    for turn in range(20_000):
        bench.put(str(chance.randrange(live)), 1000 + turn + chance.random())
        assert len(bench.queue._heap) <= 2 * len(bench.due) + _due._COMPACT_ABOVE + 1
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
    assert len(bench.queue._heap) <= 2 * len(bench.due) + _due._COMPACT_ABOVE + 1
    bench.check()
