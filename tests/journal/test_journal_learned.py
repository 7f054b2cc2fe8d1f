"""What was learned about durations outlives the process, however that ends."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from journal_bench import PROMPT, crashed, hub, soon, until

from mirage_async.clients import _memory
from mirage_async.clients._memory import KEPT_AFTER, Memory
from mirage_async.exceptions import JournalError
from mirage_async.journal import Journal
from mirage_async.models import Pace
from mirage_async.sandbox import Sandbox
from mirage_async.scheduler import AdaptiveInterval, Scheduler, Sighting
from mirage_async.testing import FakeClock

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio


def finished(policy: AdaptiveInterval, seconds: float) -> None:
    """Have a policy hear of a job that took so long."""
    pace = Pace(first=2.0, interval=2.0, maximum=10.0, max_wait=600.0)
    policy.observe(
        Sighting(
            provider="mirako",
            kind="image",
            model=None,
            phase="queued",
            pace=pace,
            seen=seconds - 1.0,
            now=seconds,
            outcome="done",
            progress=None,
            at=seconds,
        )
    )


async def test_a_policy_of_several_hubs_in_turn_does_not_count_what_it_knows_twice(tmp_path: Path) -> None:
    """What the journal keeps of it is its own; only what others left in another journal is news."""
    policy = AdaptiveInterval()
    for count in range(1, 5):
        journal = Journal(tmp_path / "mine")
        memory = Memory(journal, policy, FakeClock())
        await memory.begin()
        finished(policy, 10.0)
        await memory.aclose()
        await journal.aclose()
        assert [model.jobs_finished for model in policy.statistics()] == [count]
    other = Journal(tmp_path / "other")
    theirs = AdaptiveInterval()
    for _ in range(3):
        finished(theirs, 20.0)
    await Memory(other, theirs, FakeClock()).aclose()
    await asyncio.gather(*(Memory(other, policy, FakeClock()).begin() for _ in range(2)))
    await other.aclose()
    assert [model.jobs_finished for model in policy.statistics()] == [7]


@pytest.mark.parametrize("more", [0, 2])
async def test_what_another_process_has_learned_since_is_taken_over(more: int, tmp_path: Path) -> None:
    """It began with what this one had left; that counts once, unless this one has gone on without a journal."""
    journal, mine, theirs = Journal(tmp_path), AdaptiveInterval(), AdaptiveInterval()

    async def hub_of(policy: AdaptiveInterval, jobs: int) -> int:
        memory = Memory(journal, policy, FakeClock())
        await memory.begin()
        for _ in range(jobs):
            finished(policy, 10.0)
        await memory.aclose()
        return policy.statistics()[0].jobs_finished

    assert await hub_of(mine, 4) == 4
    assert await hub_of(theirs, 6) == 10
    for _ in range(more):
        finished(mine, 10.0)
    assert await hub_of(mine, 0) == (10 if more == 0 else 4 + more + 10)
    assert await hub_of(AdaptiveInterval(), 0) == mine.statistics()[0].jobs_finished
    await journal.aclose()


async def test_what_was_learned_about_durations_outlives_the_process(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The next hub begins with it; where it cannot be read that is a warning and no more."""
    async with Sandbox(durations=0.05) as sandbox:
        async with hub(sandbox, tmp_path, scheduler=Scheduler()) as mirage:
            await soon(mirage.miragic.generate(PROMPT))
            learned: Any = mirage._runtime.scheduler.policy
            exported = learned.export()
        async with hub(sandbox, tmp_path, scheduler=Scheduler()) as mirage:
            policy: Any = mirage._runtime.scheduler.policy
            assert policy.export() == exported
            assert exported != type(policy)().export()
            assert mirage._runtime.journal is not None
        journal = Journal(tmp_path)
        await journal.note("durations", "nonsense")
        await journal.aclose()
        async with hub(sandbox, tmp_path, scheduler=Scheduler()) as mirage:
            assert "what was learned about durations before cannot be read" in caplog.text
            await soon(mirage.miragic.generate(PROMPT))


