"""What can be told of a picture somebody sent: its format, its size, its colour."""

from __future__ import annotations

import io
import warnings
from hashlib import blake2b
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mirage_async.sandbox.drawing.pictures import Colour

__all__ = ["average_colour", "probe"]


def probe(data: bytes) -> tuple[str, int, int] | None:
    """Return format, width and height of an encoded picture from its head, or None when it is no picture."""
    from PIL import Image  # noqa: PLC0415 - a sandbox starts sooner without

    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(data)) as image:
            return image.format or "", image.width, image.height
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        return None


def average_colour(data: bytes) -> Colour:
    """Return the average colour of an encoded picture; for other bytes, a colour that depends on them alone.

    Decodes the picture, so not on an event loop.
    """
    from PIL import Image, ImageStat  # noqa: PLC0415 - same

    try:
        with Image.open(io.BytesIO(data)) as image:
            image.draft("RGB", (64, 64))
            red, green, blue = (round(part) for part in ImageStat.Stat(image.convert("RGB")).mean)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        red, green, blue = blake2b(data, digest_size=3).digest()
    return red, green, blue
