"""The input of a batch: one request a line, in three formats, each line checked by itself."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import msgspec

from mirage_async.cli._arguments import value_of
from mirage_async.cli._exits import CommandError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = ["Fields", "Format", "Line", "Problem", "read_lines"]

Format: TypeAlias = Literal["jsonl", "csv", "txt"]

_SUFFIXES: dict[str, Format] = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".txt": "txt"}
_OPTION = "options."  # what the name of a column begins with that holds one of the provider's own parameters
_STDIN = "-"


class Fields(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a line may say; the names are those of `ImageRequest`, and so is what they mean."""

    prompt: str
    provider: str | None = None
    aspect_ratio: str | None = None
    size: str | None = None
    n: int | None = None
    seed: int | None = None
    model: str | None = None
    references: list[str] | str | None = ()  # type: ignore[assignment]  # an empty list would have to be made each time
    options: dict[str, Any] | None = None
    max_wait: float | None = None


class Line(msgspec.Struct, frozen=True):
    """One request as it was written.

    Attributes:
        number: of the line it begins in, from 1.
        fields: what it says.
    """

    number: int
    fields: Fields


class Problem(msgspec.Struct, frozen=True, order=True):
    """What is wrong with a line."""

    number: int
    reason: str


def read_lines(source: str, wished: str | None) -> tuple[list[Line], list[Problem], int]:
    """Return the requests of a file, what is wrong with the lines that are none, and how many were comments.

    Args:
        source: the path of a file, or "-" for stdin.
        wished: one of `Format`, or None to go by the file's name; stdin is JSON lines where it begins with a brace, and
            text where it does not and does not look like a table.

    Raises:
        CommandError: it cannot be read, or nobody can say in which format it is.
    """
    text = _text_of(source)
    form = _format_of(source, wished, text)
    rows = {"jsonl": _from_jsonl, "csv": _from_csv, "txt": _from_txt}[form](text)
    lines: list[Line] = []
    problems: list[Problem] = []
    comments = 0
    for row in rows:
        if row is None:
            comments += 1
        elif isinstance(row, Problem):
            problems.append(row)
        else:
            lines.append(row)
    return lines, problems, comments


