"""Bytes that arrive in parts and leave as one `bytes`, without ever being held twice."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["GrowingBytes"]


class GrowingBytes:
    """Collects parts; `take()` hands out the collected bytes themselves, not a copy.

    Parts joined at the end are held twice for a moment, which for a picture is the difference between its size and
    double its size. A `BytesIO` writes into the very object it gives away afterwards. Where the length is known in
    advance the room is made at once: the memory is touched only as it is filled, and nothing is moved while it grows,
    which for tens of megabytes would hold up the event loop.

    Args:
        expected: bytes that will probably come. What is too much is given back, what is too little is made up for.

    Attributes:
        append: adds a part, which is copied, and returns its length.
    """

    __slots__ = ("_file", "append")

    def __init__(self, expected: int = 0) -> None:
        # The only reference to these zeros is the buffer's own, so they are written over in place.
        self._file = io.BytesIO(bytes(max(expected, 0)))
        self.append: Callable[[bytes | memoryview], int] = self._file.write

    def cut(self, length: int) -> None:
        """Forget what comes after the first `length` bytes, but not the room that was made."""
        self._file.seek(length)

    def take(self) -> bytes:
        """Return everything, and begin again with nothing."""
        file, self._file = self._file, io.BytesIO()
        self.append = self._file.write
        file.truncate()  # at the position: what was expected and did not come
        return file.getvalue()

    def __len__(self) -> int:
        return self._file.tell()
