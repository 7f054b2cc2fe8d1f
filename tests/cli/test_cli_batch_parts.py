"""The parts of `batch` by themselves: what is read, which keys it makes, what is left of a budget, how it looks."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from command_line import sandbox_for_commands
from terminals import on_terminal

from mirage_async.cli._batch import bound_of, read_lines
from mirage_async.cli._batch.folder import held_folder, write_whole
from mirage_async.cli._batch.interruption import Interruption, minding_signals
from mirage_async.cli._batch.items import Purchase, items_of, purchases_of
from mirage_async.cli._batch.lines import Fields, Line
from mirage_async.cli._batch.manifest import Manifest
from mirage_async.cli._batch.page import MARK, render
from mirage_async.cli._batch.plan import plan_for
from mirage_async.cli._batch.progress import Tally, displayed
from mirage_async.cli._batch.record import Record
from mirage_async.cli._exits import CommandError, ExitCode
from mirage_async.cli._running import signals
from mirage_async.hub import Mirage
from mirage_async.journal import Entry, EntryState
from mirage_async.models import ImageRequest
from mirage_async.sandbox import Fault


def read(folder: Path, text: str, name: str) -> tuple[list[Line], list[tuple[int, str]]]:
    """Read a file of that name and content."""
    path = folder / name
    path.write_bytes(text.encode())
    lines, problems, _ = read_lines(str(path), None)
    return lines, [(problem.number, problem.reason) for problem in problems]


# --- lines ---


def test_text_has_a_prompt_a_line(tmp_path: Path) -> None:
    """A mark at the beginning, blank lines, comments and line ends of another system are no prompts."""
    lines, problems = read(tmp_path, "\ufefffox\r\n\r\n  # no\r\n  two words \r\n", "a.TXT")
    assert [(line.number, line.fields.prompt) for line in lines] == [(1, "fox"), (4, "two words")]
    assert problems == []
    assert read_lines(str(tmp_path / "a.TXT"), None)[2] == 1


def test_a_table_says_in_which_line_each_row_begins(tmp_path: Path) -> None:
    """Cells may hold line breaks; empty ones say nothing, and so do blank lines; JSON stands for lists and mappings."""
    table = (
        '\nprompt,n,references,options,options.style,seed\n"a\nb",2,,,,\n'
        'c,,"[""x.png"", ""y z.png""]","{""a"": 1}",true,-3\nd,,z.png,,,\n\n\ne,x\n'
    )
    lines, problems = read(tmp_path, table, "a.csv")
    assert [line.number for line in lines] == [3, 5, 6]
    assert lines[0].fields == Fields(prompt="a\nb", n=2)
    assert lines[1].fields.references == ["x.png", "y z.png"]
    assert (lines[1].fields.options, lines[1].fields.seed) == ({"a": 1, "style": True}, -3)
    assert lines[2].fields.references == "z.png"
    assert [number for number, _ in problems] == [9]


@pytest.mark.parametrize(
    ("text", "name", "number", "told"),
    [
        ("prompt,colour\nfox,red\n", "a.csv", 1, "unknown columns 'colour'"),
        ("prompt,options.\nfox,red\n", "a.csv", 1, "unknown columns 'options.'"),
        ("prompt,n\nfox,two\n", "a.csv", 2, "Expected 'int', got 'str' - at 'n'"),
        ("prompt,n\nfox,1,2\n", "a.csv", 2, "more cells than the header has names"),
        ("prompt,n\n,1\n", "a.csv", 2, "missing required field 'prompt'"),
        ('prompt,options\nfox,"{"\n', "a.csv", 2, ""),
        ('prompt,options\nfox,"[1]"\n', "a.csv", 2, "Expected 'object"),
        ('prompt\n"fox', "a.csv", 2, "no CSV"),
        ('"prompt', "a.csv", 1, "no CSV"),
        ('{"prompt": 1}', "a.jsonl", 1, "Expected 'str', got 'int' - at 'prompt'"),
        ('{"prompt": "a"}\n\n[]', "a.ndjson", 3, "Expected 'object', got 'array'"),
        ('{"prompt": "a", "colour": 1}', "a.jsonl", 1, "'colour'; known are prompt, provider, aspect_ratio, size, n"),
        ('{"prompt": "a", "n": true}', "a.jsonl", 1, "Expected 'int"),
    ],
)
def test_a_line_that_is_none_is_told_with_its_number(
    text: str, name: str, number: int, told: str, tmp_path: Path
) -> None:
    """The words are those of whoever wrote the file."""
    _, problems = read(tmp_path, text, name)
    assert [each for each, _ in problems] == [number]
    assert told in problems[0][1]


@pytest.mark.parametrize(
    ("name", "wished", "told"),
    [
        ("none.txt", None, "cannot read 'none.txt': No such file"),
        ("binary.txt", None, "must be UTF-8 text"),
        ("lines", None, "add --format jsonl or --format csv or --format txt"),
        ("lines", "xml", "--format must be one of jsonl, csv, txt; got 'xml'"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(
    name: str, wished: str | None, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The format follows from the name, or is given."""
    monkeypatch.chdir(tmp_path)
    Path("binary.txt").write_bytes(b"\xff\xfe")
    Path("lines").write_text("fox\n", "utf-8")
    with pytest.raises(CommandError, match=re.escape(told)):
        read_lines(name, wished)
    assert len(read_lines("lines", "txt")[0]) == 1


