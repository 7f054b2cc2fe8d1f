"""What could be read in two ways, or only in part, is told before anything is bought."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING

import msgspec
import pytest
from command_line import command_here, names_in, sandbox_for_commands

from mirage_async.cli._batch import read_lines
from mirage_async.cli._batch.items import items_of
from mirage_async.cli._exits import CommandError

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("name", "text", "number", "told"),
    [
        ("a.csv", "\nprompt,n,prompt\nfox,1,owl\n", 2, "the same column more than once: 'prompt'"),
        ("a.csv", "prompt,options.a,options.a\nfox,1,2\n", 1, "the same column more than once: 'options.a'"),
        ("a.csv", 'prompt,options,options.a\nfox,"{""a"": 1}",2\n', 2, "the same key more than once"),
        ("a.csv", 'prompt,options\nfox,"{""a"": 1, ""a"": 2}"\n', 2, "the same key more than once"),
        ("a.jsonl", '\n{"prompt": "fox", "prompt": "owl"}', 2, "the same key more than once in one object: 'prompt'"),
        ("a.jsonl", '{"prompt": "fox", "options": {"a": [{"b": 1, "b": 1}]}}', 1, "in one object: 'b'"),
        ("a.jsonl", '{"prompt": "fox", "options": {"a": ' + "[" * 5000 + "]" * 5000 + "}}", 1, "recursion"),
    ],
)
def test_what_is_said_twice_is_told(name: str, text: str, number: int, told: str, tmp_path: Path) -> None:
    """One of the two would be dropped, and nobody could say which was meant."""
    (tmp_path / name).write_text(text, "utf-8")
    lines, problems, _ = read_lines(str(tmp_path / name), None)
    assert (lines, [problem.number for problem in problems]) == ([], [number])
    assert told in problems[0].reason


def test_a_key_may_stand_in_several_objects(tmp_path: Path) -> None:
    """And a number may be as long as it can be read at all."""
    text = '{"prompt": "fox", "options": {"prompt": 1, "a": {"prompt": ' + "9" * 300 + "}}}"
    (tmp_path / "a.jsonl").write_text(text, "utf-8")
    lines, problems, _ = read_lines(str(tmp_path / "a.jsonl"), None)
    assert ([line.fields.prompt for line in lines], problems) == (["fox"], [])


@pytest.mark.parametrize(
    "header", ["prompt,provider", "\n prompt , options.style", '"n";"prompt"', "prompt\tn", "prompt"]
)
def test_the_header_of_a_table_on_stdin_is_no_picture(header: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever means it says so."""

    def piped() -> None:
        data = io.BytesIO(f"\ufeff{header}\r\na fox\r\n".encode())
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(data, "utf-8"))

    piped()
    with pytest.raises(CommandError, match=r"looks like the header of a table: add --format csv, or --format txt"):
        read_lines("-", None)
    piped()
    lines, _, _ = read_lines("-", "txt")
    assert [line.fields.prompt for line in lines] == [header.strip(), "a fox"]


@pytest.mark.parametrize("text", ["a fox, prompt\n", "prompt, please\n", "fox\nprompt,n\n", "n\n", "\n"])
def test_words_on_stdin_are_prompts(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a first line of nothing but the names of columns makes a table."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode()), "utf-8"))
    lines, _, _ = read_lines("-", None)
    assert [line.fields.prompt for line in lines] == text.split("\n")[:-1] if text.strip() else not lines


def test_line_ends_may_be_those_of_any_system(tmp_path: Path) -> None:
    """A lone carriage return ends a line, too."""
    (tmp_path / "a.txt").write_bytes(b"fox\rowl\r\nelk\n\ribex\r# no\r")
    lines, _, comments = read_lines(str(tmp_path / "a.txt"), None)
    assert [(line.number, line.fields.prompt) for line in lines] == [(1, "fox"), (2, "owl"), (3, "elk"), (5, "ibex")]
    assert comments == 1
    (tmp_path / "a.jsonl").write_bytes(b'{"prompt": "fox"}\r{"prompt": "owl"}\r')
    lines, problems, _ = read_lines(str(tmp_path / "a.jsonl"), None)
    assert ([line.number for line in lines], problems) == ([1, 2], [])


def test_every_key_but_the_prompt_may_be_null(tmp_path: Path) -> None:
    """It says as little as one that is missing: the defaults stand."""
    names = {"provider", "aspect_ratio", "size", "n", "seed", "model", "references", "options", "max_wait"}
    (tmp_path / "a.jsonl").write_bytes(msgspec.json.encode({"prompt": "fox", **dict.fromkeys(names)}))
    lines, problems, _ = read_lines(str(tmp_path / "a.jsonl"), None)
    assert problems == []
    link = "https://pictures.test/a.png"
    items, _ = items_of(lines, tmp_path, {"n": 2, "references": [link]})
    assert (items[0].request.n, items[0].request.references) == (2, (link,))


async def test_an_empty_folder_name_is_refused(tmp_path: Path) -> None:
    """It would be the folder one happens to be in, and an unset variable of a script."""
    (tmp_path / "a.txt").write_text("fox\n", "utf-8")
    async with sandbox_for_commands() as (sandbox, environment):
        ended = await command_here(
            "batch", "a.txt", "-o", "", "--provider", "miragic", folder=tmp_path, environment=environment
        )
    assert (ended.code, sandbox.requests) == (2, [])
    assert "-o must name a folder" in ended.stderr
    assert names_in(tmp_path) == ["a.txt"]
