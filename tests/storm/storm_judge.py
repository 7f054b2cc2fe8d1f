"""The judge of a trial: what was paid for at the server, and where each of these payments ended up."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from storm_diary import number_in

from mirage_async.exceptions import JournalError
from mirage_async.journal import Entry, EntryState, journal_entries

if TYPE_CHECKING:
    from pathlib import Path

    from mirage_async.sandbox import Sandbox

__all__ = ["Sight", "Verdict", "judge"]

Lines = list[dict[str, Any]]

_DURABLE = frozenset({"after the id", "after the outcome", "after the refusal"})


@dataclass(kw_only=True)
class Verdict:
    """What a trial has shown.

    Attributes:
        paid: purchases the server charged for.
        kept: of these, results that lie whole in a file, by whichever program.
        recovered: of these, results that were not there yet when the programs that buy were killed, and that
            `recover()` returned.
        asked_again: of these, results that were not there then, either, since the program that had been given them died
            before it had written them. They were had once more by asking again under the same key.
        failed: of these, jobs that the provider let fail, which was told.
        uncertain: purchases that were reported as uncertain.
        uncertain_paid: of these, the ones that the server charged for.
        in_flight: purchases whose intent had been begun and whose answer was not durable when a program was killed.
        unanswered: of these, the ones that the server had received by then, and not answered.
        killed: programs that were killed.
        flaws: what must not be.
    """

    paid: int = 0
    kept: int = 0
    recovered: int = 0
    asked_again: int = 0
    failed: int = 0
    uncertain: int = 0
    uncertain_paid: int = 0
    in_flight: int = 0
    unanswered: int = 0
    killed: int = 0
    flaws: list[str] = field(default_factory=list[str])


@dataclass(frozen=True, kw_only=True)
class Sight:
    """What was to be seen when the programs that buy were killed.

    Attributes:
        kept: names of the files that they had kept.
        unanswered: numbers of the purchases that the server had received and not answered.
    """

    kept: frozenset[str]
    unanswered: frozenset[int]


class _Evidence:
    """What the programs have said, and what the journal says."""

    def __init__(self, folder: Path, diaries: list[Lines], sight: Sight) -> None:
        everything = [line for lines in diaries for line in lines]
        self.sight = sight
        self.folder = folder / "results"
        self.keys: defaultdict[int, set[str]] = defaultdict(set)
        for line in everything:
            if line["point"] == "before the intent":
                self.keys[line["number"]].add(line["key"])
        self.numbers = {key: number for number, keys in self.keys.items() for key in keys}
        self.given = _keys([line for lines in diaries[:-1] for line in lines], "before the hand-over", "succeeded")
        self.recovered = {key for line in everything if line["point"] == "recovered" for key in line["jobs"]}
        self.failed = _keys(everything, "before the hand-over", "failed")
        self.uncertain = _keys(everything, "before the hand-over", "uncertain") | _keys(everything, "uncertain")
        self.in_flight = set[str]().union(*(_in_flight(lines) for lines in diaries[:-1]))
        self.intended = _keys(everything, "after the intent")
        self.entries = {entry.key: entry for entry in _entries(folder / "journal")}


def _keys(lines: Lines, point: str, status: str | None = None) -> set[str]:
    return {line["key"] for line in lines if line["point"] == point and status in {None, line.get("status")}}


def _in_flight(lines: Lines) -> set[str]:
    """Return the purchases that a program was about to send, had sent, or had an answer to that was not durable."""
    found: set[str] = set()
    for line in lines:
        if line["point"] == "before the intent":
            found.add(line["key"])
        elif line["point"] in _DURABLE:
            found.discard(line["key"])
    return found


def _entries(folder: Path) -> list[Entry]:
    try:
        return journal_entries(folder)
    except JournalError:  # killed before there was one, and nothing was bought
        return []


async def judge(sandbox: Sandbox, folder: Path, diaries: list[Lines], *, sight: Sight) -> Verdict:
    """Look at the end of a trial: the last program has recovered everything and has ended.

    Args:
        sandbox: the server, where all is done.
        folder: of the trial.
        diaries: of the programs, in the order in which they were started; the last one has not been killed.
        sight: taken when the programs that buy were killed.
    """
    evidence = _Evidence(folder, diaries, sight)
    verdict = Verdict(
        uncertain=len(evidence.uncertain), in_flight=len(evidence.in_flight), unanswered=len(sight.unanswered)
    )
    payments: defaultdict[int, list[str]] = defaultdict(list)
    for job_id, view in sandbox.jobs.items():
        payments[number_in(view.prompt)].append(job_id)
    verdict.paid = sum(map(len, payments.values()))
    _check_bill(verdict, sandbox)
    for number, job_ids in sorted(payments.items()):
        if len(job_ids) > 1:
            verdict.flaws.append(f"{number} was bought {len(job_ids)} times")
        if len(evidence.keys[number]) != 1:
            verdict.flaws.append(f"{number} was paid for and begun {len(evidence.keys[number])} times")
            continue
        (key,) = evidence.keys[number]
        await _account_for(verdict, sandbox, evidence, key, job_ids[0])
    _check_uncertain(verdict, evidence)
    _check_journal(verdict, evidence)
    _check_nothing_invented(verdict, evidence, payments)
    return verdict


def _check_bill(verdict: Verdict, sandbox: Sandbox) -> None:
    charged = sum(sandbox.statistics().purchases.values())
    if charged != verdict.paid:
        verdict.flaws.append(f"the server charged for {charged} purchases and knows {verdict.paid}")


async def _account_for(verdict: Verdict, sandbox: Sandbox, evidence: _Evidence, key: str, job_id: str) -> None:
    """Find out where a payment ended up."""
    entry, number = evidence.entries.get(key), evidence.numbers[key]
    state = None if entry is None else entry.state
    names = await _kept(verdict, sandbox, evidence, key, job_id)
    if names and state is EntryState.SUCCEEDED:
        is_late = not names <= evidence.sight.kept
        verdict.kept += 1
        verdict.recovered += is_late and key in evidence.recovered
        verdict.asked_again += is_late and key in evidence.given - evidence.recovered
    elif key in evidence.failed and state is EntryState.FAILED:
        verdict.failed += 1
    elif key in evidence.uncertain and state is EntryState.UNCERTAIN:
        verdict.uncertain_paid += 1
        if sandbox.jobs[job_id].kind == "avatar":
            verdict.flaws.append(f"{number} is uncertain, and the avatar {job_id} stands in the list")
    else:
        verdict.flaws.append(f"{number} ({key}, {job_id}) was paid for and is lost; the journal says {state}")


async def _kept(verdict: Verdict, sandbox: Sandbox, evidence: _Evidence, key: str, job_id: str) -> set[str]:
    """Return the files that hold a result, if all of it is there; they have to be what the server made for it."""
    job = sandbox._world.jobs.get_job(job_id)
    assert job is not None
    if job.kind == "avatar":
        path = evidence.folder / f"{job_id}.json"
        if path.exists() and json.loads(path.read_bytes())["name"] != job.prompt:
            verdict.flaws.append(f"the avatar in {path.name} is another one")
        return {path.name} if path.exists() else set()
    found = [sorted(evidence.folder.glob(f"{key}-{index}.*")) for index in range(1, len(job.pictures) + 1)]
    for picture, paths in zip(job.pictures, found, strict=True):
        if paths and [path.read_bytes() for path in paths] != [await sandbox._world.gallery.render(picture)]:
            verdict.flaws.append(f"{[path.name for path in paths]} are not the picture that was drawn")
    return {path.name for paths in found for path in paths} if all(found) else set()


def _check_uncertain(verdict: Verdict, evidence: _Evidence) -> None:
    for number in evidence.sight.unanswered - {evidence.numbers[key] for key in evidence.in_flight}:
        verdict.flaws.append(f"{number} had reached the server, and no program was about to send it")
    for key in evidence.uncertain - evidence.in_flight:
        verdict.flaws.append(f"{evidence.numbers.get(key)} ({key}) is uncertain and was not in flight")
    on_record = {key for key, entry in evidence.entries.items() if entry.state is EntryState.UNCERTAIN}
    if on_record != evidence.uncertain:
        verdict.flaws.append(f"uncertain on record {on_record}, and told {evidence.uncertain}")


def _check_journal(verdict: Verdict, evidence: _Evidence) -> None:
    missing = evidence.intended - evidence.entries.keys()
    if missing:
        verdict.flaws.append(f"intents are gone from the journal: {missing}")
    owed = [entry for entry in evidence.entries.values() if entry.owed]
    if owed:
        verdict.flaws.append(f"still owed after everything was recovered: {owed}")


def _check_nothing_invented(verdict: Verdict, evidence: _Evidence, payments: dict[int, list[str]]) -> None:
    """Whatever was kept was paid for; a file that is not whole yet has a name of its own."""
    paid = {job_id for job_ids in payments.values() for job_id in job_ids}
    paid.update(key for number in payments for key in evidence.keys[number])
    for name in sorted(path.name for path in evidence.folder.iterdir()):
        is_whole = not name.startswith(".") and not name.endswith(".part")
        if is_whole and paid.isdisjoint({name.rpartition(".")[0], name.partition("-")[0]}):
            verdict.flaws.append(f"{name} was kept and never paid for")
