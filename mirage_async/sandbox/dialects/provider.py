"""What a provider is to the server: its operations, its key and its way of saying no."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from mirage_async.sandbox.answers import Answer, RefusalError
    from mirage_async.sandbox.bodies import Body
    from mirage_async.sandbox.world import World

__all__ = ["Call", "Operation", "Provider", "api_key_header", "bearer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request as an operation sees it: the names in its path and its decoded body."""

    path_values: Mapping[str, str]
    body: Body


Handler: TypeAlias = "Callable[[World, Call], Coroutine[Any, Any, Answer]]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One thing a provider does.

    Attributes:
        name: "provider.verb", the name faults and statistics use.
        method: HTTP method.
        paths: paths, with `{names}`.
        handle: the work; raises `RefusalError` to refuse.
        needs_key: False for downloads, which anybody with the link may do.
    """

    name: str
    method: str
    paths: tuple[str, ...]
    handle: Handler
    needs_key: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """One provider.

    Attributes:
        name: as in "mirako.create".
        kinds: kinds of work it does, each with its own durations.
        operations: in the order in which paths are tried.
        find_key: returns the API key in lower-case headers, "" when there is none.
        refuse: words a refusal in the provider's own shape.
    """

    name: str
    kinds: tuple[str, ...] = ("image",)
    operations: tuple[Operation, ...]
    find_key: Callable[[Mapping[str, str]], str]
    refuse: Callable[[RefusalError], Answer]


def bearer(headers: Mapping[str, str]) -> str:
    """Return the token of `Authorization: Bearer`, or ""."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def api_key_header(headers: Mapping[str, str]) -> str:
    """Return the value of `X-API-Key`, or ""."""
    return headers.get("x-api-key", "").strip()
