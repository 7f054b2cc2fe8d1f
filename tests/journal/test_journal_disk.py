"""Where a journal can be, who may look into it, and what it does on a full disk."""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
import tempfile
from pathlib import Path

import pytest
from journal_bench import (
    files,
    filled,
    finished,
    generation,
    intent,
    job,
    journaling,
    killed_after,
    picture,
    program,
    soon,
)

from mirage_async.exceptions import JournalError
from mirage_async.journal import EntryState, Journal, _network, _seats, journal_entries
from mirage_async.journal._network import network_file_system
from mirage_async.journal._seats import Seat

pytestmark = pytest.mark.anyio

posix = pytest.mark.skipif(os.name != "posix", reason="this system has other rights and signals")

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


@pytest.mark.parametrize(
    ("kind", "refused"),
    [
        ("fuse.rclone", True),
        ("fuse.juicefs", True),
        ("fuse.mergerfs2", True),
        ("fuse.vmhgfs-fuse", True),
        ("wekafs", True),
        ("gfs2", True),
        ("prl_fs", True),
        ("fuse.mergerfs", False),
        ("fuse.gocryptfs", False),
        ("fuse.fuse-overlayfs", False),
        ("fuseblk", False),
        ("virtiofs", False),
        ("overlay", False),
    ],
)
def test_what_a_program_mounts_has_to_be_known_to_be_local(kind: str, refused: bool) -> None:
    """It may be anywhere."""
    table = f"22 1 0:21 / / rw - {kind} /dev/x rw"
    assert (network_file_system(Path("/srv"), table) is not None) == refused


def test_a_folder_on_a_network_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log of SQLite needs memory that all its readers share."""
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"22 1 0:21 / / rw - ext4 x rw\n23 22 0:22 / {tmp_path} rw - nfs4 server:/srv rw\n")
    monkeypatch.setattr(_network, "MOUNTS", str(mounts))
    with pytest.raises(JournalError, match=r"is on a network file system \(nfs4\)"):
        Journal(tmp_path / "journal")


async def test_where_nothing_tells_there_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And the journal is opened."""
    monkeypatch.setattr(_network, "MOUNTS", str(tmp_path / "nothing"))
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
        if parent.is_relative_to(tempfile.gettempdir()) and not parent.stat().st_mode & stat.S_IWOTH:  # ours, not /tmp
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


# -- a folder that goes away -----------------------------------------------------------------------------------------


@posix
@pytest.mark.parametrize("how", ["removed", "moved", "replaced"])
async def test_a_file_that_is_not_in_its_place_takes_no_purchase(tmp_path: Path, how: str) -> None:
    """Nobody would find what is written to it."""
    async with journaling(tmp_path / "journal") as journal:
        await journal.intended(job(journal), intent())
        if how == "removed":
            shutil.rmtree(tmp_path / "journal")
        else:
            (tmp_path / "journal").rename(tmp_path / "elsewhere")
        if how == "replaced":
            shutil.copytree(tmp_path / "elsewhere", tmp_path / "journal")
        with pytest.raises(JournalError, match=r"it was removed or moved: .*so nothing was sent"):
            await journal.intended(job(journal), intent())


@posix
async def test_a_purchase_refused_for_a_lost_file_takes_no_fact_with_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What is said of an earlier purchase in the same moment is written, and nobody is told that it is not."""
    async with journaling(tmp_path / "journal") as journal:
        paid, wanted = job(journal), job(journal)
        await journal.intended(paid, intent())
        (tmp_path / "journal").rename(tmp_path / "elsewhere")
        paid.id = "task-1"
        refused, _ = await asyncio.gather(
            journal.intended(wanted, intent()), journal.accepted(paid), return_exceptions=True
        )
        assert isinstance(refused, JournalError)
        assert (journal.statistics().unwritten, caplog.text) == (0, "")
    entries = journal_entries(tmp_path / "elsewhere")
    assert [(each.id, each.state) for each in entries] == [("task-1", EntryState.ACCEPTED)]


@posix
async def test_a_file_that_was_removed_can_be_put_back(tmp_path: Path) -> None:
    """With all that was on record, and with what could not be written because its folder was gone."""
    async with journaling(tmp_path / "journal") as journal:
        paid = job(journal)
        await journal.intended(paid, intent(blocking=True))
        await journal.intended(job(journal), intent())
        shutil.rmtree(tmp_path / "journal")
        await journal.settled(paid, generation(paid, picture()))
        assert journal.statistics().unwritten == 1
        await journal.put_back()
        assert journal.statistics().unwritten == 0
    async with journaling(tmp_path / "journal") as journal:
        entry = await journal.entry(paid.key)
        assert entry is not None
        assert entry.outcome is not None
        file = entry.outcome.images[0].file
        assert file is not None
        assert journal.picture_path(file).read_bytes() == picture()
    assert [each.state for each in journal_entries(tmp_path / "journal")] == [
        EntryState.SUCCEEDED,
        EntryState.INTENDED,
    ]


@posix
async def test_a_file_that_cannot_be_put_back_says_why(tmp_path: Path) -> None:
    """Something else may be in its folder's place by then."""
    async with journaling(tmp_path / "journal") as journal:
        await journal.intended(job(journal), intent())
        shutil.rmtree(tmp_path / "journal")
        (tmp_path / "journal").write_text("mine", "utf-8")
        with pytest.raises(JournalError, match="cannot be made"):
            await journal.put_back()
