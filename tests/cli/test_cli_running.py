"""A polite end while an event loop runs: heard between two steps, told to whoever waits, and once more it is rude."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import TYPE_CHECKING

import pytest

from mirage_async.cli._running import run_in_loop

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(params=[signal.SIG_IGN, signal.default_int_handler], ids=["ctrl-c-ignored", "ctrl-c-heard"])
def handlers(request: pytest.FixtureRequest) -> Iterator[None]:
    """Hear signals as the command does: what a script's shell has started with "&" ignores Ctrl-C."""
    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, request.param),
        signal.SIGTERM: signal.signal(signal.SIGTERM, signal.default_int_handler),
    }
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
def test_a_polite_end_in_the_middle_of_a_step_breaks_nothing_and_is_told_to_who_waits() -> None:
    """What another task was about to do is done; whoever waits is cancelled, and may still await to say so."""
    seen: list[str] = []

    async def poller() -> None:
        signal.raise_signal(signal.SIGTERM)
        seen.append("the step went on")

    async def work() -> None:
        polling = asyncio.create_task(poller())
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await polling
            seen.append("the way back was told")
            raise

    with pytest.raises(KeyboardInterrupt):
        run_in_loop(work())
    assert seen == ["the step went on", "the way back was told"]
    assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler


@pytest.mark.usefixtures("handlers")
def test_a_second_polite_end_does_not_wait_for_the_first() -> None:
    """A command that hangs while it ends can be ended."""

    async def work() -> None:
        signal.raise_signal(signal.SIGTERM)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            signal.raise_signal(signal.SIGTERM)
            pytest.fail("a second one must not be waited out")

    with pytest.raises(KeyboardInterrupt):
        run_in_loop(work())


@pytest.mark.usefixtures("handlers")
def test_a_server_that_is_ended_politely_returns_its_code() -> None:
    """What takes a cancellation for its end has done its work."""

    async def serve() -> str:
        signal.raise_signal(signal.SIGTERM)
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return "served"

    assert run_in_loop(serve()) == "served"
    assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler
