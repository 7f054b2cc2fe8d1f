"""The README is run: its commands are the ones promised, its programs work as printed, its links lead somewhere."""

from __future__ import annotations

import asyncio
import io
import os
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE, STDOUT
from typing import Any

import anyio
import pytest
from PIL import Image

from mirage_async import Mirage
from mirage_async.journal import Journal
from mirage_async.sandbox import Sandbox
from mirage_async.scheduler import FixedInterval, Scheduler

ROOT = Path(__file__).parents[2]
PAGES = (
    "README.md",
    "CHANGELOG.md",
    "examples/README.md",
    "benchmarks/README.md",
    "mirage_async/journal/README.md",
    "mirage_async/sandbox/README.md",
    "mirage_async/webhooks/README.md",
    "mirage_async/wire/ADDING.md",
)
DEMO_COMMAND = (
    'python3 -m venv .venv && .venv/bin/pip install -q ".[cli,sandbox]" && .venv/bin/mirage-async demo -o demo'
)
TEST_COMMAND = 'python3 -m venv .venv && .venv/bin/pip install -q -e ".[dev]" && .venv/bin/python -m pytest'
BOUND = 25.0  # seconds one block may take
CONTINUES = "<!-- continues -->\n"

README = (ROOT / "README.md").read_text(encoding="utf-8")


