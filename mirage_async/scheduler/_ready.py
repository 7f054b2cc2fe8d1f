"""Whose status call is next where not all can be made: the line of those that are due, and of those that are not."""

from __future__ import annotations

import math
from collections import OrderedDict
from itertools import islice
from operator import itemgetter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

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

    Attributes:
        line: those who wait, each with the number of calls by which it is owed one; for others to look at only, which
            costs less than asking for the length of this.
    """

    __slots__ = ("_ranking", "_taken", "line")

    def __init__(self) -> None:
        self.line: OrderedDict[Entry, int] = OrderedDict()
        self._ranking = _Ranking()
        self._taken = 0

    def __len__(self) -> int:
        return len(self.line)

    def __contains__(self, entry: object) -> bool:
        return entry in self.line

    def append(self, entry: Entry) -> None:
        """Put a note at the end of the line; one that is in it keeps its place."""
        line = self.line
        if entry not in line:
            line[entry] = self._taken + OWED_AFTER * (len(line) + 1)

    def extend(self, entries: Iterable[Entry]) -> None:
        """Put several notes at the end of the line."""
        for entry in entries:
            self.append(entry)

    def discard(self, entry: Entry) -> None:
        """Take a note out of the line, if it is in it."""
        self.line.pop(entry, None)

    def take_first(self) -> Entry:
        """Take the note that has waited longest. The line must not be empty."""
        self._taken += 1
        return self.line.popitem(last=False)[0]

    def take_most_urgent(self, now: float, urgency: Callable[[Entry], float]) -> Entry:
        """Take the most urgent note, or the one that has waited longest where it is owed the call.

        Args:
            now: monotonic seconds.
            urgency: asked about each note in line when the last ranking is too old.

        The line must not be empty.
        """
        line = self.line
        owes = self._taken % OWED_EVERY == 0 and next(iter(line.values())) <= self._taken  # it to the oldest
        if owes or len(line) == 1:
            return self.take_first()
        ranking = self._ranking
        if now >= ranking.old_at:
            ranking.rank(now, line, urgency)
        ranked = ranking.ranked
        while ranked:
            entry = ranked.pop()
            if entry in line:
                self._taken += 1
                del line[entry]
                return entry
        return self.take_first()


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
        return -math.inf if self._ranking.ranked else self._ranking.old_at

    def take(self, now: float, waiting: Collection[Entry], urgency: Callable[[Entry], float] | None) -> Entry | None:
        """Return the most urgent note, or None while none is worth a call.

        Args:
            now: monotonic seconds.
            waiting: the notes of the account; those that wait for their time are looked at.
            urgency: asked about these when the last ranking is too old; None finds nobody, ever.
        """
        ranking = self._ranking
        if urgency is None:
            ranking.old_at = math.inf  # so that nobody looks again
        elif now >= ranking.old_at:
            ranking.rank(now, waiting, lambda entry: urgency(entry) if _may_be_early(entry, now) else 0.0, above=WORTH)
        # Whoever was asked about since the ranking is in the air, in line, done, or has just been seen unfinished.
        since, ranked = ranking.ranked_at, ranking.ranked
        while ranked:
            entry = ranked.pop()
            if _may_be_early(entry, now) and (entry.looked is None or entry.looked <= since):
                return entry
        return None


def _may_be_early(entry: Entry, now: float) -> bool:
    """Whether a note waits for its time, and not for trouble to pass, or because the provider wants it to."""
    return entry.due is not None and entry.job is not None and not entry.misses and entry.wanted <= now


class _Ranking:
    """Notes by urgency at some moment not long ago; some may have left meanwhile.

    Attributes:
        ranked: the most urgent last; whoever uses one takes it out.
        ranked_at: when that was.
        old_at: from when on it is time for a new one.
    """

    __slots__ = ("_offset", "old_at", "ranked", "ranked_at")

    def __init__(self) -> None:
        self.ranked: list[Entry] = []
        self.ranked_at = self.old_at = -math.inf
        self._offset = 0

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
        self.old_at = now + max(RANKING_LASTS, RANKING_LASTS_PER_CALL * len(chosen))
        ranked = [(value, entry) for entry in chosen if (value := urgency(entry)) > above]
        ranked.reverse()  # sorting keeps the order of equals, and the last is taken first
        ranked.sort(key=itemgetter(0))
        self.ranked = [entry for _, entry in ranked]
