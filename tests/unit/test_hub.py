"""The hub: clients on demand, portable requests as the providers receive them, tokens, counts, and the end."""

from __future__ import annotations

import asyncio
import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import pytest
from PIL import Image

from mirage_async import (
    GeneratedImage,
    Generation,
    ImageRequest,
    Job,
    JobStatus,
    Limits,
    Mirage,
    MiragicClient,
    Reference,
)
from mirage_async.clients import Providers, _redeem
from mirage_async.exceptions import (
    AuthenticationError,
    ClosedError,
    ConfigurationError,
    DownloadError,
    InputError,
    JournalError,
    MirageError,
    ResponseError,
)
from mirage_async.jobs import NullRecorder
from mirage_async.sandbox import Fault, Sandbox
from mirage_async.scheduler import FixedInterval, Scheduler
from mirage_async.testing import sandboxed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable

    from mirage_async.jobs import Intent, Recorder
    from mirage_async.wire import Piece

pytestmark = pytest.mark.anyio

T = TypeVar("T")

PROVIDERS = ["mirako", "miragic", "mira", "milady"]


async def soon(work: Awaitable[T]) -> T:
    """Await something that must not take long."""
    with anyio.fail_after(30):
        return await work


def encoded(kind: str) -> bytes:
    """Return a small picture."""
    buffer = io.BytesIO()
    Image.new("RGB", (600, 600), "red").save(buffer, kind)
    return buffer.getvalue()


PNG = encoded("PNG")
PNG_URL = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"


@pytest.fixture
async def pair() -> AsyncIterator[tuple[Mirage, Sandbox]]:
    """Return a hub and the sandbox it is wired to; work there takes next to no time."""
    async with sandboxed(durations=0.02) as running:
        yield running


def fields(sandbox: Sandbox, operation: str) -> dict[str, Any]:
    """Return what the last request of an operation carried."""
    requests = [request for request in sandbox.requests if request.operation == operation]
    return dict(requests[-1].fields)


# --- clients ---


def test_the_registry_knows_the_four_providers() -> None:
    """Everything that lists providers reads it from one place."""
    assert list(Providers.classes()) == PROVIDERS


async def test_clients_are_made_on_first_use_and_kept() -> None:
    """A hub nobody uses has no clients; one that is used has one a provider, under two names."""
    hub = Mirage(base_urls=dict.fromkeys(PROVIDERS, "http://127.0.0.1:1"))
    assert repr(hub) == "<Mirage in use: none yet>"
    assert isinstance(hub.miragic, MiragicClient)
    assert hub.miragic is hub.client("miragic")
    assert repr(hub) == "<Mirage in use: miragic>"
    await soon(hub.aclose())
    assert repr(hub) == "<Mirage closed>"


async def test_a_missing_key_matters_only_at_use() -> None:
    """A hub needs keys for the providers somebody really uses."""
    async with Mirage({"mira": "k"}) as hub:
        assert hub.mira is not None
        with pytest.raises(ConfigurationError, match="no milady key: set MILADY_API_KEY, or pass api_key"):
            _ = hub.milady
        with pytest.raises(ConfigurationError, match="no milady key: set MILADY_API_KEY, or pass api_key"):
            hub.client("milady")
        with pytest.raises(ConfigurationError, match="no mirako key: set MIRAKO_API_KEY or MIRAKO_API_TOKEN"):
            await soon(hub.generate("a cat", provider="mirako"))


