"""Portable parameters: the same words for every provider, and a clear no where one cannot be honoured."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mirage_async.exceptions import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mirage_async.models import ImageRequest

__all__ = [
    "listed_ratio",
    "nearest_ratios",
    "one_of_two",
    "only",
    "ratio_of",
    "refuse_unsupported",
    "size_of",
    "with_options",
]


def ratio_of(text: str, provider: str) -> tuple[int, int]:
    """Return an aspect ratio as two whole numbers, or raise `InputError` unless it reads like "16:9"."""
    match = re.fullmatch(r"([1-9][0-9]{0,3}):([1-9][0-9]{0,3})", text) if isinstance(text, str) else None
    if match is None:
        msg = f'aspect_ratio must look like "16:9"; got {text!r}'
        raise InputError(msg, provider=provider)
    return int(match[1]), int(match[2])


def size_of(text: str, provider: str) -> tuple[int, int]:
    """Return a size as width and height in pixels, or raise `InputError` unless it reads like "1024x768"."""
    match = re.fullmatch(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})", text) if isinstance(text, str) else None
    if match is None:
        msg = f'size must look like "1024x768" (width x height in pixels); got {text!r}'
        raise InputError(msg, provider=provider)
    return int(match[1]), int(match[2])


def nearest_ratios(asked: tuple[int, int], allowed: Iterable[str], *, most: int = 2) -> list[str]:
    """Return the allowed ratios closest to the one asked for, the closest first."""
    wanted = asked[0] / asked[1]

    def distance(text: str) -> float:
        width, height = (int(part) for part in text.split(":"))
        ratio = width / height
        return max(ratio / wanted, wanted / ratio)

    return sorted(allowed, key=distance)[:most]


def listed_ratio(text: str, allowed: Sequence[str], provider: str) -> str:
    """Return an aspect ratio a provider lists, or raise `InputError` with the nearest it does."""
    if text not in allowed:
        near = " or ".join(nearest_ratios(ratio_of(text, provider), allowed))
        msg = f"aspect_ratio must be one of {', '.join(allowed)}; got {text!r}, nearest {near}"
        raise InputError(msg, provider=provider)
    return text


def only(name: str, value: object, allowed: Sequence[object], *, provider: str, hint: str = "") -> None:
    """Raise `InputError` unless `value` is one of `allowed`."""
    if value not in allowed or isinstance(value, bool):
        choices = " or ".join(repr(choice) for choice in allowed)
        msg = f"{name} must be {choices} at {provider}; got {value!r}{hint}"
        raise InputError(msg, provider=provider)


def refuse_unsupported(request: ImageRequest, provider: str, reasons: Mapping[str, str]) -> None:
    """Raise `InputError` for a portable parameter the provider has nothing for.

    Args:
        request: what was asked for.
        provider: the provider's name.
        reasons: by parameter, what to use instead.
    """
    for name, instead in reasons.items():
        value = getattr(request, name)
        if value is not None and value != ():
            msg = f"{provider} has no {name}; got {value!r}: {instead}"
            raise InputError(msg, provider=provider)


def one_of_two(request: ImageRequest, provider: str) -> None:
    """Raise `InputError` where both size and aspect ratio are given: one says everything."""
    if request.size is not None and request.aspect_ratio is not None:
        msg = f"give size or aspect_ratio, not both; got {request.size!r} and {request.aspect_ratio!r}"
        raise InputError(msg, provider=provider)


def with_options(
    request: ImageRequest, arguments: dict[str, Any], allowed: Sequence[str], provider: str
) -> dict[str, Any]:
    """Add the provider's own parameters from `request.options` to the arguments of its client method.

    Raises:
        InputError: an option the provider does not know, or one that says again what a portable parameter said.
    """
    if request.options is not None and not isinstance(request.options, Mapping):
        msg = f"options must be a mapping of parameters by name; got {request.options!r:.60}"
        raise InputError(msg, provider=provider)
    for name, value in (request.options or {}).items():
        if name not in allowed:
            msg = f"options must be among {', '.join(map(repr, allowed)) or 'none'} at {provider}; got {name!r}"
            raise InputError(msg, provider=provider)
        if arguments.get(name) not in (None, ()):
            msg = f"options repeats {name}, which is already given as {arguments[name]!r}; got {value!r}"
            raise InputError(msg, provider=provider)
        arguments[name] = value
    if request.max_wait is not None:
        arguments["max_wait"] = request.max_wait
    return arguments
