"""What the commands that serve until they are ended have in common."""

from __future__ import annotations

import errno
import os
import socket

from mirage_async.cli._exits import CommandError, ExitCode

__all__ = ["cannot_listen", "counted"]


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
