"""What `batch` says: the same thing once, numbers in sentences, and nothing that only helps in Python."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
from batches import PROMPTS, Bench, bench, drawn, pictures_in, records_in, states_in, write_prompts
from test_cli_batch import FAILED, words_for
from test_cli_batch_parts import entry, purchase_of, record

from mirage_async.cli import _lines, batch
from mirage_async.cli._batch.folder import Batch as Known
from mirage_async.cli._batch.folder import BatchFolder
from mirage_async.cli._batch.plan import BOUGHT_ALL_THE_SAME, Task, plan_for
from mirage_async.cli._batch.report import tell_uncertain
from mirage_async.cli._batch.troubles import Troubles, lines_in_words
from mirage_async.cli._exits import ExitCode
from mirage_async.journal import EntryState, StoredError, StoredOutcome
from mirage_async.models import ImageRequest
from mirage_async.sandbox import Fault

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["bench"]

pytestmark = pytest.mark.anyio


async def test_an_account_that_is_refused_is_asked_once_and_told_once(tmp_path: Path, bench: Bench) -> None:
    """Nothing more is sent to it, and the lines are told together."""
    bench.sandbox.fail("miragic.create", Fault(status=401), times=None)
    words = words_for(write_prompts(tmp_path, *(f"picture {number}" for number in range(60))), "--limit", "3")
    ended = await bench.run(*words)
    assert ended.code == ExitCode.AUTHENTICATION
    assert bench.sandbox.statistics().requests["miragic.create"] <= 3
    assert states_in(tmp_path / "out") == {"refused": 60}
    told = [line for line in ended.stderr.splitlines() if ": refused: " in line]
    assert len(told) == 2, told
    assert "lines 1-60: refused: " in told[1]


async def test_where_nobody_is_reached_the_buying_stops(
    tmp_path: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a few requests in a row; nothing was bought, and the command that goes on is told."""
    words = words_for(write_prompts(tmp_path, *(f"picture {number}" for number in range(40))), "--limit", "5")
    with monkeypatch.context() as patch:
        patch.setenv("MIRAGE_SANDBOX_URL", "http://127.0.0.1:1")
        ended = await bench.run(*words)
    states = states_in(tmp_path / "out")
    assert ended.code == ExitCode.PARTIAL
    assert "the buying has stopped: 5 requests in a row were not sent, the last because of this: " in ended.stderr
    assert "to go on with the batch, and buy nothing twice" in ended.stderr.splitlines()[-1]
    assert (states["refused"] <= 10, sum(states.values())) == (True, 40)


def test_lines_are_counted_as_people_do() -> None:
    """Neighbours are a span."""
    assert lines_in_words([3]) == lines_in_words([3, 3]) == "line 3"
    assert lines_in_words([4, 1, 2, 3, 7, 9, 10]) == "lines 1-4, 7, 9-10"


