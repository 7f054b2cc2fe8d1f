"""Batches on real sockets: a thousand of them, trouble in the middle, budgets, and an end at any moment."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from mirage_async import Budget, Generation, ImageRequest, Job, Mirage, Outcome
from mirage_async.exceptions import (
    AuthenticationError,
    BadRequestError,
    BudgetExceededError,
    ClosedError,
    InputError,
    InsufficientCreditsError,
    JobFailedError,
    SubmissionUncertainError,
    WaitTimeoutError,
)
from mirage_async.journal import Journal
from mirage_async.sandbox import Fault, Sandbox
from mirage_async.scheduler import FixedInterval, Scheduler
from mirage_async.testing import sandboxed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from aiohttp import web

pytestmark = pytest.mark.anyio

PROVIDERS = ("mirako", "miragic", "mira", "milady")
LIMIT = 8
ORDERS: list[dict[str, Any]] = [
    {"provider": "mirako", "aspect_ratio": "1:1"},
    {"provider": "miragic", "size": "256x256"},
    {"provider": "mira", "size": "1024x1024"},
    {"provider": "milady", "aspect_ratio": "1:1"},
]


@pytest.fixture
async def pair() -> AsyncIterator[tuple[Mirage, Sandbox]]:
    """Return a hub and the sandbox it is wired to; work there takes next to no time."""
    with anyio.fail_after(60):
        async with sandboxed(durations=0.02) as running:
            yield running


def orders() -> Iterator[ImageRequest]:
    """Order from one provider after the other, for ever."""
    return (ImageRequest(prompt=f"number {number}", **ORDERS[number % 4]) for number in itertools.count())


def owed(mirage: Mirage) -> list[Job[Any]]:
    """Return the jobs of all clients that something may still come of."""
    return [job for name in PROVIDERS for job in mirage.client(name).jobs]


class Observer:
    """Counts, on the server's side, how many jobs are under way at once, with the one that is being bought."""

    def __init__(self, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sandbox = sandbox
        self.most = 0
        self._serve = sandbox._exchange.serve
        monkeypatch.setattr(sandbox._exchange, "serve", self.serve)

    async def serve(self, request: web.Request, route: Any) -> web.StreamResponse:
        """Look, and serve a request."""
        name = "" if route is None or route.operation is None else route.operation.name
        self.most = max(self.most, self.sandbox.statistics().open_jobs + name.endswith(".create"))
        return await self._serve(request, route)


async def test_a_thousand_items_eight_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is bought once and handed over once, in order, and the server never has more than eight under way."""
    async with sandboxed(durations=0.01) as (mirage, sandbox):
        observer = Observer(sandbox, monkeypatch)
        with anyio.fail_after(60):
            indexes = []
            order = ImageRequest(prompt="a postcard", provider="miragic", size="256x256")
            async for outcome in mirage.batch(itertools.repeat(order, 1000), limit=LIMIT, ordered=True):
                assert outcome.error is None
                indexes.append(outcome.index)
        assert indexes == list(range(1000))
        assert sandbox.statistics().purchases == {"miragic": 1000}
        assert 2 <= observer.most <= LIMIT
        assert owed(mirage) == []


async def test_trouble_in_the_middle_is_each_items_own(pair: tuple[Mirage, Sandbox]) -> None:
    """Refused, lost, failed, timed out, garbled: the others never notice."""
    mirage, sandbox = pair
    prompts = {
        "refused [[fault:400]]": BadRequestError,
        "lost [[fault:lost]]": SubmissionUncertainError,
        "failed [[fault:failed]]": JobFailedError,
        "stuck [[fault:stuck]]": WaitTimeoutError,
        " ": InputError,
    }
    items = [
        ImageRequest(prompt=prompt, provider="miragic", max_wait=0.3)
        for prompt in itertools.chain("abcde", prompts, "fghij")
    ]
    tasks = asyncio.all_tasks()
    async with mirage.batch(items, limit=3) as batch:
        outcomes = {outcome.request.prompt: outcome async for outcome in batch}
    assert len(outcomes) == len(items)
    assert all(outcomes[letter].generation is not None for letter in "abcdefghij")
    for prompt, kind in prompts.items():
        assert type(outcomes[prompt].error) is kind
    counts = batch.statistics()
    assert (counts.succeeded, counts.failed, counts.uncertain, counts.in_flight) == (10, 4, 1, 0)
    assert counts.purchases == sum(sandbox.statistics().purchases.values()) == 13
    assert counts.credits == 13  # what the lost, the failed and the stuck one took is reckoned
    stuck = outcomes["stuck [[fault:stuck]]"].error
    assert isinstance(stuck, WaitTimeoutError)
    assert stuck.token is not None
    assert {task for task in asyncio.all_tasks() - tasks if "Engine" in repr(task)} == set()


async def test_mirako_is_bought_from_as_jobs(pair: tuple[Mirage, Sandbox]) -> None:
    """A job can be attached to after a wait that ran out; one long answer cannot."""
    mirage, sandbox = pair
    (outcome,) = [each async for each in mirage.batch(["a fox"], provider="mirako")]
    assert outcome.generation is not None
    assert outcome.generation.job_id is not None
    assert "mirako.generate" not in sandbox.statistics().requests


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_split_buys_what_one_request_cannot(pair: tuple[Mirage, Sandbox], provider: str) -> None:
    """Each provider's own maximum decides; without `split` the request is refused as ever."""
    mirage, sandbox = pair
    most = mirage.client(provider).max_images
    item = ImageRequest(prompt="a fox", provider=provider, n=most + 1)
    (refused,) = [each async for each in mirage.batch([item])]
    assert isinstance(refused.error, InputError)
    outcomes = [each async for each in mirage.batch([item], split=True, ordered=True)]
    assert [(each.part, each.parts) for each in outcomes] == [(1, 2), (2, 2)]
    assert sum(len(each.generation.images) for each in outcomes if each.generation is not None) == most + 1
    assert sandbox.statistics().purchases == {provider: 2}


async def test_a_choice_of_providers_is_split_by_the_least_of_them(pair: tuple[Mirage, Sandbox]) -> None:
    """So that each part can go to any of them."""
    mirage, sandbox = pair
    sandbox.fail("mira.generate", Fault(status=400))
    item = ImageRequest(prompt="a fox", providers=("mira", "miragic"), n=2)
    outcomes = [each async for each in mirage.batch([item], split=True, limit=1)]
    assert [each.generation.provider for each in outcomes if each.generation is not None] == ["miragic", "mira"]


def _origin(generation: Generation | None) -> tuple[str | None, str | None]:
    return (None, None) if generation is None else (generation.provider, generation.job_id)


async def test_a_batch_with_keys_that_is_run_again_buys_nothing_again(tmp_path: Path) -> None:
    """Split requests and requests with a choice included; each gets what was bought for it."""
    items = [
        ImageRequest(prompt="one", provider="miragic", key=f"{1:032x}"),
        ImageRequest(prompt="three", provider="mirako", n=3, key=f"{2:032x}"),
        ImageRequest(prompt="a choice", providers=("mira", "miragic", "mirako"), key=f"{3:032x}"),
        ImageRequest(prompt="a bad key", provider="mira", key="3"),
        ImageRequest(prompt="a bad key that is split", provider="mirako", n=2, key="4"),
    ]
    seen: list[list[tuple[int, int, str | None, str | None]]] = []
    async with Sandbox(durations=0.02) as sandbox:
        sandbox.fail("mira.generate", Fault(status=400))
        sandbox.fail("miragic.create", Fault(status=400))
        for _ in range(3):
            journal = Journal(tmp_path / "journal")
            scheduler = Scheduler(policy=FixedInterval(0.02))
            async with Mirage(base_urls=sandbox.base_urls, journal=journal, scheduler=scheduler) as mirage:
                with anyio.fail_after(20):
                    outcomes = [each async for each in mirage.batch(items, split=True, ordered=True, limit=1)]
            seen.append([(each.index, each.part, *_origin(each.generation)) for each in outcomes])
        purchases = sandbox.statistics().purchases
    assert seen[1][1:] == seen[2][1:]
    assert [line[:3] for line in seen[0]] == [
        (0, 1, None),
        *((1, part, "mirako") for part in (1, 2, 3)),
        (2, 1, "miragic"),
        (3, 1, None),
        (4, 1, None),
    ]
    assert seen[1][0][2] == "miragic"  # which was refused before, and so was free to be bought
    assert seen[0][1:] == seen[1][1:]
    assert len({line[3] for line in seen[2] if line[3] is not None}) == 5
    assert purchases == {"mirako": 3, "miragic": 2}


async def test_a_revoked_key_is_sent_no_more_than_the_limit_often(pair: tuple[Mirage, Sandbox]) -> None:
    """Two hundred items, and at most as many refusals as were in flight."""
    mirage, sandbox = pair
    sandbox.fail("miragic.create", Fault(status=401), times=None)
    outcomes = [each async for each in mirage.batch(["a fox"] * 200, provider="miragic", limit=LIMIT)]
    assert Counter(type(each.error) for each in outcomes) == {AuthenticationError: 200}
    assert sandbox.statistics().requests["miragic.create"] <= LIMIT


async def test_an_empty_account_leaves_the_others_working(pair: tuple[Mirage, Sandbox]) -> None:
    """What is paid for before it runs empty is delivered, and a second choice takes over after it."""
    mirage, sandbox = pair
    sandbox.set_credits("miragic", 3)
    batch = mirage.batch(["a fox"] * 10, providers=["miragic", "mirako"], limit=2)
    outcomes = [each async for each in batch]
    providers = Counter(each.generation.provider for each in outcomes if each.generation is not None)
    assert providers == {"miragic": 3, "mirako": 7}
    told = [type(each.generation.tried[0].error) for each in outcomes if each.generation is not None]
    assert Counter(told) == {type(None): 3, InsufficientCreditsError: 7}
    assert sandbox.statistics().requests["miragic.create"] <= 3 + 2


async def test_a_budget_in_credits_holds_on_the_servers_side(pair: tuple[Mirage, Sandbox]) -> None:
    """Miragic tells what it charges, one credit a picture; the input is endless."""
    mirage, sandbox = pair
    prompts = (f"number {number}" for number in itertools.count())
    outcomes = [each async for each in mirage.batch(prompts, provider="miragic", budget=Budget(credits=7))]
    assert sandbox.statistics().purchases == {"miragic": 7}
    assert [type(each.error) for each in outcomes if each.error is not None] == [BudgetExceededError]
    assert next(prompts) == "number 8"


async def test_a_budget_and_sending_doubtful_purchases_again_exclude_each_other(pair: tuple[Mirage, Sandbox]) -> None:
    """One request could be bought three times, and no bound would hold."""
    mirage, sandbox = pair
    items: list[ImageRequest | str] = [
        ImageRequest(prompt="a", options={"resend_uncertain": True}),
        ImageRequest(prompt="b", options={"resend_uncertain": False}),
        "c",
    ]
    async with Mirage(base_urls=sandbox.base_urls, resend_uncertain=True) as resending:
        with pytest.raises(InputError, match="a budget cannot be kept by a hub that may buy a request more than once"):
            resending.batch(items, provider="miragic", budget=Budget(purchases=2))
    sandbox.fail("miragic.create", *[Fault(reset=True, when="after")] * 2)
    made = mirage.batch(items, provider="miragic", budget=Budget(purchases=2), ordered=True)
    outcomes = [outcome async for outcome in made]
    assert [type(outcome.error) for outcome in outcomes] == [InputError, *[SubmissionUncertainError] * 2]
    assert outcomes[0].billed == "no"
    assert sandbox.statistics().purchases == {"miragic": 2}
    sandbox.fail("miragic.create", Fault(reset=True, when="after"))
    (outcome,) = [outcome async for outcome in mirage.batch(items[:1], provider="miragic")]
    assert outcome.error is None  # without a budget it is the caller's own choice


async def test_a_consumer_that_stops_taking_stops_the_spending(pair: tuple[Mirage, Sandbox]) -> None:
    """An endless input, three outcomes taken, and no more than the limit bought ahead."""
    mirage, sandbox = pair
    async with mirage.batch(orders(), limit=LIMIT) as batch:
        for _ in range(3):
            await anext(batch)
        while batch.statistics().waiting < LIMIT:  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        assert sum(sandbox.statistics().purchases.values()) == 3 + LIMIT
    assert len(owed(mirage)) == LIMIT


async def _settled(mirage: Mirage, sandbox: Sandbox, delivered: list[Outcome]) -> None:
    """Check that everything bought was delivered or is to be had from `jobs`, once everything on the wire is home."""
    while mirage.statistics().paid_posts_in_flight:  # noqa: ASYNC110 - no event tells
        await asyncio.sleep(0.01)
    requests = sandbox.statistics().requests
    await asyncio.sleep(0.05)
    now = sandbox.statistics().requests
    buying = [name for name in now if name.endswith((".create", ".generate"))]
    assert {name: now[name] for name in buying} == {name: requests[name] for name in buying}, "bought on"
    kept = owed(mirage)
    generations = await asyncio.gather(*kept)
    assert all(isinstance(generation, Generation) for generation in generations)
    keys = [each.generation.key for each in delivered if each.generation is not None] + [job.key for job in kept]
    assert len(keys) == len(set(keys)) == sum(sandbox.statistics().purchases.values())
    assert owed(mirage) == []


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("seed", range(6))
async def test_whenever_it_is_cancelled_everything_bought_is_at_hand(
    pair: tuple[Mirage, Sandbox], seed: int, *, ordered: bool
) -> None:
    """The caller is cancelled at some moment: what the server sold was handed over or is in `jobs`, each once."""
    mirage, sandbox = pair
    delivered: list[Outcome] = []
    chance = random.Random(seed)  # the same moments every run, more or less

    async def consume() -> None:
        async for outcome in mirage.batch(orders(), limit=LIMIT, ordered=ordered):
            delivered.append(outcome)
            await asyncio.sleep(chance.choice([0, 0, 0.02]))

    task = asyncio.ensure_future(consume())
    await asyncio.sleep(0.05 + 0.05 * seed + 0.03 * chance.random())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await _settled(mirage, sandbox, delivered)


@pytest.mark.parametrize("how", ["break", "block", "error", "close"])
async def test_however_it_is_left_everything_bought_is_at_hand(pair: tuple[Mirage, Sandbox], how: str) -> None:
    """A loop left bare, one inside `async with`, one left by an error, and `aclose`."""
    mirage, sandbox = pair
    delivered: list[Outcome] = []
    if how == "break":
        async for outcome in mirage.batch(orders(), limit=LIMIT):
            delivered.append(outcome)
            if len(delivered) == 10:
                break
    elif how == "error":
        with pytest.raises(ZeroDivisionError):
            await _divide(mirage, delivered)
    else:
        async with mirage.batch(orders(), limit=LIMIT) as batch:
            async for outcome in batch:
                delivered.append(outcome)
                if len(delivered) == 10:
                    break
            if how == "close":
                await batch.aclose()
    assert len(delivered) == 10
    await _settled(mirage, sandbox, delivered)


async def _divide(mirage: Mirage, delivered: list[Outcome]) -> None:
    async for outcome in mirage.batch(orders(), limit=LIMIT):
        delivered.append(outcome)
        1 / (10 - len(delivered))


async def test_stop_delivers_all_that_was_bought(pair: tuple[Mirage, Sandbox]) -> None:
    """The counterpart of a first Ctrl-C: finish what is in flight."""
    mirage, sandbox = pair
    batch = mirage.batch(orders(), limit=LIMIT)
    delivered = [await anext(batch) for _ in range(10)]
    batch.stop()
    delivered += [outcome async for outcome in batch]
    assert len(delivered) == sum(sandbox.statistics().purchases.values())
    assert owed(mirage) == []
    await _settled(mirage, sandbox, delivered)


async def test_a_hub_that_closes_ends_the_batch() -> None:
    """Those in flight say how to attach to them, and the iteration says why it ended."""
    async with Sandbox(durations=30) as sandbox:
        async with Mirage(base_urls=sandbox.base_urls) as mirage:
            batch = mirage.batch(["a fox"] * 20, provider="miragic", limit=4)
            first = asyncio.ensure_future(anext(batch))
            while sandbox.statistics().open_jobs < 4:  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0.01)
        with anyio.fail_after(30):
            outcomes = [await first, *[await anext(batch) for _ in range(3)]]
            assert all(isinstance(each.error, ClosedError) and each.error.token for each in outcomes)
            with pytest.raises(ClosedError):
                await anext(batch)
        assert sandbox.statistics().purchases == {"miragic": 4}
        with pytest.raises(ClosedError):
            mirage.batch(["a fox"], provider="miragic")


async def test_a_wrong_default_is_refused_at_the_call(pair: tuple[Mirage, Sandbox]) -> None:
    """And not once an item."""
    mirage, _ = pair
    with pytest.raises(InputError, match="provider must be one of 'mirako', 'miragic', 'mira', 'milady'; got 'dali'"):
        mirage.batch(["a fox"], provider="dali")
    (outcome,) = [each async for each in mirage.batch(["a fox"])]
    assert "got None" in str(outcome.error)
