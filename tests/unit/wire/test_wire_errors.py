"""Error answers of every shape, from every provider, through one reader."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest
from wire_samples import answered

from mirage_async.exceptions import (
    APIError,
    AuthenticationError,
    BadRequestError,
    ConfigurationError,
    ContentRejectedError,
    InsufficientCreditsError,
    MirageError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    ResponseError,
    ServerError,
)
from mirage_async.wire._errors import is_well_formed_error, raise_for_status, retry_after
from mirage_async.wire._json import decode

DATE = "Sun, 09 Sep 2001 01:46:40 GMT"  # second 1,000,000,000, when the replies of these tests arrive
LATER = "Sun, 09 Sep 2001 01:48:40 GMT"


def failure(body: Any = b"", status: int = 400, **headers: Any) -> APIError:
    """Return the error that an answer becomes."""
    with pytest.raises(APIError, match=f"mira answered {status}") as caught:
        raise_for_status(answered(body, status, **headers), "mira")
    return caught.value


@pytest.mark.parametrize(
    ("status", "kind", "billed"),
    [
        (400, BadRequestError, "no"),
        (401, AuthenticationError, "no"),
        (402, InsufficientCreditsError, "no"),
        (403, PermissionDeniedError, "no"),
        (404, NotFoundError, "no"),
        (405, BadRequestError, "no"),
        (408, APIError, "unknown"),
        (409, APIError, "unknown"),
        (413, BadRequestError, "no"),
        (415, BadRequestError, "no"),
        (422, BadRequestError, "no"),
        (429, RateLimitError, "no"),
        (500, ServerError, "unknown"),
        (503, ServerError, "unknown"),
        (599, ServerError, "unknown"),
    ],
)
def test_the_status_decides_the_class(status: int, kind: type[APIError], billed: str) -> None:
    """Classes say what the caller can do, `billed` what is known about money."""
    error = failure(b"", status)
    assert type(error) is kind
    assert (error.status, error.provider, error.billed) == (status, "mira", billed)


@pytest.mark.parametrize("status", [200, 201, 204])
def test_a_2xx_is_no_error(status: int) -> None:
    """Whatever its body."""
    raise_for_status(answered(b"", status), "mira")


@pytest.mark.parametrize("status", [307, 308])
def test_an_address_that_has_moved_is_a_matter_of_configuration(status: int) -> None:
    """Requests with a key are not redirected."""
    with pytest.raises(ConfigurationError, match=f"mira answered {status}: its address has moved.*check base_url"):
        raise_for_status(answered(b"", status), "mira")


@pytest.mark.parametrize("status", [101, 302, 304, 600, 0])
def test_a_status_nobody_documents_is_unreadable(status: int) -> None:
    """Neither success nor refusal."""
    with pytest.raises(ResponseError, match=f"mira answered {status}, which its document does not know"):
        raise_for_status(answered(b"", status), "mira")


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"error": "no"}, "no"),
        ({"error": {"message": "no", "code": "x"}}, "no"),
        ({"error": {"code": "only_code"}}, "only_code"),
        ({"detail": "no"}, "no"),
        ({"detail": {"error": {"message": "no"}}}, "no"),
        ({"detail": [{"msg": "a"}, "b", {"msg": "c"}, {"msg": "d"}]}, "a; b; c"),
        ({"detail": '{"message": "no"}'}, "no"),
        ({"detail": "{not json"}, "{not json"),
        ({"detail": "a", "errors": [{"message": "b"}]}, "a (b)"),
        ({"title": "no"}, "no"),
        ({"message": "no"}, "no"),
        ({"data": {"errorMessage": "no"}}, "no"),
        ({"errors": ["a", "b"]}, "a; b"),
        ({"error": " ", "message": "no"}, "no"),
        (["a", {"message": "b"}], "a; b"),
        (json.dumps("no").encode(), "no"),
        (b"plain words", "plain words"),
        (b"two\nlines\x1b[2J", "two lines [2J"),
        (b"caf\xe9", "caf\N{REPLACEMENT CHARACTER}"),
    ],
)
def test_the_sentence_is_found(body: Any, text: str) -> None:
    """One printable line, in the provider's words."""
    assert str(failure(body)) == f"mira answered 400: {text}"


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"", {}),
        (b" \n", {}),
        (b"<!DOCTYPE html><title>x</title>", {}),
        (b"Sorry, <b>no</b>", {"content_type": "text/html; charset=utf-8"}),
        ({}, {}),
        ({"error": None, "ok": 5}, {}),
        ({"error": {"error": {"error": {"error": {"error": {"message": "deep"}}}}}}, {}),
        (5, {}),
    ],
)
def test_an_answer_without_a_sentence_gets_the_phrase_of_its_status(body: Any, headers: dict[str, Any]) -> None:
    """Empty bodies, pages of a proxy, and JSON that says nothing."""
    assert str(failure(body, **headers)) == "mira answered 400: Bad Request, without an error text"


