"""The sandbox's page is run: its programs work as printed, and its tables leave nothing out."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from subprocess import PIPE, STDOUT

import anyio
import pytest

from mirage_async.sandbox.control.routes import ROUTES
from mirage_async.sandbox.dialects.registry import PROVIDERS
from mirage_async.sandbox.faults.catalogue import GLOSSARY, NAMES

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


def test_every_meaning_in_the_table_is_the_one_the_sandbox_itself_tells() -> None:
    """The page and `GET /_sandbox/faults/names` say the same."""
    rows = re.findall(r"^\| `([a-z0-9-]+)` \| ([a-z]+) \| (.+) \|$", PAGE, re.MULTILINE)
    assert rows == [(one.name, one.point, one.meaning) for one in GLOSSARY]


def test_every_control_route_is_on_the_page() -> None:
    """The page leaves none out and has none that is not there."""
    table = PAGE[PAGE.index("| | under `/_sandbox`") :].partition("\n\n")[0]
    listed = {
        (method, path)
        for methods, paths in re.findall(r"^\| ([A-Z, ]+) \| ([^|]+) \|", table, re.MULTILINE)
        for method in methods.split(", ")
        for path in re.findall(r"`([^`]+)`", paths)
    }
    actual = {(route.method, route.path) for route in ROUTES}
    assert actual - listed == set()
    assert {path for _, path in listed} == {route.path for route in ROUTES}


def test_every_operation_is_on_the_page() -> None:
    """Whoever orders a fault finds what to order it for."""
    names = [operation.name.partition(".")[2] for provider in PROVIDERS for operation in provider.operations]
    assert [name for name in names if f"`{name}`" not in PAGE and f".{name}`" not in PAGE] == []