def test_the_same_trouble_is_told_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever key it has; of very many different ones the manifest tells."""
    troubles = Troubles(tmp_path / "results.jsonl")
    for number in range(1, 4):
        key = str(number) * 32
        troubles.tell(record(key, "uncertain", line=number, error=f"lost (key {key})"))
    for number in range(4, 30):
        troubles.tell(record(str(number), "failed", line=number, error=f"reason {number}"))
    troubles.tell(record("x", "failed", line=50, error="reason 4"))
    before = capsys.readouterr().err.splitlines()
    troubles.sum_up()
    after = capsys.readouterr().err.splitlines()
    assert before[0] == "mirage-async: line 1: uncertain: lost"
    assert (len(before), before[-1].startswith("mirage-async: further problems are in ")) == (21, True)
    assert after == ["mirage-async: lines 1-3: uncertain: lost", "mirage-async: lines 4, 50: failed: reason 4"]


async def test_lines_that_are_wrong_alike_are_told_together(tmp_path: Path, bench: Bench) -> None:
    """With the names that are known."""
    (tmp_path / "a.jsonl").write_text('{"prompt": "fox", "colour": "red"}\n' * 30, encoding="utf-8")
    ended = await bench.run(*words_for("a.jsonl"))
    first, last = ended.stderr.splitlines()
    assert first.startswith("mirage-async: lines 1-30: ")
    assert "known are prompt, provider, aspect_ratio, size" in first
    assert last.endswith("30 lines of 'a.jsonl' cannot be bought: nothing was sent")


async def test_splits_and_pictures_without_a_line_are_announced(tmp_path: Path, bench: Bench) -> None:
    """Another default buys all anew, which is said before it is done."""
    file = write_prompts(tmp_path, *PROMPTS[:2])
    await bench.run(*words_for(file, provider="mira"))
    ended = await bench.run(*words_for(file, "-n", "6", provider="mira"))
    assert "4 requests for 2 lines (2 lines are split)" in ended.stderr
    assert "2 pictures of earlier runs belong to no line any more" in ended.stderr
    assert "4 are to be bought" in ended.stderr
    assert sum("-part2-" in name for name in pictures_in(tmp_path / "out")) == 4


async def test_what_was_given_up_is_not_retried_and_the_line_that_goes_on_does_not_retry(
    tmp_path: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have been bought; and what fails again is not to be bought a third time by whoever copies the line."""
    bench.sandbox.fail("miragic.create", Fault(reset=True, when="after"), prompt="fox")
    words = words_for(write_prompts(tmp_path, "fox", "owl"))
    await bench.run(*words)
    key = records_in(tmp_path / "out")[0]["key"]
    await bench.run("jobs", "resolve", key, "--give-up", "--journal", "out/.mirage/journal")
    shown = await bench.run("jobs", "show", key, "--journal", "out/.mirage/journal")
    ended = await bench.run(*words, "--retry-failed")
    assert "error" not in shown.stdout
    assert "1 of 2 is done, 1 was given up by hand" in ended.stderr
    assert drawn(bench.sandbox) == {"fox": 1, "owl": 1}
    monkeypatch.setattr("sys.argv", ["x", *words, "--retry-failed", "-q"])
    assert batch._again(from_stdin=False) == f"mirage-async {' '.join(words)} -q"


async def test_messages_are_for_whoever_is_at_a_prompt(tmp_path: Path, bench: Bench) -> None:
    """The library's own advice is for programs; the manifest is read by both, and was written by the command."""
    bench.sandbox.fail("miragic.create", Fault(reset=True, when="after"))
    ended = await bench.run(*words_for(write_prompts(tmp_path, "fox")))
    (known,) = records_in(tmp_path / "out")
    assert "before you buy again" in known["error"]
    assert "before you buy again" in ended.stderr
    assert "resend_uncertain" not in ended.stderr + known["error"]


