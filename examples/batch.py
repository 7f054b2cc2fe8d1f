"""An endless stream of prompts, eight at a time, until a budget is spent; failures are outcomes like any other.

python examples/batch.py [PICTURES]            on a sandbox: no key, no network, no money (20 pictures by default)
python examples/batch.py PICTURES --real       with your MIRAGIC_API_KEY and MIRAKO_API_KEY: up to PICTURES purchases
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from mirage_async import Budget, Mirage
from mirage_async.sandbox import Fault, Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator

PLACES = ("a harbour", "a forest", "an attic", "a market")
HOURS = ("at dawn", "at noon", "at night")


def prompts() -> Iterator[str]:
    """Never end: the batch pulls no more than it can buy."""
    for place, hour in itertools.cycle(itertools.product(PLACES, HOURS)):
        yield f"{place} {hour}"


async def main(pictures: int, *, real: bool) -> None:
    """Buy from Miragic, and where that is proven to cost nothing, try Mirako instead."""
    async with AsyncExitStack() as stack:
        base_urls = None
        if not real:
            sandbox = await stack.enter_async_context(Sandbox(durations=(0.1, 0.5)))
            sandbox.fail("miragic.create", Fault(status=422), "reset-after")  # one refusal, one answer that gets lost
            base_urls = sandbox.base_urls
        mirage = await stack.enter_async_context(Mirage(base_urls=base_urls))
        budget = Budget(pictures=pictures)
        async with mirage.batch(prompts(), providers=["miragic", "mirako"], limit=8, budget=budget) as batch:
            async for outcome in batch:
                if outcome.generation is None:
                    print(f"{outcome.index:4} {type(outcome.error).__name__} (billed: {outcome.billed})")
                else:
                    tried = " after ".join(each.provider for each in reversed(outcome.generation.tried))
                    print(f"{outcome.index:4} {outcome.request.prompt}: {tried}")
        counts = batch.statistics()
        print(f"{counts.succeeded} pictures, {counts.uncertain} uncertain, {counts.purchases} counted as bought")


if __name__ == "__main__":
    arguments = [argument for argument in sys.argv[1:] if argument != "--real"]
    if "--real" in sys.argv and not arguments:
        sys.exit("with --real say how many pictures: each one is a purchase")
    asyncio.run(main(int(arguments[0]) if arguments else 20, real="--real" in sys.argv))
