"""How long work takes: real enough to exercise a poller, short enough to wait for."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["Durations", "DurationsSetting"]

DurationsSetting: TypeAlias = float | Mapping[str, float | tuple[float, float]] | None
"""None for the defaults, seconds for everything, or seconds or (low, high) by "provider" or "provider.kind"."""

_DEFAULTS = {"image": (1.0, 3.0), "avatar": (4.0, 4.0)}


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
        self._ranges = {kind: _range_for(kind, setting) for kind in kinds}
        self._generators = {kind: random.Random(f"{seed}/{kind}") for kind in kinds}
        if isinstance(setting, Mapping):
            known = {*kinds, *(kind.partition(".")[0] for kind in kinds)}
            for name in setting:
                if name not in known:
                    raise ValueError(f"durations: unknown name {name!r}; known: {', '.join(sorted(known))}")

    def draw(self, provider: str, kind: str) -> float:
        """Return the seconds the next piece of work takes."""
        name = f"{provider}.{kind}"
        return self._generators[name].uniform(*self._ranges[name])


def _range_for(kind: str, setting: DurationsSetting) -> tuple[float, float]:
    provider, _, bare_kind = kind.partition(".")
    value: Any = setting
    if isinstance(setting, Mapping):
        value = setting.get(kind, setting.get(provider))
    if value is None:
        return _DEFAULTS[bare_kind]
    try:
        low, high = map(float, value if isinstance(value, tuple) else (value, value))  # pyright: ignore[reportUnknownArgumentType]
    except (TypeError, ValueError):
        raise ValueError(f"durations: want seconds or (low, high), got {value!r}") from None
    if not (0 <= low <= high and math.isfinite(high)):
        raise ValueError(f"durations: want finite seconds, zero or more, low before high, got {value!r}")
    return low, high
