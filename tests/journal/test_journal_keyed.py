"""A caller's own key buys once under it, in one process, in the next, and in two at once."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from journal_bench import PROMPT, crashed, hub, interrupted, picture, soon, until

from mirage_async import ImageRequest, Job, JobStatus, Limits, Mirage
from mirage_async.exceptions import (
    AuthenticationError,
    ClosedError,
    ConnectionFailedError,
    InputError,
    JobFailedError,
    MirageError,
    SubmissionUncertainError,
    WaitTimeoutError,
)
from mirage_async.journal import EntryState, Journal, journal_entries
from mirage_async.journal._requests import digest_of
from mirage_async.sandbox import Fault, Sandbox
from mirage_async.webhooks import WebhookReceiver
from mirage_async.wire import Call, Form

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from pathlib import Path

pytestmark = pytest.mark.anyio

OWN = "0123456789abcdef0123456789abcdef"
SECRET = "V1StGXR8_Z5jdHi6B-myT0p3Lq9wNcYs"
every_provider = pytest.mark.parametrize("provider", ["mirako", "miragic", "mira", "milady"])


def request(provider: str, prompt: str = PROMPT, *, key: str = OWN, **fields: Any) -> ImageRequest:
    """Return a request with the caller's own key."""
    return ImageRequest(prompt=prompt, provider=provider, key=key, **fields)


def journal_of(mirage: Mirage) -> Any:
    """Return the journal of a hub."""
    assert mirage._runtime.journal is not None
    return mirage._runtime.journal


@every_provider
async def test_the_same_key_twice_at_once_buys_once(provider: str, tmp_path: Path) -> None:
    """Everybody gets the same job."""
    async with Sandbox(durations=0.1) as sandbox, hub(sandbox, tmp_path) as mirage:
        jobs = await soon(asyncio.gather(*(mirage.submit(request(provider)) for _ in range(10))))
        assert len({id(each) for each in jobs}) == 1
        assert jobs[0].key == OWN
        await soon(jobs[0].result())
        assert await mirage.submit(request(provider)) is jobs[0]
        assert sandbox.statistics().purchases == {provider: 1}


@every_provider
async def test_the_same_key_after_a_restart_is_the_same_purchase(provider: str, tmp_path: Path) -> None:
    """Finished or not, handed over or not."""
    async with Sandbox(durations=0.1) as sandbox:
        async with hub(sandbox, tmp_path / "journal") as mirage:
            first = await mirage.submit(request(provider))
            if not first.id:
                await until(lambda: first.done)
            early = crashed(tmp_path / "journal", tmp_path / "early")
            await soon(first.result())
            await until(lambda: journal_entries(tmp_path / "journal")[0].handed_over)
        for folder in (early, tmp_path / "journal"):
            async with hub(sandbox, folder) as mirage:
                again = await mirage.submit(request(provider))
                assert (again.id, again.key) == (first.id, OWN)
                assert (await soon(again.result())).images
                assert await mirage.recover() == []
        assert sandbox.statistics().purchases == {provider: 1}


async def test_a_key_of_a_recovered_job_returns_that_job(tmp_path: Path) -> None:
    """Whichever comes first, `recover()` or the caller."""
    async with Sandbox(durations=60.0) as sandbox:
        async with hub(sandbox, tmp_path / "journal") as mirage:
            await mirage.submit(request("mirako"))
            left = crashed(tmp_path / "journal", tmp_path / "left")
        async with hub(sandbox, left) as mirage:
            (found,) = await mirage.recover()
            assert await mirage.submit(request("mirako")) is found


async def test_a_key_stands_for_one_request(tmp_path: Path) -> None:
    """Another prompt or another provider needs another key, now and after a restart."""
    async with Sandbox(durations=0.05) as sandbox:
        async with hub(sandbox, tmp_path) as mirage:
            await (await mirage.submit(request("miragic")))
            for other in (request("miragic", "another"), request("mira"), request("miragic", model="turbo")):
                with pytest.raises(InputError, match="stands for another request already"):
                    await mirage.submit(other)
        async with hub(sandbox, tmp_path) as mirage:
            with pytest.raises(InputError, match="stands for another request already"):
                await mirage.submit(request("miragic", "another"))
        assert sandbox.statistics().purchases == {"miragic": 1}


