"""A look at the answers that come most often and say least: that a task goes on.

One pass is enough for them, where the way through fields that may each be anything takes several. Whatever is not
exactly so, or is long and so says more, is left to that way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from mirage_async.wire._errors import raise_for_status
from mirage_async.wire._json import UNREADABLE

if TYPE_CHECKING:
    from mirage_async.wire._message import Reply

__all__ = ["Task", "glimpse"]


class Task(msgspec.Struct):
    """What is seen of a task.

    Attributes:
        status: the provider's own word.
        task_id: empty where there is none.
    """

    status: str
    task_id: str = ""


class _Answer(msgspec.Struct):
    data: Task
    success: object = None


_LONGEST = 1 << 10  # bytes; an answer longer than this may well hold a picture
_decoder = msgspec.json.Decoder(_Answer)


def glimpse(reply: Reply, provider: str) -> Task | None:
    """Return what a 2xx answer shows of a task at a glance; None where a closer look is due.

    Raises:
        APIError: the status is an error.
    """
    if reply.status != 200:  # noqa: PLR2004 - HTTP's own number, and the way of nearly every answer
        raise_for_status(reply, provider)
    if len(reply.body) > _LONGEST:
        return None
    try:
        answer = _decoder.decode(reply.body)
    except UNREADABLE:
        return None
    return None if answer.success is False else answer.data
