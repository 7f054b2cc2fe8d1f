"""Build an avatar at Mirako, watch it grow, and draw it by its id.

    python examples/avatar.py                           on a sandbox: no key, no network, no money
    python examples/avatar.py --real [PORTRAIT]         with your MIRAKO_API_KEY: two or three purchases

Without a portrait of yours (JPEG or PNG, 512 x 512 pixels or more) one is drawn first.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack
from pathlib import Path

from mirage_async import MirakoClient
from mirage_async.exceptions import WaitTimeoutError
from mirage_async.sandbox import Sandbox


async def main(portrait: Path | None, *, real: bool) -> None:
    """Take the portrait, build, wait with a sign of life, draw."""
    async with AsyncExitStack() as stack:
        base_url = None if real else (await stack.enter_async_context(Sandbox())).url
        mirako = await stack.enter_async_context(MirakoClient(base_url=base_url))
        if portrait is None:
            drawn = await mirako.generate("a friendly face, studio light", aspect_ratio="1:1", seed=3)
            job = await mirako.build_avatar("Nova", await drawn.image.read())
        else:
            job = await mirako.build_avatar(portrait.stem, portrait)
        print("accepted; this attaches to it from anywhere:", job.token())
        try:
            async for update in job.updates():
                print(f"{update.elapsed:6.1f} s  {update.status}")
            avatar = await job
        except WaitTimeoutError as error:
            sys.exit(f"not ready yet, and not lost: mirako.job({error.token!r}) waits on")
        generation = await mirako.generate(f"{avatar.id} reading in a garden", aspect_ratio="3:2")
        print(avatar.name, "is", avatar.status, "and drawn in", await generation.image.save("nova", overwrite=True))


if __name__ == "__main__":
    arguments = [argument for argument in sys.argv[1:] if argument != "--real"]
    asyncio.run(main(Path(arguments[0]) if arguments else None, real="--real" in sys.argv))
