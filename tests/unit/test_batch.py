"""Batches, with whoever sells played by the test: what is pulled, bought and handed over, and when it ends."""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import pickle
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirage_async import Budget, Generation, ImageRequest, Outcome
from mirage_async.batch import Batch, BatchStatistics
from mirage_async.exceptions import (
    AuthenticationError,
    BudgetExceededError,
    ClosedError,
    ConnectionFailedError,
    InputError,
    InsufficientCreditsError,
    JobFailedError,
    MirageError,
    ServerError,
    SubmissionUncertainError,
    WaitTimeoutError,
)
from mirage_async.models import Tried

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator, Iterator

    from mirage_async.jobs import Job

pytestmark = pytest.mark.anyio

MOST = 4  # pictures in one request


class FakeJob:
    """As much of a job as a batch touches."""

    def __init__(self, provider: str) -> None:
        self.provider = provider
        self.done = False
        self.taken = False
        self.error: MirageError | None = None

    @property
    def ending(self) -> tuple[object, MirageError | None] | None:
        """How it ended, if it did."""
        return (None, self.error) if self.done else None

    def __await__(self) -> Generator[Any, None, None]:
        """Take the result, which must be there."""
        assert self.done
        self.taken = True
        return iter(())  # type: ignore[return-value]  # an iterator is all that await needs


class FakeShop:
    """Sells on the test's word: each purchase waits until `finish` says how it ends, unless it sells at once."""

    def __init__(self, *, at_once: bool = False) -> None:
        self.at_once = at_once
        self.bought: list[ImageRequest] = []
        self.open: dict[str, asyncio.Future[Any]] = {}
        self.jobs: dict[str, FakeJob] = {}
        self.kept: list[FakeJob] = []
        self.now = self.most = 0

    def names(self, request: ImageRequest) -> tuple[str, ...]:
        """Know two providers."""
        names = request.providers or (request.provider,)
        for name in names:
            if name not in {"mira", "miragic"}:
                msg = f"provider must be 'mira' or 'miragic'; got {name!r}"
                raise InputError(msg)
        return cast("tuple[str, ...]", names)

    def max_images(self, request: ImageRequest) -> int:
        """Sell four at a time."""
        self.names(request)
        return MOST

    async def buy(
        self, request: ImageRequest, accepted: Callable[[Job[Generation]], None]
    ) -> tuple[Generation, tuple[Tried, ...]]:
        """Wait for the test to decide."""
        self.bought.append(request)
        name, provider = request.prompt, self.names(request)[0]
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            if not self.at_once:
                job = self.jobs[name] = FakeJob(provider)
                accepted(cast("Job[Generation]", job))
                self.open[name] = asyncio.get_running_loop().create_future()
                ending = await self.open[name]
                job.done = True
                if isinstance(ending, BaseException):
                    job.error = None if isinstance(ending, WaitTimeoutError) else cast("MirageError", ending)
                    raise ending
                if isinstance(ending, Generation):
                    return ending, ()
            return Generation(images=(), provider=provider, key=name), ()
        finally:
            self.now -= 1

    def keep(self, job: Any) -> None:
        """Note what is to be kept."""
        self.kept.append(job)

    async def finish(self, name: str, ending: object = None) -> None:
        """End a purchase well, or with an error, and let everybody go as far as they can."""
        self.open.pop(name).set_result(ending)
        await turns()


async def turns() -> None:
    """Let every task go as far as it can."""
    for _ in range(20):
        await asyncio.sleep(0)


class Source:
    """An endless input that counts how far it was read."""

    def __init__(self, end: float = math.inf) -> None:
        self.pulled = 0
        self.end = end

    def __iter__(self) -> Iterator[str]:
        """Give "0", "1", and so on."""
        while self.pulled < self.end:
            self.pulled += 1
            yield str(self.pulled - 1)


