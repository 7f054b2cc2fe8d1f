"""What the next process gets back: jobs that were accepted, outcomes nobody has had, and nothing without a reason."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from typing import TYPE_CHECKING, Any

import pytest
from journal_bench import KEY, PROMPT, hub, intent, interrupted, job, left_after, picture, soon, until

from mirage_async import Job, JobStatus, Mirage
from mirage_async.exceptions import (
    ConfigurationError,
    DownloadError,
    InputError,
    JobCancelledError,
    JobError,
    JobExpiredError,
    JobFailedError,
    JournalError,
    MirageError,
    ServerError,
    SubmissionUncertainError,
)
from mirage_async.journal import EntryState, Journal, StoredError, journal_entries
from mirage_async.journal._outcomes import store
from mirage_async.sandbox import Fault, Sandbox

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

pytestmark = pytest.mark.anyio


async def states(mirage: Mirage) -> list[JobStatus]:
    """Return the states of what is recovered."""
    return [each.status for each in await mirage.recover()]


# -- accepted --------------------------------------------------------------------------------------------------------


async def test_accepted_jobs_are_attached_to_and_asked_about_at_once(tmp_path: Path) -> None:
    """One status call each where they have ended, no purchase, the oldest first."""
    async with Sandbox(durations=0.05) as sandbox:

        async def submit(mirage: Mirage) -> None:
            await mirage.mirako.submit(PROMPT)
            await mirage.miragic.submit(PROMPT, model="flux")
            await mirage.mirako.build_avatar("Ada", picture(size=(512, 512)))

        sandbox.set_progress("manual")
        left = await left_after(sandbox, tmp_path, submit)
        for each in sandbox.jobs.values():
            sandbox.finish_job(each.id)
        seen = len(sandbox.requests)
        async with hub(sandbox, left) as mirage:
            jobs = await mirage.recover()
            assert [(each.provider, each.kind.name, each.model) for each in jobs] == [
                ("mirako", "image", None),
                ("miragic", "image", "flux"),
                ("mirako", "avatar", None),
            ]
            results = [await soon(each.result()) for each in jobs]
            assert results[0].image.mime_type
            assert results[2].name == "Ada"
            questions = [request for request in sandbox.requests[seen:] if request.method == "GET"]
            assert [each.polls for each in jobs] == [1, 1, 1]
            assert {request.operation for request in questions} >= {"mirako.status", "miragic.status"}
            assert sum(sandbox.statistics().purchases.values()) == 3
            assert await mirage.recover() == []
        async with hub(sandbox, left) as mirage:
            assert await mirage.recover() == []


async def test_a_recovered_job_is_watched_as_long_as_asked(tmp_path: Path) -> None:
    """And one that nobody waited for to the end is owed again in the process after."""
    async with Sandbox(durations=60.0) as sandbox:
        left = await left_after(sandbox, tmp_path, lambda mirage: mirage.mirako.submit(PROMPT))
        async with hub(sandbox, left) as mirage:
            (found,) = await mirage.recover(max_wait=0.1)
            with pytest.raises(TimeoutError):
                await soon(found.result())
        async with hub(sandbox, left) as mirage:
            assert await states(mirage) == [JobStatus.QUEUED]
            with pytest.raises(InputError, match="max_wait"):
                await mirage.recover(max_wait=0)


async def test_a_purchase_that_was_confirmed_while_its_caller_was_cancelled_is_owed(tmp_path: Path) -> None:
    """Its id is on disk although nobody has ever seen it."""
    async with Sandbox(durations=60.0) as sandbox:

        async def leave(mirage: Mirage) -> None:
            waiting = asyncio.ensure_future(mirage.mirako.submit(PROMPT))
            await until(lambda: sandbox.requests)
            waiting.cancel()
            await until(lambda: journal_entries(tmp_path / "journal")[0].id)

        left = await left_after(sandbox, tmp_path, leave)
        async with hub(sandbox, left) as mirage:
            assert len(await mirage.recover()) == 1


async def test_two_who_recover_at_once_do_not_get_the_same_jobs(tmp_path: Path) -> None:
    """Each job has one handle."""
    async with Sandbox(durations=60.0) as sandbox:
        left = await left_after(sandbox, tmp_path, lambda mirage: mirage.mirako.submit(PROMPT))
        async with hub(sandbox, left) as mirage:
            both = await soon(asyncio.gather(mirage.recover(), mirage.recover()))
            assert sorted(map(len, both)) == [0, 1]


async def test_what_a_living_process_works_on_is_left_alone(tmp_path: Path) -> None:
    """Two hubs on one folder."""
    async with (
        Sandbox(durations=0.3) as sandbox,
        hub(sandbox, tmp_path) as one,
        hub(sandbox, tmp_path) as other,
    ):
        submitted = await one.mirako.submit(PROMPT)
        assert await other.recover() == []
        assert (await soon(submitted.result())).images


# -- settled, and not handed over ------------------------------------------------------------------------------------


async def _settled(mirage: Mirage, submit: Callable[[Mirage], Awaitable[Job[Any]]]) -> None:
    submitted = await submit(mirage)
    await until(lambda: submitted.done)


def answering(*pictures: bytes) -> Fault:
    """Return an answer of Mira's that carries the pictures themselves."""
    return Fault(status=200, body={"data": [{"b64_json": base64.b64encode(data).decode()} for data in pictures]})


