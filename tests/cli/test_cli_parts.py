"""The parts of the command line on their own: exit codes, lines, the board, the page, places and words."""

from __future__ import annotations

import io
import logging
import os
import pickle
import re
import shutil
import subprocess
import time
from html import unescape
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from mirage_async import exceptions
from mirage_async.cli import _lines, run
from mirage_async.cli._arguments import options_of, prompt_of, reference_of
from mirage_async.cli._board import Board
from mirage_async.cli._demo.exhibit import AvatarBuild, Exhibit, Exhibition, Print
from mirage_async.cli._demo.page import MARK, render
from mirage_async.cli._display import Frame, displayed
from mirage_async.cli._exits import CommandError, ExitCode, code_for
from mirage_async.cli._output import Output, output_for
from mirage_async.downloads import Downloader
from mirage_async.models import Avatar, GeneratedImage, Generation, Timings
from mirage_async.scheduler import Scheduler

if TYPE_CHECKING:
    from collections.abc import Sequence

_E = exceptions


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (_E.InputError("x"), ExitCode.USAGE),
        (_E.ConfigurationError("x"), ExitCode.USAGE),
        (_E.AuthenticationError("x", status=401), ExitCode.AUTHENTICATION),
        (_E.InsufficientCreditsError("x", status=402), ExitCode.CREDITS),
        (_E.RateLimitError("x", status=429), ExitCode.CREDITS),
        (_E.PermissionDeniedError("x", status=403), ExitCode.REFUSED),
        (_E.NotFoundError("x", status=404), ExitCode.REFUSED),
        (_E.ContentRejectedError("x", status=400), ExitCode.REFUSED),
        (_E.ServerError("x", status=500), ExitCode.REFUSED),
        (_E.JobFailedError("x"), ExitCode.REFUSED),
        (_E.JobExpiredError("x"), ExitCode.REFUSED),
        (_E.WaitTimeoutError("x"), ExitCode.TIMED_OUT),
        (_E.SubmissionUncertainError("x"), ExitCode.FAILURE),
        (_E.ConnectionFailedError("x"), ExitCode.FAILURE),
        (_E.DownloadError("x"), ExitCode.FAILURE),
        (OSError("x"), ExitCode.FAILURE),
        (CommandError("x", code=ExitCode.AUTHENTICATION), ExitCode.AUTHENTICATION),
    ],
)
def test_every_error_has_one_exit_code(error: Exception, code: ExitCode) -> None:
    """The class of an error decides, whatever its words are."""
    assert code_for(error) is code


def test_lines_are_single_and_harmless_whatever_they_repeat(capsys: pytest.CaptureFixture[str]) -> None:
    """Line breaks and terminal codes in a message cannot break the line or move the cursor."""
    _lines.tell("a\nb\x1b[2Jc\u202e")
    _lines.complain(_E.SubmissionUncertainError("lost", key="k1"))
    _lines.complain(ValueError("odd"))
    _lines.complain(_E.ClosedError("closed", token='{"t":1}'))
    assert capsys.readouterr().err.splitlines() == [
        "mirage-async: a b [2Jc",
        "mirage-async: error: lost; it may have been paid for (key k1)",
        "mirage-async: error: unexpected ValueError: odd (MIRAGE_DEBUG=1 shows where)",
        "mirage-async: error: closed",
        "mirage-async: to resume, in Python: await Mirage().job('{\"t\":1}')",
    ]


def test_log_records_and_warnings_look_like_all_other_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever reads stderr sees one form."""
    handler = _lines._Stderr()
    handler.emit(logging.makeLogRecord({"msg": "seen", "levelno": logging.INFO, "levelname": "INFO"}))
    handler.emit(logging.makeLogRecord({"msg": "odd", "levelno": logging.WARNING, "levelname": "WARNING"}))
    _lines._show_warning(UserWarning("large"), UserWarning, "x.py", 1)
    expected = ["mirage-async: seen", "mirage-async: warning: odd", "mirage-async: warning: large"]
    assert capsys.readouterr().err.splitlines() == expected


def _board(states: Sequence[tuple[str, float | None]]) -> Board:
    board = Board()
    for index, (state, progress) in enumerate(states):
        row = board.add("mira" if index % 2 else "miragic", f"[bold]Picture {index}[/bold] of a very\nlong story" * 3)
        if state != "waiting":
            row.begin()
        row.state, row.progress = state, progress
        if state in {"done", "failed"}:
            row.end("done" if state == "done" else "failed", "" if state == "done" else "no paint")
    return board


def _drawn(board: Board, *, width: int = 100, height: int = 40) -> list[str]:
    console = Console(
        file=io.StringIO(), width=width, height=height, force_terminal=True, color_system="truecolor", record=True
    )
    console.print(Frame(board))
    return console.export_text().splitlines()


_STATES = [("waiting", None), ("queued", None), ("running", None), ("running", 0.5), ("done", None), ("failed", None)]


@pytest.mark.parametrize("width", [40, 63, 64, 80, 120, 200])
def test_columns_stay_where_they_are_at_every_width(width: int) -> None:
    """Each row is one line no wider than the terminal, and its state begins in the same column as all others."""
    *rows, summary = _drawn(_board(_STATES), width=width)
    assert len(rows) == len(_STATES)
    assert all(len(row) <= width for row in rows)
    assert len({row.index(f"  {state}") for row, (state, _) in zip(rows, _STATES, strict=True)}) == 1
    assert summary.startswith("1 of 6 done · 1 failed")


def test_markup_in_prompts_is_text_and_a_known_share_is_shown() -> None:
    """A prompt is data; the share of a running job stands behind its bar, the reason behind a failed one's title."""
    rows = _drawn(_board(_STATES), width=300)
    assert all("[bold]Picture" in row for row in rows[:-1])
    assert "50%" in rows[3]
    assert "no paint" in rows[5]