# --- keys ---


def keys_of(lines: list[Line], folder: Path, batch: str = "b", **defaults: Any) -> list[str]:
    """Return the keys that lines get in a batch, without splitting anything."""
    items, problems = items_of(lines, folder, defaults)
    assert problems == []
    return [purchase_of(item.request, f"{item.digest}\n{item.twin}").key(batch) for item in items]


def purchase_of(request: ImageRequest, identity: str, number: int = 1) -> Purchase:
    """Return a purchase of one part."""
    return Purchase(number=number, part=1, parts=1, request=request, identity=identity)


def test_a_key_depends_on_all_that_decides_what_is_bought_and_on_nothing_else(tmp_path: Path) -> None:
    """Not on the number of the line, the name of a picture's file or how long to wait; twins have two."""
    (tmp_path / "a.png").write_bytes(b"one picture")
    (tmp_path / "b.png").write_bytes(b"one picture")
    (tmp_path / "c.png").write_bytes(b"another")

    def key(number: int = 1, batch: str = "b", **fields: Any) -> str:
        return keys_of([Line(number, Fields(prompt="fox", **fields))], tmp_path, batch)[0]

    assert re.fullmatch("[0-9a-f]{32}", key())
    assert key() == key(7) == key(max_wait=3)
    assert key(references=["a.png"]) == key(references="b.png")
    others = {
        key(),
        key(batch="c"),
        key(n=2),
        key(options={"a": 1}),
        key(options={"a": "1"}),
        key(references=["a.png"]),
        key(references=["c.png"]),
        key(references=["a.png", "a.png"]),
        key(references=["https://a.example/a.png"]),
    }
    assert len(others) == 9
    assert key(options={"a": 1, "b": 2}) == key(options={"b": 2, "a": 1})
    first, second = keys_of([Line(1, Fields(prompt="fox")), Line(2, Fields(prompt="fox"))], tmp_path)
    assert first == key() != second
    again = purchase_of(ImageRequest(prompt="fox"), "x")
    assert len({again.key("b"), again.key("b", 1), again.key("b", 2)}) == 3


def test_defaults_are_for_lines_that_say_nothing(tmp_path: Path) -> None:
    """A line with a size wants no default aspect ratio; options are laid over each other."""
    defaults: dict[str, Any] = {"provider": "mira", "aspect_ratio": "1:1", "options": {"a": 1, "b": 1}, "n": None}
    lines = [Line(1, Fields(prompt="fox")), Line(2, Fields(prompt="fox", size="8x8", options={"b": 2}, n=3))]
    (first, second), _ = items_of(lines, tmp_path, defaults)
    assert (first.request.aspect_ratio, first.request.provider, first.request.n) == ("1:1", "mira", None)
    assert (second.request.aspect_ratio, second.request.size, second.request.n) == (None, "8x8", 3)
    assert second.request.options == {"a": 1, "b": 2}
    _, (problem,) = items_of([Line(3, Fields(prompt="fox", references="a\0b"))], tmp_path, {})
    assert "references must be files or links" in problem.reason