def batch(requests: Any, shop: FakeShop, **options: Any) -> Batch:
    """Return a batch that buys from Mira."""
    return Batch(requests, shop, **{"provider": "mira", **options})


async def take(of: Batch) -> Outcome:
    """Take an outcome that must come soon."""
    with anyio.fail_after(5):
        return await anext(of)


async def rest(of: Batch) -> list[Outcome]:
    """Take all outcomes that are left."""
    with anyio.fail_after(5):
        return [outcome async for outcome in of]


def refusal(kind: Any = ConnectionFailedError, **more: Any) -> MirageError:
    """Return an error that proves nothing was paid."""
    error: MirageError = kind("no", provider="mira", **more)
    return error


# --- what goes in ---


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"limit": 0}, "limit must be a whole number of at least 1; got 0"),
        ({"limit": True}, "limit must be a whole number of at least 1; got True"),
        ({"limit": 2.0}, "limit must be a whole number of at least 1; got 2.0"),
        ({"budget": 100}, r"budget must be a Budget\(...\), such as Budget\(purchases=100\), or None; got 100"),
        ({"ordered": 1}, "ordered must be True or False; got 1"),
        ({"split": "yes"}, "split must be True or False; got 'yes'"),
    ],
)
async def test_a_wrong_option_is_refused_at_the_call(options: dict[str, Any], why: str) -> None:
    """Before anything is pulled or bought."""
    source, shop = Source(), FakeShop()
    with pytest.raises(InputError, match=why):
        batch(source, shop, **options)
    assert (source.pulled, shop.bought) == (0, [])


