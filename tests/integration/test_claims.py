"""A caller's own key that covers several purchases: the same request returns them, another one buys nothing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from mirage_async import Generation, ImageRequest, Limits, Mirage, Reference
from mirage_async._claims import claim_of
from mirage_async.exceptions import (
    AuthenticationError,
    BadRequestError,
    ClosedError,
    InputError,
    JobFailedError,
    JournalError,
    WaitTimeoutError,
)
from mirage_async.journal import Journal
from mirage_async.sandbox import Fault, Sandbox
from mirage_async.scheduler import FixedInterval, Scheduler

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from mirage_async.models import Tried

pytestmark = pytest.mark.anyio

OWN = "0123456789abcdef0123456789abcdef"
BOTH = ("miragic", "mirako")
SPLIT: dict[str, Any] = {"provider": "mira", "n": 5}


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    """Return a sandbox where work takes next to no time."""
    with anyio.fail_after(30):
        async with Sandbox(durations=0.02) as running:
            yield running


def hub(sandbox: Sandbox, folder: Path, **options: Any) -> Mirage:
    """Return a hub with a journal."""
    scheduler = Scheduler(policy=FixedInterval(0.02))
    return Mirage(base_urls=sandbox.base_urls, journal=Journal(folder / "journal"), scheduler=scheduler, **options)


def own(prompt: str = "a fox", **fields: Any) -> ImageRequest:
    """Return a request with the caller's own key."""
    return ImageRequest(prompt=prompt, key=OWN, **fields)


async def buy(mirage: Mirage, request: ImageRequest) -> list[Generation]:
    """Buy with `submit`, or in a batch where it has to be split; raises what goes wrong."""
    if (request.n or 1) == 1:
        return [await (await mirage.submit(request))]
    outcomes = [outcome async for outcome in mirage.batch([request], split=True, ordered=True)]
    for outcome in outcomes:
        if outcome.error is not None:
            raise outcome.error
    return [outcome.generation for outcome in outcomes if outcome.generation is not None]


def told(tried: Sequence[Tried]) -> list[tuple[str, type | None]]:
    """Return who was tried and what came of it."""
    return [(each.provider, None if each.error is None else type(each.error)) for each in tried]


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize(
    ("first", "refused", "second"),
    [
        ({"providers": BOTH}, False, {"provider": "miragic"}),
        ({"providers": BOTH}, False, {"providers": ("miragic",)}),
        ({"providers": BOTH}, False, {"providers": ("mirako", "miragic")}),
        ({"providers": BOTH}, False, {"providers": BOTH, "prompt": "a hare"}),
        ({"providers": BOTH}, False, {"provider": "mira", "prompt": "a hare"}),
        ({"providers": BOTH}, True, {"providers": ("miragic", "mira")}),
        ({"providers": BOTH}, True, {"provider": "miragic"}),
        ({"provider": "miragic"}, False, {"providers": BOTH}),
        ({"providers": ["miragic"]}, False, {"providers": BOTH}),
        (SPLIT, False, {"provider": "mira", "prompt": "a hare"}),
        (SPLIT, False, {"provider": "mira"}),
        (SPLIT, False, {**SPLIT, "n": 6}),
        (SPLIT, False, {**SPLIT, "prompt": "a hare"}),
        (SPLIT, False, {"providers": ("mira", "milady")}),
        ({"provider": "mira"}, False, SPLIT),
        ({"providers": ("mira", "milady")}, False, SPLIT),
    ],
)
async def test_the_same_key_in_other_words_buys_nothing(
    sandbox: Sandbox, tmp_path: Path, first: Any, second: Any, *, refused: bool, restarted: bool
) -> None:
    """It is refused before anything is sent, also by a later process; and the first words still get what was bought."""
    if refused:
        sandbox.fail("miragic.create", Fault(status=422))
    mirage = hub(sandbox, tmp_path)
    bought = await buy(mirage, own(**first))
    if restarted:
        await mirage.aclose()
        mirage = hub(sandbox, tmp_path)
    requests, purchases = dict(sandbox.statistics().requests), dict(sandbox.statistics().purchases)
    with pytest.raises(InputError, match="key must be one of its own for each request") as caught:
        await buy(mirage, own(**second))
    assert caught.value.billed == "no"
    assert sandbox.statistics().requests == requests
    again = await buy(mirage, own(**first))
    assert [each.key for each in again] == [each.key for each in bought]
    assert sandbox.statistics().purchases == purchases
    await mirage.aclose()