async def test_keys_and_addresses_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a mapping leaves out is read from the environment, a provider's own address before the sandbox's."""
    monkeypatch.setenv("MIRAKO_API_TOKEN", "from-the-environment")
    monkeypatch.setenv("MIRAGE_SANDBOX_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("MIRA_BASE_URL", "http://127.0.0.1:8")
    async with Mirage(base_urls={"miragic": "http://127.0.0.1:7"}) as hub:
        shown = [repr(hub.client(name)).split()[1] for name in PROVIDERS]
    assert shown == ["http://127.0.0.1:9", "http://127.0.0.1:7", "http://127.0.0.1:8", "http://127.0.0.1:9"]


async def test_an_unknown_provider_is_refused_by_name() -> None:
    """In a call, in a request, in each mapping, and as an attribute."""
    known = "'mirako', 'miragic', 'mira', 'milady'"
    async with Mirage() as hub:
        with pytest.raises(InputError, match=f"provider must be one of {known}; got 'midjourney'"):
            await soon(hub.generate("a cat", provider="midjourney"))
        with pytest.raises(InputError, match=f"provider must be one of {known}; got None"):
            await soon(hub.submit("a cat"))
        with pytest.raises(AttributeError, match="'Mirage' object has no attribute 'midjourney'"):
            _ = hub.midjourney
        with pytest.raises(AttributeError, match="has no attribute '_mira'"):
            _ = hub._mira
    for mapping in ("api_keys", "base_urls", "limits"):
        options: dict[str, Any] = {mapping: {"midjourney": "x"}}
        with pytest.raises(InputError, match=f"{mapping} must be by provider, one of {known}; got 'midjourney'"):
            Mirage(**options)


async def test_limits_are_one_for_all_or_by_provider() -> None:
    """One `Limits` counts for each account on its own; a mapping leaves the others at the default."""
    urls = dict.fromkeys(PROVIDERS, "http://127.0.0.1:1")
    async with Mirage(base_urls=urls, limits=Limits(jobs=3)) as hub:
        _ = hub.mira, hub.milady
        assert [account.limits for account in hub.statistics().scheduler.accounts] == [Limits(jobs=3)] * 2
    async with Mirage(base_urls=urls, limits={"mira": Limits(polls=1)}) as hub:
        _ = hub.mira, hub.milady
        assert [account.limits for account in hub.statistics().scheduler.accounts] == [Limits(polls=1), Limits()]


# --- portable requests ---


@pytest.mark.parametrize(
    ("provider", "operation", "parameters", "sent"),
    [
        ("mirako", "mirako.generate", {}, {"prompt": "a cat", "aspect_ratio": "16:9"}),
        (
            "mirako",
            "mirako.generate",
            {"aspect_ratio": "3:4", "seed": 0, "n": 1, "references": [Reference(PNG, label="cat")]},
            {
                "prompt": "a cat",
                "aspect_ratio": "3:4",
                "seed": 0,
                "images": [{"label": "cat", "data": PNG_URL}],
            },
        ),
        ("mirako", "mirako.create", {"max_wait": 30}, {"prompt": "a cat", "aspect_ratio": "16:9"}),
        (
            "miragic",
            "miragic.create",
            {},
            {"prompt": "a cat", "model": "flux", "width": "1024", "height": "1024"},
        ),
        (
            "miragic",
            "miragic.create",
            {"aspect_ratio": "16:9", "model": "turbo", "n": 1, "max_wait": 30},
            {"prompt": "a cat", "model": "turbo", "width": "1024", "height": "576"},
        ),
        (
            "miragic",
            "miragic.create",
            {"size": "512x256", "model": "kontext", "references": ["https://a.example/x.png"]},
            {
                "prompt": "a cat",
                "model": "kontext",
                "width": "512",
                "height": "256",
                "image_url": "https://a.example/x.png",
            },
        ),
        (
            "miragic",
            "miragic.create",
            {"options": {"width": 300, "height": 301}},
            {"prompt": "a cat", "model": "flux", "width": "300", "height": "301"},
        ),
        ("mira", "mira.generate", {}, {"prompt": "a cat"}),
        (
            "mira",
            "mira.generate",
            {"aspect_ratio": "3:2", "n": 2, "options": {"quality": "low"}, "references": [PNG]},
            {"prompt": "a cat", "size": "1536x1024", "n": 2, "quality": "low", "reference_images": [PNG_URL]},
        ),
        ("mira", "mira.generate", {"aspect_ratio": "100:100"}, {"prompt": "a cat", "size": "1024x1024"}),
        ("mira", "mira.generate", {"size": "1024x1536"}, {"prompt": "a cat", "size": "1024x1536"}),
        ("milady", "milady.generate", {}, {"prompt": "a cat"}),
        (
            "milady",
            "milady.generate",
            {
                "aspect_ratio": "21:9",
                "n": 3,
                "model": "google/gemini-2.5-flash-image",
                "options": {"style_preset": "origami"},
                "references": [PNG],
            },
            {
                "prompt": "a cat",
                "aspectRatio": "21:9",
                "numImages": 3,
                "model": "google/gemini-2.5-flash-image",
                "stylePreset": "origami",
                "sourceImage": PNG_URL,
            },
        ),
    ],
)
async def test_portable_words_arrive_as_the_providers_own(
    pair: tuple[Mirage, Sandbox], provider: str, operation: str, parameters: dict[str, Any], sent: dict[str, Any]
) -> None:
    """Each provider receives exactly what was asked for in its own words, and nothing for what was left open."""
    hub, sandbox = pair
    generation = await soon(hub.generate("a cat", provider=provider, **parameters))
    assert fields(sandbox, operation) == sent
    assert (generation.provider, len(generation.images)) == (provider, parameters.get("n") or 1)
    assert generation.image.data is not None or generation.image.url is not None


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_a_refused_request_reaches_nobody(pair: tuple[Mirage, Sandbox], provider: str) -> None:
    """What cannot be honoured is refused before anything is sent, from both doors."""
    hub, sandbox = pair
    for door in (hub.generate, hub.submit):
        with pytest.raises(InputError, match="give size or aspect_ratio, not both"):
            await soon(door("a cat", provider=provider, size="1024x1024", aspect_ratio="1:1"))
        with pytest.raises(InputError, match="options must be among"):
            await soon(door("a cat", provider=provider, options={"colour": "green"}))
    assert sandbox.requests == []


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_submit_returns_a_job(pair: tuple[Mirage, Sandbox], provider: str) -> None:
    """A job is had at once; its result comes by awaiting it."""
    hub, sandbox = pair
    job = await soon(hub.submit("a cat", provider=provider))
    assert isinstance(job, Job)
    assert isinstance(await soon(job), Generation)
    assert job.status is JobStatus.SUCCEEDED
    assert sandbox.statistics().purchases == {provider: 1}


async def test_a_whole_request_can_be_submitted_and_changed(pair: tuple[Mirage, Sandbox]) -> None:
    """Keywords over an `ImageRequest` change a copy of it; what is not given stays."""
    hub, sandbox = pair
    request = ImageRequest(prompt="a cat", provider="miragic", aspect_ratio="1:1")
    await soon(await hub.submit(request))
    assert fields(sandbox, "miragic.create")["width"] == "1024"
    await soon(await hub.submit(request, aspect_ratio="2:1", model="turbo"))
    assert fields(sandbox, "miragic.create") == {
        "prompt": "a cat",
        "model": "turbo",
        "width": "1024",
        "height": "512",
    }
    await soon(await hub.submit(request, provider="mirako", references=[PNG]))
    assert fields(sandbox, "mirako.create") == {
        "prompt": "a cat",
        "aspect_ratio": "1:1",
        "images": [{"data": PNG_URL}],
    }
    assert (request.aspect_ratio, request.provider, request.references) == ("1:1", "miragic", ())


@pytest.mark.parametrize("single", [PNG, "https://a.example/x.png", Path("x.png"), Reference(PNG)])
async def test_a_single_reference_is_no_sequence(single: Any) -> None:
    """A forgotten pair of brackets is said so at both doors."""
    async with Mirage() as hub:
        for door in (hub.generate, hub.submit):
            with pytest.raises(InputError, match=r"references must be a sequence of pictures; got a single .*"):
                await soon(door("a cat", provider="mira", references=single))


# --- tokens ---


@pytest.mark.parametrize("provider", ["mirako", "miragic"])
async def test_a_token_attaches_from_another_hub(provider: str) -> None:
    """A job is found again by whoever has its token, and paid for once."""
    async with sandboxed(durations=0.2) as (first, sandbox):
        token = (await soon(first.submit("a cat", provider=provider))).token()
        await soon(first.aclose())
        async with Mirage(base_urls=sandbox.base_urls, scheduler=Scheduler(policy=FixedInterval(0.02))) as second:
            job = second.job(token, max_wait=10)
            assert (job.provider, job.status) == (provider, JobStatus.QUEUED)
            generation = await soon(job)
        assert isinstance(generation, Generation)
        assert len(await soon(generation.image.read())) > 100
        assert sandbox.statistics().purchases == {provider: 1}


async def test_text_that_is_no_token_is_refused() -> None:
    """A bare id does not say whose it is; a damaged token says nothing."""
    async with Mirage() as hub:
        with pytest.raises(InputError, match=r"got 'abc-1' \(for a bare id use the provider's client\)"):
            hub.job("abc-1")
        with pytest.raises(InputError, match=r"token must be what Job\.token\(\) returned"):
            hub.job("{")
        stranger = '{"mirage": "job", "provider": "midjourney", "kind": "image", "id": "1", "key": "k"}'
        with pytest.raises(InputError, match="provider must be one of"):
            hub.job(stranger)
        with pytest.raises(ConfigurationError, match="no miragic key"):
            hub.job(stranger.replace("midjourney", "miragic"))


# --- counts ---


async def test_statistics_count_what_goes_on() -> None:
    """Unfinished jobs by provider, POSTs on the wire, and what the scheduler counts."""
    async with sandboxed(durations={"miragic": 0.2, "mira": 0.2}) as (hub, _):
        assert dict(hub.statistics().unfinished_jobs) == {}
        jobs = [await soon(hub.submit("a cat", provider=name)) for name in ("miragic", "miragic", "mira")]
        await asyncio.sleep(0)
        statistics = hub.statistics()
        assert statistics.unfinished_jobs == {"miragic": 2, "mira": 1}
        assert statistics.scheduler.jobs_watched == 2
        assert statistics.paid_posts_in_flight == 1
        await soon(asyncio.gather(*jobs))
        statistics = hub.statistics()
        assert statistics.unfinished_jobs == {"miragic": 0, "mira": 0}
        assert (statistics.paid_posts_in_flight, statistics.scheduler.jobs_concluded) == (0, 2)


# --- the recorder ---


class FakeRecorder(NullRecorder):
    """Notes what it is told, and forbids purchases where it was given an error."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.told: list[str] = []

    async def intended(self, job: Job[Any], intent: Intent) -> None:  # noqa: ARG002 - the port's signature
        """Note it with what is known by then, or forbid it."""
        self.told.append(f"intended {job.status.value} {job.id is not None}")
        if self.error is not None:
            raise self.error

    async def accepted(self, job: Job[Any]) -> None:
        """Note it."""
        self.told.append(f"accepted {job.polls} polls")

    async def settled(self, job: Job[Any], outcome: object) -> None:
        """Note it."""
        self.told.append(f"settled {type(outcome).__name__} done={job.done}")

    def handed_over(self, job: Job[Any]) -> None:
        """Note it."""
        self.told.append(f"handed over {job.status.value}")


