"""What ends a job: time, a number of status calls, or a hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["Progress", "ProgressSetting"]

_Rule: TypeAlias = int | Literal["time", "manual"]

ProgressSetting: TypeAlias = _Rule | Mapping[str, _Rule] | None
"""None or "time" for work that takes its time, "manual" for work that ends by `finish_job` and `fail_job` alone, a
number for work that is done at that status call; or any of these by "provider" or "provider.kind"."""


class Progress:
    """Which rule holds for which work.

    Args:
        setting: see `ProgressSetting`.
        kinds: every "provider.kind" there is.

    Raises:
        ValueError: a name is unknown, or a rule is none.
    """

    def __init__(self, setting: ProgressSetting, *, kinds: Collection[str]) -> None:
        self._kinds = kinds
        self._rules: dict[str, _Rule] = {}
        self.set(setting)

    def set(self, setting: ProgressSetting) -> None:
        """Let `setting` hold for work that begins from now on; see the class for what it raises."""
        if not isinstance(setting, Mapping):
            self._rules = {} if setting is None else {"": _checked(setting)}
            return
        known = {*self._kinds, *(kind.partition(".")[0] for kind in self._kinds)}
        for name in setting:
            if name not in known:
                raise ValueError(f"progress: unknown name {name!r}; known: {', '.join(sorted(known))}")
        self._rules = {name: _checked(rule) for name, rule in setting.items()}

    def rule_for(self, provider: str, kind: str) -> _Rule:
        """Return the rule for a kind of work."""
        for name in (f"{provider}.{kind}", provider, ""):
            if name in self._rules:
                return self._rules[name]
        return "time"


def _checked(rule: Any) -> _Rule:
    if rule in ("time", "manual") or (isinstance(rule, int) and not isinstance(rule, bool) and rule >= 1):
        checked: _Rule = rule
        return checked
    raise ValueError(f'progress: want "time", "manual" or a number of status calls from 1, got {rule!r}')