@pytest.mark.parametrize(
    "requests",
    ["a fox", b"a fox", ImageRequest(prompt="a fox"), {"a": 1}, 5, None],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_sequence_of_requests_is_refused_at_the_call(requests: object) -> None:
    """A lone prompt would otherwise be bought letter by letter."""
    with pytest.raises(InputError, match="requests must be an iterable of ImageRequest or prompts; got a single"):
        batch(requests, FakeShop())


async def test_nothing_begins_before_the_first_outcome_is_asked_for() -> None:
    """A batch that is made and dropped, or only entered, has pulled nothing."""
    source, shop = Source(), FakeShop()
    async with batch(source, shop) as made:
        await turns()
        assert repr(made) == "<Batch 0 pulled, 0 succeeded, 0 in flight>"
    assert (source.pulled, shop.bought) == (0, [])
    assert await rest(made) == []


async def test_prompts_requests_and_bad_items_each_have_their_outcome() -> None:
    """A prompt is bought from the batch's provider, a request from its own; what is neither harms nobody."""
    items = ["a", ImageRequest(prompt="b", provider="miragic"), 5, ImageRequest(prompt="c", provider="dali"), "d"]
    outcomes = await rest(batch(items, FakeShop(at_once=True), ordered=True))
    assert [outcome.index for outcome in outcomes] == [0, 1, 2, 3, 4]
    assert [outcome.request.provider for outcome in outcomes] == ["mira", "miragic", None, "dali", "mira"]
    assert [outcome.generation is not None for outcome in outcomes] == [True, True, False, False, True]
    assert [outcome.billed for outcome in outcomes] == ["yes", "yes", "no", "no", "yes"]
    assert "an item of a batch must be an ImageRequest or a prompt; got one of type int" in str(outcomes[2].error)
    assert "provider must be 'mira' or 'miragic'; got 'dali'" in str(outcomes[3].error)


async def test_a_default_of_several_providers_is_taken_by_items_that_name_none() -> None:
    """The items keep what they say themselves."""
    shop = FakeShop(at_once=True)
    items = ["a", ImageRequest(prompt="b", provider="mira"), ImageRequest(prompt="c", providers=("mira",))]
    await rest(batch(items, shop, provider=None, providers=("miragic", "mira")))
    assert [(each.provider, each.providers) for each in shop.bought] == [
        (None, ("miragic", "mira")),
        ("mira", ()),
        (None, ("mira",)),
    ]


async def test_an_asynchronous_input_is_pulled_the_same_way() -> None:
    """Here a generator that waits between its items."""

    async def items() -> AsyncIterator[str]:
        for number in range(5):
            await asyncio.sleep(0)
            yield str(number)

    outcomes = await rest(batch(items(), FakeShop(at_once=True)))
    assert sorted(outcome.index for outcome in outcomes) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("ordered", [False, True])
async def test_an_error_of_the_input_comes_after_the_outcomes(*, ordered: bool) -> None:
    """What was pulled before is bought and handed over; then the error is raised, once."""

    def items() -> Iterator[str]:
        yield from ("a", "b")
        msg = "the file is torn"
        raise OSError(msg)

    made = batch(items(), FakeShop(at_once=True), ordered=ordered)
    assert [(await take(made)).index, (await take(made)).index] == [0, 1]
    with pytest.raises(OSError, match="the file is torn"):
        await take(made)
    assert await rest(made) == []


# --- order and bounds ---


async def test_outcomes_come_as_they_finish() -> None:
    """The quick ones do not wait for the slow ones."""
    shop = FakeShop()
    made = batch(["a", "b", "c"], shop)
    first = asyncio.ensure_future(anext(made))
    await turns()
    await shop.finish("c")
    assert (await first).request.prompt == "c"
    await shop.finish("b", refusal())
    await shop.finish("a")
    outcomes = await rest(made)
    assert [outcome.request.prompt for outcome in outcomes] == ["b", "a"]
    assert isinstance(outcomes[0].error, ConnectionFailedError)
    assert all(job.taken for job in shop.jobs.values())


async def test_in_order_outcomes_wait_for_the_ones_before() -> None:
    """And then come at once."""
    shop = FakeShop()
    made = batch(["a", "b", "c"], shop, ordered=True)
    first = asyncio.ensure_future(anext(made))
    await turns()
    await shop.finish("c")
    await shop.finish("b")
    assert not first.done()
    assert not shop.jobs["c"].taken
    await shop.finish("a")
    assert [(await first).index, *(outcome.index for outcome in await rest(made))] == [0, 1, 2]


@pytest.mark.parametrize("ordered", [False, True])
async def test_who_stops_taking_stops_the_pulling_and_the_buying(*, ordered: bool) -> None:
    """Never more than `limit` items are pulled ahead of what was taken, however fast they finish."""
    source, shop = Source(), FakeShop(at_once=True)
    async with batch(source, shop, limit=3, ordered=ordered) as made:
        for taken in range(1, 6):
            await take(made)
            await turns()
            assert source.pulled == len(shop.bought) == taken + 3
            assert made.statistics().waiting == 3


async def test_in_order_a_slow_item_lets_no_more_than_the_limit_pile_up() -> None:
    """The finished ones behind it keep their places."""
    source, shop = Source(), FakeShop()
    async with batch(source, shop, limit=4, ordered=True) as made:
        waiting = asyncio.ensure_future(anext(made))
        await turns()
        for name in ("1", "2", "3"):
            await shop.finish(name)
        assert (source.pulled, made.statistics().waiting, made.statistics().in_flight) == (4, 3, 1)
        await shop.finish("0")
        assert (await waiting).index == 0


SCRIPT = st.lists(
    st.tuples(st.sampled_from(["well", "refused", "uncertain", "failed", "no request"]), st.integers(0, 3))
)


@given(script=SCRIPT, limit=st.integers(1, 5), ordered=st.booleans(), pauses=st.lists(st.integers(0, 3)))
@settings(max_examples=150, deadline=None)
def test_every_item_has_one_outcome_within_the_bounds(
    *, script: list[tuple[str, int]], limit: int, ordered: bool, pauses: list[int]
) -> None:
    """For any endings in any order: exactly one outcome an item, and never more in flight or pulled than allowed."""
    asyncio.run(_run_script(script, limit, pauses, ordered=ordered))


async def _run_script(script: list[tuple[str, int]], limit: int, pauses: list[int], *, ordered: bool) -> None:
    shop, pulled, taken = FakeShop(), 0, 0

    def items() -> Iterator[object]:
        nonlocal pulled
        for number, (ending, _) in enumerate(script):
            pulled += 1
            assert pulled <= taken + limit
            yield 7 if ending == "no request" else str(number)

    async def end_them() -> None:
        endings = {"well": None, "refused": refusal(), "failed": JobFailedError("no")}
        while True:
            for name in sorted(shop.open, key=lambda name: script[int(name)][1]):
                ending = script[int(name)][0]
                uncertain = SubmissionUncertainError("who knows")
                shop.open.pop(name).set_result(endings.get(ending, uncertain))
                await asyncio.sleep(0)
            await asyncio.sleep(0)

    ender = asyncio.ensure_future(end_them())
    outcomes: list[Outcome] = []
    async with asyncio.timeout(20), batch(items(), shop, limit=limit, ordered=ordered) as made:
        async for outcome in made:
            taken += 1
            outcomes.append(outcome)
            for _ in range(pauses[taken % len(pauses)] if pauses else 0):
                await asyncio.sleep(0)
    ender.cancel()
    indexes = [outcome.index for outcome in outcomes]
    assert indexes == list(range(len(script))) if ordered else sorted(indexes) == list(range(len(script)))
    assert shop.most <= limit
    for outcome in outcomes:
        assert (outcome.generation is None) is not (outcome.error is None)
        assert (outcome.error is None) is (script[outcome.index][0] == "well")
    counts, endings = made.statistics(), [ending for ending, _ in script]
    assert (counts.pulled, counts.in_flight, counts.waiting) == (len(script), 0, 0)
    assert counts.succeeded == endings.count("well")
    assert counts.uncertain == endings.count("uncertain")
    assert counts.failed == len(script) - counts.succeeded - counts.uncertain
    assert counts.purchases == counts.pictures == len(script) - endings.count("refused") - endings.count("no request")


async def test_several_tasks_may_take_and_each_outcome_goes_to_one() -> None:
    """And every one of them sees the end."""
    made = batch(Source(50), FakeShop(at_once=True), limit=4)
    taken = await asyncio.gather(*(rest(made) for _ in range(3)))
    assert sorted(outcome.index for each in taken for outcome in each) == list(range(50))


# --- split ---


async def test_a_large_n_is_split_where_that_is_asked_for() -> None:
    """Each part is a purchase with an outcome of its own, which says which one it is."""
    shop = FakeShop(at_once=True)
    items = [ImageRequest(prompt="a", n=10), ImageRequest(prompt="b", n=4), ImageRequest(prompt="c", n=8), "d"]
    outcomes = await rest(batch(items, shop, split=True, ordered=True, limit=2))
    assert [(each.index, each.part, each.parts, each.request.n) for each in outcomes] == [
        *((0, 1, 3, 4), (0, 2, 3, 4), (0, 3, 3, 2)),
        (1, 1, 1, 4),
        *((2, 1, 2, 4), (2, 2, 2, 4)),
        (3, 1, 1, None),
    ]
    assert shop.most <= 2


async def test_without_split_a_large_n_is_left_to_the_provider_to_refuse() -> None:
    """Nothing is split in silence."""
    shop = FakeShop(at_once=True)
    await rest(batch([ImageRequest(prompt="a", n=10)], shop))
    assert [each.n for each in shop.bought] == [10]


async def test_an_absurd_n_is_split_as_it_is_bought() -> None:
    """The parts are made one by one, so the bounds hold for them as well."""
    shop = FakeShop(at_once=True)
    async with batch([ImageRequest(prompt="a", n=10**15)], shop, split=True, limit=3) as made:
        assert (await take(made)).parts == 10**15 // MOST
        await turns()
        assert len(shop.bought) == 4


async def test_a_request_with_a_seed_is_not_split() -> None:
    """Its parts would be the same picture, bought again and again."""
    (outcome,) = await rest(batch([ImageRequest(prompt="a", n=10, seed=1)], FakeShop(), split=True))
    assert isinstance(outcome.error, InputError)
    assert "seed must be left out of a request that is split" in str(outcome.error)


# --- accounts ---


@pytest.mark.parametrize("kind", [AuthenticationError, InsufficientCreditsError])
async def test_an_account_that_is_refused_is_not_asked_again(kind: type[MirageError]) -> None:
    """Later items for it get the same answer with nothing sent; other providers go on."""
    shop = FakeShop()
    other = ImageRequest(prompt="other", provider="miragic")
    made = batch(["a", "b", other, "c"], shop, limit=1, ordered=True)
    first = asyncio.ensure_future(anext(made))
    await turns()
    await shop.finish("a", refusal(kind, status=401))
    assert isinstance((await first).error, kind)
    second, third = await take(made), asyncio.ensure_future(anext(made))
    assert isinstance(second.error, kind)
    await turns()
    await shop.finish("other")
    assert (await third).generation is not None
    assert isinstance((await take(made)).error, kind)
    assert [each.prompt for each in shop.bought] == ["a", "other"]


async def test_a_request_with_a_choice_leaves_out_a_refused_account() -> None:
    """It goes to the others, and its result says why."""
    shop = FakeShop()
    made = batch(["a", "b", "c"], shop, limit=1, provider=None, providers=("mira", "miragic"))
    first = asyncio.ensure_future(anext(made))
    await turns()
    error = refusal(AuthenticationError, status=401)
    failed = ServerError("500", status=500, provider="miragic", billed="unknown")
    failed.tried = (
        Tried(provider="mira", error=error),
        Tried(provider="miragic", error=ServerError("500", status=500)),
    )
    await shop.finish("a", failed)
    assert (await first).error is failed
    second = asyncio.ensure_future(anext(made))
    await turns()
    assert [each.providers for each in shop.bought] == [("mira", "miragic"), ("miragic",)]
    await shop.finish("b")
    generation = (await second).generation
    assert generation is not None
    assert [(each.provider, type(each.error)) for each in generation.tried] == [("mira", AuthenticationError)]
    third = asyncio.ensure_future(anext(made))
    await turns()
    await shop.finish("c", ConnectionFailedError("no", provider="miragic"))
    final = (await third).error
    assert final is not None
    assert [each.provider for each in final.tried] == ["mira"]
    assert await rest(made) == []


# --- budgets ---


@pytest.mark.parametrize(
    ("bounds", "why"),
    [
        ({}, "Budget must have one of purchases, pictures and credits; got none of them"),
        ({"price": 1.0}, "Budget must have one of purchases, pictures and credits"),
        ({"purchases": -1}, "Budget.purchases must be a whole number of at least 0, or None for no bound; got -1"),
        ({"pictures": True}, "Budget.pictures must be a whole number"),
        ({"credits": math.nan}, "Budget.credits must be a number of at least 0, or None for no bound; got nan"),
        ({"credits": 1, "price": -1}, "Budget.price must be a number of at least 0, a mapping to such, or None"),
        ({"credits": 1, "price": {"mira": "1"}}, "Budget.price must be a number"),
    ],
)
def test_a_budget_says_what_is_wrong_with_it(bounds: dict[str, Any], why: str) -> None:
    """Arguments are checked at the door."""
    with pytest.raises(InputError, match=why):
        Budget(**bounds)


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("bound", [{"purchases": 5}, {"pictures": 5}])
async def test_a_budget_ends_an_endless_batch(*, bound: dict[str, int], ordered: bool) -> None:
    """The first item it does not allow says so, nothing is pulled after it, and the iteration ends."""
    source, shop = Source(), FakeShop(at_once=True)
    made = batch(source, shop, limit=3, budget=Budget(**bound), ordered=ordered)
    outcomes = sorted(await rest(made), key=lambda outcome: outcome.index)
    assert (len(shop.bought), source.pulled) == (5, 6)
    assert [outcome.error is None for outcome in outcomes] == [True] * 5 + [False]
    error = outcomes[-1].error
    assert isinstance(error, BudgetExceededError)
    assert error.billed == "no"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)  # noqa: S301 - our own
    assert made.statistics().stopped


