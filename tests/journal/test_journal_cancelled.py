"""Callers who are cancelled lose nothing, and take nothing from anybody else."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest
from journal_bench import PROMPT, hub, soon, until

from mirage_async import MiragicClient
from mirage_async.clients import _ledger as ledger
from mirage_async.exceptions import ClosedError, JournalError
from mirage_async.journal import journal_entries
from mirage_async.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from mirage_async import Mirage

pytestmark = pytest.mark.anyio


def journal_of(mirage: Mirage) -> Any:
    """Return the journal of a hub."""
    assert mirage._runtime.journal is not None
    return mirage._runtime.journal


async def bought(folder: Path, sandbox: Sandbox, *providers: str) -> None:
    """Leave a purchase of each of these behind."""
    async with hub(sandbox, folder) as mirage:
        for provider in providers:
            job = await mirage.submit(PROMPT, provider=provider)
            await until(lambda job=job: job.id or job.done)  # type: ignore[misc]


def on_taking(mirage: Mirage, monkeypatch: pytest.MonkeyPatch, do: Callable[[], object]) -> None:
    """Do something in the moment in which what is owed is about to be taken over."""
    journal = journal_of(mirage)
    take = journal.take

    async def taking(keys: Iterable[str]) -> None:
        do()
        await take(keys)

    monkeypatch.setattr(journal, "take", taking)


async def test_recovering_that_is_cut_short_loses_no_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are in `jobs`, unfinished or finished, and whoever recovers next gets them; once."""
    async with Sandbox(durations=0.05) as sandbox:
        await bought(tmp_path, sandbox, "mirako", "mira")
        async with hub(sandbox, tmp_path) as mirage:
            cut = asyncio.ensure_future(mirage.recover())
            on_taking(mirage, monkeypatch, cut.cancel)
            with pytest.raises(asyncio.CancelledError):
                await cut
            await until(lambda: mirage.mirako.jobs and mirage.mira.jobs)
            left = {*mirage.mirako.jobs, *mirage.mira.jobs}
            assert set(await mirage.recover()) == left
            assert await mirage.recover() == []
        assert sandbox.statistics().purchases == {"mirako": 1, "mira": 1}


async def test_who_recovers_next_waits_for_what_was_cut_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it is under way still; each job comes once."""
    async with Sandbox(durations=0.05) as sandbox:
        await bought(tmp_path, sandbox, "mirako", "mira", "milady")
        async with hub(sandbox, tmp_path) as mirage:
            cut = asyncio.ensure_future(mirage.recover())
            nexts: list[asyncio.Future[Any]] = []

            def cancel() -> None:
                cut.cancel()
                nexts.append(asyncio.ensure_future(mirage.recover()))

            on_taking(mirage, monkeypatch, lambda: None if nexts else cancel())
            with pytest.raises(asyncio.CancelledError):
                await cut
            found = await soon(nexts[0])
            assert sorted(job.provider for job in found) == ["milady", "mira", "mirako"]
            assert {job.key for job in found} == {entry.key for entry in journal_entries(tmp_path)}


async def test_recovering_that_is_cancelled_before_it_begins_takes_nothing(tmp_path: Path) -> None:
    """Its turn has not come yet."""
    async with Sandbox(durations=60.0) as sandbox:
        await bought(tmp_path, sandbox, "mirako")
        async with hub(sandbox, tmp_path) as mirage:
            assert mirage._recovery is not None
            async with mirage._recovery._turn:
                cut = asyncio.ensure_future(mirage.recover())
                await asyncio.sleep(0)
                cut.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await cut
            assert len(await mirage.recover()) == 1


async def test_recovering_that_is_cancelled_with_its_jobs_in_hand_loses_none(tmp_path: Path) -> None:
    """They were made, and the caller is cancelled in the moment before he has them."""
    async with Sandbox(durations=60.0) as sandbox:
        await bought(tmp_path, sandbox, "mirako")
        async with hub(sandbox, tmp_path) as mirage:
            assert mirage._recovery is not None
            cut = asyncio.ensure_future(mirage.recover())
            while not mirage._runtime.scheduler.watched(mirage.mirako._desk.account):  # noqa: ASYNC110 - in that very turn
                await asyncio.sleep(0)
            cut.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cut
            (found,) = await mirage.recover()
            assert mirage.mirako.jobs == (found,)


async def test_recovering_that_fails_says_so_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is well again for the next one."""
    async with Sandbox(durations=60.0) as sandbox:
        await bought(tmp_path, sandbox, "mirako")
        async with hub(sandbox, tmp_path) as mirage:
            broken = [sqlite3.OperationalError("disk full")]

            def fail() -> None:
                if broken:
                    msg = "no disk"
                    raise JournalError(msg) from broken.pop()

            on_taking(mirage, monkeypatch, fail)
            with pytest.raises(JournalError, match="no disk"):
                await mirage.recover()
            assert len(await mirage.recover()) == 1


