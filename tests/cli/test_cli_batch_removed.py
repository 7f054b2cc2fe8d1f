"""`batch` buys nothing where somebody has removed what it goes by."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import sys
from typing import TYPE_CHECKING

import pytest
from batches import PROMPTS, Bench, bench, drawn, running, states_in, write_prompts
from command_line import Ended, command_here, end, sandbox_for_commands
from test_cli_batch import until_seen, words_for

from mirage_async.cli._batch.folder import BatchFolder
from mirage_async.cli._batch.manifest import Manifest
from mirage_async.cli._exits import CommandError, ExitCode
from mirage_async.journal import Journal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mirage_async.cli._batch.record import Record
    from mirage_async.journal import Entry
    from mirage_async.sandbox import Sandbox

if sys.platform == "linux":
    import resource

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
            ended = await command_here(*words, folder=tmp_path, environment=environment)
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


def remove(folder: Path) -> None:
    """Remove a folder in which a command makes files."""
    while folder.exists():
        shutil.rmtree(folder, ignore_errors=True)


async def four_bought(sandbox: Sandbox) -> None:
    """Wait until somebody else has bought four pictures."""
    async with asyncio.timeout(30):
        while sum(drawn(sandbox).values()) < 4:  # noqa: ASYNC110 - a command buys
            await asyncio.sleep(0.01)


async def stopped_by(change: Callable[[], object], bench: Bench, *words: str) -> tuple[Ended, int]:
    """Change something once four pictures are bought, and return how the command ended and how many it has bought."""
    bench.sandbox.set_durations(0.2)
    command = asyncio.create_task(bench.run(*words, "--limit", "2"))
    await four_bought(bench.sandbox)
    change()
    ended = await command
    bench.sandbox.set_durations(0.02)
    return ended, sum(drawn(bench.sandbox).values())


@pytest.mark.parametrize("provider", ["miragic", "mira"])
@pytest.mark.parametrize("what", ["out", "out/.mirage/journal"])
async def test_what_is_removed_in_the_middle_stops_the_buying_and_the_next_run_completes_it(
    what: str, provider: str, tmp_path: Path, bench: Bench
) -> None:
    """What was bought is put on record again, so that nothing is bought twice; what is in flight comes home."""
    prompts = [f"picture {number}" for number in range(9)]
    words = words_for(write_prompts(tmp_path, *prompts), provider=provider)
    stopped, bought = await stopped_by(lambda: remove(tmp_path / what), bench, *words)
    states = states_in(tmp_path / "out")
    ended = await bench.run(*words)
    assert (stopped.code, 4 <= bought <= 8, states["unbought"]) == (ExitCode.PARTIAL, True, 9 - bought)
    assert "the buying has stopped: " in stopped.stderr
    assert "'out' was removed or moved in the middle of the run" in stopped.stderr
    assert "to go on with the batch, and buy nothing twice" in stopped.stderr.splitlines()[-1]
    assert drawn(bench.sandbox) == dict.fromkeys(prompts, 1)
    if provider == "miragic":  # whose pictures can be fetched again
        assert (ended.code, states_in(tmp_path / "out")) == (0, {"done": 9}), ended.stderr


async def test_a_folder_moved_in_the_middle_stops_the_buying_and_is_not_made_again(
    tmp_path: Path, bench: Bench
) -> None:
    """A second one of its name would be another batch; moved back, it goes on with all that came home meanwhile."""
    prompts = [f"picture {number}" for number in range(9)]
    words = words_for(write_prompts(tmp_path, *prompts))
    stopped, bought = await stopped_by(lambda: (tmp_path / "out").rename(tmp_path / "elsewhere"), bench, *words)
    made_again = (tmp_path / "out").exists()
    (tmp_path / "elsewhere").rename(tmp_path / "out")
    ended = await bench.run(*words)
    assert (stopped.code, made_again, 4 <= bought <= 8) == (ExitCode.FAILURE, False, True), stopped.stderr
    assert "once 'out' is where it was, go on with the batch" in stopped.stderr.splitlines()[-1]
    assert (ended.code, states_in(tmp_path / "out")) == (0, {"done": 9}), ended.stderr
    assert drawn(bench.sandbox) == dict.fromkeys(prompts, 1)


async def test_a_folder_that_cannot_be_put_back_is_told_of(tmp_path: Path, bench: Bench) -> None:
    """As where something else is in its place; the ids of what was bought stand in the log."""
    words = words_for(write_prompts(tmp_path, *(f"picture {number}" for number in range(9))), "--json")

    def replace() -> None:
        remove(tmp_path / "out")
        (tmp_path / "out").write_text("mine", "utf-8")

    stopped, bought = await stopped_by(replace, bench, *words)
    assert (stopped.code, bought < 9) == (ExitCode.FAILURE, True), stopped.stderr
    assert "error: 'out' was removed and cannot be put back: cannot hold 'out'" in stopped.stderr
    assert (tmp_path / "out").read_text("utf-8") == "mine"


@pytest.mark.skipif(sys.platform != "linux", reason="only there can the room of another process be taken")
async def test_a_full_disk_in_the_middle_stops_the_buying_and_the_next_run_completes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system itself refuses to let any file of the command grow; then there is room again."""
    for name in [name for name in os.environ if name.startswith(("COV_", "COVERAGE_"))]:
        monkeypatch.delenv(name)  # a command that is measured would complain that it cannot write that down
    prompts = [f"picture {number}" for number in range(9)]
    async with sandbox_for_commands(durations=60) as (sandbox, environment):
        words = words_for(write_prompts(tmp_path, *prompts), "--limit", "2")
        async with running(*words, folder=tmp_path, environment=environment) as process:
            async with asyncio.timeout(30):  # until both ids are on record: each is asked about only then
                while len({each.path for each in sandbox.requests if each.operation == "miragic.status"}) < 2:  # noqa: ASYNC110 - another process asks
                    await asyncio.sleep(0.01)
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (1024, resource.RLIM_INFINITY))
            for job_id in list(sandbox.jobs):
                sandbox.finish_job(job_id)
            stopped = await end(process)
        bought = sum(drawn(sandbox).values())
        sandbox.set_durations(0.02)
        ended = await command_here(*words, folder=tmp_path, environment=environment)
    told = stopped.stderr.splitlines()
    assert (stopped.code, bought) == (ExitCode.FAILURE, 2), stopped.stderr
    assert any(": the buying has stopped: " in line for line in told), told
    assert any("0 of 9 done, 2 unsaved, 7 not bought, " in line for line in told), told
    assert any(line.startswith("mirage-async: error: cannot write 'out/results.jsonl': ") for line in told), told
    assert "to go on with the batch, and buy nothing twice" in told[-1]
    assert (ended.code, states_in(tmp_path / "out")) == (0, {"done": 9}), ended.stderr
    assert drawn(sandbox) == dict.fromkeys(prompts, 1)


