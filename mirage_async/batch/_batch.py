"""What people hold of a batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from mirage_async.batch._budget import Budget, Till
from mirage_async.batch._engine import Engine, Terms
from mirage_async.batch._items import iterate
from mirage_async.exceptions import InputError

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Iterable
    from types import TracebackType

    from mirage_async.batch._engine import Shop
    from mirage_async.batch._statistics import BatchStatistics
    from mirage_async.models import ImageRequest, Outcome

__all__ = ["Batch"]


class Batch:
    """Many purchases, as an asynchronous iterator of their outcomes; `Mirage.batch` makes it.

    **Outcomes.** Every item that is pulled from the input has exactly one outcome, or one for each part of a split one,
    in the order they come in or, with `ordered`, in that of the input. An item that cannot be bought, or that is no
    request at all, has one with an error; it never ends the batch or harms the others. An error of the input itself,
    whatever its type, is raised after the outcomes of all that was pulled.

    **Bounds.** At most `limit` items are under way at any time: pulled, and their outcome not yet taken (of a split
    one, each part counts). So at most `limit` are in flight, and the input is never read more than `limit` items
    ahead of you: who stops taking stops the buying. With `ordered` a slow item holds up the pulling once `limit` items
    are under way behind it. A synchronous input is read in the event loop and must not block. With a `limit` above
    what `Limits.jobs` allows, items wait for a place there within their own `max_wait`.

    **Providers.** Once an account is refused with `AuthenticationError` or `InsufficientCreditsError`, nothing more is
    bought from that provider: later items for it have the same error without anything being sent, and those that name
    other `providers` as well go to these. Where a provider has both, jobs are used and not one long answer.

    **Budget.** The first item the budget does not allow has `BudgetExceededError` as its outcome. Nothing is pulled or
    bought after it, and the iteration ends with what is in flight. With less than a purchase left it is awaited first
    how those in flight end, since one that is proven unpaid gives its share back.

    **The end.** `stop` buys nothing more and lets you take the outcomes of what is in flight. `aclose`, leaving
    `async with`, and cancelling a wait for the next outcome buy nothing more and end the iteration; so does dropping
    the batch, as `break` does where the loop alone holds it. A `break` from a batch you keep only pauses it: it
    buys no more than its places hold. What was bought and not handed over stays in the clients' `jobs` until
    somebody awaits it there (of finished ones the newest 100 an account). When the hub closes, what was in flight has
    `ClosedError` as its outcome, and the iteration ends by raising one. Several tasks may take outcomes at once; each
    goes to one of them.

    Args:
        requests: the input, an iterable or an asynchronous one of requests or prompts.
        shop: who sells.
        provider: who draws the items that name nobody, or None.
        providers: the same, in turn.
        limit: the most items under way.
        budget: where to stop buying, or None.
        ordered: outcomes in the order of the input.
        split: buy an `n` above the provider's maximum in parts.

    Raises:
        InputError: an argument out of range.
    """

    def __init__(
        self,
        requests: Iterable[ImageRequest | str] | AsyncIterable[ImageRequest | str],
        shop: Shop,
        *,
        provider: str | None = None,
        providers: tuple[str, ...] = (),
        limit: int = 8,
        budget: Budget | None = None,
        ordered: bool = False,
        split: bool = False,
    ) -> None:
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            msg = f"limit must be a whole number of at least 1; got {limit!r}"
            raise InputError(msg)
        if budget is not None and not isinstance(budget, Budget):
            msg = f"budget must be a Budget(...), such as Budget(purchases=100), or None; got {budget!r}"
            raise InputError(msg)
        terms = Terms(
            limit=limit,
            ordered=_flag("ordered", ordered),
            split=_flag("split", split),
            provider=provider,
            providers=providers,
        )
        self._engine = Engine(iterate(requests), shop, Till(budget), terms)

    def __aiter__(self) -> Self:
        """Return the batch itself; it can be iterated over once, in as many goes as you like."""
        return self

    async def __anext__(self) -> Outcome:
        """Return the next outcome; cancelling the wait for it closes the batch."""
        return await self._engine.take()

    async def __aenter__(self) -> Self:
        """Return the batch; nothing begins yet."""
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the batch."""
        await self.aclose()

    def stop(self) -> None:
        """Buy nothing more; the outcomes of what is in flight can be taken, then the iteration ends.

        An item that was pulled and not bought yet has `ClosedError` as its outcome. A wait for the next item of an
        asynchronous input is cancelled.
        """
        self._engine.stop()

    async def aclose(self) -> None:
        """Buy nothing more, leave what is in flight or not taken to the clients' `jobs`, and end. May be called twice.

        A request on the wire is not cut short: what it buys appears in `jobs`. An input that is an asynchronous
        generator is closed; what it raises then is raised here.
        """
        await self._engine.aclose()

    def statistics(self) -> BatchStatistics:
        """Return the counts of this moment."""
        return self._engine.statistics()

    def __repr__(self) -> str:
        counts = self.statistics()
        state = "stopped" if counts.stopped else f"{counts.in_flight} in flight"
        return f"<Batch {counts.pulled} pulled, {counts.succeeded} succeeded, {state}>"

    def __del__(self) -> None:
        engine: Any = getattr(self, "_engine", None)  # absent where the constructor has raised
        if engine is not None:
            engine.abandon_from_anywhere()


def _flag(name: str, value: bool) -> bool:
    if not isinstance(value, bool):
        msg = f"{name} must be True or False; got {value!r}"
        raise InputError(msg)
    return value
