"""Mira's codec: every rule of the Mira Image page."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from wire_samples import JPEG, answered, picture, png, sent

from mirage_async.exceptions import (
    APIError,
    BadRequestError,
    ContentRejectedError,
    InputError,
    RateLimitError,
    ResponseError,
    ServerError,
)
from mirage_async.media import Picture
from mirage_async.models import JobStatus
from mirage_async.wire import Call, mira


def generate(prompt: str = "a harbour", **changes: Any) -> Call:
    """Return a call with everything optional unset but for the changes."""
    return mira.generate_call(prompt, **{"size": None, "n": None, "quality": None, "reference_images": (), **changes})


def test_v1_the_default_path_is_the_one_of_the_curl_sample() -> None:
    """Servers that call the endpoint something else can be reached by an option."""
    assert generate().path == "/v1/images/generate"
    assert generate(path="/v1/images/generations").path == "/v1/images/generations"


@pytest.mark.parametrize("path", ["v1/images", "/", "/a//b", "/a/../b", "/a?b=c", "/a b", "//host/x", "/ä", None])
def test_v1_a_path_that_could_lead_elsewhere_is_refused(path: Any) -> None:
    """It begins with a slash and holds nothing that needs escaping."""
    with pytest.raises(InputError, match="path must be a path that begins with '/'"):
        generate(path=path)


def test_v2_references_go_to_the_same_endpoint() -> None:
    """The page has one endpoint for both modes; another path is an option."""
    references = [Picture(url="https://a.example/b.png"), picture(JPEG)]
    call = generate(reference_images=references)
    assert call.path == mira.PATH
    assert sent(call)["reference_images"] == [
        "https://a.example/b.png",
        "data:image/jpeg;base64," + base64.b64encode(JPEG).decode(),
    ]
    assert generate(reference_images=references, path="/v1/images/edit").path == "/v1/images/edit"


@pytest.mark.parametrize("size", ["1024x1024", "1024x1536", "1536x1024", "auto"])
def test_v3_all_four_sizes_are_allowed(size: str) -> None:
    """The capabilities list three, the parameters add auto."""
    assert sent(generate(size=size))["size"] == size


def test_v4_what_is_not_set_is_not_sent() -> None:
    """The defaults are Mira's secret, so they stay Mira's business."""
    assert sent(generate()) == {"prompt": "a harbour"}
    assert sent(generate(n=1, quality="auto")) == {"prompt": "a harbour", "n": 1, "quality": "auto"}


def test_v5_a_link_comes_with_its_revised_prompt() -> None:
    """As in the page's own response."""
    report = mira.read_generated(answered("mira/generated"))
    assert report.status is JobStatus.SUCCEEDED
    assert report.pieces[0].url == "https://cdn.vmira.ai/img/abc123.png"
    assert report.pieces[0].revised_prompt == "A quiet lighthouse, long exposure"
    assert report.raw["created"] == 1714000000
    assert not report.temporary


def test_v5_base64_and_data_uris_are_accepted_too() -> None:
    """Both are decoded, unusable items are left out, and `raw` holds no picture data."""
    report = mira.read_generated(answered("mira/generated_inline"))
    assert [piece.data and piece.data[:4] for piece in report.pieces] == [JPEG[:4], b"RIFF"]
    assert report.raw["data"] == [{}, {}, {"url": ""}]


@pytest.mark.parametrize("data", [[], None, {}, "x", [None], [{}], [{"url": "/a.png"}], [{"b64_json": "@"}]])
def test_v5_an_answer_without_a_usable_picture_is_unreadable(data: object) -> None:
    """Zero items is no success."""
    with pytest.raises(ResponseError, match="mira answered without a usable picture"):
        mira.read_generated(answered({"data": data}))
    with pytest.raises(ResponseError, match="mira answered without a usable picture"):
        mira.read_generated(answered({}))


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize("body", ["mira/refused_text", "mira/refused_json_text"])
def test_v6_moderation_is_told_by_the_text(status: int, body: str) -> None:
    """Disallowed prompts share their status with bad arguments; only the words differ."""
    with pytest.raises(ContentRejectedError, match=r"safety check|content_blocked"):
        mira.read_generated(answered(body, status))


