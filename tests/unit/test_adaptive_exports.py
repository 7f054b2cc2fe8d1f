"""What an adaptive policy has learned, kept and taken over by another: whole, merged, or refused as a whole."""

from __future__ import annotations

import copy
import doctest
import json
import math
import random
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from virtual_days import Day, schedule, sighting, trained, view

from mirage_async.exceptions import ConfigurationError
from mirage_async.scheduler import AdaptiveInterval

if TYPE_CHECKING:
    from pathlib import Path


def test_an_export_is_json_and_takes_everything_along() -> None:
    """A policy that loads it asks as the other would have, and exports the same."""
    first = trained(60)
    day, source = Day(first), random.Random(3)
    for _ in range(60):
        duration = source.lognormvariate(math.log(5), 0.4)
        day.job(duration, lambda now, duration=duration: now / duration, model="flux")  # type: ignore[misc]
    exported = json.loads(json.dumps(first.export(), allow_nan=False))
    second = AdaptiveInterval(jitter=0)
    second.load(exported)
    assert second.export() == exported
    told = [[(each.jobs_finished, each.progress_trusted) for each in one.statistics()] for one in (first, second)]
    assert told[0] == told[1] == [(60, False), (60, True)]
    assert schedule(second) == pytest.approx(schedule(first), rel=0.1)
    job = view(2.0, progress=0.3, model="flux")
    assert second.next_interval(job) == pytest.approx(first.next_interval(job), rel=0.1)


def test_counts_beyond_all_bounds_are_still_exported_as_what_can_be_loaded() -> None:
    """Two exports may each be allowed, and their sum not."""
    exported = trained().export()
    exported["models"][0].update(jobs=2**53, drifts=2**53)
    policy = AdaptiveInterval()
    for _ in range(2):
        policy.load(exported)
    again = policy.export()
    AdaptiveInterval().load(again)
    assert [again["models"][0][name] for name in ("jobs", "drifts")] == [2**53] * 2


def test_loading_leaves_other_kinds_of_jobs_alone() -> None:
    """Only what the export names is replaced."""
    policy = AdaptiveInterval()
    policy.observe(sighting(0, 1, "done", model="flux"))
    policy.load(trained().export())
    assert [(each.model, each.jobs_finished) for each in policy.statistics()] == [("flux", 1), (None, 50)]


