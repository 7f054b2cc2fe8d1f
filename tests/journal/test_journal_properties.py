"""Whatever is recorded in whatever order, and wherever processes die: nothing that was acknowledged is lost."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from journal_bench import crashed, generation, intent, job, picture

from mirage_async.exceptions import (
    InputError,
    JobCancelledError,
    JobExpiredError,
    JobFailedError,
    MirageError,
    ServerError,
    SubmissionUncertainError,
)
from mirage_async.journal import EntryState, Journal, journal_entries

PICTURE = picture(size=(4, 4))
THE_REST = ("withdraw", "hand_over", "crash", "recover", "resolve", "neighbour")
OPEN = {"intended", "accepted", "uncertain"}
ENDED = {"succeeded", "failed", "cancelled", "expired"}
ENDS: dict[str, MirageError | None] = {
    "succeeded": None,
    "failed": JobFailedError("no"),
    "cancelled": JobCancelledError("no"),
    "expired": JobExpiredError("no"),
    "refused": ServerError("no", status=503, billed="no"),
    "unknown": SubmissionUncertainError("who knows"),
}


@dataclass(frozen=True)
class Purchase:
    """What has to be on disk of one purchase, written from the table of states, not from the statements."""

    state: str = ""
    id: str | None = None
    attempts: int = 0
    doubtful: int = 0
    handed_over: bool = False
    told: bool = False  # it was handed over, which need not be on disk yet
    ours: bool = True
    outcome: str | None = None

    @property
    def owed(self) -> bool:
        """Whether it has not reached anybody."""
        return bool(self.state) and not self.handed_over and self.state in OPEN | ENDED


class World:
    """A folder, the process that has it open, and what was acknowledged."""

    def __init__(self, folder: Path) -> None:
        self.root = folder
        self.folder = folder / "0"
        self.journal = Journal(self.folder, durability="process")
        self.purchases: dict[int, Purchase] = {}
        self.sending: set[int] = set()
        self.dead: list[Journal] = []
        self.processes = 0

    def owner(self, slot: int) -> Any:
        """Return the job of a purchase."""
        owner = job(self.journal, key=f"{slot:032x}")
        owner.id = self.purchases.get(slot, Purchase()).id
        return owner

    async def do(self, name: str, slot: int, end: str) -> None:
        """Do one thing, where it makes sense, and note what has to be true from then on."""
        if not self.purchases.get(slot, Purchase()).ours:
            await self.journal.entry(f"{slot:032x}")  # as everybody does who goes on with what another has begun
        await getattr(self, f"_do_{name}")(slot, self.purchases.get(slot, Purchase()), end)

    async def _do_intend(self, slot: int, was: Purchase, _: str) -> None:
        if was.state in {"", "unpaid", "intended", "uncertain"}:
            await self.journal.intended(self.owner(slot), intent())
            doubtful = was.doubtful + (was.state in {"intended", "uncertain"})
            self.purchases[slot] = Purchase(state="intended", attempts=was.attempts + 1, doubtful=doubtful)
            self.sending.add(slot)

    async def _do_withdraw(self, slot: int, was: Purchase, _: str) -> None:
        if was.state == "intended":
            await self.journal.withdrawn(self.owner(slot))
            self.sending.discard(slot)
            self.purchases[slot] = replace(was, state="uncertain" if was.doubtful else "unpaid")

    async def _do_accept(self, slot: int, was: Purchase, _: str) -> None:
        if was.state in {"intended", "uncertain"}:
            owner = self.owner(slot)
            owner.id = f"task-{slot}"
            await self.journal.accepted(owner)
            self.sending.discard(slot)
            self.purchases[slot] = replace(was, state="accepted", id=owner.id, handed_over=False, told=False)

    async def _do_settle(self, slot: int, was: Purchase, end: str) -> None:
        if was.state not in {"intended", "accepted"} or (was.id and end in {"refused", "unknown"}):
            return
        owner = self.owner(slot)
        await self.journal.settled(owner, ENDS[end] or generation(owner, PICTURE))
        self.sending.discard(slot)
        state = {"refused": "unpaid", "unknown": "uncertain"}.get(end, end)
        if was.doubtful and not was.id and state in {"unpaid", "failed"}:
            state = "uncertain"
        self.purchases[slot] = replace(was, state=state, outcome=end)

    async def _do_hand_over(self, slot: int, was: Purchase, _: str) -> None:
        if was.state in ENDED | {"uncertain"}:
            self.journal.handed_over(self.owner(slot))
            self.purchases[slot] = replace(was, told=True)

    async def _do_resolve(self, slot: int, was: Purchase, end: str) -> None:
        choices: dict[str, dict[str, Any]] = {"succeeded": {"id": "task-9"}, "refused": {"unpaid": True}}
        chosen = choices.get(end, {})
        try:
            await self.journal.resolve(f"{slot:032x}", **chosen)
        except InputError:
            assert was.state not in OPEN or slot in self.sending
            return
        assert was.state in OPEN
        assert slot not in self.sending
        state = "accepted" if "id" in chosen else "unpaid" if chosen else "abandoned"
        found = chosen.get("id", was.id)
        self.purchases[slot] = replace(was, state=state, id=found, handed_over=False, told=False, ours=False)

    async def _do_recover(self, *_: object) -> None:
        owed = await self.journal.owed()
        self._written()
        expected = {f"{slot:032x}" for slot, each in self.purchases.items() if each.owed and not each.ours}
        assert {entry.key for entry in owed} == expected
        await self.journal.take(expected)
        assert await self.journal.owed() == []
        for slot, each in self.purchases.items():
            if each.owed:
                self.purchases[slot] = replace(each, ours=True)

    async def _do_neighbour(self, slot: int, *_: object) -> None:
        """Have another process come, write something and end."""
        other = Journal(self.folder, durability="process")
        key = 1000 + self.processes
        self.processes += 1
        await other.intended(job(other, key=f"{key:032x}"), intent())
        assert f"{slot:032x}" not in {entry.key for entry in await other.owed()}
        await other.aclose()
        self.purchases[key] = Purchase(state="intended", attempts=1, ours=False)

    async def _do_crash(self, *_: object) -> None:
        """Go on in the next process with what is on disk."""
        self.dead.append(self.journal)
        self.sending.clear()
        self.folder = crashed(self.folder, self.root / f"{len(self.dead)}")
        on_disk = {entry.key: entry for entry in journal_entries(self.folder)}
        for slot, each in self.purchases.items():
            handed_over = on_disk[f"{slot:032x}"].handed_over
            assert handed_over == each.handed_over or each.told
            self.purchases[slot] = replace(each, handed_over=handed_over, told=handed_over, ours=False)
        self.journal = Journal(self.folder, durability="process")

    def _written(self) -> None:
        """Note that everything queued before is on disk."""
        for slot, each in self.purchases.items():
            self.purchases[slot] = replace(each, handed_over=each.told)

    async def check(self) -> None:
        """Compare what is on disk with what was acknowledged."""
        await self.journal.noted("nothing")  # whatever was queued is written by now
        self._written()
        found = {entry.key: entry for entry in journal_entries(self.folder)}
        assert found.keys() == {f"{slot:032x}" for slot in self.purchases}
        for slot, each in self.purchases.items():
            entry = found[f"{slot:032x}"]
            assert (entry.state, entry.id, entry.attempts, entry.doubtful, entry.handed_over) == (
                EntryState(each.state),
                each.id,
                each.attempts,
                each.doubtful,
                each.handed_over,
            )
            assert (entry.owed, entry.settled) == (each.owed, each.state in ENDED)
            assert (entry.outcome is None) == (each.outcome is None)
            for image in entry.outcome.images if entry.outcome else ():
                if each.id is None:
                    assert (self.folder / "pictures" / str(image.file)).read_bytes() == PICTURE

    async def end(self) -> None:
        """Close everything."""
        for each in (*self.dead, self.journal):
            await each.aclose()


steps = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "intend",
                "intend",
                "accept",
                "accept",
                "settle",
                "settle",
                "withdraw",
                "hand_over",
                "crash",
                "recover",
                "resolve",
                "neighbour",
            ]
        ),
        st.integers(0, 3),
        st.sampled_from(sorted(ENDS)),
    ),
    max_size=40,
)


@given(steps)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_acknowledged_fact_is_ever_lost(done: list[tuple[str, int, str]]) -> None:
    """Nor told otherwise than it was, nor owed by two, however often the process dies."""

    async def live(folder: Path) -> None:
        world = World(folder)
        try:
            for name, slot, end in done:
                await world.do(name, slot, end)
            await world.check()
            await world.do("crash", 0, "")
            await world.check()
            await world.do("recover", 0, "")
            await world.check()
        finally:
            await world.end()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(live(Path(folder)))
