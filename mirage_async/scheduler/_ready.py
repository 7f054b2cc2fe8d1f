"""Whose status call is next where not all can be made: the line of those that are due, and of those that are not."""

from __future__ import annotations

import math
from collections import OrderedDict
from itertools import islice
from operator import itemgetter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from mirage_async.scheduler._entry import Entry

__all__ = ["OTHERS_FIRST", "EarlyLine", "ReadyLine"]

OWED_AFTER = 12  # calls for each in line when it came: from then on a call is owed to whoever waits
OWED_EVERY = 4  # calls of which one goes to the oldest that is owed it
OTHERS_FIRST = OWED_AFTER + OWED_EVERY  # for each in line, at most
RANKED_AT_MOST = 2000  # at once, which takes some 8 ms
RANKING_LASTS = 0.05  # seconds, at least
RANKING_LASTS_PER_CALL = 1e-4  # seconds for each that was ranked: some thirty times what ranking it takes
WORTH = 0.1  # status calls that not having asked must be expected to have cost before anybody is asked about early


class ReadyLine:
    """The notes of one account whose status calls are due, in the order they became so.

    By urgency the largest goes first, with an ageing bound: whoever has waited for twelve calls for each that was in
    line when he came is owed one, and every fourth call goes to the oldest if he is owed it. So of a line that is
    never longer than n nobody waits for more than 16n others, however urgent those are that come later.

    Urgencies are looked at anew every 50 ms at most, in a line above 500 every 100 us for each in it; whoever came
    since is behind those ranked. In a line above 2,000 each ranking looks at every second, third ... of them in turn.
    """

    __slots__ = ("_line", "_ranking", "_taken")

    def __init__(self) -> None:
        self._line: OrderedDict[Entry, int] = OrderedDict()  # and how many calls were made by when it is owed one
        self._ranking = _Ranking()
        self._taken = 0

    def __len__(self) -> int:
        return len(self._line)

    def __contains__(self, entry: object) -> bool:
        return entry in self._line

    def append(self, entry: Entry) -> None:
        """Put a note at the end of the line; one that is in it keeps its place."""
        if entry not in self._line:
            self._line[entry] = self._taken + OWED_AFTER * (len(self._line) + 1)

    def extend(self, entries: Iterable[Entry]) -> None:
        """Put several notes at the end of the line."""
        for entry in entries:
            self.append(entry)

    def discard(self, entry: Entry) -> None:
        """Take a note out of the line, if it is in it."""
        self._line.pop(entry, None)

    def take_first(self) -> Entry:
        """Take the note that has waited longest. The line must not be empty."""
        self._taken += 1
        return self._line.popitem(last=False)[0]

    def take_most_urgent(self, now: float, urgency: Callable[[Entry], float]) -> Entry:
        """Take the most urgent note, or the one that has waited longest where it is owed the call.

        Args:
            now: monotonic seconds.
            urgency: asked about each note in line when the last ranking is too old.

        The line must not be empty.
        """
        if len(self._line) == 1 or self._owes_the_oldest():
            return self.take_first()
        ranking = self._ranking
        if ranking.is_old(now):
            ranking.rank(now, self._line, urgency)
        for entry in ranking.most_urgent_first():
            if entry in self._line:
                self._taken += 1
                del self._line[entry]
                return entry
        return self.take_first()

    def _owes_the_oldest(self) -> bool:
        return self._taken % OWED_EVERY == 0 and next(iter(self._line.values())) <= self._taken


class EarlyLine:
    """Who may be asked about before it is due, where the limit would leave a status call unused.

    That is whoever not having asked about is expected to have cost most by now, and at least a tenth of a call: then
    nobody is asked about more than some three times as often as is worth it where every call counts.
    """

    __slots__ = ("_ranking",)

    def __init__(self) -> None:
        self._ranking = _Ranking()

    def looks_again_at(self) -> float:
        """Return when somebody may be found who was not before: at once, as long as some of those found are left."""
        return self._ranking.lasts_until()

    def take(self, now: float, waiting: Collection[Entry], urgency: Callable[[Entry], float] | None) -> Entry | None:
        """Return the most urgent note, or None while none is worth a call.

        Args:
            now: monotonic seconds.
            waiting: the notes of the account; those that wait for their time are looked at.
            urgency: asked about these when the last ranking is too old; None finds nobody, ever.
        """
        ranking = self._ranking
        if urgency is None:
            ranking.close()
        elif ranking.is_old(now):
            ranking.rank(now, waiting, lambda entry: urgency(entry) if _may_be_early(entry) else 0.0, above=WORTH)
        # Whoever was asked about since the ranking is in the air, in line, done, or has just been seen unfinished.
        since = ranking.ranked_at
        for entry in ranking.most_urgent_first():
            if _may_be_early(entry) and (entry.looked is None or entry.looked <= since):
                return entry
        return None


def _may_be_early(entry: Entry) -> bool:
    """Whether a note waits for its time, and not for trouble to pass."""
    return entry.due is not None and entry.job is not None and not entry.misses


class _Ranking:
    """Notes by urgency at some moment not long ago; some may have left meanwhile."""

    __slots__ = ("_lasts_until", "_offset", "_ranked", "ranked_at")

    def __init__(self) -> None:
        self._ranked: list[Entry] = []  # the most urgent last
        self._lasts_until = -math.inf
        self._offset = 0
        self.ranked_at = -math.inf

    def is_old(self, now: float) -> bool:
        """Whether it is time for a new one."""
        return now >= self._lasts_until

    def lasts_until(self) -> float:
        """Return when it will be."""
        return -math.inf if self._ranked else self._lasts_until

    def close(self) -> None:
        """Make no other."""
        self._lasts_until = math.inf

    def most_urgent_first(self) -> Iterator[Entry]:
        """Take notes out of it, the most urgent first."""
        while self._ranked:
            yield self._ranked.pop()

    def rank(
        self, now: float, notes: Collection[Entry], urgency: Callable[[Entry], float], *, above: float = -math.inf
    ) -> None:
        """Rank the notes anew, leaving out whoever is not more urgent than `above`."""
        stride = -(-len(notes) // RANKED_AT_MOST)
        chosen: Collection[Entry] = notes
        if stride > 1:
            self._offset = (self._offset + 1) % stride
            chosen = list(islice(notes, self._offset, None, stride))
        self.ranked_at = now
        self._lasts_until = now + max(RANKING_LASTS, RANKING_LASTS_PER_CALL * len(chosen))
        ranked = [(value, entry) for entry in chosen if (value := urgency(entry)) > above]
        ranked.reverse()  # sorting keeps the order of equals, and the last is taken first
        ranked.sort(key=itemgetter(0))
        self._ranked = [entry for _, entry in ranked]
