"""What a provider is to the server: its operations, its key and its way of saying no."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from mirage_async.sandbox.faults.flaws import ANSWER_FLAWS
from mirage_async.sandbox.faults.places import Place

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping

    from mirage_async.sandbox.answers import Answer, RefusalError
    from mirage_async.sandbox.bodies import Body
    from mirage_async.sandbox.faults.places import Stage
    from mirage_async.sandbox.honesty import Behaviour
    from mirage_async.sandbox.jobs import Job
    from mirage_async.sandbox.world import World

__all__ = ["Call", "Operation", "Provider", "api_key_header", "bearer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request as an operation sees it.

    Attributes:
        path_values: the names in its path.
        body: its decoded body.
        account: the short name of its key.
        flaws: what shall be wrong with its answer, or with the job it starts.
    """

    path_values: Mapping[str, str]
    body: Body
    account: str = ""
    flaws: frozenset[str] = frozenset()


Handler: TypeAlias = "Callable[[World, Call], Coroutine[Any, Any, Answer]]"


def _never(_: Mapping[str, Any]) -> bool:
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One thing a provider does.

    Attributes:
        name: "provider.verb", the name faults and statistics use.
        method: HTTP method.
        paths: paths, with `{names}`.
        stage: what it is for its job: what buys it, asks for it, lists it, or hands out its picture.
        handle: the work; raises `RefusalError` to refuse.
        blocking: whether the answer of a submit is the result.
        embeds: whether the result holds the picture itself, told from the request's fields.
        needs_key: False for downloads, which anybody with the link may do.
        flaws: what can be seen to be wrong with its answer or, for a submit, with the job for as long as it lives.
        embedded_flaws: the same when the result holds the picture itself; None for no difference.
        leads_to: the names of the operations that are about the job of a submit later on.
    """

    name: str
    method: str
    paths: tuple[str, ...]
    stage: Stage
    handle: Handler
    blocking: bool = False
    embeds: Callable[[Mapping[str, Any]], bool] = _never
    needs_key: bool = True
    flaws: frozenset[str] = ANSWER_FLAWS
    embedded_flaws: frozenset[str] | None = None
    leads_to: tuple[str, ...] = ()

    @property
    def place(self) -> Place:
        """What faults see of it."""
        return Place(
            stage=self.stage,
            flaws=self.flaws,
            embedded_flaws=self.embedded_flaws,
            embeds=self.embeds({}),
            leads_to=self.leads_to,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """One provider.

    Attributes:
        name: as in "mirako.create".
        kinds: kinds of work it does, each with its own durations.
        operations: in the order in which paths are tried.
        find_key: returns the API key in lower-case headers, "" when there is none.
        refuse: words a refusal in the provider's own shape.
        price: credits a picture costs.
        announce: returns the body of the request that tells a webhook of a job's end, the same each time; None where
            the provider calls nobody.
        behaviours: where what it does here comes from.
    """

    name: str
    kinds: tuple[str, ...] = ("image",)
    operations: tuple[Operation, ...]
    find_key: Callable[[Mapping[str, str]], str]
    refuse: Callable[[RefusalError], Answer]
    price: float = 1.0
    announce: Callable[[World, Job], Awaitable[bytes]] | None = None
    behaviours: tuple[Behaviour, ...] = ()


def bearer(headers: Mapping[str, str]) -> str:
    """Return the token of `Authorization: Bearer`, or ""."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def api_key_header(headers: Mapping[str, str]) -> str:
    """Return the value of `X-API-Key`, or ""."""
    return headers.get("x-api-key", "").strip()
