"""What was learned about durations, handed from one process to the next by way of the journal."""

from __future__ import annotations

import logging
import weakref
from typing import TYPE_CHECKING, Final

import msgspec

from mirage_async._tasks import TaskSet
from mirage_async.exceptions import ConfigurationError, JournalError

if TYPE_CHECKING:
    from pathlib import Path

    from mirage_async._clock import Clock, Timer
    from mirage_async.journal import Journal
    from mirage_async.scheduler import AdaptiveInterval

__all__ = ["KEPT_AFTER", "Memory"]

_logger = logging.getLogger("mirage_async.clients")

KEPT_AFTER: Final = 30.0  # seconds from the end of a job to the note about it, which tells of all that end meanwhile
_GRACE: Final = 1.0  # seconds that a note on its way gets when everything closes
_NAME: Final = "durations"  # the journal's for it
# By policy, what it has left in the folder of a journal, or taken over from there. Several hubs in turn may have one
# policy, and what is its own must not be learned again.
_left: weakref.WeakKeyDictionary[AdaptiveInterval, dict[Path, str]] = weakref.WeakKeyDictionary()


class Memory:
    """Keeps what a policy learns: a while after something has ended, for a process that is killed, and at the close.

    Args:
        journal: where it is kept.
        policy: that learns.
        clock: whose time counts.
    """

    def __init__(self, journal: Journal, policy: AdaptiveInterval, clock: Clock) -> None:
        self._journal = journal
        self._policy = policy
        self._clock = clock
        self._begun = False
        self._timer: Timer | None = None  # until the next note is written
        self._notes = TaskSet()

    async def begin(self) -> None:
        """Have the policy begin with what the processes before have learned; once is enough.

        Raises:
            JournalError: the journal cannot be read.
        """
        if self._begun:
            return
        self._begun = True
        left, place = _left.setdefault(self._policy, {}), self._journal.directory.resolve()
        known = left.get(place)
        kept = await self._journal.noted(_NAME)
        if kept is None or left.get(place) != known or kept == known:
            return  # it has nothing that the policy does not know already
        if known is not None and known == self._exported():
            self._policy.clear()  # another process has begun with that, and gone on
        left[place] = kept
        try:
            self._policy.load(kept)
        except ConfigurationError as error:  # it saves some status calls, no more
            _logger.warning("what was learned about durations before cannot be read: %s", error)

    def _exported(self) -> str:
        return msgspec.json.encode(self._policy.export()).decode()

    def grows(self) -> None:
        """Note soon that a job has ended."""
        if self._timer is None:
            me = weakref.ref(self)  # a timer must not keep everything alive that nobody uses any more

            def due() -> None:
                if (memory := me()) is not None:
                    memory._notes.spawn(memory._keep_and_go_on())  # noqa: SLF001 - of this class

            self._timer = self._clock.call_at(self._clock.monotonic() + KEPT_AFTER, due)

    async def _keep_and_go_on(self) -> None:
        await self._keep()
        self._timer = None

    async def _keep(self) -> None:
        try:
            await self.begin()  # a hub may be used without being entered
            exported = self._exported()
            await self._journal.note(_NAME, exported)
            _left.setdefault(self._policy, {})[self._journal.directory.resolve()] = exported
        except JournalError as error:
            _logger.warning("what was learned about durations is not kept: %s", error)
        except Exception:  # of a policy that a user has derived: it must not keep the journal open
            _logger.exception("what was learned about durations is not kept")

    async def aclose(self) -> None:
        """Keep all of it, before the journal is closed."""
        if self._timer is not None:
            self._timer.cancel()
        await self._notes.aclose(grace=_GRACE)
        await self._keep()
