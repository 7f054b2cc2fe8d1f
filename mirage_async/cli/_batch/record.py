"""What the manifest and the page say of one purchase."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

__all__ = ["Record", "State"]

State: TypeAlias = Literal["done", "unsaved", "pending", "uncertain", "refused", "failed", "unbought"]
"""What became of a purchase.

- `done`: its pictures are in the folder.
- `unsaved`: it is paid for, and its pictures could not be fetched or saved; the next run tries again.
- `pending`: it is paid for, and the provider was not ready in time; the next run goes on waiting.
- `uncertain`: nobody knows whether it was bought.
- `refused`: it was not bought, and the next run tries again.
- `failed`: the provider failed at it, and it is not bought again unless that is asked for.
- `unbought`: its turn did not come.
"""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One purchase.

    Attributes:
        line: the number of its line, or None where there is no such line any more.
        part: which part of the line's request it is, from 1.
        parts: how many there are.
        key: of the purchase, in the journal.
        provider: the provider's name.
        model: the model that drew, or None.
        prompt: what was to be drawn.
        state: what became of it.
        files: the names of its pictures, in the folder of the manifest.
        requested: how many pictures it asked for.
        width: pixels of the first picture, or None.
        height: likewise.
        credits: what the provider says it charged, or None.
        job_id: the provider's id of the job, or None.
        seconds: from its purchase to the last byte of its pictures, or None.
        error: why there are no pictures, or None.
        billed: what is known about money: "yes", "no" or "unknown".
    """

    line: int | None
    part: int = 1
    parts: int = 1
    key: str
    provider: str
    model: str | None = None
    prompt: str
    state: State
    files: tuple[str, ...] = ()
    requested: int = 1
    width: int | None = None
    height: int | None = None
    credits: float | None = None
    job_id: str | None = None
    seconds: float | None = None
    error: str | None = None
    billed: str = "no"

    @property
    def title(self) -> str:
        """What messages call it."""
        return f"line {self.line}" if self.parts == 1 else f"line {self.line} (part {self.part} of {self.parts})"
