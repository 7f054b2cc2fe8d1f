"""Those who ask the journal while others are being answered are answered together, at the cost of one."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import msgspec

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Sequence

    from mirage_async.journal._writer import Writer

__all__ = ["MOST", "Asked", "Together", "answer_each"]

Q = TypeVar("Q")
A = TypeVar("A")

MOST: Final = 500  # questions answered at a time: SQLite takes only so many parameters


class Asked(msgspec.Struct, Generic[Q, A]):
    """A question, and what comes of it.

    Attributes:
        question: as it was asked.
        answer: to it; the one it has until then.
        served: ends once it is answered.
        error: raised to whoever asked, in place of an answer.
    """

    question: Q
    answer: A
    served: asyncio.Future[None]
    error: Exception | None = None

    async def answered(self) -> A:
        """Wait for the answer and return it.

        Raises:
            JournalError: the journal was closed before there was one.
        """
        await asyncio.shield(self.served)
        if self.error is not None:
            raise self.error
        return self.answer


class Together(Generic[Q, A]):
    """Collects questions, and has the journal's thread answer all that have come until it gets to it.

    Args:
        writer: whose thread answers.
        serve: fills in the answers or errors, in the thread; what it raises, everybody gets.
        default: the answer until there is one.
    """

    def __init__(
        self, writer: Writer, serve: Callable[[sqlite3.Connection, Sequence[Asked[Q, A]]], None], default: A
    ) -> None:
        self._writer = writer
        self._serve = serve
        self._default = default
        self._lock = threading.Lock()
        self._asked: list[Asked[Q, A]] = []
        self._served: asyncio.Future[None] | None = None  # once those who are asking are

    def ask(self, question: Q) -> Asked[Q, A]:
        """Ask, to wait for the answer or not: it comes all the same.

        Raises:
            JournalError: the journal is closed, or belongs to another process.
        """
        self._writer.check()  # before the lock, which nobody would ever let go in a child that was forked meanwhile
        with self._lock:
            if self._served is None or self._served.get_loop() is not asyncio.get_running_loop():
                self._served = self._writer.do(self._answer)
            asked = Asked(question, self._default, self._served)
            self._asked.append(asked)
        return asked

    def _answer(self, connection: sqlite3.Connection) -> None:
        with self._lock:
            all_, self._asked, self._served = self._asked, [], None
        if all_:  # else another loop's turn to answer has done it
            self._serve(connection, all_)


def answer_each(all_: Sequence[Asked[Q, Any]], answer: Callable[[Sequence[Asked[Q, Any]]], None]) -> None:
    """Have questions answered together, and where that fails one by one, so that none spoils it for the others."""
    for start in range(0, len(all_), MOST):
        some = all_[start : start + MOST]
        try:
            answer(some)
        except Exception as error:  # noqa: BLE001 - whoever asked gets it
            if len(some) == 1:
                some[0].error = error
                continue
            for asked in some:
                answer_each([asked], answer)
