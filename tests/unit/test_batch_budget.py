"""Budgets: what counts, what is reckoned, and when nothing more is bought."""

from __future__ import annotations

import asyncio
import math
import pickle
from typing import Any

import pytest
from batch_shop import FakeShop, Source, batch, refusal, rest, turns

from mirage_async import Budget, Generation, ImageRequest
from mirage_async.exceptions import (
    BudgetExceededError,
    InputError,
    JobFailedError,
    SubmissionUncertainError,
)
from mirage_async.models import Tried

pytestmark = pytest.mark.anyio


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
