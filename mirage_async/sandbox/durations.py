"""How long work takes: fixed times, ranges, long tails and cold starts, per provider, kind and model."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, cast

if TYPE_CHECKING:
    from collections.abc import Collection

_LONGEST = 1e9  # seconds, thirty years
_WIDEST = 10.0

__all__ = ["ColdStart", "Durations", "DurationsSetting", "Lognormal", "durations_from_json"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lognormal:
    """Durations with the long tail that real providers have.

    Attributes:
        median: seconds; half of the work is faster.
        sigma: spread of the logarithm, 0 to 10; 0.5 puts one job in twenty above 2.3 times the median.
        longest: seconds no draw exceeds; None for no bound.
    """

    median: float
    sigma: float = 0.5
    longest: float | None = None

    def __post_init__(self) -> None:
        _check("median", self.median)
        _check("sigma", self.sigma, _WIDEST)
        if self.longest is not None:
            _check("longest", self.longest)


@dataclass(frozen=True, slots=True, kw_only=True)
class ColdStart:
    """A worker that falls asleep: the first job after a pause takes longer.

    Attributes:
        warm: seconds a job takes, or a (low, high) range, or a `Lognormal`.
        cold: further seconds of the first job of all, and of the first after a pause.
        idle: seconds between two jobs' beginnings that count as a pause.
    """

    warm: float | tuple[float, float] | Lognormal
    cold: float
    idle: float = 60.0

    def __post_init__(self) -> None:
        if isinstance(_profile(self.warm), ColdStart):
            raise ValueError(f"warm must be seconds, a range or a Lognormal, got {self.warm!r}")  # noqa: TRY004 - a value
        _check("cold", self.cold)
        _check("idle", self.idle)


Profile: TypeAlias = float | tuple[float, float] | Lognormal | ColdStart
"""Seconds, a (low, high) range of them, or a distribution."""

DurationsSetting: TypeAlias = Profile | Mapping[str, Profile] | None
"""None for the defaults, one profile for everything, or profiles by "provider", "provider.kind" or "provider:model"."""

_DEFAULTS: dict[str, Profile] = {"image": (1.0, 3.0), "avatar": 4.0}


class Durations:
    """Draws the seconds each piece of work takes.

    Draws are seeded for each provider and kind on its own, so one provider's traffic does not change another's times.

    Args:
        setting: see `DurationsSetting`; what a mapping leaves out keeps its default (images 1-3 s, avatars 4 s).
        seed: seed of the draws.
        kinds: every "provider.kind" there is.

    Raises:
        ValueError: a name is unknown, or a duration is negative, not finite, or a range upside down.
    """

    def __init__(self, setting: DurationsSetting, *, seed: int, kinds: Collection[str]) -> None:
        self._seed = seed
        self._generators = {kind: random.Random(f"{seed}/{kind}") for kind in kinds}
        self._last: dict[str, float] = {}
        self._profiles: dict[str, Profile] = {}
        self.set(setting)

    def set(self, setting: DurationsSetting) -> None:
        """Let work that begins from now on take as long as `setting` says; see the class for what it raises."""
        self._profiles = _profiles(setting, self._generators)

    def restart(self) -> None:
        """Draw from the beginning again."""
        self._last.clear()
        for kind, source in self._generators.items():
            source.seed(f"{self._seed}/{kind}")

    def draw(self, provider: str, kind: str, *, model: str, now: float) -> float:
        """Return the seconds the next piece of work takes if it begins at the moment `now`."""
        name = f"{provider}.{kind}"
        by_model = f"{provider}:{model}"
        names = [one for one in (by_model, name, provider, "") if one in self._profiles]
        profile = self._profiles[names[0]] if names else _DEFAULTS[kind]
        last, self._last[name] = self._last.get(name, -math.inf), now
        if not isinstance(profile, ColdStart):
            return _draw(profile, self._generators[name])
        extra = profile.cold if now - last > profile.idle else 0.0
        return extra + _draw(profile.warm, self._generators[name])


def durations_from_json(value: object) -> DurationsSetting:
    """Return the setting that a JSON value stands for.

    A list of two is a range, {"median": ...} a `Lognormal`, {"warm": ..., "cold": ...} a `ColdStart`; any other object
    is a mapping by name.

    Raises:
        ValueError: it stands for none.
    """
    if isinstance(value, Mapping):
        fields = cast("Mapping[str, Any]", value)
        if not {"median", "warm"} & set(fields):
            return {name: _profile_from_json(one) for name, one in fields.items()}
    return None if value is None else _profile_from_json(value)


def _profile_from_json(value: Any) -> Profile:
    if isinstance(value, list):
        return _profile(tuple(value))  # pyright: ignore[reportUnknownArgumentType]
    if not isinstance(value, Mapping):
        return _profile(value)
    fields = dict(cast("Mapping[str, Any]", value))
    try:
        if "median" in fields:
            return Lognormal(**fields)
        fields["warm"] = _profile_from_json(fields["warm"])
        return ColdStart(**fields)
    except (TypeError, KeyError):
        raise ValueError(f"durations: want median, sigma, longest or warm, cold, idle; got {fields!r}") from None


def _profiles(setting: DurationsSetting, kinds: Collection[str]) -> dict[str, Profile]:
    """Return checked profiles by name; "" stands for everything."""
    if setting is None:
        return {}
    if not isinstance(setting, Mapping):
        return {"": _profile(setting)}
    providers = {kind.partition(".")[0] for kind in kinds}
    for name in setting:
        if name not in {*kinds, *providers} and name.partition(":")[0] not in providers:
            known = ", ".join(sorted({*kinds, *providers}))
            raise ValueError(f'durations: unknown name {name!r}; known: {known}, and "provider:model"')
    return {name: _profile(profile) for name, profile in setting.items()}


def _profile(value: Any) -> Profile:
    """Return a checked profile."""
    if isinstance(value, Lognormal | ColdStart):
        return value
    low, high = _range(value)
    if not 0 <= low <= high <= _LONGEST:
        raise ValueError(f"durations: want finite seconds, zero or more, low before high, got {value!r}")
    return (low, high)


def _range(value: Any) -> tuple[float, float]:
    pair: Any = value if isinstance(value, tuple) else (value, value)  # pyright: ignore[reportUnknownVariableType]
    if [type(one) in (int, float) for one in pair] != [True, True]:
        raise ValueError(f"durations: want seconds or (low, high), got {value!r}")
    low, high = pair
    return low, high


def _draw(profile: float | tuple[float, float] | Lognormal, source: random.Random) -> float:
    if not isinstance(profile, Lognormal):
        return source.uniform(*_range(profile))
    drawn = profile.median * math.exp(profile.sigma * source.gauss(0.0, 1.0))
    return min(drawn, _LONGEST if profile.longest is None else profile.longest)


def _check(name: str, seconds: object, most: float = _LONGEST) -> None:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= most:
        raise ValueError(f"{name} must be a number from 0 to {most:g}, got {seconds!r}")