async def test_an_end_without_room_to_read_or_write_is_told_as_any_other(
    tmp_path: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What could not be written down is found in the journal by the next run."""
    real, asked = BatchFolder.entries, itertools.count(1)

    def entries(self: BatchFolder) -> list[Entry]:
        if next(asked) > 1:  # the plan was made with the first
            raise OSError(28, "No space left on device")
        return real(self)

    def finish(*_: object) -> list[Record]:
        raise CommandError("cannot write 'out/results.jsonl'", code=ExitCode.FAILURE)

    words = words_for(write_prompts(tmp_path, *PROMPTS[:2]))
    with monkeypatch.context() as patch:
        patch.setattr(BatchFolder, "entries", entries)
        patch.setattr(Manifest, "finish", finish)
        ended = await bench.run(*words)
    told = ended.stderr.splitlines()[-4:]
    again = await bench.run(*words)
    assert told[0].startswith("mirage-async: error: the journal cannot be read: [Errno 28] No space left on device")
    assert told[1:3] == [
        "mirage-async: 2 of 2 done, 2 credits spent by this run",
        "mirage-async: error: cannot write 'out/results.jsonl'",
    ]
    assert (ended.code, told[3].startswith("mirage-async: to go on with the batch")) == (ExitCode.FAILURE, True)
    assert (again.code, drawn(bench.sandbox)) == (0, dict.fromkeys(PROMPTS[:2], 1))
