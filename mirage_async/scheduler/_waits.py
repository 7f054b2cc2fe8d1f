"""The ends of waits: who is told when, a slice of them at a time.

A hundred thousand waits may end in one moment: they were begun together, the process was stopped for a while, or
everything closes. To tell them all at one go would hold up the event loop for a second.
"""

from __future__ import annotations

import asyncio
import logging
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from mirage_async.scheduler._wheel import TICK, TimerWheel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mirage_async.exceptions import MirageError, WaitedFor
    from mirage_async.jobs import Job
    from mirage_async.scheduler._entry import Entry

__all__ = ["SLICE", "Waits"]

_logger = logging.getLogger("mirage_async.scheduler")

LATE_LOOK = 10.0  # seconds that a status call may take to begin and end which was to come before the end of the wait
_STOPPED = 1.0  # seconds too late: then the process has been stopped, or answers could not be read for other reasons
SLICE = 256  # waits that are ended at one go, which takes a few milliseconds; then whoever else there is has a turn


class Waits:
    """Knows when the wait for each job is over, and ends it.

    Args:
        forget: told that nobody asks about a job any more.
        waits_for: tells what a job waits for.

    Attributes:
        expired: waits that ran out so far.
        owed: those whose wait is over but for one status call, which came too late.
        ending: more waits are over than could be ended at one go, or everything closes: nobody is asked about now.
    """

    __slots__ = ("_deadlines", "_forget", "_waits_for", "ending", "expired", "next_at", "owed")

    def __init__(self, forget: Callable[[Job[Any]], object], waits_for: Callable[[Job[Any]], WaitedFor]) -> None:
        self._forget = forget
        self._waits_for = waits_for
        self._deadlines: TimerWheel[Entry] = TimerWheel(attrgetter("over"))
        self.next_at = self._deadlines.next_at  # when the next wait is over
        self.owed: set[Entry] = set()
        self.expired = 0
        self.ending = False

    def begin(self, entry: Entry, deadline: float) -> None:
        """Let the wait for a job that has none be over at `deadline`."""
        entry.over = self._deadlines.add(deadline, entry)

    def extend(self, entry: Entry, deadline: float) -> bool:
        """Let the wait for a job be over at `deadline`, and return whether that is later than it was to be."""
        if entry.over is not None and deadline <= entry.over * TICK and entry not in self.owed:
            return False
        self.drop(entry)
        self.begin(entry, deadline)
        return True

    def drop(self, entry: Entry) -> None:
        """Let the wait for a job have no end, as one that is over already has."""
        if entry.over is not None:
            entry.over = None
            self._deadlines.withdrawn()
        self.owed.discard(entry)

    def still_due(self, due: list[Entry], now: float) -> list[Entry]:
        """Return those who are to be asked about: nobody whose wait is over, but for those who are owed a look.

        These are the ones whose look was due while the wait lasted. Nobody came to make it, because the process was
        stopped or very busy; what the provider says now is still worth more than the end of the wait.
        """
        asked: list[Entry] = []
        for entry in due:
            over = entry.over
            if over is not None and over * TICK <= now:
                if entry.due is None or entry.due >= over:
                    entry.due = None
                    continue
                self._put_off(entry, now)
            asked.append(entry)
        return asked

    def _put_off(self, entry: Entry, now: float) -> None:
        self.drop(entry)
        self.begin(entry, now + LATE_LOOK)
        self.owed.add(entry)

    def end(self, now: float) -> None:
        """End the waits that are over, a slice of them; for the rest, which `ending` tells of, come back soon."""
        for entry in self._deadlines.pop_due(now, most=SLICE):
            over, entry.over = entry.over, None
            # A call that was under way when the process was stopped has its answer read first.
            if entry.flying and over is not None and now - over * TICK > _STOPPED and entry not in self.owed:
                self._put_off(entry, now)
            else:
                self.expire(entry)
        self.ending = self.next_at() <= now

    def expire(self, entry: Entry) -> None:
        """End the wait for a job, whose time is over."""
        job = entry.job
        assert job is not None  # noqa: S101 - a forgotten job has no deadline; says so to the type checker
        self.expired += 1
        self.stop(job, job.wait_timeout(self._waits_for(job)))

    def close(self, entries: Iterable[Entry]) -> None:
        """End the waits for jobs at one go, since everything closes; results on their way may still arrive."""
        for entry in entries:
            job = entry.job
            if job is not None and not job.claimed:
                self.stop(job, job.closed_error())

    async def close_all(self, entries: list[Entry]) -> None:
        """End the waits for jobs, with turns of the event loop in between; all the same if that is cancelled."""
        done = 0
        try:
            while done < len(entries):
                if done:
                    await asyncio.sleep(0)
                self.close(entries[done : done + SLICE])
                done += SLICE
        finally:
            self.close(entries[done:])

    def stop(self, job: Job[Any], error: MirageError) -> None:
        """Have nobody ask about a job any more, and tell those who wait for it why."""
        self._forget(job)
        try:
            job.stop(error)
        except Exception:  # the others whose wait ends now are told all the same
            _logger.exception("the end of the wait for %r was not told to everybody", job)
