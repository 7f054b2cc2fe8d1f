"""Purchases nobody knows the end of: nothing can heal them, and the caller decides."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from journal_bench import PROMPT, files, hub, interrupted, picture, soon, until

from mirage_async import JobStatus
from mirage_async.clients._recovery import Recovery
from mirage_async.exceptions import (
    JournalError,
    MirageError,
    SubmissionUncertainError,
)
from mirage_async.journal import EntryState, Journal, journal_entries
from mirage_async.sandbox import Fault, Sandbox

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio


async def test_an_intent_without_an_answer_is_reported_and_never_sent_again(tmp_path: Path) -> None:
    """Awaiting it says so; handed over, it stays on record and is not returned again."""
    async with Sandbox(durations=0.05) as sandbox:
        left = await interrupted(sandbox, tmp_path, lambda mirage: mirage.miragic.submit(PROMPT))
        async with hub(sandbox, left) as mirage:
            (found,) = await mirage.recover()
            with pytest.raises(SubmissionUncertainError, match="may or may not have taken the image") as caught:
                await soon(found.result())
            assert (caught.value.key, caught.value.billed) == (found.key, "unknown")
            assert found.status is JobStatus.UNCERTAIN
            assert mirage.miragic.jobs == ()
            assert await mirage.recover() == []
        async with hub(sandbox, left) as mirage:
            assert await mirage.recover() == []
            (entry,) = journal_entries(left)
            assert (entry.state, entry.handed_over) == (EntryState.UNCERTAIN, True)
        assert sandbox.statistics().purchases == {"miragic": 1}


async def test_an_uncertain_one_nobody_was_told_of_comes_again(tmp_path: Path) -> None:
    """Until somebody awaits it."""
    async with Sandbox(durations=0.05) as sandbox:
        left = await interrupted(sandbox, tmp_path, lambda mirage: mirage.miragic.submit(PROMPT))
        for _ in range(2):
            async with hub(sandbox, left) as mirage:
                (found,) = await mirage.recover()
                await until(lambda: found.done)  # noqa: B023 - called before the next
        assert journal_entries(left)[0].state is EntryState.UNCERTAIN


@pytest.mark.parametrize(
    ("buy", "provider"),
    [
        (lambda mirage: mirage.miragic.submit(PROMPT), "miragic"),
        (lambda mirage: mirage.mirako.submit(PROMPT), "mirako"),
        (lambda mirage: mirage.mirako.generate(PROMPT), "mirako"),
        (lambda mirage: mirage.mira.generate(PROMPT, reference_images=[picture()]), "mira"),
        (lambda mirage: mirage.milady.generate(PROMPT), "milady"),
    ],
    ids=["miragic", "mirako, as a job", "mirako, at once", "mira", "milady"],
)
async def test_resubmitting_sends_the_same_request_once_more(buy: Any, provider: str, tmp_path: Path) -> None:
    """Exactly one POST, under the same key, which counts the attempt that may have bought something, too."""
    async with Sandbox(durations=0.05) as sandbox:
        left = await interrupted(sandbox, tmp_path, buy, store_prompts=True)
        async with hub(sandbox, left, options={"store_prompts": True}) as mirage:
            (found,) = await mirage.recover(on_uncertain="resubmit")
            assert (await soon(found.result())).images
            assert sandbox.statistics().purchases == {provider: 2}
            posts = [request for request in sandbox.requests if request.method == "POST"]
            if provider != "miragic":  # whose forms have another boundary each time
                assert posts[0].body == posts[1].body
            assert posts[0].fields == posts[1].fields
            await until(lambda: journal_entries(left)[0].handed_over)
            (entry,) = journal_entries(left)
            assert (entry.state, entry.attempts, entry.doubtful) == (EntryState.SUCCEEDED, 2, 1)


async def test_resubmitting_needs_the_request(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Without it nothing is sent, and it is reported."""
    async with Sandbox(durations=0.05) as sandbox:
        left = await interrupted(sandbox, tmp_path, lambda mirage: mirage.miragic.submit(PROMPT))
        async with hub(sandbox, left) as mirage:
            (found,) = await mirage.recover(on_uncertain="resubmit")
            with pytest.raises(SubmissionUncertainError):
                await soon(found.result())
            assert "its request is not on record" in caplog.text
        assert sandbox.statistics().purchases == {"miragic": 1}


