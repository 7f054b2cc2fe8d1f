"""`avatar build`, `view` and `list`: what is printed, how each of them ends, and the way back to a build."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import signal
import subprocess
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from command_line import PATIENCE, Ended, command_here, end, sandbox_for_commands, start
from PIL import Image

from mirage_async import Mirage
from mirage_async.cli import _avatar_show, run
from mirage_async.cli._avatar_build import Order, _ready
from mirage_async.cli._board import Row
from mirage_async.cli._exits import ExitCode
from mirage_async.models import Avatar, AvatarStatus
from mirage_async.sandbox import Fault, Sandbox
from mirage_async.scheduler import FixedInterval, Scheduler

if TYPE_CHECKING:
    from pathlib import Path

_BUILD = ("avatar", "build", "-i", "me.png", "-n", "Me", "-p", "0.1")
_RECORD = {"id", "name", "status", "created_at", "themes"}
_ERROR = {"data": {"status": "ERROR", "name": "Me", "created_at": "2026-01-02T03:04:05Z", "error": "two faces"}}
_HOSTILE = {
    "id": "a1",
    "name": "Tab\tbed\x1b[2J\nname",
    "status": "TAKEN\tDOWN",
    "created_at": "2026-01-02T03:04:05Z",
    "themes": [{"name": "Stu\x1bdio"}, {"live_video": "https://x.test/v.mp4"}],
}
_HELP_PROBE = """
import sys
from mirage_async.__main__ import main
try:
    main()
finally:
    print("loaded:", *(name for name in ("aiohttp", "PIL", "rich") if name in sys.modules), file=sys.stderr)
"""


def _png(width: int = 512, height: int = 512) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), "teal").save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a folder with a portrait."""
    (tmp_path / "me.png").write_bytes(_png())
    return tmp_path


async def _build(folder: Path, environment: dict[str, str], *words: str) -> Ended:
    return await command_here(*_BUILD, *words, folder=folder, environment=environment)


@pytest.mark.anyio
async def test_a_build_tells_its_id_early_and_prints_it_when_the_avatar_is_ready(folder: Path) -> None:
    """Stdout has nothing but the id; stderr had it before, with the way back to the same sandbox."""
    async with sandbox_for_commands() as (sandbox, environment):
        ended = await _build(folder, environment, "--sandbox")
        sent = next(request.fields for request in sandbox.requests if request.method == "POST")
    (avatar_id,) = ended.lines
    assert (ended.code, [avatar_id]) == (ExitCode.DONE, list(sandbox.jobs))
    assert ended.stderr.count("\n") == 1
    assert ended.stderr.startswith(f"mirage-async: building avatar {avatar_id}; ")
    assert ended.stderr.endswith(f": mirage-async avatar view {avatar_id} --sandbox\n")
    assert (sent["name"], set(sent)) == ("Me", {"name", "image"})


@pytest.mark.anyio
async def test_a_quiet_build_gives_one_json_object_and_nothing_else(folder: Path) -> None:
    """The record is that of `view`, with what the wait took."""
    async with sandbox_for_commands() as (_, environment):
        ended = await _build(folder, environment, "--json", "-q")
    assert (ended.code, ended.stderr) == (ExitCode.DONE, "")
    record = json.loads(ended.stdout)
    assert set(record) == _RECORD | {"seconds", "polls"}
    assert (record["name"], record["status"], bool(record["themes"])) == ("Me", "READY", True)
    assert record["seconds"] > 0
    assert record["polls"] > 0


@pytest.mark.anyio
async def test_no_wait_ends_as_soon_as_the_id_is_known(folder: Path) -> None:
    """Nothing is asked about a build nobody waits for."""
    async with sandbox_for_commands(durations=60) as (sandbox, environment):
        plain, as_json = await asyncio.gather(
            _build(folder, environment, "--no-wait"), _build(folder, environment, "--no-wait", "--json", "-q")
        )
        assert [request.method for request in sandbox.requests] == ["POST", "POST"]
    record = json.loads(as_json.stdout)
    assert (plain.code, as_json.code, as_json.stderr) == (ExitCode.DONE, ExitCode.DONE, "")
    assert {plain.stdout.strip(), record["id"]} == set(sandbox.jobs)
    assert (record["status"], record["created_at"], record["seconds"]) == ("PENDING", None, None)
    assert f"mirage-async avatar view {plain.stdout}" in plain.stderr


