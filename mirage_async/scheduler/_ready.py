"""The line of status calls that are due: first come first served, or the most urgent first."""

from __future__ import annotations

import math
from collections import OrderedDict
from operator import itemgetter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mirage_async.scheduler._entry import Entry

__all__ = ["OLDEST_EVERY", "ReadyLine"]

OLDEST_EVERY = 4  # calls of which one goes to whoever has waited longest
RANKING_LASTS = 0.05  # seconds, at least
RANKING_LASTS_PER_CALL = 5e-5  # seconds for each in line: some twenty times what ranking it takes


class ReadyLine:
    """The notes of one account whose status calls are due, in the order they became so.

    By urgency the largest goes first, but every fourth call is the one that has waited longest: of n in line, nobody
    waits for more than 4n others, however urgent those are that come later. Urgencies are looked at anew every
    50 ms at most, in a line above a thousand every 50 us for each in it; whoever came since is behind those ranked.
    """

    __slots__ = ("_line", "_ranked", "_ranked_at", "_taken")

    def __init__(self) -> None:
        self._line: OrderedDict[Entry, None] = OrderedDict()
        self._ranked: list[Entry] = []  # the most urgent last; some may have left the line meanwhile
        self._ranked_at = -math.inf
        self._taken = 0

    def __len__(self) -> int:
        return len(self._line)

    def append(self, entry: Entry) -> None:
        """Put a note at the end of the line."""
        self._line[entry] = None

    def extend(self, entries: Iterable[Entry]) -> None:
        """Put several notes at the end of the line."""
        self._line.update(dict.fromkeys(entries))

    def discard(self, entry: Entry) -> None:
        """Take a note out of the line, if it is in it."""
        self._line.pop(entry, None)

    def take_first(self) -> Entry:
        """Take the note that has waited longest. The line must not be empty."""
        return self._line.popitem(last=False)[0]

    def take_most_urgent(self, now: float, urgency: Callable[[Entry], float]) -> Entry:
        """Take the most urgent note, or every fourth time the one that has waited longest.

        Args:
            now: monotonic seconds.
            urgency: asked about each note in line when the last ranking is too old.

        The line must not be empty.
        """
        self._taken += 1
        if self._taken % OLDEST_EVERY == 0 or len(self._line) == 1:
            return self.take_first()
        if now - self._ranked_at >= max(RANKING_LASTS, RANKING_LASTS_PER_CALL * len(self._line)):
            self._rank(now, urgency)
        while self._ranked:
            entry = self._ranked.pop()
            if entry in self._line:
                del self._line[entry]
                return entry
        return self.take_first()

    def _rank(self, now: float, urgency: Callable[[Entry], float]) -> None:
        self._ranked_at = now
        # Backwards: sorting keeps the order of equals, and the last is taken first.
        ranked = sorted([(urgency(entry), entry) for entry in reversed(self._line)], key=itemgetter(0))
        self._ranked = [entry for _, entry in ranked]