def test_a_status_without_a_phrase_has_none() -> None:
    """Such as those of content delivery networks."""
    assert str(failure(b"", 521)) == "mira answered 521: no error text"


def test_a_message_is_one_line_of_at_most_300_characters() -> None:
    """Longer ones are cut and say so."""
    error = failure({"error": "word " * 200})
    assert len(str(error)) == 300
    assert str(error).endswith("...")


@pytest.mark.parametrize(
    "echo",
    [
        "data:image/png;base64,iVBORw0KGgo=",
        "A" * 64 + "/+==",
        "sk-mira-0123456789abcdef",
        "Bearer abc.def",
        "eliza_0123456789",
    ],
)
def test_pictures_and_keys_are_cut_out_of_everything(echo: str) -> None:
    """Message, body and details alike, in JSON and in plain text."""
    for body in ({"error": f"bad: {echo}", "details": {"got": [echo]}}, f"bad: {echo}".encode()):
        error = failure(body)
        assert echo not in f"{error!r} {error.body} {error.details}"
        assert "[left out]" in str(error)


@pytest.mark.parametrize("field", ["prompt", "value", "input", "image", "sourceImage", "auth_token"])
def test_echoes_of_the_request_are_cut_out(field: str) -> None:
    """Error answers like to repeat what was sent."""
    error = failure({"error": "bad", "details": {field: "a lighthouse"}, field: "a lighthouse"})
    assert "lighthouse" not in f"{error!r} {error.body} {error.details}"


def test_the_body_is_kept_as_it_is_where_it_repeats_nothing() -> None:
    """Byte for byte, up to 8 KiB."""
    assert failure(b'{ "error" : "no" }').body == '{ "error" : "no" }'
    assert failure(b"words " * 4000).body == ("words " * 4000)[:8192]


def test_very_large_and_very_deep_bodies_are_survived() -> None:
    """They are not decoded, or only as far as is useful."""
    assert failure(b'{"error":"' + b"x y " * (1 << 19) + b'"}').details is None
    assert failure(b"[" * 5000).details is None
    deep = failure(b'{"error":"no","details":' + b'{"a":' * 20 + b"1" + b"}" * 21)
    assert "[left out]" in str(deep.details)


@pytest.mark.parametrize(
    "text",
    ["content_blocked", "Blocked by content policy", "failed moderation", "NSFW", "a safety check", "disallowed"],
)
@pytest.mark.parametrize("status", [400, 422])
def test_words_about_moderation_make_a_rejection(status: int, text: str) -> None:
    """In the sentence or in the code."""
    assert type(failure({"error": text}, status)) is ContentRejectedError
    assert type(failure({"error": {"message": "no", "code": text}}, status)) is ContentRejectedError


@pytest.mark.parametrize(
    ("status", "text", "kind"),
    [
        (403, "blocked by moderation", ContentRejectedError),
        (403, "your plan's policy forbids this", PermissionDeniedError),
        (401, "moderation service wants a key", AuthenticationError),
        (500, "moderation is down", ServerError),
        (400, "width is odd", BadRequestError),
    ],
)
def test_the_words_count_only_where_moderation_can_answer(status: int, text: str, kind: type[APIError]) -> None:
    """A policy in a 403 is about plans; a server in trouble has judged nothing."""
    assert type(failure({"error": text}, status)) is kind


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        (" 5 ", 5.0),
        ("999999999", 999999999.0),
        (LATER, 120.0),
        ("Sun, 09 Sep 2001 01:00:00 GMT", 0.0),
        ("1000000000", None),
        ("-1", None),
        ("1.5", None),
        ("1_0", None),
        ("１２", None),  # noqa: RUF001 - digits of another script, which int() would take
        ("nan", None),
        ("", None),
        ("soon", None),
        ("soon GMT", None),
        ("Sun, 09 Sep 2001 25:46:40 GMT", None),
        ("Sun, 09 Sep 2001 01:48:40 -0000", None),
    ],
)
def test_retry_after_is_digits_or_a_date(value: str, seconds: float | None) -> None:
    """Everything else is ignored; a date in the past is no wait."""
    reply = answered(b"", 429, retry_after=value)
    assert retry_after(reply) == seconds
    assert failure(b"", 429, retry_after=value).retry_after == seconds