def recorded(hub: Mirage, recorder: Recorder) -> None:
    """Give a hub its recorder, as a journal will."""
    hub._runtime.recorder = recorder


async def test_the_recorder_hears_of_everything_in_order(pair: tuple[Mirage, Sandbox]) -> None:
    """Intended before the POST, accepted before the first status call, settled before the waiters, then handed over."""
    hub, sandbox = pair

    class Watching(FakeRecorder):
        async def intended(self, job: Job[Any], intent: Intent) -> None:
            assert sandbox.requests == []
            await super().intended(job, intent)

        async def accepted(self, job: Job[Any]) -> None:
            assert [request.operation for request in sandbox.requests] == ["miragic.create"]
            await super().accepted(job)

    recorder = Watching()
    recorded(hub, recorder)
    await soon(hub.generate("a cat", provider="miragic"))
    assert recorder.told == [
        "intended submitting False",
        "accepted 0 polls",
        "settled Generation done=False",
        "handed over succeeded",
    ]


@pytest.mark.parametrize("provider", ["mirako", "miragic", "mira"])
@pytest.mark.parametrize(
    "error", [JournalError("the disk is full"), OSError("the disk is full")], ids=["ours", "other"]
)
async def test_a_purchase_that_cannot_be_recorded_is_not_made(
    pair: tuple[Mirage, Sandbox], provider: str, error: Exception
) -> None:
    """`intended` that raises forbids the POST, and whoever asked for it hears why."""
    hub, sandbox = pair
    recorded(hub, FakeRecorder(error))
    with pytest.raises(JournalError, match="the disk is full"):
        await soon(hub.generate("a cat", provider=provider))
    assert sandbox.requests == []
    assert hub.client(provider).jobs == ()