async def test_pictures_that_exist_nowhere_else_come_from_files(tmp_path: Path) -> None:
    """Byte for byte, with all that was known of them, and without a request."""
    pictures = [picture("red"), picture("green", (40, 30)), picture("blue")]
    async with Sandbox(durations=0.05) as sandbox:
        sandbox.fail("mira.generate", answering(*pictures))
        left = await left_after(
            sandbox, tmp_path, lambda mirage: _settled(mirage, lambda it: it.mira.submit(PROMPT, n=3))
        )
        seen = len(sandbox.requests)
        async with hub(sandbox, left) as mirage:
            (found,) = await mirage.recover()
            assert (found.done, found.status, found.id) == (True, JobStatus.SUCCEEDED, None)
            result = await found
            assert (len(result.images), result.requested, result.key) == (3, 3, found.key)
            assert [(image.width, image.height) for image in result.images] == [(32, 32), (40, 30), (32, 32)]
            assert {image.mime_type for image in result.images} == {"image/png"}
            assert [await image.read() for image in result.images] == pictures
            saved = [await image.save(tmp_path / str(number)) for number, image in enumerate(result.images)]
            assert [path.read_bytes() for path in saved] == pictures
            assert len({image.name for image in result.images}) == 3
            assert len(sandbox.requests) == seen
            assert await mirage.recover() == []
        async with hub(sandbox, left) as mirage:
            assert await mirage.recover() == []


async def test_the_picture_of_a_caller_who_was_killed_before_he_had_it_is_owed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mirako's blocking endpoint sends it in the answer."""
    monkeypatch.setattr(Journal, "handed_over", lambda *_: None)
    async with Sandbox(durations=0.05) as sandbox:
        had: list[bytes] = []

        async def generate(mirage: Mirage) -> None:
            had.append(await (await mirage.mirako.generate(PROMPT)).image.read())

        left = await left_after(sandbox, tmp_path, generate)
        async with hub(sandbox, left) as mirage:
            (found,) = await mirage.recover()
            assert await (await found).image.read() == had[0]


@pytest.mark.parametrize("provider", ["mira", "milady"])
async def test_pictures_that_have_an_address_are_fetched_from_there(provider: str, tmp_path: Path) -> None:
    """Their bytes are on no disk of ours."""
    async with Sandbox(durations=0.05) as sandbox:
        left = await left_after(
            sandbox, tmp_path, lambda mirage: _settled(mirage, lambda it: getattr(it, provider).submit(PROMPT))
        )
        assert list((left / "pictures").iterdir()) == []
        async with hub(sandbox, left) as mirage:
            (found,) = await mirage.recover()
            assert len(await (await found).image.read()) > 100
        assert sandbox.statistics().purchases == {provider: 1}


@pytest.mark.parametrize(("written", "expected"), [((0, 1), 2), ((0,), 1), ((), 0)])
async def test_pictures_that_were_written_without_their_row_are_found(
    written: tuple[int, ...], expected: int, tmp_path: Path
) -> None:
    """The files go first, so a process may die in between; what is there is a result, and nothing is uncertain."""
    pictures = [picture("red"), picture("green")]
    async with Sandbox(durations=0.05) as sandbox:
        sandbox.fail("mira.generate", answering(*pictures))
        left = await interrupted(sandbox, tmp_path, lambda mirage: mirage.mira.generate(PROMPT, n=2))
        key = journal_entries(left)[0].key
        for number in written:
            (left / "pictures" / f"{key}-{number + 1}.png").write_bytes(pictures[number])
        (left / "pictures" / f".{key}-2.png.part").write_bytes(pictures[1][:40])
        async with hub(sandbox, left) as mirage:
            (found,) = await mirage.recover()
            if not expected:
                with pytest.raises(SubmissionUncertainError):
                    await soon(found.result())
                return
            result = await found
            assert (len(result.images), result.requested) == (expected, 2)
            assert [await image.read() for image in result.images] == pictures[:expected]
            assert (result.images[0].mime_type, result.images[0].width) == ("image/png", 32)


