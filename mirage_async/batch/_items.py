"""What goes into a batch: any source of requests, and the requests and parts its items become."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from mirage_async.exceptions import InputError
from mirage_async.models import ImageRequest, check_types

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["iterate", "parts_of", "request_of"]

_NOT_SEVERAL = (str, bytes, Mapping, ImageRequest)


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
    check_types(request)
    if request.provider is None and not request.providers:
        return msgspec.structs.replace(request, provider=provider, providers=providers)
    return request


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
