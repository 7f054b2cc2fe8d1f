"""A look at the answers that come most often and say least: that a task goes on.

One pass is enough for them, where the way through fields that may each be anything takes several. Whatever is not
exactly so is left to that way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from mirage_async.wire._errors import raise_for_status
from mirage_async.wire._json import decode_or_none

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


def glimpse(reply: Reply, provider: str) -> Task | None:
    """Return what a 2xx answer shows of a task at a glance; None where a closer look is due.

    Raises:
        APIError: the status is an error.
    """
    raise_for_status(reply, provider)
    answer = decode_or_none(reply.body, _Answer)
    return None if answer is None or answer.success is False else answer.data
