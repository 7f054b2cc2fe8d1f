"""What progress is worth: trusted where it proved right, ignored where it did not, harmless where it is nonsense."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirage_async.scheduler import _looks
from mirage_async.scheduler._durations import EDGES, DurationModel
from mirage_async.scheduler._fitting import Prior, between, beyond
from mirage_async.scheduler._progress import Band, ProgressModel, foretold

if TYPE_CHECKING:
    from collections.abc import Callable

    Reporter = Callable[[float, float], float]

DELAY_COST = 2.0


def durations() -> DurationModel:
    """Return durations around ten seconds."""
    allowed = _looks.windows(EDGES, minimum=0.25, maximum=120)
    return DurationModel(prior=Prior.of(10.0), allowed=allowed, delay_cost=DELAY_COST)


def taught(reporter: Reporter, jobs: int = 60, *, progress: ProgressModel | None = None) -> ProgressModel:
    """Return a model that saw jobs whose progress after `elapsed` of `duration` seconds is what `reporter` says."""
    progress, without, source = progress or ProgressModel(), durations(), random.Random(1)
    for _ in range(jobs):
        duration = source.lognormvariate(math.log(10), 0.6)
        looks = [duration * share for share in (0.15, 0.3, 0.45, 0.6, 0.8, 0.97)]
        shown = tuple((look, reporter(look, duration)) for look in looks)
        progress.learn(shown, looks[-1], duration + 0.2, without)
    return progress


@pytest.mark.parametrize("progress", [-1.0, 0.0, 0.049, 1.01, 42.0, math.nan, math.inf, -math.inf])
def test_a_progress_out_of_range_foretells_nothing(progress: float) -> None:
    """Below 5 %, above 100 %, and whatever is no number."""
    assert foretold(10.0, progress) is None


@pytest.mark.parametrize("elapsed", [0.0, -1.0, math.nan, math.inf])
def test_a_time_that_is_none_foretells_nothing(elapsed: float) -> None:
    """Progress at the very beginning would mean infinite speed."""
    assert foretold(elapsed, 0.5) is None


def test_even_progress_foretells_the_rest() -> None:
    """A quarter after three seconds leaves nine; the last hundredth counts as one however it is rounded."""
    assert foretold(3.0, 0.25) == pytest.approx(9.0)
    assert foretold(99.0, 1.0) == foretold(99.0, 0.99) == pytest.approx(1.0)


def test_nobody_is_trusted_before_anything_was_seen() -> None:
    """A new provider's progress changes nothing."""
    assert ProgressModel().next_look(5.0, 0.5, DELAY_COST) is None
    assert taught(lambda elapsed, duration: elapsed / duration, 4).next_look(5.0, 0.3, DELAY_COST) is None


def test_a_progress_that_proved_right_sets_the_next_look() -> None:
    """After an honest provider's sixty jobs a look comes near the end that its progress foretells."""
    progress = taught(lambda elapsed, duration: elapsed / duration)
    assert progress.sharp()
    for elapsed, share in ((2.0, 0.2), (5.0, 0.4), (30.0, 0.6)):
        rest = elapsed * (1 - share) / share
        assert progress.next_look(elapsed, share, DELAY_COST) == pytest.approx(rest, rel=0.35)


def test_a_progress_that_is_wrong_by_a_factor_is_still_worth_something() -> None:
    """A bar that always leaves twice the time that is needed foretells the end once its habit is known."""
    progress = taught(lambda elapsed, duration: elapsed / (elapsed + 2 * (duration - elapsed)))
    for elapsed, share in ((5.0, 0.3), (8.0, 0.6)):
        rest = 0.5 * elapsed * (1 - share) / share
        assert progress.next_look(elapsed, share, DELAY_COST) == pytest.approx(rest, rel=0.4)


