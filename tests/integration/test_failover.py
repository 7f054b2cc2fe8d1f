"""Several providers for one request, on real sockets: who is asked, when it ends, and what the result tells."""

from __future__ import annotations

import asyncio
import pickle
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from mirage_async import ImageRequest, Limits, Mirage
from mirage_async._failover import may_go_on
from mirage_async.exceptions import (
    APIError,
    BadRequestError,
    ClosedError,
    ConfigurationError,
    ConnectionFailedError,
    DownloadError,
    InputError,
    InsufficientCreditsError,
    JobCancelledError,
    JobExpiredError,
    JobFailedError,
    JournalError,
    MirageError,
    ResponseError,
    ServerError,
    SubmissionUncertainError,
    WaitTimeoutError,
)
from mirage_async.journal import Journal
from mirage_async.sandbox import Fault, Sandbox
from mirage_async.testing import sandboxed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from mirage_async.models import Tried

pytestmark = pytest.mark.anyio

BOTH = ("miragic", "mirako")


@pytest.fixture
async def pair() -> AsyncIterator[tuple[Mirage, Sandbox]]:
    """Return a hub and the sandbox it is wired to; work there takes next to no time."""
    with anyio.fail_after(30):
        async with sandboxed(durations=0.02) as running:
            yield running


def told(tried: Sequence[Tried]) -> list[tuple[str, type | None]]:
    """Return who was tried and what came of it."""
    return [(each.provider, None if each.error is None else type(each.error)) for each in tried]


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (APIError("no", status=402), True),
        (ConnectionFailedError("no"), True),
        (ConfigurationError("moved"), True),
        (JobFailedError("no"), True),
        (JobCancelledError("no"), True),
        (JobExpiredError("no"), True),
        (ServerError("500", status=500, billed="unknown"), False),
        (ConnectionFailedError("after an uncertain attempt", billed="unknown"), False),
        (SubmissionUncertainError("?"), False),
        (WaitTimeoutError("later"), False),
        (WaitTimeoutError("no place", billed="no"), False),
        (ResponseError("?"), False),
        (DownloadError("?"), False),
        (InputError("no"), False),
        (ClosedError("closed"), False),
        (JournalError("full"), False),
    ],
    ids=lambda value: f"{type(value).__name__} {value}" if isinstance(value, MirageError) else "",
)
def test_the_next_provider_is_asked_only_where_nothing_can_come_of_the_last(
    error: MirageError, *, answer: bool
) -> None:
    """Proven unpaid, or a bad end; never after what may have been bought or may still come."""
    assert may_go_on(error) is answer


async def test_the_first_choice_is_taken_where_it_sells(pair: tuple[Mirage, Sandbox]) -> None:
    """The others hear nothing."""
    mirage, sandbox = pair
    generation = await mirage.generate("a fox", providers=["miragic", "mira"])
    assert (generation.provider, told(generation.tried)) == ("miragic", [("miragic", None)])
    assert sandbox.statistics().purchases == {"miragic": 1}
    assert (await mirage.generate("a fox", provider="mira")).tried == ()


async def test_a_refusal_leads_to_the_next_provider(pair: tuple[Mirage, Sandbox]) -> None:
    """The result names who drew, and everybody who was tried with the reason."""
    mirage, sandbox = pair
    sandbox.fail("miragic.create", Fault(status=402))
    sandbox.fail("mira.generate", Fault(status=400))
    generation = await mirage.generate("a fox", providers=["miragic", "mira", "milady"])
    assert generation.provider == "milady"
    assert told(generation.tried) == [
        ("miragic", InsufficientCreditsError),
        ("mira", BadRequestError),
        ("milady", None),
    ]
    assert sandbox.statistics().purchases == {"milady": 1}


async def test_a_failed_job_leads_to_the_next_provider(pair: tuple[Mirage, Sandbox]) -> None:
    """For whoever waits for the pictures; with `submit` it is the job's own affair."""
    mirage, sandbox = pair
    sandbox.fail("miragic.create", Fault(flaw="failed"), Fault(flaw="failed"))
    generation = await mirage.generate("a fox", providers=BOTH)
    assert told(generation.tried) == [("miragic", JobFailedError), ("mirako", None)]
    job = await mirage.submit("a fox", providers=BOTH)
    with pytest.raises(JobFailedError):
        await job
    assert sandbox.statistics().requests["mirako.generate"] == 1


async def test_submit_goes_on_where_a_provider_does_not_accept(pair: tuple[Mirage, Sandbox]) -> None:
    """The job is the one of the provider that did."""
    mirage, sandbox = pair
    sandbox.fail("miragic.create", Fault(status=400))
    job = await mirage.submit(ImageRequest(prompt="a fox", providers=BOTH))
    assert job.provider == "mirako"
    assert (await job).provider == "mirako"