def test_a_date_is_measured_against_the_answer_s_own_clock() -> None:
    """So a wrong clock on this side does no harm; without a Date our own clock has to do."""
    reply = answered(b"", 503, retry_after=LATER, date="Sun, 09 Sep 2001 01:48:10 GMT")
    assert retry_after(reply) == 30.0
    assert retry_after(answered(b"", 503, retry_after=LATER, date="today")) == 120.0
    assert retry_after(answered(b"", 503, retry_after=LATER, date=DATE)) == 120.0


@pytest.mark.parametrize(
    ("body", "seconds"),
    [
        ({"retryAfter": 7}, 7.0),
        ({"retryAfter": "7"}, 7.0),
        ({"retry_after": 1.5}, 1.5),
        ({"error": {"retryAfter": 9}}, 9.0),
        ({"retryAfter": -4}, 0.0),
        ({"retryAfter": True}, None),
        ({"retryAfter": "soon"}, None),
        ([], None),
    ],
)
def test_the_body_is_asked_where_the_header_says_nothing(body: object, seconds: float | None) -> None:
    """The header wins where both speak."""
    assert retry_after(answered(body, 429)) == seconds
    assert retry_after(answered(body, 429, retry_after="nonsense")) == seconds
    assert retry_after(answered(body, 429, retry_after="3")) == 3.0


def test_the_request_id_comes_from_a_header_or_the_body() -> None:
    """For the provider's support desk."""
    assert failure(b"", x_request_id="r-1").request_id == "r-1"
    assert failure(b"", request_id="r-2").request_id == "r-2"
    assert failure({"error": {"requestId": "r-3"}}).request_id == "r-3"
    assert failure({"request_id": "r-4"}, x_request_id="r-1").request_id == "r-1"
    assert failure({"request_id": 5, "code": 7}).request_id == "5"
    assert failure({"request_id": [], "code": True}).code is None


@pytest.mark.parametrize(
    ("body", "required"),
    [
        ({"error": "x", "required": 0.02}, 0.02),
        ({"error": {"required": "3"}}, 3.0),
        ({"error": "x", "details": {"required": 2}}, 2.0),
        ({"error": "x", "required": None}, None),
        (b"", None),
    ],
)
def test_the_price_is_read_where_credits_are_short(body: object, required: float | None) -> None:
    """As number or text, wherever it hides."""
    error = failure(body, 402)
    assert isinstance(error, InsufficientCreditsError)
    assert error.required == required


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"error": "No images were generated"}, True),
        ({"error": {"message": "x"}}, True),
        ({}, False),
        ({"error": ""}, False),
        (["x"], False),
        (b"Internal Server Error", False),
        (b"<html>500</html>", False),
        (b"", False),
    ],
)
def test_a_well_formed_error_is_a_json_object_with_a_sentence(body: object, *, expected: bool) -> None:
    """Told apart from a proxy's page, because only the provider itself knows that generation failed."""
    assert is_well_formed_error(answered(body, 500)) is expected


def test_an_error_survives_pickling() -> None:
    """With everything it carries."""
    error = pickle.loads(pickle.dumps(failure({"error": "no", "required": 1}, 402)))  # noqa: S301 - our own
    assert isinstance(error, InsufficientCreditsError)
    assert (error.required, error.status, str(error)) == (1.0, 402, "mira answered 402: no")


@pytest.mark.parametrize("body", [b"", b"{", b'"\xff"', b"[" * 5000, b'"\\ud800"', b"NaN", b"5"])
def test_a_decoder_s_complaint_becomes_our_own_error(body: bytes) -> None:
    """Without the decoder's text, which may repeat the payload, not even as context."""
    with pytest.raises(ResponseError, match="the answer is not the JSON its document describes") as caught:
        decode(body, str)
    assert isinstance(caught.value, MirageError)
    assert caught.value.__context__ is None