def fences(language: str) -> list[tuple[bool, str]]:
    """Return the code blocks of a language, each with whether it continues the one before."""
    pattern = re.compile(rf"^(?P<continues>{CONTINUES})?```{language}\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE)
    return [(match["continues"] is not None, match["code"]) for match in pattern.finditer(README)]


def programs() -> list[str]:
    """Return the Python blocks as whole programs: one that continues another is appended to it."""
    whole: list[str] = []
    for continues, code in fences("python"):
        whole.append(whole.pop() + code if continues else code)
    return whole


def command_lines() -> list[str]:
    """Return the lines of the bash blocks that call the command line."""
    return [line for _, code in fences("bash")[2:] for line in code.splitlines() if line.startswith("mirage-async ")]


def environment(address: str | None) -> dict[str, str]:
    """Return what a program from the page may see: the package and perhaps a sandbox, but none of our own keys."""
    ours = ("MIRAKO_", "MIRAGIC_", "MIRA_", "MILADY_", "MIRAGE_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {**kept, "PYTHONPATH": str(ROOT)} | ({} if address is None else {"MIRAGE_SANDBOX_URL": address})


@dataclass(frozen=True, kw_only=True)
class Ran:
    """How a program ended: exit code, what it printed and complained about, and the files it left."""

    code: int
    printed: str
    files: tuple[Path, ...]


async def run(command: list[str], folder: Path, address: str | None) -> Ran:
    """Run a command in a folder of its own."""
    with anyio.fail_after(BOUND):
        done = await anyio.run_process(
            command, cwd=folder, env=environment(address), stdout=PIPE, stderr=STDOUT, check=False
        )
    return Ran(code=done.returncode, printed=done.stdout.decode(), files=left_in(folder))


def left_in(folder: Path) -> tuple[Path, ...]:
    """Return the pictures in a folder."""
    return tuple(path for path in folder.rglob("*") if path.suffix in {".jpg", ".png", ".webp"})


@pytest.fixture(scope="module")
async def ran(anyio_backend: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ran]:
    """Run every program and command line of the page, all at once, because they mostly wait.

    Programs find a sandbox in the environment, as readers with keys find the providers. The first block is run once
    more without, alone: it has to bring its own.
    """
    outcomes: dict[str, Ran] = {}

    async def keep(text: str, command: list[str], folder: Path, address: str | None) -> None:
        outcomes[text] = await run(command, folder, address)

    async with Sandbox(durations=0.2) as sandbox, anyio.create_task_group() as group:
        addresses = dict.fromkeys(programs(), sandbox.url) | {fences("python")[0][1]: None}
        for text, address in addresses.items():
            program = tmp_path_factory.mktemp("program") / "program.py"
            program.write_text(text, encoding="utf-8")
            group.start_soon(keep, text, [sys.executable, "-W", "error", str(program)], program.parent, address)
        for text in command_lines():
            command = [sys.executable, "-m", "mirage_async", *shlex.split(text)[1:]]
            group.start_soon(keep, text, command, tmp_path_factory.mktemp("command"), None)
    return outcomes


def test_the_first_two_bash_blocks_are_the_two_commands_and_nothing_else() -> None:
    """Whoever opens the page can copy two lines: one shows the library at work, one runs its tests."""
    assert [code for _, code in fences("bash")][:2] == [f"{DEMO_COMMAND}\n", f"{TEST_COMMAND}\n"]


def test_nothing_but_the_title_and_two_sentences_comes_before_the_first_command() -> None:
    """The commands come first; the reasons come after."""
    before = [line for line in README.partition("```")[0].splitlines() if line]
    assert len(before) == 3
    assert before[0].startswith("# ")


def test_the_page_stays_short_enough_to_be_read() -> None:
    """A page nobody finishes explains nothing."""
    assert len(README.splitlines()) <= 240


def test_no_python_block_escapes_the_tests() -> None:
    """Every fence that says Python in any spelling is one the tests run."""
    opened = re.findall(r"^\s*```\s*(?:py|python)\S*\s*$", README, re.MULTILINE | re.IGNORECASE)
    assert len(opened) == len(fences("python")) > 0


@pytest.mark.parametrize("number", range(len(programs())))
def test_every_python_block_runs_as_it_is_printed(number: int, ran: dict[str, Ran]) -> None:
    """A program from the page works when pasted into a file, without a warning."""
    outcome = ran[programs()[number]]
    assert outcome.code == 0, outcome.printed


def test_the_first_python_block_leaves_the_picture_it_names(ran: dict[str, Ran]) -> None:
    """The one complete example needs no key and no address, and its file holds a real picture."""
    outcome = ran[fences("python")[0][1]]
    assert outcome.code == 0, outcome.printed
    (picture,) = outcome.files
    assert outcome.printed.split()[:3] == [picture.name, "1024", "576"]
    assert picture.stat().st_size > 1000


async def test_the_program_with_a_journal_gets_back_whatever_is_owed(
    anyio_backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pictures are saved, and an avatar, which has none, is shown."""
    (program,) = [code for _, code in fences("python") if "async def safely" in code]

    def hub(journal: Journal) -> Mirage:
        return Mirage(journal=journal, scheduler=Scheduler(policy=FixedInterval(0.05)))  # in no hurry otherwise

    known: dict[str, Any] = {"asyncio": asyncio, "Mirage": hub}
    exec(program.replace("asyncio.run(safely())", ""), known)  # noqa: S102 - as a reader would
    portrait = io.BytesIO()
    Image.new("RGB", (512, 512), "teal").save(portrait, "PNG")
    monkeypatch.chdir(tmp_path)
    async with Sandbox(durations=0.1) as sandbox:
        monkeypatch.setenv("MIRAGE_SANDBOX_URL", sandbox.url)
        async with hub(Journal("journal")) as mirage:
            await mirage.mirako.build_avatar("Ada", portrait.getvalue())
            await mirage.mirako.submit("a fox")
        await known["safely"]()
    avatar, pictures = capsys.readouterr().out.splitlines()
    assert "name='Ada'" in avatar
    assert re.fullmatch(r"\[PosixPath\('\S+\.jpg'\)\]|\[WindowsPath\('\S+\.jpg'\)\]", pictures)


@pytest.mark.parametrize("line", command_lines())
def test_every_command_line_works_as_it_is_printed(line: str, ran: dict[str, Ran]) -> None:
    """The commands on the page are run through the module, as the installed script runs it, and cost nothing."""
    assert "--sandbox" in shlex.split(line)
    outcome = ran[line]
    assert outcome.code == 0, outcome.printed
    assert outcome.files


@pytest.mark.parametrize("page", PAGES)
def test_every_link_to_a_file_leads_to_one(page: str) -> None:
    """Links within the checkout are relative to the page they are on."""
    text = (ROOT / page).read_text(encoding="utf-8")
    targets = [target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]
    missing = [target for target in targets if target and not ((ROOT / page).parent / target).exists()]
    assert missing == []


def test_every_name_of_an_error_on_the_page_exists() -> None:
    """The table of errors names classes that can be caught."""
    from mirage_async import exceptions  # noqa: PLC0415 - only this test is about them

    named = set(re.findall(r"`([A-Z][A-Za-z]+Error)`", README))
    assert named
    assert named <= set(exceptions.__all__)