@pytest.mark.anyio
async def test_the_poll_interval_is_the_time_between_two_looks(folder: Path) -> None:
    """Who looks seldom sees a build of half a second ready at the first look, who looks often does not."""
    async with sandbox_for_commands(durations=0.5) as (_, environment):
        often, seldom = await asyncio.gather(
            _build(folder, environment, "--json"), _build(folder, environment, "--json", "-p", "1")
        )
    assert json.loads(seldom.stdout)["polls"] == 1
    assert json.loads(often.stdout)["polls"] > 2


class _Seen(Row):
    """A row that keeps every state it was given."""

    def __init__(self) -> None:
        self.states: list[str] = []
        super().__init__("mirako", "Avatar: Me", lambda _: None)

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, value)
        if name == "state":
            self.states.append(str(value))


@pytest.mark.anyio
async def test_the_progress_speaks_of_a_build_in_the_words_of_the_provider() -> None:
    """A row is PENDING, then BUILDING, until the avatar is there."""
    order = Order(name="Me", image="", poll_interval=0.02, max_wait=30, wait=True, sandbox=True)
    row = _Seen()
    async with Sandbox(durations=0.5) as sandbox:
        scheduler = Scheduler(policy=FixedInterval(order.poll_interval))
        async with Mirage(base_urls=sandbox.base_urls, scheduler=scheduler) as hub:
            avatar = await _ready(order, await hub.mirako.build_avatar(order.name, _png()), row)
    assert avatar.status == AvatarStatus.READY
    assert row.states[1:3] == ["PENDING", "BUILDING"]


@pytest.mark.anyio
async def test_a_wait_that_is_over_says_how_to_look_again(folder: Path) -> None:
    """Exit code 6 leaves the build alone; nothing in Python has to be typed."""
    async with sandbox_for_commands(durations=60) as (sandbox, environment):
        ended = await _build(folder, environment, "-q", "--max-wait", "0.5")
    (avatar_id,) = sandbox.jobs
    assert (ended.code, ended.stdout) == (ExitCode.TIMED_OUT, "")
    error, advice = ended.stderr.splitlines()
    assert re.fullmatch(rf"mirage-async: error: avatar {avatar_id} is not ready after 0.5 s: it is [A-Z]+", error)
    assert advice.endswith(f"goes on at mirako; look again with: mirage-async avatar view {avatar_id}")


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("operation", "fault", "code", "told"),
    [
        ("avatar_status", Fault(status=200, body=_ERROR), ExitCode.REFUSED, ["failed: two faces"]),
        ("avatar_status", Fault(status=401), ExitCode.AUTHENTICATION, ["mirako", "avatar view "]),
        ("avatar_create", Fault(status=402), ExitCode.CREDITS, ["mirako"]),
        ("avatar_create", Fault(status=400), ExitCode.REFUSED, ["mirako"]),
        ("avatar_create", Fault(reset=True, when="after"), ExitCode.FAILURE, ["(key ", "mirage-async avatar list"]),
    ],
)
async def test_what_mirako_does_decides_how_a_build_ends(
    operation: str, fault: Fault, code: ExitCode, told: list[str], folder: Path
) -> None:
    """One line says why, and another what to do where something may go on; nothing is ever built twice."""
    async with sandbox_for_commands(durations=60) as (sandbox, environment):
        sandbox.fail(f"mirako.{operation}", fault)
        ended = await _build(folder, environment, "-q")
        assert sum(request.method == "POST" for request in sandbox.requests) == 1
    lines = ended.stderr.splitlines()
    assert (ended.code, ended.stdout, len(lines)) == (code, "", len(told)), ended.stderr
    assert all(words in line for words, line in zip(told, lines, strict=True)), ended.stderr


async def _interrupted(process: asyncio.subprocess.Process, how: signal.Signals, patience: float = 3) -> Ended:
    process.send_signal(how)
    async with asyncio.timeout(patience):
        return await end(process)


async def _until_told(process: asyncio.subprocess.Process, words: str) -> str:
    assert process.stderr is not None
    async with asyncio.timeout(PATIENCE):
        while words not in (line := (await process.stderr.readline()).decode()):
            assert line, f"the command ended without telling {words!r}"
    return line