@pytest.mark.parametrize("fault", [Fault(status=401), Fault(status=402)])
async def test_a_refusal_that_bought_nothing_frees_the_key(fault: Fault, tmp_path: Path) -> None:
    """For the same request, or for another."""
    async with Sandbox(durations=0.05) as sandbox, hub(sandbox, tmp_path) as mirage:
        for provider, operation in (("miragic", "miragic.create"), ("mira", "mira.generate")):
            sandbox.fail(operation, fault)
            with pytest.raises(MirageError) as caught:
                await (await mirage.submit(request(provider)))
            assert caught.value.billed == "no"
        (entry,) = journal_entries(tmp_path)
        assert (entry.state, entry.provider, entry.attempts) == (EntryState.UNPAID, "mira", 2)
        assert (await (await mirage.submit(request("mira")))).images
        assert sandbox.statistics().purchases == {"mira": 1}


async def test_a_purchase_that_was_never_sent_frees_the_key(tmp_path: Path) -> None:
    """Nobody was there to connect to."""
    async with Sandbox() as sandbox:
        addresses = sandbox.base_urls
    async with Mirage(
        {"mirako": "k"}, base_urls={"mirako": addresses["mirako"]}, journal=Journal(tmp_path), max_retry_after=0
    ) as mirage:
        with pytest.raises(ConnectionFailedError):
            await soon(mirage.submit(request("mirako")))
        assert journal_entries(tmp_path)[0].state is EntryState.UNPAID


async def test_a_caller_who_left_before_anything_was_sent_leaves_the_key_free(tmp_path: Path) -> None:
    """What he waited for is nobody's job; whoever asks next buys."""
    async with (
        Sandbox(durations=0.3) as sandbox,
        hub(sandbox, tmp_path, limits=Limits(jobs=1)) as mirage,
    ):
        first = await mirage.mirako.submit(PROMPT)
        waiting = asyncio.ensure_future(mirage.submit(request("mirako")))
        await until(lambda: any(each.buying == "place" for each in mirage.mirako.jobs))
        left = mirage._runtime.known[OWN]
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await first
        again = await soon(mirage.submit(request("mirako")))
        assert again is not left
        assert (await soon(again.result())).images


async def test_a_caller_who_left_during_the_post_finds_the_job_again(tmp_path: Path) -> None:
    """It is bought once, whoever asked."""
    async with Sandbox(durations=0.05) as sandbox, hub(sandbox, tmp_path) as mirage:
        sandbox.fail("mirako.create", Fault(dribble=0.3))
        waiting = asyncio.ensure_future(mirage.submit(request("mirako")))
        await until(lambda: sandbox.requests)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        again = await soon(mirage.submit(request("mirako")))
        assert (await soon(again.result())).images
        assert sandbox.statistics().purchases == {"mirako": 1}


async def test_whoever_asks_while_the_request_of_one_who_left_is_on_the_wire_gets_an_id(tmp_path: Path) -> None:
    """Not a handle that no token can be had of. He waits no longer than he said."""
    async with Sandbox(durations=0.05) as sandbox, hub(sandbox, tmp_path) as mirage:
        sandbox.fail("miragic.create", Fault(dribble=0.5))
        leaving = asyncio.ensure_future(mirage.submit(request("miragic")))
        await until(lambda: sandbox.requests)
        leaving.cancel()
        with pytest.raises(WaitTimeoutError) as caught:
            await mirage.submit(request("miragic", max_wait=0.05))
        assert (caught.value.billed, caught.value.waited_for) == ("unknown", "job")
        job = await soon(mirage.submit(request("miragic")))
        assert job.id in job.token()
        await soon(job.result())
        assert sandbox.statistics().purchases == {"miragic": 1}


async def test_closing_ends_the_wait_for_the_request_of_one_who_left(tmp_path: Path) -> None:
    """As it ends any other."""
    async with Sandbox() as sandbox, hub(sandbox, tmp_path) as mirage:
        sandbox.fail("miragic.create", Fault(stall=30))
        leaving = asyncio.ensure_future(mirage.submit(request("miragic")))
        await until(lambda: sandbox.requests)
        leaving.cancel()
        asking = asyncio.ensure_future(mirage.submit(request("miragic")))
        await asyncio.sleep(0.05)
        await mirage.aclose()
        with pytest.raises(ClosedError):
            await asking


@pytest.mark.parametrize("provider", ["miragic", "mira"])
async def test_wherever_the_first_caller_leaves_the_second_gets_it_once(provider: str, tmp_path: Path) -> None:
    """He bought nothing, or what he bought is the second one's; nothing that was not sent is uncertain."""
    async with Sandbox(durations=0.0) as sandbox, hub(sandbox, tmp_path, options={"durability": "process"}) as mirage:
        for steps in range(60):
            own = f"{steps:032x}"
            first, second = (asyncio.ensure_future(mirage.submit(request(provider, key=own))) for _ in range(2))
            for _ in range(steps):
                await asyncio.sleep(0)
            first.cancel()
            assert (await soon((await soon(second)).result())).images
            assert sandbox.statistics().purchases == {provider: steps + 1}
        ledger = mirage.client(provider).desk.ledger
        await until(lambda: not ledger.buying and not ledger.posting)


@pytest.mark.parametrize("provider", ["miragic", "mira"])
@pytest.mark.parametrize("fault", [Fault(status=402), Fault(reset=True, when="after")], ids=["refused", "lost"])
async def test_what_comes_of_the_request_of_one_who_left_is_what_the_next_one_hears(
    provider: str, fault: Fault, tmp_path: Path
) -> None:
    """A refusal frees the key, and an uncertain end keeps it, however late it is told."""
    async with Sandbox(durations=0.0) as sandbox, hub(sandbox, tmp_path, options={"durability": "process"}) as mirage:
        operation = {"miragic": "miragic.create", "mira": "mira.generate"}[provider]
        for steps in range(0, 60, 2):
            own = f"{steps:032x}"
            sandbox.reset("rules")
            sandbox.fail(operation, fault)
            first, second = (asyncio.ensure_future(mirage.submit(request(provider, key=own))) for _ in range(2))
            for _ in range(steps):
                await asyncio.sleep(0)
            first.cancel()
            outcome = await soon(_ended(second))
            if outcome is not None:  # else the first one had left before anything was sent, or his refusal freed it
                states = {entry.key: entry.state for entry in journal_entries(tmp_path)}
                assert states[own] is (EntryState.UNPAID if outcome.billed == "no" else EntryState.UNCERTAIN)
                assert (outcome.billed == "no") is (fault.status == 402)


async def _ended(submitted: Awaitable[Job[Any]]) -> MirageError | None:
    """Return what a purchase ended with, if it was an error."""
    try:
        await (await submitted)
    except MirageError as error:
        return error
    return None


async def test_a_wait_that_is_over_is_begun_afresh_by_asking_again(tmp_path: Path) -> None:
    """The job lives on; the same key watches it for as long as the new caller wants."""
    async with Sandbox(durations=60.0) as sandbox, hub(sandbox, tmp_path) as mirage:
        first = await mirage.submit(request("miragic", max_wait=0.1))
        with pytest.raises(WaitTimeoutError):
            await first
        again = await mirage.submit(request("miragic", max_wait=5))
        assert (again.id, again.stopped) == (first.id, None)
        sandbox.finish_job(str(first.id))
        assert (await soon(again.result())).images
        assert sandbox.statistics().purchases == {"miragic": 1}


async def test_a_failed_job_stays_failed_under_its_key(tmp_path: Path) -> None:
    """It was paid for, so trying again is another purchase and needs another key."""
    async with Sandbox(progress="manual") as sandbox:
        async with hub(sandbox, tmp_path) as mirage:
            first = await mirage.submit(request("mirako"))
            sandbox.fail_job(str(first.id))
            with pytest.raises(JobFailedError):
                await soon(first.result())
        async with hub(sandbox, tmp_path) as mirage:
            with pytest.raises(JobFailedError):
                await soon((await mirage.submit(request("mirako"))).result())
        assert sandbox.statistics().purchases == {"mirako": 1}


