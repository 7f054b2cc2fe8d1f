"""`batch` from a file of lines to a folder of pictures, and what a second run makes of it."""

from __future__ import annotations

import asyncio
import io
import json
import shlex
import signal
from typing import TYPE_CHECKING, Any

import pytest
from batches import PROMPTS, Bench, bench, drawn, pictures_in, records_in, running, states_in, write_prompts
from command_line import PROMPTLY, Ended, command, command_here, end, sandbox_for_commands
from PIL import Image

from mirage_async.cli._batch.manifest import Manifest
from mirage_async.cli._exits import ExitCode
from mirage_async.sandbox import Fault

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mirage_async.cli._batch.record import Record
    from mirage_async.sandbox import Sandbox

__all__ = ["bench"]

pytestmark = pytest.mark.anyio

_FIELDS = {
    *("line", "part", "parts", "key", "provider", "model", "prompt", "state", "files", "requested", "width", "height"),
    *("credits", "job_id", "seconds", "error", "billed"),
}
FAILED = {"success": True, "data": {"status": "failed", "errorMessage": "out of paint"}}


def words_for(file: str, *more: str, provider: str = "miragic") -> tuple[str, ...]:
    """Return the words of a command that works in the folder "out"."""
    return ("batch", file, "-o", "out", "--provider", provider, *more)


async def until_seen(sandbox: Sandbox, operation: str, count: int) -> None:
    """Wait until the sandbox has seen so many requests of an operation."""
    async with asyncio.timeout(30):
        while sandbox.statistics().requests.get(operation, 0) < count:  # noqa: ASYNC110 - another process asks
            await asyncio.sleep(0.01)


async def until_open(sandbox: Sandbox, process: asyncio.subprocess.Process) -> list[str]:
    """Return the ids of open jobs as soon as there are any, or an empty list once the command has ended."""
    async with asyncio.timeout(30):
        while process.returncode is None:
            found = [job_id for job_id, job in sandbox.jobs.items() if job.status not in {"COMPLETED", "FAILED"}]
            if found:
                return found
            await asyncio.sleep(0.05)
    return []


def paths_on(ended: Ended) -> list[str]:
    """Return the names that were printed, in order of the lines."""
    return sorted(line.removeprefix("out/") for line in ended.lines)


async def test_each_line_becomes_a_picture_and_a_record_and_a_second_run_buys_nothing(
    tmp_path: Path, bench: Bench
) -> None:
    """Names tell the line; the manifest has all in order; the page shows them; twins are two pictures."""
    prompts = ("# a comment", *PROMPTS, "", PROMPTS[0])
    sandbox = bench.sandbox
    words = words_for(write_prompts(tmp_path, *prompts))
    first = await bench.run(*words)
    asked = len(sandbox.requests)
    again = await bench.run(*words)
    assert len(sandbox.requests) == asked
    out, records = tmp_path / "out", records_in(tmp_path / "out")
    assert (first.code, again.code, again.stdout) == (0, 0, ""), first.stderr
    assert paths_on(first) == pictures_in(out)
    assert [record["line"] for record in records] == [2, 3, 4, 5, 6, 8]
    assert [record["files"] for record in records] == [[name] for name in pictures_in(out)]
    assert all(
        name.startswith(f"{record['line']:04d}-{record['key'][:8]}") for record in records for name in record["files"]
    )
    assert all(set(record) == _FIELDS and record["state"] == "done" for record in records)
    assert all((record["billed"], record["width"], record["credits"]) == ("yes", 1024, 1.0) for record in records)
    assert drawn(sandbox)[PROMPTS[0]] == 2
    page = (out / "index.html").read_text("utf-8")
    assert page.count("<img ") == 6
    assert "6 of 6 done, 6 credits spent by this run; out/index.html shows them" in first.stderr
    assert "going on with 'out': 6 of 6 are done" in again.stderr


