"""What is to end a command while an event loop runs: heard between two steps, told to whoever waits, rude at last."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from typing import TYPE_CHECKING

import pytest
from command_line import PROMPTLY, inherited

from mirage_async.cli._exits import CommandError, ExitCode
from mirage_async.cli._lines import AdvisedError
from mirage_async.cli._running import run_in_loop, signals
from mirage_async.exceptions import SubmissionUncertainError, WaitTimeoutError

if TYPE_CHECKING:
    from collections.abc import Iterator

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(params=[signal.SIG_IGN, signal.default_int_handler], ids=["ctrl-c-ignored", "ctrl-c-heard"])
def handlers(request: pytest.FixtureRequest) -> Iterator[None]:
    """Have Ctrl-C heard or not: what a script's shell has started with "&" ignores it."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in ENDING}
    signal.signal(signal.SIGINT, request.param)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_an_end_in_the_middle_of_a_step_breaks_nothing_and_is_told_to_who_waits(number: signal.Signals) -> None:
    """What another task was about to do is done; whoever waits is cancelled, and may still await to say so."""
    seen: list[str] = []

    async def poller() -> None:
        signal.raise_signal(number)
        seen.append("the step went on")

    async def work() -> None:
        polling = asyncio.create_task(poller())
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await polling
            seen.append("the way back was told")
            raise

    with pytest.raises(CommandError, match="interrupted") as caught:
        run_in_loop(work())
    assert caught.value.code is ExitCode.INTERRUPTED
    assert seen == ["the step went on", "the way back was told"]
    assert signal.getsignal(number) is signal.SIG_DFL


@pytest.mark.usefixtures("handlers")
def test_a_second_one_leaves_the_time_to_end_well() -> None:
    """Whoever is impatient must not lose what is just being told."""
    seen: list[str] = []

    async def work() -> None:
        signal.raise_signal(signal.SIGTERM)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            signal.raise_signal(signal.SIGTERM)
            for _ in range(3):
                await asyncio.sleep(0)
            seen.append("ended well")
            raise

    with pytest.raises(CommandError, match="interrupted"):
        run_in_loop(work())
    assert seen == ["ended well"]


@pytest.mark.usefixtures("handlers")
def test_a_server_that_is_ended_politely_returns_its_code() -> None:
    """What takes a cancellation for its end has done its work."""

    async def serve() -> str:
        signal.raise_signal(signal.SIGTERM)
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return "served"

    assert run_in_loop(serve()) == "served"


@pytest.mark.usefixtures("handlers")
def test_one_that_comes_when_all_is_done_changes_nothing() -> None:
    """While the event loop closes, what came of the work is on its way already."""

    async def left_over() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            signal.raise_signal(signal.SIGTERM)

    async def work() -> str:
        holding.append(asyncio.create_task(left_over()))
        await asyncio.sleep(0)
        return "done"

    holding: list[asyncio.Task[None]] = []
    assert run_in_loop(work()) == "done"
    assert holding[0].cancelled()


@pytest.mark.usefixtures("handlers")
def test_before_anything_runs_there_is_nothing_to_lose() -> None:
    """A command that still loads, or reads its prompt, ends at once."""
    with signals.heard(), signals.heard(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.usefixtures("handlers")
def test_a_cancellation_that_no_signal_asked_for_stays_one() -> None:
    """It is somebody's mistake, and not to be called an interruption."""

    async def work() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        run_in_loop(work())


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize(
    ("error", "told"),
    [
        (SubmissionUncertainError("lost", provider="mira", key="k1"), "may have been paid for (key k1)"),
        (WaitTimeoutError("late", provider="mirako", job_id="j", token='{"id":"j"}'), """job('{"id":"j"}')"""),
        (AdvisedError("cut off", code=ExitCode.TIMED_OUT, advice="look again with: view j"), "look again with: view j"),
        (ValueError("all else"), ""),
    ],
    ids=["uncertain", "timed-out", "advised", "other"],
)
def test_an_error_that_was_on_its_way_is_told(error: Exception, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It tells how to come back to what was bought, and the interruption of what closes everything replaces it."""

    async def work() -> None:
        try:
            raise error
        finally:
            signal.raise_signal(signal.SIGTERM)
            await asyncio.Event().wait()

    with pytest.raises(CommandError, match="interrupted"):
        run_in_loop(work())
    stderr = capsys.readouterr().err
    assert told in stderr
    assert bool(stderr) == bool(told)


@pytest.mark.usefixtures("handlers")
def test_a_listener_hears_them_in_place_of_the_task() -> None:
    """In the event loop, each of them, until it listens no more."""
    heard: list[int] = []

    async def work() -> None:
        signals.listener = heard.append
        signal.raise_signal(signal.SIGHUP)
        await asyncio.sleep(0)
        signals.listener = None
        signal.raise_signal(signal.SIGTERM)
        await asyncio.Event().wait()

    with pytest.raises(CommandError, match="interrupted"):
        run_in_loop(work())
    assert heard == [signal.SIGHUP]


@pytest.mark.parametrize("ignored", [signal.SIGINT, signal.SIGHUP], ids=["ctrl-c", "hang-up"])
def test_what_is_ignored_stays_ignored(ignored: signal.Signals) -> None:
    """A shell has its reasons for what it starts in the background, and so has nohup."""

    async def handlers() -> dict[signal.Signals, object]:
        return {number: signal.getsignal(number) for number in ENDING}

    before = {
        number: signal.signal(number, signal.SIG_IGN if number == ignored else signal.SIG_DFL) for number in ENDING
    }
    try:
        found = run_in_loop(handlers())
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert [number for number, handler in found.items() if handler is signal.SIG_IGN] == [ignored]
    assert all(callable(handler) for number, handler in found.items() if number != ignored)


STUCK = """
import sys, time
from mirage_async.cli._running import run_in_loop

async def work():
    print("ready", flush=True)
    while True:
        time.sleep(0.05)  # the event loop stands still, and hears nothing

run_in_loop(work())
"""


@pytest.mark.anyio
async def test_the_third_ends_the_process_whatever_it_does() -> None:
    """There must be a way to end what hangs, short of kill -9."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", STUCK, env=inherited(), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    async with asyncio.timeout(PROMPTLY):
        assert await process.stdout.readline() == b"ready\n"
    for number in (signal.SIGINT, signal.SIGHUP):
        process.send_signal(number)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(process.wait(), 0.3)
    process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(PROMPTLY):
        assert await process.wait() == -signal.SIGTERM