@every_provider
async def test_an_uncertain_purchase_keeps_its_key_until_it_is_resolved(provider: str, tmp_path: Path) -> None:
    """In the process that made it and in the next."""
    operation = f"{provider}.{'create' if provider in {'mirako', 'miragic'} else 'generate'}"
    async with Sandbox(durations=0.05) as sandbox:
        async with hub(sandbox, tmp_path) as mirage:
            sandbox.fail(operation, Fault(reset=True, when="after"))
            with pytest.raises(SubmissionUncertainError):
                await (await mirage.submit(request(provider)))
            with pytest.raises(SubmissionUncertainError):
                await (await mirage.submit(request(provider)))
        async with hub(sandbox, tmp_path) as mirage:
            with pytest.raises(SubmissionUncertainError, match="jobs resolve"):
                await mirage.submit(request(provider))
        assert sandbox.statistics().purchases == {provider: 1}


async def _uncertain(sandbox: Sandbox, mirage: Mirage, provider: str = "miragic") -> str:
    sandbox.fail(f"{provider}.{'create' if provider == 'miragic' else 'generate'}", Fault(reset=True, when="after"))
    with pytest.raises(SubmissionUncertainError):
        await (await mirage.submit(request(provider)))
    return next(iter(sandbox.jobs))


async def test_resolving_with_an_id_makes_it_a_job_again(tmp_path: Path) -> None:
    """Also while somebody still holds the job that was called uncertain."""
    async with Sandbox(durations=0.05) as sandbox, hub(sandbox, tmp_path) as mirage:
        job_id = await _uncertain(sandbox, mirage)
        held = mirage._runtime.known.get(OWN)
        entry = await journal_of(mirage).resolve(OWN, id=job_id)
        assert (entry.state, entry.id, entry.owed) == (EntryState.ACCEPTED, job_id, True)
        again = await mirage.submit(request("miragic"))
        assert again is not held
        assert (await soon(again.result())).images
        assert sandbox.statistics().purchases == {"miragic": 1}


async def test_resolving_as_unpaid_frees_the_key(tmp_path: Path) -> None:
    """Whoever says so knows it from the provider's dashboard."""
    async with Sandbox(durations=0.05) as sandbox, hub(sandbox, tmp_path) as mirage:
        await _uncertain(sandbox, mirage)
        held = mirage._runtime.known.get(OWN)
        assert (await journal_of(mirage).resolve(OWN, unpaid=True)).state is EntryState.UNPAID
        again = await mirage.submit(request("miragic"))
        assert again is not held
        assert (await soon(again.result())).images


async def test_giving_up_takes_the_key_out_of_use(tmp_path: Path) -> None:
    """It may have been bought, so it is never bought under that key again."""
    async with Sandbox(durations=0.05) as sandbox, hub(sandbox, tmp_path) as mirage:
        await _uncertain(sandbox, mirage)
        assert (await journal_of(mirage).resolve(OWN)).state is EntryState.ABANDONED
        with pytest.raises(InputError, match="was given up by hand"):
            await mirage.submit(request("miragic"))
        with pytest.raises(InputError, match="is abandoned"):
            await journal_of(mirage).resolve(OWN)


async def test_resolving_is_checked(tmp_path: Path) -> None:
    """Nothing that could not be true is written down."""
    async with Sandbox(durations=0.05) as sandbox, hub(sandbox, tmp_path) as mirage:
        journal = journal_of(mirage)
        job_id = await _uncertain(sandbox, mirage)
        with pytest.raises(InputError, match="knows no purchase with the key"):
            await journal.resolve("f" * 32, id=job_id)
        with pytest.raises(InputError, match="has an id or was not bought, not both"):
            await journal.resolve(OWN, id=job_id, unpaid=True)
        with pytest.raises(InputError, match="id must be"):
            await journal.resolve(OWN, id="../avatars")
        done = await mirage.submit(request("miragic", key="a" * 32))
        await soon(done.result())
        with pytest.raises(InputError, match="only a purchase whose end is open can be settled by hand"):
            await journal.resolve("a" * 32)
        sandbox.fail("mira.generate", Fault(reset=True, when="after"))
        with pytest.raises(SubmissionUncertainError):
            await (await mirage.submit(request("mira", key="b" * 32)))
        with pytest.raises(InputError, match="gives what it sends back at once no id to ask with"):
            await journal.resolve("b" * 32, id="task-1")
        async with hub(sandbox, tmp_path) as other:
            with pytest.raises(InputError, match="goes on, and settles it itself"):
                await journal_of(other).resolve(OWN, id=job_id)


