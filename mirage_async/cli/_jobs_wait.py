"""What `jobs wait` does: collect what programs that have ended are still owed."""

from __future__ import annotations

import asyncio
import contextlib
import math
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mirage_async.cli._avatar_show import avatar_record
from mirage_async.cli._display import displayed
from mirage_async.cli._exits import CommandError, ExitCode, code_for
from mirage_async.cli._jobs_records import advice, entries_after_salvage, entries_in, found, settling, state_words
from mirage_async.cli._keeping import keep_all
from mirage_async.cli._lines import command_line, tell
from mirage_async.cli._record import picture_record, write_json
from mirage_async.clients._base import MissingKeyError
from mirage_async.exceptions import ConfigurationError, MirageError, SubmissionUncertainError, WaitTimeoutError
from mirage_async.hub import Mirage
from mirage_async.journal import EntryState, Journal
from mirage_async.models import Avatar, Generation

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mirage_async.cli._board import Board, Row
    from mirage_async.cli._keeping import Kept
    from mirage_async.cli._output import Output
    from mirage_async.jobs import Job
    from mirage_async.journal import Entry

__all__ = ["Wish", "wait"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What to collect, and how long to wait for it.

    Attributes:
        keys: of purchases, or their first digits; none are all that are owed.
        max_wait: seconds for each job, or None for the default of its kind.
        any_account: whether jobs bought with another key count.
    """

    keys: tuple[str, ...]
    max_wait: float | None
    any_account: bool


@dataclass(slots=True, kw_only=True)
class _Collected:
    """What came of one job: a value and where it is, or an error."""

    job: Job[Any]
    value: object = None
    kept: Sequence[Kept] = ()
    error: Exception | None = None

    @property
    def code(self) -> ExitCode:
        if self.error is not None:
            return code_for(self.error)
        return ExitCode.FAILURE if any(one.problem is not None for one in self.kept) else ExitCode.DONE


async def wait(folder: Path, wish: Wish, place: Output, *, as_json: bool, quiet: bool) -> ExitCode:
    """Collect what is owed, print where it is, and tell what could not be collected.

    Returns:
        `DONE` where all of it was; the code they have in common where none was; else `PARTIAL`.

    Raises:
        CommandError: there is no journal, a key names nothing in it, or nobody has an API key.
        MirageError: the journal cannot be read or written.
    """
    known = await entries_after_salvage(folder)
    named = [found(known, key) for key in wish.keys]
    wanted = list(dict.fromkeys(entry.key for entry in named or known if entry.owed))
    others = named or [entry for entry in known if entry.state is EntryState.UNCERTAIN]
    codes = [_tell_of(folder, entry) for entry in others if not entry.owed]
    if not wanted:
        if not codes:
            tell("nothing is owed")
        return _overall(codes)
    try:
        codes += await _collect_all(folder, wish, place, wanted, as_json=as_json, quiet=quiet)
    except asyncio.CancelledError:
        tell(f"what was not collected is still owed; to go on: {_again(folder, place)}", whole=True)
        raise
    return _overall(codes)


def _again(folder: Path, place: Output) -> str:
    return command_line("mirage-async", "jobs", "wait", "--journal", str(folder), "-o", f"{place.path}")


def _tell_of(folder: Path, entry: Entry) -> ExitCode:
    """Say why there is nothing to collect of a purchase."""
    if entry.state is not EntryState.UNCERTAIN:
        tell(f"nothing is owed for {entry.key}: {entry.provider} {entry.kind}, {state_words(entry)}")
        return ExitCode.DONE
    what = f"whether the {entry.provider} {entry.kind} {entry.key} was bought"
    tell(f"error: nobody knows {what}; {settling(folder, [entry])}", whole=True)
    return ExitCode.FAILURE


def _overall(codes: Sequence[ExitCode]) -> ExitCode:
    if len(set(codes)) == 1:
        return codes[0]
    return ExitCode.PARTIAL if codes else ExitCode.DONE


async def _collect_all(
    folder: Path, wish: Wish, place: Output, wanted: Sequence[str], *, as_json: bool, quiet: bool
) -> list[ExitCode]:
    journal = Journal(folder, retention=math.inf)  # what is over is for its owner to forget
    async with Mirage(journal=journal) as hub:
        _check_keys(hub, {entry.provider for entry in entries_in(folder) if entry.key in wanted})
        owed = await hub.recover(any_account=wish.any_account, max_wait=wish.max_wait)
        jobs = [job for job in owed if job.key in wanted]
        collected = [_Collected(job=job) for job in jobs]
        try:
            with displayed(lines=True, quiet=quiet) as board:
                await asyncio.gather(*(_collect(one, board, place) for one in collected))
        finally:  # whatever cuts that short: these are in their files, and not told of again
            _print(collected, as_json=as_json)
        codes = [one.code for one in collected]
    codes += _tell_of_rest(set(wanted) - {job.key for job in jobs})
    for one in collected:
        _tell_problems(one, again=_again(folder, place))
    uncertain = {one.job.key for one in collected if isinstance(one.error, SubmissionUncertainError)}
    for line in advice(folder, (entry for entry in entries_in(folder) if entry.key in uncertain)):
        tell(line, whole=True)
    return codes


def _check_keys(hub: Mirage, providers: set[str]) -> None:
    """Say at once if there is a key for none of them; `recover` tells of single ones."""
    problems: list[ConfigurationError] = []
    for provider in sorted(providers):
        try:
            hub.client(provider)
        except ConfigurationError as error:
            problems.append(error)
    if len(problems) == len(providers):
        code = ExitCode.AUTHENTICATION if isinstance(problems[0], MissingKeyError) else ExitCode.USAGE
        raise CommandError("; ".join(map(str, problems)), code=code)


def _tell_of_rest(keys: set[str]) -> list[ExitCode]:
    """Tell of what was not recovered: the log has said why, or else a program that still runs works on it."""
    if keys:
        tell(
            f"{len(keys)} more stay owed: another program still works on them, or it takes another API key or "
            f"--any-account: {', '.join(sorted(keys))}"
        )
    return [ExitCode.FAILURE] * len(keys)


async def _collect(collected: _Collected, board: Board, place: Output) -> None:
    job = collected.job
    row = board.add(job.provider, f"{job.kind.name} {job.id or job.key}")
    row.begin("queued")
    try:
        await row.watch(job)
        collected.value, collected.error = job.ending or (None, None)
        await _keep(collected, row, place)
    except MirageError as error:
        collected.error = error
    if collected.code is ExitCode.DONE:
        row.end("done")
    elif isinstance(collected.error, SubmissionUncertainError):
        row.end("failed", "nobody knows whether it was bought")  # all else is told once, in the end
    else:
        problems = [one.problem for one in collected.kept if one.problem is not None]
        row.end("failed", str(collected.error or problems[0]))


async def _keep(collected: _Collected, row: Row, place: Output) -> None:
    """Save what there is, and only then have it count as collected.

    An uncertain purchase is left for the program it belongs to, which hears of it when it asks.
    """
    if isinstance(collected.value, Generation):
        row.state = "saving"
        collected.kept = await keep_all(collected.value, place)
    lost = any(one.path is None for one in collected.kept)
    if not lost and not isinstance(collected.error, SubmissionUncertainError):
        with contextlib.suppress(MirageError):
            await collected.job


def _print(collected: Sequence[_Collected], *, as_json: bool) -> None:
    for one in collected:
        if isinstance(one.value, Avatar):
            _print_avatar(one.value, as_json=as_json)
        if not isinstance(one.value, Generation):
            continue
        for kept in one.kept:
            if kept.path is not None and as_json:
                write_json({**picture_record(kept.path, one.value, kept.image), "key": one.job.key})
            elif kept.path is not None:
                sys.stdout.write(f"{kept.path}\n")
    sys.stdout.flush()


def _print_avatar(avatar: Avatar, *, as_json: bool) -> None:
    if as_json:
        write_json(avatar_record(avatar))
    else:
        sys.stdout.write(f"{avatar.id}\n")


def _tell_problems(one: _Collected, *, again: str) -> None:
    if one.error is not None:
        tell(f"error: {one.error}" if one.job.key in str(one.error) else f"error: {one.error} (key {one.job.key})")
    for kept in one.kept:
        if kept.problem is not None:
            tell(f"error: {kept.problem}")
    if isinstance(one.error, WaitTimeoutError) and one.error.token is not None:
        tell(f"it stays owed; to go on waiting: {again} {one.job.key}", whole=True)