@pytest.mark.parametrize("call", ["generate", "submit", "batch"])
async def test_an_uncertain_purchase_ends_the_search(pair: tuple[Mirage, Sandbox], call: str) -> None:
    """The second provider is not asked, since the first may have been paid; the error can be sent elsewhere."""
    mirage, sandbox = pair
    sandbox.fail("miragic.create", Fault(reset=True, when="after"))
    if call == "batch":
        (outcome,) = [each async for each in mirage.batch(["a fox"], providers=BOTH)]
        error: MirageError | None = outcome.error
    else:
        with pytest.raises(SubmissionUncertainError) as caught:
            await getattr(mirage, call)("a fox", providers=BOTH)
        error = caught.value
    assert isinstance(error, SubmissionUncertainError)
    for each in (error, pickle.loads(pickle.dumps(error))):  # noqa: S301 - our own
        assert told(each.tried) == [("miragic", SubmissionUncertainError)]
    assert sandbox.statistics().purchases == {"miragic": 1}
    assert "mirako.generate" not in sandbox.statistics().requests
    assert "mirako.create" not in sandbox.statistics().requests


async def test_a_wait_that_ran_out_ends_the_search(pair: tuple[Mirage, Sandbox]) -> None:
    """The first job lives on and can be attached to."""
    mirage, sandbox = pair
    sandbox.set_progress("manual")
    with pytest.raises(WaitTimeoutError) as caught:
        await mirage.generate("a fox", providers=BOTH, max_wait=0.1)
    assert told(caught.value.tried) == [("miragic", WaitTimeoutError)]
    assert caught.value.token is not None
    assert sandbox.statistics().purchases == {"miragic": 1}


async def test_the_last_error_tells_of_all_that_were_tried(pair: tuple[Mirage, Sandbox]) -> None:
    """In order, each with its own reason."""
    mirage, sandbox = pair
    sandbox.fail("miragic.create", Fault(status=402))
    sandbox.fail("mirako.generate", Fault(status=400))
    with pytest.raises(BadRequestError) as caught:
        await mirage.generate("a fox", providers=BOTH)
    error = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - our own
    assert told(error.tried) == [("miragic", InsufficientCreditsError), ("mirako", BadRequestError)]
    assert not isinstance(caught.value.__context__, InsufficientCreditsError)


@pytest.mark.parametrize(
    ("providers", "fields", "refused_by", "why"),
    [
        (["mirako", "miragic"], {"seed": 5}, "miragic", "miragic has no seed"),
        (["miragic", "mira"], {"max_wait": 60}, "mira", "mira has no max_wait"),
        (["mira", "mirako"], {"n": 2}, "mirako", "n must be None or 1 at mirako; got 2"),
        (["mira", "milady"], {"options": {"quality": "high"}}, "milady", "options must be among"),
        (["milady", "miragic"], {"model": "m"}, "miragic", "model must be one of"),
        (["mirako", "milady"], {"aspect_ratio": "2:3"}, "milady", "aspect_ratio must be one of"),
        (["miragic", "mirako"], {"references": ["data:,"]}, "mirako", "images"),
    ],
)
async def test_all_must_be_able_to_honour_the_request_before_anything_is_bought(
    pair: tuple[Mirage, Sandbox], providers: list[str], fields: dict[str, Any], refused_by: str, why: str
) -> None:
    """What the second one would refuse is refused at once."""
    mirage, sandbox = pair
    for ask in (mirage.generate, mirage.submit):
        with pytest.raises(InputError, match=why) as caught:
            await ask("a fox", providers=providers, **fields)
        assert caught.value.provider == refused_by
    assert sandbox.requests == []


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"providers": []}, r"providers must be a sequence of names, at least one; got \[\]"),
        ({"providers": "mira"}, "providers must be a sequence of names, at least one; got 'mira'"),
        ({"providers": 5}, "providers must be a sequence of names, at least one; got 5"),
        ({"providers": ["mira", "mira"]}, "providers must be a sequence of different names, at least one; got"),
        ({"providers": ["mira", "dali"]}, "provider must be one of .*; got 'dali'"),
        ({"providers": ["mira", None]}, "provider must be one of .*; got None"),
        ({"providers": ["mira"], "provider": "milady"}, "give provider or providers, not both; got 'milady' and"),
    ],
)
async def test_a_list_of_providers_is_checked_at_the_call(
    pair: tuple[Mirage, Sandbox], fields: dict[str, Any], why: str
) -> None:
    """By all three that take one."""
    mirage, sandbox = pair
    for ask in (mirage.generate, mirage.submit):
        with pytest.raises(InputError, match=why):
            await ask("a fox", **fields)
    with pytest.raises(InputError, match=why):
        mirage.batch(["a fox"], **fields)
    assert sandbox.requests == []


