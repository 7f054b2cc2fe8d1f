"""Running the command as a person at a terminal would."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import re
import sys
import termios
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from command_line import PATIENCE, inherited

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path


class OnTerminal:
    """A command and what its terminal shows.

    Attributes:
        process: the command.
        shown: every byte it wrote, once it has ended.
    """

    def __init__(self, process: Process, shown: bytearray, primary: int, secondary: int) -> None:
        self.process = process
        self.shown = shown
        self._primary = primary
        self._secondary = secondary

    def close(self) -> None:
        """Close the terminal's window: what the command writes from then on fails."""
        nowhere = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nowhere, self._primary)  # which whoever reads it takes for the end
        os.close(nowhere)

    def go_on(self) -> None:
        """Take again what is written, as with Ctrl-Q."""
        termios.tcflow(self._secondary, termios.TCOON)

    @property
    def text(self) -> str:
        """What it wrote, without the moves and colours of the terminal."""
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self.shown.decode())


@asynccontextmanager
async def on_terminal(
    *words: str, columns: int, folder: Path, environment: Mapping[str, str], stopped: bool = False
) -> AsyncIterator[OnTerminal]:
    """Start a command in a folder, on a terminal of so many columns and 30 lines, and wait for its end.

    One that is `stopped`, as with Ctrl-S, takes nothing for now.
    """
    primary, secondary = pty.openpty()
    if stopped:
        termios.tcflow(secondary, termios.TCOOFF)
    shown = bytearray()

    def reading() -> None:
        with contextlib.suppress(OSError):  # the other end is closed
            while data := os.read(primary, 65536):
                shown.extend(data)

    thread = threading.Thread(target=reading)
    thread.start()
    env = {**inherited(), **environment, "TERM": "xterm-256color", "COLUMNS": str(columns), "LINES": "30"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mirage_async", *words),
        stdin=secondary,
        stdout=secondary,
        stderr=secondary,
        cwd=folder,
        env=env,
    )
    try:
        yield OnTerminal(process, shown, primary, secondary)
        await asyncio.wait_for(process.wait(), PATIENCE)
    finally:
        if process.returncode is None:
            process.kill()
        os.close(secondary)
        thread.join(5)
        os.close(primary)