@pytest.mark.parametrize("damage", ["bytes", "folder"])
async def test_a_request_that_cannot_be_read_is_reported(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever is wrong with it, the job ends."""
    async with Sandbox(durations=0.05) as sandbox:
        left = await interrupted(sandbox, tmp_path, lambda mirage: mirage.miragic.submit(PROMPT), store_prompts=True)
        (file,) = files(left / "requests")
        file.unlink()
        if damage == "folder":
            file.mkdir()
        else:
            file.write_bytes(b"\xc1")
        async with hub(sandbox, left) as mirage:
            (found,) = await mirage.recover(on_uncertain="resubmit")
            with pytest.raises(SubmissionUncertainError):
                await soon(found.result())
            assert "cannot be found out" in caplog.text
            assert mirage.miragic.jobs == ()
        assert sandbox.statistics().purchases == {"miragic": 1}


async def test_a_resubmission_that_is_refused_leaves_it_uncertain(tmp_path: Path) -> None:
    """The refusal says nothing of the first attempt."""
    async with Sandbox(durations=0.05) as sandbox:
        left = await interrupted(sandbox, tmp_path, lambda mirage: mirage.miragic.submit(PROMPT), store_prompts=True)
        sandbox.fail("miragic.create", Fault(status=402))
        async with hub(sandbox, left) as mirage:
            (found,) = await mirage.recover(on_uncertain="resubmit")
            with pytest.raises(MirageError) as caught:
                await soon(found.result())
            assert caught.value.billed == "unknown"
        assert journal_entries(left)[0].state is EntryState.UNCERTAIN


async def test_one_that_is_given_up_is_never_returned_again(tmp_path: Path) -> None:
    """Nor sent."""
    async with Sandbox(durations=0.05) as sandbox:
        left = await interrupted(sandbox, tmp_path, lambda mirage: mirage.miragic.submit(PROMPT))
        async with hub(sandbox, left) as mirage:
            (found,) = await mirage.recover(on_uncertain="abandon")
            with pytest.raises(SubmissionUncertainError):
                await soon(found.result())
        async with hub(sandbox, left) as mirage:
            assert await mirage.recover() == []
        assert journal_entries(left)[0].state is EntryState.ABANDONED


async def test_what_has_ended_already_is_not_given_up(tmp_path: Path) -> None:
    """Whoever has claimed the job tells its waiters."""
    async with Sandbox(durations=0.05) as sandbox:
        left = await interrupted(sandbox, tmp_path, lambda mirage: mirage.miragic.submit(PROMPT))
        async with hub(sandbox, left) as mirage:
            (found,) = await mirage.recover()
            await until(lambda: found.done)
            outcome = found._outcome
            Recovery._give_up(found, journal_entries(left)[0])
            assert found._outcome is outcome


async def test_one_that_cannot_be_given_up_ends_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal's trouble is logged, and its waiters are told."""

    async def refuse(*_: object, **__: object) -> Any:
        raise JournalError("full")

    async with Sandbox(durations=0.05) as sandbox:
        left = await interrupted(sandbox, tmp_path, lambda mirage: mirage.miragic.submit(PROMPT))
        async with hub(sandbox, left) as mirage:
            monkeypatch.setattr(Journal, "resolve", refuse)
            (found,) = await mirage.recover(on_uncertain="abandon")
            with pytest.raises(SubmissionUncertainError):
                await soon(found.result())


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize(
    ("answer", "state"),
    [
        ("abandon", EntryState.ABANDONED),
        ("report", EntryState.UNCERTAIN),
        ("nonsense", EntryState.UNCERTAIN),
        (RuntimeError("no"), EntryState.UNCERTAIN),
    ],
)
async def test_a_function_decides_about_each(
    answer: Any, state: EntryState, asynchronous: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It sees the entry; one that raises or talks nonsense is taken for a report."""
    seen: list[Any] = []

    def decide(entry: Any) -> Any:
        seen.append(entry)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def decide_later(entry: Any) -> Any:
        await asyncio.sleep(0)
        return decide(entry)

    async with Sandbox(durations=0.05) as sandbox:
        left = await interrupted(sandbox, tmp_path, lambda mirage: mirage.miragic.submit(PROMPT))
        async with hub(sandbox, left) as mirage:
            (found,) = await mirage.recover(on_uncertain=decide_later if asynchronous else decide)
            with pytest.raises(SubmissionUncertainError):
                await soon(found.result())
        assert [entry.key for entry in seen] == [found.key]
        assert journal_entries(left)[0].state is state
        assert ("on_uncertain" in caplog.text) is (answer not in {"abandon", "report"})
        assert sandbox.statistics().purchases == {"miragic": 1}
