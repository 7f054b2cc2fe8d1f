"""A server in a process of its own, so that its CPU and its memory are not the client's."""

from __future__ import annotations

import multiprocessing
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from multiprocessing.connection import Connection

__all__ = ["START_LIMIT", "serving_in_child"]

START_LIMIT = 60.0  # seconds; one of them makes large pictures first

T = TypeVar("T")


@contextmanager
def serving_in_child(serve: Callable[[Connection, T], None], plan: T) -> Generator[str]:
    """Run `serve` in a child process and yield its address; it ends with the block, or with this process.

    Args:
        serve: sends its address over the pipe, and serves until the other end is closed.
        plan: what it serves; has to be picklable.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    child = context.Process(target=serve, args=(theirs, plan), daemon=True)
    child.start()
    theirs.close()
    try:
        if not ours.poll(START_LIMIT):
            msg = f"the server's process did not come up within {START_LIMIT:g} s"
            raise TimeoutError(msg)
        yield ours.recv()
    finally:
        ours.close()
        child.join(timeout=5)
        if child.is_alive():
            child.terminate()
            child.join()
