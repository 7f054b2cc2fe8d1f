"""What `batch` shows on a narrow terminal can be copied: a command is never broken into lines."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

import pytest
from batches import write_prompts
from command_line import sandbox_for_commands
from terminals import on_terminal
from test_cli_batch import until_seen, words_for

from mirage_async.cli._exits import ExitCode

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("signals", [[signal.SIGINT], [signal.SIGINT, signal.SIGINT], [signal.SIGTERM]])
async def test_the_command_that_goes_on_is_the_last_line_and_whole(
    signals: list[signal.Signals], tmp_path: Path
) -> None:
    """However narrow the terminal, and while the bar is moving."""
    prompts = [f"picture {number}" for number in range(9)]
    async with sandbox_for_commands(durations=1) as (sandbox, environment):
        words = words_for(write_prompts(tmp_path, *prompts, name="a file with a long name.txt"), "--limit", "2")
        async with on_terminal(*words, columns=40, folder=tmp_path, environment=environment) as terminal:
            await until_seen(sandbox, "miragic.status", 2)
            for number in signals:
                terminal.process.send_signal(number)
                await asyncio.sleep(0.2)
    lines = terminal.text.splitlines()
    again = "mirage-async batch 'a file with a long name.txt' -o out --provider miragic --limit 2"
    assert terminal.process.returncode == ExitCode.INTERRUPTED
    assert lines[-2:] == [
        "mirage-async: interrupted",
        f"mirage-async: to go on with the batch, and buy nothing twice: {again}",
    ]
    told = "ending at once; 2 in flight stay owed, and the next run collects them"
    if len(signals) == 2 or signals == [signal.SIGTERM]:
        assert any(told in line for line in lines), lines
    else:
        assert any("2 in flight are finished first (Ctrl-C again ends at once)" in line for line in lines), lines
