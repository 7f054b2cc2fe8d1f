"""Miragic's codec: every rule of the image generation reference."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qsl

import pytest
from wire_samples import answered, sample

from mirage_async.exceptions import (
    AuthenticationError,
    BadRequestError,
    ConfigurationError,
    ContentRejectedError,
    InputError,
    InsufficientCreditsError,
    ResponseError,
)
from mirage_async.models import JobStatus
from mirage_async.wire import Call, Form, miragic

JOB_ID = "56ba3768-2195-464c-98cd-e9dc535c2258"
LINK = "https://backend.miragic.ai/uploads/image-generation/processed/eebf31b5/1ce867db.jpg"


def generate(prompt: str = "a harbour", **changes: Any) -> Call:
    """Return a call with everything optional unset but for the changes."""
    fields = {"model": "flux", "width": 1024, "height": 512, "image_url": None, **changes}
    return miragic.generate_call(prompt, **fields)


def fields_of(call: Call) -> list[tuple[str, str]]:
    """Return the form fields of a call, whichever way they are encoded."""
    if isinstance(call.body, Form):
        return list(call.body.fields)
    assert isinstance(call.body, bytes)
    return parse_qsl(call.body.decode(), strict_parsing=True)


def completed(**data: object) -> dict[str, Any]:
    """Return a finished job with this data."""
    return {"success": True, "data": {"id": JOB_ID, "status": "COMPLETED", **data}}


@pytest.mark.parametrize("model", ["flux", "turbo", "gptimage"])
def test_g1_a_reference_needs_the_model_kontext(model: str) -> None:
    """The table of the reference is taken at its word, its samples notwithstanding; nothing is dropped in silence."""
    with pytest.raises(InputError, match="model must be 'kontext' where image_url is given; got"):
        generate(model=model, image_url="https://a.example/b.png")


def test_g1_kontext_takes_a_reference_and_does_without() -> None:
    """The reference is optional."""
    call = generate(model="kontext", image_url="https://a.example/b.png")
    assert fields_of(call)[-1] == ("image_url", "https://a.example/b.png")
    assert len(fields_of(generate(model="kontext"))) == 4


@pytest.mark.parametrize("multipart", [True, False])
def test_g2_the_body_is_a_form_of_text_values(*, multipart: bool) -> None:
    """Multipart as in the curl sample or urlencoded as in the Python sample; never JSON, numbers as text."""
    call = generate("ü & = %\n", multipart=multipart)
    assert fields_of(call) == [("prompt", "ü & = %\n"), ("model", "flux"), ("width", "1024"), ("height", "512")]
    assert call.content_type == (None if multipart else "application/x-www-form-urlencoded")
    assert (call.method, call.path) == ("POST", "/api/v1/image/generate")


@pytest.mark.parametrize(
    ("data", "url"),
    [
        ({"download_signed_url": "https://a/1", "processedImageUrl": "https://a/2", "imageUrl": "https://a/3"}, "1"),
        ({"download_signed_url": "", "processedImageUrl": "https://a/2", "imageUrl": "https://a/3"}, "2"),
        ({"download_signed_url": None, "processedImageUrl": "  ", "imageUrl": "https://a/3"}, "3"),
    ],
)
def test_g3_result_link_is_the_first_of_three_names(data: dict[str, object], url: str) -> None:
    """The prose, the table and the example each name it differently; empty ones are passed over."""
    (piece,) = miragic.read_status(answered(completed(**data))).pieces
    assert piece.url == f"https://a/{url}"


def test_g3_the_upstream_link_is_ignored() -> None:
    """`metadata.apiResponse.link` is not ours; a job that is COMPLETED with nothing else is hollow."""
    body = completed(metadata={"apiResponse": {"link": "https://www.dropbox.com/x"}})
    report = miragic.read_status(answered(body))
    assert report.status is JobStatus.SUCCEEDED
    assert (report.pieces, report.reason) == ((), "the answer has no link to the picture")


@pytest.mark.parametrize(
    "url",
    ["/uploads/a.jpg", "backend.miragic.ai/a.jpg", "//backend/a.jpg", "ftp://a/b", "https://u:p@a/b", "https://a b/"],
)
def test_g3_a_link_that_is_not_absolute_makes_the_report_hollow(url: str) -> None:
    """A relative link is resolved against nothing."""
    report = miragic.read_status(answered(completed(imageUrl=url)))
    assert report.pieces == ()
    assert report.reason == "the link to the picture is not an absolute http(s) URL"


def test_the_link_of_a_finished_job_is_temporary() -> None:
    """The reference calls it so, whatever its sample looks like."""
    report = miragic.read_status(answered("miragic/completed"))
    assert report.status is JobStatus.SUCCEEDED
    assert [piece.url for piece in report.pieces] == [LINK]
    assert report.temporary
    assert report.credits == 1


def test_g5_the_moment_of_creation_is_kept_as_it_came() -> None:
    """Number or text, nothing depends on it."""
    for value in ("2025-11-05T13:52:00.801Z", 1762350720, 1762350720801):
        report = miragic.read_status(answered(completed(imageUrl=LINK, createdAt=value)))
        assert report.raw["data"]["createdAt"] == value


@pytest.mark.parametrize(
    ("created", "updated", "took"),
    [
        ("2025-11-05T13:52:00.801Z", "2025-11-05T13:52:05.629Z", 4.828),
        (1762350720, 1762350722.5, 2.5),
        (1762350720801, "2025-11-05T13:52:05.629Z", 4.828),
        ("2025-11-05T13:52:05.629Z", "2025-11-05T13:52:00.801Z", None),
        ("2025-11-05T13:52:00.801Z", "2025-11-05T13:52:00.801Z", None),
        ("yesterday", "2025-11-05T13:52:05.629Z", None),
        ("2025-11-05T13:52:00.801Z", None, None),
    ],
)
def test_g5_a_finished_job_tells_how_long_it_took(created: object, updated: object, took: float | None) -> None:
    """By its own clock, from its creation to its last change; times that make no sense tell nothing."""
    finished = completed(imageUrl=LINK, createdAt=created, updatedAt=updated)
    assert miragic.read_status(answered(finished)).took == (None if took is None else pytest.approx(took))
    running = completed(imageUrl=LINK, createdAt=created, updatedAt=updated, status="PENDING")
    assert miragic.read_status(answered(running)).took is None


def test_g6_echoed_parameters_stay_text() -> None:
    """`"false"` is not False, and nothing is read from them."""
    raw = miragic.read_status(answered("miragic/completed")).raw
    assert raw["data"]["parameters"]["private"] == "false"


@pytest.mark.parametrize(
    ("progress", "share"),
    [(0, 0.0), (42, 0.42), ("42.5", 0.425), (250, 1.0), (-3, 0.0), (None, None), ("soon", None), (True, None)],
)
def test_g7_progress_is_an_optional_share(progress: object, share: float | None) -> None:
    """A percentage, as number or text, clamped; anything else is no progress and no error."""
    body = {"success": True, "data": {"id": JOB_ID, "status": "PENDING", "progress": progress}}
    report = miragic.read_status(answered(body))
    assert report.status is JobStatus.RUNNING
    assert report.progress == share


def test_g7_progress_may_be_absent() -> None:
    """As in every example of the reference."""
    submitted = miragic.read_submitted(answered("miragic/created"))
    assert submitted.report is not None
    assert submitted.report.progress is None


def test_g8_only_json_is_read() -> None:
    """The reference prints its example as Python; that is not evaluated."""
    with pytest.raises(ResponseError, match="the answer is not the JSON its document describes"):
        miragic.read_status(answered(b"{'success': True, 'data': {'status': 'COMPLETED'}}"))


def test_g9_the_base_url_is_the_backend() -> None:
    """One sample names a development host; that is a slip."""
    assert miragic.BASE_URL == "https://backend.miragic.ai"


@pytest.mark.parametrize("name", ["jobId", "id"])
def test_g10_the_id_has_two_names(name: str) -> None:
    """The create answer says jobId, the status answer says id; either is taken."""
    body = {"success": True, "data": {name: JOB_ID, "status": "PENDING"}}
    assert miragic.read_submitted(answered(body, 201)).id == JOB_ID
    body = {"success": True, "data": {"jobId": "", "id": JOB_ID}}
    assert miragic.read_submitted(answered(body, 202)).id == JOB_ID


def test_g11_an_id_is_not_necessarily_a_uuid() -> None:
    """One sample of the reference uses something shorter."""
    call = miragic.status_call("25331fb2-d0b0-44f6fcc85e3e")
    assert (call.method, call.path) == ("GET", "/api/v1/image/jobs/25331fb2-d0b0-44f6fcc85e3e")
    with pytest.raises(InputError, match="job_id must be"):
        miragic.status_call("../generate")


@pytest.mark.parametrize("status", [200, 201])
def test_g13_a_2xx_without_success_is_a_refusal(status: int) -> None:
    """`success: false` means that nothing was accepted, even beside an id."""
    body = {"success": False, "data": {"jobId": JOB_ID}, "message": "width is too odd"}
    with pytest.raises(BadRequestError, match=f"miragic answered {status}: width is too odd") as caught:
        miragic.read_submitted(answered(body, status))
    assert caught.value.billed == "no"


def test_g13_a_failed_job_is_a_failed_job_whatever_success_says() -> None:
    """FAILED is about the job, `success` about the request."""
    report = miragic.read_status(answered("miragic/failed_unsuccessful"))
    assert report.status is JobStatus.FAILED
    assert miragic.read_status(answered("miragic/failed")).status is JobStatus.FAILED


@pytest.mark.parametrize("data", [{"status": "PENDING"}, {}, None])
def test_g13_a_status_call_without_success_is_an_error_of_the_call(data: object) -> None:
    """Unless the job is FAILED, it says nothing about the job."""
    with pytest.raises(BadRequestError, match="miragic answered 200: try later"):
        miragic.read_status(answered({"success": False, "data": data, "message": "try later"}))


def test_g14_the_error_may_be_an_object() -> None:
    """Code and message are taken out of it."""
    with pytest.raises(AuthenticationError, match="miragic answered 401: Invalid or expired API key") as caught:
        miragic.read_submitted(answered("miragic/refused", 401))
    assert caught.value.code == "INVALID_API_KEY"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"success": False, "error": "no such model"}, "no such model"),
        ({"success": False, "message": "no such size"}, "no such size"),
        ({"success": False, "data": {"errorMessage": "no such job"}}, "no such job"),
    ],
)
def test_g14_the_error_text_is_found_in_every_shape(body: object, message: str) -> None:
    """`error` first, then `message`, then `data.errorMessage`."""
    with pytest.raises(BadRequestError, match=f"miragic answered 400: {message}"):
        miragic.read_submitted(answered(body, 400))


def test_g14_a_refusal_inside_a_200_is_told_apart_by_its_code() -> None:
    """There is no status to go by."""
    with pytest.raises(InsufficientCreditsError, match="Not enough credits"):
        miragic.read_submitted(answered("miragic/no_credits"))
    with pytest.raises(AuthenticationError, match="Invalid or expired API key"):
        miragic.read_submitted(answered("miragic/refused"))
    with pytest.raises(ContentRejectedError, match="blocked by moderation"):
        miragic.read_submitted(answered({"success": False, "error": "blocked by moderation"}))


def test_g15_a_failed_job_carries_its_error_message() -> None:
    """It may be missing, then the answer's own error text is the next best."""
    assert miragic.read_status(answered("miragic/failed")).reason == "Upstream refused the prompt"
    body = {"success": True, "data": {"status": "FAILED", "errorMessage": None}}
    assert miragic.read_status(answered(body)).reason is None
    body = {"success": True, "error": {"message": "upstream is down"}, "data": {"status": "FAILED"}}
    assert miragic.read_status(answered(body)).reason == "upstream is down"


