"""The bodies of control requests. A field that is not here is refused by its name."""

from __future__ import annotations

import math
from typing import Any, Literal

import msgspec

from mirage_async.sandbox.faults.fault import Fault

__all__ = [
    "ClockOrder",
    "CreditsOrder",
    "EmptyOrder",
    "FailOrder",
    "FaultFields",
    "FaultsOrder",
    "LimitsOrder",
    "ResetOrder",
    "SettingsOrder",
]


_MOST_TIMES = 1_000_000


class _Strict(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What all orders are. Words are checked where they are obeyed, which knows and names the allowed ones."""


class EmptyOrder(_Strict):
    """Nothing but the wish."""


class ResetOrder(_Strict):
    """See `Sandbox.reset`."""

    scope: str = "all"


class FailOrder(_Strict):
    """See `Sandbox.fail_job`."""

    reason: str = ""
    end: str = "failed"


class FaultFields(_Strict):
    """A `Fault`, spelled out.

    Attributes:
        stall: "inf" waits until the client leaves; JSON has no number for that.
        garbage: one character for each byte, so none above U+00FF.
    """

    status: int | None = None
    headers: dict[str, str] | None = None
    body: Any = None
    retry_after: float | None = None
    retry_at: float | None = None
    reset: bool = False
    stall: float | Literal["inf"] | None = None
    cut: int | None = None
    cut_head: bool = False
    garbage: str | None = None
    dribble: float | None = None
    flaw: str | None = None
    when: str = "before"

    def made(self) -> Fault:
        """Return the fault.

        Raises:
            ValueError: there is no such fault.
        """
        fields = {name: getattr(self, name) for name in self.__struct_fields__}
        if self.stall == "inf":
            fields["stall"] = math.inf
        if self.garbage is not None:
            fields["garbage"] = _raw(self.garbage)
        return Fault(**fields)


class FaultsOrder(_Strict):
    """See `Sandbox.fail`: one `fault` or several `faults`, by name or spelled out."""

    operation: str
    fault: str | FaultFields | None = None
    faults: list[str | FaultFields] | None = None
    times: int | None = 1
    probability: float = 1.0
    prompt: str = ""

    def made(self) -> list[Fault | str]:
        """Return the faults in their order.

        Raises:
            ValueError: both fields are given, or neither, or there is no such fault, or too many of it.
        """
        if self.times is not None and self.times > _MOST_TIMES:
            raise ValueError(f"times must be 1 to {_MOST_TIMES}, or null for ever, got {self.times!r}")
        if (self.fault is None) == (self.faults is None):
            raise ValueError("want either fault, which is one, or faults, which is a list of them")
        given = [self.fault] if self.fault is not None else self.faults or []
        return [fault.made() if isinstance(fault, FaultFields) else fault for fault in given]


class ClockOrder(_Strict):
    """What the clock shall do, with the field that belongs to it."""

    action: str
    seconds: float | None = None
    at: float | None = None
    after: float | None = None


class CreditsOrder(_Strict):
    """See `Sandbox.set_credits`; null is any number of them."""

    provider: str
    credits: float | None
    key: str | None = None


class LimitsOrder(_Strict):
    """See `Sandbox.set_rate_limit`; null is no limit."""

    provider: str
    requests: int | None
    seconds: float = 60.0
    key: str | None = None


class SettingsOrder(_Strict):
    """What is given is set; null sets what the sandbox has by itself."""

    # In the end any JSON: the methods that set them say best what is wrong with a value.
    durations: Any = msgspec.UNSET
    progress: Any = msgspec.UNSET
    workers: int | dict[str, int] | msgspec.UnsetType | None = msgspec.UNSET


def _raw(text: str) -> bytes:
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        raise ValueError(f"garbage must be text of one character a byte, up to U+00FF, got {text!r}") from None