@pytest.mark.parametrize("fields", [("provider", "providers"), ("providers", "provider")])
async def test_one_name_in_a_list_is_that_name_alone(sandbox: Sandbox, tmp_path: Path, fields: Sequence[str]) -> None:
    """Whichever comes first, the second gets what the first has bought, and with a list it tells who was tried."""
    words: dict[str, Any] = {"provider": "miragic", "providers": ("miragic",)}
    async with hub(sandbox, tmp_path) as mirage:
        jobs = [await mirage.submit(own(**{field: words[field]})) for field in fields]
        generations = [await job for job in jobs]
    assert jobs[0].key == OWN
    assert len({each.job_id for each in generations}) == 1
    assert sandbox.statistics().purchases == {"miragic": 1}


@pytest.mark.parametrize("second", [{"provider": "mira"}, {"providers": ("mirako", "miragic")}, SPLIT])
async def test_a_key_under_which_everybody_has_refused_is_free(sandbox: Sandbox, tmp_path: Path, second: Any) -> None:
    """Nothing was bought, so the next request with it is the first one; then it stands for that."""
    sandbox.fail("miragic.create", Fault(status=422))
    sandbox.fail("mirako.create", Fault(status=422))
    async with hub(sandbox, tmp_path) as mirage:
        with pytest.raises(BadRequestError):
            await mirage.submit(own(providers=BOTH))
        await buy(mirage, own("a hare", **second))
        with pytest.raises(InputError, match="key must be one of its own"):
            await mirage.submit(own(providers=BOTH))
    assert sum(sandbox.statistics().purchases.values()) == (2 if second is SPLIT else 1)


async def in_the_way(mirage: Mirage, sandbox: Sandbox) -> str:
    """Have another purchase take the one place at Mira, until its job in the sandbox is finished; return that job."""
    sandbox.set_durations(60.0)
    await mirage.submit("a hare", provider="mira")
    while not sandbox.jobs:  # noqa: ASYNC110 - the request is on its way
        await asyncio.sleep(0.01)
    sandbox.set_durations(0.02)
    return next(iter(sandbox.jobs))


async def test_who_asks_again_gets_the_job_that_waits_for_its_place(sandbox: Sandbox, tmp_path: Path) -> None:
    """Nothing is on record of it, and the one who has refused before would take the request by now."""
    request = own(providers=("miragic", "mira"))
    sandbox.fail("miragic.create", Fault(status=402))
    async with hub(sandbox, tmp_path, limits=Limits(jobs=1)) as mirage:
        first = await in_the_way(mirage, sandbox)
        job = await mirage.submit(request)
        assert await mirage.submit(request) is job
        sandbox.finish_job(first)
        assert (await job).provider == "mira"
    assert sandbox.statistics().purchases == {"mira": 2}


async def test_of_two_processes_that_go_different_ways_one_buys(sandbox: Sandbox, tmp_path: Path) -> None:
    """The first of two providers refuses one of them, and takes the other's request before the second one does."""
    request = own(providers=("miragic", "mira"))
    sandbox.fail("miragic.create", Fault(status=402))
    async with hub(sandbox, tmp_path, limits=Limits(jobs=1)) as mirage, hub(sandbox, tmp_path) as other:
        first = await in_the_way(mirage, sandbox)
        waiting = asyncio.ensure_future(buy(mirage, request))
        while not any(job.buying == "place" for job in mirage.mira.jobs):  # noqa: ASYNC110 - it is refused meanwhile
            await asyncio.sleep(0.01)
        (bought,) = await buy(other, request)
        sandbox.finish_job(first)
        with pytest.raises(InputError, match="another process has bought, or is buying") as caught:
            await waiting
        assert caught.value.billed == "no"
        (again,) = await buy(mirage, request)
        assert (again.provider, again.job_id) == ("miragic", bought.job_id)
    assert sandbox.statistics().purchases == {"mira": 1, "miragic": 1}


