"""Batches, with whoever sells played by the test: what goes in, and in which order and bounds it comes out."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from batch_shop import MOST, FakeShop, Source, batch, refusal, rest, take, turns
from hypothesis import given, settings
from hypothesis import strategies as st

from mirage_async import Budget, ImageRequest, Outcome
from mirage_async.exceptions import (
    AuthenticationError,
    ConnectionFailedError,
    InputError,
    InsufficientCreditsError,
    JobFailedError,
    MirageError,
    ServerError,
    SubmissionUncertainError,
)
from mirage_async.models import Tried

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


pytestmark = pytest.mark.anyio


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


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"prompt": None}, "prompt must be text; got a value of type NoneType"),
        ({"provider": 5}, "provider must be text or None; got a value of type int"),
        ({"providers": 5}, "providers must be a tuple or a list; got a value of type int"),
        ({"providers": iter(["mira"])}, "providers must be a tuple or a list; got a value of type list_iterator"),
        ({"aspect_ratio": 1.5}, "aspect_ratio must be text or None; got a value of type float"),
        ({"size": (512, 512)}, "size must be text or None; got a value of type tuple"),
        ({"model": ["x"]}, "model must be text or None; got a value of type list"),
        (
            {"key": b"0f"},
            "key must be 32 lowercase hexadecimal digits, as uuid.uuid4().hex is, or None; got a value of type bytes",
        ),
        ({"n": "2"}, "n must be a whole number or None; got a value of type str"),
        ({"n": True}, "n must be a whole number or None; got a value of type bool"),
        ({"n": 10**400}, "n must be a number of at most 19 digits; got one of 1329 bits"),
        ({"seed": -(10**5000)}, "seed must be a number of at most 19 digits; got one of 16610 bits"),
        ({"references": 5}, "references must be a tuple or a list; got a value of type int"),
        ({"options": 5}, "options must be a mapping of parameters by name, or None; got a value of type int"),
        ({"max_wait": "9"}, "max_wait must be a number of seconds or None; got a value of type str"),
    ],
)
@pytest.mark.parametrize("split", [False, True])
async def test_a_value_of_a_wrong_type_is_its_items_own_trouble(fields: Any, why: str, *, split: bool) -> None:
    """It is refused before it is reckoned with, and the batch goes on."""
    shop = FakeShop(at_once=True)
    items = ["a", ImageRequest(**{"prompt": "b", "provider": "mira", **fields}), "c"]
    budget = Budget(purchases=9, credits=9.0, price=1.0)
    outcomes = await rest(batch(items, shop, ordered=True, split=split, budget=budget))
    assert [outcome.error is None for outcome in outcomes] == [True, False, True]
    error = outcomes[1].error
    assert isinstance(error, InputError)
    assert (str(error), error.billed) == (why, "no")
    assert [request.prompt for request in shop.bought] == ["a", "c"]


@pytest.mark.parametrize("where", ["max_images", "names"])
async def test_trouble_that_nobody_has_thought_of_is_an_outcome(
    where: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing that happens between pulling an item and buying it can hold up the batch."""
    shop = FakeShop(at_once=True)
    known = getattr(shop, where)

    def asked(request: ImageRequest) -> Any:
        if request.prompt == "b":
            msg = "oops"
            raise ZeroDivisionError(msg)
        return known(request)

    monkeypatch.setattr(shop, where, asked)
    outcomes = await rest(batch(["a", "b", "c"], shop, ordered=True))
    assert [outcome.error is None for outcome in outcomes] == [True, False, True]
    error = outcomes[1].error
    assert type(error) is MirageError
    assert (str(error), error.billed) == ("an unforeseen ZeroDivisionError, as logged; nothing was sent", "no")
    assert "item 1 of a batch could not be bought" in caplog.text
    assert [request.prompt for request in shop.bought] == ["a", "c"]


async def test_whatever_ends_the_pulling_leaves_no_item_without_an_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even what is no error at all."""
    shop = FakeShop(at_once=True)

    def asked(request: ImageRequest) -> Any:
        raise SystemExit(request.prompt)

    monkeypatch.setattr(shop, "names", asked)
    made = batch(["a", "b"], shop, split=False)
    monkeypatch.setattr(shop, "max_images", lambda _: MOST)
    outcome = await take(made)
    assert (str(outcome.error), outcome.billed) == ("the batch has ended before this was bought", "no")
    with pytest.raises(SystemExit, match="a"):
        await take(made)
    assert await rest(made) == []


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


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])
async def test_an_input_that_ends_the_program_does_not_end_like_an_empty_one(
    kind: type[BaseException], *, ordered: bool
) -> None:
    """It is raised to whoever takes the outcomes, after them, as an error is."""

    def items() -> Iterator[str]:
        yield "a"
        raise kind

    made = batch(items(), FakeShop(at_once=True), ordered=ordered)
    assert (await take(made)).index == 0
    with pytest.raises(kind):
        await take(made)
    assert await rest(made) == []


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


async def test_the_key_of_a_split_request_is_claimed_before_its_parts_are_bought() -> None:
    """Each part has a key of its own; a request that needs no parts is bought under the caller's."""
    shop = FakeShop(at_once=True)
    items = [ImageRequest(prompt="a", n=6, key="0f" * 16), ImageRequest(prompt="b", n=2, key="1f" * 16)]
    await rest(batch(items, shop, split=True, ordered=True))
    assert [(request.prompt, request.key, parts) for request, parts in shop.claimed] == [("a", "0f" * 16, 2)]
    assert len({request.key for request in shop.bought}) == 3
    assert [request.key for request in shop.bought if request.prompt == "b"] == ["1f" * 16]


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
