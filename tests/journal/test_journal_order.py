"""The order of writes: at every moment the disk knows enough for the next process."""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from journal_bench import KEY, PROMPT, crashed, hub, intent, job, picture, soon, until

from mirage_async import Mirage
from mirage_async.exceptions import (
    AuthenticationError,
    ClosedError,
    JournalError,
    MirageError,
    ServerError,
    SubmissionUncertainError,
    WaitTimeoutError,
)
from mirage_async.jobs import Job
from mirage_async.journal import EntryState, Journal, journal_entries
from mirage_async.journal._entry import state_of
from mirage_async.journal._writer import Writer
from mirage_async.sandbox import Fault, Sandbox
from mirage_async.sandbox.exchange import Exchange
from mirage_async.scheduler import FixedInterval, Scheduler

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.anyio


@dataclass(frozen=True)
class Way:
    """One way to spend money.

    Attributes:
        operation: the sandbox's name for the request.
        buy: spends the money, and waits for the result.
        blocking: whether the answer is the picture itself.
    """

    operation: str
    buy: Callable[[Mirage], Awaitable[Any]]
    blocking: bool

    def __repr__(self) -> str:
        return self.operation


async def _job(submitted: Awaitable[Job[Any]]) -> Any:
    return await (await submitted)


WAYS = (
    Way("mirako.generate", lambda mirage: mirage.mirako.generate(PROMPT), blocking=True),
    Way("mirako.create", lambda mirage: _job(mirage.mirako.submit(PROMPT)), blocking=False),
    Way(
        "mirako.avatar_create",
        lambda mirage: _job(mirage.mirako.build_avatar("Ada", picture(size=(512, 512)))),
        blocking=False,
    ),
    Way("miragic.create", lambda mirage: mirage.miragic.generate(PROMPT), blocking=False),
    Way("mira.generate", lambda mirage: mirage.mira.generate(PROMPT, n=2), blocking=True),
    Way("milady.generate", lambda mirage: mirage.milady.generate(PROMPT, num_images=2), blocking=True),
)
every_way = pytest.mark.parametrize("way", WAYS, ids=repr)


class Noting(Journal):
    """A journal that notes when what it was told is durable."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.events: list[str] = []

    async def intended(self, job: Any, intent: Any) -> None:  # noqa: D102
        await super().intended(job, intent)
        self.events.append("intent durable")

    async def accepted(self, job: Any) -> None:  # noqa: D102
        await super().accepted(job)
        self.events.append("id durable")

    async def settled(self, job: Any, outcome: object) -> None:  # noqa: D102
        await super().settled(job, outcome)
        self.events.append("outcome durable")

    def handed_over(self, job: Any) -> None:  # noqa: D102
        super().handed_over(job)
        self.events.append("handed over")


@every_way
async def test_every_step_is_durable_before_the_next(way: Way, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Intent, POST, id, polls, outcome, result, hand-over; what another process reads agrees at each request."""
    serve, resolve = Exchange.serve, Job.resolve
    on_disk: list[tuple[str, list[EntryState], list[str | None]]] = []
    journal = Noting(tmp_path)

    async def watching(self: Any, request: Any, route: Any) -> Any:
        entries = journal_entries(tmp_path)
        on_disk.append((request.method, [entry.state for entry in entries], [entry.id for entry in entries]))
        journal.events.append("POST" if request.method == "POST" else "question")
        return await serve(self, request, route)

    def resolving(self: Any, *outcome: Any) -> None:
        (entry,) = journal_entries(tmp_path)
        assert entry.settled
        assert (entry.outcome is not None, entry.handed_over) == (True, False)
        journal.events.append("result")
        resolve(self, *outcome)

    monkeypatch.setattr(Exchange, "serve", watching)
    monkeypatch.setattr(Job, "resolve", resolving)
    async with (
        Sandbox(durations=0.05) as sandbox,
        Mirage(
            dict.fromkeys(sandbox.base_urls, KEY),
            base_urls=sandbox.base_urls,
            journal=journal,
            scheduler=Scheduler(policy=FixedInterval(0.02)),
        ) as mirage,
    ):
        result = await soon(way.buy(mirage))
        assert result
    events = list(dict.fromkeys(journal.events))
    ends = ["outcome durable", "result", "handed over"]
    jobs = ["intent durable", "POST", "id durable", "question", *ends]
    assert events == (["intent durable", "POST", *ends] if way.blocking else jobs)
    assert on_disk[0] == ("POST", [EntryState.INTENDED], [None])
    assert all(states == [EntryState.ACCEPTED] and ids[0] for _, states, ids in on_disk[1:])
    (entry,) = journal_entries(tmp_path)
    assert (entry.state, entry.handed_over, entry.blocking) == (EntryState.SUCCEEDED, True, way.blocking)
    assert len(list((tmp_path / "pictures").iterdir())) == _kept(way, result)


