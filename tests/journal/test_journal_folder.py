"""The folder: one file a process, and what is taken over from those that are gone, whole or damaged."""

# ruff: noqa: ASYNC240 - a test may look into its own folder

from __future__ import annotations

import logging
import os
import secrets
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from journal_bench import (
    WRITING,
    filled,
    generation,
    intent,
    job,
    journaling,
    killed_after,
    leaves_of,
    program,
)

from mirage_async import _disk
from mirage_async.exceptions import JournalError
from mirage_async.journal import EntryState, Journal, _folder, _schema, _seats, journal_entries
from mirage_async.journal._merging import merge
from mirage_async.journal._salvage import salvage
from mirage_async.journal._seats import Seat

pytestmark = pytest.mark.anyio

# -- several processes -----------------------------------------------------------------------------------------------


async def test_two_at_once_have_a_file_each_and_neither_takes_the_others_rows(tmp_path: Path) -> None:
    """What a process that is alive works on is its own."""
    async with journaling(tmp_path) as one, journaling(tmp_path) as other:
        await one.intended(owner := job(one), intent())
        assert one._seat.path != other._seat.path
        assert await other.owed() == []
        assert len(list(tmp_path.glob("*.sqlite"))) == 2
        seen = await other.entry(owner.key)
        assert seen is not None
        assert seen.state is EntryState.INTENDED


async def test_what_a_killed_process_has_acknowledged_is_adopted(tmp_path: Path) -> None:
    """While it lives nothing of it is owed; a moment later everything is, and its file is gone."""
    async with journaling(tmp_path) as survivor:
        process = program(WRITING, tmp_path, 20)
        assert process.stdout is not None
        path = Path(process.stdout.readline().strip())
        keys = [process.stdout.readline().strip() for _ in range(20)]
        assert await survivor.owed() == []
        process.kill()
        process.communicate()
        assert sorted(entry.key for entry in await survivor.owed()) == sorted(keys)
        assert all(entry.id for entry in await survivor.owed())
        assert not list(tmp_path.glob(f"{path.stem}*"))


async def test_a_killed_processs_file_is_gone_on_with(tmp_path: Path) -> None:
    """A process that starts again and again leaves one file."""
    paths = {killed_after(tmp_path, 2)[0] for _ in range(3)}
    async with journaling(tmp_path) as journal:
        assert paths == {journal._seat.path}
        assert len(await journal.owed()) == 6


async def test_a_merge_that_was_cut_short_is_repeated_and_the_later_version_stays(tmp_path: Path) -> None:
    """A process may die between taking a file over and removing it."""
    (key,) = await filled(tmp_path / "old")
    (file,) = (tmp_path / "old").glob("*.sqlite")
    folder = tmp_path / "journal"
    async with journaling(folder) as journal:
        shutil.copyfile(file, folder / "jobs-00000001.sqlite")
        await journal._writer.do(lambda connection: merge(connection, folder / "jobs-00000001.sqlite"))
        (entry,) = await journal.owed()  # once more, and removed
        assert entry.key == key
        await journal.take([key])
        owner = job(journal, key=key, id="task-0")
        await journal.settled(owner, generation(owner))
        shutil.copyfile(file, folder / "jobs-00000001.sqlite")
        assert await journal.owed() == []
        again = await journal.entry(key)
        assert again is not None
        assert again.state is EntryState.SUCCEEDED
        assert len(list(folder.glob("*.sqlite"))) == 1


async def test_a_file_that_vanishes_before_it_is_locked_is_no_journal(tmp_path: Path) -> None:
    """Somebody else has just taken it over; nothing is made in its place."""
    async with journaling(tmp_path) as journal:
        gone = tmp_path / "jobs-00000001.sqlite"

        def listed(folder: Path) -> list[Path]:
            return [gone, *sorted(folder.glob("jobs-*.sqlite"))]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_seats, "journal_files", listed)
            assert await journal.owed() == []
        assert not list(tmp_path.glob("jobs-00000001*"))


