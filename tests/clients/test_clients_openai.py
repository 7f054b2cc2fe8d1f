"""The official `openai` package against Mira's side of the sandbox."""

from __future__ import annotations

import base64
import os
from typing import TYPE_CHECKING

import anyio.to_thread
import openai
import pytest
from documented import example, fetched, look, run_python, shape
from openai.types import ImagesResponse

from mirage_async.sandbox import Fault, Sandbox

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio

DOCUMENTED = "mira-openai.py.txt"
KEY = "sk-mira-test"


@pytest.fixture(autouse=True)
def plain_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide what else the package reads from the environment: other people's keys, addresses and proxies."""
    for name in list(os.environ):
        if name.startswith("OPENAI_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


def talking_to(sandbox: Sandbox, *, max_retries: int = 0) -> openai.AsyncOpenAI:
    """Return a client as Mira's document configures it."""
    return openai.AsyncOpenAI(api_key=KEY, base_url=f"{sandbox.url}/v1", max_retries=max_retries)


async def test_the_documented_script_prints_a_link_to_its_picture(tmp_path: Path) -> None:
    """One purchase on the path OpenAI's client uses, and a PNG of the size asked for."""
    async with Sandbox(durations=0.0) as sandbox:
        (link,) = await run_python(example(DOCUMENTED, at=sandbox.url), tmp_path)
        assert look(await fetched(link)) == ("PNG", (1024, 1024))
        made = sandbox.requests[0]
        assert (made.operation, made.path, made.status) == ("mira.generate", "/v1/images/generations", 200)
        assert sandbox.statistics().purchases == {"mira": 1}


async def test_the_blocking_client_gets_the_pictures_themselves() -> None:
    """`b64_json` gives as many different PNGs of the size asked for, and no links."""
    async with Sandbox(durations=0.0) as sandbox:

        def generate() -> ImagesResponse:
            with openai.OpenAI(api_key=KEY, base_url=f"{sandbox.url}/v1", max_retries=0) as client:
                return client.images.generate(prompt="a harbour", size="1024x1536", n=2, response_format="b64_json")

        images = (await anyio.to_thread.run_sync(generate)).data or []
        pictures = [base64.b64decode(image.b64_json or "", validate=True) for image in images]
        assert [look(picture) for picture in pictures] == [("PNG", (1024, 1536))] * 2
        assert pictures[0] != pictures[1]
        assert [image.url for image in images] == [None, None]
        assert sandbox.statistics().purchases == {"mira": 1}


async def test_the_asynchronous_client_sends_what_only_mira_knows() -> None:
    """References go through `extra_body`; the revised prompt comes back typed."""
    links = ["https://example.com/product.png"]
    async with Sandbox(durations=0.0) as sandbox, talking_to(sandbox) as client:
        made = await client.images.generate(
            prompt="a harbour", model="mira", size="1536x1024", quality="high", extra_body={"reference_images": links}
        )
        (image,) = made.data or []
        assert look(await fetched(image.url or "")) == ("PNG", (1536, 1024))
        assert (image.revised_prompt or "").startswith("a harbour")
        assert made.created > 1_700_000_000
        assert sandbox.requests[0].fields["reference_images"] == links
        assert sandbox.statistics().purchases == {"mira": 1}


async def test_the_low_level_call_reaches_the_documented_path() -> None:
    """The path of the document's own command answers in the shape the package decodes."""
    async with Sandbox(durations=0.0) as sandbox, talking_to(sandbox) as client:
        body = {"prompt": "a harbour", "size": "1024x1024"}
        made = await client.post("/images/generate", body=body, cast_to=ImagesResponse)
        (image,) = made.data or []
        assert look(await fetched(image.url or "")) == ("PNG", (1024, 1024))
        assert sandbox.requests[0].path == "/v1/images/generate"
        assert sandbox.statistics().purchases == {"mira": 1}


async def test_a_broken_rule_arrives_as_a_bad_request() -> None:
    """A prompt that is too long is the package's own error, with Mira's reason as its body; nothing is bought."""
    async with Sandbox(durations=0.0) as sandbox, talking_to(sandbox) as client:
        with pytest.raises(openai.BadRequestError, match="Error code: 400") as caught:
            await client.images.generate(prompt="x" * 4001)
        assert shape(caught.value.body) == {"detail": "str"}
        assert "at most 4000 characters" in str(caught.value.body)
        assert sandbox.statistics().purchases == {}


async def test_throttling_arrives_as_a_rate_limit() -> None:
    """Without retries the package reports the first 429, headers included; nothing is bought."""
    async with Sandbox(durations=0.0) as sandbox, talking_to(sandbox) as client:
        sandbox.fail("mira.generate", Fault(status=429, headers={"Retry-After": "7"}))
        with pytest.raises(openai.RateLimitError, match="429") as caught:
            await client.images.generate(prompt="a harbour")
        assert caught.value.response.headers["Retry-After"] == "7"
        assert (sandbox.statistics().requests, sandbox.statistics().purchases) == ({"mira.generate": 1}, {})


async def test_the_client_retries_until_the_faults_are_used_up() -> None:
    """Two refusals and a picture, because faults strike one request each; the picture is bought once."""
    async with Sandbox(durations=0.0) as sandbox, talking_to(sandbox, max_retries=2) as client:
        sandbox.fail("mira.generate", *[Fault(status=429, headers={"Retry-After-Ms": "1"})] * 2)
        assert len((await client.images.generate(prompt="a harbour")).data or []) == 1
        assert [seen.status for seen in sandbox.requests] == [429, 429, 200]
        assert sandbox.statistics().purchases == {"mira": 1}


async def test_an_operation_mira_does_not_document_is_not_found() -> None:
    """`images.edit` goes to a path the document does not have, and a 404 is nothing to retry."""
    async with Sandbox(durations=0.0) as sandbox, talking_to(sandbox, max_retries=2) as client:
        with pytest.raises(openai.NotFoundError) as caught:
            await client.images.edit(image=("a.png", b"not looked at"), prompt="a harbour")
        assert caught.value.status_code == 404
        assert [(seen.operation, seen.status) for seen in sandbox.requests] == [("unknown", 404)]