@pytest.mark.anyio
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
async def test_an_interrupted_build_says_that_it_goes_on_and_how_to_look_again(
    how: signal.Signals, folder: Path
) -> None:
    """Ctrl-C or a polite end brings 130, and the command that is told finds the avatar."""
    async with sandbox_for_commands(durations=60) as (sandbox, environment):
        process = await start(*_BUILD, folder=folder, environment=environment)
        await _until_told(process, "building avatar")
        ended = await _interrupted(process, how)
        assert (ended.code, ended.stdout) == (ExitCode.INTERRUPTED, "")
        (avatar_id,) = sandbox.jobs
        way_back = f"the build goes on at mirako; look again with: mirage-async avatar view {avatar_id}"
        assert ended.stderr.splitlines() == [f"mirage-async: {way_back}", "mirage-async: interrupted"]
        seen = await command_here("avatar", "view", avatar_id, "--json", folder=folder, environment=environment)
    assert json.loads(seen.stdout)["name"] == "Me"


@pytest.mark.anyio
async def test_an_interrupted_build_in_a_sandbox_of_its_own_promises_nothing(folder: Path) -> None:
    """What ended with the command is not said to go on."""
    process = await start(*_BUILD, "--sandbox", folder=folder)
    begun = await _until_told(process, "building avatar")
    ended = await _interrupted(process, signal.SIGINT)
    assert (ended.code, ended.stdout) == (ExitCode.INTERRUPTED, "")
    assert "the sandbox has ended and the build with it" in ended.stderr
    assert "ends with this command" in begun
    assert not re.search("goes on at|avatar view|to resume", begun + ended.stderr)


@pytest.mark.anyio
async def test_a_request_interrupted_on_its_way_is_said_to_be_perhaps_accepted(folder: Path) -> None:
    """Without an id the list of avatars is the way back."""
    async with sandbox_for_commands() as (sandbox, environment):
        sandbox.fail("mirako.avatar_create", Fault(stall=60.0))
        process = await start(*_BUILD, folder=folder, environment=environment)
        async with asyncio.timeout(PATIENCE):
            while not sandbox.requests:  # noqa: ASYNC110 - it is another process that is waited for
                await asyncio.sleep(0.02)
        ended = await _interrupted(process, signal.SIGINT, 6)  # two seconds of them for the request to come home
    assert ended.code == ExitCode.INTERRUPTED
    assert "may have been bought (key " in ended.stderr
    assert "whether it was accepted shows: mirage-async avatar list\n" in ended.stderr


@pytest.mark.anyio
async def test_an_odd_portrait_warns_and_quiet_does_not(folder: Path) -> None:
    """The guide advises 16:9 or square; another ratio is built all the same."""
    (folder / "me.png").write_bytes(_png(800, 600))
    async with Sandbox(durations=0.05, strict=False) as sandbox:
        environment = {"MIRAGE_SANDBOX_URL": sandbox.url}
        told, quiet = await asyncio.gather(
            _build(folder, environment, "--no-wait"), _build(folder, environment, "--no-wait", "-q")
        )
    assert (told.code, quiet.code, quiet.stderr) == (ExitCode.DONE, ExitCode.DONE, "")
    assert "warning: image is best 16:9 or square; got 800 x 600 pixels" in told.stderr


_BAD: dict[str, tuple[str, str]] = {  # by name: the words after `avatar`, and what the line must say
    "missing portrait": ("build -i gone.png -n Me", "'gone.png': No such file"),
    "small portrait": ("build -i small.png -n Me", "at least 512 x 512 pixels; got 640 x 480"),
    "gif portrait": ("build -i moving.gif -n Me", "image/gif"),
    "portrait by address": ("build -i https://x.test/me.png -n Me", "JPEG or PNG picture; got a link"),
    "no portrait": ("build -n Me", "Missing option '-i' / '--image'"),
    "no name": ("build -i me.png", "Missing option '-n' / '--name'"),
    "long name": (f"build -i me.png -n {'x' * 201}", "1 to 200 characters of text"),
    "no interval": ("build -i me.png -n Me -p 0", "above 0 and at most 3600 seconds; got 0"),
    "interval that is none": ("build -i me.png -n Me -p nan", "above 0 and at most 3600 seconds; got nan"),
    "interval in words": ("build -i me.png -n Me -p often", "must be a number of seconds; got 'often'"),
    "endless wait": ("build -i me.png -n Me --max-wait inf", "max_wait must be"),
    "id with a way out": ("view ../image", "avatar_id must be 1 to 128 letters"),
    "id that is an address": ("view list", "must be the id of an avatar; got 'list'"),
    "no id": ("view", "Missing argument 'ID'"),
    "unknown command": ("destroy", "No such command 'destroy'"),
}