def _kept(way: Way, result: Any) -> int:
    """Return how many pictures exist nowhere but in the answer."""
    return sum(image.url is None for image in result.images) if way.blocking else 0


async def test_an_intent_is_written_only_once_there_is_a_slot(tmp_path: Path) -> None:
    """Of what waits for a connection a killed process has bought nothing, and nothing is uncertain."""
    async with Sandbox(durations=0.05) as sandbox, hub(sandbox, tmp_path / "journal") as mirage:
        slots = mirage._runtime.transport.paid_posts
        holders = [object() for _ in range(int(slots.total_tokens))]
        for holder in holders:
            slots.acquire_on_behalf_of_nowait(holder)
        waiting = asyncio.ensure_future(mirage.mirako.submit(PROMPT))
        await until(lambda: any(each.buying == "slot" for each in mirage.mirako.jobs))
        assert journal_entries(tmp_path / "journal") == []
        slots.release_on_behalf_of(holders[0])
        await soon(waiting)
        assert len(journal_entries(tmp_path / "journal")) == 1


@every_way
async def test_nothing_is_sent_that_cannot_be_recorded(
    way: Way, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The sandbox sees no request, and the caller hears why; when the disk recovers, so does buying."""
    async with Sandbox(durations=0.05) as sandbox, hub(sandbox, tmp_path) as mirage:
        with monkeypatch.context() as patch:
            patch.setattr(Writer, "_write", _refuse)
            with pytest.raises(JournalError, match="nothing was sent") as caught:
                await soon(way.buy(mirage))
        assert caught.value.billed == "no"
        assert sandbox.requests == []
        await soon(way.buy(mirage))
        assert sum(sandbox.statistics().purchases.values()) == 1


def _refuse(*_: object) -> None:
    raise OSError(28, "No space left on device")


@every_way
async def test_what_cannot_be_recorded_afterwards_withholds_nothing(
    way: Way, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The result comes, one critical line says how to find it, and the disk gets it as soon as it takes it."""
    full = False
    write = Writer._write

    def sometimes(self: Writer, writes: Any) -> None:
        if full:
            _refuse()
        write(self, writes)

    serve = Exchange.serve

    async def serving(self: Any, request: Any, route: Any) -> Any:
        nonlocal full
        full = True  # the intent is on disk by now
        return await serve(self, request, route)

    monkeypatch.setattr(Writer, "_write", sometimes)
    monkeypatch.setattr(Exchange, "serve", serving)
    async with Sandbox(durations=0.05) as sandbox, hub(sandbox, tmp_path) as mirage:
        assert mirage._runtime.journal is not None
        mirage._runtime.journal._writer._retry = 0.02
        await soon(way.buy(mirage))
        critical = [record.getMessage() for record in caplog.records if record.levelname == "CRITICAL"]
        assert len(critical) == 1
        (entry,) = journal_entries(tmp_path)
        assert entry.key in critical[0]
        assert (entry.state, entry.id) == (EntryState.INTENDED, None)
        monkeypatch.setattr(Exchange, "serve", serve)
        full = False
        statistics = mirage._runtime.journal.statistics
        await until(lambda: not statistics().unwritten)
        (entry,) = journal_entries(tmp_path)
        assert (entry.state, entry.handed_over) == (EntryState.SUCCEEDED, True)


@pytest.mark.parametrize(
    ("fault", "error", "state"),
    [
        (Fault(status=401), AuthenticationError, EntryState.UNPAID),
        (Fault(reset=True), SubmissionUncertainError, EntryState.UNCERTAIN),
        (Fault(status=500), SubmissionUncertainError, EntryState.UNCERTAIN),
    ],
)
async def test_what_a_refusal_says_about_money_is_what_is_recorded(
    fault: Fault, error: type[MirageError], state: EntryState, tmp_path: Path
) -> None:
    """Unpaid where that is certain, else uncertain."""
    async with Sandbox() as sandbox, hub(sandbox, tmp_path) as mirage:
        sandbox.fail("miragic.create", fault)
        with pytest.raises(error):
            await soon(mirage.miragic.submit(PROMPT))
        (entry,) = journal_entries(tmp_path)
        assert (entry.state, entry.attempts, entry.doubtful, entry.outcome is None) == (state, 1, 0, False)


async def test_a_documented_failure_is_one(tmp_path: Path) -> None:
    """Milady's 500 means that the generation failed."""
    async with Sandbox() as sandbox, hub(sandbox, tmp_path) as mirage:
        sandbox.fail("milady.generate", Fault(status=500))
        with pytest.raises(ServerError):
            await soon(mirage.milady.generate(PROMPT))
        assert journal_entries(tmp_path)[0].state is EntryState.FAILED


@pytest.mark.parametrize("second", [Fault(status=401), Fault(status=500)])
async def test_a_refusal_after_an_attempt_nobody_knows_the_end_of_is_no_proof(second: Fault, tmp_path: Path) -> None:
    """It says nothing of the attempt before, which may have been taken; so it stays on record."""
    async with Sandbox() as sandbox, hub(sandbox, tmp_path) as mirage:
        sandbox.fail("milady.generate", Fault(reset=True, when="after"))
        sandbox.fail("milady.generate", second)
        with pytest.raises(MirageError) as caught:
            await soon(mirage.milady.generate(PROMPT, resend_uncertain=True))
        assert caught.value.billed == "unknown"
        (entry,) = journal_entries(tmp_path)
        assert (entry.state, entry.attempts, entry.doubtful) == (EntryState.UNCERTAIN, 2, 1)


async def test_a_purchase_that_is_sent_again_after_a_pause_counts_its_attempts(tmp_path: Path) -> None:
    """A refusal for load has bought nothing, so nothing is doubtful."""
    async with Sandbox(durations=0.05) as sandbox, hub(sandbox, tmp_path) as mirage:
        sandbox.fail("miragic.create", Fault(status=429, retry_after=0.05))
        await soon(mirage.miragic.generate(PROMPT))
        (entry,) = journal_entries(tmp_path)
        assert (entry.state, entry.attempts, entry.doubtful) == (EntryState.SUCCEEDED, 2, 0)


def test_the_state_an_error_stands_for() -> None:
    """One that is about our own waiting says nothing about what was sent before it."""
    late = WaitTimeoutError("late", provider="mirako", billed="unknown")
    early = WaitTimeoutError("early", provider="mirako", billed="no")
    unwritten = JournalError("full", billed="unknown")
    assert [state_of(error) for error in (late, early, unwritten)] == [
        EntryState.UNCERTAIN,
        EntryState.UNPAID,
        EntryState.UNCERTAIN,
    ]


async def test_an_outcome_is_handed_over_once_however_many_wait(tmp_path: Path) -> None:
    """A hundred waiters cost one row."""
    async with Sandbox(durations=0.05) as sandbox, hub(sandbox, tmp_path) as mirage:
        submitted = await soon(mirage.mirako.submit(PROMPT))
        await soon(asyncio.gather(*(submitted.result() for _ in range(100))))
        await submitted
        assert mirage._runtime.journal is not None
        await mirage._runtime.journal.owed()
        assert mirage._runtime.journal.statistics().rows == 4


async def test_a_result_that_is_awaited_after_the_end_is_told_quietly(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It was not recorded as handed over, so that it comes again."""
    async with Sandbox(durations=0.05) as sandbox:
        async with hub(sandbox, tmp_path / "journal") as mirage:
            submitted = await soon(mirage.mira.submit(PROMPT))
            await until(lambda: submitted.done)
        assert (await submitted).images
        assert not [record for record in caplog.records if record.levelname in {"ERROR", "CRITICAL"}]
        async with hub(sandbox, crashed(tmp_path / "journal", tmp_path / "copy")) as mirage:
            assert len(await mirage.recover()) == 1


async def test_a_request_that_is_kept_is_kept_before_it_is_sent(tmp_path: Path) -> None:
    """With `store_prompts`, and else not at all."""
    for name, stored in (("with", True), ("without", False)):
        journal = Journal(tmp_path / name, store_prompts=stored)
        owner = job(journal)
        await journal.intended(owner, wanted := intent())
        kept = await journal.request(owner.key)
        await journal.aclose()
        assert (kept is not None) is stored
        if kept is not None:
            assert (kept.body, kept.path, kept.method) == (wanted.call.body, wanted.call.path, wanted.call.method)


# -- a disk that does not answer --------------------------------------------------------------------------------------


@contextmanager
def stalled(mirage: Mirage) -> Iterator[None]:
    """Have the disk answer nobody until this is over."""
    journal, going_on = mirage._runtime.journal, threading.Event()
    assert journal is not None
    journal._writer.soon(lambda _: going_on.wait(30))
    try:
        yield
    finally:
        going_on.set()


@pytest.mark.parametrize("provider", ["miragic", "mira"])
async def test_a_disk_that_does_not_answer_is_waited_for_as_long_as_the_caller_waits(
    provider: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is sent, neither then nor later, and what was to be recorded is taken back."""
    monkeypatch.setattr("mirage_async.clients._desk.PLACE_WAIT", 0.1)
    async with Sandbox(durations=0.05) as sandbox, hub(sandbox, tmp_path) as mirage:
        with stalled(mirage):
            with pytest.raises(WaitTimeoutError, match="the journal's disk") as caught:
                await soon(
                    _job(mirage.submit(PROMPT, provider=provider, max_wait=0.1 if provider == "miragic" else None))
                )
            assert (caught.value.billed, caught.value.waited_for) == ("no", "journal")
            assert "was not sent" in str(caught.value)
            assert mirage.client(provider).jobs == ()
        await until(lambda: [entry.state for entry in journal_entries(tmp_path)] == [EntryState.UNPAID])
        monkeypatch.undo()
        assert (await soon(mirage.generate(PROMPT, provider=provider))).images
        assert sandbox.statistics().purchases == {provider: 1}


async def test_closing_ends_the_wait_for_a_disk_that_does_not_answer(tmp_path: Path) -> None:
    """What is on its way to the disk is taken back there."""
    async with Sandbox() as sandbox, hub(sandbox, tmp_path) as mirage:
        with stalled(mirage):
            waiting = asyncio.ensure_future(mirage.submit(PROMPT, provider="miragic"))
            await asyncio.sleep(0.1)
            closing = asyncio.ensure_future(mirage.aclose())
            with pytest.raises(ClosedError) as caught:
                await soon(waiting)
            assert caught.value.billed == "no"
        await closing
        assert [entry.state for entry in journal_entries(tmp_path)] == [EntryState.UNPAID]
        assert sandbox.statistics().purchases == {}


@pytest.mark.parametrize("closed", [False, True])
async def test_what_is_recorded_too_late_is_not_sent(
    closed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk answers in the very moment in which it is of no use any more."""
    async with Sandbox() as sandbox, hub(sandbox, tmp_path) as mirage:
        journal, runtime = mirage._runtime.journal, mirage._runtime
        assert journal is not None
        intended = journal.intended

        async def late(job: Any, intent: Any) -> None:
            await intended(job, intent)
            if closed:
                runtime.closed = True
            else:
                while runtime.clock.monotonic() < intent.deadline:  # as long as nothing else gets a turn
                    pass

        monkeypatch.setattr(journal, "intended", late)
        with pytest.raises(ClosedError if closed else WaitTimeoutError) as caught:
            await soon(mirage.submit(PROMPT, provider="miragic", max_wait=0.1))
        assert caught.value.billed == "no"
        await until(lambda: [entry.state for entry in journal_entries(tmp_path)] == [EntryState.UNPAID])
        assert sandbox.statistics().purchases == {}
        runtime.closed = False
