"""The folder: one file a process, what is taken over from those that are gone, and what a disk can do to it."""

# ruff: noqa: ASYNC240 - a test may look into its own folder

from __future__ import annotations

import logging
import os
import secrets
import shutil
import signal
import sqlite3
import stat
import time
from pathlib import Path
from typing import Any

import pytest
from journal_bench import crashed, files, finished, generation, intent, job, journaling, picture, program, soon

from mirage_async.exceptions import JournalError
from mirage_async.journal import EntryState, Journal, _schema, _seats, journal_entries
from mirage_async.journal import _journal as journal_module
from mirage_async.journal._network import network_file_system
from mirage_async.journal._seats import Seat

pytestmark = pytest.mark.anyio

posix = pytest.mark.skipif(os.name != "posix", reason="this system has other rights and signals")

# A process that acknowledges each purchase once it is durable, and goes on until it is killed.
WRITING = """
import asyncio, sys
from journal_bench import intent, job
from mirage_async.journal import Journal

async def main():
    journal = Journal(sys.argv[1])
    print(journal._seat.path, flush=True)
    for number in range(int(sys.argv[2])):
        each = job(journal)
        await journal.intended(each, intent())
        each.id = f"task-{number}"
        await journal.accepted(each)
        print(each.key, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


def killed_after(folder: Path, rows: int) -> tuple[Path, list[str]]:
    """Have a process write so many purchases, kill it, and return its file and the keys it has acknowledged."""
    process = program(WRITING, folder, rows)
    assert process.stdout is not None
    path = Path(process.stdout.readline().strip())
    keys = [process.stdout.readline().strip() for _ in range(rows)]
    process.kill()
    process.communicate()
    return path, keys


async def filled(folder: Path, *, rows: int = 1) -> list[str]:
    """Write so many accepted purchases and close."""
    async with journaling(folder) as journal:
        keys = []
        for number in range(rows):
            owner = job(journal)
            await journal.intended(owner, intent())
            owner.id = f"task-{number}"
            await journal.accepted(owner)
            keys.append(owner.key)
    return keys


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
        await journal._writer.do(lambda connection: _schema.merge(connection, folder / "jobs-00000001.sqlite"))
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
            patch.setattr(_seats, "databases", listed)
            assert await journal.owed() == []
        assert not list(tmp_path.glob("jobs-00000001*"))


def test_a_lock_on_a_name_that_is_gone_is_worth_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was removed by its holder between the opening and the locking."""
    real = _seats._try_lock

    def slow(descriptor: int) -> None:
        (tmp_path / "jobs-1.lock").unlink()
        real(descriptor)

    monkeypatch.setattr(_seats, "_try_lock", slow)
    assert Seat.take(tmp_path / "jobs-1.sqlite") is None


def test_a_file_system_without_locks_is_no_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error of the system says so."""

    def none(descriptor: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(_seats, "_try_lock", none)
    with pytest.raises(JournalError, match="Operation not supported"):
        Journal(tmp_path)


def test_a_forked_child_lets_go_of_what_its_parent_holds(tmp_path: Path) -> None:
    """So that its parent's end, and not its own, frees the file."""
    seat = Seat.new(tmp_path)
    assert Seat.take(seat.path) is None
    _seats._let_go_of_all()
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


@pytest.mark.parametrize("cut", [1, 20, 700, 4000, 9000])
async def test_a_log_cut_short_loses_nothing_before_the_cut(tmp_path: Path, cut: int) -> None:
    """As when the machine loses its power: every row whose frames are whole is there."""
    path, keys = killed_after(tmp_path, 12)
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
    real = _seats._try_lock

    def slow(descriptor: int) -> None:
        (tmp_path / "jobs-1.lock").rename(tmp_path / "old")
        (tmp_path / "jobs-1.lock").touch()
        real(descriptor)

    monkeypatch.setattr(_seats, "_try_lock", slow)
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
async def test_a_log_with_flipped_bytes_loses_nothing_before_them(tmp_path: Path, seed: int) -> None:
    """The checksums of what follows do not fit, so it is not believed."""
    path, keys = killed_after(tmp_path, 12)
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
    (line,) = [record for record in caplog.records if record.levelno == logging.CRITICAL]
    assert "is damaged and is set aside as" in line.getMessage()
    assert len(journal_entries(folder)) == 3


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