async def test_the_id_of_another_purchase_is_not_taken(tmp_path: Path) -> None:
    """One job would be delivered as two; one that was given up has no use for its id any more."""
    async with Sandbox(durations=0.05) as sandbox, hub(sandbox, tmp_path) as mirage, hub(sandbox, tmp_path) as other:
        journal = journal_of(mirage)
        job_id = await _uncertain(sandbox, mirage)
        for number, buyer in enumerate((mirage, other)):
            key = f"{number}" * 32
            bought = await buyer.submit(request("miragic", key=key))
            await soon(bought.result())
            with pytest.raises(InputError, match=f"is that of another purchase, which is .* under the key {key}"):
                await journal.resolve(OWN, id=str(bought.id))
        for entry in journal_entries(tmp_path):
            assert (entry.state is EntryState.UNCERTAIN) == (entry.key == OWN)
        assert (await journal.resolve(OWN, id=job_id)).id == job_id
        assert (await journal.resolve(OWN, id=job_id)).id == job_id  # the same once more
        await journal.resolve(OWN)
        key = "b" * 32
        sandbox.fail("miragic.create", Fault(reset=True))
        with pytest.raises(SubmissionUncertainError):
            await (await mirage.submit(request("miragic", key=key)))
        assert (await journal.resolve(key, id=job_id)).id == job_id


async def test_a_key_another_living_process_has_bought_under_is_not_bought_under_again(tmp_path: Path) -> None:
    """As while one version of a service takes over from another."""
    async with (
        Sandbox(durations=0.2) as sandbox,
        hub(sandbox, tmp_path) as one,
        hub(sandbox, tmp_path) as other,
    ):
        first = await one.submit(request("mirako"))
        again = await other.submit(request("mirako"))
        assert again.id == first.id
        assert (await soon(again.result())).images
        await soon(first.result())
        assert sandbox.statistics().purchases == {"mirako": 1}


async def test_a_kill_in_the_middle_of_the_purchase_is_uncertain_under_its_key(tmp_path: Path) -> None:
    """Until it has been looked for."""
    async with Sandbox(durations=0.05) as sandbox:
        left = await interrupted(sandbox, tmp_path, lambda mirage: mirage.submit(request("miragic")))
        async with hub(sandbox, left) as mirage:
            with pytest.raises(SubmissionUncertainError, match="no usable answer is on record"):
                await mirage.submit(request("miragic"))
            (found,) = await mirage.recover()
            assert found.key == OWN
        assert sandbox.statistics().purchases == {"miragic": 1}


