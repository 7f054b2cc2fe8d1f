"""Standard streams that fail must not cost a picture that is paid for."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from command_line import inherited, sandbox_for_commands

if TYPE_CHECKING:
    from pathlib import Path

GENERATE = [sys.executable, "-m", "mirage_async", "generate", "a red boat", "--provider", "miragic", "--sandbox"]


def dead_end() -> int:
    """Return the writing end of a pipe nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing


async def generated(
    *arguments: str, folder: Path, stdout: int = subprocess.PIPE, stderr: int = subprocess.PIPE
) -> subprocess.CompletedProcess[bytes]:
    """Buy a picture that is finished as soon as it is ordered."""
    async with sandbox_for_commands(durations=0.0) as (_, address):
        environment = {**inherited(), **address, "TMPDIR": str(folder)}
        words = [*GENERATE, *arguments]
        return await asyncio.to_thread(
            subprocess.run, words, stdout=stdout, stderr=stderr, cwd=folder, env=environment, check=False
        )


@pytest.mark.anyio
@pytest.mark.parametrize("arguments", [["-o", "-"], ["-o", "boat"]], ids=["picture", "path"])
async def test_a_stdout_nobody_reads_is_answered_with_where_the_picture_is(
    arguments: list[str], tmp_path: Path
) -> None:
    """The command fails, and says on stderr which file holds what was bought."""
    stdout = dead_end()
    done = await generated(*arguments, folder=tmp_path, stdout=stdout)
    os.close(stdout)
    (picture,) = tmp_path.rglob("*.jpg")  # noqa: ASYNC240 - a test may block
    assert done.returncode == 1
    assert picture.name in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()


@pytest.mark.anyio
async def test_a_log_nobody_reads_does_not_stop_the_purchase(tmp_path: Path) -> None:
    """With -v every step is told; where telling fails the picture is saved all the same."""
    stderr = dead_end()
    done = await generated("-v", "-o", "boat", folder=tmp_path, stderr=stderr)
    os.close(stderr)
    assert (done.returncode, done.stdout.decode().strip()) == (0, "boat.jpg")
    assert (tmp_path / "boat.jpg").stat().st_size > 0


def test_a_bad_address_is_a_matter_of_usage_and_not_of_keys(tmp_path: Path) -> None:
    """Exit code 2, as for every argument that is wrong; 4 is for keys."""
    environment = {**inherited(), "MIRAGE_SANDBOX_URL": "ftp://a.example"}
    done = subprocess.run(GENERATE, stderr=subprocess.PIPE, cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 2
    assert "base_url must be an absolute http(s) address" in done.stderr.decode()
