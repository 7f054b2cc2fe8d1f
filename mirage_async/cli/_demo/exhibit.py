"""What the demo has to show: a value for each job, and one for the whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mirage_async.models import Avatar, GeneratedImage, Generation

__all__ = ["AvatarBuild", "Exhibit", "Exhibition", "Print"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Print:
    """One saved picture."""

    path: Path
    image: GeneratedImage


@dataclass(frozen=True, slots=True, kw_only=True)
class Exhibit:
    """One job and what it left.

    Attributes:
        provider: the provider's name.
        prompt: what was asked for.
        look: what else was asked for, in a few words.
        began: seconds from the beginning of the demo.
        seconds: from then until the pictures were saved, or the job had failed.
        generation: what it bought, or None.
        prints: the saved pictures.
        problem: why it failed, or None.
    """

    provider: str
    prompt: str
    look: str
    began: float
    seconds: float
    generation: Generation | None = None
    prints: Sequence[Print] = ()
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AvatarBuild:
    """The avatar: `avatar` is None where `problem` says why."""

    name: str
    began: float
    seconds: float
    polls: int = 0
    avatar: Avatar | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Exhibition:
    """The whole demo.

    Attributes:
        exhibits: the jobs, in the order they were planned.
        avatar: how building the avatar went.
        seconds: from the beginning to the last saved picture.
        seed: the sandbox's seed.
    """

    exhibits: Sequence[Exhibit]
    avatar: AvatarBuild
    seconds: float
    seed: int

    @property
    def pictures(self) -> int:
        """How many pictures were saved."""
        return sum(len(exhibit.prints) for exhibit in self.exhibits)

    @property
    def failures(self) -> int:
        """How many jobs failed, the avatar's included."""
        failed = sum(exhibit.problem is not None for exhibit in self.exhibits)
        return failed + (self.avatar.problem is not None)

    @property
    def polls(self) -> int:
        """How many status calls it took."""
        return self.avatar.polls + sum(e.generation.polls for e in self.exhibits if e.generation is not None)