async def test_a_file_that_is_no_picture_is_kept_as_it_is(tmp_path: Path) -> None:
    """It is what was paid for, whatever it is."""
    async with Sandbox(durations=0.05) as sandbox:
        left = await interrupted(sandbox, tmp_path, lambda mirage: mirage.mira.generate(PROMPT))
        (left / "pictures" / f"{journal_entries(left)[0].key}-1.bin").write_bytes(b"noise")
        async with hub(sandbox, left) as mirage:
            (found,) = await mirage.recover()
            image = (await found).image
            assert (await image.read(), image.mime_type) == (b"noise", None)


async def test_a_blocking_result_is_owed_until_it_was_handed_over(tmp_path: Path) -> None:
    """It comes again in every process until somebody awaits it."""
    async with Sandbox(durations=0.05) as sandbox:
        left = await left_after(sandbox, tmp_path, lambda mirage: _settled(mirage, lambda it: it.mira.submit(PROMPT)))
        for _ in range(2):
            async with hub(sandbox, left) as mirage:
                assert await states(mirage) == [JobStatus.SUCCEEDED]


async def test_pictures_that_were_changed_lost_or_cut_say_so(tmp_path: Path) -> None:
    """Nothing is passed off as what was bought."""
    async with Sandbox(durations=0.05) as sandbox:

        async def settle(mirage: Mirage) -> None:
            for pictures in ((picture(), picture("red")), (picture()[:-20],)):
                sandbox.fail("mira.generate", answering(*pictures))
                await _settled(mirage, lambda it: it.mira.submit(PROMPT, n=2))

        left = await left_after(sandbox, tmp_path, settle)
        changed, gone = sorted(left.joinpath("pictures").glob(f"{journal_entries(left)[0].key}-*"))
        changed.write_bytes(b"something else")
        gone.unlink()
        async with hub(sandbox, left) as mirage:
            two, cut = await mirage.recover()
            images = (await two).images
            with pytest.raises(DownloadError, match="has been changed since"):
                await images[0].read()
            with pytest.raises(DownloadError, match="cannot be read: No such file"):
                await images[1].save(tmp_path / "x.png")
            with pytest.raises(DownloadError, match="came cut short, and there is no other"):
                await (await cut).image.read()


async def test_a_finished_job_whose_pictures_are_not_on_record_is_asked_about_again(tmp_path: Path) -> None:
    """That costs one status call, which brings them."""
    async with Sandbox(durations=0.05) as sandbox:
        left = await left_after(sandbox, tmp_path, lambda mirage: _settled(mirage, lambda it: it.mirako.submit(PROMPT)))
        assert journal_entries(left)[0].state is EntryState.SUCCEEDED
        async with hub(sandbox, left) as mirage:
            (found,) = await mirage.recover()
            assert (await soon(found.result())).image.mime_type
            assert found.polls == 1


@pytest.mark.parametrize("status", [404, 410, 503])
async def test_a_finished_job_whose_links_are_on_record_has_its_result(status: int, tmp_path: Path) -> None:
    """Also where the provider has forgotten it since, or is down."""
    async with Sandbox(durations=0.05) as sandbox:
        left = await left_after(
            sandbox, tmp_path, lambda mirage: _settled(mirage, lambda it: it.miragic.submit(PROMPT))
        )
        (entry,) = journal_entries(left)
        assert entry.outcome is not None
        (stored,) = entry.outcome.images
        sandbox.fail("miragic.status", Fault(status=status), times=None)
        async with hub(sandbox, left) as mirage:
            (found,) = await mirage.recover()
            result = await soon(found.result())
            image = result.image
            assert (image.mime_type, image.width, image.height) == (stored.mime_type, stored.width, stored.height)
            assert (result.job_id, result.key, result.credits) == (entry.id, entry.key, entry.outcome.credits)
            assert hashlib.sha256(await image.read()).hexdigest() == stored.sha256
        assert journal_entries(left)[0].handed_over