def _text_of(source: str) -> str:
    where = "stdin" if source == _STDIN else repr(source)
    try:
        data = sys.stdin.buffer.read() if source == _STDIN else Path(source).read_bytes()
        return data.decode("utf-8-sig")
    except OSError as error:
        raise CommandError(f"cannot read {where}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise CommandError(f"{where} must be UTF-8 text: {error}") from None


def _format_of(source: str, wished: str | None, text: str) -> Format:
    allowed: Sequence[Format] = get_args(Format)
    for form in allowed:
        if form == wished:
            return form
    if wished is not None:
        raise CommandError(f"--format must be one of {', '.join(allowed)}; got {wished!r}")
    if source == _STDIN:
        return _format_of_stdin(text)
    found = _SUFFIXES.get(Path(source).suffix.lower())
    if found is None:
        raise CommandError(
            f"the name {source!r} does not tell the format: add --format {' or --format '.join(allowed)}"
        )
    return found


def _format_of_stdin(text: str) -> Format:
    """Tell JSON lines from text; a table says so itself, or its header would be bought as a picture."""
    if text.lstrip().startswith("{"):
        return "jsonl"
    number, line = next(((number, line) for number, line in _numbered(text) if line.strip()), (1, ""))
    names = [name.strip(" \"'\n") for name in re.split("[,;\t]", line)]
    if "prompt" in names and all(map(_is_column, names)):
        raise CommandError(
            f"line {number} of stdin, {line.strip()!r}, looks like the header of a table: add --format csv, or "
            "--format txt where it is a prompt"
        )
    return "txt"


def _numbered(text: str) -> Iterator[tuple[int, str]]:
    """Yield the lines with their numbers, whichever system's line ends they have."""
    return enumerate(io.StringIO(text, newline=None), 1)


def _from_txt(text: str) -> Iterator[Line | None]:
    """Yield the prompts, and None for each comment."""
    for number, line in _numbered(text):
        prompt = line.strip()
        if prompt.startswith("#"):
            yield None
        elif prompt:
            yield Line(number, Fields(prompt=prompt))


def _from_jsonl(text: str) -> Iterator[Line | Problem]:
    decoder = msgspec.json.Decoder(Fields)
    for number, line in _numbered(text):
        if not line.strip():
            continue
        try:
            request = Line(number, decoder.decode(line))
            _check_keys(line)
            yield request
        except (msgspec.MsgspecError, RecursionError) as error:
            yield Problem(number, _reason(error))


def _check_keys(text: str) -> None:
    """Refuse JSON in which an object has a key twice: all but the last would be dropped."""
    json.loads(text, object_pairs_hook=_check_pairs)


def _check_pairs(pairs: list[tuple[str, Any]]) -> None:
    if twice := _repeated(name for name, _ in pairs):
        raise msgspec.ValidationError(f"the same key more than once in one object: {', '.join(map(repr, twice))}")


def _repeated(names: Iterable[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]


def _from_csv(text: str) -> Iterator[Line | Problem]:
    rows = _rows_of(text)
    nothing: tuple[int, list[str] | Problem] = (1, [])
    begins, names = next(rows, nothing)
    if isinstance(names, Problem):
        yield names
        return
    unknown = sorted(name for name in names if not _is_column(name))
    if unknown:
        known = ", ".join(Fields.__struct_fields__)
        yield Problem(begins, f"unknown columns {', '.join(map(repr, unknown))}; known are {known}, {_OPTION}NAME")
        return
    if twice := _repeated(names):
        yield Problem(begins, f"the same column more than once: {', '.join(map(repr, twice))}")
        return
    for number, cells in rows:
        yield cells if isinstance(cells, Problem) else _from_row(number, names, cells)


def _rows_of(text: str) -> Iterator[tuple[int, list[str] | Problem]]:
    """Yield the rows that are not blank, with the numbers of the lines they begin in; cells may hold line breaks."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    begins = 1
    try:
        for cells in reader:
            if cells:
                yield begins, cells
            begins = reader.line_num + 1
    except csv.Error as error:
        yield begins, Problem(begins, f"no CSV: {error}")


def _is_column(name: str) -> bool:
    return name in Fields.__struct_fields__ or (name.startswith(_OPTION) and name != _OPTION)


def _from_row(number: int, names: Sequence[str], cells: Sequence[str]) -> Line | Problem:
    """Return the request of a row; an empty cell says nothing, and neither does one that is not there."""
    if len(cells) > len(names):
        return Problem(number, "more cells than the header has names")
    fields: dict[str, Any] = {}
    options: dict[str, Any] = {}
    for name, cell in zip(names, cells, strict=False):
        if not cell:
            continue
        if name.startswith(_OPTION):
            options[name.removeprefix(_OPTION)] = value_of(cell)
        else:
            fields[name] = cell
    try:
        for name, opening in (("options", "{"), ("references", "[")):
            if fields.get(name, "").startswith(opening):
                text = fields[name]
                fields[name] = msgspec.json.decode(text)
                _check_keys(text)
        if options:
            _check_pairs([*fields.get("options", {}).items(), *options.items()])
            fields["options"] = {**fields.get("options", {}), **options}
        return Line(number, msgspec.convert(fields, Fields, strict=False))
    except (msgspec.MsgspecError, RecursionError, TypeError) as error:
        return Problem(number, _reason(error))


def _reason(error: Exception) -> str:
    """Say what is wrong, in the words of whoever reads a file and not of whoever decodes it."""
    text = str(error).replace("Object ", "the request ").replace("`", "'").replace("$.", "").replace(" | null", "")
    return f"{text}; known are {', '.join(Fields.__struct_fields__)}" if "unknown field" in text else text
