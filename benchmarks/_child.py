"""A server in a process of its own, so that its CPU and its memory are not the client's."""

from __future__ import annotations

import multiprocessing
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from multiprocessing.connection import Connection

__all__ = ["START_LIMIT", "serving_in_child"]

START_LIMIT = 60.0  # seconds; one of them makes large pictures first


@contextmanager
def serving_in_child(serve: Callable[..., None], *plan: object) -> Generator[tuple[Any, Connection]]:
    """Run a server in a child process, which ends with the block, or with this process.

    Args:
        serve: called with its end of a pipe and with `plan`; sends where it is to be found, and serves until the other
            end is closed.
        plan: what it serves; has to be picklable.

    Yields:
        What it sent first, and our end of the pipe.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    child = context.Process(target=serve, args=(theirs, *plan), daemon=True)
    child.start()
    theirs.close()
    try:
        if not ours.poll(START_LIMIT):
            msg = f"the server's process did not come up within {START_LIMIT:g} s"
            raise TimeoutError(msg)
        yield ours.recv(), ours
    finally:
        ours.close()
        child.join(timeout=5)
        if child.is_alive():
            child.terminate()
            child.join()