async def test_links_on_record_that_no_longer_work_are_renewed(tmp_path: Path) -> None:
    """By asking for the job, once."""
    async with Sandbox(durations=0.05) as sandbox:
        left = await left_after(
            sandbox, tmp_path, lambda mirage: _settled(mirage, lambda it: it.miragic.submit(PROMPT))
        )
        sandbox.fail("miragic.download", Fault(status=410))
        seen = len(sandbox.requests)
        async with hub(sandbox, left) as mirage:
            (found,) = await mirage.recover()
            image = (await found).image
            assert len(sandbox.requests) == seen
            old = image.url
            assert len(await image.read()) > 100
            assert image.url != old
            asked = [each.operation for each in sandbox.requests[seen:]]
            assert asked == ["miragic.download", "miragic.status", "miragic.download"]


async def test_an_avatar_that_is_ready_is_restored(tmp_path: Path) -> None:
    """Without a request."""
    async with Sandbox(durations=0.05) as sandbox:
        left = await left_after(
            sandbox,
            tmp_path,
            lambda mirage: _settled(mirage, lambda it: it.mirako.build_avatar("Ada", picture(size=(512, 512)))),
        )
        seen = len(sandbox.requests)
        async with hub(sandbox, left) as mirage:
            (found,) = await mirage.recover()
            avatar = await found
            assert (avatar.name, avatar.id, avatar.status) == ("Ada", found.id, "READY")
            assert avatar.created_at is not None
            assert len(sandbox.requests) == seen


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (JobFailedError, JobStatus.FAILED),
        (JobCancelledError, JobStatus.CANCELLED),
        (JobExpiredError, JobStatus.EXPIRED),
    ],
)
async def test_an_error_is_restored_with_all_it_says(kind: type[JobError], status: JobStatus, tmp_path: Path) -> None:
    """Class, words, id, token and what is known about money."""
    ends: dict[type[JobError], Any] = {JobCancelledError: "cancelled", JobExpiredError: "timed_out"}
    async with Sandbox(progress="manual") as sandbox:
        before: list[Any] = []

        async def fail(mirage: Mirage) -> None:
            submitted = await mirage.mirako.submit(PROMPT)
            assert submitted.id is not None
            sandbox.fail_job(submitted.id, end=ends.get(kind, "failed"))
            await until(lambda: submitted.done)
            before.append(submitted._outcome[1])  # type: ignore[index]

        left = await left_after(sandbox, tmp_path, fail)
        async with hub(sandbox, left) as mirage:
            (found,) = await mirage.recover()
            assert found.status is status
            with pytest.raises(kind) as caught:
                await found
            assert vars(caught.value) == vars(before[0])
            assert str(caught.value) == str(before[0])
            assert caught.value.billed == before[0].billed


async def test_a_failure_of_a_blocking_provider_is_restored(tmp_path: Path) -> None:
    """With its status."""
    async with Sandbox() as sandbox:
        sandbox.fail("milady.generate", Fault(status=500))
        left = await left_after(sandbox, tmp_path, lambda mirage: _settled(mirage, lambda it: it.milady.submit(PROMPT)))
        async with hub(sandbox, left) as mirage:
            (found,) = await mirage.recover()
            with pytest.raises(ServerError) as caught:
                await found
            assert (caught.value.status, caught.value.billed) == (500, "unknown")


@pytest.mark.parametrize("name", ["NoSuchError", "Billed", "annotations", "MirageError"])
def test_an_error_of_a_class_that_is_gone_is_restored_as_the_root(name: str) -> None:
    """Nothing but an error of ours is ever made of what a file says."""
    error = StoredError(kind=name, message="words", attributes={"billed": "yes"}).rebuild()
    assert (type(error), str(error), error.billed) == (MirageError, "words", "yes")


def test_what_json_cannot_hold_of_an_error_is_left_out() -> None:
    """The rest is kept."""
    error = ServerError("no", status=500, details={"deep": object()})
    stored, made = store(error, key="k", spooled=True, prompts=False)
    assert made == []
    assert stored.error is not None
    assert "details" not in stored.error.attributes
    assert stored.error.attributes["status"] == 500