# --- trouble with a job that was paid for ---


class FakeDownloader:
    """Hands out pictures that cannot be fetched yet, and keeps how a fresh link would be asked for."""

    def __init__(self, error: MirageError) -> None:
        self.error = error
        self.renewals: list[Any] = []
        self.names: list[str] = []

    def image(self, piece: Piece, *, name: str, renew: Any, **_: Any) -> GeneratedImage:
        """Make a picture read through this object."""
        self.names.append(name)
        self.renewals.append(renew)
        return GeneratedImage(self, url=piece.url, name=name)

    async def read(self, image: GeneratedImage) -> bytes:  # noqa: ARG002 - the port's signature
        """Fail."""
        raise self.error

    async def save(self, image: GeneratedImage, path: Path, *, overwrite: bool) -> Path:
        """Nobody saves here."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """Nothing was opened."""


@pytest.mark.parametrize("error", [DownloadError("not whole"), ClosedError("closed")], ids=["download", "closed"])
async def test_a_picture_that_cannot_be_fetched_does_not_fail_the_job(
    pair: tuple[Mirage, Sandbox], monkeypatch: pytest.MonkeyPatch, error: MirageError
) -> None:
    """It is paid for: the job succeeds, reading tries again, and a fresh link is asked for from the job."""
    hub, sandbox = pair
    downloader = FakeDownloader(error)
    monkeypatch.setattr(hub._runtime, "downloader", downloader)
    job = await soon(hub.submit("a cat", provider="miragic"))
    generation = await soon(job)
    assert job.status is JobStatus.SUCCEEDED
    assert downloader.names == [f"miragic-{job.id}"]
    assert generation.timings.downloaded is not None
    with pytest.raises(type(error), match=str(error)):
        await soon(generation.image.read())
    fresh = await soon(downloader.renewals[0]())
    assert fresh.startswith(sandbox.url)
    assert fresh != generation.image.url


async def test_a_fresh_link_the_job_no_longer_has_is_none(
    pair: tuple[Mirage, Sandbox], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that shows fewer pictures than before has no fresh link for the rest."""
    hub, sandbox = pair
    downloader = FakeDownloader(DownloadError("not whole"))
    monkeypatch.setattr(hub._runtime, "downloader", downloader)
    await soon(await soon(hub.submit("a cat", provider="miragic")))
    pending = {"success": True, "data": {"status": "PENDING"}}
    sandbox.fail("miragic.status", Fault(status=200, body=pending))
    assert await soon(downloader.renewals[0]()) is None


