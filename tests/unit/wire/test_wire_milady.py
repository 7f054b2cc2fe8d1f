"""Milady's codec: every rule of the image page."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from wire_samples import JPEG, answered, picture, png, sent

from mirage_async.exceptions import BadRequestError, InputError, InsufficientCreditsError, RateLimitError, ResponseError
from mirage_async.media import Picture
from mirage_async.models import JobStatus
from mirage_async.wire import Call, milady


def generate(prompt: str = "a harbour", **changes: Any) -> Call:
    """Return a call with everything optional unset but for the changes."""
    unset = dict.fromkeys(("model", "aspect_ratio", "num_images", "style_preset", "source_image"))
    return milady.generate_call(prompt, **{**unset, **changes})


def test_l1_the_model_is_sent_only_when_it_is_set() -> None:
    """Servers disagree on what happens to an unknown name, so nothing is said unless the caller says it."""
    assert sent(generate()) == {"prompt": "a harbour"}
    assert sent(generate(model="someone/new-model"))["model"] == "someone/new-model"


def test_l1_the_models_a_server_offers_instead_are_in_the_details() -> None:
    """A server that refuses a name lists the ones it has."""
    with pytest.raises(BadRequestError, match="milady answered 400: Unsupported model") as caught:
        milady.read_generated(answered("milady/unknown_model", 400))
    assert caught.value.details == {"supportedModels": ["google/nano-banana-2/text-to-image"]}
    assert caught.value.code == "validation_error"


def test_l2_the_page_s_models_are_constants_and_no_limit() -> None:
    """The list is stale already."""
    assert len(milady.KNOWN_MODELS) == 5
    assert sent(generate(model=milady.KNOWN_MODELS[0]))["model"] == "google/gemini-2.5-flash-image"


@pytest.mark.parametrize("model", ["", "  ", 5, "x" * 201])
def test_l2_a_model_is_non_blank_text(model: Any) -> None:
    """Any name, but a name."""
    with pytest.raises(InputError, match="model must be 1 to 200 characters of text"):
        generate(model=model)


def test_l3_a_link_is_preferred() -> None:
    """It is permanent; where both come, the base64 beside it is not even decoded."""
    report = milady.read_generated(answered("milady/generated_both"))
    assert report.status is JobStatus.SUCCEEDED
    assert [(piece.url, piece.data) for piece in report.pieces] == [
        ("https://your-storage.vercel-storage.com/images/b.jpg", None)
    ]
    assert report.raw["images"] == [{"url": "https://your-storage.vercel-storage.com/images/b.jpg", "text": ""}]


def test_l3_the_fallback_is_a_data_url_or_bare_base64() -> None:
    """The page does not say which, servers send both."""
    pieces = milady.read_generated(answered("milady/generated_inline")).pieces
    assert pieces[0].data is not None
    assert pieces[0].data[:4] == b"RIFF"
    assert pieces[1].data == JPEG


def test_l3_a_link_that_cannot_be_followed_falls_back_to_the_bytes() -> None:
    """A relative link is no link."""
    body = {"images": [{"url": "/img/1.jpg", "image": base64.b64encode(JPEG).decode()}]}
    assert milady.read_generated(answered(body)).pieces[0].data == JPEG


@pytest.mark.parametrize("images", [[], None, 5, [{}], [{"url": None, "image": ""}], [[]]])
def test_l3_an_answer_without_a_usable_picture_is_unreadable(images: object) -> None:
    """At least one of link and bytes has to be there."""
    with pytest.raises(ResponseError, match="milady answered without a usable picture"):
        milady.read_generated(answered({"images": images, "numImages": 1}))


def test_l4_partial_success_is_success() -> None:
    """What counts is what is there, not the number announced; one odd item does not cost the others."""
    report = milady.read_generated(answered("milady/generated_partly"))
    assert len(report.pieces) == 1
    assert report.raw["numImages"] == 4


def test_l5_what_is_said_about_a_picture_is_optional() -> None:
    """Type, size and text may be there, missing, empty or odd."""
    (piece,) = milady.read_generated(answered("milady/generated")).pieces
    assert (piece.mime_type, piece.file_size, piece.text) == ("image/webp", 102400, "Here is your mountain.")
    body = {"images": [{"url": "https://a.example/1", "mimeType": None, "fileSize": "big", "text": ""}]}
    (piece,) = milady.read_generated(answered(body)).pieces
    assert (piece.mime_type, piece.file_size, piece.text) == (None, None, None)


def test_l6_no_format_is_assumed() -> None:
    """The sample is WebP, a PNG is as welcome."""
    body = {"images": [{"image": base64.b64encode(png(8, 8)).decode(), "mimeType": "image/webp"}]}
    assert milady.read_generated(answered(body)).pieces[0].data == png(8, 8)


def test_l7_the_price_is_kept_where_credits_are_short() -> None:
    """The page's own error example."""
    with pytest.raises(InsufficientCreditsError, match="Insufficient credits for image generation") as caught:
        milady.read_generated(answered("milady/insufficient", 402))
    assert caught.value.required == 0.02


