"""A batch that is killed at any moment, again and again, ends with exactly what was asked for, bought exactly once."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import TYPE_CHECKING

import pytest
from batches import drawn, pictures_in, records_in, running, states_in, write_prompts
from command_line import command, command_here, sandbox_for_commands

from mirage_async.cli._exits import ExitCode

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mirage_async.sandbox import Sandbox

pytestmark = pytest.mark.anyio

_KILLS = 5
_PICTURES = 24
_LIMIT = 6  # requests on the wire


async def _killed_after(
    sandbox: Sandbox,
    operation: str,
    count: int,
    *,
    words: tuple[str, ...],
    folder: Path,
    environment: Mapping[str, str],
) -> bool:
    """Kill a command once the sandbox has seen so many more requests of an operation; False where it ended before."""
    seen = sandbox.statistics().requests.get(operation, 0)
    async with running(*words, folder=folder, environment=environment) as process:
        async with asyncio.timeout(30):
            while process.returncode is None and sandbox.statistics().requests.get(operation, 0) < seen + count:  # noqa: ASYNC110 - another process asks
                await asyncio.sleep(0.002)
        return process.returncode is None


async def _settle(sandbox: Sandbox, out: Path, folder: Path) -> int:
    """Settle all that is uncertain as a person would who can see the provider's dashboard; return how many."""
    mine = {record["job_id"] for record in records_in(out)}
    uncertain = [record for record in records_in(out) if record["state"] == "uncertain"]
    for record in uncertain:
        ids = [key for key, job in sandbox.jobs.items() if job.prompt == record["prompt"] and key not in mine]
        word = ("--id", ids[0]) if ids else ("--not-bought",)
        journal = str(out / ".mirage/journal")
        ended = await command_here("jobs", "resolve", record["key"], *word, "--journal", journal, folder=folder)
        assert ended.code == 0, ended.stderr
    return len(uncertain)


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
    out, kills = tmp_path / "out", 0
    async with sandbox_for_commands(durations=0.2) as (sandbox, environment):
        for _ in range(_KILLS):
            operation, count = seeded.choice(operations), seeded.randint(1, 5)
            kills += await _killed_after(
                sandbox, operation, count, words=words, folder=tmp_path, environment=environment
            )
            assert max(drawn(sandbox).values(), default=0) <= 1
        ended = await command(*words, folder=tmp_path, environment=environment)
        assert ended.code in {ExitCode.DONE, ExitCode.PARTIAL}, ended.stderr
        uncertain = await _settle(sandbox, out, tmp_path)
        assert uncertain <= kills * limit
        if uncertain:
            assert states_in(out) == {"done": _PICTURES - uncertain, "uncertain": uncertain}
            ended = await command(*words, folder=tmp_path, environment=environment)
        assert ended.code == ExitCode.DONE, ended.stderr
        assert drawn(sandbox) == dict.fromkeys(prompts, 1)
    assert kills >= 2
    assert states_in(out) == {"done": _PICTURES}
    assert [record["line"] for record in records_in(out)] == list(range(1, _PICTURES + 1))
    assert pictures_in(out) == sorted(name for record in records_in(out) for name in record["files"])
    assert len(pictures_in(out)) == _PICTURES


@pytest.mark.long
@pytest.mark.parametrize("seed", range(4))
async def test_kills_at_any_time_cost_nothing_and_lose_nothing(seed: int, tmp_path: Path) -> None:
    """While it starts, reads, plans, writes its files or ends: by the clock, and not by what the sandbox has seen."""
    seeded = random.Random(seed)
    prompts = [f"picture {number}" for number in range(_PICTURES)]
    words = ("batch", write_prompts(tmp_path, *prompts), "-o", "out", "--provider", "miragic", "--limit", "2", "-q")
    async with sandbox_for_commands(durations=0.05) as (sandbox, environment):
        for _ in range(10):
            async with running(*words, folder=tmp_path, environment=environment) as process:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(process.wait(), seeded.uniform(0.3, 2.5))
            assert max(drawn(sandbox).values(), default=0) <= 1
        for _ in range(2):
            ended = await command(*words, folder=tmp_path, environment=environment)
            await _settle(sandbox, tmp_path / "out", tmp_path)
        ended = await command(*words, folder=tmp_path, environment=environment)
        assert (ended.code, drawn(sandbox)) == (ExitCode.DONE, dict.fromkeys(prompts, 1)), ended.stderr
    assert states_in(tmp_path / "out") == {"done": _PICTURES}
    assert len(pictures_in(tmp_path / "out")) == _PICTURES


@pytest.mark.long
async def test_a_killed_request_that_is_answered_with_the_picture_is_in_doubt_and_never_sent_again(
    tmp_path: Path,
) -> None:
    """Such a provider gives no id to ask with: what was on the wire stays uncertain, the rest is bought once."""
    prompts = [f"picture {number}" for number in range(_PICTURES)]
    words = ("batch", write_prompts(tmp_path, *prompts), "-o", "out", "--provider", "mira", "--limit", str(_LIMIT))
    kills = 0
    async with sandbox_for_commands(durations=0.2) as (sandbox, environment):
        for count in (3, 9, 5):
            kills += await _killed_after(
                sandbox, "mira.generate", count, words=words, folder=tmp_path, environment=environment
            )
        ended = await command(*words, folder=tmp_path, environment=environment)
        states = states_in(tmp_path / "out")
        assert max(drawn(sandbox).values()) == 1
        assert sum(drawn(sandbox).values()) + states["uncertain"] >= _PICTURES
    assert ended.code == ExitCode.PARTIAL, ended.stderr
    assert 1 <= states["uncertain"] <= kills * _LIMIT
    assert states["done"] == _PICTURES - states["uncertain"] == len(pictures_in(tmp_path / "out"))