async def test_asking_for_a_fresh_link_takes_its_time_and_no_more(
    pair: tuple[Mirage, Sandbox], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No sweep watches over this call as over a status call, so it has an end of its own."""
    hub, _ = pair
    downloader = FakeDownloader(DownloadError("not whole"))
    monkeypatch.setattr(hub._runtime, "downloader", downloader)
    job = await soon(hub.submit("a cat", provider="miragic"))
    await soon(job)
    monkeypatch.setattr(_redeem, "RENEWAL_TIMEOUT", 0.01)
    monkeypatch.setattr(job.kind, "look", lambda _job: asyncio.Event().wait())
    with pytest.raises(ResponseError, match=r"miragic gave no usable answer within 0\.01 s"):
        await soon(downloader.renewals[0]())


async def test_what_stops_the_asking_never_says_the_job_was_not_bought(pair: tuple[Mirage, Sandbox]) -> None:
    """The provider has accepted the job: an error about asking for it must not read as unpaid."""
    hub, sandbox = pair
    sandbox.fail("miragic.status", Fault(status=401))
    with pytest.raises(AuthenticationError, match="miragic answered 401") as caught:
        await soon(hub.generate("a cat", provider="miragic"))
    assert sandbox.statistics().purchases == {"miragic": 1}
    assert caught.value.billed != "no"


# --- the end ---


async def test_a_closed_hub_does_nothing_any_more() -> None:
    """Every door raises `ClosedError`; closing twice is nothing."""
    async with sandboxed() as (hub, sandbox):
        token = (await soon(hub.submit("a cat", provider="miragic"))).token()
        await soon(hub.aclose())
        await soon(hub.aclose())
        before = len(sandbox.requests)
        with pytest.raises(ClosedError, match="closed"):
            await soon(hub.generate("a cat", provider="miragic"))
        with pytest.raises(ClosedError, match="closed"):
            await soon(hub.submit(ImageRequest(prompt="a cat", provider="mira")))
        with pytest.raises(ClosedError, match="closed"):
            await soon(hub.miragic.submit("a cat"))
        with pytest.raises(ClosedError, match="closed"):
            hub.job(token)
        with pytest.raises(ClosedError, match="the hub is closed"):
            _ = hub.milady
        with pytest.raises(ClosedError, match="closed"):
            async with hub:
                pass
        assert len(sandbox.requests) == before


async def test_closing_tells_every_waiter() -> None:
    """Whatever a job waits for, its waiters get `ClosedError`, with the token where there is one."""
    async with Sandbox(durations=5.0) as sandbox:
        hub = Mirage(base_urls=sandbox.base_urls)
        jobs = [await soon(hub.submit("a cat", provider=name)) for name in ("mirako", "miragic")]
        waiters = [asyncio.ensure_future(job.result()) for job in jobs]
        await asyncio.sleep(0)
        await soon(hub.aclose())
        for job, waiter in zip(jobs, waiters, strict=True):
            with pytest.raises(ClosedError, match="the client was closed") as caught:
                await soon(waiter)
            assert (caught.value.token, caught.value.billed) == (job.token(), "yes")


async def arrived(sandbox: Sandbox, count: int) -> None:
    """Wait until a sandbox has seen so many requests."""
    with anyio.fail_after(30):
        while len(sandbox.requests) < count:  # noqa: ASYNC110 - a server has no event to wait for
            await asyncio.sleep(0)


async def test_closing_brings_home_what_is_on_the_wire() -> None:
    """A purchase under way gets its moment: what was paid for is recorded, not thrown away."""
    async with Sandbox(durations=0.1) as sandbox:
        hub = Mirage(base_urls=sandbox.base_urls)
        recorder = FakeRecorder()
        recorded(hub, recorder)
        await soon(hub.submit("a cat", provider="mira"))
        await arrived(sandbox, 1)
        await soon(hub.aclose())
        assert sandbox.statistics().purchases == {"mira": 1}
        assert "settled Generation done=False" in recorder.told


async def test_closing_ends_purchases_that_wait_for_a_place() -> None:
    """A job still waiting under `Limits(jobs=1)` is told, buys nothing, and nothing is sent after the end."""
    async with Sandbox(durations={"mira": 0.3, "miragic": 5.0}) as sandbox:
        hub = Mirage(base_urls=sandbox.base_urls, limits=Limits(jobs=1))
        first = [await soon(hub.submit("a cat", provider=name)) for name in ("mira", "miragic")]
        second = await soon(hub.submit("a dog", provider="mira"))
        submitting = asyncio.ensure_future(hub.submit("a dog", provider="miragic"))
        waiter = asyncio.ensure_future(second.result())
        await arrived(sandbox, 2)
        await anyio.wait_all_tasks_blocked()
        await soon(hub.aclose())
        for waiting in (waiter, submitting):
            with pytest.raises(ClosedError, match="closed") as caught:
                await soon(waiting)
            assert caught.value.billed == "no"
        assert sandbox.statistics().purchases == {"mira": 1, "miragic": 1}
        assert [job.provider for job in first] == ["mira", "miragic"]
        assert hub._runtime.transport._session is None


async def test_closing_right_after_submit_tells_the_waiter() -> None:
    """Also a job whose purchase has not even begun gets `ClosedError`."""
    hub = Mirage(base_urls=dict.fromkeys(PROVIDERS, "http://127.0.0.1:1"))
    job = await soon(hub.submit("a cat", provider="mira"))
    await soon(hub.aclose())
    with pytest.raises(ClosedError, match="closed"), anyio.fail_after(30):
        await job


async def test_leaving_the_block_closes_the_hub_however_it_is_left() -> None:
    """An exception inside goes through."""
    hub = Mirage()

    async def work() -> None:
        async with hub:
            msg = "surprise"
            raise MirageError(msg)

    with pytest.raises(MirageError, match="surprise"):
        await soon(work())
    assert repr(hub) == "<Mirage closed>"
