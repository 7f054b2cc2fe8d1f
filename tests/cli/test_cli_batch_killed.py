"""A batch that is killed at any moment, again and again, ends with exactly what was asked for, bought exactly once."""

from __future__ import annotations

import asyncio
import contextlib
import random
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from batches import drawn, pictures_in, records_in, running, states_in, write_prompts
from command_line import command, command_here, sandbox_for_commands
from noted_command import on_the_wire

from mirage_async.cli._exits import ExitCode
from mirage_async.sandbox import Fault

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator, Mapping

    from command_line import Ended

    from mirage_async.sandbox import Sandbox

pytestmark = pytest.mark.anyio

_KILLS = 5
_PICTURES = 24
_LIMIT = 6  # requests on the wire
_NOTED = Path(__file__).with_name("noted_command.py")


class _Killed:
    """A batch that is started again and again, to be killed.

    Args:
        words: of its command line.
        folder: where it is started.
        environment: leads it to the sandbox.
        sabotaged: its journal writes down no id of a provider's.

    Attributes:
        kills: how many times it was killed.
        most: purchases that were on the wire at once when it was.
        wired: keys of all of them.
    """

    def __init__(self, *words: str, folder: Path, environment: Mapping[str, str], sabotaged: bool = False) -> None:
        self.words, self.folder, self.environment = words, folder, environment
        self.kills = self.most = 0
        self.wired: set[str] = set()
        self._sabotage = "sabotaged" if sabotaged else "as it is"

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Process]:
        """Start it; where it still runs at the end of the block, it is killed."""
        notes = self.folder / f"notes-{self.kills}"
        python = (str(_NOTED), str(notes), self._sabotage)
        async with running(*self.words, folder=self.folder, environment=self.environment, python=python) as process:
            yield process
            alive = process.returncode is None
        if alive:
            wired = on_the_wire(notes)
            self.kills += 1
            self.most = max(self.most, len(wired))
            self.wired |= wired

    async def after(self, sandbox: Sandbox, operation: str, count: int) -> None:
        """Kill it once the sandbox has seen so many more requests of an operation, unless it ends before."""
        seen = sandbox.statistics().requests.get(operation, 0)
        async with self.running() as process, asyncio.timeout(30):
            while process.returncode is None and sandbox.statistics().requests.get(operation, 0) < seen + count:  # noqa: ASYNC110 - another process asks
                await asyncio.sleep(0.002)

    async def end(self) -> Ended:
        """Let it run to its end."""
        return await command(*self.words, folder=self.folder, environment=self.environment)


def _drafts_in(out: Path) -> list[str]:
    return sorted(path.name for path in out.glob("*.part"))


def _uncertain_in(out: Path) -> dict[str, str]:
    """Return the prompts of what is uncertain, by key."""
    return {record["key"]: record["prompt"] for record in records_in(out) if record["state"] == "uncertain"}


async def _settle(sandbox: Sandbox, out: Path, folder: Path) -> None:
    """Settle all that is uncertain as a person would who can see the provider's dashboard."""
    mine = {record["job_id"] for record in records_in(out)}
    for uncertain, prompt in _uncertain_in(out).items():
        ids = [key for key, job in sandbox.jobs.items() if job.prompt == prompt and key not in mine]
        word = ("--id", ids[0]) if ids else ("--not-bought",)
        ended = await command_here(
            "jobs", "resolve", uncertain, *word, "--journal", str(out / ".mirage/journal"), folder=folder
        )
        assert ended.code == 0, ended.stderr


@pytest.mark.parametrize(
    ("seed", "limit", "operations"),
    [
        (1, 6, ("miragic.create", "miragic.status", "miragic.download")),
        pytest.param(2, 6, ("miragic.status",), marks=pytest.mark.long),
        pytest.param(3, 6, ("miragic.download",), marks=pytest.mark.long),
        pytest.param(4, 2, ("miragic.create",), marks=pytest.mark.long),
    ],
    ids=["mixed", "polling", "downloading", "posting"],
)
async def test_five_kills_in_a_row_cost_nothing_and_lose_nothing(
    seed: int, limit: int, operations: tuple[str, ...], tmp_path: Path
) -> None:
    """Where a kill hits a request on the wire nobody knows what became of it; nothing else is ever in doubt."""
    seeded = random.Random(seed)
    prompts = [f"picture {number}" for number in range(_PICTURES)]
    words = ("batch", write_prompts(tmp_path, *prompts), "-o", "out", "--provider", "miragic", "--limit", str(limit))
    out = tmp_path / "out"
    async with sandbox_for_commands(durations=0.2) as (sandbox, environment):
        batch = _Killed(*words, folder=tmp_path, environment=environment)
        for _ in range(_KILLS):
            await batch.after(sandbox, seeded.choice(operations), seeded.randint(1, 5))
            assert max(drawn(sandbox).values(), default=0) <= 1
        assert batch.kills == _KILLS
        assert batch.most <= limit
        ended = await batch.end()
        assert ended.code in {ExitCode.DONE, ExitCode.PARTIAL}, ended.stderr
        uncertain = _uncertain_in(out)
        assert uncertain.keys() <= batch.wired
        if uncertain:
            assert states_in(out) == {"done": _PICTURES - len(uncertain), "uncertain": len(uncertain)}
            await _settle(sandbox, out, tmp_path)
            ended = await batch.end()
        assert ended.code == ExitCode.DONE, ended.stderr
        assert drawn(sandbox) == dict.fromkeys(prompts, 1)
    assert states_in(out) == {"done": _PICTURES}
    assert [record["line"] for record in records_in(out)] == list(range(1, _PICTURES + 1))
    assert pictures_in(out) == sorted(name for record in records_in(out) for name in record["files"])
    assert len(pictures_in(out)) == _PICTURES
    assert _drafts_in(out) == []