async def test_a_result_that_was_handed_over_is_not_owed(tmp_path: Path) -> None:
    """Nor is one that was refused."""
    async with Sandbox(durations=0.05) as sandbox:

        async def use(mirage: Mirage) -> None:
            await mirage.mira.generate(PROMPT)
            await mirage.miragic.generate(PROMPT)
            sandbox.fail("mira.generate", Fault(status=402))
            with pytest.raises(MirageError):
                await mirage.mira.generate(PROMPT)
            await until(lambda: sum(entry.handed_over for entry in journal_entries(tmp_path / "journal")) == 2)

        left = await left_after(sandbox, tmp_path, use)
        async with hub(sandbox, left) as mirage:
            assert await mirage.recover() == []


# -- whose they are --------------------------------------------------------------------------------------------------


async def test_jobs_without_a_key_or_of_another_account_stay_owed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With a warning that names them; `any_account` takes those of another key of the same provider."""
    async with Sandbox(durations=0.05) as sandbox:

        async def submit(mirage: Mirage) -> None:
            await mirage.mirako.submit(PROMPT)
            await mirage.miragic.submit(PROMPT)

        left = await left_after(sandbox, tmp_path, submit)
        ids = [entry.id for entry in journal_entries(left)]
        async with Mirage(
            {"mirako": "another-key"}, base_urls={"mirako": sandbox.base_urls["mirako"]}, journal=Journal(left)
        ) as mirage:
            assert await mirage.recover() == []
            assert f"the mirako job {ids[0]} stays owed: it was bought with another key or at another address" in (
                caplog.text
            )
            assert f"the miragic job {ids[1]} stays owed: no miragic key" in caplog.text
            assert [each.id for each in await mirage.recover(any_account=True)] == ids[:1]
        async with hub(sandbox, left) as mirage:
            assert [each.id for each in await mirage.recover()] == ids


async def test_a_kind_this_version_does_not_know_stays_owed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """And so does a provider's it does not know."""
    async with Sandbox(durations=0.05) as sandbox:
        journal = Journal(tmp_path)
        for kind, provider in (("video", "mirako"), ("image", "midjourney")):
            owner = job(journal, kind=kind, provider=provider)
            await journal.intended(owner, intent())
            owner.id = "task-1"
            await journal.accepted(owner)
        await journal.aclose()
        async with hub(sandbox, tmp_path) as mirage:
            assert await mirage.recover() == []
            assert "stays owed: this version knows no video" in caplog.text
            assert "stays owed: provider must be one of" in caplog.text
        assert all(entry.owed for entry in journal_entries(tmp_path))


async def test_who_leaves_a_recovery_and_closes_hears_of_no_failure(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In whatever turn of the event loop: what is owed stays owed, and nothing has gone wrong."""
    async with Sandbox(durations=60.0) as sandbox:

        async def submit(mirage: Mirage) -> None:
            await mirage.mirako.submit(PROMPT)
            await mirage.miragic.submit(PROMPT)

        left = await left_after(sandbox, tmp_path, submit)
        for turns in range(40):
            async with hub(sandbox, left) as mirage:
                recovering = asyncio.ensure_future(mirage.recover())
                for _ in range(turns):
                    await asyncio.sleep(0)
                recovering.cancel()
                await asyncio.sleep(0)
        async with hub(sandbox, left) as mirage:
            assert len(await soon(mirage.recover())) == 2
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_there_is_nothing_to_recover_from_without_a_journal() -> None:
    """And a journal is nothing else."""
    async with Mirage({"mirako": KEY}) as mirage:
        with pytest.raises(ConfigurationError, match="nothing to recover from without a journal"):
            await mirage.recover()
    with pytest.raises(InputError, match="journal must be a Journal or None; got a value of type str"):
        Mirage(journal="journal")  # type: ignore[arg-type]


@pytest.mark.parametrize("value", ["Report", "", None, 3, ["report"]])
async def test_what_to_do_about_uncertain_ones_is_checked(tmp_path: Path, value: Any) -> None:
    """Before anything is taken over."""
    async with Mirage({"mirako": KEY}, journal=Journal(tmp_path)) as mirage:
        with pytest.raises(InputError, match="on_uncertain must be one of 'report', 'resubmit', 'abandon'"):
            await mirage.recover(on_uncertain=value)


async def test_a_closed_hub_recovers_nothing(tmp_path: Path) -> None:
    """Its journal is closed with it."""
    async with Mirage({"mirako": KEY}, journal=Journal(tmp_path)) as mirage:
        journal = mirage._runtime.journal
    with pytest.raises(MirageError, match="closed"):
        await mirage.recover()
    assert journal is not None
    with pytest.raises(JournalError, match="closed"):
        await journal.owed()
