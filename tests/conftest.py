"""Fixtures every test can ask for."""

from __future__ import annotations

import os
import signal

import pytest

# What a shell starts in the background ignores Ctrl-C, and so would every command that the tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


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
