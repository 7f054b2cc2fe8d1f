"""Benchmarks in their short form, run as a reader would run them, and held to what depends on no machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(script: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a benchmark with warnings as errors; its lines are not counted, which would take longer than it does."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    return subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            str(ROOT / "benchmarks" / script),
            *options,
            "--quick",
            "--json",
            "--seed",
            "0",
        ],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_a_generation_takes_exactly_the_requests_that_are_needed() -> None:
    """The server counts as many requests of ours as of a loop by hand: none is sent twice, and none fails."""
    ours = ("mirage_async", "mirage_async, learning", "mirage_async, Miragic")
    ended = run("client_overhead.py", "--without-peers", "--only", *ours, "--at-once", "1", "--repeats", "5")
    rows = json.loads(ended.stdout)
    assert [row["name"] for row in rows] == list(ours)
    assert [(row["requests"], row["raw_requests"]) for row in rows] == [(4, 4), (4, 4), (5, 5)]
    assert not any(row["failures"] for row in rows)


def test_a_day_of_drift_cold_starts_an_outage_and_a_lying_bar_is_cheap_in_every_hour() -> None:
    """Two days of 3550 jobs: near the best schedules, in no hour dearer than without learning, fooled by no bar."""
    ended = run("polling.py", "--day")
    assert (ended.returncode, ended.stderr) == (0, "")
    day = json.loads(ended.stdout)
    ours, prior, backoff, loops, fixed = day["policies"].values()
    assert day["overall"]["AdaptiveInterval, the default"] <= 1.15
    assert all(learned <= 1.05 * unlearned for learned, unlearned in zip(ours, prior, strict=True))
    assert day["lying"] <= 1.05
    assert day["honest"] < 0.85
    assert min(sum(day["jobs"]), len(ours), len(backoff), len(loops), len(fixed)) == 24
    assert sum(day["jobs"]) == 3550
    assert day["overall"]["AdaptiveInterval, the default"] * 1.4 < min(
        day["overall"][name] for name in list(day["overall"])[2:4]
    )


def test_a_purchase_whose_answer_goes_wrong_arrives_once_and_is_reported_as_uncertain() -> None:
    """Ours once each, whatever follows it; another client sends the same purchase again, so the server can count."""
    ended = run("double_billing.py", "--only", "mirage_async", "openai")
    assert (ended.returncode, ended.stderr) == (0, "")
    report = json.loads(ended.stdout)
    assert report["not_installed"] == []
    cells = {(cell["client"], cell["fault"]): cell for cell in report["cells"]}
    ours = [cell for (client, _), cell in cells.items() if client != "openai"]
    assert len(ours) == 5 * 6
    assert {cell["posts"] for cell in ours} == {1}
    assert all(cell["uncertain"] for cell in ours if cell["fault"] != "200")
    assert cells["openai", "200"]["posts"] == 1
    assert cells["openai", "closes"]["posts"] > 1
    assert cells["openai", "closes once"] == {
        "client": "openai",
        "fault": "closes once",
        "posts": 2,
        "error": None,
        "uncertain": False,
    }


def test_those_who_wait_for_the_disk_together_share_its_flushes() -> None:
    """A commit for each of 500 takes longer, on whatever disk; and all the generations come home."""
    ended = run("journal.py", "--repeats", "1", "--rounds", "1")
    report = json.loads(ended.stdout)
    rates = {(row["name"], row["waiters"]): row["rate"]["median"] for row in report["rows"]}
    assert len(rates) == 6
    assert rates["journal", 500] > rates["aiosqlite, a commit a row", 500]
    assert set(report["generations"]) == {"plain", "journalled", "own_keys", "ratio", "own_keys_ratio"}


def test_a_picture_is_held_once_on_its_way_and_a_download_hardly_at_all() -> None:
    """Decoded from the answer, with pybase64 and without, or streamed to disk: by Python's own count of its objects."""
    ways = ("mira", "mira plain", "save")
    report = json.loads(run("decode.py", "--only", *ways, "--sizes", "5").stdout)
    rows = report["rows"]
    assert report["folder"] is not None
    assert [(row["way"], row["size"]) for row in rows] == [(way, 5) for way in ways]
    assert all(1.0 <= row["traced"]["median"] <= 1.2 for row in rows[:2])
    assert rows[2]["traced"]["median"] <= 0.6  # a slow disk lets chunks pile up, but not the picture
    assert all(row["cpu"]["median"] > 0 for row in rows)


def test_where_downloads_went_is_told_only_where_there_were_any() -> None:
    """Of this size there are none."""
    report = json.loads(run("decode.py", "--only", "mira", "save", "save disk", "--sizes", "1").stdout)
    assert [(row["way"], row["size"]) for row in report["rows"]] == [("mira", 1)]
    assert report["folder"] is None


def test_under_a_limit_pictures_do_not_wait_behind_avatars_and_nobody_starves() -> None:
    """A mixed load in virtual time, so the same figures everywhere: better than first come first served, in bounds."""
    jobs = ("--only", "mixed", "--jobs", "120", "--repeats", "1")
    report = json.loads(run("rate_cap.py", *jobs).stdout)
    marks = {mark["name"]: mark for mark in report["marks"]}
    for rate in ("1.3", "2", "4"):
        bound = marks[f"mixed, {rate}: calls anybody waited for by the stated bound, at most"]
        assert bound["met"]
        assert bound["figure"][0] > 0
        for way in ("AdaptiveInterval", "AdaptiveInterval, ask_early"):
            assert marks[f"mixed, {rate}: first come first served by {way}"]["figure"][0] > 1.2


def test_a_waiting_job_takes_no_more_memory_than_was_promised() -> None:
    """A thousand jobs, each awaited by a task of its own, which is not counted."""
    report = json.loads(run("in_flight.py", "--only", "memory", "--counts", "1000", "--repeats", "1").stdout)
    (held,) = report["memory"]
    assert held["jobs"] == 1000
    assert 300 < held["alone"]["median"] <= held["library"]["median"] <= 1024