async def test_json_lines_and_tables_say_all_a_request_can_say(tmp_path: Path, bench: Bench) -> None:
    """Fields of a line win over the options of the command; references are relative to the file."""
    lines = tmp_path / "lines"
    lines.mkdir()
    buffer = io.BytesIO()
    Image.new("RGB", (32, 16), "teal").save(buffer, format="PNG")
    (lines / "ref.png").write_bytes(buffer.getvalue())
    rows: list[dict[str, Any]] = [
        {"prompt": "fox", "provider": "mirako", "aspect_ratio": "1:1", "seed": 7, "references": ["ref.png"]},
        {"prompt": "owl", "provider": "mira", "n": 2, "options": {"quality": "high"}, "aspect_ratio": "1:1"},
        {"prompt": "elk", "model": "turbo", "size": "320x256"},
    ]
    (lines / "a.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    table = 'prompt,provider,n,options.quality,references\n"a\nb",mira,2,low,\n"c, d",mirako,,,ref.png\n'
    (lines / "b.csv").write_text(table, encoding="utf-8")
    (lines / "c.txt").write_text("ibex\n", encoding="utf-8")

    async def batch(file: str, *more: str) -> Ended:
        return await bench.run("batch", f"lines/{file}", "-o", file[0], *more)

    by_lines = await batch("a.jsonl", "--provider", "miragic", "--aspect-ratio", "16:9", "--json")
    by_table = await batch("b.csv")
    referred = await batch("c.txt", "--provider", "mirako", "--reference", "lines/ref.png")
    sent = {each.fields["prompt"]: each.fields for each in bench.sandbox.requests if each.method == "POST"}
    assert (by_lines.code, by_table.code, referred.code) == (0, 0, 0), by_lines.stderr + by_table.stderr
    assert set(sent) == {"fox", "owl", "elk", "a\nb", "c, d", "ibex"}
    assert (sent["fox"]["seed"], len(sent["fox"]["images"]), sent["fox"]["aspect_ratio"]) == (7, 1, "1:1")
    assert (sent["owl"]["quality"], sent["owl"]["n"], sent["a\nb"]["quality"]) == ("high", 2, "low")
    assert (sent["elk"]["model"], sent["elk"]["width"], sent["elk"]["height"]) == ("turbo", "320", "256")
    assert len(sent["c, d"]["images"]) == len(sent["ibex"]["images"]) == 1
    printed = [json.loads(line) for line in by_lines.lines]
    assert sorted(printed, key=lambda each: each["line"]) == records_in(tmp_path / "a")
    assert len(pictures_in(tmp_path / "a")) == 4
    assert [record["line"] for record in records_in(tmp_path / "b")] == [2, 4]


async def test_stdin_is_text_or_json_lines(tmp_path: Path) -> None:
    """A brace at the beginning tells."""
    async with sandbox_for_commands() as (sandbox, environment):
        text, lines = await asyncio.gather(
            command(*words_for("-"), folder=tmp_path, stdin=b"fox\nowl\n", environment=environment),
            command_here(
                *("batch", "-", "-o", "json", "--provider", "miragic"),
                folder=tmp_path,
                stdin=b'{"prompt": "elk"}\n',
                environment=environment,
            ),
        )
    assert (text.code, lines.code) == (0, 0)
    assert dict(drawn(sandbox)) == {"fox": 1, "owl": 1, "elk": 1}


async def test_every_line_is_checked_before_anything_is_bought(tmp_path: Path, bench: Bench) -> None:
    """Each is told with its number, up to twenty; the exit code is 2 and no folder is made."""
    rows = [
        *('{"prompt": "fox", "n": "two"}', "no json", '{"prompt": "fox", "colour": "red"}', '{"n": 1}'),
        *(
            '{"prompt": "fox", "references": ["gone.png"]}',
            '{"prompt": "fox", "provider": "mirako", "aspect_ratio": "5:1"}',
        ),
        *('{"prompt": " "}', '{"prompt": "fox", "provider": "nobody"}', '{"prompt": "fox", "size": "1x1"}'),
        '{"prompt": "fox", "provider": "mirako", "n": 2, "seed": 3}',
    ]
    (tmp_path / "bad.jsonl").write_text("\n".join([*rows, '{"prompt": "fine"}']), encoding="utf-8")
    (tmp_path / "worse.jsonl").write_text("".join(f'{{"prompt": "a", "x{number}": 1}}\n' for number in range(30)))
    bad, worse = await bench.run(*words_for("bad.jsonl")), await bench.run(*words_for("worse.jsonl"))
    assert len(bench.sandbox.requests) == 0
    told = bad.stderr.splitlines()
    assert (bad.code, bad.stdout, worse.code) == (ExitCode.USAGE, "", ExitCode.USAGE)
    assert [line.split(":")[1].strip() for line in told] == [*(f"line {number}" for number in range(1, 11)), "error"]
    assert "unknown field 'colour'" in told[2]
    assert "cannot read 'gone.png'" in told[4]
    assert "nearest" in told[5]
    assert told[-1].endswith("10 lines of 'bad.jsonl' cannot be bought: nothing was sent")
    assert worse.stderr.count("\n") == 21
    assert "30 lines of 'worse.jsonl' cannot be bought (there are 30 reasons, 20 are told)" in worse.stderr
    assert not (tmp_path / "out").exists()


async def test_lines_may_be_moved_and_added_and_a_changed_one_is_bought_anew(tmp_path: Path, bench: Bench) -> None:
    """What is there keeps its name; what no line asks for any more stays, and stays on record."""
    sandbox = bench.sandbox
    words = words_for(write_prompts(tmp_path, "fox", "owl", "elk"))
    await bench.run(*words)
    before = pictures_in(tmp_path / "out")
    write_prompts(tmp_path, "an added one", "elk", "a changed owl", "fox")
    ended = await bench.run(*words)
    after = {record["prompt"]: record for record in records_in(tmp_path / "out")}
    assert ended.code == 0, ended.stderr
    assert set(drawn(sandbox).values()) == {1}
    assert len(drawn(sandbox)) == 5
    assert set(before) < set(pictures_in(tmp_path / "out"))
    assert [record["line"] for record in after.values()] == [1, 2, 3, 4, None]
    assert after["elk"]["files"][0].startswith("0003-")
    assert after["owl"]["line"] is None


async def test_a_picture_that_was_removed_comes_back_without_being_bought(tmp_path: Path, bench: Bench) -> None:
    """The journal knows its job, and the provider still has it."""
    sandbox = bench.sandbox
    words = words_for(write_prompts(tmp_path, "fox", "owl"))
    await bench.run(*words)
    (gone, _) = pictures_in(tmp_path / "out")
    (tmp_path / "out" / gone).unlink()
    with (tmp_path / "out/results.jsonl").open("a") as manifest:
        manifest.write('{"line": 1, "key": "tor')
    ended = await bench.run(*words)
    assert sum(drawn(sandbox).values()) == 2
    assert (ended.code, ended.lines) == (0, [f"out/{gone}"])
    assert len(pictures_in(tmp_path / "out")) == 2
    assert states_in(tmp_path / "out") == {"done": 2}


async def test_more_pictures_than_a_provider_takes_at_once_are_several_requests(tmp_path: Path, bench: Bench) -> None:
    """Each part has a record of its own, and all files are listed."""
    sandbox = bench.sandbox
    words = words_for(write_prompts(tmp_path, "fox"), "-n", "6", provider="mira")
    ended = await bench.run(*words)
    again = await bench.run(*words)
    records = records_in(tmp_path / "out")
    assert (ended.code, again.code) == (0, 0), ended.stderr
    assert [(record["part"], record["parts"], record["requested"]) for record in records] == [(1, 2, 4), (2, 2, 2)]
    assert sorted(name for record in records for name in record["files"]) == pictures_in(tmp_path / "out")
    assert len(pictures_in(tmp_path / "out")) == 6
    assert drawn(sandbox) == {"fox": 2}


async def test_failures_in_the_middle_cost_the_others_nothing(tmp_path: Path, bench: Bench) -> None:
    """Refused is bought again by the next run, failed only where that is asked for, uncertain never."""
    prompts = [f"picture {number}" for number in range(8)]
    sandbox = bench.sandbox
    sandbox.fail("miragic.create", Fault(status=422), prompt="picture 2")
    sandbox.fail("miragic.create", Fault(reset=True, when="after"), prompt="picture 3")
    sandbox.fail("miragic.status", Fault(status=200, body=FAILED), prompt="picture 5")
    words = words_for(write_prompts(tmp_path, *prompts), "-q")
    first = await bench.run(*words)
    states = {record["prompt"]: (record["state"], record["billed"]) for record in records_in(tmp_path / "out")}
    second = await bench.run(*words)
    third = await bench.run(*words, "--retry-failed")
    bought = drawn(sandbox)
    assert [first.code, second.code, third.code] == [ExitCode.PARTIAL] * 3
    assert states["picture 2"] == ("refused", "no")
    assert states["picture 3"] == ("uncertain", "unknown")
    assert states["picture 5"][0] == "failed"
    assert "line 6: failed: " in first.stderr
    assert "jobs resolve --journal out/.mirage/journal" in first.stderr
    assert (len(first.lines), len(second.lines), len(third.lines)) == (5, 1, 1)
    assert states_in(tmp_path / "out") == {"done": 7, "uncertain": 1}
    assert bought == {**dict.fromkeys(prompts, 1), "picture 5": 2}


async def test_an_uncertain_purchase_can_be_settled_in_all_three_ways(tmp_path: Path, bench: Bench) -> None:
    """With its id it is collected, as not bought it is bought, and given up it stays away."""
    sandbox = bench.sandbox
    for prompt in ("fox", "owl", "elk"):
        sandbox.fail("miragic.create", Fault(reset=True, when="after"), prompt=prompt)
    words = words_for(write_prompts(tmp_path, "fox", "owl", "elk"))
    first = await bench.run(*words)
    keys = [record["key"] for record in records_in(tmp_path / "out")]
    ids = {job.prompt: job_id for job_id, job in sandbox.jobs.items()}
    for key, word in zip(keys, (f"--id={ids['fox']}", "--not-bought", "--give-up"), strict=True):
        resolve = ("jobs", "resolve", key, word, "--journal", "out/.mirage/journal")
        assert (await bench.run(*resolve)).code == 0
    second = await bench.run(*words)
    bought = drawn(sandbox)
    assert first.code == ExitCode.FAILURE
    assert second.code == ExitCode.PARTIAL, second.stderr
    assert [record["state"] for record in records_in(tmp_path / "out")] == ["done", "done", "failed"]
    assert bought == {"fox": 1, "owl": 2, "elk": 1}


async def test_two_commands_on_one_folder_refuse_each_other(tmp_path: Path) -> None:
    """The second says who is at work, and buys nothing; so does a journal that another program has in hand."""
    async with sandbox_for_commands(durations=60) as (sandbox, environment):
        words = words_for(write_prompts(tmp_path, "fox"))
        async with running(*words, folder=tmp_path, environment=environment):
            await until_seen(sandbox, "miragic.status", 1)
            second = await command(*words, folder=tmp_path, environment=environment)
        asked = sandbox.statistics().requests["miragic.status"]
        wait = ("jobs", "wait", "--journal", "out/.mirage/journal", "-o", "elsewhere")
        async with running(*wait, folder=tmp_path, environment=environment):
            await until_seen(sandbox, "miragic.status", asked + 1)
            third = await command_here(*words, folder=tmp_path, environment=environment)
        assert sum(drawn(sandbox).values()) == 1
    assert second.code == third.code == ExitCode.USAGE
    assert "another command (process " in second.stderr
    assert "another program works with" in third.stderr


async def test_one_interruption_stops_the_buying_and_brings_home_what_is_in_flight(tmp_path: Path) -> None:
    """Nothing more is bought, what was is saved, and the line that goes on is told."""
    async with sandbox_for_commands(durations=0.6) as (sandbox, environment):
        words = words_for(write_prompts(tmp_path, *(f"picture {number}" for number in range(12))), "--limit", "3")
        async with running(*words, folder=tmp_path, environment=environment) as process:
            await until_seen(sandbox, "miragic.status", 2)
            process.send_signal(signal.SIGINT)
            ended = await end(process)
        bought = sum(drawn(sandbox).values())
        rest = await command_here(*words, folder=tmp_path, environment=environment)
        assert set(drawn(sandbox).values()) == {1}
    assert ended.code == ExitCode.INTERRUPTED
    assert (len(ended.lines), bought < 12) == (bought, True)
    assert "nothing more is bought; 3 in flight are finished first" in ended.stderr
    assert f"buy nothing twice: mirage-async {' '.join(words)}" in ended.stderr
    assert (rest.code, len(rest.lines)) == (0, 12 - bought)


async def test_the_line_that_goes_on_buys_nothing_twice_in_a_folder_with_two_blanks(tmp_path: Path) -> None:
    """It is run as it was printed."""
    async with sandbox_for_commands(durations=0.4) as (sandbox, environment):
        file = write_prompts(tmp_path, *(f"picture {number}" for number in range(6)), name="my  prompts.txt")
        words = ("batch", file, "-o", "My  Photos", "--provider", "miragic", "--limit", "2")
        async with running(*words, folder=tmp_path, environment=environment) as process:
            await until_seen(sandbox, "miragic.status", 2)
            process.send_signal(signal.SIGINT)
            ended = await end(process)
        printed = shlex.split(ended.stderr.splitlines()[-1].partition("buy nothing twice: ")[2])
        rest = await command_here(*printed[1:], folder=tmp_path, environment=environment)
        assert drawn(sandbox) == {f"picture {number}": 1 for number in range(6)}
    assert (ended.code, rest.code) == (ExitCode.INTERRUPTED, 0), rest.stderr
    assert len(pictures_in(tmp_path / "My  Photos")) == 6
    assert "going on with 'My  Photos': " in rest.stderr
    assert "; My  Photos/index.html shows them" in rest.stderr


@pytest.fixture
def every_signal_is_heard() -> Iterator[None]:
    """Have commands hear of signals that are ignored here, as under nohup; what has a handler they hear of."""
    ignored = [number for number in (signal.SIGINT, signal.SIGHUP) if signal.getsignal(number) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, lambda *_: None)
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


@pytest.mark.usefixtures("every_signal_is_heard")
@pytest.mark.parametrize(
    "signals",
    [(signal.SIGINT, signal.SIGINT), (signal.SIGTERM,), (signal.SIGHUP,)],
    ids=["twice", "politely", "hung-up"],
)
async def test_two_interruptions_or_a_polite_end_leave_at_once(
    signals: tuple[signal.Signals, ...], tmp_path: Path
) -> None:
    """Nobody's job is waited for; what is in flight is pending in the manifest, and the next run collects it."""
    async with sandbox_for_commands(durations=60) as (sandbox, environment):
        words = words_for(write_prompts(tmp_path, "fox", "owl", "elk"), "--limit", "2")
        async with running(*words, folder=tmp_path, environment=environment) as process:
            await until_seen(sandbox, "miragic.status", 2)
            for number in signals:
                process.send_signal(number)
                await asyncio.sleep(0.3)
            async with asyncio.timeout(PROMPTLY):
                ended = await end(process)
        states = states_in(tmp_path / "out")
        async with running(*words, folder=tmp_path, environment=environment) as process:
            while process.returncode is None:
                for job_id in await until_open(sandbox, process):
                    sandbox.finish_job(job_id)
            rest = await end(process)
        assert set(drawn(sandbox).values()) == {1}
    assert ended.code == ExitCode.INTERRUPTED
    assert states == {"pending": 2, "unbought": 1}
    assert f"buy nothing twice: mirage-async {' '.join(words)}" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert (rest.code, len(pictures_in(tmp_path / "out"))) == (0, 3)


async def test_what_is_cut_off_for_good_is_not_called_collectable(tmp_path: Path) -> None:
    """Mira answers with the picture: nobody can come back for it, and no id settles it; a job of Miragic stays owed."""
    lines = [{"prompt": "fox"}, {"prompt": "owl"}, {"prompt": "elk", "provider": "miragic"}]
    (tmp_path / "a.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines), "utf-8")
    words = words_for("a.jsonl", provider="mira")
    async with (
        sandbox_for_commands(durations=60) as (sandbox, environment),
        running(*words, folder=tmp_path, environment=environment) as process,
    ):
        await until_seen(sandbox, "mira.generate", 2)
        await until_seen(sandbox, "miragic.status", 1)
        process.send_signal(signal.SIGTERM)
        ended = await end(process)
    assert states_in(tmp_path / "out") == {"uncertain": 2, "pending": 1}
    assert (
        "ending at once; 1 in flight stay owed, and the next run collects them; 2 are cut off and become uncertain: "
    ) in ended.stderr
    assert ended.stderr.count(" (--not-bought | --give-up)") == 2
    assert "--id" not in ended.stderr


async def test_an_embedded_sandbox_needs_no_key_and_its_folder_is_not_taken_for_a_real_one(tmp_path: Path) -> None:
    """What it has drawn is not drawn again; without it the folder is refused, and so is the other way round."""
    words = words_for(write_prompts(tmp_path, "fox"), "--sandbox", provider="mira")
    first = await command_here(*words, folder=tmp_path)
    write_prompts(tmp_path, "fox", "owl")
    second = await command_here(*words, folder=tmp_path)
    third = await command_here(
        *words_for("prompts.txt", provider="mira"), folder=tmp_path, environment={"MIRA_API_KEY": "k"}
    )
    assert (first.code, second.code, third.code) == (0, 0, ExitCode.USAGE), second.stderr
    assert (len(first.lines), len(second.lines)) == (1, 1)
    assert "holds a sandbox's pictures" in third.stderr


async def test_where_all_fails_alike_the_code_says_how(tmp_path: Path) -> None:
    """A key that is refused ends in 4, and no key at all does before anything is sent."""
    async with sandbox_for_commands() as (sandbox, environment):
        sandbox.fail("miragic.create", Fault(status=401), times=None)
        words = words_for(write_prompts(tmp_path, "fox", "owl"))
        refused = await command_here(*words, folder=tmp_path, environment=environment)
    no_key = await command_here(*words, folder=tmp_path)
    assert (refused.code, no_key.code) == (ExitCode.AUTHENTICATION, ExitCode.AUTHENTICATION)
    assert states_in(tmp_path / "out") == {"refused": 2}


async def test_a_picture_that_cannot_be_saved_stops_the_buying_and_is_not_lost(tmp_path: Path, bench: Bench) -> None:
    """Once the disk takes it, the next run has it without buying."""
    words = words_for(write_prompts(tmp_path, "fox", "owl", "elk"), "--limit", "1")
    nothing = await bench.run(*words, "--budget", "0")
    key = records_in(tmp_path / "out")[0]["key"]
    in_the_way = tmp_path / f"out/0001-{key[:8]}.jpg/folder"
    in_the_way.mkdir(parents=True)
    stopped = await bench.run(*words)
    bought = sum(drawn(bench.sandbox).values())
    states = states_in(tmp_path / "out")
    in_the_way.rmdir()
    in_the_way.parent.rmdir()
    ended = await bench.run(*words)
    assert (nothing.code, nothing.stdout) == (ExitCode.PARTIAL, "")
    assert stopped.code == ExitCode.PARTIAL
    assert "line 1: unsaved: the picture cannot be saved: " in stopped.stderr
    assert "the buying has stopped: the picture cannot be saved" in stopped.stderr
    assert (bought < 3, states["unsaved"]) == (True, 1)
    assert (ended.code, len(pictures_in(tmp_path / "out"))) == (0, 3), ended.stderr
    assert drawn(bench.sandbox) == {"fox": 1, "owl": 1, "elk": 1}


async def test_a_download_that_fails_is_tried_by_the_next_run(tmp_path: Path, bench: Bench) -> None:
    """The job is paid for: nothing is bought again."""
    words = words_for(write_prompts(tmp_path, "fox"))
    bench.sandbox.fail("miragic.download", Fault(status=404), times=None)
    failed = await bench.run(*words)
    states = states_in(tmp_path / "out")
    bench.sandbox.clear_faults()
    ended = await bench.run(*words)
    assert (failed.code, states) == (ExitCode.FAILURE, {"unsaved": 1})
    assert (ended.code, states_in(tmp_path / "out")) == (0, {"done": 1})
    assert drawn(bench.sandbox) == {"fox": 1}


async def test_a_job_that_takes_too_long_is_pending_until_it_is_done(tmp_path: Path, bench: Bench) -> None:
    """Exit code 6, and the next run goes on waiting."""
    bench.sandbox.set_durations(60)
    words = words_for(write_prompts(tmp_path, "fox"))
    waited = await bench.run(*words, "--max-wait", "0.3")
    states = states_in(tmp_path / "out")
    for job_id in bench.sandbox.jobs:
        bench.sandbox.finish_job(job_id)
    ended = await bench.run(*words)
    assert (waited.code, states) == (ExitCode.TIMED_OUT, {"pending": 1})
    assert "1 was bought and is collected" in ended.stderr
    assert (ended.code, drawn(bench.sandbox)) == (0, {"fox": 1})


async def test_nobody_reading_stdout_stops_the_buying(tmp_path: Path) -> None:
    """Whoever has left wants no more of it; what was bought is in the folder."""
    async with sandbox_for_commands(durations=0.3) as (sandbox, environment):
        words = words_for(write_prompts(tmp_path, *(f"picture {number}" for number in range(20))), "--limit", "2")
        async with running(*words, folder=tmp_path, environment=environment) as process:
            assert process.stdout is not None
            process.stdout._transport.close()  # type: ignore[attr-defined]
            ended = await end(process)
        bought = sum(drawn(sandbox).values())
    assert bought < 20
    assert "the buying has stopped: nobody reads stdout any more" in ended.stderr
    assert "to go on with the batch" in ended.stderr
    assert states_in(tmp_path / "out") == {"done": bought, "unbought": 20 - bought}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--limit", "0"], "--limit must be at least 1; got 0"),
        (["--budget", "lots"], "--budget must look like"),
        (["--format", "xml"], "--format must be one of"),
        (["--price", "2", "--budget", "3"], "--price is for a --budget of credits"),
        (["--price", "-1", "--budget", "3 credits"], "must be a number from 0 up; got '-1'"),
        (["--price", "dear", "--budget", "3 credits"], "must be a number from 0 up; got 'dear'"),
    ],
)
async def test_options_out_of_range_are_one_line(words: list[str], told: str, tmp_path: Path, bench: Bench) -> None:
    """As everywhere: exit code 2, and nothing has begun."""
    ended = await bench.run(*words_for(write_prompts(tmp_path, "fox")), *words)
    assert (ended.code, ended.stdout, ended.stderr.count("\n")) == (ExitCode.USAGE, "", 1)
    assert told in ended.stderr
    empty = await bench.run(*words_for(write_prompts(tmp_path, "# nothing")))
    assert "1 comment line skipped" in empty.stderr
    assert "asks for nothing" in empty.stderr