async def test_a_file_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    """At the start, when it is found later, and by a reader: this version could not know what it leaves out."""
    await filled(tmp_path / "newer")
    (file,) = (tmp_path / "newer").glob("*.sqlite")
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA user_version = 7")
    connection.close()
    newer = r"written by a newer version of this library \(format 7; this one knows 1\)"
    with pytest.raises(JournalError, match=newer):
        Journal(tmp_path / "newer")
    with pytest.raises(JournalError, match=newer):
        journal_entries(tmp_path / "newer")
    async with journaling(tmp_path / "journal") as journal:
        shutil.copyfile(file, tmp_path / "journal" / "jobs-00000000.sqlite")
        with pytest.raises(JournalError, match=newer):
            await journal.owed()
        (tmp_path / "journal" / "jobs-00000000.sqlite").unlink()
        assert await journal.owed() == []


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
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 23, 9))
    with pytest.raises(JournalError, match=r"needs SQLite 3\.24\.0 or newer"):
        Journal(tmp_path / "journal")
    assert not (tmp_path / "journal").exists()


# -- where a journal can be ------------------------------------------------------------------------------------------

TABLE = r"""22 1 0:21 / / rw - ext4 /dev/sda1 rw
23 22 0:22 / /srv rw,relatime shared:2 - nfs4 server:/srv rw
24 23 0:23 / /srv/local rw - xfs /dev/sdb1 rw
25 22 0:24 / /mnt/two\040words rw - cifs //server/share rw
26 22 0:25 / /over rw - nfs server:/x rw
27 22 0:26 / /over rw - tmpfs tmpfs rw
28 22 0:27 / /cloud rw - fuse.sshfs me@there rw
broken line
29 22 0:28 / /short - """


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/home/me", None),
        ("/srv", "nfs4"),
        ("/srv/journal", "nfs4"),
        ("/srvs/journal", None),
        ("/srv/local/journal", None),
        ("/mnt/two words/journal", "cifs"),
        ("/over/journal", None),
        ("/cloud", "fuse.sshfs"),
        ("/short/journal", None),
    ],
)
def test_a_network_file_system_is_known_by_the_table_of_mounts(folder: str, kind: str | None) -> None:
    """The longest mount point decides, and of two at one place the later."""
    assert network_file_system(Path(folder), TABLE) == kind


def test_a_folder_on_a_network_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log of SQLite needs memory that all its readers share."""
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"22 1 0:21 / / rw - ext4 x rw\n23 22 0:22 / {tmp_path} rw - nfs4 server:/srv rw\n")
    monkeypatch.setattr(journal_module, "MOUNTS", str(mounts))
    with pytest.raises(JournalError, match=r"is on a network file system \(nfs4\)"):
        Journal(tmp_path / "journal")


async def test_where_nothing_tells_there_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And the journal is opened."""
    monkeypatch.setattr(journal_module, "MOUNTS", str(tmp_path / "nothing"))
    async with journaling(tmp_path / "journal"):
        assert "make sure that" in caplog.text


def test_a_file_in_the_folders_place_is_refused(tmp_path: Path) -> None:
    """With the system's own words."""
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file", tmp_path / "file" / "journal"):
        with pytest.raises(JournalError, match="cannot be made"):
            Journal(path)


UNPRIVILEGED = """
import os, sys
from mirage_async.exceptions import JournalError
from mirage_async.journal import Journal, journal_entries
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
print(len(journal_entries(sys.argv[1])) if "read" in sys.argv else "")
try:
    Journal(sys.argv[1])
except JournalError as error:
    print(error)
"""


def open_to_all(folder: Path) -> None:
    """Let another user get to a folder, and read all in it."""
    for parent in (folder, *folder.parents):
        if parent.stat().st_uid == os.getuid() and str(parent).startswith("/tmp/"):  # noqa: S108 - pytest's own
            parent.chmod(parent.stat().st_mode | 0o055)
    for path in folder.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)


@posix
def test_a_folder_without_the_right_to_write_is_refused(tmp_path: Path) -> None:
    """Before anything is bought."""
    folder = tmp_path / "journal"
    folder.mkdir()
    open_to_all(folder)
    folder.chmod(0o555)
    assert "Permission denied" in finished(program(UNPRIVILEGED, folder))


@posix
@pytest.mark.parametrize("leftovers", ["wal and shm", "wal alone", "neither"])
async def test_a_folder_without_the_right_to_write_can_be_read(tmp_path: Path, leftovers: str) -> None:
    """Also what is only in the log of a process that was killed."""
    folder = tmp_path / "journal"
    if leftovers == "neither":
        await filled(folder, rows=4)
    else:
        path, _ = killed_after(folder, 4)
        assert path.with_name(f"{path.name}-wal").stat().st_size
        if leftovers == "wal alone":
            path.with_name(f"{path.name}-shm").unlink()
    open_to_all(folder)
    folder.chmod(0o555)
    before = sorted(path.name for path in folder.iterdir())
    printed = finished(program(UNPRIVILEGED, folder, "read")).splitlines()
    assert printed[0] == "4"
    assert "cannot be" in printed[1]
    assert sorted(path.name for path in folder.iterdir()) == before