def test_a_lock_on_a_name_that_is_gone_is_worth_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was removed by its holder between the opening and the locking."""
    real = _disk._try_lock

    def slow(descriptor: int) -> None:
        (tmp_path / "jobs-1.lock").unlink()
        real(descriptor)

    monkeypatch.setattr(_disk, "_try_lock", slow)
    assert Seat.take(tmp_path / "jobs-1.sqlite") is None


def test_a_file_system_without_locks_is_no_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error of the system says so."""

    def none(descriptor: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(_disk, "_try_lock", none)
    with pytest.raises(JournalError, match="Operation not supported"):
        Journal(tmp_path)


def test_a_forked_child_lets_go_of_what_its_parent_holds(tmp_path: Path) -> None:
    """So that its parent's end, and not its own, frees the file."""
    seat = Seat.new(tmp_path)
    assert Seat.take(seat.path) is None
    _disk._let_go_of_all()
    again = Seat.take(seat.path)
    assert again is not None
    again.release()


def test_a_new_file_never_takes_a_name_that_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unlikely as it is."""
    names = iter(["aaaaaaaa", "aaaaaaaa", "bbbbbbbb"])
    monkeypatch.setattr(secrets, "token_hex", lambda _: next(names))
    one, other = Seat.new(tmp_path), Seat.new(tmp_path)
    assert (one.path.name, other.path.name) == ("jobs-aaaaaaaa.sqlite", "jobs-bbbbbbbb.sqlite")
    one.release()
    other.release()
    other.release()


async def test_a_merge_that_fails_leaves_the_file_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a full disk; the next attempt finds it, and nothing is half copied."""
    await filled(tmp_path / "old", rows=3)
    (file,) = (tmp_path / "old").glob("*.sqlite")
    async with journaling(tmp_path / "journal") as journal:
        shutil.copyfile(file, tmp_path / "journal" / "jobs-00000001.sqlite")
        trigger = "CREATE TEMP TRIGGER no BEFORE INSERT ON jobs BEGIN SELECT RAISE(ABORT, 'not now'); END"
        await journal._writer.do(lambda connection: connection.execute(trigger))
        with pytest.raises(JournalError, match="cannot be read or written: not now"):
            await journal.owed()
        await journal._writer.do(lambda connection: connection.execute("DROP TRIGGER no"))
        assert len(await journal.owed()) == 3


# -- files that are not what they should be --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The file of a process that was killed, to be copied, and the keys it has acknowledged."""
    return killed_after(tmp_path_factory.mktemp("killed"), 12)


def copied(killed: Path, folder: Path) -> Path:
    """Return a file to be damaged in place of the one that was left behind."""
    shutil.copytree(killed.parent, folder, dirs_exist_ok=True)
    return folder / killed.name


@pytest.mark.parametrize("cut", [1, 20, 700, 4000, 9000])
async def test_a_log_cut_short_loses_nothing_before_the_cut(
    tmp_path: Path, cut: int, killed: tuple[Path, list[str]]
) -> None:
    """As when the machine loses its power: every row whose frames are whole is there."""
    path, keys = copied(killed[0], tmp_path), killed[1]
    log = path.with_name(f"{path.name}-wal")
    size = log.stat().st_size
    os.truncate(log, size - cut)
    path.with_name(f"{path.name}-shm").unlink(missing_ok=True)
    async with journaling(tmp_path) as journal:
        found = {entry.key: entry for entry in await journal.owed()}
        lost = 2 + 2 * cut // 4096  # a purchase has two commits, and a commit here one or two pages
        assert set(keys[: len(keys) - lost]) <= found.keys() <= set(keys)
        await journal.intended(job(journal), intent())


def test_a_lock_on_a_file_that_was_replaced_is_worth_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name is somebody else's lock by now."""
    real = _disk._try_lock

    def slow(descriptor: int) -> None:
        (tmp_path / "jobs-1.lock").rename(tmp_path / "old")
        (tmp_path / "jobs-1.lock").touch()
        real(descriptor)

    monkeypatch.setattr(_disk, "_try_lock", slow)
    assert Seat.take(tmp_path / "jobs-1.sqlite") is None


async def test_taking_jobs_that_cannot_be_written_takes_none(tmp_path: Path) -> None:
    """They stay owed."""
    (key,) = await filled(tmp_path)
    async with journaling(tmp_path) as journal:
        trigger = "CREATE TEMP TRIGGER no BEFORE UPDATE ON jobs BEGIN SELECT RAISE(ABORT, 'not now'); END"
        await journal._writer.do(lambda connection: connection.execute(trigger))
        with pytest.raises(JournalError, match="not now"):
            await journal.take([key])
        await journal._writer.do(lambda connection: connection.execute("DROP TRIGGER no"))
        assert len(await journal.owed()) == 1


@pytest.mark.parametrize("seed", range(5))
async def test_a_log_with_flipped_bytes_loses_nothing_before_them(
    tmp_path: Path, seed: int, killed: tuple[Path, list[str]]
) -> None:
    """The checksums of what follows do not fit, so it is not believed."""
    path, keys = copied(killed[0], tmp_path), killed[1]
    log = path.with_name(f"{path.name}-wal")
    data = bytearray(log.read_bytes())
    place = len(data) - 1 - seed * 2000
    data[place] ^= 0xFF
    log.write_bytes(data)
    async with journaling(tmp_path) as journal:
        found = {entry.key for entry in await journal.owed()}
        lost = 2 + (seed * 2000) // 4096
        assert set(keys[: len(keys) - lost]) <= found <= set(keys)


@pytest.mark.parametrize("place", ["head", "leaf", "cut", "noise"])
@pytest.mark.parametrize("when", ["first", "later"])
async def test_a_damaged_file_is_set_aside_and_the_others_are_recovered(
    tmp_path: Path, place: str, when: str, caplog: pytest.LogCaptureFixture
) -> None:
    """With a critical line in the log; nobody takes it for a journal again."""
    folder = tmp_path / "journal"
    keys = await filled(folder, rows=3)
    await filled(tmp_path / "other", rows=60)
    (file,) = (tmp_path / "other").glob("*.sqlite")
    data = bytearray(file.read_bytes())
    match place:
        case "head":
            data[:100] = bytes(100)
        case "leaf":
            data[8192:12288] = b"\xa5" * 4096
        case "cut":
            del data[6000:]
        case "noise":
            data = bytearray(os.urandom(20_000))
    damaged = folder / "jobs-00000000.sqlite"
    if when == "first":
        damaged.write_bytes(data)
    async with journaling(folder) as journal:
        if when == "later":
            damaged.write_bytes(data)
        found = await journal.owed()
    assert {entry.key for entry in found} >= set(keys)
    assert (folder / "jobs-00000000.damaged").read_bytes() == bytes(data)
    assert not damaged.exists()
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.CRITICAL]
    assert "is damaged; what can be read of it is taken over" in lines[0]
    assert "is damaged and is set aside as" in lines[-1]
    readable = len(journal_entries(folder)) - 3
    assert (readable > 0) == (place == "leaf")


