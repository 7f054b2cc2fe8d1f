"""Everything the simulation measures, and the marks it is measured against."""

from __future__ import annotations

import math
import random
import statistics
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias

from benchmarks._polling.hints import FACTORS, PACES, Lesson, lesson
from benchmarks._polling.laws import LAWS, UNSEEN, Law
from benchmarks._polling.liars import Lie, lies
from benchmarks._polling.rivals import RIVALS, Outcome, best_period, measure
from benchmarks._polling.trials import REPORTING, average, burst, cpu, fresh

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = ["FULL", "LEVELS", "OURS", "QUICK", "STEADY", "Effort", "Mark", "Place", "Report", "Row", "simulate"]

Place: TypeAlias = tuple[float, float]

LEVELS = (2, 6, 20, 60)  # polls that a delay of one mean duration is worth
STEADY = 20
OURS, FIXED = "AdaptiveInterval, {} jobs seen", "best fixed period in hindsight"


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much is simulated.

    Attributes:
        seeds: repetitions of everything that learns.
        sample: jobs each learned policy is tried on.
        rival_sample: jobs each rival is tried on.
        repeats: of a measurement of CPU time.
        slack: share by which a figure may pass its mark, for the noise of a small sample.
    """

    seeds: int
    sample: int
    rival_sample: int
    repeats: int
    slack: float


FULL = Effort(seeds=24, sample=60, rival_sample=400, repeats=20, slack=0.0)
QUICK = Effort(seeds=4, sample=30, rival_sample=60, repeats=4, slack=0.05)


@dataclass(frozen=True, kw_only=True)
class Row:
    """What one way of asking costs, as a multiple of the best schedule there is, and where it lies.

    Attributes:
        name: for people.
        by_level: geometric mean over the laws for each of `LEVELS`.
        overall: geometric mean over everything.
        images: the same without the avatars.
        worst: the worst combination of law and level.
        places: status calls per job and delay by mean duration, as geometric means for "pictures" and for "avatars";
            empty where they depend on the level.
        default: whether it is what a document or another library does.
    """

    name: str
    by_level: tuple[float, ...]
    overall: float
    images: float
    worst: float
    places: dict[str, Place] = field(default_factory=dict[str, "Place"])
    default: bool = False


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A figure that has to stay on one side of a bound."""

    name: str
    figure: float
    bound: float
    at_least: bool = False
    slack: float = 0.0

    @property
    def met(self) -> bool:
        """Whether it does."""
        if self.at_least:
            return self.figure >= self.bound * (1 - self.slack)
        return self.figure <= self.bound * (1 + self.slack)


@dataclass(kw_only=True)
class Report:
    """All figures; costs are multiples of the best schedule's, delays in mean durations, CPU in microseconds."""

    seed: int
    rows: list[Row] = field(default_factory=list[Row])
    unseen: list[Row] = field(default_factory=list[Row])
    front: list[dict[str, Place]] = field(default_factory=list[dict[str, "Place"]])
    ours: list[dict[str, Place]] = field(default_factory=list[dict[str, "Place"]])
    drift: dict[str, dict[str, float]] = field(default_factory=dict[str, dict[str, float]])
    progress: dict[str, dict[str, float]] = field(default_factory=dict[str, dict[str, float]])
    lies: dict[str, Lie] = field(default_factory=dict[str, "Lie"])
    hints: dict[str, dict[str, Lesson]] = field(default_factory=dict[str, dict[str, "Lesson"]])
    bursts: dict[str, float] = field(default_factory=dict[str, float])
    avatars_at_default_maximum: dict[str, float] = field(default_factory=dict[str, float])
    cpu: dict[str, float] = field(default_factory=dict[str, float])
    marks: list[Mark] = field(default_factory=list[Mark])


def simulate(effort: Effort, seed: int) -> Report:
    """Measure everything."""
    report = Report(seed=seed)
    best = {(law.name, level): law.optimum(level / law.mean).cost for law in LAWS + UNSEEN for level in LEVELS}
    report.unseen = _learned(effort, seed, best, UNSEEN)[:3]
    report.rows = [*_learned(effort, seed, best, LAWS), _hindsight(effort, best), *_rivals(effort, seed, best)]
    report.front = [_front(level) for level in _geometric(1, 2500, 16)]
    report.ours = [_our_places(effort, seed, level) for level in _geometric(1, 256, 9)]
    for title, factor in (("durations double", 2.0), ("durations halve", 0.5)):
        report.drift[title] = _drift(effort, seed, factor)
    report.progress = {name: _progress(effort, seed, name) for name in ("none", *REPORTING)}
    report.lies = lies(seed, effort.seeds)
    report.hints = {
        name: {title: lesson(pace, factor, effort.seeds) for title, factor in FACTORS.items()}
        for name, pace in PACES.items()
    }
    report.bursts = {law.name: _burst(law, seed, 200) for law in LAWS}
    report.avatars_at_default_maximum = _default_maximum(effort, seed, best)
    report.cpu = cpu(effort.repeats)
    report.marks = [replace(mark, slack=effort.slack) for mark in _marks(report)]
    return report