@pytest.mark.parametrize(
    "request_",
    [
        ImageRequest(prompt="a", provider="mira", providers=("milady",)),
        ImageRequest(prompt="a", providers=5),  # type: ignore[arg-type]
        ImageRequest(prompt="a", providers=("mira",), references=5),  # type: ignore[arg-type]
    ],
)
async def test_a_request_that_names_both_or_no_list_is_refused(pair: tuple[Mirage, Sandbox], request_: Any) -> None:
    """As an error of `submit`, and as an outcome of a batch."""
    mirage, sandbox = pair
    with pytest.raises(InputError, match=r"provider|references"):
        await mirage.submit(request_)
    (outcome,) = [each async for each in mirage.batch([request_])]
    assert isinstance(outcome.error, InputError)
    assert sandbox.requests == []


async def test_what_is_given_beside_a_request_takes_the_place_of_its_choice(pair: tuple[Mirage, Sandbox]) -> None:
    """One provider in place of several, and the other way round."""
    mirage, sandbox = pair
    assert (await mirage.submit(ImageRequest(prompt="a", provider="mira"), providers=BOTH)).provider == "miragic"
    assert (await mirage.submit(ImageRequest(prompt="a", providers=BOTH), provider="mirako")).provider == "mirako"
    assert sandbox.statistics().requests == {"miragic.create": 1, "mirako.create": 1}


async def test_a_missing_key_of_any_of_them_is_told_at_once() -> None:
    """And not when its turn comes."""
    async with Sandbox() as sandbox, Mirage({"miragic": "k"}, base_urls={"miragic": sandbox.url}) as mirage:
        for ask in (mirage.generate, mirage.submit):
            with pytest.raises(ConfigurationError, match="no mirako key"):
                await ask("a fox", providers=BOTH)
        with pytest.raises(ConfigurationError, match="no mirako key"):
            mirage.batch(["a fox"], providers=BOTH)
        assert sandbox.requests == []


async def test_a_wait_for_a_place_that_ran_out_ends_the_search() -> None:
    """It is a wait like any other, although nothing was sent."""
    async with sandboxed(durations=30, limits=Limits(jobs=1)) as (mirage, sandbox):
        await mirage.submit("first", provider="miragic")
        with anyio.fail_after(30), pytest.raises(WaitTimeoutError) as caught:
            await mirage.generate("second", providers=BOTH, max_wait=0.05)
        assert (caught.value.billed, told(caught.value.tried)) == ("no", [("miragic", WaitTimeoutError)])
        assert sandbox.statistics().requests["miragic.create"] == 1


async def test_those_who_ask_with_one_key_at_the_same_time_buy_once(tmp_path: Path) -> None:
    """Whichever provider it is that sells; a key that is none is refused."""
    request = ImageRequest(prompt="a fox", providers=("mirako", "miragic"), key="0f" * 16)
    async with Sandbox(durations=0.1) as sandbox:
        sandbox.fail("mirako.create", Fault(status=400))
        async with Mirage(base_urls=sandbox.base_urls, journal=Journal(tmp_path / "journal")) as mirage:
            with anyio.fail_after(20):
                jobs = await asyncio.gather(*(mirage.submit(request) for _ in range(5)))
                generations = await asyncio.gather(*jobs)
            assert len({generation.job_id for generation in generations}) == 1
            with pytest.raises(InputError, match="key must be 32 lowercase hexadecimal digits"):
                await mirage.submit(ImageRequest(prompt="a fox", providers=BOTH, key="0F" * 16))
        assert sandbox.statistics().purchases == {"miragic": 1}
        assert sandbox.statistics().requests["mirako.create"] == 1
        async with Mirage(base_urls=sandbox.base_urls) as mirage:
            with pytest.raises(InputError, match="key needs a journal"):
                await mirage.submit(request)


@pytest.mark.parametrize(
    "request_",
    [
        ImageRequest(prompt="a", provider="mirako", aspect_ratio="3:4", seed=4),
        ImageRequest(prompt="a", provider="mirako", options={"resend_uncertain": False}),
        ImageRequest(prompt="a", provider="miragic", model="turbo", size="512x256", max_wait=9),
        ImageRequest(prompt="a", provider="miragic"),
        ImageRequest(prompt="a", provider="mira", n=4, aspect_ratio="2:3", options={"quality": "low"}),
        ImageRequest(prompt="a", provider="milady", n=2, model="m", options={"style_preset": "origami"}),
    ],
    ids=["mirako", "mirako with options", "miragic", "miragic with nothing else", "mira", "milady"],
)
async def test_checking_a_request_sends_nothing_and_refuses_what_buying_would(
    pair: tuple[Mirage, Sandbox], request_: ImageRequest
) -> None:
    """Every client answers for itself."""
    mirage, sandbox = pair
    client = mirage.client(request_.provider)
    await client.check_request(request_)
    with pytest.raises(InputError):
        await client.check_request(ImageRequest(prompt=" ", provider=request_.provider))
    assert sandbox.requests == []
    await (await client.buy_request(request_))
    assert len(sandbox.jobs) + sum(sandbox.statistics().purchases.values()) >= 1