async def test_a_budget_of_nothing_buys_nothing() -> None:
    """Zero is a bound like any other."""
    for budget in (Budget(purchases=0), Budget(pictures=0), Budget(credits=0), Budget(credits=0, price=0)):
        shop = FakeShop(at_once=True)
        (outcome,) = await rest(batch(["a", "b"], shop, budget=budget))
        assert isinstance(outcome.error, BudgetExceededError)
        assert shop.bought == []


async def test_a_purchase_proven_unpaid_gives_its_share_back() -> None:
    """So the last share is not refused before it is known how those in flight end; an uncertain one keeps it."""
    shop = FakeShop()
    made = batch(Source(), shop, limit=4, budget=Budget(purchases=2))
    first = asyncio.ensure_future(anext(made))
    await turns()
    assert sorted(shop.open) == ["0", "1"]
    await shop.finish("0", refusal())
    assert sorted(shop.open) == ["1", "2"]
    assert (await first).billed == "no"
    await shop.finish("1", SubmissionUncertainError("who knows", provider="mira"))
    assert sorted(shop.open) == ["2"]
    await shop.finish("2")
    outcomes = await rest(made)
    assert [type(outcome.error) for outcome in outcomes] == [SubmissionUncertainError, type(None), BudgetExceededError]
    counts = made.statistics()
    assert (counts.purchases, counts.uncertain, counts.succeeded, counts.failed) == (2, 1, 1, 2)