def test_what_has_ended_makes_room_for_what_has_not() -> None:
    """On a low terminal unfinished rows are shown first, and the summary counts the rest."""
    rows = _drawn(_board([("done", None)] * 8 + [("running", None)] * 3), height=6)
    assert [("running" in row) for row in rows] == [False, True, True, True, False]
    assert "7 not shown" in rows[-1]


def test_an_empty_board_and_long_waits_can_be_drawn() -> None:
    """Nothing to show is no error, and minutes fit into the column of seconds."""
    assert _drawn(Board())[-1].startswith("0 of 0 done")
    board = _board([("running", None)])
    board.rows[0].began = time.monotonic() - 754
    assert "12:34 m" in _drawn(board)[0]


@pytest.mark.parametrize(("lines", "quiet", "expected"), [(True, False, 1), (False, False, 0), (True, True, 0)])
def test_without_a_terminal_there_are_lines_or_nothing(
    lines: bool, quiet: bool, expected: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """A row that ends is one plain line where lines are wanted; its second end is none."""
    with displayed(lines=lines, quiet=quiet) as board:
        row = board.add("mira", "fox")
        assert row.elapsed is None
        row.end("failed", "no\npaint")
        row.end("done")
    shown = capsys.readouterr()
    assert (shown.out, shown.err.count("\n"), row.state) == ("", expected, "failed")
    assert not expected or re.fullmatch(r"mira     failed   0\.0 s  fox: no paint\n", shown.err)


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("environment", "animated"),
    [({"TERM": "xterm-256color"}, True), ({"TERM": "dumb"}, False), ({"TERM": "xterm", "NO_COLOR": "1"}, True)],
)
def test_bars_need_a_terminal_that_can_redraw(
    environment: dict[str, str], animated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dumb terminal gets lines; NO_COLOR keeps the bars and drops the colours."""
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_INTERACTIVE", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    terminal = _Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with displayed(lines=True) as board:
        board.add("mira", "fox").end("done")
    shown = terminal.getvalue()
    assert ("━" in shown) is animated
    assert ("\x1b[32m" in shown) is (animated and "NO_COLOR" not in environment)


def _exhibition(*, prompt: str, problem: str | None = None) -> Exhibition:
    image = GeneratedImage(Downloader(clock=Scheduler().clock), url="https://x.test/1.png", mime_type="image/png")
    image.width, image.height = 32, 16
    generation = Generation(
        images=(image,),
        provider="miragic",
        model="<m>",
        job_id="<j>",
        timings=Timings(queued=0.5, running=1.0, detected=1.5, downloaded=0.25),
        polls=7,
    )
    exhibit = Exhibit(
        provider="miragic",
        prompt=prompt,
        look="flux · 32x16",
        began=0.0,
        seconds=2.0,
        generation=generation,
        prints=[Print(path=Path("demo/a b&c.png"), image=image)],
        problem=problem,
    )
    avatar = AvatarBuild(
        name="<A>", began=0.0, seconds=1.0, polls=3, avatar=Avatar(id="<id>", name="<A>", status="READY")
    )
    return Exhibition(exhibits=[exhibit], avatar=avatar, seconds=4.0, seed=0)


def test_the_page_escapes_what_it_shows_and_refers_to_nothing_elsewhere() -> None:
    """Prompts, ids and reasons are text; there are no scripts, no addresses, and a policy that forbids both."""
    prompt = "<script>alert(1)</script> & \"quotes\" 'n' \u202eodd"
    page = render(_exhibition(prompt=prompt, problem="<b>bad</b>"))
    assert "<script" not in page
    assert "<b>bad" not in page
    assert "<m>" not in page
    assert prompt in unescape(page)
    assert "http:" not in page
    assert "https:" not in page
    assert """content="default-src 'none'; img-src 'self'; style-src 'unsafe-inline'">""" in page
    assert 'src="a%20b%26c.png"' in page
    assert MARK in page[:4096]


def test_the_page_tells_what_each_job_took() -> None:
    """Timings, polls, job, model and size stand on the card; bars share one axis."""
    page = render(_exhibition(prompt="fox"))
    for name, value in {"queued": "0.50 s", "running": "1.00 s", "detected": "1.50 s", "downloaded": "0.25 s"}.items():
        assert f"<dt>{name}</dt><dd>{value}</dd>" in page
    assert "<dt>polls</dt><dd>7</dd>" in page
    assert "<dd>32 × 16 PNG</dd>" in page  # noqa: RUF001 - pixels are multiplied
    assert '<i class=running style="left:12.50%;width:25.00%">' in page
    assert "<dt>status calls</dt><dd>10</dd>" in page


def test_options_read_like_json_where_they_are_json() -> None:
    """Numbers, booleans and null are themselves, quotes force text, and everything else is text."""
    words = [
        "width=300",
        "resend_uncertain=true",
        "style_preset=3d-model",
        'q="7"',
        "n=null",
        "list=[1]",
        "a=b=c",
        "e=",
    ]
    values = {"width": 300, "resend_uncertain": True, "style_preset": "3d-model", "q": "7", "n": None}
    assert options_of(words) == {**values, "list": "[1]", "a": "b=c", "e": ""}


def test_references_are_links_or_files() -> None:
    """What begins like a link stays text; everything else is a path, whatever it looks like."""
    assert reference_of("https://x.test/a.png") == "https://x.test/a.png"
    assert reference_of("data:image/png;base64,AAAA").__class__ is str
    assert reference_of("a.png") == Path("a.png")


@pytest.mark.parametrize(
    ("text", "is_folder"), [(".", True), ("new/", True), ("new", False), ("fox.png", False), ("v1.2", False)]
)
def test_an_output_is_a_folder_where_it_exists_or_says_so(
    text: str, is_folder: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checking leaves nothing behind."""
    monkeypatch.chdir(tmp_path)
    assert output_for(text, pictures=1, overwrite=False, as_json=False).is_folder is is_folder
    assert list(tmp_path.iterdir()) == []


def test_several_pictures_for_one_file_are_numbered() -> None:
    """The number stands before a picture's suffix, and behind a name whose dot means something else."""
    assert [str(Output(path=Path("a/fox.png")).target("", index, 2)) for index in (0, 1)] == [
        "a/fox-1.png",
        "a/fox-2.png",
    ]
    assert str(Output(path=Path("v1.2")).target("", 0, 2)) == "v1.2-1"
    assert str(Output(path=Path("fox.png")).target("", 0, 1)) == "fox.png"
    assert str(Output(path=Path("dir"), is_folder=True).target("mira-1", 1, 2)) == "dir/mira-1"


def test_a_picture_is_never_written_to_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes belong into a file or a pipe."""
    monkeypatch.setattr("sys.stdout", _Terminal())
    with pytest.raises(CommandError, match="to the terminal"):
        output_for("-", pictures=1, overwrite=False, as_json=False)


def test_an_exit_code_survives_being_sent_elsewhere() -> None:
    """Codes are plain numbers to everybody else."""
    assert pickle.loads(pickle.dumps(ExitCode.PARTIAL)) == 7  # noqa: S301 - our own bytes


def test_a_prompt_from_stdin_is_utf_8_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be read as text is told before anything else happens; the line break at the end is no part of it."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("ein Füchslein\n".encode())))
    assert prompt_of("-") == "ein Füchslein"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xff\xfe")))
    with pytest.raises(CommandError, match="must be UTF-8"):
        prompt_of("-")


@pytest.mark.parametrize("words", [["-v", "demo", "--pictures", "0"], ["demo", "--pictures", "0", "--verbose"]])
def test_verbosity_can_stand_before_and_after_the_command(words: list[str]) -> None:
    """It lets the library's own notes through, wherever it is written."""
    logger = logging.getLogger("mirage_async")
    before = logger.level
    try:
        logger.setLevel(logging.NOTSET)
        assert run(words) == ExitCode.USAGE
        assert logger.level == logging.INFO
    finally:
        logger.setLevel(before)


@pytest.mark.parametrize(
    "word",
    ["My  Photos", "a\nb", "\ttab's \\ end", "no\u00a0break", "caf\u00e9", "\x1b[2J", "\udcff\udcfe", "", "it's  so"],
)
@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "ascii"])
def test_a_command_that_is_told_is_read_by_a_shell_as_it_was_given(
    word: str, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two blanks stay two, and what a terminal cannot show, or would obey, is escaped."""
    shell = shutil.which("bash")
    assert shell is not None, "the tests need bash, as the README says"
    raw = io.BytesIO()
    monkeypatch.setattr("sys.stderr", io.TextIOWrapper(raw, encoding, "backslashreplace"))
    _lines.tell(f"to go on: {_lines.command_line('printf', '%s.%s', word, 'end')}", whole=True)
    (told,) = raw.getvalue().decode(encoding).splitlines()
    assert told.isprintable()
    read = subprocess.run([shell, "-c", told.partition("to go on: ")[2].encode()], capture_output=True, check=True)
    assert read.stdout == os.fsencode(word) + b".end"