@pytest.mark.parametrize("head", [b"", b"\xa5" * 100])
@pytest.mark.parametrize("when", ["first", "later"])
async def test_a_file_that_lost_its_beginning_does_not_take_its_log_with_it(
    tmp_path: Path, head: bytes, when: str, killed: tuple[Path, list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    """SQLite would take an empty one for new and remove the log, which holds all that was written."""
    folder, keys = tmp_path / "journal", killed[1]

    def left_behind() -> bytes:
        path = copied(killed[0], folder)
        path.write_bytes(head)
        with pytest.raises(JournalError, match="does not begin as a database does"):
            journal_entries(folder)
        return path.with_name(f"{path.name}-wal").read_bytes()

    log = left_behind() if when == "first" else b""
    async with journaling(folder) as journal:
        log = log or left_behind()
        assert {entry.key for entry in await journal.owed()} == set(keys)
    aside = folder / f"{killed[0].stem}.damaged"
    assert aside.read_bytes() == head
    assert aside.with_name(f"{aside.name}-wal").read_bytes() == log
    last = [record.getMessage() for record in caplog.records if record.levelno == logging.CRITICAL][-1]
    assert f"set aside as {aside}, {aside}-wal" in last


@pytest.mark.parametrize("page", ["first", "middle", "last", "index", "two"])
async def test_one_damaged_page_keeps_no_other_row_from_its_owner(
    tmp_path: Path, page: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What cannot be read is named, by the key where the index still has it."""
    keys = await filled(tmp_path, rows=200)
    (file,) = tmp_path.glob("*.sqlite")
    with sqlite3.connect(file) as connection:
        roots = dict(connection.execute("SELECT name, rootpage FROM sqlite_master").fetchall())
    connection.close()
    data = bytearray(file.read_bytes())
    leaves = leaves_of(data, roots["jobs"])
    rows = [number for number, _ in leaves]
    index = [number for number, _ in leaves_of(data, roots["sqlite_autoindex_jobs_1"])]
    damaged = {
        "first": rows[:1],
        "middle": [rows[5]],
        "last": rows[-1:],
        "index": index[:1],
        "two": [rows[3], rows[9]],
    }[page]
    for number in damaged:
        data[(number - 1) * 4096 : number * 4096] = b"\xa5" * 4096
    file.write_bytes(data)
    async with journaling(tmp_path) as journal:
        found = [entry.key for entry in await journal.owed()]
    on_them = sum(cells for number, cells in leaves if number in damaged)
    assert len(set(found) & set(keys)) == len(found) == 200 - on_them
    ranges = [line for line in caplog.messages if "cannot be read; their keys are" in line]
    assert "an estimate" not in "".join(ranges)
    assert len(ranges) == len(damaged) * (page != "index")
    for key in set(keys) - set(found):
        assert key in "".join(ranges)


async def test_what_only_looks_like_a_row_is_not_taken_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Damaged bytes may well be of the right length."""
    keys = await filled(tmp_path / "old", rows=3)
    (file,) = (tmp_path / "old").glob("*.sqlite")
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE plain AS SELECT * FROM jobs")
        connection.execute("DROP TABLE jobs")
        connection.execute("ALTER TABLE plain RENAME TO jobs")
        connection.execute("UPDATE jobs SET state = 'acce\u00dfted' WHERE key = ?", (keys[0],))
        connection.execute("UPDATE jobs SET key = NULL WHERE key = ?", (keys[1],))
    connection.close()
    async with journaling(tmp_path / "journal") as journal:
        assert await journal._writer.do(lambda connection: salvage(connection, file)) == 1
        assert [entry.key for entry in await journal.owed()] == keys[2:]
    assert f"the entry of mirako image, key {keys[0]}, id task-0, is damaged" in caplog.text
    assert "cannot be read, and it has no key" in caplog.text


async def test_a_row_that_cannot_be_read_keeps_no_other_from_its_owner(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is named with all that is left of it, and its key is not free to be bought again."""
    good, bad, worse = await filled(tmp_path, rows=3)
    (file,) = tmp_path.glob("*.sqlite")
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE jobs SET state = 'acce\u00dfted' WHERE key = ?", (bad,))
        connection.execute("UPDATE jobs SET outcome = '{\"images\": [' WHERE key = ?", (worse,))
    connection.close()
    async with journaling(tmp_path) as journal:
        assert [entry.key for entry in await journal.owed()] == [good]
        assert f"the entry of mirako image, key {bad}, id task-1, is damaged" in caplog.text
        for key in (bad, worse):
            with pytest.raises(JournalError, match="is damaged"):
                await journal.entry(key)


async def test_a_file_of_a_newer_version_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Only who needs to know all of it is refused: a reader, and a caller's own key, which it may have bought under."""
    await filled(tmp_path)
    (file,) = tmp_path.glob("*.sqlite")
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA user_version = 7")
    connection.close()
    newer = r"written by a newer version of this library \(format 7; this one knows 1\)"
    before = file.read_bytes()
    async with journaling(tmp_path) as journal:
        assert await journal.owed() == []
        await journal.intended(owner := job(journal), intent())
        owner.id = "task-1"
        await journal.accepted(owner)
        assert (await journal.resolve(owner.key)).state is EntryState.ABANDONED
        with pytest.raises(JournalError, match=newer):
            await journal.intended(job(journal), intent(own_key=True))
        with pytest.raises(JournalError, match=newer):
            await journal.entry("0" * 32)
        with pytest.raises(JournalError, match=newer):
            journal_entries(tmp_path)
    assert file.read_bytes() == before
    assert caplog.text.count("until it is gone, no caller's own key buys anything") == 1
    (tmp_path / file.name).unlink()
    assert len(journal_entries(tmp_path)) == 1


async def test_a_damaged_file_stays_until_its_rows_are_elsewhere(
    tmp_path: Path,
) -> None:
    """Where there is no room for them, the next process tries again."""
    await filled(tmp_path, rows=100)
    (file,) = tmp_path.glob("*.sqlite")
    data = bytearray(file.read_bytes())
    data[12288:16384] = b"\xa5" * 4096
    file.write_bytes(data)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_folder, "salvage", full)
        with pytest.raises(JournalError, match="No space left"):
            Journal(tmp_path)
    assert file.read_bytes() == bytes(data)
    async with journaling(tmp_path) as journal:
        assert len(await journal.owed()) > 50


@pytest.mark.parametrize("owner", [0, 0x12345678])
async def test_somebody_elses_database_is_refused_and_left_as_it_is(tmp_path: Path, owner: int) -> None:
    """Not a byte of it is changed."""
    file = tmp_path / "jobs-theirs.sqlite"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE things (name TEXT)")
        connection.execute(f"PRAGMA application_id = {owner}")
    connection.close()
    before = file.read_bytes()
    with pytest.raises(JournalError, match="is a database, but no journal"):
        Journal(tmp_path)
    assert file.read_bytes() == before


async def test_a_file_of_an_older_version_is_brought_up_to_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Step by step, with its rows, both when it is gone on with and when it is taken over."""
    keys = await filled(tmp_path, rows=2)
    (file,) = tmp_path.glob("*.sqlite")
    old = tmp_path / "kept"
    shutil.copyfile(file, old)
    monkeypatch.setattr(_schema, "VERSION", 3)
    first, second = "ALTER TABLE jobs ADD COLUMN mood TEXT;", "UPDATE jobs SET mood = 'new';"
    monkeypatch.setattr(_schema, "_MIGRATIONS", (first, second))
    monkeypatch.setattr(_schema, "_TABLES", _schema._TABLES.replace("run TEXT", "mood TEXT,\n    run TEXT"))

    def look(connection: sqlite3.Connection) -> tuple[Any, ...]:
        moods = connection.execute("SELECT mood FROM jobs").fetchall()
        return connection.execute("PRAGMA user_version").fetchone()[0], moods

    async with journaling(tmp_path) as journal:
        assert await journal._writer.do(look) == (3, [("new",)] * 2)
        shutil.copyfile(old, tmp_path / "jobs-00000000.sqlite")
        assert sorted(entry.key for entry in await journal.owed()) == sorted(keys)
        assert list(tmp_path.glob("*.sqlite")) == [journal._seat.path]


async def test_a_step_that_fails_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All steps are one transaction."""
    await filled(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_schema, "VERSION", 3)
        patch.setattr(_schema, "_MIGRATIONS", ("ALTER TABLE jobs ADD COLUMN mood TEXT;", "nonsense;"))
        with pytest.raises(JournalError, match="syntax error"):
            Journal(tmp_path)
    async with journaling(tmp_path) as journal:
        assert len(await journal.owed()) == 1


def test_an_sqlite_that_is_too_old_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before any file is made."""
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 32, 3))
    with pytest.raises(JournalError, match=r"needs SQLite 3\.33\.0 or newer"):
        Journal(tmp_path / "journal")
    assert not (tmp_path / "journal").exists()
