"""Milady: the blocking request, its links and its refusals."""

from __future__ import annotations

from typing import Any

import pytest
from calling import BEARER, average, calling, data_url, encoded, opened

pytestmark = pytest.mark.anyio

GENERATE = "/api/v1/generate-image"


async def test_the_answer_describes_webp_pictures() -> None:
    """Each picture has a permanent link, a text, its type and its true size."""
    async with calling(strict=True) as caller:
        fields = {
            "prompt": "A serene mountain landscape",
            "model": "google/gemini-2.5-flash-image",
            "aspectRatio": "21:9",
            "numImages": 2,
            "stylePreset": "cinematic",
        }
        reply = await caller.post(GENERATE, fields)
        assert reply.json["numImages"] == 2
        first, second = reply.json["images"]
        picture = await caller.get(first["url"])
        image = opened(picture.body)
        assert (image.format, image.size) == ("WEBP", (1008, 432))
        assert (first["fileSize"], first["mimeType"]) == (len(picture.body), "image/webp")
        assert "A serene mountain landscape" in first["text"]
        assert first["url"] != second["url"]


async def test_a_style_changes_the_picture_and_a_source_tints_it() -> None:
    """Style and source picture both show in the result."""
    async with calling() as caller:

        async def bytes_of(**fields: Any) -> bytes:
            images = (await caller.post(GENERATE, {"prompt": "hills", **fields})).json["images"]
            return (await caller.get(images[0]["url"])).body

        plain = await bytes_of()
        assert plain == await bytes_of(stylePreset="none", aspectRatio="1:1")
        assert plain != await bytes_of(stylePreset="origami")
        red = average(await bytes_of(sourceImage=data_url(encoded(colour="red"))))
        blue = average(await bytes_of(sourceImage=data_url(encoded(colour="blue"))))
        assert red[0] > blue[0] + 20


async def test_lenient_mode_takes_an_unknown_model_and_a_cut_short_source() -> None:
    """As on the public server an unknown model stands for the default; the documented truncated source passes."""
    async with calling() as caller:
        source = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAA..."
        assert (await caller.post(GENERATE, {"prompt": "p", "model": "new", "sourceImage": source})).status == 200
    async with calling(strict=True) as caller:
        reply = await caller.post(GENERATE, {"prompt": "p", "model": "new"})
        assert (reply.status, reply.json["error"][:17]) == (400, "model must be one")
        assert (await caller.post(GENERATE, {"prompt": "p", "sourceImage": source})).status == 400


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "'prompt' field is required"),
        ({"prompt": "  "}, "prompt must not be empty"),
        ({"prompt": "x" * 4001}, "at most 4000 characters"),
        ({"prompt": "p", "model": 3}, "model must be text"),
        ({"prompt": "p", "aspectRatio": "3:2"}, "aspectRatio must be one of"),
        ({"prompt": "p", "numImages": 0}, "numImages must be 1 to 4"),
        ({"prompt": "p", "numImages": "2"}, "numImages must be a whole number"),
        ({"prompt": "p", "stylePreset": "cubist"}, "stylePreset must be one of"),
        ({"prompt": "p", "sourceImage": "https://example.com/a.png"}, "sourceImage must be a base64 data URL"),
        ([], "JSON object"),
    ],
)
async def test_a_broken_rule_is_refused_with_an_error_text(fields: Any, message: str) -> None:
    """Every broken rule is 400 with an error text."""
    async with calling() as caller:
        reply = await caller.post(GENERATE, fields)
        assert reply.status == 400
        assert message in reply.json["error"]


async def test_milady_refuses_without_a_key_and_unknown_links() -> None:
    """A missing key is 401 and a made-up link 404, each with an error text."""
    async with calling() as caller:
        assert "API key" in (await caller.post(GENERATE, {"prompt": "p"}, {})).json["error"]
        missing = await caller.get("/images/nothing.webp")
        assert (missing.status, missing.json) == (404, {"error": "No such picture."})


async def test_milady_wants_the_json_content_type_in_strict_mode() -> None:
    """JSON under another content type is taken in lenient mode only."""
    headers = {**BEARER, "Content-Type": "text/plain"}
    async with calling() as caller:
        assert (await caller.post(GENERATE, data=b'{"prompt": "p"}', headers=headers)).status == 200
    async with calling(strict=True) as caller:
        reply = await caller.post(GENERATE, data=b'{"prompt": "p"}', headers=headers)
        assert reply.status == 400
        assert reply.json["error"] == "Content-Type must be application/json (given: 'text/plain')"