def geometric_mean(values: Iterable[float]) -> float:
    """Return the mean that treats twice and half as opposites."""
    return math.exp(statistics.fmean(map(math.log, values)))


def draws(law: Law, seed: int) -> Callable[[int], list[float]]:
    """Return what draws so many random durations."""
    source = random.Random(f"{law.name} {seed}")
    return lambda count: [law.quantile(source.uniform(1e-6, 1 - 1e-6)) for _ in range(count)]


def _row(name: str, ratios: dict[tuple[str, int], float], places: dict[str, Place], *, default: bool) -> Row:
    return Row(
        name=name,
        by_level=tuple(
            geometric_mean(ratio for (_, other), ratio in ratios.items() if other == level) for level in LEVELS
        ),
        overall=geometric_mean(ratios.values()),
        images=geometric_mean(ratio for (law, _), ratio in ratios.items() if law != "F"),
        worst=max(ratios.values()),
        places=places,
        default=default,
    )


def _places(outcomes: Sequence[tuple[Law, Outcome]]) -> dict[str, Place]:
    places = dict[str, Place]()
    for name in ("pictures", "avatars"):
        chosen = [(law, outcome) for law, outcome in outcomes if (law.name == "F") == (name == "avatars")]
        polls = geometric_mean(outcome.polls for _, outcome in chosen)
        places[name] = (polls, geometric_mean(outcome.delay / law.mean for law, outcome in chosen))
    return places


def _front(level: float) -> dict[str, Place]:
    best = [(law, law.optimum(level / law.mean)) for law in LAWS]
    return _places([(law, Outcome(optimum.polls, optimum.delay)) for law, optimum in best])


def _geometric(low: float, high: float, count: int) -> list[float]:
    return [low * (high / low) ** (number / (count - 1)) for number in range(count)]


def _learned(effort: Effort, seed: int, best: dict[tuple[str, int], float], laws: Sequence[Law]) -> list[Row]:
    stages = (0, 20, 100)
    kinds: tuple[int | str, ...] = (*stages, "hint")
    ratios: dict[int | str, dict[tuple[str, int], float]] = {kind: {} for kind in kinds}
    for law in laws:
        sample = law.sample(effort.sample)
        for level in LEVELS:
            price = level / law.mean
            bills: dict[int | str, list[tuple[int, float]]] = {kind: [] for kind in kinds}
            for number in range(effort.seeds):
                draw, desk, seen = draws(law, seed + 97 * number + level), fresh(price, number), 0
                for stage in stages:
                    desk.run(draw(stage - seen))
                    seen = stage
                    bills[stage] += desk.tried(sample)
                bills["hint"] += fresh(price, number, hint=law.quantile(0.5)).tried(sample)
            for kind, bill in bills.items():
                ratios[kind][law.name, level] = average(bill).cost(price) / best[law.name, level]
    names: dict[int | str, str] = {stage: OURS.format(stage) for stage in stages}
    names["hint"] = OURS.format(0) + ", median known"
    return [_row(names[kind], ratios[kind], {}, default=False) for kind in kinds]


def _hindsight(effort: Effort, best: dict[tuple[str, int], float]) -> Row:
    ratios = {
        (law.name, level): best_period(law, law.sample(effort.rival_sample), level / law.mean) / best[law.name, level]
        for law in LAWS
        for level in LEVELS
    }
    return _row(FIXED, ratios, {}, default=False)


def _rivals(effort: Effort, seed: int, best: dict[tuple[str, int], float]) -> list[Row]:
    rows = list[Row]()
    for rival in RIVALS:
        source = random.Random(seed)
        outcomes = [(law, measure(rival, law.sample(effort.rival_sample), source)) for law in LAWS]
        ratios = {
            (law.name, level): outcome.cost(level / law.mean) / best[law.name, level]
            for law, outcome in outcomes
            for level in LEVELS
        }
        rows.append(_row(rival.name, ratios, _places(outcomes), default=True))
    return sorted(rows, key=lambda row: row.overall)