HOSTILE: dict[str, tuple[tuple[Any, ...], Any, str]] = {
    "another version": (("version",), 2, "version must be 1; got 2"),
    "no version": (("version",), None, "version must be 1; got None"),
    "true as a version": (("version",), True, "version must be 1; got True"),
    "models that are none": (("models",), {}, "Expected `array`"),
    "a model that is none": (("models", 0), 5, "Expected `object`"),
    "an unknown field": (("models", 0, "extra"), 5, "unknown field `extra`"),
    "a negative count": (("models", 0, "events", 3), -1.0, r"`float` >= 0.* `\$.models\[0\].events\[3\]`"),
    "a count that is NaN": (("models", 0, "at_risk", 3), math.nan, r"not finite|`float`"),
    "an infinite count": (("models", 0, "at_risk", 3), math.inf, "`float` <= 1000000"),
    "an endless list": (("models", 0, "events"), [0.0] * 129, "length <= 128"),
    "more ended than at risk": (("models", 0, "at_risk"), [], "jobs ended and only 0 were at risk"),
    "a deviation of nothing": (("models", 0, "deviation"), 0.0, "`float` >= 0.001"),
    "a mean that is NaN": (("models", 0, "mean"), math.nan, "not finite|`float`"),
    "text for a number": (("models", 0, "evidence"), "5", "Expected `float`, got `str`"),
    "a hint of nothing": (("models", 0, "typical"), 0, "`float` > 0"),
    "a missing band": (("models", 0, "bands"), [], "length >= 4"),
    "a band with a credit of its own choice": (("models", 0, "bands", 0, "credit"), 1e9, "`float` <= 12"),
    "evidence of more jobs than a model weighs": (("models", 0, "evidence"), 102.0, "`float` <= 101"),
    "more ended than a model weighs": (("models", 0, "events", 3), 102.0, "`float` <= 101"),
    "more at the first look than a model weighs": (("models", 0, "at_first"), [102.0], "`float` <= 101"),
    "a huge count of jobs": (("models", 0, "jobs"), 2**70, "int"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_broken_export_is_refused_and_changes_nothing(name: str) -> None:
    """The error says what is wrong, and the policy goes on as before."""
    path, value, message = HOSTILE[name]
    exported = copy.deepcopy(GOOD)
    place: Any = exported
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    policy = trained(10)
    before = policy.export()
    with pytest.raises(ConfigurationError, match=f"no export of an adaptive interval policy: .*(?:{message})"):
        policy.load(exported)
    assert policy.export() == before


GOOD = trained(30).export()
GOOD_TEXT = json.dumps(GOOD)


def test_no_export_that_is_taken_stops_the_learning() -> None:
    """One that claims all it may of jobs that never end is forgotten within a hundred that do.

    So is one that claims all it may of jobs that ended, and what becomes of both can be exported and loaded again.
    """
    for ended, at_risk in ((0.0, 1e12), (101.0, 101.0)):
        exported = copy.deepcopy(GOOD)
        learned = exported["models"][0]
        learned |= {"evidence": 101.0, "events": [ended] * 60, "at_risk": [at_risk] * 128, "at_first": [ended] * 60}
        policy, source = AdaptiveInterval(seed=0), random.Random(1)
        policy.load(exported)
        policy.load(json.dumps(policy.export()))
        AdaptiveInterval().load(policy.export())
        for number in range(100):
            duration = source.lognormvariate(math.log(900), 0.2)
            policy.observe(sighting(0.0, duration * 0.95, at=float(number)))
            policy.observe(sighting(duration * 0.95, duration * 1.05, "done", at=float(number)))
        assert policy.statistics()[0].median == pytest.approx(900, rel=0.15)


@pytest.mark.parametrize(("mean", "away"), [(-10.0, 0.26), (20.0, 9e6)])
def test_what_was_learned_on_from_the_limits_can_be_loaded_again(mean: float, away: float) -> None:
    """An export may stand at the very edge of what is allowed; what it leads to is never beyond."""
    exported = copy.deepcopy(GOOD)
    learned = exported["models"][0]
    bands = [{"marks": 100.0, "mean": 0.0, "variance": 1e-12, "credit": 4.0}] * 4
    learned |= {
        "evidence": 1e-300,
        "mean": mean,
        "deviation": 20.0,
        "bands": bands,
        "typical": 1e6 if mean > 0 else None,
    }
    learned |= {"events": [], "at_risk": [1e4] * 128 if mean > 0 else [], "at_first": [] if mean > 0 else [101.0]}
    policy = AdaptiveInterval()
    policy.load(exported)
    for number in range(20):
        shown = ((away * 0.5, 0.5),)
        policy.observe(sighting(0.0, away, "done", at=float(number), shown=shown))
        AdaptiveInterval().load(policy.export())
        policy.observe(sighting(away * 0.9, away, "done", at=number + 0.5, shown=shown))
        AdaptiveInterval().load(policy.export())


@pytest.mark.parametrize("exported", [None, 5, [], {}, "{}", b"[]", "null"])
def test_what_is_no_export_at_all_is_refused(exported: Any) -> None:
    """Anything may be passed; only an export is taken."""
    with pytest.raises(ConfigurationError, match="version must be 1; got None"):
        AdaptiveInterval().load(exported)


@pytest.mark.parametrize(
    "exported",
    ["", b"", "text", b"\xff\xfe", "\ud800", b"[" * 100_000, b"\x00" * 512, GOOD_TEXT[: len(GOOD_TEXT) // 2]],
    ids=["nothing", "no bytes", "text", "no UTF-8", "half a surrogate", "deep", "zeros", "cut short"],
)
def test_a_damaged_file_is_refused_and_changes_nothing(exported: str | bytes) -> None:
    """A write that was cut off, a disk that went bad: one error to catch, and the policy goes on as before."""
    policy = trained(10)
    before = policy.export()
    with pytest.raises(ConfigurationError, match="no export of an adaptive interval policy: no JSON: "):
        policy.load(exported)
    assert policy.export() == before


def test_an_export_that_names_a_kind_twice_is_refused() -> None:
    """It would count twice."""
    doubled = {**GOOD, "models": GOOD["models"] * 2}
    with pytest.raises(ConfigurationError, match=r"models\[1\] is about the same kind of job as one before"):
        AdaptiveInterval().load(doubled)


def test_loading_adds_to_what_was_learned_meanwhile() -> None:
    """Five jobs of the new process and sixty of the old one are sixty-five; the new ones count in full."""
    old, new = trained(60), trained(5)
    new.load(old.export())
    (learned,) = new.statistics()
    assert learned.jobs_finished == 65
    assert schedule(new, 3) == pytest.approx(schedule(old, 3), rel=0.2)
    full, other = trained(400), AdaptiveInterval()
    before = full.statistics()[0].median
    for number in range(400):
        other.observe(sighting(100, 101, "done", at=float(number)))
    full.load(other.export())
    assert other.statistics()[0].median > 95
    assert full.statistics()[0].median == pytest.approx(before, rel=0.1)  # there was room for hardly anything
    assert full.statistics()[0].jobs_finished == 800


def test_progress_loaded_counts_where_it_has_learned_from_more() -> None:
    """A band of progress is taken over from whichever has seen more of it."""
    honest = AdaptiveInterval(seed=1)
    day, source = Day(honest), random.Random(3)
    for _ in range(60):
        duration = source.lognormvariate(math.log(5), 0.4)
        day.job(duration, lambda now, duration=duration: now / duration)  # type: ignore[misc]
    policy = trained(10)
    policy.load(honest.export())
    assert policy.statistics()[0].progress_trusted
    honest.load(trained(10).export())
    assert honest.statistics()[0].progress_trusted


def test_a_credit_from_an_earlier_version_counts_as_far_as_one_can_be_saved_up() -> None:
    """A bar is not believed for longer than one that was right in this process."""
    exported = copy.deepcopy(GOOD)
    for band, credit in zip(exported["models"][0]["bands"], (12.0, -12.0, 3.0, 0.0), strict=True):
        band["credit"] = credit
    policy = AdaptiveInterval()
    policy.load(exported)
    assert [band["credit"] for band in policy.export()["models"][0]["bands"]] == [4.0, -4.0, 3.0, 0.0]


def test_what_fifty_kinds_of_jobs_taught_takes_a_hundred_kilobytes() -> None:
    """The journal keeps it: two to three kilobytes a kind, whatever was seen."""
    policy = AdaptiveInterval(seed=1)
    day, source = Day(policy), random.Random(2)
    for model in range(50):
        for _ in range(30):
            day.job(source.lognormvariate(math.log(5 + model), 0.5), model=f"model {model}")
    assert len(json.dumps(policy.export())) < 50 * 3000


def test_a_new_process_starts_warm(tmp_path: Path) -> None:
    """What one process wrote to a file makes another ask at the very same moments."""
    code = """
        import json, sys
        from mirage_async.models import JobStatus, Pace
        from mirage_async.scheduler import AdaptiveInterval, JobView
        policy = AdaptiveInterval(jitter=0)
        policy.load(open(sys.argv[1], "rb").read())
        pace = Pace(first=1, interval=2, maximum=15, max_wait=300)
        views = (
            JobView(provider="miragic", kind="image", model=None, pace=pace, status=JobStatus.RUNNING, progress=None,
                    elapsed=step / 4, polls=1)
            for step in range(200)
        )
        print(json.dumps([policy.next_interval(view) for view in views]))
    """
    first, again = trained(60), AdaptiveInterval(jitter=0)
    kept = tmp_path / "durations.json"
    kept.write_text(json.dumps(first.export()), encoding="utf-8")
    printed = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(kept)], check=True, capture_output=True, timeout=60
    ).stdout
    again.load(first.export())
    told = [again.next_interval(view(step / 4)) for step in range(200)]
    assert [first.next_interval(view(step)) for step in range(8)] == pytest.approx(told[:32:4], rel=0.2)
    cold = [AdaptiveInterval(jitter=0).next_interval(view(step / 4)) for step in range(200)]
    assert json.loads(printed) == told
    assert cold != pytest.approx(told, rel=0.2)


def test_the_example_of_load_runs_as_it_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It begins without a file and leaves one."""
    monkeypatch.chdir(tmp_path)
    (example,) = doctest.DocTestFinder(recurse=False).find(
        AdaptiveInterval.load, "load", globs={"AdaptiveInterval": AdaptiveInterval}
    )
    assert doctest.DocTestRunner().run(example) == (0, len(example.examples))
    AdaptiveInterval().load((tmp_path / "durations.json").read_bytes())
    assert [path.name for path in tmp_path.iterdir()] == ["durations.json"]


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=60)
@given(field=st.sampled_from(sorted(GOOD["models"][0])), value=json_values)
def test_no_value_in_an_export_poisons_the_policy(field: str, value: Any) -> None:
    """It is refused, or the intervals are as good as ever: numbers within the bounds."""
    exported = copy.deepcopy(GOOD)
    exported["models"][0][field] = value
    policy = AdaptiveInterval()
    try:
        policy.load(exported)
    except ConfigurationError:
        return
    assert all(0.25 <= interval <= 600 for interval in schedule(policy))
