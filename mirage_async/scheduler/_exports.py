"""What an adaptive policy has learned, as JSON values, and the way back, which trusts nothing it reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, cast

import msgspec

from mirage_async.exceptions import ConfigurationError
from mirage_async.scheduler._durations import BUCKETS, DurationModel
from mirage_async.scheduler._fitting import Prior
from mirage_async.scheduler._progress import BANDS, Band, ProgressModel

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["VERSION", "Learned", "dump", "read"]

VERSION = 1
_DIGITS = 6  # behind the point, of counts of jobs
_MOST_ENDED = 101.0  # evidence fades so that it never weighs more than 100 jobs, and rounding adds less than one
_MOST_JOBS = 2**53  # as every reader of JSON can tell apart from one more
_LEAST_MEAN, _MOST_MEAN = -10.0, 20.0
_LEAST_DEVIATION, _MOST_DEVIATION = 1e-3, 20.0
_MOST_AT_RISK = 1e4  # kept of however many jobs never ended; more would only take longer to be outweighed

_Key: TypeAlias = tuple[str, str, str | None, str]
_Ended: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=_MOST_ENDED)]
_EndedCounts: TypeAlias = Annotated[list[_Ended], msgspec.Meta(max_length=BUCKETS)]
_Count: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=1e12)]
_Counts: TypeAlias = Annotated[list[_Count], msgspec.Meta(max_length=BUCKETS)]
_Whole: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=_MOST_JOBS)]
_Seconds: TypeAlias = Annotated[float, msgspec.Meta(gt=0, le=1e6)]
_Logarithm: TypeAlias = Annotated[float, msgspec.Meta(ge=_LEAST_MEAN, le=_MOST_MEAN)]
_Deviation: TypeAlias = Annotated[float, msgspec.Meta(ge=_LEAST_DEVIATION, le=_MOST_DEVIATION)]


class _Band(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    marks: Annotated[float, msgspec.Meta(ge=0, le=100)]
    mean: Annotated[float, msgspec.Meta(ge=-2.5, le=2.5)]
    variance: Annotated[float, msgspec.Meta(ge=1e-12, le=100)]
    credit: Annotated[float, msgspec.Meta(ge=-12, le=12)]  # what earlier versions let a band save up


class Learned(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One key of an export.

    Attributes:
        provider: first part of the key; the others follow.
        kind: "image" or "avatar".
        model: the model asked for, or None.
        phase: "queued" or "running".
        typical: the document's hint in seconds, or None.
        jobs: finished jobs seen.
        drifts: alarms raised.
        evidence: finished jobs, faded.
        mean: of the logarithm of the fitted lognormal.
        deviation: its standard deviation.
        events: jobs ended in each bucket, without the empty ones at the end.
        at_risk: jobs at risk in each bucket, likewise.
        at_first: jobs that their first look found finished, by the bucket of that look, likewise.
        bands: the bands of progress, lowest first.
    """

    provider: str
    kind: str
    model: str | None
    phase: str
    typical: _Seconds | None
    jobs: _Whole
    drifts: _Whole
    evidence: _Ended
    mean: _Logarithm
    deviation: _Deviation
    events: _EndedCounts
    at_risk: _Counts
    at_first: _EndedCounts
    bands: Annotated[list[_Band], msgspec.Meta(min_length=BANDS, max_length=BANDS)]

    def models(self, allowed: list[tuple[int, int]], delay_cost: float | None) -> tuple[DurationModel, ProgressModel]:
        """Return what was learned as models again; see `DurationModel` for the arguments."""
        durations = DurationModel(prior=Prior.of(self.typical), allowed=allowed, delay_cost=delay_cost)
        durations.jobs, durations.drifts = self.jobs, self.drifts
        durations.evidence, durations.mean, durations.deviation = self.evidence, self.mean, self.deviation
        at_risk = [min(count, _MOST_AT_RISK) for count in self.at_risk]
        durations.restore(_filled(self.events), _filled(at_risk), _filled(self.at_first))
        progress = ProgressModel()
        progress.bands = tuple(Band(band.marks, band.mean, band.variance, band.credit) for band in self.bands)
        return durations, progress


class _Export(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    version: int
    models: Annotated[list[Learned], msgspec.Meta(max_length=512)]


def dump(models: Iterable[tuple[_Key, float | None, DurationModel, ProgressModel]]) -> dict[str, Any]:
    """Return keys, hints and models as a dict of JSON values."""
    learned = [_learned(key, hint, durations, progress) for key, hint, durations, progress in models]
    exported: dict[str, Any] = msgspec.to_builtins(_Export(version=VERSION, models=learned))
    return exported


def read(exported: Any) -> list[tuple[_Key, Learned]]:
    """Return the keys of an export, as dict or as JSON text, and what was learned under each.

    Raises:
        ConfigurationError: it is not what `dump` returns; the message says what is wrong and where.
    """
    if isinstance(exported, str | bytes):
        try:
            exported = msgspec.json.decode(exported)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            raise _refusal(f"no JSON: {error}") from None
    version: object = None
    if isinstance(exported, dict):
        version = cast("dict[str, object]", exported).get("version")
    if version != VERSION or isinstance(version, bool):
        raise _refusal(f"version must be {VERSION}; got {version!r}")
    try:
        export = msgspec.convert(exported, _Export)
    except (msgspec.ValidationError, RecursionError) as error:
        raise _refusal(str(error)) from None
    found = dict[_Key, Learned]()
    for number, learned in enumerate(export.models):
        _check(f"models[{number}]", learned)
        key = (learned.provider, learned.kind, learned.model, learned.phase)
        if key in found:
            raise _refusal(f"models[{number}] is about the same kind of job as one before")
        found[key] = learned
    return list(found.items())


def _learned(key: _Key, hint: float | None, durations: DurationModel, progress: ProgressModel) -> Learned:
    events, at_risk, at_first = durations.counts()
    provider, kind, model, phase = key
    return Learned(
        provider=provider,
        kind=kind,
        model=model,
        phase=phase,
        typical=hint,
        jobs=min(durations.jobs, _MOST_JOBS),
        drifts=min(durations.drifts, _MOST_JOBS),
        evidence=min(durations.evidence, _MOST_ENDED),
        mean=min(max(durations.mean, _LEAST_MEAN), _MOST_MEAN),
        deviation=min(max(durations.deviation, _LEAST_DEVIATION), _MOST_DEVIATION),
        events=_trimmed(events, _MOST_ENDED),
        at_risk=_trimmed(at_risk, _MOST_AT_RISK),
        at_first=_trimmed(at_first, _MOST_ENDED),
        bands=[
            _Band(marks=band.marks, mean=band.mean, variance=band.variance, credit=band.credit)
            for band in progress.bands
        ],
    )


def _trimmed(counts: list[float], most: float) -> list[float]:
    # Rounding drops what it left itself where nothing was counted.
    rounded = [min(most, round(count, _DIGITS)) for count in counts]
    while rounded and rounded[-1] == 0:
        rounded.pop()
    return rounded


def _filled(counts: list[float]) -> list[float]:
    return counts + [0.0] * (BUCKETS - len(counts))


def _check(where: str, learned: Learned) -> None:
    for bucket, (ended, exposed) in enumerate(zip(learned.events, _filled(learned.at_risk), strict=False)):
        if ended > exposed + 10**-_DIGITS * 2:  # rounding
            raise _refusal(f"{where}: in bucket {bucket} {ended:g} jobs ended and only {exposed:g} were at risk")


def _refusal(why: str) -> ConfigurationError:
    return ConfigurationError(f"this is no export of an adaptive interval policy: {why}")
