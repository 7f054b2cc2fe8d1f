"""Turning whatever a caller offers as a picture into bytes with a known type, or a link."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from anyio import to_thread

from mirage_async import media
from mirage_async.exceptions import InputError
from mirage_async.models import Reference

if TYPE_CHECKING:
    from mirage_async.media import Picture
    from mirage_async.models import ImageInput

__all__ = ["is_several", "load", "load_all"]

LARGEST_FILE = 64 << 20  # bytes; above any provider's limit, checked before a file is read into memory


async def load(name: str, value: ImageInput, *, provider: str) -> Picture:
    """Load one input picture; which types and sizes are allowed is the codec's business.

    Args:
        name: the parameter's name, for messages.
        value: bytes, a path object, a data URL, an http(s) URL, a PIL image, or a `Reference` around one of these.
        provider: for messages.

    Raises:
        InputError: it is none of these, cannot be read, or holds no picture this library knows.
    """
    label = None
    offered: Any = value
    if isinstance(value, Reference):
        label, offered = value.label, value.data
    if isinstance(offered, str) and offered.startswith(("http://", "https://")):
        return media.Picture(url=offered, label=label)
    data = await _bytes(name, offered, provider)
    facts = media.inspect(data)
    if facts is None:
        msg = f"{name} must be a picture (JPEG, PNG or WebP); got {media.describe(offered)}, which is none"
        raise InputError(msg, provider=provider)
    return media.Picture(data=data, label=label, facts=facts)


async def load_all(name: str, values: Iterable[ImageInput], *, provider: str, at_most: int) -> tuple[Picture, ...]:
    """Load several input pictures; too many are refused before the first is read."""
    if values == ():
        return ()
    if not is_several(values):
        msg = f"{name} must be a sequence of pictures; got a single {type(values).__name__}: write [picture]"
        raise InputError(msg, provider=provider)
    items = list(values)
    if len(items) > at_most:
        msg = f"{name} must be at most {at_most} pictures; got {len(items)}"
        raise InputError(msg, provider=provider)
    return tuple([await load(f"{name}[{index}]", item, provider=provider) for index, item in enumerate(items)])


def is_several(values: object) -> bool:
    """Whether this is a collection of pictures and not one picture."""
    return isinstance(values, Iterable) and not isinstance(
        values, bytes | bytearray | memoryview | str | os.PathLike | Reference
    )


async def _bytes(name: str, offered: Any, provider: str) -> bytes:
    if isinstance(offered, bytes | bytearray):
        return bytes(offered)
    if isinstance(offered, memoryview):
        return cast("memoryview[int]", offered).tobytes()
    if isinstance(offered, os.PathLike):
        return await _file(name, Path(os.fspath(cast("os.PathLike[str]", offered))), provider)
    if isinstance(offered, str):
        return _inline(name, offered, provider)
    if hasattr(offered, "save") and hasattr(offered, "convert"):
        try:
            return await to_thread.run_sync(_encoded, offered)
        except (OSError, ValueError, SyntaxError) as error:  # what Pillow raises for a picture that is cut or broken
            msg = f"{name} must be a whole picture; got a PIL image that cannot be encoded: {type(error).__name__}"
            raise InputError(msg, provider=provider) from None
    msg = (
        f"{name} must be bytes, a pathlib.Path, a data URL, an http(s) URL, a PIL image or a Reference; "
        f"got {type(offered).__name__}"
    )
    raise InputError(msg, provider=provider)


async def _file(name: str, path: Path, provider: str) -> bytes:
    def read() -> bytes:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe or a device has no end to read to
            msg = f"{name} must be a readable file; got {str(path)!r}, which is no regular file"
            raise InputError(msg, provider=provider)
        with path.open("rb") as file:
            data = file.read(LARGEST_FILE + 1)
        if len(data) > LARGEST_FILE:
            msg = f"{name} must be a file of at most {LARGEST_FILE} bytes; got {str(path)!r}, which is larger"
            raise InputError(msg, provider=provider)
        return data

    try:
        return await to_thread.run_sync(read)
    except InputError:
        raise
    except (OSError, ValueError) as error:  # a name with a NUL is a ValueError
        reason = getattr(error, "strerror", None) or str(error)
        msg = f"{name} must be a readable file; got {str(path)!r}: {reason}"
        raise InputError(msg, provider=provider) from None


def _inline(name: str, text: str, provider: str) -> bytes:
    if not text.startswith("data:"):
        # A bare string is never opened as a file: a form field with "/etc/passwd" in it must not become an upload.
        msg = (
            f"{name} must be a data URL or an http(s) URL where it is a str; got {media.describe(text)}: "
            "for a file pass pathlib.Path(...)"
        )
        raise InputError(msg, provider=provider)
    try:
        return media.parse_data_url(text)[1]
    except ValueError as error:
        msg = f"{name} must be a whole data URL; got {media.describe(text)}: {error}"
        raise InputError(msg, provider=provider) from None


def _encoded(image: Any) -> bytes:
    """Encode a PIL image without loss; every provider that takes pictures takes PNG."""
    buffer = io.BytesIO()
    mode = image.mode
    if mode not in {"1", "L", "LA", "P", "RGB", "RGBA"}:  # what PNG has
        mode = "RGBA" if mode in {"PA", "La", "RGBa"} else "RGB"
    (image if image.mode == mode else image.convert(mode)).save(buffer, format="PNG")
    return buffer.getvalue()