async def test_a_share_that_is_given_back_is_used_before_anybody_takes_the_outcome() -> None:
    """As behind a slow item, in order."""
    shop = FakeShop()
    async with batch(Source(), shop, limit=4, budget=Budget(purchases=2), ordered=True) as made:
        waiting = asyncio.ensure_future(anext(made))
        await turns()
        await shop.finish("1", refusal())
        assert sorted(shop.open) == ["0", "2"]
        await shop.finish("0")
        assert (await waiting).index == 0


def paid(credits_told: float | None, provider: str = "mira") -> Generation:
    """Return what a purchase brought, with what it cost."""
    return Generation(images=(), provider=provider, credits=credits_told)


async def test_credits_are_reckoned_by_the_price_the_first_purchase_tells() -> None:
    """The first is made alone; then as many at once as the price seen so far allows."""
    shop = FakeShop()
    made = batch(Source(), shop, limit=8, budget=Budget(credits=10))
    takers = asyncio.ensure_future(rest(made))
    await turns()
    assert sorted(shop.open) == ["0"]
    await shop.finish("0", paid(2.5))
    assert sorted(shop.open) == ["1", "2", "3"]
    for name in ("1", "2", "3"):
        await shop.finish(name, paid(2.5))
    outcomes = await takers
    assert "2.5 more would exceed 10 credits, and 10 are spent" in str(outcomes[-1].error)
    assert made.statistics().credits == 10