async def test_what_was_learned_is_not_kept_where_the_disk_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Closing goes on."""

    async def refuse(self: Journal, name: str, value: str) -> None:
        raise JournalError(f"{name} {len(value)}")

    monkeypatch.setattr(Journal, "note", refuse)
    async with Sandbox() as sandbox, hub(sandbox, tmp_path, scheduler=Scheduler()):
        pass
    assert "what was learned about durations is not kept" in caplog.text


async def test_a_policy_that_cannot_tell_what_it_has_learned_keeps_nothing_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A user's own may fail, once in passing and once at the close; the next ends are noted, and the journal closed."""
    monkeypatch.setattr(_memory, "KEPT_AFTER", 0.01)
    told: list[str] = []

    class Own(AdaptiveInterval):
        def export(self) -> dict[str, Any]:
            told.append("asked")
            message = "own trouble"
            raise RuntimeError(message)

    async with Sandbox(durations=0.01) as sandbox:
        async with hub(sandbox, tmp_path, scheduler=Scheduler(policy=Own())) as mirage:
            for rounds in (1, 2):
                await soon(mirage.miragic.generate(PROMPT))
                await until(lambda: len(told) == rounds)  # noqa: B023 - called before the next round
            journal = mirage._runtime.journal
        assert journal is not None
        with pytest.raises(JournalError, match="closed"):
            await journal.note("durations", "late")
    assert len(told) == 3
    assert "what was learned about durations is not kept" in caplog.text


async def test_a_killed_process_has_learned_for_the_next_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it has seen is kept a while after a job has ended."""
    monkeypatch.setattr(_memory, "KEPT_AFTER", 0.0)
    async with Sandbox(durations=0.05) as sandbox:
        async with hub(sandbox, tmp_path / "journal", scheduler=Scheduler()) as mirage:
            await soon(mirage.miragic.generate(PROMPT))
            learned: Any = mirage._runtime.scheduler.policy
            journal = mirage._runtime.journal
            assert journal is not None
            while await journal.noted("durations") is None:
                pass
            exported, left = learned.export(), crashed(tmp_path / "journal", tmp_path / "left")
        async with hub(sandbox, left, scheduler=Scheduler()) as mirage:
            policy: Any = mirage._runtime.scheduler.policy
            assert policy.export() == exported
            assert [each.jobs_finished for each in policy.statistics()] == [1, 1]


async def test_many_ends_make_one_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It tells of all that ended until it is written, and the end after it makes another one."""
    notes: list[str] = []
    note = Journal.note

    async def noting(self: Journal, name: str, value: str) -> None:
        notes.append(value)
        await note(self, name, value)

    monkeypatch.setattr(Journal, "note", noting)
    clock, journal, policy = FakeClock(), Journal(tmp_path), AdaptiveInterval()
    memory = Memory(journal, policy, clock)
    await memory.begin()
    for count in (1, 2):
        for seconds in range(2, 5):
            finished(policy, seconds)
            memory.grows()
        await clock.advance(KEPT_AFTER - 1.0)
        assert len(notes) == count - 1
        await clock.advance(1.0)
        await until(lambda: len(notes) == count and memory._timer is None)  # noqa: B023 - looked at within the turn
    await memory.aclose()
    assert len(notes) == 3
    assert notes[-2] == notes[-1]
    await journal.aclose()


async def test_what_is_learned_keeps_nobody_alive(tmp_path: Path) -> None:
    """A note to come is forgotten with the hub it is for."""
    clock, journal = FakeClock(), Journal(tmp_path)
    memory = Memory(journal, AdaptiveInterval(), clock)
    memory.grows()
    gone = weakref.ref(memory)
    del memory
    gc.collect()
    assert gone() is None
    await clock.advance(KEPT_AFTER)
    assert await journal.noted("durations") is None
    await journal.aclose()


async def test_a_hub_that_is_not_entered_forgets_nothing_either(tmp_path: Path) -> None:
    """It adds to what was learned before, and does not put its own little in its place."""
    for _ in range(2):
        journal, policy = Journal(tmp_path), AdaptiveInterval()
        memory = Memory(journal, policy, FakeClock())
        finished(policy, 3.0)
        await memory.aclose()
        await journal.aclose()
    journal, policy = Journal(tmp_path), AdaptiveInterval()
    await Memory(journal, policy, FakeClock()).begin()
    assert [each.jobs_finished for each in policy.statistics()] == [2]
    await journal.aclose()