async def test_closing_ends_a_recovery_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the grace; what is owed stays owed."""
    monkeypatch.setattr("mirage_async.clients._runtime.POST_GRACE", 0.0)
    async with Sandbox(durations=60.0) as sandbox:
        await bought(tmp_path, sandbox, "mirako")
        async with hub(sandbox, tmp_path) as mirage:
            never = asyncio.Event()

            async def owed() -> list[Any]:
                await never.wait()
                return []

            monkeypatch.setattr(journal_of(mirage), "owed", owed)
            hanging = asyncio.ensure_future(mirage.recover())
            await asyncio.sleep(0.05)
            await mirage.aclose()
            with pytest.raises(ClosedError, match="stays owed"):
                await hanging
        async with hub(sandbox, tmp_path) as mirage:
            assert len(await mirage.recover()) == 1


# -- orphans that are let go ------------------------------------------------------------------------------------------


async def test_what_is_let_go_is_owed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Finished by then or not yet; what somebody had the result of is not."""
    monkeypatch.setattr(ledger, "MOST_ORPHANS", 0)
    async with Sandbox(durations=0.3) as sandbox, hub(sandbox, tmp_path) as mirage:
        waiting = asyncio.ensure_future(mirage.miragic.generate(PROMPT))
        await until(lambda: any(job.id for job in mirage.miragic.jobs))
        (left,) = mirage.miragic.jobs
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert mirage.miragic.jobs == (left,)  # it goes on
        assert await mirage.recover() == []
        await until(lambda: left.done)
        (again,) = await mirage.recover()
        assert (again.id, again.key) == (left.id, left.key)
        assert (await soon(again.result())).images
        done = await mirage.miragic.submit(PROMPT)
        await until(lambda: done.done)
        mirage.miragic.keep(done)
        (other,) = await mirage.recover()
        assert other.key == done.key
        await soon(done.result())
        mirage.miragic.keep(done)
        await until(lambda: all(entry.handed_over for entry in journal_entries(tmp_path)))
        assert await mirage.recover() == []
        assert sandbox.statistics().purchases == {"miragic": 2}


async def test_more_than_a_client_keeps_of_a_recovery_that_was_cut_short_come_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it lets go is owed again, and is among what was left as well."""
    monkeypatch.setattr(ledger, "MOST_ORPHANS", 1)
    async with Sandbox(durations=0.05) as sandbox:
        await bought(tmp_path, sandbox, "mira", "mira", "mira")
        async with hub(sandbox, tmp_path) as mirage:
            cut = asyncio.ensure_future(mirage.recover())
            on_taking(mirage, monkeypatch, cut.cancel)
            await asyncio.gather(cut, return_exceptions=True)
            found = await mirage.recover()
            assert len({job.key for job in found}) == len(found) == 3
            assert await mirage.recover() == []


async def test_without_a_journal_nothing_is_owed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is let go and that is that."""
    monkeypatch.setattr(ledger, "MOST_ORPHANS", 0)
    async with Sandbox(durations=0.05) as sandbox, MiragicClient(base_url=sandbox.url) as client:
        job = await client.submit(PROMPT)
        await until(lambda: job.done)
        client.keep(job)
        assert client.jobs == ()
