"""Headers as every framework has them, looked up in one way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

from mirage_async.exceptions import InputError

__all__ = ["Find", "Headers", "finder"]

Headers: TypeAlias = Mapping[str, str] | Iterable[tuple[str | bytes, str | bytes]]
"""A mapping with names in any case, or pairs of text or bytes as ASGI has them."""

Find: TypeAlias = Callable[[str], "str | None"]
"""Returns a header by its lower-case name, the first where there are several; of `content-encoding` all of them."""

_CODING = "content-encoding"


def finder(headers: Headers) -> Find:
    """Return a way to look headers up; what is neither text nor bytes is passed over.

    Raises:
        InputError: these are no headers at all; no request can cause it.
    """
    items: Any = getattr(headers, "items", None)
    try:
        given: Any = headers if items is None else items()
        pairs: list[tuple[Any, Any]] = [(name, value) for name, value in given]
    except (TypeError, ValueError):
        msg = f"headers must be a mapping or pairs of a name and a value; got a value of type {type(headers).__name__}"
        raise InputError(msg) from None
    found: dict[str, str] = {}
    for name, value in pairs:
        name_text, text = _text(name), _text(value)
        if name_text is None or text is None:
            continue
        key = name_text.lower()
        if key == _CODING and key in found:  # one that is hidden behind "identity" would be a coding all the same
            found[key] += f", {text}"
        else:
            found.setdefault(key, text)
    return found.get


def _text(value: object) -> str | None:
    if isinstance(value, bytes):
        return value.decode("latin-1")
    return value if isinstance(value, str) else None