async def test_many_problems_are_told_in_part_and_a_removed_line_of_a_paid_job_is_told_of(
    tmp_path: Path, bench: Bench
) -> None:
    """Twenty are enough for a screen; the manifest and the journal have all."""
    prompts = [f"picture {number}" for number in range(22)]
    bench.sandbox.fail("miragic.create", Fault(reset=True, when="after"), times=None)
    unsure = await bench.run(*words_for(write_prompts(tmp_path, *prompts)))
    bench.sandbox.clear_faults()
    bench.sandbox.set_durations(60)
    words = words_for(write_prompts(tmp_path, "an owl"), "--max-wait", "0.2")
    pending = await bench.run(*words)
    write_prompts(tmp_path, "a fox")
    moved_on = await bench.run(*words)
    assert unsure.code == ExitCode.FAILURE
    assert unsure.stderr.count(": uncertain: ") == 2
    assert "lines 1-22: uncertain: miragic may or may not have taken the job" in unsure.stderr
    assert unsure.stderr.count("jobs resolve --journal") == 20
    assert "all of them: mirage-async jobs list --journal out/.mirage/journal" in unsure.stderr
    assert pending.code == ExitCode.TIMED_OUT
    assert "lives on\n" in pending.stderr
    assert "1 purchase of earlier runs belongs to no line any more" in moved_on.stderr
    assert {record["state"] for record in records_in(tmp_path / "out")} == {"pending", "uncertain"}


