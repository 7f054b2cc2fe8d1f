"""What can still tell whether a purchase was made: Mirako's list of avatars, and a webhook that comes late."""

from __future__ import annotations

import asyncio
import json
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from journal_bench import PROMPT, hub, intent, interrupted, job, picture, soon, until

from mirage_async import Avatar, JobStatus, Mirage
from mirage_async.clients import _recovery as recovery
from mirage_async.clients.mirako import MirakoClient
from mirage_async.exceptions import ClosedError, JournalError, ServerError, SubmissionUncertainError
from mirage_async.journal import EntryState, Journal, journal_entries
from mirage_async.sandbox import Fault, Sandbox
from mirage_async.webhooks import WebhookReceiver
from mirage_async.wire import mirako

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio

SECRET = "V1StGXR8_Z5jdHi6B-myT0p3Lq9wNcYs"


def receiver() -> WebhookReceiver:
    """Return a receiver nobody reaches by itself: the tests deliver."""
    return WebhookReceiver(public_url="http://127.0.0.1:9/hooks", secret=SECRET)


def deliver(hooks: WebhookReceiver, key: str, job_id: str | None) -> int:
    """Deliver what Mirako would about a job, and return the answer's status."""
    url, bearer = hooks.callback("mirako", key)
    body = json.dumps({"id": job_id, "status": "COMPLETED"}).encode()
    return hooks.handle("POST", url, {"Authorization": f"Bearer {bearer}"}, body).status


def build(mirage: Mirage) -> Any:
    """Buy an avatar."""
    return mirage.mirako.build_avatar("Ada", picture(size=(512, 512)))


def submit(mirage: Mirage) -> Any:
    """Buy a picture as a job."""
    return mirage.mirako.submit(PROMPT)


# -- the list --------------------------------------------------------------------------------------------------------


async def test_an_avatar_in_the_list_heals_its_purchase(tmp_path: Path) -> None:
    """The one of that name, made at that time; it is watched and nothing is bought."""
    async with Sandbox(durations=0.05) as sandbox:
        left = await interrupted(sandbox, tmp_path, build)
        async with hub(sandbox, left) as mirage:
            (found,) = await mirage.recover()
            assert found.status is JobStatus.SUBMITTING
            avatar = await soon(found.result())
            assert (avatar.name, avatar.id) == ("Ada", found.id)
            assert mirage.mirako.jobs == ()
        assert sandbox.statistics().purchases == {"mirako": 1}
        (entry,) = journal_entries(left)
        assert (entry.state, entry.id, entry.handed_over) == (EntryState.SUCCEEDED, avatar.id, True)


async def test_an_avatar_that_was_never_taken_is_uncertain(tmp_path: Path) -> None:
    """None of that name is in the list."""
    async with Sandbox(durations=0.05) as sandbox:
        left = await interrupted(sandbox, tmp_path, build)
        sandbox.reset("state")
        async with hub(sandbox, left) as mirage:
            (found,) = await mirage.recover()
            with pytest.raises(SubmissionUncertainError):
                await soon(found.result())


