"""Many pictures at once over all providers, within limits, with a summary at the end.

python examples/many_jobs.py [JOBS]            on a sandbox: no key, no network, no money (120 jobs by default)
python examples/many_jobs.py JOBS --real       with the keys in your environment: JOBS purchases
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from contextlib import AsyncExitStack

from mirage_async import Limits, Mirage
from mirage_async.exceptions import MirageError
from mirage_async.sandbox import Sandbox

PROVIDERS = ("mirako", "miragic", "mira", "milady")
LIMITS = Limits(jobs=20, polls=8, polls_per_second=20.0)  # of each provider account


async def buy(mirage: Mirage, number: int) -> str:
    """Buy one picture and read it; return one word about how that went."""
    provider = PROVIDERS[number % len(PROVIDERS)]
    try:
        job = await mirage.submit(f"postcard number {number % 10}", provider=provider)
        generation = await job
        await generation.image.read()
    except MirageError as error:  # one failure is one line in the summary; the other jobs go on
        return f"{provider} {type(error).__name__} (billed: {error.billed})"
    return f"{provider} done"


async def main(jobs: int, *, real: bool) -> None:
    """Start all jobs at once; the limits decide how many are under way."""
    async with AsyncExitStack() as stack:
        base_urls = None if real else (await stack.enter_async_context(Sandbox())).base_urls
        mirage = await stack.enter_async_context(Mirage(base_urls=base_urls, limits=LIMITS))
        began = time.monotonic()
        summary = Counter(await asyncio.gather(*(buy(mirage, number) for number in range(jobs))))
        seconds = time.monotonic() - began
        for line, count in sorted(summary.items()):
            print(f"{count:5} {line}")
        polls = mirage.statistics().scheduler.polls_sent
        print(f"{jobs} jobs in {seconds:.1f} s with {polls} status calls")


if __name__ == "__main__":
    arguments = [argument for argument in sys.argv[1:] if argument != "--real"]
    if "--real" in sys.argv and not arguments:
        sys.exit("with --real say how many jobs: each one is a purchase")
    asyncio.run(main(int(arguments[0]) if arguments else 120, real="--real" in sys.argv))
