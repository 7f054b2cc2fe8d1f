"""Packages that live beside this one in an application and change how the event loop is found."""

from __future__ import annotations

import sys

import anyio
import pytest

pytestmark = pytest.mark.anyio

PROGRAM = """
import asyncio, importlib.util
from mirage_async.testing import sandboxed

assert importlib.util.find_spec("sniffio") is not None, "sniffio is not installed"

async def main():
    async with sandboxed() as (mirage, _):
        generation = await mirage.miragic.generate("a harbour", max_wait=10)
        print(len(await generation.image.read()) > 0, generation.polls > 0)

asyncio.run(main())
"""


async def test_jobs_are_polled_under_plain_asyncio_where_sniffio_is_installed() -> None:
    """With sniffio, anyio knows its event loop in tasks only; status calls are started by timers, outside of any."""
    with anyio.fail_after(30):
        ended = await anyio.run_process([sys.executable, "-c", PROGRAM], check=False)
    assert (ended.returncode, ended.stdout.decode()) == (0, "True True\n"), ended.stderr.decode()