@pytest.mark.parametrize("status", [400, 422])
def test_v6_a_bad_argument_is_no_moderation(status: int) -> None:
    """Without words about moderation it is a plain bad request; the input is not repeated."""
    with pytest.raises(BadRequestError, match="Input should be less than or equal to 4") as caught:
        mira.read_generated(answered("mira/invalid", status))
    assert not isinstance(caught.value, ContentRejectedError)
    assert caught.value.details == [
        {"loc": ["body", "n"], "msg": "Input should be less than or equal to 4", "input": "[left out]"}
    ]


def test_v7_detail_may_be_text_object_list_or_json_text() -> None:
    """And one sample of the vendor reads OpenAI's shape instead."""
    with pytest.raises(ContentRejectedError, match="mira answered 422: content_blocked") as caught:
        mira.read_generated(answered("mira/refused_json_text", 422))
    assert caught.value.details == {"error": "content_blocked", "category": "violence"}
    with pytest.raises(BadRequestError, match="mira answered 400: too long"):
        mira.read_generated(answered({"detail": {"message": "too long"}}, 400))
    with pytest.raises(ServerError, match="mira answered 503: Model is overloaded") as failed:
        mira.read_generated(answered("mira/openai_error", 503))
    assert failed.value.code == "overloaded"


def test_v9_a_long_retry_after_is_reported_as_it_is() -> None:
    """Up to a day; whether to wait that long is decided elsewhere."""
    with pytest.raises(RateLimitError, match="Daily request limit exceeded") as caught:
        mira.read_generated(answered("mira/rate_limited", 429, retry_after="86400"))
    assert caught.value.retry_after == 86400.0


def test_v10_a_body_that_is_too_large_is_a_bad_request() -> None:
    """413 is told clearly."""
    with pytest.raises(BadRequestError, match="mira answered 413") as caught:
        mira.read_generated(answered(b"", 413))
    assert caught.value.billed == "no"


def test_a_retired_version_is_an_error_without_a_class_of_its_own() -> None:
    """410 is neither a refusal of the request nor the server's trouble."""
    with pytest.raises(APIError, match="mira answered 410: Gone") as caught:
        mira.read_generated(answered(b"", 410))
    assert type(caught.value) is APIError
    assert caught.value.billed == "unknown"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": "512x512"}, "size must be one of 1024x1024, 1024x1536, 1536x1024, auto; got '512x512'"),
        ({"size": "x" * 99}, r"size must be one of .*; got 'x+'\.\.\. \(99 characters\)"),
        ({"quality": "ultra"}, "quality must be one of low, medium, high, auto"),
        ({"n": 0}, "n must be a whole number from 1 to 4; got 0"),
        ({"n": 5}, "n must be a whole number from 1 to 4; got 5"),
        ({"n": True}, "n must be a whole number from 1 to 4; got True"),
        ({"n": [1]}, "n must be a whole number from 1 to 4; got a value of type list"),
        ({"reference_images": [picture(JPEG)] * 5}, "reference_images must be at most 4 pictures; got 5"),
        ({"reference_images": [picture(b"text")]}, r"reference_images\[0\] must be the bytes of a JPEG or PNG or"),
        ({"reference_images": [Picture(url="data:x")]}, r"reference_images\[0\] must be an absolute http\(s\) URL"),
    ],
)
def test_arguments_outside_the_page_are_refused(changes: dict[str, Any], message: str) -> None:
    """Each message says what is allowed and what was given."""
    with pytest.raises(InputError, match=message):
        generate(**changes)


@pytest.mark.parametrize("length", [1, 4000])
def test_a_prompt_of_1_to_4000_characters_is_sent(length: int) -> None:
    """Characters, not bytes."""
    assert sent(generate("ü" * length))["prompt"] == "ü" * length


@pytest.mark.parametrize("prompt", ["", " ", "x" * 4001])
def test_a_prompt_outside_1_to_4000_characters_is_refused(prompt: str) -> None:
    """The message tells its length only."""
    with pytest.raises(InputError, match=r"prompt must be 1 to 4000 characters of text; got (4001 char|blank|empty)"):
        generate(prompt)


def test_a_picture_that_is_neither_jpeg_nor_png_is_fine_here() -> None:
    """The page names no formats."""
    body = sent(generate(reference_images=[picture(b"GIF89a\x01\x00\x01\x00"), picture(png(4, 4))]))
    assert body["reference_images"][0].startswith("data:image/gif;base64,")


def test_the_key_travels_as_a_bearer_token() -> None:
    """The header is the one of the page."""
    assert mira.credential("sk-mira-1") == ("Authorization", "Bearer sk-mira-1")
