"""From words on the command line to the values of a request; what they may be is the provider's business."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import typer

from mirage_async.cli._exits import CommandError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["amount", "options_of", "prompt_of", "reference_of", "seconds", "value_of", "whole"]


def whole(text: str | int) -> int:
    """Read a whole number.

    Raises:
        BadParameter: it is none; the message shows what was given, which the parser's own does not.
    """
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"must be a whole number; got {text!r:.60}") from None


def seconds(text: str | float) -> float:
    """Read a number of seconds; raises as `whole` does."""
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"must be a number of seconds; got {text!r:.60}") from None


def amount(text: str | float) -> float:
    """Read a number from 0 up; raises as `whole` does."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise typer.BadParameter(f"must be a number from 0 up; got {text!r:.60}")
    return number


def prompt_of(text: str) -> str:
    """Return the prompt; "-" reads all of stdin, without the line break at its end.

    Raises:
        CommandError: stdin is not UTF-8.
    """
    if text != "-":
        return text
    try:
        return sys.stdin.buffer.read().decode().rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise CommandError(f"the prompt on stdin must be UTF-8 text: {error}") from None


def reference_of(text: str) -> str | Path:
    """Return a URL as it is, and anything else as the path of a file."""
    return text if text.startswith(("http://", "https://", "data:")) else Path(text)


def options_of(pairs: Iterable[str]) -> dict[str, Any]:
    """Return the provider's own parameters from "key=value" words.

    Values that read like JSON numbers, true, false, null or quoted text are that; everything else is text.

    Raises:
        CommandError: a word without "=" or name, or a name given twice.
    """
    options: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise CommandError(f"--option must look like key=value; got {pair[:60]!r}")
        if name in options:
            raise CommandError(f"--option {name} is given twice; got {options[name]!r} and {text[:60]!r}")
        options[name] = value_of(text)
    return options


def value_of(text: str) -> Any:
    """Return what reads like a JSON number, true, false, null or quoted text as that, and everything else as text."""
    try:
        value = msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text
    return text if isinstance(value, dict | list) else value
