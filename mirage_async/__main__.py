"""Entry point of the command `mirage-async` and of `python -m mirage_async`."""

from __future__ import annotations

import gc
import os
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["main"]

_INTERRUPTED = 130
_MOMENT = 0.2  # seconds
_NEEDED = frozenset({"click", "rich", "typer"})


def main() -> None:
    """Run the command line and end the process with its exit code."""
    gc.disable()  # loading makes thousands of objects and no garbage; looking for some takes a tenth of the time
    try:
        from mirage_async.cli import run, signals  # noqa: PLC0415 - needs an extra, whose absence is told below
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _NEEDED:
            raise
        sys.stderr.write(
            f"mirage-async: error: {error.name} is not installed, and the command line needs it: "
            'pip install "mirage_async[cli]"\n'
        )
        sys.exit(2)
    finally:
        gc.enable()
    try:
        signals.set_up()
        code = run()
    except KeyboardInterrupt:  # in between: nothing has begun
        sys.exit(_INTERRUPTED)
    if _are_over(thread for thread in threading.enumerate() if thread is not threading.main_thread()):
        signals.pass_over()  # it has told its code already, in words, and takes no time any more
    elif code == _INTERRUPTED:
        os._exit(code)  # all there was to tell is told; whoever does not read what a thread writes is not waited for
    sys.exit(code)


def _are_over(threads: Iterable[threading.Thread]) -> bool:
    """Whether threads that the process would wait for are over, or will be in a moment."""
    held_up = [thread for thread in threads if not thread.daemon]
    for thread in held_up:
        thread.join(_MOMENT)
    return not any(thread.is_alive() for thread in held_up)


if __name__ == "__main__":
    main()