@pytest.mark.parametrize(
    ("listed", "heals"),
    [
        ([("Ada", 0)], True),
        ([("Ada", 599)], True),
        ([("Ada", -599)], True),
        ([("Ada", 601)], False),
        ([("Ada", -601)], False),
        ([("Ada", None)], False),
        ([("ada", 0)], False),
        ([("Ada", 0), ("Ada", 30)], False),
        ([("Ada", 0), ("Ada", 900), ("Eve", 0)], True),
    ],
)
async def test_only_one_of_the_name_and_the_time_is_it(
    listed: list[tuple[str, float | None]], heals: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten minutes either way, since two clocks have a say; of two nobody knows which."""
    async with Sandbox(durations=0.05) as sandbox:
        left = await interrupted(sandbox, tmp_path, build)
        (entry,) = journal_entries(left)

        async def avatars(self: MirakoClient) -> tuple[Avatar, ...]:
            return tuple(
                Avatar(
                    id=f"avatar-{number}",
                    name=name,
                    status="READY",
                    created_at=None if at is None else datetime.fromtimestamp(entry.intended_at + at, UTC),
                )
                for number, (name, at) in enumerate(listed)
            )

        monkeypatch.setattr(MirakoClient, "list_avatars", avatars)
        async with hub(sandbox, left) as mirage:
            (found,) = await mirage.recover()
            await until(lambda: found.id or found.done)
            assert found.id == ("avatar-0" if heals else None)


async def test_an_avatar_that_is_on_record_already_is_another_purchase(tmp_path: Path) -> None:
    """Two of one name were bought; the one whose id is known does not stand in for the other."""
    async with Sandbox(durations=0.05) as sandbox:
        left = await interrupted(sandbox, tmp_path, build)
        (avatar,) = sandbox.jobs.values()
        journal = Journal(left)
        other = job(journal, kind="avatar", id=avatar.id)
        await journal.intended(other, intent(label="Ada"))
        await journal.accepted(other)
        journal.handed_over(other)
        await journal.aclose()
        async with hub(sandbox, left) as mirage:
            (found,) = await mirage.recover()
            with pytest.raises(SubmissionUncertainError):
                await soon(found.result())


async def test_a_list_that_cannot_be_had_heals_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, and the purchase is uncertain, to be looked for again."""

    async def trouble(self: MirakoClient) -> Any:
        raise ServerError("no", status=500)

    async with Sandbox(durations=0.05) as sandbox:
        left = await interrupted(sandbox, tmp_path, build)
        with monkeypatch.context() as patch:
            patch.setattr(MirakoClient, "list_avatars", trouble)
            async with hub(sandbox, left) as mirage:
                (found,) = await mirage.recover()
                await until(lambda: found.done)
                assert "cannot be looked up" in caplog.text
        async with hub(sandbox, left) as mirage:
            (found,) = await mirage.recover()
            assert (await soon(found.result())).name == "Ada"


async def test_closing_while_the_list_is_asked_for_ends_the_wait(tmp_path: Path) -> None:
    """The waiter hears that the hub was closed, and the purchase is as it was."""
    async with Sandbox(durations=0.05) as sandbox:
        left = await interrupted(sandbox, tmp_path, build)
        sandbox.fail("mirako.avatar_list", Fault(status=503, retry_after=20))
        async with hub(sandbox, left) as mirage:
            (found,) = await mirage.recover(on_uncertain="abandon")
            waiting = asyncio.ensure_future(found.result())
            await until(lambda: any(each.operation == "mirako.avatar_list" for each in sandbox.requests))
            await asyncio.sleep(0.05)
        with pytest.raises(ClosedError) as caught:
            await soon(waiting)
        assert caught.value.billed == "unknown"
        assert journal_entries(left)[0].state is EntryState.INTENDED


# -- webhooks --------------------------------------------------------------------------------------------------------


async def test_a_webhook_that_comes_during_the_recovery_heals_its_purchase(tmp_path: Path) -> None:
    """Its address carries our key, its body the id, and one status call with our own key confirms that."""
    async with Sandbox(durations=0.05) as sandbox:
        left = await _announced(sandbox, tmp_path)
        hooks = receiver()
        async with hub(sandbox, left, webhooks=hooks) as mirage:
            (found,) = await mirage.recover()
            await asyncio.sleep(0.05)
            assert not found.done
            assert deliver(hooks, found.key, _id(sandbox)) == 204
            assert (await soon(found.result())).images
            assert found.id == _id(sandbox)
        assert sandbox.statistics().purchases == {"mirako": 1}
        assert journal_entries(left)[0].state is EntryState.SUCCEEDED


async def _announced(sandbox: Sandbox, tmp_path: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Mirage, "__init__", _with_receiver(Mirage.__init__))
        return await interrupted(sandbox, tmp_path, submit)


def _with_receiver(init: Any) -> Any:
    def initialise(self: Mirage, *arguments: Any, **options: Any) -> None:
        init(self, *arguments, **{"webhooks": receiver(), **options})

    return initialise


def _id(sandbox: Sandbox) -> str:
    return next(iter(sandbox.jobs))


async def test_a_webhook_that_came_before_the_recovery_heals_as_well(tmp_path: Path) -> None:
    """It is parked for as long as an early one."""
    async with Sandbox(durations=0.05) as sandbox:
        left = await _announced(sandbox, tmp_path)
        hooks = receiver()
        async with hub(sandbox, left, webhooks=hooks) as mirage:
            deliver(hooks, journal_entries(left)[0].key, _id(sandbox))
            await asyncio.sleep(0.02)
            assert journal_entries(left)[0].state is EntryState.INTENDED
            (found,) = await mirage.recover()
            assert (await soon(found.result())).images


@pytest.mark.parametrize("claimed", ["no-such-job", "../../v1/avatars", "", None])
async def test_a_claim_that_is_not_confirmed_heals_nothing(
    claimed: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anybody who knows the address can claim any id."""
    async with Sandbox(durations=0.05) as sandbox:
        left = await _announced(sandbox, tmp_path)
        hooks = receiver()
        async with hub(sandbox, left, webhooks=hooks) as mirage:
            (found,) = await mirage.recover()
            await asyncio.sleep(0.02)
            deliver(hooks, found.key, claimed)
            with pytest.raises(SubmissionUncertainError):
                await soon(found.result())
        assert ("cannot be confirmed" in caplog.text) is (claimed is not None)


async def test_the_id_of_another_purchase_is_no_confirmation(tmp_path: Path) -> None:
    """It exists and it is ours, but it is spoken for."""
    async with Sandbox(durations=0.05) as sandbox:
        left = await _announced(sandbox, tmp_path)
        hooks = receiver()
        async with hub(sandbox, left, webhooks=hooks) as mirage:
            other = await mirage.mirako.submit(PROMPT)
            (found,) = await mirage.recover()
            await asyncio.sleep(0.02)
            deliver(hooks, found.key, other.id)
            with pytest.raises(SubmissionUncertainError):
                await soon(found.result())


@pytest.mark.parametrize("fault", [Fault(status=500), Fault(reset=True), Fault(status=429, retry_after=0)])
async def test_trouble_while_confirming_is_asked_through(fault: Fault, tmp_path: Path) -> None:
    """A webhook comes once, and what it tells of is paid for."""
    async with Sandbox(durations=0.05) as sandbox:
        left = await _announced(sandbox, tmp_path)
        hooks = receiver()
        async with hub(sandbox, left, webhooks=hooks) as mirage:
            (found,) = await mirage.recover()
            await asyncio.sleep(0.02)
            sandbox.fail("mirako.status", fault)
            deliver(hooks, found.key, _id(sandbox))
            assert (await soon(found.result())).images


async def test_a_provider_that_does_not_answer_confirms_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Asking ends, sooner or later."""
    monkeypatch.setattr(recovery, "CONFIRM_TIMEOUT", 0.05)
    monkeypatch.setattr(recovery, "CONFIRM_TRIES", 2)
    async with Sandbox(durations=0.05) as sandbox:
        left = await _announced(sandbox, tmp_path)
        hooks = receiver()
        async with hub(sandbox, left, webhooks=hooks) as mirage:
            (found,) = await mirage.recover()
            await asyncio.sleep(0.02)
            for _ in range(2):
                sandbox.fail("mirako.status", Fault(stall=30))
            deliver(hooks, found.key, _id(sandbox))
            with pytest.raises(SubmissionUncertainError):
                await soon(found.result())
        assert "cannot be confirmed" in caplog.text


@pytest.mark.parametrize("typical", [0.05, None])
async def test_nobody_waits_for_a_webhook_longer_than_such_a_job_takes(
    typical: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or, where no document says how long that is, than a minute; then it is called uncertain."""
    monkeypatch.setattr(recovery, "TYPICAL", 0.05)
    monkeypatch.setattr(mirako, "IMAGE_PACE", msgspec.structs.replace(mirako.IMAGE_PACE, typical=typical))
    async with Sandbox(durations=0.05) as sandbox:
        left = await _announced(sandbox, tmp_path)
        async with hub(sandbox, left, webhooks=receiver()) as mirage:
            (found,) = await mirage.recover()
            with pytest.raises(SubmissionUncertainError):
                await soon(found.result())


async def test_closing_while_a_webhook_is_waited_for_ends_at_once(tmp_path: Path) -> None:
    """Not after the time such a job takes, and without asking what to do."""
    async with Sandbox(durations=0.05) as sandbox:
        left = await _announced(sandbox, tmp_path)
        async with hub(sandbox, left, webhooks=receiver()) as mirage:
            (found,) = await mirage.recover(on_uncertain="abandon")
            waiting = asyncio.ensure_future(found.result())
            await asyncio.sleep(0.05)
            began = asyncio.get_running_loop().time()
            await soon(mirage.aclose())
            assert asyncio.get_running_loop().time() - began < 1.5
        with pytest.raises(ClosedError):
            await soon(waiting)
        assert journal_entries(left)[0].state is EntryState.INTENDED


async def test_a_webhook_heals_what_was_called_uncertain_already(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In the same process: the journal takes its id, and `recover()` returns it."""
    async with Sandbox(durations=0.05) as sandbox:
        hooks = receiver()
        async with hub(sandbox, tmp_path, webhooks=hooks) as mirage:
            sandbox.fail("mirako.create", Fault(reset=True, when="after"))
            with pytest.raises(SubmissionUncertainError) as caught:
                await mirage.mirako.submit(PROMPT)
            key = str(caught.value.key)
            assert await mirage.recover() == []
            deliver(hooks, key, "forged")
            deliver(hooks, key, None)
            deliver(hooks, "0" * 32, _id(sandbox))
            await asyncio.sleep(0.05)
            assert journal_entries(tmp_path)[0].state is EntryState.UNCERTAIN
            deliver(hooks, key, _id(sandbox))
            await until(lambda: "was bought after all" in caplog.text)
            assert journal_entries(tmp_path)[0].state is EntryState.ACCEPTED
            (found,) = await mirage.recover()
            assert (await soon(found.result())).images
            assert found.key == key
            assert await mirage.recover() == []
        assert sandbox.statistics().purchases == {"mirako": 1}


async def test_a_webhook_about_another_accounts_purchase_heals_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """This key could not confirm it."""
    async with Sandbox(durations=0.05) as sandbox:
        async with hub(sandbox, tmp_path, webhooks=receiver()) as mirage:
            sandbox.fail("mirako.create", Fault(reset=True, when="after"))
            with pytest.raises(SubmissionUncertainError) as caught:
                await mirage.mirako.submit(PROMPT)
        hooks = receiver()
        async with hub(sandbox, tmp_path, webhooks=hooks, api_keys={"mirako": "another-key"}) as mirage:
            deliver(hooks, str(caught.value.key), _id(sandbox))
            await until(lambda: "stays owed" in caplog.text)
        assert journal_entries(tmp_path)[0].state is EntryState.UNCERTAIN


async def test_a_webhook_about_a_purchase_of_another_living_process_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As behind a load balancer: nobody writes into the other's file, and the log has the id."""
    hooks = receiver()
    async with (
        Sandbox(durations=0.05) as sandbox,
        hub(sandbox, tmp_path, webhooks=receiver()) as one,
        hub(sandbox, tmp_path, webhooks=hooks),
    ):
        sandbox.fail("mirako.create", Fault(reset=True, when="after"))
        with pytest.raises(SubmissionUncertainError) as caught:
            await one.mirako.submit(PROMPT)
        deliver(hooks, str(caught.value.key), _id(sandbox))
        await until(lambda: "was bought after all" in caplog.text)
        assert f"it is the mirako job {_id(sandbox)}; the process that made the purchase" in caplog.text
        assert journal_entries(tmp_path)[0].state is EntryState.UNCERTAIN


async def test_a_webhook_the_journal_cannot_note_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And costs nobody anything else."""

    async def refuse(*_: object, **__: object) -> Any:
        raise JournalError("full")

    async with Sandbox(durations=0.05) as sandbox:
        hooks = receiver()
        async with hub(sandbox, tmp_path, webhooks=hooks) as mirage:
            sandbox.fail("mirako.create", Fault(reset=True, when="after"))
            with pytest.raises(SubmissionUncertainError) as caught:
                await mirage.mirako.submit(PROMPT)
            monkeypatch.setattr(Journal, "entry", refuse)
            caplog.set_level(logging.ERROR)
            deliver(hooks, str(caught.value.key), _id(sandbox))
            await until(lambda: "full" in caplog.text)


async def test_a_webhook_after_the_end_of_the_hub_is_no_work(tmp_path: Path) -> None:
    """The address still answers, and nothing is begun."""
    async with Sandbox(durations=0.05) as sandbox:
        hooks = receiver()
        async with hub(sandbox, tmp_path, webhooks=hooks) as mirage:
            pass
        assert deliver(hooks, "0" * 32, "task-1") == 204
        await asyncio.sleep(0)
        assert len(mirage._runtime.buyers) == 0


# -- many of one name -------------------------------------------------------------------------------------------------


async def uncertain(folder: Path, *names: str) -> None:
    """Record the intents to build avatars of these names."""
    journal = Journal(folder)
    for name in names:
        await journal.intended(job(journal, kind="avatar"), intent(label=name))
    await journal.aclose()


async def test_of_two_purchases_of_one_name_neither_is_given_the_one_avatar(tmp_path: Path) -> None:
    """One of them was taken, and nobody knows which; another name has nothing to do with it. The list is asked once."""
    async with Sandbox(durations=0.05) as sandbox:
        async with hub(sandbox, tmp_path / "other") as mirage:
            ids = [(await build(mirage)).id, (await mirage.mirako.build_avatar("Eve", picture(size=(512, 512)))).id]
        await uncertain(tmp_path / "left", "Ada", "Ada", "Eve", "Zoe")
        before = len(sandbox.requests)
        async with hub(sandbox, tmp_path / "left") as mirage:
            found = await mirage.recover(any_account=True)
            await until(lambda: all(each.id or each.done for each in found))
            assert [each.id for each in found] == [None, None, ids[1], None]
            lists = [each for each in list(sandbox.requests)[before:] if each.path == "/v1/avatar/list"]
            assert len(lists) == 1


async def test_two_recoveries_do_not_give_one_id_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second comes before the first has its id on record."""

    async def listed(self: MirakoClient, entries: Any) -> dict[str, str]:
        return {entry.key: "avatar-0" for entry in entries}

    async def unknown(self: Journal, provider: str, id: str) -> bool:  # noqa: A002
        return False

    monkeypatch.setattr(MirakoClient, "listed_ids", listed)
    monkeypatch.setattr(Journal, "knows_id", unknown)
    async with Sandbox(durations=0.05) as sandbox:
        await uncertain(tmp_path, "Ada", "Ada")
        async with hub(sandbox, tmp_path) as mirage:
            found = await mirage.recover(any_account=True)
            await until(lambda: all(each.id or each.done for each in found))
            assert sorted(each.id or "" for each in found) == ["", "avatar-0"]