async def test_a_claim_of_which_nothing_is_known_stands(sandbox: Sandbox, tmp_path: Path) -> None:
    """Its process may have ended just before it bought; so may one whose claims this version cannot read."""
    async with hub(sandbox, tmp_path) as mirage:
        await mirage._sellers.claim(own(**SPLIT), 2)
        for note in (None, "{", '{"of":"tomorrow"}'):
            if note is not None:
                journal = mirage._runtime.journal
                assert journal is not None
                await journal.note(f"claim {OWN}", note)
            with pytest.raises(InputError, match="key must be one of its own"):
                await mirage.submit(own(provider="mira"))
            with pytest.raises(InputError, match="key must be one of its own"):
                await mirage.submit(own(providers=BOTH))
    assert sandbox.requests == []


async def test_nothing_is_bought_where_a_claim_cannot_be_noted(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes before the first purchase."""

    async def full(name: str, value: str, **_: object) -> None:
        raise JournalError(f"the disk is full, {name!r} and {len(value)} characters included")

    async with hub(sandbox, tmp_path) as mirage:
        monkeypatch.setattr(mirage._runtime.journal, "note", full)
        for request in (own(providers=BOTH), own(**SPLIT)):
            with pytest.raises(JournalError, match="the disk is full"):
                await buy(mirage, request)
    assert sandbox.requests == []


@pytest.mark.parametrize("second", [{"providers": ("mira", "milady")}, SPLIT])
async def test_a_purchase_in_the_background_holds_its_key(sandbox: Sandbox, tmp_path: Path, second: Any) -> None:
    """From the moment `submit` returns, whatever is on record by then."""
    async with hub(sandbox, tmp_path) as mirage:
        job = await mirage.submit(own(provider="mira"))
        assert job.status == "submitting"
        with pytest.raises(InputError, match="key must be one of its own"):
            await buy(mirage, own(**second))
        assert (await job).key == OWN
    assert sandbox.statistics().purchases == {"mira": 1}


async def test_a_refused_account_changes_nothing_about_what_a_key_stands_for(sandbox: Sandbox, tmp_path: Path) -> None:
    """It is left out where it has sold nothing yet, and not asked for again what another has sold."""
    seen: list[tuple[str | None, list[tuple[str, type | None]]]] = []
    for refused in ("miragic", None, "mirako"):
        items = [own()] if refused is None else [ImageRequest(prompt="first", provider=refused), own()]
        if refused is not None:
            sandbox.fail(f"{refused}.create", Fault(status=401))
        async with hub(sandbox, tmp_path) as mirage:
            *_, outcome = [each async for each in mirage.batch(items, providers=BOTH, limit=1, ordered=True)]
        assert outcome.generation is not None
        seen.append((outcome.generation.job_id, told(outcome.generation.tried)))
    assert len({id_ for id_, _ in seen}) == 1
    assert [tried for _, tried in seen] == [
        [("miragic", AuthenticationError), ("mirako", None)],
        [("mirako", None)],
        [("mirako", None)],
    ]
    assert sandbox.statistics().purchases == {"mirako": 1}


async def test_a_closed_hub_says_so_whatever_the_key(sandbox: Sandbox, tmp_path: Path) -> None:
    """And not that its journal is closed."""
    mirage = hub(sandbox, tmp_path)
    await buy(mirage, own(provider="miragic"))
    made = mirage.batch([own(provider="miragic")])
    await mirage.aclose()
    (outcome,) = [await anext(made)]
    assert isinstance(outcome.error, ClosedError)


def test_a_claim_is_of_all_that_is_asked_for_and_of_nothing_else() -> None:
    """Not of how it is bought, nor of pictures, which are compared as they are sent."""
    whole: dict[str, Any] = {
        "prompt": "a fox \ud800",
        "aspect_ratio": "1:1",
        "size": "9x9",
        "n": 2,
        "seed": 3,
        "model": "m",
        "references": (b"1",),
        "options": {"quality": "low", "mask": b"1"},
    }
    claim = claim_of(ImageRequest(**whole), BOTH)
    others = {"prompt": "a", "aspect_ratio": "1:2", "size": "8x8", "n": 1, "seed": 4, "model": "x", "references": ()}
    for name, value in {**others, "options": {"quality": "high", "mask": b"1"}}.items():
        assert claim_of(ImageRequest(**{**whole, name: value}), BOTH) != claim
    assert claim_of(ImageRequest(**whole), BOTH[::-1]) != claim
    assert claim_of(ImageRequest(**whole), BOTH, parts=2) != claim
    same = {"references": (Reference(b"2"),), "max_wait": 3, "key": OWN}
    options = {"mask": b"2", "resend_uncertain": True, "quality": "low"}
    assert claim_of(ImageRequest(**{**whole, **same, "options": options}), list(BOTH)) == claim


# --- who was tried, told by a job that was submitted ---


async def test_a_submitted_job_tells_who_was_tried(sandbox: Sandbox, tmp_path: Path) -> None:
    """With its result, and with its error."""
    async with Mirage(base_urls=sandbox.base_urls) as mirage:
        sandbox.fail("miragic.create", *[Fault(status=422)] * 2)
        generation = await (await mirage.submit("a fox", providers=BOTH))
        assert told(generation.tried) == [("miragic", BadRequestError), ("mirako", None)]
        sandbox.fail("mirako.create", Fault(flaw="failed"))
        job = await mirage.submit("a fox", providers=BOTH)
        for _ in range(2):
            with pytest.raises(JobFailedError) as caught:
                await job
            assert told(caught.value.tried) == [("miragic", BadRequestError), ("mirako", JobFailedError)]
        assert told((await (await mirage.submit("a fox", providers=("mira",)))).tried) == [("mira", None)]
        assert (await (await mirage.submit("a fox", provider="mira"))).tried == ()


async def test_a_job_whose_wait_is_over_tells_it_each_time(sandbox: Sandbox, tmp_path: Path) -> None:
    """And once more when it ends after all."""
    async with Mirage(base_urls=sandbox.base_urls) as mirage:
        sandbox.set_progress("manual")
        sandbox.fail("miragic.create", Fault(status=422))
        job = await mirage.submit("a fox", providers=BOTH, max_wait=0.1)
        with pytest.raises(WaitTimeoutError) as caught:
            await job
        assert told(caught.value.tried) == [("miragic", BadRequestError), ("mirako", WaitTimeoutError)]
        assert job.id is not None
        sandbox.finish_job(job.id)
        generation = await job.result(max_wait=20)
        assert told(generation.tried) == [("miragic", BadRequestError), ("mirako", None)]


async def test_who_was_tried_is_told_to_whoever_asks_again_with_the_key(sandbox: Sandbox, tmp_path: Path) -> None:
    """Of a job under way, of a finished one, and in the next process."""
    request = own(providers=BOTH)
    expected = [("miragic", BadRequestError), ("mirako", None)]
    sandbox.fail("miragic.create", Fault(status=422))
    async with hub(sandbox, tmp_path) as mirage:
        jobs = await asyncio.gather(*(mirage.submit(request) for _ in range(3)))
        assert len({id(job) for job in jobs}) == 1
        assert told((await jobs[0]).tried) == expected
        assert told((await (await mirage.submit(request))).tried) == expected
    async with hub(sandbox, tmp_path) as mirage:
        assert told((await (await mirage.submit(request))).tried) == expected
    assert sandbox.statistics().purchases == {"mirako": 1}