async def test_a_dearer_picture_raises_what_the_next_one_is_reckoned_at() -> None:
    """A cheaper one does not lower it: the bound holds for the dearest seen."""
    shop = FakeShop()
    made = batch(Source(), shop, limit=2, budget=Budget(credits=10, price={"mira": 1}))
    takers = asyncio.ensure_future(rest(made))
    await turns()
    await shop.finish("0", paid(4))
    await shop.finish("1", paid(1))
    assert sorted(shop.open) == ["2"]  # 5 are spent, and another two could take 8
    await shop.finish("2", paid(0.5))
    await shop.finish("3", paid(1))
    outcomes = await takers
    assert "4 more would exceed 10 credits, and 6.5 are spent" in str(outcomes[-1].error)


async def test_a_provider_that_does_not_tell_its_price_needs_one_said() -> None:
    """With none, the budget cannot be kept after the first purchase, and says what to do."""
    shop = FakeShop(at_once=True)
    outcomes = await rest(batch(Source(), shop, budget=Budget(credits=100)))
    assert len(shop.bought) == 1
    assert "mira does not say what it takes, so credits cannot be reckoned: give Budget(price=...)" in str(
        outcomes[-1].error
    )
    model = [ImageRequest(prompt="a", model="flux"), ImageRequest(prompt="b", model="flux")]
    assert "mira (flux) does not say" in str((await rest(batch(model, shop, budget=Budget(credits=9))))[-1].error)

    shop = FakeShop(at_once=True)
    items = [ImageRequest(prompt="a", n=4)] * 5
    made = batch(items, shop, budget=Budget(credits=1.2, price=0.1))
    outcomes = await rest(made)
    assert [outcome.error is None for outcome in outcomes].count(True) == 3
    assert made.statistics().credits == pytest.approx(1.2)


