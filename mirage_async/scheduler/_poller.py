"""The handle of one poller, for whoever gives it work and for whoever ends it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

    from mirage_async.scheduler._account import Account
    from mirage_async.scheduler._entry import Entry

__all__ = ["Poller"]


class Poller:
    """One poller: at work on an account, or parked until there is work again.

    Attributes:
        account: whose jobs it asks about.
        entry: whom it asks about, or is to ask about first; None while it is parked.
        began: when the status call under way was begun, infinity while a result is handed over.
        over: it is to stop.
        task: once it runs; cancelled before, it would never tidy up.
        parked: what wakes it, while it is parked.
    """

    __slots__ = ("account", "began", "entry", "over", "parked", "task")

    def __init__(self) -> None:
        self.account: Account | None = None
        self.entry: Entry | None = None
        self.began = math.inf
        self.over = False
        self.task: asyncio.Task[Any] | None = None
        self.parked: asyncio.Future[None] | None = None

    @property
    def is_ready(self) -> bool:
        """Whether it takes work: it is new, or parked and alive."""
        return self.parked is None or not self.parked.done()

    def wake(self) -> None:
        """Let it go on if it is parked."""
        parked, self.parked = self.parked, None
        if parked is not None and not parked.done():
            parked.set_result(None)

    def end(self) -> None:
        """Let it stop at once, or when it has handed over the result it has in hands."""
        self.over = True
        if self.parked is not None:
            self.wake()
        elif self.task is not None and self.began < math.inf:
            self.task.cancel()
