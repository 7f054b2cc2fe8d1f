"""The libraries to compare with, opened against the bare server with everything else as they come.

Their pauses between status calls are set to nothing where they wait at all: by an argument (fal-client), an attribute
(replicate) or a constant of their module (runwayml). fal-client has no setting for its address but the host of an
https URL, so the constant that holds it is replaced.
"""

from __future__ import annotations

import base64
import importlib
import importlib.util
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from benchmarks._bare.sides import KEY, PROMPT, check

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Mapping

    from benchmarks._bare.sides import Generate, Side

__all__ = ["INSTALL", "PEERS", "missing_peers"]

INSTALL = 'python -m pip install "mirage_async[benchmarks]"'
_MODULES = {"openai": "openai", "fal-client": "fal_client", "replicate": "replicate", "runwayml": "runwayml"}


def missing_peers() -> list[str]:
    """Return the names of the libraries that are not installed."""
    return [name for name, module in _MODULES.items() if importlib.util.find_spec(module) is None]


def _openai(pause: float) -> Side:  # noqa: ARG001 - it does not ask, it waits for the answer
    @asynccontextmanager
    async def opened(base_url: str) -> AsyncGenerator[Generate]:
        openai = importlib.import_module("openai")
        async with openai.AsyncOpenAI(api_key=KEY, base_url=f"{base_url}/v1") as client:

            async def generate() -> None:
                answer = await client.images.generate(model="gpt-image-1", prompt=PROMPT)
                check(base64.b64decode(answer.data[0].b64_json))

            yield generate

    return opened


def _fal(pause: float) -> Side:
    @asynccontextmanager
    async def opened(base_url: str) -> AsyncGenerator[Generate]:
        fal = importlib.import_module("fal_client")
        inside = importlib.import_module("fal_client.client")
        inside.QUEUE_URL_FORMAT = f"{base_url}/fal/"  # type: ignore[attr-defined]  # see above
        client = fal.AsyncClient(key=KEY)

        async def generate() -> None:
            handle = await client.submit("fal-ai/any", {"prompt": PROMPT})
            _check_links(image["url"] for image in (await handle.get(interval=pause))["images"])

        yield generate

    return opened


def _replicate(pause: float) -> Side:
    @asynccontextmanager
    async def opened(base_url: str) -> AsyncGenerator[Generate]:
        client = importlib.import_module("replicate").Client(api_token=KEY, base_url=base_url)
        client.poll_interval = pause

        async def generate() -> None:
            prediction = await client.predictions.async_create(model="owner/name", input={"prompt": PROMPT})
            await prediction.async_wait()
            _check_links(prediction.output)

        try:
            yield generate
        finally:
            await client._async_client.aclose()  # noqa: SLF001 - it has no way to be closed

    return opened


def _runwayml(pause: float) -> Side:
    @asynccontextmanager
    async def opened(base_url: str) -> AsyncGenerator[Generate]:
        inside = importlib.import_module("runwayml.lib.polling")
        inside.POLL_TIME, inside.POLL_JITTER = pause, 0.0  # type: ignore[attr-defined]  # see above
        runwayml = importlib.import_module("runwayml")
        async with runwayml.AsyncRunwayML(api_key=KEY, base_url=base_url) as client:

            async def generate() -> None:
                task = await client.text_to_image.create(model="gen4_image", prompt_text=PROMPT, ratio="1920:1080")
                _check_links((await task.wait_for_task_output()).output)

            yield generate

    return opened


def _check_links(links: Iterable[str]) -> None:
    if not all(link.endswith("/picture.jpg") for link in links):
        msg = "the answer has other links than the server sent"
        raise ValueError(msg)


PEERS: Mapping[str, tuple[str, Callable[[float], Side]]] = {
    "openai": ("openai", _openai),
    "fal-client": ("fal", _fal),
    "replicate": ("replicate", _replicate),
    "runwayml": ("runway", _runwayml),
}
"""By name: the dialect whose exchange they make, and how they are opened for a pause between their status calls."""