def test_l7_the_three_error_shapes_are_read_alike() -> None:
    """Text, object, and text with code, details and retryAfter beside it."""
    with pytest.raises(RateLimitError, match="milady answered 429: Too many requests") as flat:
        milady.read_generated(answered("milady/rate_limited", 429))
    assert (flat.value.code, flat.value.retry_after) == ("rate_limit_exceeded", 17.0)
    with pytest.raises(RateLimitError, match="milady answered 429: Slow down, please") as nested:
        milady.read_generated(answered("milady/nested_error", 429))
    assert (nested.value.code, nested.value.retry_after) == ("RATE_LIMITED", 30.0)
    assert (nested.value.request_id, nested.value.details) == ("req_123", {"limit": 60})


def test_l10_the_aspect_ratio_is_one_of_the_table() -> None:
    """It is a hint, and its name on the wire is in camel case."""
    body = sent(generate(aspect_ratio="21:9", num_images=2, style_preset="neon-punk"))
    assert body == {"prompt": "a harbour", "aspectRatio": "21:9", "numImages": 2, "stylePreset": "neon-punk"}
    with pytest.raises(InputError, match="aspect_ratio must be one of 1:1, 16:9"):
        generate(aspect_ratio="3:2")


def test_l13_a_call_names_no_host() -> None:
    """Several hosts serve the same interface, so the base URL is the transport's business."""
    assert generate().path == "/api/v1/generate-image"


def test_l14_the_source_image_is_sent_as_a_data_url() -> None:
    """The page requires one, whatever the caller began with."""
    body = sent(generate(source_image=picture(JPEG)))
    assert body["sourceImage"] == "data:image/jpeg;base64," + base64.b64encode(JPEG).decode()


@pytest.mark.parametrize("source", [Picture(url="https://a.example/b.png"), picture(b"text")])
def test_l14_a_link_or_something_else_is_refused(source: Picture) -> None:
    """Milady does not fetch links."""
    with pytest.raises(InputError, match="source_image must be the bytes of a JPEG or PNG or WebP or GIF picture"):
        generate(source_image=source)


def test_l14_a_source_image_has_at_most_14_million_characters() -> None:
    """Counted as the data URL it becomes."""
    prefix = len("data:image/png;base64,")
    fitting = (14_000_000 - prefix) // 4 * 3
    assert len(sent(generate(source_image=picture(png(8, 8, fitting))))["sourceImage"]) <= 14_000_000
    with pytest.raises(InputError, match="source_image must be at most 14000000 characters as a data URL; got 14000"):
        generate(source_image=picture(png(8, 8, fitting + 1)))


@pytest.mark.parametrize("prompt", ["", "\t", "x" * 4001])
def test_a_prompt_has_1_to_4000_characters(prompt: str) -> None:
    """Blank margins do not count."""
    with pytest.raises(InputError, match="prompt must be 1 to 4000 characters of text"):
        generate(prompt)
    assert sent(generate(" " + "x" * 4000))["prompt"] == " " + "x" * 4000


@pytest.mark.parametrize("num_images", [0, 5, True, "2"])
def test_one_to_four_pictures_can_be_asked_for(num_images: Any) -> None:
    """The table's range, whole numbers only."""
    with pytest.raises(InputError, match="num_images must be a whole number from 1 to 4"):
        generate(num_images=num_images)


def test_a_preset_outside_the_table_is_refused() -> None:
    """All thirteen are listed in the message."""
    with pytest.raises(InputError, match=r"style_preset must be one of none, photographic, .*3d-model; got 'sepia'"):
        generate(style_preset="sepia")


def test_a_success_that_is_taken_back_is_a_refusal() -> None:
    """`success: false` in a 200."""
    with pytest.raises(BadRequestError, match="milady answered 200: not today"):
        milady.read_generated(answered({"success": False, "error": "not today"}))


def test_the_key_travels_as_a_bearer_token() -> None:
    """The header is the one of the page."""
    assert milady.credential("eliza_1") == ("Authorization", "Bearer eliza_1")
