"""Headers as every framework has them, looked up in one way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

__all__ = ["Find", "Headers", "finder"]

Headers: TypeAlias = Mapping[str, str] | Iterable[tuple[str | bytes, str | bytes]]
"""A mapping with names in any case, or pairs of text or bytes as ASGI has them."""

Find: TypeAlias = Callable[[str], "str | None"]
"""Returns a header by its lower-case name, the first where there are several."""


def finder(headers: Headers) -> Find:
    """Return a way to look headers up; what is neither text nor bytes is passed over."""
    items: Any = getattr(headers, "items", None)
    pairs: Any = headers if items is None else items()
    found: dict[str, str] = {}
    for name, value in pairs:
        name_text, text = _text(name), _text(value)
        if name_text is not None and text is not None:
            found.setdefault(name_text.lower(), text)
    return found.get


def _text(value: object) -> str | None:
    if isinstance(value, bytes):
        return value.decode("latin-1")
    return value if isinstance(value, str) else None