@posix
def test_new_folders_are_durable_before_anything_is_in_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is known to the folder above it; of one that was there already nothing has to be said."""
    flushed: list[str] = []
    monkeypatch.setattr(_seats, "flush_folder", lambda folder: flushed.append(str(folder.relative_to(tmp_path))))
    for _ in range(2):
        _seats.make_folder(tmp_path / "a" / "journal")
    assert flushed == ["a", "."]


@posix
@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
async def test_everything_is_for_its_owner_alone(tmp_path: Path, mask: int) -> None:
    """Whatever the process's mask is, and also while the files of SQLite's log are there."""
    folder = tmp_path / "a" / "journal"
    before = os.umask(mask)
    try:
        async with journaling(folder, store_prompts=True) as journal:
            await journal.intended(owner := job(journal), intent(blocking=True))
            await journal.settled(owner, generation(owner, picture()))
            there = list(files(folder))
            assert {path.suffix for path in there} == {
                ".sqlite",
                ".sqlite-wal",
                ".sqlite-shm",
                ".lock",
                ".msgpack",
                ".png",
            }
            assert {stat.S_IMODE(path.stat().st_mode) for path in there} == {0o600}
            folders = [path for path in (folder, *folder.iterdir()) if path.is_dir()]
            assert {stat.S_IMODE(path.stat().st_mode) for path in folders} == {0o700}
    finally:
        os.umask(before)


# -- a full disk -----------------------------------------------------------------------------------------------------

FULL = """
import asyncio, resource, signal, sys
from journal_bench import generation, intent, job, picture
from mirage_async.exceptions import JournalError
from mirage_async.journal import Journal

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

async def main():
    journal = Journal(sys.argv[1])
    journal._writer._retry = 0.05
    paid = job(journal)
    await journal.intended(paid, intent(blocking=True))
    limit(1024)
    try:
        await journal.intended(job(journal), intent())
    except JournalError as error:
        print(error)
    await journal.settled(paid, generation(paid, picture()))
    print(journal.statistics().unwritten)
    limit(resource.RLIM_INFINITY)
    while journal.statistics().unwritten:
        await asyncio.sleep(0.01)
    entry = await journal.entry(paid.key)
    print(entry.state.value, journal.picture_path(entry.outcome.images[0].file).read_bytes() == picture())
    await journal.intended(job(journal), intent())
    await journal.aclose()

asyncio.run(main())
"""


@posix
def test_a_full_disk_refuses_purchases_and_withholds_nothing_that_was_paid_for(tmp_path: Path) -> None:
    """The system itself refuses to let any file grow; then there is room again."""
    printed = finished(program(FULL, tmp_path)).splitlines()
    assert "so nothing was sent" in printed[0]
    assert printed[1:] == ["1", "succeeded True"]
    assert {entry.state for entry in journal_entries(tmp_path)} == {EntryState.SUCCEEDED, EntryState.INTENDED}


async def test_a_database_that_may_not_grow_refuses_purchases(tmp_path: Path) -> None:
    """SQLite's own way to say that the disk is full, with the rows before it whole."""
    async with journaling(tmp_path) as journal:
        ask = journal._writer.do
        pages = await ask(lambda connection: connection.execute("PRAGMA page_count").fetchone()[0])
        await ask(lambda connection: connection.execute(f"PRAGMA max_page_count = {pages + 1}"))
        written = 0
        with pytest.raises(JournalError, match="full"):  # noqa: PT012 - which one is refused depends on the page
            for _ in range(1000):
                await soon(journal.intended(job(journal), intent()))
                written += 1
        assert written
        await ask(lambda connection: connection.execute("PRAGMA max_page_count = 10000"))
        await soon(journal.intended(job(journal), intent()))
    assert len(journal_entries(tmp_path)) == written + 1


@posix
def test_a_full_disk_at_the_start_leaves_no_lock_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock that cannot even hold a number is a lock."""

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "write", full)
        seat = Seat.new(tmp_path)
    assert Seat.take(seat.path) is None
    seat.release()
    again = Seat.take(seat.path)
    assert again is not None
    again.remove()


# -- reading beside a writer -----------------------------------------------------------------------------------------


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

    def racing(path: Path, *arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            shutil.move(file, last)
        return read(path, *arguments)

    monkeypatch.setattr(_schema, "read", racing)
    assert [entry.key for entry in journal_entries(tmp_path)] == [key]

    def never(path: Path, *arguments: Any) -> Any:
        raise FileNotFoundError

    monkeypatch.setattr(_schema, "read", never)
    with pytest.raises(JournalError, match="change faster than they can be read"):
        journal_entries(tmp_path)


async def test_a_damaged_file_is_named_to_its_reader(tmp_path: Path) -> None:
    """Readers set nothing aside."""
    (tmp_path / "jobs-00000000.sqlite").write_bytes(b"noise" * 1000)
    with pytest.raises(JournalError, match=r"jobs-00000000\.sqlite cannot be read: file is not a database"):
        journal_entries(tmp_path)


# -- clocks, notes and pruning ---------------------------------------------------------------------------------------


class WallClock:
    """A wall clock that somebody steps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_750_000_000.0
        monkeypatch.setattr(time, "time", lambda: self.now)


