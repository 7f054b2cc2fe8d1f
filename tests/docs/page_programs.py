"""Running the programs of a page as a reader would who copies them."""

import os
import sys
from pathlib import Path
from subprocess import PIPE, STDOUT

import anyio

ROOT = Path(__file__).parents[2]
BOUND = 25.0  # seconds one program may take


async def run(text: str, folder: Path) -> str:
    """Run a program as a file of its own, with no warning, and return what it prints."""
    file = folder / "program.py"
    file.write_text(text, encoding="utf-8")
    with anyio.fail_after(BOUND):
        done = await anyio.run_process(
            [sys.executable, "-W", "error", str(file)],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=PIPE,
            stderr=STDOUT,
            check=False,
        )
    assert done.returncode == 0, done.stdout.decode()
    return done.stdout.decode()
