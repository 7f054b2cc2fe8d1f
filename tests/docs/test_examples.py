"""The examples and the benchmark are run as a reader would run them, with small numbers."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import aiohttp
import anyio
import anyio.to_thread
import pytest

from mirage_async.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

Running: TypeAlias = dict[str, tuple[subprocess.Popen[str], Path]]

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
BENCHMARK = ROOT / "benchmarks" / "concurrent.py"
BOUND = 60.0  # seconds, generous: an avatar is asked about after ten
ARGUMENTS = {"quickstart.py": ["pictures"], "many_jobs.py": ["16"], "batch.py": ["12"], "avatar.py": []}
SERVICES = ("webhook_aiohttp.py", "webhook_fastapi.py")  # which serve until they are ended
ALL = "--provider all --jobs 8 --concurrency 8 --sandbox --durations 0.2 --json"
ONE = "--provider mira --jobs 2 --concurrency 2 --sandbox --durations 0.1"


def start(script: Path, arguments: Sequence[str], folder: Path, **further: str) -> subprocess.Popen[str]:
    """Start a program of the checkout in a folder of its own."""
    ours = ("MIRAKO_", "MIRAGIC_", "MIRA_", "MILADY_", "MIRAGE_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return subprocess.Popen(
        [sys.executable, "-W", "error", str(script), *arguments],
        cwd=folder,
        env={**kept, "PYTHONPATH": str(ROOT), **further},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Wait for a program and return its exit code and what it printed and complained about; end it if it hangs."""
    try:
        printed, complained = process.communicate(timeout=BOUND)
    except subprocess.TimeoutExpired:
        process.kill()
        printed, complained = process.communicate()
    return process.returncode, printed, complained


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Start every program at once, because they mostly wait; end what a failed test left behind."""
    started: Running = {}
    programs = {name: (EXAMPLES / name, arguments) for name, arguments in ARGUMENTS.items()}
    programs |= {line: (BENCHMARK, line.split()) for line in (ALL, ONE)}
    for name, (script, arguments) in programs.items():
        folder = tmp_path_factory.mktemp(script.stem)
        started[name] = start(script, arguments, folder), folder
    yield started
    for process, _ in started.values():
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_every_example_is_run_and_listed() -> None:
    """A new example has to be tested here and to have its row in the table."""
    there = {path.name for path in EXAMPLES.glob("*.py")}
    listed = set(re.findall(r"\[(\w+\.py)\]", (EXAMPLES / "README.md").read_text(encoding="utf-8")))
    assert there == listed == {*ARGUMENTS, *SERVICES}


@pytest.mark.parametrize("name", sorted([*ARGUMENTS, *SERVICES]))
def test_an_example_fits_on_one_screen_or_so(name: str) -> None:
    """An example shows one idea in under 60 lines."""
    assert len((EXAMPLES / name).read_text(encoding="utf-8").splitlines()) < 60


@pytest.mark.anyio
async def test_with_real_keys_no_program_buys_more_than_it_says(running: Running, tmp_path: Path) -> None:
    """The switches that spend money lead to the environment's addresses, here a sandbox's, and buy what was allowed."""
    lines = {
        EXAMPLES / "quickstart.py": "pictures --real",
        EXAMPLES / "many_jobs.py": "4 --real",
        EXAMPLES / "batch.py": "5 --real",
        BENCHMARK: "--provider mira --jobs 2 --concurrency 1 --spend 3",
    }
    async with Sandbox(durations=0.1) as sandbox:
        processes = [
            start(script, line.split(), tmp_path, MIRAGE_SANDBOX_URL=sandbox.url) for script, line in lines.items()
        ]
        ended = [await anyio.to_thread.run_sync(finished, process) for process in processes]
        assert [code for code, _, _ in ended] == [0] * len(lines), ended
        assert sandbox.statistics().purchases == {"mirako": 2, "miragic": 2 + 5, "mira": 4, "milady": 2}


def test_the_quickstart_saves_a_picture_of_each_provider(
    running: Running,
) -> None:
    """Four providers, four files, four lines."""
    process, folder = running["quickstart.py"]
    code, printed, complained = finished(process)
    assert code == 0, complained
    assert [line.split()[0] for line in printed.splitlines()] == ["mirako", "miragic", "mira", "milady"]
    assert len(list((folder / "pictures").iterdir())) == 4


def test_a_batch_ends_with_its_budget_and_says_what_became_of_each(running: Running) -> None:
    """The refused one went to the second provider, the lost one did not, and both count as they should."""
    code, printed, complained = finished(running["batch.py"][0])
    assert code == 0, complained
    lines = printed.splitlines()
    assert sum(line.endswith(": miragic") for line in lines) == 10
    assert sum(line.endswith(": mirako after miragic") for line in lines) == 1
    assert sum("SubmissionUncertainError (billed: unknown)" in line for line in lines) == 1
    assert "  12 BudgetExceededError (billed: no)" in lines
    assert lines[-1] == "11 pictures, 1 uncertain, 12 counted as bought"


def test_many_jobs_finish_within_limits_and_are_counted(
    running: Running,
) -> None:
    """Every job appears in the summary, none as a failure."""
    code, printed, complained = finished(running["many_jobs.py"][0])
    assert code == 0, complained
    counts = re.findall(r"^ +(\d+) (\w+) done$", printed, re.MULTILINE)
    assert counts == [("4", "milady"), ("4", "mira"), ("4", "miragic"), ("4", "mirako")]
    assert "16 jobs in" in printed


def test_an_avatar_is_built_watched_and_drawn(running: Running) -> None:
    """The token comes first, the states follow, the picture is drawn from the finished avatar."""
    process, folder = running["avatar.py"]
    code, printed, complained = finished(process)
    assert code == 0, complained
    assert '"kind":"avatar"' in printed.splitlines()[0]
    assert "succeeded" in printed
    assert "Nova is READY" in printed
    assert list(folder.glob("nova.*"))


@asynccontextmanager
async def serving(name: str, folder: Path) -> AsyncIterator[aiohttp.ClientSession]:
    """Start a service among the examples and yield a customer's session; end it as Ctrl-C does."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = start(EXAMPLES / name, [str(port)], folder)
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
            with anyio.fail_after(BOUND):
                while not await _answers(session, process):  # noqa: ASYNC110 - a process tells no event
                    await anyio.sleep(0.05)
            yield session
    finally:
        process.send_signal(signal.SIGINT)
        code, _, complained = await anyio.to_thread.run_sync(finished, process)
    assert "Traceback" not in complained.replace("KeyboardInterrupt", ""), complained
    assert code in {0, 1, -signal.SIGINT, 130}, complained