@pytest.mark.long
@pytest.mark.parametrize("seed", range(4))
async def test_kills_at_any_time_cost_nothing_and_lose_nothing(seed: int, tmp_path: Path) -> None:
    """While it starts, reads, plans, writes its files or ends: by the clock, and not by what the sandbox has seen."""
    seeded = random.Random(seed)
    prompts = [f"picture {number}" for number in range(_PICTURES)]
    words = ("batch", write_prompts(tmp_path, *prompts), "-o", "out", "--provider", "miragic", "--limit", "2", "-q")
    async with sandbox_for_commands(durations=0.05) as (sandbox, environment):
        batch = _Killed(*words, folder=tmp_path, environment=environment)
        for _ in range(10):
            async with batch.running() as process:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(process.wait(), seeded.uniform(0.3, 2.5))
            assert max(drawn(sandbox).values(), default=0) <= 1
        assert batch.kills >= 2
        assert batch.most <= 2
        await batch.end()
        assert _uncertain_in(tmp_path / "out").keys() <= batch.wired
        await _settle(sandbox, tmp_path / "out", tmp_path)
        ended = await batch.end()
        assert (ended.code, drawn(sandbox)) == (ExitCode.DONE, dict.fromkeys(prompts, 1)), ended.stderr
    assert states_in(tmp_path / "out") == {"done": _PICTURES}
    assert len(pictures_in(tmp_path / "out")) == _PICTURES
    assert _drafts_in(tmp_path / "out") == []


@pytest.mark.long
async def test_a_killed_request_that_is_answered_with_the_picture_is_in_doubt_and_never_sent_again(
    tmp_path: Path,
) -> None:
    """Such a provider gives no id to ask with: what was on the wire stays uncertain, the rest is bought once."""
    prompts = [f"picture {number}" for number in range(_PICTURES)]
    words = ("batch", write_prompts(tmp_path, *prompts), "-o", "out", "--provider", "mira", "--limit", str(_LIMIT))
    async with sandbox_for_commands(durations=0.2) as (sandbox, environment):
        batch = _Killed(*words, folder=tmp_path, environment=environment)
        for count in (3, 9, 5):
            await batch.after(sandbox, "mira.generate", count)
        ended = await batch.end()
        states = states_in(tmp_path / "out")
        assert max(drawn(sandbox).values()) == 1
        assert sum(drawn(sandbox).values()) + states["uncertain"] >= _PICTURES
    assert ended.code == ExitCode.PARTIAL, ended.stderr
    assert batch.kills == 3
    assert batch.most <= _LIMIT
    assert _uncertain_in(tmp_path / "out")
    assert _uncertain_in(tmp_path / "out").keys() <= batch.wired
    assert states["done"] == _PICTURES - states["uncertain"] == len(pictures_in(tmp_path / "out"))
    assert _drafts_in(tmp_path / "out") == []


async def test_what_is_in_flight_is_told_from_what_is_on_the_wire(tmp_path: Path) -> None:
    """The proof of these tests: where no id is written down, jobs are in doubt that were not on the wire."""
    prompts = [f"picture {number}" for number in range(_LIMIT)]
    words = ("batch", write_prompts(tmp_path, *prompts), "-o", "out", "--provider", "miragic", "--limit", str(_LIMIT))
    async with sandbox_for_commands(durations=0.2) as (sandbox, environment):
        batch = _Killed(*words, folder=tmp_path, environment=environment, sabotaged=True)
        await batch.after(sandbox, "miragic.status", 1)
        ended = await batch.end()
    assert batch.kills == 1, ended.stderr
    assert _uncertain_in(tmp_path / "out").keys() - batch.wired


async def test_a_download_that_was_killed_leaves_nothing_behind(tmp_path: Path) -> None:
    """The next run removes what was written of the picture, and nothing else that looks like it."""
    words = ("batch", write_prompts(tmp_path, "a fox"), "-o", "out", "--provider", "mira")
    out, kept = tmp_path / "out", [".mirage-0123456789abcde.part", ".mirage-0123456789abcdeX.part", "notes.part"]
    async with sandbox_for_commands() as (sandbox, environment):
        sandbox.fail("mira.download", Fault(dribble=3.0))
        batch = _Killed(*words, folder=tmp_path, environment=environment)
        await batch.after(sandbox, "mira.download", 1)
        assert len(_drafts_in(out)) == 1
        for name in kept:
            (out / name).write_text("mine", "ascii")
        ended = await batch.end()
    assert (batch.kills, ended.code) == (1, ExitCode.DONE), ended.stderr
    assert _drafts_in(out) == sorted(kept)
    assert len(pictures_in(out)) == 1
