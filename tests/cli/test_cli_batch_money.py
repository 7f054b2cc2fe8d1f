"""What `batch` makes of a budget, and what it says about money, across runs that were cut short."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from batches import PROMPTS, Bench, bench, drawn, records_in, running, states_in, write_prompts
from command_line import command_here, sandbox_for_commands
from test_cli_batch import FAILED, until_seen, words_for
from test_cli_batch_parts import entry, record

from mirage_async.cli._batch import bound_of
from mirage_async.cli._batch.progress import Tally
from mirage_async.cli._batch.till import budget_for, unpriced
from mirage_async.cli._exits import ExitCode
from mirage_async.journal import EntryState, StoredOutcome
from mirage_async.sandbox import Fault

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["bench"]

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(("budget", "pictures"), [("2", 2), ("3 pictures", 3), ("2 credits", 2), ("1.5credits", 1)])
async def test_a_budget_stops_the_buying_for_all_runs_together(
    budget: str, pictures: int, tmp_path: Path, bench: Bench
) -> None:
    """The same command buys no more the second time; one with a higher budget goes on."""
    sandbox = bench.sandbox
    words = words_for(write_prompts(tmp_path, *PROMPTS))
    first = await bench.run(*words, "--budget", budget)
    second = await bench.run(*words, "--budget", budget)
    assert sum(drawn(sandbox).values()) == pictures
    third = await bench.run(*words, "--budget", "5")
    assert (first.code, second.code, third.code) == (ExitCode.PARTIAL, ExitCode.PARTIAL, ExitCode.DONE)
    assert f'--budget "{budget}" does not allow another purchase; with a higher one the same' in first.stderr
    assert "Budget(" not in first.stderr
    assert f"{5 - pictures} not bought" in first.stderr
    assert sum(drawn(sandbox).values()) == 5


async def test_credits_hold_over_any_number_of_kills(tmp_path: Path) -> None:
    """What was killed in flight tells its price only once it is collected, and until then nothing more is bought."""
    async with sandbox_for_commands(durations=60) as (sandbox, environment):
        words = words_for(write_prompts(tmp_path, *PROMPTS), "--budget", "2 credits", "--limit", "1")
        for round_ in range(3):
            before = sandbox.statistics().requests.get("miragic.status", 0)
            async with running(*words, folder=tmp_path, environment=environment) as process:
                await until_seen(sandbox, "miragic.status", before + 1)
                process.kill()
                await process.wait()
            assert len(sandbox.jobs) == 1, f"in round {round_}"
        for job_id in sandbox.jobs:
            sandbox.finish_job(job_id)
        sandbox.set_durations(0.05)
        ended = await command_here(*words, folder=tmp_path, environment=environment)
        assert sum(drawn(sandbox).values()) == 2
    assert ended.code == ExitCode.PARTIAL, ended.stderr
    assert states_in(tmp_path / "out") == {"done": 2, "unbought": 3}
    assert "1 credit spent by this run, 1 credit of earlier runs collected" in ended.stderr


async def test_credits_buy_nothing_while_an_earlier_purchase_has_no_price(tmp_path: Path, bench: Bench) -> None:
    """Neither after a purchase that is uncertain nor after one whose provider does not say; --price settles it."""
    bench.sandbox.fail("mira.generate", Fault(reset=True, when="after"), prompt=PROMPTS[0])
    words = words_for(write_prompts(tmp_path, *PROMPTS[:3]), "--budget", "10 credits", "--limit", "1", provider="mira")
    await bench.run(*words)
    bought = sum(drawn(bench.sandbox).values())
    for _ in range(2):
        ended = await bench.run(*words)
        assert ended.code == ExitCode.PARTIAL
        assert "what was bought from mira before has no known price, so nobody can say what is left" in ended.stderr
        assert "give --price C" in ended.stderr
        assert sum(drawn(bench.sandbox).values()) == bought
    await bench.run(*words, "--price", "1")
    assert set(drawn(bench.sandbox)) == set(PROMPTS[:3])
    assert set(drawn(bench.sandbox).values()) == {1}


def test_what_earlier_runs_have_bought_or_may_have_is_off_the_budget() -> None:
    """Credits are reckoned by what they said, by the dearest picture of the provider, or by the price given."""
    entries = [
        entry("1", EntryState.SUCCEEDED, outcome=StoredOutcome(credits=3.0)),
        entry("2", EntryState.UNCERTAIN),
        entry("3", EntryState.UNPAID),
        entry("4", EntryState.ACCEPTED, provider="milady"),
    ]
    assert budget_for(bound_of("10"), None, entries).purchases == 7
    assert budget_for(bound_of("2"), None, entries).purchases == 0
    assert budget_for(bound_of("10 pictures"), None, entries).pictures == 4
    told = budget_for(bound_of("10 credits"), None, entries)
    assert (told.credits, told.price_of("mira"), told.price_of("milady")) == (4.0, 1.5, None)
    priced = budget_for(bound_of("10 credits"), 0.5, entries)
    assert (priced.credits, priced.price_of("mira"), priced.price_of("milady")) == (3.0, 1.5, 0.5)
    assert budget_for(bound_of("1 credit"), None, []).price is None


def test_who_does_not_say_a_price_is_named() -> None:
    """A picture with a price tells that of the others; a few failures are no answer yet; a given price is one."""

    def names(*entries: Any, price: float | None = None) -> list[str]:
        return unpriced(price, entries)

    open_one = entry("1", EntryState.UNCERTAIN)
    told = entry("2", EntryState.SUCCEEDED, outcome=StoredOutcome(credits=3.0))
    failed = [entry(str(number), EntryState.FAILED, provider="milady") for number in range(3)]
    assert names(open_one) == ["mira"]
    assert names(open_one, told) == names(open_one, price=0.0) == []
    assert names(entry("3", EntryState.UNPAID)) == []
    assert names(*failed[:2]) == []
    assert names(*failed, open_one) == ["milady", "mira"]


async def test_only_what_this_run_has_bought_counts_as_spent_by_it(tmp_path: Path, bench: Bench) -> None:
    """A picture that is fetched once more was paid for by the run before."""
    words = words_for(write_prompts(tmp_path, *PROMPTS[:2]))
    await bench.run(*words)
    (tmp_path / "out" / records_in(tmp_path / "out")[0]["files"][0]).unlink()
    write_prompts(tmp_path, *PROMPTS)
    ended = await bench.run(*words)
    assert "3 credits spent by this run, 1 credit of earlier runs collected;" in ended.stderr


def test_the_bar_says_who_does_not_say_what_it_takes() -> None:
    """Where nobody tells, nothing is said."""
    tally = Tally(9, 0)
    tally.count(record("a", files=("x",)))
    assert tally.money is None
    tally.count(record("b", files=("y",), provider="miragic", credits=1.0))
    assert "1 credit (miragic; the others do not say)" in tally.words()
    tally.count(record("c", files=("z",), credits=0.5), ours=False)
    assert "1 credit (miragic; the others do not say)" in tally.words()
    assert tally.collected["mira"] == 0.5


async def test_who_does_not_say_a_price_is_named_with_the_way_out(tmp_path: Path, bench: Bench) -> None:
    """In words of the command line."""
    words = words_for(write_prompts(tmp_path, *PROMPTS[:3]), "--budget", "9 credits", "--limit", "1", provider="milady")
    ended = await bench.run(*words)
    assert "milady does not say what it takes" in ended.stderr
    assert "with --price C, the credits a picture costs, the same command goes on" in ended.stderr
    assert "Budget(" not in ended.stderr
    assert sum(drawn(bench.sandbox).values()) == 1


async def test_the_end_says_what_earlier_runs_have_done_and_what_this_one(tmp_path: Path, bench: Bench) -> None:
    """Of all that was asked for: what is there since when, what is missing and why, and what this run has cost."""
    sandbox = bench.sandbox

    async def told(*prompts: str, provider: str = "miragic") -> str:
        ended = await bench.run(*words_for(write_prompts(tmp_path, *prompts), provider=provider))
        return ended.stderr.splitlines()[-1].split(";")[0].removeprefix("mirage-async: ")

    assert await told(*PROMPTS[:2]) == "2 of 2 done, 2 credits spent by this run"
    sandbox.fail("miragic.create", Fault(reset=True, when="after"), prompt=PROMPTS[3])
    sandbox.fail("miragic.create", Fault(status=422), prompt=PROMPTS[4])
    sandbox.fail("miragic.status", Fault(status=200, body=FAILED), prompt="a wolf")
    partly = await told(*PROMPTS, "a wolf")
    assert partly == (
        "3 of 6 done (2 by earlier runs, 1 by this one), 1 uncertain, 1 refused, 1 failed, 1 credit spent by this run"
    )
    again = await told(*PROMPTS[:4], "a wolf")
    assert again == "3 of 5 done (3 by earlier runs, 0 by this one), 1 uncertain, 1 failed, nothing bought by this run"
    assert await told("a tapir", provider="mira") == "1 of 1 done, an unknown sum spent by this run"