async def test_another_account_is_told_of_with_the_way_to_collect(
    tmp_path: Path, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not with an argument of a method."""
    bench.sandbox.set_durations(60)
    words = words_for(write_prompts(tmp_path, "fox"), "--max-wait", "0.2")
    await bench.run(*words)
    monkeypatch.setenv("MIRAGIC_API_KEY", "another")
    caught: list[str] = []
    handler = _lines._Stderr()
    monkeypatch.setattr(_lines, "tell", lambda text, **_: caught.append(_lines.for_shell(text)))
    logging.getLogger("mirage_async").addHandler(handler)
    try:
        await bench.run(*words)
    finally:
        logging.getLogger("mirage_async").removeHandler(handler)
    assert any("jobs wait --any-account` takes it" in text for text in caught), caught
    assert not any("any_account" in text for text in caught)


def test_what_breaks_in_the_code_is_one_short_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Where it broke is for those who ask."""
    logger = logging.getLogger("a logger of this test")
    logger.propagate = False
    logger.addHandler(_lines._Stderr())

    def told() -> str:
        try:
            (tmp_path / "no/such").read_bytes()
        except OSError:
            logger.exception("cannot write")
        return capsys.readouterr().err

    short = told()
    assert short.startswith("mirage-async: error: cannot write: FileNotFoundError: [Errno 2] No such file")
    assert short.endswith(" (-v shows where)\n")
    with caplog.at_level(logging.INFO, logger="mirage_async"):
        assert "Traceback" in told()


def test_what_was_seen_to_be_bought_is_not_called_unknown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On a full disk the journal may have the intent alone, while the manifest knows more."""
    purchases = [purchase_of(ImageRequest(prompt="fox", provider="mira"), str(number), number) for number in (1, 2, 3)]
    keys = [purchase.key("b") for purchase in purchases]
    entries = [entry(key, EntryState.INTENDED) for key in keys]
    records = {
        keys[0]: record(keys[0], "unsaved", billed="yes", job_id="j 1"),
        keys[1]: record(keys[1], "unsaved", billed="yes"),
    }
    plan = plan_for(purchases, "b", entries, records, tmp_path, retry_failed=False, resumable=True)
    found = [task.found(each, records.get(task.key)) for task, each in zip(plan.tasks, entries, strict=True)]
    tell_uncertain(found, BatchFolder(tmp_path, Known()))
    told = capsys.readouterr().err.splitlines()
    assert (len(plan.owed), plan.doubtful) == (3, 1)
    assert [(each.state, each.billed, each.error) for each in found] == [
        ("uncertain", "yes", BOUGHT_ALL_THE_SAME),
        ("uncertain", "yes", BOUGHT_ALL_THE_SAME),
        ("uncertain", "unknown", None),
    ]
    assert "nobody knows whether this one was bought" in told[0]
    tell_uncertain(found[:1], BatchFolder(tmp_path, Known()))
    assert "nobody knows" not in capsys.readouterr().err
    assert told[1].endswith(f"{keys[2]} (--id ID | --not-bought | --give-up)")
    assert told[2].endswith(
        f"do this and run the batch again: mirage-async jobs resolve --journal "
        f"{tmp_path}/.mirage/journal {keys[0]} --id 'j 1'"
    )
    assert told[3].endswith(
        f"it is lost: mirage-async jobs resolve --journal {tmp_path}/.mirage/journal {keys[1]} --give-up"
    )


def test_an_error_that_is_settled_is_told_no_more() -> None:
    """What was uncertain until somebody had found its id is only pending."""
    task = Task(key="1", purchase=purchase_of(ImageRequest(prompt="fox"), "x"))
    stale = StoredOutcome(error=StoredError(kind="SubmissionUncertainError", message="who knows"))
    assert task.found(entry("1", EntryState.UNCERTAIN, outcome=stale)).error == "who knows"
    pending = task.found(entry("1", EntryState.ACCEPTED, outcome=stale, id="j"))
    assert (pending.state, pending.error, pending.job_id) == ("pending", None, "j")


async def test_no_prompt_stands_in_a_log(tmp_path: Path, bench: Bench) -> None:
    """Whatever becomes of it; the journal keeps none, either."""
    secret = "a surprise for Ada"
    prompts = [f"{secret} {number}" for number in range(4)]
    bench.sandbox.fail("miragic.create", Fault(status=422), prompt=prompts[0])
    bench.sandbox.fail("miragic.create", Fault(reset=True, when="after"), prompt=prompts[1])
    bench.sandbox.fail("miragic.status", Fault(status=200, body=FAILED), prompt=prompts[2])
    ended = await bench.run(*words_for(write_prompts(tmp_path, *prompts), "-v"))
    keys = {record["key"]: record["state"] for record in records_in(tmp_path / "out")}
    assert sorted(keys.values()) == ["done", "failed", "refused", "uncertain"]
    assert secret not in ended.stderr
    for key, state in keys.items():
        assert any(f" {state} " in line and line.endswith(key) for line in ended.stderr.splitlines()), ended.stderr
