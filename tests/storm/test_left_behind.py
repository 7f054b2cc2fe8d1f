"""What a program killed halfway leaves behind: a picture without the row that tells of it, a file without rows."""

from __future__ import annotations

import contextlib
import sqlite3
import uuid
from typing import TYPE_CHECKING

import pytest

from mirage_async import Mirage
from mirage_async.journal import EntryState, Journal, journal_entries
from mirage_async.sandbox import Sandbox

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio

KEY = uuid.UUID(int=7).hex


async def _bought_without_row(sandbox: Sandbox, folder: Path) -> bytes:
    """Buy a picture, take its row back to where it was when the picture's file was written, and return its bytes."""
    async with Mirage(base_urls=sandbox.base_urls, journal=Journal(folder)) as mirage:
        picture = await (await mirage.mirako.keyed(KEY).generate("a lighthouse")).image.read()
    _take_row_back(folder)
    return picture


def _take_row_back(folder: Path) -> None:
    (path,) = folder.glob("*.sqlite")
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE jobs SET state = 'intended', outcome = NULL, handed_over = 0")


async def test_the_buyer_of_a_picture_without_a_row_gets_it_by_asking_again(tmp_path: Path) -> None:
    """Who asks with the same key gets the picture, not an error that calls the purchase uncertain."""
    async with Sandbox(durations=0) as sandbox:
        picture = await _bought_without_row(sandbox, tmp_path)
        async with Mirage(base_urls=sandbox.base_urls, journal=Journal(tmp_path)) as mirage:
            again = await mirage.mirako.keyed(KEY).generate("a lighthouse")
            assert await again.image.read() == picture
        assert sandbox.statistics().purchases == {"mirako": 1}
    (entry,) = journal_entries(tmp_path)
    assert (entry.state, entry.handed_over) == (EntryState.SUCCEEDED, True)


async def test_the_end_of_a_picture_without_a_row_is_on_record_once_it_was_recovered(tmp_path: Path) -> None:
    """A successor that dies, too, just after it was given the picture leaves no purchase of unknown end behind."""
    async with Sandbox(durations=0) as sandbox:
        picture = await _bought_without_row(sandbox, tmp_path)
        async with Mirage(base_urls=sandbox.base_urls, journal=Journal(tmp_path)) as mirage:
            (job,) = await mirage.recover()
            (entry,) = journal_entries(tmp_path)
            assert (entry.state, entry.owed) == (EntryState.SUCCEEDED, True)
            assert await (await job).image.read() == picture
        async with Mirage(base_urls=sandbox.base_urls, journal=Journal(tmp_path)) as mirage:
            assert await mirage.recover() == []
            assert await (await mirage.mirako.keyed(KEY).generate("a lighthouse")).image.read() == picture
        assert sandbox.statistics().purchases == {"mirako": 1}


def test_a_file_without_tables_keeps_nobody_from_reading_the_others(tmp_path: Path) -> None:
    """A process that is about to make its tables, or was killed then, has bought nothing."""
    with contextlib.closing(sqlite3.connect(tmp_path / "jobs-00000000.sqlite")) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        assert journal_entries(tmp_path) == []