@pytest.mark.parametrize("step", [-3600.0, 3600.0])
async def test_a_stepped_clock_loses_and_confuses_nothing(
    tmp_path: Path, step: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between intent, id, outcome, recovery and pruning; versions are told apart by counting, not by time."""
    clock = WallClock(monkeypatch)
    async with journaling(tmp_path / "journal", retention=600) as journal:
        owner, owed = job(journal), job(journal)
        for each in (owner, owed):
            await journal.intended(each, intent())
            clock.now += step
            each.id = f"task-{each.key[:4]}"
            await journal.accepted(each)
            clock.now -= step
        clock.now += step
        await journal.settled(owner, generation(owner))
        copy = crashed(tmp_path / "journal", tmp_path / "copy")
    clock.now += step
    async with journaling(copy, retention=600) as heir:
        found = {entry.key: entry.state for entry in await heir.owed()}
        assert found == {owner.key: EntryState.SUCCEEDED, owed.key: EntryState.ACCEPTED}
        await heir.take(found)
        heir.handed_over(owner)
        clock.now -= 2 * step
        assert await heir.owed() == []
        assert await soon(heir.entry(owed.key)) is not None
        clock.now += abs(step) * 3 + 601
        await heir.owed()
        assert await heir.entry(owner.key) is None


async def test_only_what_is_over_is_ever_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its files; what is owed, or nobody knows the end of, stays for ever."""
    clock = WallClock(monkeypatch)
    async with journaling(tmp_path, retention=100, store_prompts=True) as journal:
        owners = {
            name: job(journal) for name in ("intended", "unpaid", "accepted", "owed", "over", "abandoned", "uncertain")
        }
        for owner in owners.values():
            await journal.intended(owner, intent(blocking=True))
        await journal.withdrawn(owners["unpaid"])
        owners["accepted"].id = "task-1"
        await journal.accepted(owners["accepted"])
        for name in ("owed", "over"):
            await journal.settled(owners[name], generation(owners[name], picture(), picture("red")))
        journal.handed_over(owners["over"])
        await journal.resolve(owners["abandoned"].key)
        await journal.settled(owners["uncertain"], OSError())
        await journal._writer.do(
            lambda connection: connection.execute(
                "UPDATE jobs SET state='uncertain', handed_over=1 WHERE key=?", (owners["uncertain"].key,)
            )
        )
        part = tmp_path / "pictures" / f".{owners['over'].key}-3.png.part"
        part.write_bytes(b"half")
        clock.now += 99
        await journal.owed()
        assert len(list((tmp_path / "pictures").iterdir())) == 5
        clock.now += 2
        await journal.owed()
        left = {name for name, owner in owners.items() if await journal.entry(owner.key) is not None}
        assert left == {"intended", "accepted", "owed", "uncertain"}
        keys = {owners[name].key for name in left}
        assert {path.name.partition(".")[0] for path in (tmp_path / "requests").iterdir()} == keys
        pictures = [path.name for path in (tmp_path / "pictures").iterdir()]
        assert sorted(pictures) == [f"{owners['owed'].key}-1.png", f"{owners['owed'].key}-2.png"]
        assert await journal.request(owners["over"].key) is None


async def test_notes_are_kept_and_the_later_one_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when files are merged, in whatever order."""
    clock = WallClock(monkeypatch)
    async with journaling(tmp_path) as one, journaling(tmp_path) as other:
        assert await one.noted("learned") is None
        await one.note("learned", "old")
        await one.note("mine", "mine")
        clock.now += 1
        await other.note("learned", "new")
    async with journaling(tmp_path) as heir:
        await heir.owed()
        assert (await heir.noted("learned"), await heir.noted("mine")) == ("new", "mine")


def test_a_folder_can_be_listed_and_read_by_people(tmp_path: Path) -> None:
    """`file` shows what it is, by the number that SQLite keeps for that."""
    writer = Journal(tmp_path)._writer
    writer.close()
    writer.join()
    (file,) = tmp_path.glob("jobs-*.sqlite")
    assert file.read_bytes()[68:72] == b"Mirg"


@posix
def test_a_program_that_is_interrupted_leaves_a_journal_that_can_be_read(tmp_path: Path) -> None:
    """Whatever Python does in its last moments."""
    process = program(WRITING, tmp_path, 3)
    assert process.stdout is not None
    for _ in range(4):
        process.stdout.readline()
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert len(journal_entries(tmp_path)) == 3