async def test_failures_that_tell_no_price_are_tried_three_times_alone() -> None:
    """Each may have cost something unknown, so the bound counts them."""
    shop = FakeShop()
    made = batch(Source(), shop, budget=Budget(credits=10))
    takers = asyncio.ensure_future(rest(made))
    for name in ("0", "1", "2"):
        await turns()
        assert list(shop.open) == [name]
        await shop.finish(name, SubmissionUncertainError("who knows", provider="mira"))
    outcomes = await takers
    assert [type(outcome.error) for outcome in outcomes] == [SubmissionUncertainError] * 3 + [BudgetExceededError]


async def test_a_second_choice_whose_price_is_unknown_holds_nobody_up() -> None:
    """It may never be asked; once it was, and did not say what it took, the budget cannot be kept."""
    shop = FakeShop()
    options = {"provider": None, "providers": ("miragic", "mira"), "limit": 2}
    made = batch(Source(), shop, budget=Budget(credits=10), **options)
    takers = asyncio.ensure_future(rest(made))
    await turns()
    assert sorted(shop.open) == ["0"]
    await shop.finish("0", paid(1, "miragic"))
    assert sorted(shop.open) == ["1", "2"]
    await shop.finish("1", paid(None, "mira"))
    await shop.finish("2", paid(1, "miragic"))
    assert any("mira does not say what it takes" in str(each.error) for each in await takers)


async def test_a_job_that_failed_over_counts_as_well() -> None:
    """It may have been charged, and so was the next one."""
    shop = FakeShop()
    made = batch(["a"], shop, budget=Budget(purchases=5))
    first = asyncio.ensure_future(anext(made))
    await turns()
    error = JobFailedError("twice", provider="miragic")
    error.tried = (
        Tried(provider="mira", error=JobFailedError("once", provider="mira")),
        Tried(provider="miragic", error=JobFailedError("twice", provider="miragic")),
    )
    await shop.finish("a", error)
    assert (await first).error is error
    assert made.statistics().purchases == 2


# --- the end ---


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
    assert (str(error), error.billed) == ("an unforeseen ZeroDivisionError: oops", "unknown")
    assert "item 0 of a batch failed in an unforeseen way" in caplog.text
    assert (await take(made)).generation is not None


async def test_an_uncertain_outcome_nobody_takes_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """There is no job to keep, so this line is the only trace; an error that cost nothing leaves none."""

    class Blocking(FakeShop):
        async def buy(self, request: ImageRequest, accepted: Any) -> Any:  # noqa: ARG002 - there is no job
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
        await asyncio.wait_for(asyncio.shield(asyncio.ensure_future(_begin(held[0]))), 5)
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
