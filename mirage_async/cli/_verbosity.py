"""The option every command has: -v, before the command's name or after it."""

from __future__ import annotations

import logging
from typing import Annotated, TypeAlias

import typer

__all__ = ["Verbose"]


def _turn_on(wanted: bool) -> None:
    if wanted:
        logging.getLogger("mirage_async").setLevel(logging.INFO)


Verbose: TypeAlias = Annotated[
    bool, typer.Option("-v", "--verbose", callback=_turn_on, help="Tell on stderr what goes on.")
]
"""The type of a parameter whose callback does all the work."""
