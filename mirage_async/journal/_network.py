"""Which file system a folder is on. SQLite's log needs memory that all its readers share, so no network can hold it."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Final

from mirage_async.exceptions import JournalError

__all__ = ["check_file_system", "network_file_system"]

_logger = logging.getLogger("mirage_async.journal")

MOUNTS: Final = "/proc/self/mountinfo"
"""Linux's table of what is mounted where; see proc(5)."""

_LOCAL_FUSE: Final = (
    "bindfs|cryfs|encfs|exfat(-fuse)?|fuse-overlayfs|gocryptfs|mergerfs|ntfs-3g|securefs|unionfs(-fuse)?"
)
_NETWORKED: Final = re.compile(
    rf"9p|afs|beegfs|ceph|cifs|coda|davfs|fuse\.(?!({_LOCAL_FUSE})$).*|gfs2|glusterfs|gpfs|grpcfuse|lustre|ncpfs|nfs4?|"
    r"ocfs2|orangefs|osxfs|prl_fs|pvfs2|smb[23]|smbfs|vboxsf|vmhgfs|wekafs"
)
"""Whatever a program mounts (FUSE) may be anywhere, unless it is known to keep its files on this machine."""


def check_file_system(folder: Path) -> None:
    """Raise `JournalError` where a folder is on a network, and warn where nobody can tell."""
    try:
        table = Path(MOUNTS).read_text("utf-8", "surrogateescape")
    except OSError:
        _logger.warning(
            "make sure that %s is on a local disk: this system does not tell, and a journal needs one", folder
        )
        return
    kind = network_file_system(folder.resolve(), table)
    if kind is not None:
        msg = f"a journal needs a local disk; {str(folder)!r} is on a network file system ({kind})"
        raise JournalError(msg)


def network_file_system(folder: Path, table: str) -> str | None:
    """Return the type of the network file system a folder is on, or None where it is on none.

    Args:
        folder: absolute, with symbolic links followed.
        table: the text of `MOUNTS`.
    """
    found, longest = None, -1
    place = str(folder)
    for line in table.splitlines():
        before, _, after = line.partition(" - ")
        fields, kinds = before.split(" "), after.split(" ")
        if len(fields) < 5 or not kinds[0]:  # noqa: PLR2004 - the fifth field is the mount point
            continue
        mount = _unescaped(fields[4])
        inside = place == mount or place.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= longest:  # of two mounts at one place the later one hides the earlier
            found, longest = kinds[0], len(mount)
    return found if found and _NETWORKED.fullmatch(found) else None


def _unescaped(field: str) -> str:
    """Undo the octal escapes of blanks and backslashes."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)
