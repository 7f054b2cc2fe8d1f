"""A place on the terminal that is drawn again and again, and holds nothing up where nobody reads what is drawn."""

from __future__ import annotations

import logging
import sys
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, cast

from rich.console import Console
from rich.live import Live

from mirage_async.cli._streams import EnduringStderr, divert_stderr

if TYPE_CHECKING:
    from collections.abc import Generator

    from rich.console import RenderableType

__all__ = ["Bars"]


class Bars:
    """Draws on stderr.

    Attributes:
        possible: whether that is a terminal that can redraw, where no log would tear apart what is drawn.
    """

    def __init__(self) -> None:
        self._file = EnduringStderr()
        # A line break in the middle of a command would cut it short for whoever copies it: the terminal wraps it.
        self._console = Console(file=cast("IO[str]", self._file), highlight=False, soft_wrap=True)
        animated = sys.stderr.isatty() and self._console.is_interactive and not self._console.is_dumb_terminal
        self.possible = animated and not logging.getLogger("mirage_async").isEnabledFor(logging.INFO)

    @contextmanager
    def drawn(self, frame: RenderableType, *, a_second: int) -> Generator[None]:
        """Draw a frame so many times a second until the block ends; what is told meanwhile stands above it."""
        # Results are written after the display has ended, and stdout may be a file: it is left alone.
        with (
            _Patient(frame, self._file, console=self._console, refresh_per_second=a_second, redirect_stdout=False),
            divert_stderr(sys.stderr.write),  # which the display has replaced
        ):
            yield


class _Patient(Live):
    """Leaves frames out while the terminal takes none, so that they do not pile up."""

    def __init__(self, frame: RenderableType, file: EnduringStderr, **options: Any) -> None:
        self._file = file
        self._begun = False
        super().__init__(frame, **options)

    def refresh(self) -> None:
        if not (self._begun and self.is_started and self._file.behind()):  # the first and the last are always drawn
            super().refresh()
        self._begun = True
