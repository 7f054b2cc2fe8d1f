"""Mira: the blocking request on both of its paths."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from calling import BEARER, average, calling, data_url, encoded, opened

pytestmark = pytest.mark.anyio

GENERATE = "/v1/images/generate"


@pytest.mark.parametrize("path", [GENERATE, "/v1/images/generations"])
async def test_both_documented_paths_answer_with_png_links(path: str) -> None:
    """The path of the request sample and the path of the OpenAI client do the same."""
    async with calling() as caller:
        reply = await caller.post(path, {"prompt": "a lighthouse", "size": "1536x1024", "n": 2, "quality": "low"})
        assert reply.json["created"] == 1_700_001_000
        first, second = reply.json["data"]
        assert first["revised_prompt"].startswith("a lighthouse")
        one, two = await caller.get(first["url"]), await caller.get(second["url"])
        image = opened(one.body)
        assert (image.format, image.size, one.headers["Content-Type"]) == ("PNG", (1536, 1024), "image/png")
        assert one.body != two.body
        assert caller.sandbox.statistics().purchases == {"mira": 1}


async def test_links_are_permanent() -> None:
    """A link works for ever; a made-up one is 404 in Mira's shape."""
    async with calling() as caller:
        url = (await caller.post(GENERATE, {"prompt": "p", "size": "1024x1536"})).json["data"][0]["url"]
        caller.clock.advance(10**7)
        assert opened((await caller.get(url)).body).size == (1024, 1536)
        missing = await caller.get("/img/nothing.png")
        assert (missing.status, missing.json) == (404, {"detail": "No such picture."})


async def test_base64_is_sent_when_asked_for() -> None:
    """`response_format: b64_json`, which OpenAI clients use, puts the bytes into the answer."""
    async with calling() as caller:
        reply = await caller.post(GENERATE, {"prompt": "p", "response_format": "b64_json", "model": "any"})
        (item,) = reply.json["data"]
        assert opened(base64.b64decode(item["b64_json"])).size == (1024, 1024)
        assert "url" not in item


async def test_references_tint_the_result() -> None:
    """Data URLs tint by their colour; links are never fetched but still make a difference."""
    async with calling() as caller:

        async def colour(*references: str) -> tuple[int, int, int]:
            fields = {"prompt": "hills", "reference_images": list(references)}
            url = (await caller.post(GENERATE, fields)).json["data"][0]["url"]
            return average((await caller.get(url)).body)

        red = await colour(data_url(encoded(colour="red")))
        assert red[0] > (await colour(data_url(encoded(colour="blue"))))[0] + 20
        assert await colour("https://example.com/product.png") != await colour("http://example.com/other.png")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"size": "auto"}, "'prompt' field is required"),
        ({"prompt": ""}, "prompt must not be empty"),
        ({"prompt": "x" * 4001}, "prompt must have at most 4000 characters (has 4001)"),
        ({"prompt": "p", "size": "512x512"}, "size must be one of"),
        ({"prompt": "p", "n": 5}, "n must be 1 to 4"),
        ({"prompt": "p", "n": 1.5}, "n must be a whole number"),
        ({"prompt": "p", "quality": "best"}, "quality must be one of"),
        ({"prompt": "p", "reference_images": ["https://x/y"] * 5}, "reference_images must have at most 4 items"),
        ({"prompt": "p", "reference_images": ["ftp://x/y"]}, "reference_images[0] must be a base64 data URL"),
        ("text", "JSON object"),
    ],
)
async def test_a_broken_rule_is_refused_with_a_detail(fields: Any, message: str) -> None:
    """Every broken rule is 400 with a detail that says what was wrong."""
    async with calling() as caller:
        reply = await caller.post(GENERATE, fields)
        assert reply.status == 400
        assert message in reply.json["detail"]


async def test_strict_mode_knows_only_documented_and_compatible_fields() -> None:
    """A field neither the document nor OpenAI's client knows is refused in strict mode."""
    async with calling(strict=True) as caller:
        assert (
            "seed is not a documented field" in (await caller.post(GENERATE, {"prompt": "p", "seed": 1})).json["detail"]
        )
        assert (await caller.post(GENERATE, {"prompt": "p", "model": "m"}, BEARER)).status == 200


async def test_mira_refuses_without_a_key() -> None:
    """A missing key is 401 with a detail."""
    async with calling() as caller:
        reply = await caller.post(GENERATE, {"prompt": "p"}, {})
        assert reply.status == 401
        assert "API key" in reply.json["detail"]


async def test_mira_wants_the_json_content_type_in_strict_mode() -> None:
    """JSON under another content type is taken in lenient mode only."""
    headers = {**BEARER, "Content-Type": "text/plain"}
    async with calling() as caller:
        assert (await caller.post(GENERATE, data=b'{"prompt": "p"}', headers=headers)).status == 200
    async with calling(strict=True) as caller:
        reply = await caller.post(GENERATE, data=b'{"prompt": "p"}', headers=headers)
        assert reply.status == 400
        assert reply.json["detail"] == "Content-Type must be application/json (given: 'text/plain')"
