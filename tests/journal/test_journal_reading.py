"""Readers of a journal: beside its writers, after a kill, and in the middle of a takeover."""

# ruff: noqa: ASYNC240 - a test may look into its own folder

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest
from journal_bench import (
    crashed,
    filled,
    intent,
    job,
    journaling,
)

from mirage_async.exceptions import JournalError
from mirage_async.journal import EntryState, _schema, journal_entries
from mirage_async.journal._reading import readable_entries

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio


async def test_entries_are_read_beside_the_process_that_writes(tmp_path: Path) -> None:
    """The oldest first, and nothing of it is taken or changed."""
    with pytest.raises(JournalError, match="there is no journal in"):
        journal_entries(tmp_path)
    async with journaling(tmp_path) as one, journaling(tmp_path) as other:
        owners = []
        for journal in (one, other, one):
            owners.append(owner := job(journal))
            await journal.intended(owner, intent())
        assert [entry.key for entry in journal_entries(tmp_path)] == [owner.key for owner in owners]
        assert len(list(tmp_path.glob("*.sqlite"))) == 2
        await one.intended(job(one), intent())


def test_a_file_that_is_being_made_is_a_new_one_or_a_journal(tmp_path: Path) -> None:
    """Whoever reads it in the middle of that does not take it for a database of somebody else's."""
    path = tmp_path / "jobs-1.sqlite"

    class Slow(sqlite3.Connection):
        """Lets the other process go on between two looks at the file."""

        def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
            cursor = super().execute(sql, *parameters)
            if sql == "PRAGMA application_id":
                _schema.connect(path, "process").close()
            return cursor

    with contextlib.closing(sqlite3.connect(path)) as maker:
        maker.execute("PRAGMA journal_mode = WAL")
    with contextlib.closing(sqlite3.connect(path, factory=Slow, isolation_level=None)) as reader:
        assert _schema._version(reader, path) == 0
        assert _schema._version(reader, path) == _schema.VERSION


async def test_a_folder_as_a_killed_process_leaves_it_is_read_with_its_log(tmp_path: Path) -> None:
    """With -wal, without -shm."""
    async with journaling(tmp_path / "journal") as journal:
        await journal.intended(job(journal), intent())
        copy = crashed(tmp_path / "journal", tmp_path / "copy")
    assert list(copy.glob("*-wal"))
    assert not list(copy.glob("*-shm"))
    assert len(journal_entries(copy)) == 1


async def test_of_two_versions_of_an_entry_the_later_is_shown(tmp_path: Path) -> None:
    """As between a merge and the removal of what was merged."""
    (key,) = await filled(tmp_path)
    (file,) = tmp_path.glob("*.sqlite")
    shutil.copyfile(file, tmp_path / "jobs-zzzzzzzz.sqlite")
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE jobs SET state = 'failed', revision = 9")
    connection.close()
    (entry,) = journal_entries(tmp_path)
    assert (entry.key, entry.state) == (key, EntryState.FAILED)


async def test_a_file_that_was_only_just_made_holds_nothing_yet(tmp_path: Path) -> None:
    """Its process is about to make its tables."""
    (tmp_path / "jobs-00000000.sqlite").touch()
    assert journal_entries(tmp_path) == []
    async with journaling(tmp_path) as journal:
        assert await journal.owed() == []


async def test_a_file_that_is_taken_over_while_others_are_read_is_not_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rows are in a file that was read before, so everything is read again."""
    (key,) = await filled(tmp_path)
    async with journaling(tmp_path / "other") as other:
        await other.intended(job(other), intent())
    (file,) = tmp_path.glob("*.sqlite")
    last = tmp_path / "jobs-zzzzzzzz.sqlite"
    read, calls = _schema.read, 0

    def racing(path: Path, *arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            shutil.move(file, last)
        return read(path, *arguments, **options)

    monkeypatch.setattr(_schema, "read", racing)
    assert [entry.key for entry in journal_entries(tmp_path)] == [key]

    def never(path: Path, *arguments: Any, **options: Any) -> Any:
        raise FileNotFoundError

    monkeypatch.setattr(_schema, "read", never)
    with pytest.raises(JournalError, match="change faster than they can be read"):
        journal_entries(tmp_path)


async def test_a_damaged_file_is_named_to_its_reader(tmp_path: Path) -> None:
    """Readers set nothing aside; one who says so is given what can be read of the others."""
    (good, bad) = await filled(tmp_path, rows=2)
    (file,) = tmp_path.glob("*.sqlite")
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("UPDATE jobs SET state = 'odd' WHERE key = ?", (bad,))
    (tmp_path / "jobs-00000000.sqlite").write_bytes(b"noise" * 1000)
    with pytest.raises(JournalError, match=r"jobs-00000000\.sqlite cannot be read: file is not a database"):
        journal_entries(tmp_path)
    entries, (noise, odd) = readable_entries(tmp_path)
    assert [entry.key for entry in entries] == [good]
    assert isinstance(noise.__cause__, sqlite3.Error)
    assert f"key {bad}, id task-1, is damaged" in str(odd)
    with pytest.raises(JournalError, match="there is no journal"):
        readable_entries(tmp_path / "nothing")
