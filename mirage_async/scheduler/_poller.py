"""The handle of one poller, for whoever gives it work and for whoever ends it."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Context

    from mirage_async.scheduler._account import Account
    from mirage_async.scheduler._entry import Entry

__all__ = ["Poller"]


class Rest(asyncio.Future[None]):
    """What one task, and no more than one, waits for while it has nothing to do.

    A future has whoever waits for it go on in the next round of the event loop, by way of `call_soon`, which takes
    longer than all the rest of a wake-up. Whoever is called by the loop itself need not take that way.
    """

    __slots__ = ("_context", "_go_on")

    def __init__(self, *, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self._go_on: Callable[[Rest], object] | None = None
        self._context: Context | None = None

    def add_done_callback(self, fn: Callable[[Rest], object], /, *, context: Context | None = None) -> None:
        """Take note of how the task goes on; only the task itself calls this, by awaiting."""
        self._go_on, self._context = fn, context

    def cancel(self, msg: Any | None = None) -> bool:
        """Let the task go on with a cancellation; False where it has been woken already."""
        cancelled = super().cancel(msg)
        if cancelled and self._go_on is not None:
            self.get_loop().call_soon(self._go_on, self, context=self._context)
        return cancelled

    def end(self, *, at_once: bool = False) -> None:
        """Let the task go on: right now, which only a callback of the event loop may ask for, or in the next round.

        Harmless where it goes on already.
        """
        if self.done():
            return
        self.set_result(None)
        if self._go_on is None:
            return
        if at_once and self._context is not None:
            self._context.run(self._go_on, self)
        else:
            self.get_loop().call_soon(self._go_on, self, context=self._context)


class Poller:
    """One poller: at work on an account, or parked until there is work again.

    Attributes:
        account: whose jobs it asks about.
        entry: whom it asks about, or is to ask about first; None while it is parked.
        is_at_work: it counts among the status calls in flight of the account.
        began: when the status call under way was begun, infinity while a result is handed over.
        over: it is to stop.
        task: what runs it.
        parked: what it waits for, while it is parked.
    """

    __slots__ = ("account", "began", "entry", "is_at_work", "over", "parked", "task")

    def __init__(self, account: Account, entry: Entry) -> None:
        self.account = account
        self.entry: Entry | None = entry
        self.is_at_work = True
        self.began = math.inf
        self.over = False
        self.task: asyncio.Task[Any] | None = None
        self.parked: Rest | None = None

    def end(self) -> None:
        """Let it stop at once, or when it has handed over the result it has in hands."""
        self.over = True
        if self.parked is not None:
            self.parked.end()
        elif self.task is not None and self.began < math.inf:
            self.task.cancel()