@pytest.mark.parametrize(
    "reporter",
    [
        lambda _elapsed, _duration: 0.5,
        lambda _elapsed, _duration: 0.99,
        lambda _elapsed, _duration: 1.0,
        lambda elapsed, _duration: random.Random(elapsed).random(),
        lambda _elapsed, _duration: math.nan,
        lambda _elapsed, _duration: 7.0,
    ],
    ids=["stuck at half", "stuck at 99 %", "done from the start", "random", "NaN", "out of range"],
)
def test_a_progress_that_means_nothing_is_never_trusted(reporter: Reporter) -> None:
    """Where the durations alone foretell the ends as well, progress is left out."""
    progress = taught(reporter, 200)
    assert all(progress.next_look(8.0, share, DELAY_COST) is None for share in (0.1, 0.3, 0.5, 0.7, 0.99))


def test_trust_is_lost_within_a_few_jobs() -> None:
    """A provider that was honest for sixty jobs and then is stuck at 90 % is not believed for long."""
    progress = taught(lambda elapsed, duration: elapsed / duration)
    assert progress.next_look(5.0, 0.9, DELAY_COST) is not None
    taught(lambda _elapsed, _duration: 0.9, 3, progress=progress)
    assert progress.next_look(5.0, 0.9, DELAY_COST) is None


def test_a_lie_in_one_band_silences_the_others() -> None:
    """A bar that was exact for long and then is stuck at 10 % is not believed at 60 % either, after two jobs."""
    progress = taught(lambda elapsed, duration: elapsed / duration, 300)
    assert progress.sharp()
    taught(lambda _elapsed, _duration: 0.1, 2, progress=progress)
    assert all(progress.next_look(5.0, share, DELAY_COST) is None for share in (0.1, 0.3, 0.6, 0.9))
    assert not progress.sharp()


def test_who_is_right_again_is_believed_again() -> None:
    """Lies are not held against a bar for longer than a few jobs."""
    progress = taught(lambda elapsed, duration: elapsed / duration)
    taught(lambda _elapsed, _duration: 0.1, 40, progress=progress)
    assert progress.next_look(5.0, 0.6, DELAY_COST) is None
    taught(lambda elapsed, duration: elapsed / duration, 8, progress=progress)
    assert progress.next_look(5.0, 0.6, DELAY_COST) is not None


@given(
    marks=st.lists(
        st.tuples(st.floats(1e-6, 1e6), st.floats(0, 1e6), st.floats(1e-6, 1e6), st.floats(0, 1)), max_size=50
    )
)
def test_whatever_is_seen_a_band_stays_sane(marks: list[tuple[float, float, float, float]]) -> None:
    """No sighting makes its numbers anything but finite, or its variance nothing."""
    band = Band()
    for rest, low, longer, without in marks:
        band.learn(rest, low, low + longer, without)
    assert all(map(math.isfinite, (band.marks, band.mean, band.variance, band.credit)))
    assert abs(band.mean) <= 2.5
    assert band.variance > 0


@given(elapsed=st.floats(1e-3, 1e6), share=st.floats(0, 1), delay_cost=st.floats(1e-6, 1e4))
def test_a_trusted_look_is_a_time_to_come(elapsed: float, share: float, delay_cost: float) -> None:
    """Whatever progress is shown when, the next look is a positive number of seconds away, or left to others."""
    step = HONEST.next_look(elapsed, share, delay_cost)
    assert step is None or 0 < step < math.inf


HONEST = taught(lambda elapsed, duration: elapsed / duration)


@given(low=st.floats(-30, 30), width=st.floats(1e-3, 30))
def test_a_truncated_normal_lies_within_its_bounds(low: float, width: float) -> None:
    """Its mean does, its variance is at most that of the whole, and the chance is one."""
    mean, variance, mass = between(low, low + width)
    assert low - 1e-6 <= mean <= low + width + 1e-6
    assert 0 <= variance <= 1 + 1e-6
    assert 0 <= mass <= 1
    above, spread = beyond(low)
    assert above >= low - 1e-6
    assert 0 <= spread <= 1
