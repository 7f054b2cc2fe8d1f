"""Standard streams that fail must not cost a picture that is paid for."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

GENERATE = [sys.executable, "-m", "mirage_async", "generate", "a red boat", "--provider", "miragic", "--sandbox"]


def dead_end() -> int:
    """Return the writing end of a pipe nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing


@pytest.mark.parametrize("arguments", [["-o", "-"], ["-o", "boat"]], ids=["picture", "path"])
def test_a_stdout_nobody_reads_is_answered_with_where_the_picture_is(arguments: list[str], tmp_path: Path) -> None:
    """The command fails, and says on stderr which file holds what was bought."""
    stdout = dead_end()
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [*GENERATE, *arguments], stdout=stdout, stderr=subprocess.PIPE, cwd=tmp_path, env=environment, check=False
    )
    os.close(stdout)
    (picture,) = tmp_path.rglob("*.jpg")
    assert done.returncode == 1
    assert picture.name in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()


def test_a_log_nobody_reads_does_not_stop_the_purchase(tmp_path: Path) -> None:
    """With -v every step is told; where telling fails the picture is saved all the same."""
    stderr = dead_end()
    done = subprocess.run(
        [*GENERATE, "-v", "-o", "boat"], stdout=subprocess.PIPE, stderr=stderr, cwd=tmp_path, check=False
    )
    os.close(stderr)
    assert (done.returncode, done.stdout.decode().strip()) == (0, "boat.jpg")
    assert (tmp_path / "boat.jpg").stat().st_size > 0


def test_a_bad_address_is_a_matter_of_usage_and_not_of_keys(tmp_path: Path) -> None:
    """Exit code 2, as for every argument that is wrong; 4 is for keys."""
    environment = {**os.environ, "MIRAGE_SANDBOX_URL": "ftp://a.example"}
    done = subprocess.run(GENERATE, stderr=subprocess.PIPE, cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 2
    assert "base_url must be an absolute http(s) address" in done.stderr.decode()