@pytest.mark.anyio
async def test_a_request_for_many_pictures_is_split_where_that_makes_sense(tmp_path: Path) -> None:
    """Every part has a key of its own; with a seed all would be the same, and there is an end to it."""
    lines = [
        Line(1, Fields(prompt="fox", provider="mira", n=9)),
        Line(2, Fields(prompt="fox", provider="mirako", n=2, seed=1)),
        Line(3, Fields(prompt="fox", provider="mira", n=10**9)),
        Line(4, Fields(prompt="fox", provider="mira", n=0)),
    ]
    items, _ = items_of(lines, tmp_path, {})
    async with Mirage(dict.fromkeys(("mira", "mirako"), "k")) as hub:
        purchases, problems = await purchases_of(hub, items)
    assert [(each.part, each.parts, each.request.n) for each in purchases] == [(1, 3, 4), (2, 3, 4), (3, 3, 1)]
    assert len({each.key("b") for each in purchases}) == 3
    assert purchases[1].title == "line 1 (part 2 of 3)"
    assert [problem.number for problem in problems] == [2, 3, 4]
    assert "seed must be left out" in problems[0].reason
    assert "n must be at most 10000 in one line" in problems[1].reason


# --- budget ---


@pytest.mark.parametrize(
    ("text", "bound"),
    [
        ("100", (100, "purchases", "100")),
        ("1 purchase", (1, "purchases", "1 purchase")),
        ("250 pictures", (250, "pictures", "250 pictures")),
        (" 12.5credits", (12.5, "credits", "12.5credits")),
    ],
)
def test_a_budget_is_a_number_with_a_unit(text: str, bound: tuple[float, str, str]) -> None:
    """Purchases where nothing else is said; messages quote what was typed."""
    read = bound_of(text)
    assert (read.amount, read.unit, read.typed) == bound
    assert str(read) == f'--budget "{bound[2]}"'


@pytest.mark.parametrize("text", ["", "much", "-1", "1.5", "1.5 pictures", "3 euros", "1e3"])
def test_what_is_no_budget_is_refused(text: str) -> None:
    """Half a purchase cannot be made."""
    with pytest.raises(CommandError, match="--budget must look like"):
        bound_of(text)


def entry(key: str, state: EntryState, **facts: Any) -> Entry:
    """Return an entry as a journal has it."""
    known = {
        "provider": "mira",
        "account": "a",
        "kind": "image",
        "blocking": False,
        "announced": False,
        "model": None,
        "requested": 2,
        "digest": "d",
        "label": None,
        "id": None,
        "attempts": 1,
        "doubtful": 0,
        "intended_at": 0.0,
        "deadline": 0.0,
        "updated_at": 0.0,
        "outcome": None,
        "handed_over": False,
    }
    return Entry(key=key, state=state, **{**known, **facts})


# --- plan ---


def record(key: str, state: Any = "done", **facts: Any) -> Record:
    """Return a record of the manifest."""
    return Record(key=key, state=state, **{"line": 1, "provider": "mira", "prompt": "fox", **facts})


def test_the_plan_follows_the_journal_and_the_files(tmp_path: Path) -> None:
    """Each state leads to one place, and what no line asks for is told of."""
    purchases = [purchase_of(ImageRequest(prompt="fox", provider="mira"), str(number), number) for number in range(9)]
    keys = [purchase.key("b") for purchase in purchases]
    (tmp_path / "there.png").touch()
    states = (
        *(EntryState.SUCCEEDED, EntryState.SUCCEEDED, EntryState.FAILED, EntryState.FAILED, EntryState.UNPAID),
        *(EntryState.ACCEPTED, EntryState.UNCERTAIN, EntryState.ABANDONED),
    )
    entries = [entry(key, state) for key, state in zip(keys, states, strict=False)]
    stray = entry("f" * 32, EntryState.ACCEPTED)
    records = {
        keys[0]: record(keys[0], files=("there.png",), line=1, billed="yes"),
        keys[1]: record(keys[1], files=("gone.png",)),
        keys[2]: record(keys[2], "failed"),
    }

    def plan(*, retry_failed: bool = False) -> Any:
        return plan_for(purchases, "b", [*entries, stray], records, tmp_path, retry_failed=retry_failed, resumable=True)

    made = plan()
    assert list(made.over) == [keys[0], keys[2], keys[7]]
    assert (made.over[keys[0]].line, made.over[keys[7]].state) == (0, "failed")
    assert [task.key for task in made.owed] == [keys[1], keys[3], keys[5], keys[6]]
    assert [task.key for task in made.fresh] == [keys[4], keys[8]]
    assert (made.doubtful, made.strays) == (1, [stray])
    retried = plan(retry_failed=True)
    assert [task.key for task in retried.fresh] == [
        *(purchases[number].key("b", 1) for number in (2, 3)),
        keys[4],
        keys[8],
    ]
    assert (made.given_up, made.left) == (1, 0)
    second = purchases[2].key("b", 1)
    entries.append(entry(second, EntryState.ACCEPTED))
    assert second in {task.key for task in plan().owed}
    del entries[0]
    (tmp_path / "there.png").unlink()
    with pytest.raises(CommandError, match=r"does not know of 1 purchase made before \(line 1\)"):
        plan()


