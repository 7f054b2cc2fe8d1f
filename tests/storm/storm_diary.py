"""What a process lives through, written down as it happens, and the point at which it is to die.

A line is in the system's hands as soon as it is said, so it outlives a `kill -9`. The product is not touched: its
methods are wrapped in the process that is to be killed, and each says when it is entered and when it has returned.
"""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from mirage_async.clients import _buyer
from mirage_async.journal import Journal, _folder, _writer
from mirage_async.purchase import Fate
from mirage_async.wire import Form

if TYPE_CHECKING:
    from pathlib import Path

    from mirage_async.wire import Call

__all__ = ["Diary", "number_in", "read_diary", "watch"]

_NUMBER = re.compile(r"#(\d+)\.")


class Diary:
    """Writes lines, and kills this process at the n-th of one kind.

    Args:
        path: the file it is written to.
        fatal: a point, and the how manieth pass through it is the last; None lives on.
    """

    def __init__(self, path: Path, fatal: tuple[str, int] | None = None) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._fatal = fatal
        self._passes: Counter[str] = Counter()

    def note(self, point: str, key: str = "", **facts: Any) -> None:
        """Write a line; does not return from the fatal one."""
        os.write(
            self._descriptor,
            json.dumps({"at": round(time.time(), 3), "point": point, "key": key, **facts}).encode() + b"\n",
        )
        self._passes[point] += 1
        if self._fatal == (point, self._passes[point]):
            os.kill(os.getpid(), signal.SIGKILL)


def read_diary(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a diary; one that was cut short by the end is none."""
    if not path.exists():
        return []
    whole, _, _ = path.read_bytes().rpartition(b"\n")
    return [json.loads(line) for line in whole.splitlines()]


def number_in(text: str) -> int:
    """Return the number that tells one purchase from all others; it stands in its prompt, or in the avatar's name."""
    (number,) = set(_NUMBER.findall(text))
    return int(number)


def watch(diary: Diary) -> None:
    """Have the product say in this process how far each purchase has come."""
    _watch_writes(diary)
    _watch_posts(diary)
    _watch_disk(diary)


def _watch_writes(diary: Diary) -> None:
    intended, handed_over = Journal.intended, Journal.handed_over

    async def intend(self: Journal, job: Any, intent: Any) -> None:
        diary.note("before the intent", job.key, number=number_in(_text_of(intent.call)))
        await intended(self, job, intent)
        diary.note("after the intent", job.key)

    def hand_over(self: Journal, job: Any) -> None:
        diary.note("before the hand-over", job.key, status=job.status.value)
        handed_over(self, job)
        diary.note("after the hand-over", job.key)

    Journal.intended = intend  # type: ignore[method-assign]
    Journal.handed_over = hand_over  # type: ignore[method-assign]
    _watch_fact(diary, "accepted", None, "after the id")
    _watch_fact(diary, "settled", "before the outcome", "after the outcome")
    _watch_fact(diary, "withdrawn", None, "after the refusal")


def _watch_fact(diary: Diary, name: str, before: str | None, after: str) -> None:
    original = getattr(Journal, name)

    async def record(self: Journal, job: Any, *facts: Any) -> None:
        if before is not None:
            diary.note(before, job.key)
        await original(self, job, *facts)
        diary.note(after, job.key)

    setattr(Journal, name, record)


def _watch_posts(diary: Diary) -> None:
    module: Any = _buyer  # which shares what it has imported with nobody but us
    attempt = module.attempt

    async def send(transport: Any, endpoint: Any, offer: Any) -> Any:
        outcome = await attempt(transport, endpoint, offer)
        diary.note("after the reply" if outcome.fate is Fate.ACCEPTED else "after a bad reply", offer.key)
        return outcome

    module.attempt = send


def _watch_disk(diary: Diary) -> None:
    module: Any = _folder  # which shares what it has imported with nobody but us
    write_files, merge, take = _writer._write_files, module.merge, Journal.take

    def write(files: Any, *, flush: bool) -> None:
        write_files(files, flush=flush)
        if files:
            diary.note("after the files")

    def adopt(connection: Any, path: Path) -> None:
        merge(connection, path)
        diary.note("after the merge")

    async def answer_for(self: Journal, keys: Any) -> None:
        await take(self, keys)
        diary.note("after the taking")

    _writer._write_files = write
    module.merge = adopt
    Journal.take = answer_for  # type: ignore[method-assign]


def _text_of(call: Call) -> str:
    return str(call.body.fields) if isinstance(call.body, Form) else (call.body or b"").decode()
