"""What goes into a batch: any source of requests, and the requests and parts its items become."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping
from types import NoneType
from typing import TYPE_CHECKING, Any

import msgspec

from mirage_async.exceptions import InputError
from mirage_async.models import ImageRequest

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["iterate", "parts_of", "request_of"]

_NOT_SEVERAL = (str, bytes, Mapping, ImageRequest)
_LARGEST = 2**63  # of whole numbers; what is beyond cannot always be shown, nor be reckoned with

_TEXTS = ("provider", "aspect_ratio", "size", "model", "key")
_WHOLE = ("n", "seed")
_LISTS = ("providers", "references")


def iterate(requests: Iterable[Any] | AsyncIterable[Any]) -> AsyncIterator[Any]:
    """Return an iterator over the input, which is not touched before it is asked for its first item.

    Raises:
        InputError: not something to iterate over, or something whose items are surely not meant (text, a mapping).
    """
    if isinstance(requests, AsyncIterable):
        return aiter(requests)
    if isinstance(requests, _NOT_SEVERAL) or not isinstance(requests, Iterable):
        kind = type(requests).__name__  # pyright: ignore[reportUnknownArgumentType] - of whatever was given
        msg = f"requests must be an iterable of ImageRequest or prompts; got a single {kind}"
        raise InputError(msg)
    return _Items(iter(requests))


class _Items(AsyncIterator[Any]):
    """An iterator's items, asynchronously; a generator would leave something to tidy where it is not exhausted."""

    __slots__ = ("_items",)

    def __init__(self, items: Iterator[Any]) -> None:
        self._items = items

    async def __anext__(self) -> Any:
        for item in self._items:
            return item
        raise StopAsyncIteration


def request_of(item: object, provider: str | None, providers: tuple[str, ...]) -> ImageRequest:
    """Return the request an item stands for, bought from `provider` or `providers` where it names none.

    Raises:
        InputError: neither a request nor a prompt, or one with a value of a type it cannot have.
    """
    request = ImageRequest(prompt=item) if isinstance(item, str) else item
    if not isinstance(request, ImageRequest):
        msg = f"an item of a batch must be an ImageRequest or a prompt; got one of type {type(item).__name__}"
        raise InputError(msg)
    _check_types(request)
    if request.provider is None and not request.providers:
        return msgspec.structs.replace(request, provider=provider, providers=providers)
    return request


def _check_types(request: ImageRequest) -> None:
    """Raise `InputError` for a value that could not even be reckoned with; ranges are the provider's business."""
    _must_be("prompt", request.prompt, str, "text")
    for name in _TEXTS:
        _must_be(name, getattr(request, name), (str, NoneType), "text or None")
    for name in _WHOLE:
        value = getattr(request, name)
        _must_be(name, value, (int, NoneType), "a whole number or None")
        if value is not None and not -_LARGEST < value < _LARGEST:
            msg = f"{name} must be a number of at most 19 digits; got one of {value.bit_length()} bits"
            raise InputError(msg)
    for name in _LISTS:
        _must_be(name, getattr(request, name), (tuple, list), "a tuple or a list")
    _must_be("options", request.options, (Mapping, NoneType), "a mapping of parameters by name, or None")
    _must_be("max_wait", request.max_wait, (int, float, NoneType), "a number of seconds or None")


def _must_be(name: str, value: object, kinds: Any, words: str) -> None:
    if not isinstance(value, kinds) or isinstance(value, bool):
        msg = f"{name} must be {words}; got a value of type {type(value).__name__}"
        raise InputError(msg)


def parts_of(request: ImageRequest, most: int) -> tuple[int, Iterator[ImageRequest]]:
    """Split a request for more than `most` pictures; return how many parts there are, and the parts as they are needed.

    Raises:
        InputError: it has a seed, so that every part would be the same picture.
    """
    n = request.n
    if n is None or n <= most:
        return 1, iter((request,))
    if request.seed is not None:
        msg = f"seed must be left out of a request that is split, or its parts would be the same; got n={n} with a seed"
        raise InputError(msg)
    whole, rest = divmod(n, most)
    parts = whole + (rest > 0)
    return parts, (_part(request, number, most if number <= whole else rest) for number in range(1, parts + 1))


def _part(request: ImageRequest, number: int, n: int) -> ImageRequest:
    """Return one part; under a caller's own key, one that is made of it, since a key stands for one purchase."""
    key = request.key
    if isinstance(key, str):
        key = hashlib.blake2b(f"{key} part {number}".encode(), digest_size=16).hexdigest()
    return msgspec.structs.replace(request, n=n, key=key)