async def _answers(session: aiohttp.ClientSession, process: subprocess.Popen[str]) -> bool:
    assert process.poll() is None, process.communicate()
    try:
        async with session.get("/nothing") as answer:
            return answer.status == 404
    except aiohttp.ClientConnectionError:
        return False


@pytest.mark.anyio
async def test_the_aiohttp_service_draws_pictures_with_one_status_call_each(tmp_path: Path) -> None:
    """The sandbox's deliveries resolve its jobs."""

    async def draw(session: aiohttp.ClientSession) -> tuple[bytes, str]:
        async with session.post("/pictures", data="a lighthouse") as answer:
            return (await answer.read())[:3], answer.headers["X-Status-Calls"]

    async with serving("webhook_aiohttp.py", tmp_path) as session:
        drawn = await asyncio.gather(*(draw(session) for _ in range(5)))
    assert drawn == [(b"\xff\xd8\xff", "1")] * 5


@pytest.mark.anyio
async def test_the_fastapi_service_takes_orders_and_hands_pictures_out(tmp_path: Path) -> None:
    """The same, in two steps."""

    async def draw(session: aiohttp.ClientSession) -> tuple[bytes, str]:
        async with session.post("/pictures", params={"prompt": "a lighthouse"}) as answer:
            assert answer.status == 202
            key = (await answer.json())["key"]
        async with session.get(f"/pictures/{key}") as answer:
            return (await answer.read())[:3], answer.headers["X-Status-Calls"]

    async with serving("webhook_fastapi.py", tmp_path) as session:
        drawn = await asyncio.gather(*(draw(session) for _ in range(5)))
        async with session.get("/pictures/nobodys") as answer:
            assert answer.status == 404
    assert drawn == [(b"\xff\xd8\xff", "1")] * 5


def test_many_real_jobs_need_a_number(tmp_path: Path) -> None:
    """With real keys the example buys nothing unless it is told how much."""
    code, _, complained = finished(start(EXAMPLES / "many_jobs.py", ["--real"], tmp_path))
    assert code == 1
    assert "each one is a purchase" in complained


def test_the_benchmark_reports_on_a_sandbox_of_its_own(
    running: Running,
) -> None:
    """The figures that are known are there, and no job has failed."""
    code, printed, complained = finished(running[ALL][0])
    assert code == 0, complained
    report = json.loads(printed)
    assert report["jobs"] == 8
    assert report["failures"] == {}
    assert report["latency_median"] <= report["latency_p95"] <= report["latency_max"]
    assert report["polls_per_job"] >= 1
    assert report["detection_delay_median"] >= 0
    assert report["client_cpu_ms_per_job"] > 0


def test_the_benchmark_says_what_is_unknown(running: Running) -> None:
    """A provider that answers with the picture has no polls and nothing to detect late."""
    code, printed, complained = finished(running[ONE][0])
    assert code == 0, complained
    assert re.search(r"polls per polled job +unknown", printed)
    assert re.search(r"detection delay median / p95 +unknown / unknown", printed)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--jobs", "1"], "real keys cost money"),
        (["--jobs", "3", "--spend", "2"], "3 jobs are more than the 2 purchases"),
        (["--sandbox", "--durations", "-1"], "--durations must be seconds"),
    ],
)
def test_the_benchmark_refuses_in_one_line_what_nobody_allowed(arguments: list[str], why: str, tmp_path: Path) -> None:
    """Nothing is bought without a stated maximum, and a refusal is a usage error."""
    code, printed, complained = finished(start(BENCHMARK, arguments, tmp_path))
    assert (code, printed) == (2, "")
    assert why in complained
    assert len(complained.splitlines()) == 1