# --- files ---


def test_the_manifest_bears_what_a_kill_leaves(tmp_path: Path) -> None:
    """A torn line is left out, the last record of a key counts, and what is rewritten is whole."""
    path = tmp_path / "results.jsonl"
    manifest = Manifest(path)
    manifest.begin()
    manifest.add(record("a", "pending"))
    manifest.add(record("a"))
    manifest.add(record("b", "refused"))
    with path.open("ab") as file:
        file.write(b'{"key": "c", "sta')
    again = Manifest(path)
    assert {key: each.state for key, each in again.records.items()} == {"a": "done", "b": "refused"}
    again.begin()
    again.add(record("d"))
    listed = Manifest(path).finish([record("d", line=2)])
    assert [(each.key, each.line) for each in listed] == [("d", 2), ("a", None)]
    assert [json.loads(line)["key"] for line in path.read_text("utf-8").splitlines()] == ["d", "a"]
    with pytest.raises(CommandError, match="cannot read"):
        Manifest(tmp_path)
    with pytest.raises(CommandError, match="cannot write"):
        write_whole(tmp_path / "no/such", b"")


def test_a_folder_remembers_which_batch_it_is(tmp_path: Path) -> None:
    """Two commands cannot hold it; names are those of the first run; a newer or damaged file is refused."""
    one = purchase_of(ImageRequest(prompt="fox"), "x", 7)
    with held_folder(tmp_path, sandbox=False) as folder:
        folder.remember([("a" * 32, one)])
        with pytest.raises(CommandError, match=f"process {os.getpid()}"), held_folder(tmp_path, sandbox=False):
            pass
        batch = folder.batch.id
    with held_folder(tmp_path, sandbox=False) as folder:
        folder.remember([("a" * 32, msgspec.structs.replace(one, number=9))])
        assert (folder.batch.id, folder.stem("a" * 32, one)) == (batch, "0007-aaaaaaaa")
        part = msgspec.structs.replace(one, part=3, parts=12)
        assert folder.stem("a" * 32, part) == "0007-part03-aaaaaaaa"
    with pytest.raises(CommandError, match="that no sandbox has drawn"), held_folder(tmp_path, sandbox=True):
        pass
    for content, told in ((b'{"version": 2, "id": "x"}', "newer version"), (b"{", "cannot read")):
        (tmp_path / ".mirage/batch.json").write_bytes(content)
        with pytest.raises(CommandError, match=told), held_folder(tmp_path, sandbox=False):
            pass


def test_a_folder_that_cannot_be_held_says_why(tmp_path: Path) -> None:
    """Files where folders should be, a page that is none, and a lock that does not tell whose it is."""
    for name, told in (("a/.mirage", "cannot hold"), ("b/index.html/x", "is not from a batch")):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(CommandError, match=told), held_folder(tmp_path / name[0], sandbox=False):
            pass
    with held_folder(tmp_path / "c", sandbox=False):
        (tmp_path / "c/.mirage/batch.lock").write_text("", "ascii")
        with pytest.raises(CommandError, match="another command works on"), held_folder(tmp_path / "c", sandbox=False):
            pass


# --- looks ---


def test_the_page_shows_all_and_escapes_what_comes_from_outside() -> None:
    """A card a picture, one for each that has none, and the totals."""
    page = render(
        [
            record("a", files=("0001 a.png", "0001-a-2.png"), width=8, height=4, credits=1.5, model="<m>", seconds=2),
            record("b", "failed", prompt="<script>", error="a < b", part=2, parts=3, provider="milady"),
            record("c", "uncertain", line=None),
            record("d", "unbought"),
        ]
    )
    assert MARK in page
    assert page.count("<figure ") == 4
    assert '<img src="0001%20a.png" alt="fox" width="8" height="4"' in page
    assert "&lt;script&gt;" in page
    assert "<script" not in page
    assert "<title>mirage_async: 2 pictures</title>" in page
    assert "<h1>2 pictures</h1>" in page
    assert "<dt>pictures</dt><dd>2</dd>" in page
    assert "<h2" not in page
    assert "part 2 of 3" in page
    assert "no line any more" in page
    assert "no reason is known" in page
    assert "<dt>unbought</dt><dd>1</dd>" in page
    assert "<dt>credits</dt><dd>1.5</dd>" in page


