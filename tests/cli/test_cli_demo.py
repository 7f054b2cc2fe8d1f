"""`demo` from an empty folder to a page, and what it does when something fails or is in the way."""

from __future__ import annotations

import asyncio
import json
import signal
from collections import Counter
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest
from command_line import PROMPTLY, command, end, names_in, start
from PIL import Image

from mirage_async.cli import run
from mirage_async.cli._board import Board
from mirage_async.cli._demo import stage as stage_module
from mirage_async.cli._demo.page import render
from mirage_async.cli._demo.performance import perform
from mirage_async.cli._demo.plan import plan
from mirage_async.cli._exits import ExitCode
from mirage_async.sandbox import Fault, Sandbox
from mirage_async.testing import sandboxed

if TYPE_CHECKING:
    from pathlib import Path

    from mirage_async.cli._demo.exhibit import Exhibition

_PROVIDERS = ("mirako", "miragic", "mira", "milady")


class Links(HTMLParser):
    """Collects what a page refers to."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.pictures: list[str] = []
        self.tags: Counter[str] = Counter()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the tag and, of pictures, the address."""
        self.tags[tag] += 1
        if tag == "img":
            self.pictures.append(dict(attrs)["src"] or "")


@pytest.mark.anyio
async def test_the_demo_leaves_pictures_of_all_providers_and_a_page_that_shows_them(tmp_path: Path) -> None:
    """Exit code 0, JSON alone on stdout, a short line a job on stderr, and every file on the page."""
    words = ("demo", "-o", "out", "--pictures", "1", "--seed", "1", "--json")  # a seed whose jobs are quick
    ended = await command(*words, folder=tmp_path, environment={"MIRA_API_KEY": "sk-real"})
    assert ended.code == ExitCode.DONE, ended.stderr
    *pictures, page = map(json.loads, ended.lines)
    assert Counter(picture["provider"] for picture in pictures) == Counter(
        {"mirako": 2, **dict.fromkeys(_PROVIDERS[1:], 1)}
    )
    assert page == {"page": "out/index.html", "pictures": 5, "failed": 0, "seconds": page["seconds"]}
    for picture in pictures:
        with Image.open(tmp_path / picture["path"]) as opened:
            assert opened.size == (picture["width"], picture["height"])
    links = Links((tmp_path / page["page"]).read_text())
    assert sorted([*links.pictures, "index.html"]) == names_in(tmp_path / "out")
    assert {f"out/{name}" for name in links.pictures} == {picture["path"] for picture in pictures}
    told = ended.stderr.splitlines()
    assert (len(told), all(" done " in line for line in told), "\x1b" in ended.stderr) == (6, True, False)


@pytest.mark.anyio
async def test_an_interrupted_demo_says_that_nothing_is_left_to_resume(tmp_path: Path) -> None:
    """Its jobs lived in its own sandbox; the command ends soon with 130 and no traceback."""
    process = await start("demo", "--pictures", "1", folder=tmp_path)
    async with asyncio.timeout(20):
        assert process.stderr is not None
        assert await process.stderr.readline()
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(PROMPTLY):
        ended = await end(process)
    assert (ended.code, ended.stdout) == (ExitCode.INTERRUPTED, "")
    assert "nothing was paid" in ended.stderr
    assert "Traceback" not in ended.stderr


async def _performed(folder: Path, *, pictures: int = 3, **faults: Fault) -> Exhibition:
    """Give the demo quickly, with faults by operation ("__" stands for the dot)."""
    async with sandboxed() as (mirage, sandbox):
        for operation, fault in faults.items():
            sandbox.fail(operation.replace("__", "."), fault)
        return await perform(mirage, plan(pictures), folder, Board(), pictures=pictures, seed=0)


@pytest.mark.anyio
async def test_a_failing_job_takes_no_other_with_it(tmp_path: Path) -> None:
    """The others are saved, and the page shows the failure with its reason."""
    exhibition = await _performed(tmp_path, miragic__create=Fault(status=402))
    failed = [exhibit for exhibit in exhibition.exhibits if exhibit.problem is not None]
    assert ([exhibit.provider for exhibit in failed], exhibition.failures, exhibition.pictures) == (["miragic"], 1, 12)
    page = render(exhibition)
    assert page.count("<b>failed</b>") == 1
    assert sorted(Links(page).pictures) == names_in(tmp_path)


@pytest.mark.anyio
async def test_what_builds_on_a_failed_portrait_is_not_ordered(tmp_path: Path) -> None:
    """Nothing waits for ever: the avatar, its picture and the picture with a reference say why they are missing."""
    exhibition = await _performed(tmp_path, mirako__create=Fault(status=402))
    assert exhibition.failures == 4
    assert "not ordered, because the portrait" in (exhibition.avatar.problem or "")
    assert "was not built: not ordered" in render(exhibition)


@pytest.mark.anyio
async def test_a_failed_avatar_fails_only_its_own_picture(tmp_path: Path) -> None:
    """Its portrait is a picture like any other."""
    exhibition = await _performed(tmp_path, pictures=1, mirako__avatar_create=Fault(status=403))
    assert (exhibition.failures, exhibition.pictures) == (2, 4)


def test_a_demo_with_a_failure_ends_with_the_code_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The code is 7, and the paths of what there is are printed all the same, the page's last."""

    def faulty(seed: int) -> Sandbox:
        sandbox = Sandbox(seed=seed, durations=0.05)
        sandbox.fail("mira.generate", Fault(status=500))
        return sandbox

    monkeypatch.setattr(stage_module, "Sandbox", faulty)
    folder = tmp_path / "deep" / "out"
    assert run(["demo", "-o", str(folder), "--pictures", "1"]) == ExitCode.PARTIAL
    printed = capsys.readouterr().out.splitlines()
    assert sorted(printed) == [str(folder / name) for name in names_in(folder)]
    assert printed[-1] == str(folder / "index.html")
    assert run(["demo", "-o", str(folder), "--pictures", "1"]) == ExitCode.PARTIAL  # over its own page and pictures


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["-o", "file"], "cannot write to 'file'"),
        (["-o", "file/sub"], "cannot write to 'file/sub' below 'file'"),
        (["-o", "/proc/nowhere"], "cannot write to '/proc/nowhere'"),
        (["-o", "."], "'index.html' exists and is not from an earlier demo"),
        (["--pictures", "0"], "--pictures must be from 1 to 50; got 0"),
    ],
)
def test_what_is_in_the_way_is_told_before_anything_starts(
    words: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One line, exit code 2, and foreign files stay as they are."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stage_module, "Sandbox", None)
    (tmp_path / "file").write_text("theirs")
    (tmp_path / "index.html").write_text("<h1>theirs</h1>")
    assert run(["demo", *words]) == ExitCode.USAGE
    shown = capsys.readouterr()
    assert (shown.out, shown.err.count("\n")) == ("", 1)
    assert told in shown.err
    assert names_in(tmp_path) == ["file", "index.html"]


@pytest.mark.parametrize("pictures", [1, 2, 3, 11])
def test_the_plan_has_as_many_pictures_of_each_provider_as_asked_for(pictures: int) -> None:
    """Requests for several pictures are cut to fit, exactly one gives the portrait, and no two files share a name."""
    orders = plan(pictures)
    counts: Counter[str] = Counter()
    for order in orders:
        counts[order.provider] += order.request.n or 1
    assert counts == Counter(dict.fromkeys(_PROVIDERS, pictures))
    assert sum(order.gives_portrait for order in orders) == 1
    stems = [order.stem(index) for order in orders for index in range(order.request.n or 1)]
    assert len(set(stems)) == len(stems) == 4 * pictures
