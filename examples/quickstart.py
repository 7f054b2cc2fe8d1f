"""One picture from each provider, saved to a folder.

python examples/quickstart.py [FOLDER]            on a sandbox: no key, no network, no money
python examples/quickstart.py [FOLDER] --real     with the keys in your environment: four purchases
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mirage_async import Mirage
from mirage_async.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

PROMPT = "a lighthouse in the fog, oil on canvas"


@asynccontextmanager
async def opened(*, real: bool) -> AsyncGenerator[Mirage]:
    """Open a hub: with your own keys, or on a sandbox that lives as long as it."""
    if real:
        async with Mirage() as mirage:
            yield mirage
        return
    async with Sandbox() as sandbox, Mirage(base_urls=sandbox.base_urls) as mirage:
        yield mirage


async def main(folder: Path, *, real: bool) -> None:
    """Ask all four at once, each in its own words."""
    async with opened(real=real) as mirage:
        bought = await asyncio.gather(
            mirage.mirako.generate(PROMPT, aspect_ratio="16:9", seed=7),
            mirage.miragic.generate(PROMPT, model="flux", width=1024, height=576),
            mirage.mira.generate(PROMPT, size="1536x1024", quality="high"),
            mirage.milady.generate(PROMPT, aspect_ratio="16:9", style_preset="photographic"),
        )
        for generation in bought:
            path = await generation.image.save(folder, overwrite=True)
            print(f"{generation.provider:8} {generation.image.width}x{generation.image.height} {path}")


if __name__ == "__main__":
    arguments = [argument for argument in sys.argv[1:] if argument != "--real"]
    pictures = Path(arguments[0] if arguments else "pictures")
    pictures.mkdir(parents=True, exist_ok=True)
    asyncio.run(main(pictures, real="--real" in sys.argv))
