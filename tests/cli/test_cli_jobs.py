"""`jobs`: what a journal knows, collecting what is owed, and settling what nobody knows."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
import signal
import time
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from command_line import Ended, command, command_here, end, names_in, sandbox_for_commands, start
from PIL import Image

from mirage_async import Mirage
from mirage_async.cli import run
from mirage_async.cli._exits import CommandError, ExitCode
from mirage_async.cli._jobs_records import advice, age, found, short_keys
from mirage_async.exceptions import JobFailedError, SubmissionUncertainError
from mirage_async.journal import Entry, EntryState, Journal, journal_entries
from mirage_async.sandbox import Fault

if TYPE_CHECKING:
    from pathlib import Path

    from mirage_async.sandbox import Sandbox

pytestmark = pytest.mark.anyio

_FAILED = {"success": True, "data": {"status": "failed", "errorMessage": "out of paint"}}


def hub_in(sandbox: Sandbox, folder: Path, **options: Any) -> Mirage:
    """Return a hub as a program has it that keeps a journal in a folder."""
    keys = dict.fromkeys(sandbox.base_urls, "sandbox")
    return Mirage(keys, base_urls=sandbox.base_urls, journal=Journal(folder / "journal"), **options)


async def bought(sandbox: Sandbox, folder: Path, *providers: str) -> list[str]:
    """Be a program that buys one picture from each and ends before it has any; return the keys."""
    async with hub_in(sandbox, folder) as hub:
        return [(await hub.submit("fox", provider=provider)).key for provider in providers]


async def left_uncertain(sandbox: Sandbox, folder: Path) -> str:
    """Be a program that does not learn whether its purchase was made; return the key."""
    sandbox.fail("miragic.create", Fault(reset=True, when="after"))
    async with hub_in(sandbox, folder) as hub:
        with pytest.raises(SubmissionUncertainError) as caught:
            await hub.submit("fox", provider="miragic")
    return caught.value.key or ""


def entry(folder: Path, key: str) -> Entry:
    """Return what the journal knows of a purchase."""
    (found,) = (each for each in journal_entries(folder / "journal") if each.key == key)
    return found


def words_for(text: str, folder: Path) -> tuple[str, ...]:
    """Return the words of a command of the group on the journal."""
    return ("jobs", *text.split(), "--journal", str(folder / "journal"))


async def test_what_is_owed_is_listed_shown_and_collected(tmp_path: Path) -> None:
    """A program ends with two jobs accepted; the command lists them, saves both, and then nothing is open."""
    async with sandbox_for_commands() as (sandbox, environment):
        keys = await bought(sandbox, tmp_path, "miragic", "mirako")
        (tmp_path / "out").mkdir()

        async def jobs(text: str) -> Ended:
            return await command_here(*words_for(text, tmp_path), folder=tmp_path / "out", environment=environment)

        listed, as_json, shown = await asyncio.gather(
            jobs("list"), jobs("list --json"), jobs(f"show {keys[0][:12].upper()}")
        )
        waited = await jobs("wait -o pictures --json")
        after, every, again = await asyncio.gather(jobs("list"), jobs("list --all"), jobs("wait"))
        creates = sum(request.method == "POST" for request in sandbox.requests)
    assert creates == 2
    rows = [line.split("\t") for line in listed.lines]
    assert [(row[0], row[1], row[2], row[3], row[6]) for row in rows] == [
        (keys[0], "miragic", "image", "accepted", "1"),
        (keys[1], "mirako", "image", "accepted", "1"),
    ]
    assert "2 purchases can be collected: mirage-async jobs wait --journal" in listed.stderr
    records = [json.loads(line) for line in as_json.lines]
    assert [(each["key"], each["state"], each["owed"]) for each in records] == [(key, "accepted", True) for key in keys]
    facts = dict(line.split(maxsplit=1) for line in shown.lines)
    assert (facts["key"], facts["state"], facts["id"]) == (keys[0], "accepted", records[0]["id"])
    assert waited.code == ExitCode.DONE, waited.stderr
    saved = [json.loads(line) for line in waited.lines]
    assert {each["key"] for each in saved} == set(keys)
    assert names_in(tmp_path / "out/pictures") == sorted(each["path"].partition("/")[2] for each in saved)
    assert (after.code, after.stdout, after.stderr) == (
        *(0, ""),
        "mirage-async: no purchase is open, 2 are over (--all lists them)\n",
    )
    assert len(every.lines) == 2
    assert (again.code, again.stderr) == (0, "mirage-async: nothing is owed\n")


async def test_a_damaged_file_hides_no_other_and_waiting_takes_over_what_is_left_of_it(tmp_path: Path) -> None:
    """Until then each look at the journal says so, and ends in a code that says that something is missing."""
    async with sandbox_for_commands() as (sandbox, environment):
        (key,) = await bought(sandbox, tmp_path, "miragic")
        noise = tmp_path / "journal" / "jobs-00000000.sqlite"
        other = "f" if key[0] != "f" else "0"

        async def jobs(text: str) -> Ended:
            noise.write_bytes(b"noise" * 1000)
            return await command_here(*words_for(text, tmp_path), folder=tmp_path, environment=environment)

        listed, shown, unknown = await jobs("list"), await jobs(f"show {key}"), await jobs(f"show {other}")
        waited = await jobs("wait -o out")
        over = await jobs("list")
        settled = await jobs(f"resolve {key} --give-up")
        after = await command_here(*words_for("list", tmp_path), folder=tmp_path, environment=environment)
        noted = await command_here(*words_for(f"show {key}", tmp_path), folder=tmp_path, environment=environment)
    for ended in (listed, shown, unknown, over):
        assert ended.code == ExitCode.FAILURE
        assert f"warning: {noise} cannot be read: file is not a database" in ended.stderr
        assert f"takes over what can be read of it: mirage-async jobs wait --journal {tmp_path}/journal" in ended.stderr
    assert [line.split("\t")[0] for line in listed.lines] == [key]
    assert f"key         {key}" in shown.lines
    assert f"no purchase with the key {other!r}" in unknown.stderr
    assert (waited.code, len(waited.lines)) == (0, 1)
    assert "no purchase is open of those that can be read, 1 are over" in over.stderr
    assert "only a purchase whose end is open" in settled.stderr
    assert (after.code, noted.code, noise.exists()) == (0, 0, False)


async def test_pictures_that_cannot_be_saved_stay_owed(tmp_path: Path) -> None:
    """A job counts as collected once its pictures are on the disk, and not before."""
    async with sandbox_for_commands() as (sandbox, environment):
        (key,) = await bought(sandbox, tmp_path, "miragic")
        sandbox.fail("miragic.download", Fault(status=404), times=None)
        here = {**environment, "TMPDIR": str(tmp_path)}
        failed = await command(*words_for("wait -o out", tmp_path), folder=tmp_path, environment=here)
    assert failed.code == ExitCode.FAILURE
    assert "error: " in failed.stderr
    assert entry(tmp_path, key).owed


async def test_a_failed_and_a_slow_job_end_in_their_own_codes(tmp_path: Path) -> None:
    """What failed is told and over; what is not ready stays owed; together they are a part of several."""
    async with sandbox_for_commands(durations=60) as (sandbox, environment):
        slow, failing = await bought(sandbox, tmp_path, "mirako", "miragic")
        for _ in range(3):
            sandbox.fail("miragic.status", Fault(status=200, body=_FAILED))

        async def wait(*keys: str) -> Ended:
            text = f"wait {' '.join(keys)} --max-wait 0.3"
            return await command_here(*words_for(text, tmp_path), folder=tmp_path, environment=environment)

        both = await wait()
        alone, over = await wait(slow[:12]), await wait(failing)
    assert both.code == ExitCode.PARTIAL
    assert "out of paint" in both.stderr
    again = f"mirage-async jobs wait --journal {tmp_path}/journal -o . {slow}"
    assert f"it stays owed; to go on waiting: {again}" in both.stderr
    assert "Python" not in both.stderr
    assert alone.code == ExitCode.TIMED_OUT
    assert entry(tmp_path, slow).owed
    assert (over.code, over.stderr) == (0, f"mirage-async: nothing is owed for {failing}: miragic image, failed\n")


async def test_an_uncertain_purchase_is_told_and_settled_with_the_id_that_was_found(tmp_path: Path) -> None:
    """Exit code 1 and the line that settles it; with the id from the dashboard the picture comes after all."""
    async with sandbox_for_commands() as (sandbox, environment):
        key = await left_uncertain(sandbox, tmp_path)

        async def jobs(text: str) -> Ended:
            return await command_here(*words_for(text, tmp_path), folder=tmp_path, environment=environment)

        listed, waited = await asyncio.gather(jobs("list"), jobs("wait"))
        (job_id,) = sandbox.jobs
        no_id = await jobs(f"resolve {key[:12]} --id ../x")
        settled = await jobs(f"resolve {key[:12]} --id {job_id}")
        collected = await jobs("wait -o out")
        creates = sum(request.method == "POST" for request in sandbox.requests)
    assert listed.lines[0].split("\t")[3] == "uncertain"
    assert "resolve --journal" in listed.stderr
    assert waited.code == ExitCode.FAILURE
    assert f"nobody knows whether the miragic image {key} was bought" in waited.stderr
    assert (no_id.code, "id must be 1 to 128 letters" in no_id.stderr) == (ExitCode.USAGE, True)
    assert (settled.code, settled.stdout) == (0, f"{key}\taccepted\n")
    assert "jobs wait" in settled.stderr
    assert (collected.code, creates, len(names_in(tmp_path / "out"))) == (0, 1, 1)


@pytest.mark.parametrize(("flag", "state"), [("--not-bought", "unpaid"), ("--give-up", "abandoned")])
async def test_an_uncertain_purchase_is_settled_by_a_word(flag: str, state: str, tmp_path: Path) -> None:
    """Either way it is open no more."""
    async with sandbox_for_commands() as (sandbox, _):
        key = await left_uncertain(sandbox, tmp_path)
    settled = await command_here(*words_for(f"resolve {key} {flag}", tmp_path), folder=tmp_path)
    listed = await command_here(*words_for("list", tmp_path), folder=tmp_path)
    assert (settled.code, settled.lines, settled.stderr) == (0, [f"{key}\t{state}"], "")
    assert (listed.stdout, listed.code) == ("", 0)


async def test_what_a_running_program_works_on_is_left_to_it(tmp_path: Path) -> None:
    """It is listed, but neither collected nor settled, and the program gets its picture."""
    async with sandbox_for_commands() as (sandbox, environment), hub_in(sandbox, tmp_path) as hub:
        job = await hub.submit("fox", provider="mirako")

        async def jobs(text: str) -> Ended:
            return await command_here(*words_for(text, tmp_path), folder=tmp_path, environment=environment)

        listed, waited, settled = await asyncio.gather(jobs("list"), jobs("wait"), jobs(f"resolve {job.key} --give-up"))
        assert (await job).images
    assert listed.lines[0].startswith(job.key)
    assert waited.code == ExitCode.FAILURE
    assert "1 more stay owed: another program still works on them" in waited.stderr
    assert settled.code == ExitCode.USAGE
    assert "goes on, and settles it itself; end that one first" in settled.stderr


async def test_avatars_and_finished_pictures_are_collected(tmp_path: Path) -> None:
    """An avatar is an id on stdout; pictures that were finished and taken by nobody are saved as others are."""
    portrait = io.BytesIO()
    Image.effect_noise((512, 512), 50).convert("RGB").save(portrait, format="PNG")
    async with sandbox_for_commands() as (sandbox, environment):
        async with hub_in(sandbox, tmp_path) as hub:
            build = await hub.mirako.build_avatar("Mira", portrait.getvalue())
            job = await hub.submit("fox", provider="mira", n=2)
            async for _ in job.updates():
                pass
        shown = await command_here(*words_for(f"show {job.key}", tmp_path), folder=tmp_path)
        ended = await command_here(*words_for("wait -o out --json", tmp_path), folder=tmp_path, environment=environment)
    assert "succeeded, not collected" in shown.stdout
    assert shown.stdout.count("\npicture  ") == 2
    assert ended.code == 0, ended.stderr
    assert any(json.loads(line).get("id") == build.id for line in ended.lines)
    assert len(names_in(tmp_path / "out")) == 2


async def test_what_a_program_was_sending_as_it_ended_is_uncertain_and_stays_its_own(tmp_path: Path) -> None:
    """The command tells of it and leaves it to the program, which hears of it when it asks."""
    async with sandbox_for_commands(durations=60) as (sandbox, environment):
        async with hub_in(sandbox, tmp_path) as hub:
            job = await hub.submit("fox", provider="mira")
            async with asyncio.timeout(30):
                while not sandbox.jobs:  # noqa: ASYNC110 - the request is on its way
                    await asyncio.sleep(0.02)

        async def jobs(text: str) -> Ended:
            return await command_here(*words_for(text, tmp_path), folder=tmp_path, environment=environment)

        before, waited, after = await jobs("list"), await jobs("wait"), await jobs("list")
        async with hub_in(sandbox, tmp_path) as hub:
            (owed,) = await hub.recover()
            with pytest.raises(SubmissionUncertainError):
                await owed
    assert before.lines[0].split("\t")[3] == "intended"
    assert "of 1 purchase no answer is on record" in before.stderr
    assert waited.code == ExitCode.FAILURE
    assert waited.stderr.count("may or may not have taken the image") == 1
    assert f"image {job.key}: nobody knows whether it was bought\n" in waited.stderr
    assert "nobody knows what became of 1 purchase; look at the provider's dashboard" in waited.stderr
    assert after.lines[0].split("\t")[3] == "uncertain"
    assert owed.key == job.key


async def test_an_interrupted_wait_says_how_to_go_on(tmp_path: Path) -> None:
    """Nothing is lost by it: the jobs stay owed."""
    async with sandbox_for_commands(durations=60) as (sandbox, environment):
        (key,) = await bought(sandbox, tmp_path, "miragic")
        asked = len(sandbox.requests)
        process = await start(*words_for("wait -o out", tmp_path), folder=tmp_path, environment=environment)
        async with asyncio.timeout(30):
            while len(sandbox.requests) == asked:  # noqa: ASYNC110 - another process asks
                await asyncio.sleep(0.02)
        process.send_signal(signal.SIGINT)
        ended = await end(process)
    assert ended.code == ExitCode.INTERRUPTED
    assert f"to go on: mirage-async jobs wait --journal {tmp_path}/journal -o out" in ended.stderr
    assert entry(tmp_path, key).owed


async def test_a_picture_that_was_saved_before_it_could_be_noted_is_not_saved_twice(tmp_path: Path) -> None:
    """An interruption may come between the two; the next run finds the file, and it is the picture."""
    async with sandbox_for_commands() as (sandbox, environment):
        (key,) = await bought(sandbox, tmp_path, "miragic")
        shutil.copytree(tmp_path / "journal", tmp_path / "before")
        collected = [await command_here(*words_for("wait -o out", tmp_path), folder=tmp_path, environment=environment)]
        shutil.rmtree(tmp_path / "journal")
        (tmp_path / "before").rename(tmp_path / "journal")
        assert entry(tmp_path, key).owed
        collected += [await command_here(*words_for("wait -o out", tmp_path), folder=tmp_path, environment=environment)]
    assert [ended.code for ended in collected] == [ExitCode.DONE] * 2
    assert collected[0].lines == collected[1].lines == [f"out/{name}" for name in names_in(tmp_path / "out")]
    assert not entry(tmp_path, key).owed


async def test_without_a_key_nothing_is_collected_and_the_code_says_why(tmp_path: Path) -> None:
    """The journal stays as it was."""
    async with sandbox_for_commands() as (sandbox, _):
        (key,) = await bought(sandbox, tmp_path, "miragic")
    ended = await command_here(*words_for("wait", tmp_path), folder=tmp_path)
    assert (ended.code, ended.stdout) == (ExitCode.AUTHENTICATION, "")
    assert "MIRAGIC_API_KEY" in ended.stderr
    assert entry(tmp_path, key).owed


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["list"], "which journal?"),
        (["show", "abc"], "which journal?"),
        (["list", "--journal", "nowhere"], "there is no journal in"),
        (["wait", "--journal", "nowhere"], "there is no journal in"),
        (["resolve", "abc", "--journal", "here"], "one of --id ID, --not-bought and --give-up"),
        (["resolve", "abc", "--journal", "here", "--id", "x", "--give-up"], "one of --id ID"),
        (["show", "", "--journal", "here"], "there is no purchase with the key ''"),
        (["show", "0" * 32, "--journal", "here"], "there is no purchase with the key"),
        (["resolve", "f", "--journal", "here", "--give-up"], "only a purchase whose end is open"),
    ],
)
async def test_what_cannot_be_done_is_one_line(
    words: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, and the reason."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MIRAGE_JOURNAL", raising=False)
    async with sandbox_for_commands() as (sandbox, _):
        keys = dict.fromkeys(sandbox.base_urls, "sandbox")
        async with Mirage(keys, base_urls=sandbox.base_urls, journal=Journal(tmp_path / "here")) as hub:
            await hub.generate("fox", provider="mira")
    (known,) = journal_entries(tmp_path / "here")
    words = [known.key if word == "f" else word for word in words]
    assert await asyncio.to_thread(run, ["jobs", *words]) == ExitCode.USAGE
    shown = capsys.readouterr()
    assert (shown.out, shown.err.count("\n")) == ("", 1)
    assert told in shown.err


async def test_the_environment_names_the_journal_and_a_terminal_gets_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Short keys that tell all apart, one row each, headings above, and nothing cut."""
    async with sandbox_for_commands() as (sandbox, _):
        keys = await bought(sandbox, tmp_path, "mirako", "miragic")
    uncertain_looking = [each.id or "" for each in journal_entries(tmp_path / "journal")]
    monkeypatch.setenv("MIRAGE_JOURNAL", str(tmp_path / "journal"))
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert run(["jobs", "list"]) == 0
    heading, *rows = capsys.readouterr().out.splitlines()
    assert heading.split() == ["KEY", "PROVIDER", "KIND", "STATE", "ID", "AGE", "ATTEMPTS"]
    shown = [row.split()[0] for row in rows]
    assert len(set(shown)) == len(keys)
    assert all(key.startswith(short) and len(short) >= 12 for key, short in zip(keys, shown, strict=True))
    assert all(any(job_id in row for row in rows) for job_id in uncertain_looking)
    assert run(["jobs"]) == 0
    assert "resolve" in capsys.readouterr().out


