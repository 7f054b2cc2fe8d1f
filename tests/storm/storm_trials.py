"""One trial: programs that buy and are killed, programs that recover, and a judge who believes the server alone.

Everything about a trial follows from its number, but for what the machine's load makes of the moments.
"""

from __future__ import annotations

import asyncio
import io
import math
import os
import random
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from PIL import Image
from storm_diary import number_in, read_diary
from storm_judge import Sight, Verdict, judge
from storm_worker import KINDS, Plan, kind_of

from mirage_async.journal import journal_entries
from mirage_async.sandbox import Fault, Sandbox

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["MOMENTS", "Trial", "run"]

KILLED = -9
PATIENCE = 60.0  # seconds that any process may take
BUSY = 0.7  # seconds of buying, at most, before a random end
START = 0.5  # seconds in which a process starts, roughly

IN_THE_PROGRAM = (
    "before the intent",
    "after the intent",
    "after the reply",
    "after the id",
    "before the outcome",
    "after the files",
    "after the outcome",
    "before the hand-over",
    "after the hand-over",
)
PASSES = {"after the files": (1, 5)}  # only pictures that came inside the answer are written
"""How manieth pass through a point is the last, at least and at most."""

AT_THE_SERVER: dict[str, tuple[Fault, dict[str, str]]] = {
    "mid-POST, not taken": (Fault(stall=math.inf), {kind: kind for kind in KINDS}),
    "mid-POST, taken": (Fault(stall=math.inf, when="after"), {kind: kind for kind in KINDS}),
    "polling": (
        Fault(stall=math.inf),
        {
            "mirako.create": "mirako.status",
            "miragic.create": "miragic.status",
            "mirako.avatar_create": "mirako.avatar_status",
        },
    ),
    "during an early download": (Fault(dribble=3600.0), {"miragic.create": "miragic.download"}),
    "during a late download": (
        Fault(dribble=3600.0),
        {"mira.generate": "mira.download", "milady.generate": "milady.download"},
    ),
}
"""What holds the server up, and where, by what is bought."""

RANDOM = "at random"
MOMENTS = (*IN_THE_PROGRAM, *AT_THE_SERVER, *[RANDOM] * 6)
AGAIN = (
    "after the merge",
    "after the taking",
    "after the id",
    "before the outcome",
    "after the outcome",
    "before the hand-over",
    RANDOM,
)
TIMES_AGAIN = (0, 0, 0, 1, 1, 2)  # how often a program that recovers is killed as well, with equal chances