def test_g17_the_create_answer_may_already_be_completed() -> None:
    """Then the result is there before the first status call."""
    submitted = miragic.read_submitted(answered("miragic/created_completed"))
    assert submitted.id == JOB_ID
    assert submitted.report is not None
    assert submitted.report.pieces[0].url == LINK


def test_g18_the_key_has_a_header_of_its_own() -> None:
    """It belongs to calls; a result link carries nothing."""
    assert miragic.credential("sk_live_1") == ("X-API-Key", "sk_live_1")
    with pytest.raises(ConfigurationError, match="the miragic API key must be printable ASCII"):
        miragic.credential("sk live")


def test_an_unknown_word_keeps_the_job_alive() -> None:
    """A state this version does not know is no state at all."""
    report = miragic.read_status(answered({"success": True, "data": {"status": "PAUSED"}}))
    assert (report.status, report.word) == (None, "PAUSED")


@pytest.mark.parametrize("body", [{}, {"data": None}, {"data": {"status": None}}, {"success": True, "data": []}])
def test_a_status_answer_without_a_state_is_unreadable(body: object) -> None:
    """Nothing is made up."""
    with pytest.raises(ResponseError, match="miragic sent no job status"):
        miragic.read_status(answered(body))


@pytest.mark.parametrize("body", [{"data": {}}, {"data": {"jobId": []}}, {"data": {"jobId": "a/b"}}])
def test_a_create_answer_without_a_usable_id_is_unreadable(body: object) -> None:
    """Accepted, maybe paid, and nobody knows under which name."""
    with pytest.raises(ResponseError, match="miragic must send an id"):
        miragic.read_submitted(answered(body))


