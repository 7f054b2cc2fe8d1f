"""`batch` buys nothing where somebody has removed what it goes by."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from batches import PROMPTS, Bench, bench, drawn, running, write_prompts
from command_line import Ended, command, sandbox_for_commands
from test_cli_batch import until_seen, words_for

from mirage_async.cli._exits import ExitCode
from mirage_async.journal import Journal

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["bench"]

pytestmark = pytest.mark.anyio


async def test_a_batch_that_was_killed_is_not_bought_again_without_its_journal(tmp_path: Path) -> None:
    """The manifest has nothing yet; what tells is that the batch is known and its journal is not there."""
    async with sandbox_for_commands(durations=60) as (sandbox, environment):
        words = words_for(write_prompts(tmp_path, "fox"))
        async with running(*words, folder=tmp_path, environment=environment) as process:
            await until_seen(sandbox, "miragic.status", 1)
            process.kill()
            await process.wait()
        assert not (tmp_path / "out/results.jsonl").read_bytes()
        shutil.rmtree(tmp_path / "out/.mirage/journal")
        for _ in range(2):
            ended = await command(*words, folder=tmp_path, environment=environment)
            assert ended.code == ExitCode.USAGE
            assert "is gone, so nobody knows what was bought: put it back, or name another folder" in ended.stderr
        assert drawn(sandbox) == {"fox": 1}


@pytest.mark.parametrize("budget", ["1", "1 picture", "1 credit"])
async def test_a_budget_is_not_spent_again_on_other_lines_with_another_journal(
    budget: str, tmp_path: Path, bench: Bench
) -> None:
    """What the manifest knows to be paid for has to be in the journal, which is what a budget is reckoned by."""
    words = words_for(write_prompts(tmp_path, "fox"), "--budget", budget)
    await bench.run(*words)
    write_prompts(tmp_path, "owl")
    shutil.rmtree(tmp_path / "out/.mirage/journal")
    elk = write_prompts(tmp_path, "elk", name="elk.txt")
    await bench.run("batch", elk, "-o", "other", "--provider", "miragic")
    shutil.copytree(tmp_path / "other/.mirage/journal", tmp_path / "out/.mirage/journal")
    ended = await bench.run(*words)
    assert ended.code == ExitCode.USAGE
    assert "does not know of 1 purchase made before (line 1)" in ended.stderr
    assert drawn(bench.sandbox) == {"fox": 1, "elk": 1}


async def test_a_journal_without_its_batch_is_no_new_batch(tmp_path: Path, bench: Bench) -> None:
    """A new id would make a new purchase of every line."""
    words = words_for(write_prompts(tmp_path, *PROMPTS[:2]))
    await bench.run(*words)
    (tmp_path / "out/.mirage/batch.json").unlink()
    (tmp_path / "out/results.jsonl").unlink()
    ended = await bench.run(*words)
    assert ended.code == ExitCode.USAGE
    assert "knows of 2 purchases, but the batch.json they belong to is gone" in ended.stderr
    assert sum(drawn(bench.sandbox).values()) == 2


async def test_without_what_it_knows_a_folder_is_refused(tmp_path: Path, bench: Bench) -> None:
    """Who removes the journal could pay twice, so that is told; a page that is not ours is never replaced."""
    sandbox = bench.sandbox

    async def run() -> Ended:
        return await bench.run(*words_for("prompts.txt"))

    write_prompts(tmp_path, "fox")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/index.html").write_text("<h1>mine</h1>")
    foreign = await run()
    (tmp_path / "out/index.html").unlink()
    assert (await run()).code == 0
    for path in (tmp_path / "out").glob("*.jpg"):
        path.unlink()
    for path in (tmp_path / "out/.mirage/journal").glob("jobs-*"):
        path.unlink()
    no_journal = await run()
    await Journal(tmp_path / "out/.mirage/journal").aclose()  # which is another one
    new_journal = await run()
    (tmp_path / "out/.mirage/batch.json").unlink()
    no_batch = await run()
    assert sum(drawn(sandbox).values()) == 1
    assert [foreign.code, no_journal.code, new_journal.code, no_batch.code] == [ExitCode.USAGE] * 4
    assert "is not from a batch" in foreign.stderr
    assert "journal, 'out/.mirage/journal', is gone, so nobody knows what was bought" in no_journal.stderr
    assert "the journal of this folder does not know of 1 purchase made before (line 1)" in new_journal.stderr
    assert "nobody knows what was bought" in no_batch.stderr
