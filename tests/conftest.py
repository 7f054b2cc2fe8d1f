"""Fixtures every test can ask for."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest

# What a shell starts in the background ignores Ctrl-C, and so would every command that the tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


_MEMORY = Path("/dev/shm")  # noqa: S108 - files in memory, on Linux
_ROOM = 1 << 30  # bytes; the tests take a tenth of it


def pytest_configure(config: pytest.Config) -> None:
    """Keep what the tests write in memory, where there is room for it: they have it flushed to the disk all the time.

    A flush proves something only when the machine loses its power. `TMPDIR=/tmp` leaves everything on the disk, as long
    mode does, since what others install there may have to be run.
    """
    wanted = config.option.basetemp is None and "TMPDIR" not in os.environ and config.option.markexpr == "not long"
    if wanted and os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > _ROOM:
        folder = tempfile.mkdtemp(prefix="mirage-tests-", dir=_MEMORY)
        os.environ["TMPDIR"] = folder
        tempfile.tempdir = None  # it is asked for anew
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Run asynchronous tests on asyncio, the loop aiohttp needs."""
    return "asyncio"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the developer's own keys and addresses from the tests."""
    for name in list(os.environ):
        if name.startswith(("MIRAKO_", "MIRAGIC_", "MIRA_", "MILADY_", "MIRAGE_")):
            monkeypatch.delenv(name)