async def test_a_manifest_that_cannot_be_written_stops_the_buying(
    tmp_path: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is under way comes home all the same, and the end has it on record."""

    def full(self: Manifest, record: Record) -> None:
        self.records[record.key] = record
        raise OSError(28, "No space left on device")

    words = words_for(write_prompts(tmp_path, *PROMPTS), "--limit", "1")
    with monkeypatch.context() as patch:
        patch.setattr(Manifest, "add", full)
        stopped = await bench.run(*words)
    bought = sum(drawn(bench.sandbox).values())
    ended = await bench.run(*words)
    assert (stopped.code, bought < len(PROMPTS)) == (ExitCode.PARTIAL, True)
    assert "the buying has stopped: the manifest cannot be written: No space left on device" in stopped.stderr
    assert (ended.code, drawn(bench.sandbox)) == (0, dict.fromkeys(PROMPTS, 1))


@pytest.mark.parametrize(
    ("file", "content", "told"),
    [
        ("a.csv", "prompt,colour\nfox,red\n", "line 1: unknown columns 'colour'; known are prompt, "),
        ("a.csv", "prompt,options.colour\nowl,\nfox,red\n", "line 3: options must be among 'webhook' at mirako; got "),
        ("a.jsonl", '{"prompt": "fox", "colour": "red"}', "line 1: the request contains unknown field 'colour'; known"),
        ("a.jsonl", '\n{"prompt": "fox", "key": "x"}', "line 2: the request contains unknown field 'key'; known are"),
        ("a.jsonl", '{"prompt": "fox", "options": {"x": 1}}', "line 1: options must be among 'webhook' at mirako; got"),
        ("a.jsonl", '{"prompt": "fox", "options": {"resend_uncertain": true}}', "line 1: options must not have "),
        ("a.csv", "prompt,options.resend_uncertain\nfox,true\n", "line 2: options must not have 'resend_uncertain'"),
    ],
)
async def test_what_no_line_may_say_is_refused_before_anything_is_bought(
    file: str, content: str, told: str, tmp_path: Path, bench: Bench
) -> None:
    """Above all what would send a doubtful purchase again: a batch buys nothing twice."""
    (tmp_path / file).write_text(content, "utf-8")
    ended = await bench.run(*words_for(file, provider="mirako"))
    assert (ended.code, len(bench.sandbox.requests)) == (ExitCode.USAGE, 0), ended.stderr
    first, last = ended.stderr.splitlines()
    assert first.startswith(f"mirage-async: {told}")
    assert last.endswith(f"1 line of '{file}' cannot be bought: nothing was sent")


async def test_no_option_of_the_command_sends_again_what_is_uncertain(tmp_path: Path, bench: Bench) -> None:
    """It would for all lines."""
    words = words_for(write_prompts(tmp_path, "fox", "owl"), "--option", "resend_uncertain=true")
    ended = await bench.run(*words)
    assert (ended.code, len(bench.sandbox.requests)) == (ExitCode.USAGE, 0)
    assert "lines 1-2: options must not have 'resend_uncertain' in a batch" in ended.stderr