def _our_places(effort: Effort, seed: int, level: float) -> dict[str, Place]:
    outcomes = list[tuple[Law, Outcome]]()
    for law in LAWS:
        bill = list[tuple[int, float]]()
        for number in range(max(2, effort.seeds // 4)):
            desk = fresh(level / law.mean, number)
            desk.run(draws(law, seed + 31 * number)(100))
            bill += desk.tried(law.sample(effort.sample))
        outcomes.append((law, average(bill)))
    return _places(outcomes)


def _drift(effort: Effort, seed: int, factor: float) -> dict[str, float]:
    """Return what jobs cost after durations changed for good, by their number since."""
    spans = {"jobs 1-5": (0, 5), "jobs 6-20": (5, 20), "jobs 21-50": (20, 50), "jobs 51-100": (50, 100)}
    ratios: dict[str, list[float]] = {span: [] for span in spans}
    for law in LAWS:
        price = STEADY / law.mean
        best = law.scaled(factor).optimum(price).cost
        bills: dict[str, list[tuple[int, float]]] = {span: [] for span in spans}
        for number in range(effort.seeds):
            draw, desk = draws(law, seed + 13 * number), fresh(price, number)
            desk.run(draw(200))
            bill = desk.run([factor * duration for duration in draw(100)])
            for span, (low, high) in spans.items():
                bills[span] += bill[low:high]
        for span, bill in bills.items():
            ratios[span].append(average(bill).cost(price) / best)
    return {span: geometric_mean(values) for span, values in ratios.items()}


def _progress(effort: Effort, seed: int, name: str) -> dict[str, float]:
    """Return what jobs with progress cost once 60 were seen, over the best schedule for jobs without."""
    ratios = dict[str, float]()
    for law in (law for law in LAWS if law.name in "ADF"):
        price = STEADY / law.mean
        bill = list[tuple[int, float]]()
        for number in range(max(2, effort.seeds // 3)):
            source, desk = random.Random(seed + number), fresh(price, number)
            durations = draws(law, seed + 7 * number)(200)
            reporting = REPORTING.get(name)
            bars = None if reporting is None else [reporting.of(each, source) for each in durations]
            bill += desk.run(durations, reporters=bars)[60:]
        ratios[law.name] = average(bill).cost(price) / law.optimum(price).cost
    return ratios | {"all": geometric_mean(ratios.values())}


def _burst(law: Law, seed: int, jobs: int) -> float:
    price = STEADY / law.mean
    bill = burst(law, price, jobs, seed) + burst(law, price, jobs, seed + 1)
    return average(bill).cost(price) / law.optimum(price).cost


def _default_maximum(effort: Effort, seed: int, best: dict[tuple[str, int], float]) -> dict[str, float]:
    """Return what avatars cost where no interval may be longer than the policy's default allows."""
    law = LAWS[-1]
    costs = dict[str, float]()
    for level in LEVELS:
        price = level / law.mean
        desk = fresh(price, seed, maximum=600.0)
        desk.run(draws(law, seed)(100))
        costs[str(level)] = average(desk.tried(law.sample(4 * effort.sample))).cost(price) / best["F", level]
    return costs


def _marks(report: Report) -> list[Mark]:
    rows = {row.name: row for row in report.rows}
    none, some, many = (rows[OURS.format(stage)] for stage in (0, 20, 100))
    dearest = min(row.overall for row in report.rows if row.default)
    return [
        Mark(name="cost with no job seen", figure=none.overall, bound=1.55),
        Mark(name="cost after 20 jobs", figure=some.overall, bound=1.12),
        Mark(name="cost after 100 jobs", figure=many.overall, bound=1.07),
        Mark(name="worst law and level after 100 jobs", figure=many.worst, bound=1.20),
        Mark(name="cheapest default by ours after 100 jobs", figure=dearest / many.overall, bound=2.2, at_least=True),
        Mark(
            name="best fixed period in hindsight by ours after 100 jobs",
            figure=rows[FIXED].overall / many.overall,
            bound=1.10,
            at_least=True,
        ),
        *(
            Mark(name=f"{title}, jobs 21-50", figure=spans["jobs 21-50"], bound=1.2)
            for title, spans in report.drift.items()
        ),
        Mark(name="exact progress", figure=report.progress["exact"]["all"], bound=0.60),
        Mark(name="noisy progress", figure=report.progress["noisy"]["all"], bound=0.75),
        Mark(
            name="random progress by none",
            figure=report.progress["random"]["all"] / report.progress["none"]["all"],
            bound=1.05,
        ),
        Mark(
            name="eight jobs with a bar that has begun to lie by none, at worst",
            figure=max(lie.first for lie in report.lies.values()),
            bound=1.45,
        ),
        Mark(
            name="longest delay of forty of them by none, at worst",
            figure=max(lie.longest / lie.longest_without for lie in report.lies.values()),
            bound=2.5,
        ),
        Mark(
            name="jobs until a wrong hint is found out, at worst",
            figure=max(each.jobs for lessons in report.hints.values() for each in lessons.values()),
            bound=12,
        ),
    ]