async def test_a_key_that_is_being_healed_is_not_bought_under(tmp_path: Path) -> None:
    """Whoever asks meanwhile gets the job that is being looked for, once it is found."""
    hooks = WebhookReceiver(public_url="http://127.0.0.1:9/hooks", secret=SECRET)
    async with Sandbox(durations=0.05) as sandbox:
        async with hub(sandbox, tmp_path / "journal", webhooks=hooks) as mirage:
            sandbox.fail("mirako.create", Fault(stall=30, when="after"))
            waiting = asyncio.ensure_future(mirage.submit(request("mirako")))
            await until(lambda: sandbox.jobs)
            left = crashed(tmp_path / "journal", tmp_path / "left")
            waiting.cancel()
        again = WebhookReceiver(public_url="http://127.0.0.1:9/hooks", secret=SECRET)
        async with hub(sandbox, left, webhooks=again) as mirage:
            (found,) = await mirage.recover()
            asking = asyncio.ensure_future(mirage.submit(request("mirako")))
            with pytest.raises(WaitTimeoutError) as caught:
                await mirage.submit(request("mirako", max_wait=0.1))
            assert (caught.value.billed, caught.value.waited_for) == ("unknown", "job")
            assert not asking.done()
            assert found.status is JobStatus.SUBMITTING
            url, bearer = again.callback("mirako", OWN)
            body = json.dumps({"id": next(iter(sandbox.jobs)), "status": "COMPLETED"}).encode()
            assert again.handle("POST", url, {"Authorization": f"Bearer {bearer}"}, body).status == 204
            assert await soon(asking) is found
            assert found.id
        assert sandbox.statistics().purchases == {"mirako": 1}


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/hooks", "http://127.0.0.1:9/elsewhere/hooks"])
async def test_where_to_call_back_is_no_part_of_the_request(address: str, tmp_path: Path) -> None:
    """It is another address each time, and may not be given at all."""

    def hooks(url: str) -> WebhookReceiver:
        return WebhookReceiver(public_url=url, secret=SECRET)

    miragic = request("miragic", key="a" * 32, options={"callback_parameter": "notify"})
    async with Sandbox(durations=0.05) as sandbox:
        async with hub(sandbox, tmp_path, webhooks=hooks("http://127.0.0.1:9/hooks")) as mirage:
            for each in (request("mirako"), miragic):
                await soon((await mirage.submit(each)).result())
                assert (await mirage.submit(each)).key == each.key
            assert all(entry.announced for entry in journal_entries(tmp_path))
        async with hub(sandbox, tmp_path, webhooks=hooks(address)) as mirage:
            for each in (request("mirako"), miragic):
                assert (await mirage.submit(each)).key == each.key
            with pytest.raises(InputError, match="another request"):
                await mirage.submit(request("mirako", "another"))
        async with hub(sandbox, tmp_path) as mirage:
            assert (await mirage.submit(request("mirako"))).key == OWN
        assert sandbox.statistics().purchases == {"mirako": 1, "miragic": 1}


def test_the_digest_of_a_form_knows_no_address() -> None:
    """Of whatever length it is; and everything else makes another digest."""

    def form(address: str, prompt: str = "a") -> Call:
        fields = (("prompt", prompt), ("notify", address))
        return Call(method="POST", path="/x", body=Form(fields), callback=(address,))

    assert digest_of(form("https://a.example/1")) == digest_of(form("https://another.example/" + "2" * 300))
    assert digest_of(form("https://a.example/1")) != digest_of(form("https://a.example/1", "b"))
    assert digest_of(Call(method="POST", path="/x")) != digest_of(Call(method="POST", path="/y"))


@pytest.mark.parametrize("key", ["", "A" * 32, "a" * 31, "a" * 33, "g" * 32, 7, b"a" * 32, "a" * 31 + "\n"])
async def test_a_key_of_another_form_is_refused(key: Any, tmp_path: Path) -> None:
    """Before anything else."""
    async with Sandbox() as sandbox, hub(sandbox, tmp_path) as mirage:
        with pytest.raises(InputError, match="key must be 32 lowercase hexadecimal digits"):
            await mirage.submit(request("mirako", key=key))
        assert sandbox.requests == []


async def test_a_key_needs_a_journal() -> None:
    """Without one nobody would remember it."""
    async with Sandbox() as sandbox, Mirage({"mirako": "k"}, base_urls=sandbox.base_urls) as mirage:
        with pytest.raises(InputError, match="key needs a journal"):
            await mirage.submit(request("mirako"))
        assert sandbox.requests == []


async def test_an_authentication_error_under_a_key_is_told_each_time(tmp_path: Path) -> None:
    """It is asked again, since nothing was bought."""
    async with Sandbox(durations=0.05) as sandbox, hub(sandbox, tmp_path) as mirage:
        for _ in range(2):
            sandbox.fail("mirako.create", Fault(status=401))
            with pytest.raises(AuthenticationError):
                await mirage.submit(request("mirako", references=[picture()]))
        assert sandbox.statistics().requests == {"mirako.create": 2}
