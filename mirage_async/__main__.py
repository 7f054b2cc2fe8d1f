"""Entry point of the command `mirage-async` and of `python -m mirage_async`."""

from __future__ import annotations

import gc
import signal
import sys

__all__ = ["main"]

_NEEDED = frozenset({"click", "rich", "typer"})


def main() -> None:
    """Run the command line and end the process with its exit code."""
    gc.disable()  # loading makes thousands of objects and no garbage; looking for some takes a tenth of the time
    try:
        from mirage_async.cli import run  # noqa: PLC0415 - needs an extra, whose absence is told below
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
    # Whoever ends the process politely (timeout, a container's stop) is told what Ctrl-C tells. While an event loop
    # runs, that is its matter (cli/_running.py).
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sys.exit(run())
    except KeyboardInterrupt:  # while the command was still being loaded, or once more while it ended
        sys.exit(130)


if __name__ == "__main__":
    main()
