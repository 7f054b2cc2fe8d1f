"""What the commands that serve until they are ended have in common."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import socket
from typing import cast

from mirage_async.cli._exits import CommandError, ExitCode

__all__ = ["cannot_listen", "counted", "end_on_sigterm"]


def end_on_sigterm() -> None:
    """Have SIGTERM cancel this task, even where SIGINT, which it becomes otherwise, is ignored.

    It is so in a process that a script's shell has started with "&".
    """
    task = cast("asyncio.Task[object]", asyncio.current_task())
    with contextlib.suppress(NotImplementedError):  # as on Windows, which has Ctrl-C alone
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)


def cannot_listen(host: str, port: int, error: OSError) -> CommandError:
    """Return the reason to end with where a port cannot be listened on."""
    return CommandError(f"cannot listen on {host}:{port}: {_reason(error)}", code=ExitCode.FAILURE)


def _reason(error: OSError) -> str:
    """Say why it cannot listen; the event loop's own words repeat the address."""
    if error.errno == errno.EADDRINUSE:
        return "the port is in use (--port N takes another one, --port 0 any that is free)"
    if error.errno is None or isinstance(error, socket.gaierror):  # the numbers of the latter are its own
        return error.strerror or str(error)
    return os.strerror(error.errno)


def counted(number: int, what: str) -> str:
    """Return a number of things in words."""
    return f"{number} {what}{'' if number == 1 else 's'}"
