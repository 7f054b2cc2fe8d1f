"""Drafts of processes that were killed are removed, and nothing that somebody may still need."""

from __future__ import annotations

import errno
import sys
from typing import TYPE_CHECKING

import pytest

from mirage_async import _disk
from mirage_async._saving import Draft, remove_left_behind

if TYPE_CHECKING:
    from pathlib import Path

LEFT = ".mirage-0123456789abcdef.part"


def names_in(folder: Path) -> list[str]:
    """Return what is in a folder."""
    return sorted(path.name for path in folder.iterdir())


def test_a_draft_of_a_process_that_is_gone_is_removed(tmp_path: Path) -> None:
    """However much of it was written."""
    (tmp_path / LEFT).write_bytes(b"\xff\xd8")
    (tmp_path / LEFT.replace("0", "a")).touch(0o600)
    remove_left_behind(tmp_path)
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("name", [f"{LEFT}x", f"x{LEFT}", LEFT.upper(), LEFT.replace("f.", "."), f"{LEFT}\n"])
def test_another_name_is_none_of_ours(name: str, tmp_path: Path) -> None:
    """Only the very names that drafts get count."""
    (tmp_path / name).touch()
    remove_left_behind(tmp_path)
    assert names_in(tmp_path) == [name]


def test_neither_links_nor_folders_are_touched(tmp_path: Path) -> None:
    """Nor what is in them, nor what a link leads to."""
    folder, target = tmp_path / "a" / LEFT, tmp_path / "target"
    folder.mkdir(parents=True)
    (folder / LEFT).touch()
    target.write_bytes(b"mine")
    (tmp_path / LEFT).symlink_to(target)
    remove_left_behind(tmp_path)
    remove_left_behind(folder.parent)
    assert (names_in(tmp_path), names_in(folder)) == ([LEFT, "a", "target"], [LEFT])
    assert target.read_bytes() == b"mine"


@pytest.mark.skipif(sys.platform == "win32", reason="there nobody can remove what is open")
def test_a_draft_that_is_being_written_stays(tmp_path: Path) -> None:
    """Another program, or this one, may be saving into the same folder."""
    draft = Draft(tmp_path / "fox.png", "fox")
    draft.open(".png", overwrite=False)
    draft.write(b"whole")
    remove_left_behind(tmp_path)
    assert draft.publish(".png", overwrite=False).read_bytes() == b"whole"
    assert names_in(tmp_path) == ["fox.png"]


@pytest.mark.skipif(sys.platform == "win32", reason="there nobody can remove what is open")
def test_where_nothing_can_be_held_everything_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some network shares have no locks: pictures are saved there all the same."""

    def refuse(_descriptor: int) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(_disk, "_try_lock", refuse)
    (tmp_path / LEFT).touch()
    draft = Draft(tmp_path / "fox.png", "fox")
    draft.open(".png", overwrite=False)
    remove_left_behind(tmp_path)
    draft.publish(".png", overwrite=False)
    assert names_in(tmp_path) == [LEFT, "fox.png"]


def test_a_folder_that_is_not_there_has_none(tmp_path: Path) -> None:
    """And one that is gone in the middle harms nobody."""
    remove_left_behind(tmp_path / "gone")
    assert names_in(tmp_path) == []