# Where Python is told to write no bytecode every process would compile all it loads, most of its time.
_BYTECODE = tempfile.TemporaryDirectory(prefix="mirage-bytecode-") if sys.dont_write_bytecode else None


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What happens in one trial.

    Attributes:
        number: which one it is.
        moment: when the first program is killed.
        again: when each of the programs that recover is killed, but for the last one.
        keyed: the programs use keys of their own, and ask for everything again.
        programs: how many buy at the same time, in the same journal.
        prompts: the journal stores the prompts.
        noisy: the server is in the usual trouble.
    """

    number: int
    moment: str
    again: tuple[str, ...]
    keyed: bool
    programs: int
    prompts: bool
    noisy: bool

    @classmethod
    def of(cls, number: int) -> Trial:
        """Return the trial of that number."""
        rng = random.Random(f"storm {number}")
        return cls(
            number=number,
            moment=MOMENTS[number % len(MOMENTS)],
            again=tuple(rng.choices(AGAIN, k=rng.choice(TIMES_AGAIN))),
            keyed=rng.random() < 0.5,
            programs=2 if rng.random() < 0.3 else 1,
            prompts=rng.random() < 0.3,
            noisy=rng.random() < 0.5,
        )


@dataclass
class _Stage:
    """What one trial works with."""

    trial: Trial
    folder: Path
    sandbox: Sandbox
    rng: random.Random
    names: list[str] = field(default_factory=list[str])  # of the diaries
    started: list[asyncio.subprocess.Process] = field(default_factory=list[asyncio.subprocess.Process])
    sabotage: str = ""

    async def start(self, name: str, **what: Any) -> asyncio.subprocess.Process:
        """Start a program."""
        self.names.append(name)
        plan = Plan(
            url=self.sandbox.url,
            folder=str(self.folder),
            name=name,
            trial=self.trial.number,
            keyed=self.trial.keyed,
            prompts=self.trial.prompts,
            sabotage=self.sabotage,
            **what,
        )
        program = Path(__file__).with_name("storm_worker.py")
        with (self.folder / f"{name}.stderr").open("wb") as stderr:
            process = await asyncio.create_subprocess_exec(
                sys.executable, str(program), msgspec.json.encode(plan).decode(), stderr=stderr, env=_environment()
            )
        self.started.append(process)
        return process

    async def end(self) -> None:
        """Leave no program behind, whatever has gone wrong."""
        for process in self.started:
            if process.returncode is None:
                process.kill()
                await process.wait()

    def again(self) -> dict[int, str]:
        """Return what the next program asks for again, keys by numbers.

        With keys of its own that is everything. Without, it is what a program was given and may not have kept.
        """
        begun: dict[int, str] = {}
        given: set[str] = set()
        for line in (line for name in self.names for line in self.diary(name)):
            if line["point"] == "before the intent":
                begun[line["number"]] = line["key"]
            elif line["point"] == "before the hand-over":
                given.add(line["key"])
            elif line["point"] == "kept":
                given.discard(line["key"])
        return {number: key for number, key in begun.items() if self.trial.keyed or key in given}

    def diary(self, name: str) -> list[dict[str, Any]]:
        """Return what a program has written."""
        return read_diary(self.folder / f"{name}.diary")

    def last_words(self, name: str) -> str:
        """Return what a program has said on standard error."""
        return (self.folder / f"{name}.stderr").read_text("utf-8", "replace")[-4000:]


async def run(trial: Trial, folder: Path, *, sabotage: str = "") -> Verdict:
    """Run a trial and judge it."""
    (folder / "results").mkdir()
    (folder / "portrait.png").write_bytes(_portrait())
    durations = {"mirako": (0.02, 0.25), "miragic": (0.02, 0.25), "mira": (0.02, 0.25), "milady": (0.02, 0.25)}
    async with Sandbox(seed=7, durations=durations) as sandbox:
        stage = _Stage(trial, folder, sandbox, random.Random(f"moments {trial.number}"), sabotage=sabotage)
        try:
            return await _run(stage)
        finally:
            await stage.end()


async def _run(stage: _Stage) -> Verdict:
    await _buy_and_die(stage)
    sandbox, folder = stage.sandbox, stage.folder
    sight = Sight(kept=frozenset(_names_in(folder / "results")), unanswered=_unanswered(sandbox))
    for time, moment in enumerate(stage.trial.again, 1):
        await _recover_and_die(stage, f"again-{time}", moment)
    process = await stage.start("last", recovers=True, again=stage.again())
    async with asyncio.timeout(PATIENCE):
        code = await process.wait()
    assert code == 0, stage.last_words("last")
    await _until(process, lambda: not sandbox.statistics().open_jobs, alive=False)
    diaries = [stage.diary(name) for name in stage.names]
    verdict = await judge(sandbox, folder, diaries, sight=sight)
    verdict.killed = sum("closed" not in map(_point, lines) for lines in diaries)
    return verdict


async def _buy_and_die(stage: _Stage) -> None:
    trial = stage.trial
    held = _hold(stage) if trial.moment in AT_THE_SERVER else None
    if trial.noisy:
        _make_noise(stage.sandbox)
    passes = stage.rng.randint(*PASSES.get(trial.moment, (5, 30)))
    fatal = (trial.moment, passes) if trial.moment in IN_THE_PROGRAM else None
    others = [await stage.start(f"other-{n}", first=1000 * n) for n in range(1, trial.programs)]
    process = await stage.start("first", fatal=fatal)
    if held is not None:
        assert await _until(process, lambda: _is_held(stage.sandbox, held)), stage.last_words("first")
    elif fatal is None:
        await _random_moment(stage, process)
    else:
        async with asyncio.timeout(PATIENCE):
            await process.wait()
    for each in (process, *others):
        if each.returncode is None:
            each.kill()
        assert await each.wait() == KILLED, stage.last_words("first")
    if any("ready" in map(_point, stage.diary(name)) for name in stage.names):
        journal_entries(stage.folder / "journal")  # can be read as it lies there


async def _random_moment(stage: _Stage, process: asyncio.subprocess.Process) -> None:
    """Wait for some time while a program buys, or seldom while it starts."""
    if stage.rng.random() < 0.15:
        await asyncio.sleep(stage.rng.uniform(0, START))
    else:
        assert await _until(process, lambda: stage.sandbox.requests), stage.last_words("first")
        await asyncio.sleep(stage.rng.uniform(0, BUSY))


async def _recover_and_die(stage: _Stage, name: str, moment: str) -> None:
    """Kill a program that recovers, unless it is done before it comes to that point."""
    fatal = None if moment == RANDOM else (moment, stage.rng.randint(1, 3))
    process = await stage.start(name, recovers=True, fatal=fatal, again=stage.again())
    if fatal is None:
        await asyncio.sleep(stage.rng.uniform(START / 2, 2 * START))
        if process.returncode is None:
            process.kill()
    async with asyncio.timeout(PATIENCE):
        assert await process.wait() in {0, KILLED}, stage.last_words(name)


def _hold(stage: _Stage) -> str:
    """Have the server hold one request of the kind, and return how the fault is told in its log."""
    fault, places = AT_THE_SERVER[stage.trial.moment]
    number = stage.rng.choice([number for number in range(6, 30) if kind_of(number) in places])
    stage.sandbox.fail(places[kind_of(number)], fault, prompt=f"#{number}.")
    return str(fault)


def _is_held(sandbox: Sandbox, fault: str) -> bool:
    return any(request.fault == fault for request in sandbox.requests)


def _unanswered(sandbox: Sandbox) -> frozenset[int]:
    """Return the numbers of the purchases that have arrived whole and are not answered."""
    return frozenset(
        number_in(request.body.decode(errors="replace"))
        for request in sandbox.requests
        if request.operation in KINDS and request.status is None and request.body
    )


def _make_noise(sandbox: Sandbox) -> None:
    for name in ("mirako.status", "miragic.status", "mirako.avatar_status"):
        sandbox.fail(name, Fault(status=503), times=None, probability=0.1)
    for name in ("mirako.create", "miragic.create", "mirako.avatar_create"):
        sandbox.fail(name, Fault(flaw="failed"), times=None, probability=0.1)
    for name in ("mirako.create", "mira.generate"):
        sandbox.fail(name, Fault(status=429, retry_after=0), times=None, probability=0.03)


async def _until(process: asyncio.subprocess.Process, condition: Callable[[], object], *, alive: bool = True) -> bool:
    """Wait for something at the server, as long as the program lives; return whether it has come."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            if alive and process.returncode is not None:
                return False
            await asyncio.sleep(0.002)
    return True


def _point(line: dict[str, Any]) -> str:
    return str(line["point"])


def _names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def _environment() -> dict[str, str]:
    """Return an environment in which the program finds the package, starts fast, and is not measured."""
    ours = ("MIRAKO_", "MIRAGIC_", "MIRA_", "MILADY_", "MIRAGE_", "COVERAGE_", "COV_")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    if _BYTECODE is not None:
        clean |= {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": _BYTECODE.name}
    return {**clean, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def _portrait() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (512, 512), "teal").save(buffer, "PNG")
    return buffer.getvalue()