@pytest.mark.parametrize("name", _BAD)
def test_what_cannot_be_right_is_refused_before_anything_is_sent(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The address leads nowhere, so an attempt to connect would be another error than the one told."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MIRAGE_SANDBOX_URL", "http://127.0.0.1:9")
    (folder / "small.png").write_bytes(_png(640, 480))
    Image.new("RGB", (512, 512), "teal").save(folder / "moving.gif")
    words, told = _BAD[name]
    assert run(["avatar", *words.split()]) == ExitCode.USAGE
    shown = capsys.readouterr()
    assert (shown.out, shown.err.count("\n")) == ("", 1)
    assert told in shown.err


@pytest.mark.parametrize("words", ["build -i me.png -n Me", "view a1", "list"])
def test_without_a_key_each_of_them_is_a_matter_of_authentication(
    words: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The line names the variable to set."""
    monkeypatch.chdir(folder)
    assert run(["avatar", *words.split()]) == ExitCode.AUTHENTICATION
    assert "MIRAKO_API_KEY" in capsys.readouterr().err


@pytest.mark.anyio
async def test_view_shows_an_avatar_to_people_and_to_programs(folder: Path) -> None:
    """A ready one comes with a prompt to try, on stderr; an unknown one is exit code 3."""
    async with sandbox_for_commands() as (_, environment):
        avatar_id = (await _build(folder, environment, "-q")).stdout.strip()

        async def view(*words: str) -> Ended:
            return await command_here("avatar", "view", *words, folder=folder, environment=environment)

        lines, as_json, unknown = await asyncio.gather(view(avatar_id), view(avatar_id, "--json"), view("nobody"))
    shown = dict(line.split(maxsplit=1) for line in lines.lines)
    assert (lines.code, list(shown)) == (ExitCode.DONE, ["id", "name", "status", "created", "themes"])
    assert (shown["id"], shown["name"], shown["status"]) == (avatar_id, "Me", "READY")
    assert datetime.fromisoformat(shown["created"]).tzinfo == UTC
    assert f'mirage-async generate "{avatar_id} ' in lines.stderr
    assert (set(json.loads(as_json.stdout)), as_json.stderr) == (_RECORD, "")
    assert (unknown.code, unknown.stdout) == (ExitCode.REFUSED, "")
    assert unknown.stderr == "mirage-async: error: there is no avatar 'nobody'\n"


@pytest.mark.anyio
async def test_names_from_outside_cannot_break_lines_or_columns(folder: Path) -> None:
    """Terminal codes, tabs and line breaks an avatar brings along become spaces; JSON has them as they are."""
    async with sandbox_for_commands() as (sandbox, environment):
        for _ in range(2):
            sandbox.fail("mirako.avatar_list", Fault(status=200, body={"data": [_HOSTILE]}))
        sandbox.fail("mirako.avatar_status", Fault(status=200, body={"data": _HOSTILE}))
        listed, as_json, viewed = await asyncio.gather(
            *(
                command_here("avatar", *words, folder=folder, environment=environment)
                for words in (("list",), ("list", "--json"), ("view", "a1"))
            )
        )
    assert listed.stdout == "a1\tTAKEN DOWN\t2026-01-02T03:04:05Z\tTab bed [2J name\n"
    assert json.loads(as_json.stdout) == {key: _HOSTILE[key] for key in _RECORD}
    assert (len(viewed.lines), viewed.lines[-1], viewed.stderr) == (5, "themes   Stu dio, unnamed", "")


@pytest.mark.anyio
async def test_a_list_has_one_line_for_each_avatar_and_none_for_none(folder: Path) -> None:
    """That there are none is told on stderr, whatever stdout was to be."""

    async def listed(*words: str, environment: dict[str, str]) -> Ended:
        return await command_here("avatar", "list", *words, folder=folder, environment=environment)

    async with sandbox_for_commands() as (sandbox, environment):
        empty = await asyncio.gather(listed(environment=environment), listed("--json", environment=environment))
        for name in ("First", "Second one"):
            await command_here(
                "avatar", "build", "-qi", "me.png", "--no-wait", "-n", name, folder=folder, environment=environment
            )
        lines, objects = await asyncio.gather(
            listed(environment=environment), listed("--json", environment=environment)
        )
    assert [(each.code, each.stdout, each.stderr) for each in empty] == [(0, "", "mirage-async: no avatars\n")] * 2
    columns = [line.split("\t") for line in lines.lines]
    assert [(row[0], row[3]) for row in columns] == list(zip(sandbox.jobs, ["First", "Second one"], strict=True))
    assert [json.loads(line)["id"] for line in objects.lines] == list(sandbox.jobs)


@pytest.mark.parametrize("columns", ["40", "100"])
def test_the_table_of_a_terminal_is_aligned_and_cuts_no_id(
    columns: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Markup in a name is text, and the name is the only column whose width nobody knows."""
    monkeypatch.setenv("COLUMNS", columns)
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    ids = ["0" * 36, "short"]
    avatars = [
        Avatar(id=each, name="[bold]x" * 9, status=status, created_at=moment)
        for each, status in zip(ids, ("READY", "BUILDING"), strict=True)
    ]
    _avatar_show._print_table(avatars)
    heading, *rows = capsys.readouterr().out.splitlines()
    assert heading.split() == ["ID", "STATUS", "CREATED", "NAME"]
    assert [row.split()[0] for row in rows] == ids
    assert [row.index("[bold]") for row in rows] == [heading.index("NAME")] * 2
    assert all(row.endswith("[bold]x" * 9) for row in rows)


@pytest.mark.anyio
async def test_a_new_sandbox_says_why_it_has_no_avatars(folder: Path) -> None:
    """Without MIRAGE_SANDBOX_URL there is nothing to find, and the line says what would help."""
    listed, viewed = await asyncio.gather(
        command_here("avatar", "list", "--sandbox", folder=folder),
        command_here("avatar", "view", "a1", "--sandbox", folder=folder),
    )
    assert (listed.code, viewed.code) == (ExitCode.DONE, ExitCode.REFUSED)
    assert all("MIRAGE_SANDBOX_URL" in each.stderr for each in (listed, viewed))


def test_an_id_nobody_reads_on_stdout_is_told_on_stderr(folder: Path) -> None:
    """Even a quiet build leaves the id of what was accepted."""
    reading, writing = os.pipe()
    os.close(reading)
    words = [sys.executable, "-m", "mirage_async", *_BUILD, "--sandbox", "--no-wait", "-q"]
    done = subprocess.run(words, stdout=writing, stderr=subprocess.PIPE, cwd=folder, check=False)
    os.close(writing)
    assert done.returncode == ExitCode.FAILURE
    assert re.fullmatch(r"mirage-async: avatar [0-9a-f-]{36} is PENDING\n", done.stderr.decode())


@pytest.mark.parametrize("words", ["avatar", "avatar -h", "avatar build --help", "avatar view -h", "avatar list -h"])
def test_every_help_of_the_group_shows_the_exit_codes(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The group's name alone is a question for help."""
    assert run(words.split()) == ExitCode.DONE
    shown = capsys.readouterr().out
    assert shown.startswith("Usage: mirage-async avatar")
    assert all(f"  {code:>3}  " in shown for code in ExitCode)


@pytest.mark.anyio
@pytest.mark.parametrize("words", [("avatar",), ("avatar", "build", "-h")])
async def test_the_help_of_the_group_loads_neither_http_client_nor_display(
    words: tuple[str, ...], folder: Path
) -> None:
    """What answers without work starts without what work needs."""
    ended = await end(await start(*words, folder=folder, python=("-c", _HELP_PROBE)))
    assert (ended.code, ended.stderr.strip()) == (ExitCode.DONE, "loaded:")