def test_the_state_is_optional_in_the_create_answer() -> None:
    """The id is what counts."""
    assert miragic.read_submitted(answered({"data": {"jobId": JOB_ID}})).report is None


@pytest.mark.parametrize("side", ["width", "height"])
@pytest.mark.parametrize("value", [255, 2049, 0, True, 512.0, "512", 10**400])
def test_a_side_has_256_to_2048_pixels(side: str, value: Any) -> None:
    """The range of the reference's table, whole numbers only."""
    with pytest.raises(InputError, match=f"{side} must be a whole number from 256 to 2048; got"):
        generate(**{side: value})


@pytest.mark.parametrize("value", [256, 2048])
def test_the_ends_of_the_range_are_allowed(value: int) -> None:
    """Both are part of it."""
    assert ("width", str(value)) in fields_of(generate(width=value))


def test_a_model_outside_the_table_is_refused() -> None:
    """The message lists the four models."""
    with pytest.raises(InputError, match="model must be one of flux, turbo, gptimage, kontext; got 'dream'"):
        generate(model="dream")


@pytest.mark.parametrize(
    "url",
    [
        "a.example/b.png",
        "file:///etc/passwd",
        "https://u:p@a/b",
        "https://a/" + "x" * 2048,
        "http://a:99999/",
        "https://[::1/b",
        "https:///b",
        "https://a/b c",
        5,
    ],
)
def test_a_reference_is_an_absolute_web_address(url: Any) -> None:
    """Its content is never repeated, because links can be secrets."""
    with pytest.raises(InputError, match=r"image_url must be an absolute http\(s\) URL of at most 2048"):
        generate(model="kontext", image_url=url)


def test_every_field_of_the_answer_is_kept_in_raw() -> None:
    """Miragic sends no picture data, so nothing is left out."""
    assert miragic.read_status(answered("miragic/completed")).raw == json.loads(sample("miragic/completed"))