def test_the_page_counts_one_picture_as_one() -> None:
    """In the title as well as in the heading."""
    page = render([record("a", files=("a.png",))])
    assert "<title>mirage_async: 1 picture</title>" in page
    assert "<h1>1 picture</h1>" in page


def test_the_tally_says_what_a_person_wants_to_know(monkeypatch: pytest.MonkeyPatch) -> None:
    """What went wrong, how long, what is under way, how fast, and how much: a narrow terminal cuts off the end."""
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    tally = Tally(100, 10, lambda: 3)
    assert tally.words() == ["3 in flight", "0 pictures"]
    tally.count(record("a", files=("x",), credits=2.0))
    tally.count(record("b", "failed"))
    now += 30.0
    assert tally.words() == ["1 failed", "22:00 left", "3 in flight", "4.0 a minute", "2 credits", "1 picture"]
    now += 3000.0
    assert tally.words()[1:4:2] == ["37:02 h left", "2.4 an hour"]
    tally.stopping = True
    assert "stopping" in tally.words()
    assert Tally(1, 0, lambda: 1).words()[0] == "1 in flight"
    idle = Tally(2, 0)
    idle.stopping = True
    assert idle.words() == ["stopping", "0 pictures"]
    busy = Tally(1000, 0)
    now += 1.0
    for number in range(100):
        busy.count(record(str(number)))
    assert "6000 a minute" in busy.words()


@pytest.mark.anyio
async def test_a_terminal_gets_a_bar_and_the_paths_after_it(tmp_path: Path) -> None:
    """The bar moves on stderr; what went wrong stands above it, and the paths below."""
    (tmp_path / "a.txt").write_text("fox\nowl\n", "utf-8")
    async with sandbox_for_commands(durations=0.5) as (sandbox, environment):
        words = ("batch", "a.txt", "-o", "out", "--provider", "miragic")
        sandbox.fail("miragic.create", Fault(status=422), prompt="owl")
        async with on_terminal(*words, columns=100, folder=tmp_path, environment=environment) as terminal:
            pass
    text = terminal.text
    assert terminal.process.returncode == ExitCode.PARTIAL
    assert "line 2: refused: " in text
    assert "0 of 2" in text
    assert "2 of 2" in text
    assert "2 in flight" in text
    assert text.index("out/0001-") > text.rindex("100%")


def test_elsewhere_there_is_a_line_for_each_and_nothing_when_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    """What did not get its turn is no news."""
    tally = Tally(2, 0)
    with displayed(tally, quiet=False) as show:
        for each in (record("a"), record("b", "unbought")):
            tally.count(each)
            show(each)
    with displayed(tally, quiet=True) as show:
        show(record("a"))
    assert capsys.readouterr().err == "      1/2  mira     done       line 1: key a\n"


def test_a_terminal_with_logging_shows_the_beginning_of_prompts(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key is for logs, a person knows a picture by what it shows."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    tally = Tally(2, 0)
    with caplog.at_level(logging.INFO, logger="mirage_async"), displayed(tally, quiet=False) as show:
        show(record("a", prompt="an old\nfox " * 20))
    told = capsys.readouterr().err
    assert told.startswith("      0/2  mira     done       line 1: an old fox an old fox")
    assert told.endswith("[...]\n")
    assert len(told) < 110


@pytest.mark.anyio
async def test_what_is_being_closed_hears_of_no_further_signal() -> None:
    """It takes two seconds at most, in which what is on the wire comes home and is written down."""
    interruption = Interruption(lambda: None, lambda: None)
    with minding_signals(interruption):
        listener = signals.listener
        assert listener is not None
        interruption.over = True
        listener(signal.SIGTERM)
        await asyncio.sleep(0)  # a cancellation would be raised here
    assert signals.listener is not listener
    assert not interruption.leaving


@pytest.mark.anyio
async def test_an_interruption_has_two_steps_and_then_no_more() -> None:
    """What comes after the second, or after the end, is nothing new."""
    steps: list[str] = []
    interruption = Interruption(lambda: steps.append("stop"), lambda: steps.append("leave"))
    interruption.over = True
    interruption.once_more()
    interruption.over = False
    for _ in range(3):
        interruption.once_more()
    assert steps == ["stop", "leave"]
    with pytest.raises(asyncio.CancelledError):
        await asyncio.sleep(0)
    assert interruption.task.uncancel() == 0