async def test_all_that_is_on_record_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Errors, credits and doubts; as JSON the very entry; a key must tell one from the others."""
    place = ["--journal", str(tmp_path / "journal")]
    async with sandbox_for_commands() as (sandbox, _):
        uncertain = await left_uncertain(sandbox, tmp_path)
        async with hub_in(sandbox, tmp_path) as hub:
            generation = await hub.generate("fox", provider="miragic")
            sandbox.fail("miragic.status", Fault(status=200, body=_FAILED))
            with pytest.raises(JobFailedError):
                await hub.generate("owl", provider="miragic")
    failed = next(each.key for each in journal_entries(tmp_path / "journal") if each.state == "failed")

    def shown(*words: str) -> str:
        assert run(["jobs", *words, *place]) == 0
        captured = capsys.readouterr()
        return captured.out + captured.err

    assert "credits     1" in shown("show", generation.key or "")
    assert "error       JobFailedError: " in shown("show", failed)
    doubtful = shown("show", uncertain)
    assert "state       uncertain" in doubtful
    assert "then settle it with: mirage-async jobs resolve" in doubtful
    assert json.loads(shown("show", failed, "--json"))["key"] == failed


def test_keys_are_as_long_as_it_takes_to_tell_them_apart() -> None:
    """At least twelve digits; a beginning that fits two is refused."""
    one, two, three = (_entry_like(key) for key in ("a" * 32, "a" * 13 + "b" * 19, "c" * 32))
    assert short_keys([one, three]) == {one.key: "a" * 12, three.key: "c" * 12}
    assert short_keys([one, two])[two.key] == "a" * 13 + "b"
    assert found([one, two], "A" * 14) is one
    with pytest.raises(CommandError, match="2 purchases have a key that begins with 'aaa'"):
        found([one, two], "aaa")


@pytest.mark.parametrize(
    ("seconds", "words"), [(5, "5 s"), (130, "2 min"), (7300, "2 h"), (200_000, "2 d"), (-9, "0 s")]
)
def test_an_age_is_in_its_largest_unit(seconds: float, words: str) -> None:
    """Also where a clock was set back."""
    assert age(msgspec.structs.replace(_entry_like("a" * 32), intended_at=time.time() - seconds - 0.1)) == words


def test_purchases_without_an_answer_are_told_of_as_what_they_may_be(tmp_path: Path) -> None:
    """On their way, or left by a program that has ended."""
    (line,) = advice(tmp_path, [_entry_like("a" * 32)])
    assert "of 1 purchase no answer is on record" in line


async def test_what_is_advised_names_the_very_folder(tmp_path: Path) -> None:
    """Whatever blanks its name has."""
    odd = tmp_path / "j  x"
    async with sandbox_for_commands() as (sandbox, environment):
        key = await left_uncertain(sandbox, odd)
        for text in ("list", f"show {key}", "wait"):
            told = await command_here(*words_for(text, odd), folder=tmp_path, environment=environment)
            assert f"--journal '{odd}/journal' KEY" in told.stderr, told.stderr


@pytest.mark.parametrize(
    ("blocking", "ways"),
    [
        ([True], "KEY (--not-bought | --give-up)"),
        ([False], "KEY (--id ID | --not-bought | --give-up)"),
        ([True, False], "KEY (--id ID | --not-bought | --give-up; what is answered with the pictures has no ID)"),
    ],
)
def test_an_id_is_asked_for_where_there_can_be_one(blocking: list[bool], ways: str, tmp_path: Path) -> None:
    """`resolve` refuses it for what is answered with the pictures."""
    found = [
        msgspec.structs.replace(_entry_like(str(number) * 32), state=EntryState.UNCERTAIN, blocking=each)
        for number, each in enumerate(blocking)
    ]
    (line,) = advice(tmp_path, found)
    assert line.endswith(ways)


def _entry_like(key: str) -> Entry:
    return Entry(
        key=key,
        provider="mira",
        account="a",
        kind="image",
        blocking=True,
        announced=False,
        model=None,
        requested=1,
        digest="d",
        label=None,
        id=None,
        attempts=1,
        doubtful=0,
        intended_at=0.0,
        deadline=0.0,
        updated_at=0.0,
        outcome=None,
        handed_over=False,
        state=EntryState.INTENDED,
    )


async def test_a_journal_that_cannot_be_read_is_no_matter_of_usage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1: the folder is a journal, and its file is not."""
    (tmp_path / "jobs-00000000.sqlite").write_bytes(b"no database" * 100)
    assert run(["jobs", "list", "--journal", str(tmp_path)]) == ExitCode.FAILURE
    assert "cannot be read" in capsys.readouterr().err
