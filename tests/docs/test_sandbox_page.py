"""The sandbox's page is run: its programs work as printed, and its tables leave nothing out."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from subprocess import PIPE, STDOUT

import anyio
import pytest

from mirage_async.sandbox.faults.catalogue import NAMES

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "mirage_async/sandbox/README.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
BOUND = 25.0  # seconds one program may take


@pytest.mark.parametrize("number", range(len(PROGRAMS)))
async def test_every_program_runs_as_it_is_printed(number: int, tmp_path: Path) -> None:
    """Pasted into a file, with no key in the environment and no warning."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAMS[number], encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}  # without keys: they are hidden from all tests
    with anyio.fail_after(BOUND):
        done = await anyio.run_process(
            [sys.executable, "-W", "error", str(program)],
            cwd=tmp_path,
            env=environment,
            stdout=PIPE,
            stderr=STDOUT,
            check=False,
        )
    assert done.returncode == 0, done.stdout.decode()


def test_every_fault_has_a_line_in_the_table() -> None:
    """Whoever looks for a name finds what it does."""
    explained = set(re.findall(r"^\| `([a-z-]+)", PAGE, re.MULTILINE))
    assert [name for name in NAMES if name not in explained] == []
