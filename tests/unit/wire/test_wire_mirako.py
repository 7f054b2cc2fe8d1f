"""Mirako's codec, pictures: every rule of the image guide."""

from __future__ import annotations

import base64
import json
import warnings
from typing import Any

import pytest
from wire_samples import JPEG, answered, picture, png, sample, sent

from mirage_async.exceptions import BadRequestError, ConfigurationError, InputError, ResponseError
from mirage_async.media import Picture
from mirage_async.models import JobStatus
from mirage_async.wire import Call, mirako
from mirage_async.wire._message import PICTURE_LIMIT

GIF = b"GIF89a\x01\x00\x01\x00"


def generate(prompt: str = "a harbour", **changes: Any) -> Call:
    """Return a call with everything optional unset but for the changes."""
    return mirako.generate_call(prompt, **{"aspect_ratio": "16:9", "seed": None, "images": (), **changes})


def submit(prompt: str = "a harbour", **changes: Any) -> Call:
    """Return the asynchronous twin of `generate`."""
    fields = {"aspect_ratio": "16:9", "seed": None, "images": (), "webhook": None, **changes}
    return mirako.submit_call(prompt, **fields)


def test_m1_the_aspect_ratio_is_always_sent() -> None:
    """The vendor's API description requires the field although it names a default."""
    assert sent(submit()) == {"prompt": "a harbour", "aspect_ratio": "16:9"}
    assert sent(generate(aspect_ratio="9:16")) == {"prompt": "a harbour", "aspect_ratio": "9:16"}


def test_an_aspect_ratio_outside_the_table_is_refused() -> None:
    """The image guide lists seven ratios."""
    with pytest.raises(InputError, match=r"aspect_ratio must be one of 16:9, .*; got '2:1'") as caught:
        generate(aspect_ratio="2:1")
    assert caught.value.provider == "mirako"


@pytest.mark.parametrize("seed", [0, 1, -1, 2147483647, -2147483648])
def test_m2_seed_zero_is_sent(seed: int) -> None:
    """A seed is left out only when it is None; 0 is a seed."""
    assert sent(submit(seed=seed))["seed"] == seed


@pytest.mark.parametrize("seed", [True, 1.0, "1", 1 << 31, -(1 << 31) - 1])
def test_m2_a_seed_outside_int32_is_refused(seed: object) -> None:
    """Booleans, floats and text are no whole numbers, and the seed is 32 bits wide."""
    with pytest.raises(InputError, match="seed must be a whole number from -2147483648 to 2147483647"):
        submit(seed=seed)


def test_m3_the_webhook_is_sent_on_the_asynchronous_path_only_when_given() -> None:
    """The webhook is an address with an optional token, left out whole when unset."""
    assert "webhook" not in sent(submit())
    assert sent(submit(webhook=("https://app.example/hook", None)))["webhook"] == {"url": "https://app.example/hook"}
    assert sent(submit(webhook=("https://app.example/hook", "t0ken")))["webhook"] == {
        "url": "https://app.example/hook",
        "auth_token": "t0ken",
    }


def test_m3_a_webhook_token_never_reaches_a_message() -> None:
    """What is wrong with a token is told without the token."""
    with pytest.raises(InputError, match="webhook token must be text without NUL") as caught:
        submit(webhook=("https://app.example/hook", "se\0cret"))
    assert "cret" not in str(caught.value)


def test_m5_a_failed_task_carries_the_reason_of_its_error_field() -> None:
    """`data.error` is not in the image guide but is read where it is present."""
    report = mirako.read_status(answered("mirako/task_failed"))
    assert report.status is JobStatus.FAILED
    assert report.reason == "Generation failed due to invalid prompt parameters"


def test_m5_a_failed_task_without_an_error_field_has_no_reason() -> None:
    """Only the state is promised."""
    report = mirako.read_status(answered({"data": {"status": "FAILED", "error": {"message": " why \n not "}}}))
    assert report.reason == "why not"
    assert mirako.read_status(answered({"data": {"status": "FAILED"}})).reason is None


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("IN_QUEUE", JobStatus.QUEUED),
        ("in_progress", JobStatus.RUNNING),
        ("FAILED", JobStatus.FAILED),
        ("CANCELED", JobStatus.CANCELLED),
        ("CANCELLED", JobStatus.CANCELLED),
        ("TIMED_OUT", JobStatus.EXPIRED),
        ("succeeded", JobStatus.SUCCEEDED),
        ("PAUSED", None),
    ],
)
def test_m7_every_spelling_of_a_state_is_understood(word: str, status: JobStatus | None) -> None:
    """Words are compared in upper case, both spellings of cancelled count, an unknown word breaks nothing."""
    report = mirako.read_status(answered({"data": {"status": word}}))
    assert report.status is status
    assert report.word == word


@pytest.mark.parametrize(
    "odd", [{"extra": [1, {}]}, {"task_id": 7}, {"task_id": None}, {"success": None}, {"status": " In_Progress "}]
)
def test_a_glance_and_a_closer_look_see_the_same(odd: dict[str, object]) -> None:
    """Answers that say no more than that a task goes on are read in one pass, others field by field."""
    plain = {"status": "IN_PROGRESS", "task_id": "7"}
    report = mirako.read_status(answered({"data": {**plain, **odd}}))
    assert (report.status, report.word.strip().upper()) == (JobStatus.RUNNING, "IN_PROGRESS")
    if odd.get("task_id", "") is not None:
        submitted = mirako.read_submitted(answered({"data": {**plain, **odd}}))
        assert (submitted.id, submitted.report) == ("7", report)


def test_an_unfinished_task_of_an_answer_that_takes_itself_back_is_not_believed() -> None:
    """`success: false` counts, whatever stands beside it."""
    body = {"success": False, "data": {"status": "IN_PROGRESS", "task_id": "7"}}
    for read in (mirako.read_status, mirako.read_submitted):
        with pytest.raises(BadRequestError):
            read(answered(body))


@pytest.mark.parametrize("task_id", ["", "../7", "7/status"])
def test_an_id_that_could_change_an_address_is_refused_at_a_glance(task_id: str) -> None:
    """The quick way checks it as the other does."""
    with pytest.raises(ResponseError, match="mirako must send an id"):
        mirako.read_submitted(answered({"data": {"status": "IN_QUEUE", "task_id": task_id}}))


def test_m8_the_type_of_a_reference_is_read_from_its_bytes() -> None:
    """PNG bytes are announced as PNG and JPEG bytes as JPEG."""
    images = sent(submit(images=[picture(png(64, 64)), picture(JPEG)]))["images"]
    assert images[0]["data"] == "data:image/png;base64," + base64.b64encode(png(64, 64)).decode()
    assert images[1]["data"] == "data:image/jpeg;base64," + base64.b64encode(JPEG).decode()


@pytest.mark.parametrize(
    ("reference", "got"),
    [
        (picture(GIF), "10 bytes of image/gif"),
        (picture(b"plain text"), "10 bytes of no picture known here"),
        (Picture(url="https://a.example/b.png"), "a link"),
    ],
)
def test_m8_anything_but_jpeg_and_png_is_refused(reference: Picture, got: str) -> None:
    """The image guide accepts JPG and PNG, as data; links and other pictures are refused before sending."""
    with pytest.raises(InputError, match=rf"images\[0\] must be the bytes of a JPEG or PNG picture; got {got}"):
        submit(images=[reference])


def test_m9_a_sixth_picture_is_refused() -> None:
    """At most five reference pictures a request."""
    with pytest.raises(InputError, match="images must be at most 5 pictures; got 6"):
        submit(images=[picture(JPEG)] * 6)
    assert len(sent(submit(images=[picture(JPEG)] * 5))["images"]) == 5


@pytest.mark.parametrize("data", [png(64, 64, (1 << 20) + 1), png(1025, 64), png(64, 1025)])
def test_m9_a_large_picture_warns_and_is_sent(data: bytes) -> None:
    """The guide says "best under": above 1 MiB or 1024 pixels a side the caller is warned, at the caller's line."""
    with pytest.warns(UserWarning, match=r"images\[0\] is best under 1 MiB and within 1024 x 1024") as caught:
        call = submit(images=[picture(data)])
    assert len(sent(call)["images"]) == 1
    assert caught[0].filename == __file__


def test_m9_pictures_at_the_soft_limits_do_not_warn() -> None:
    """Exactly 1 MiB and exactly 1024 pixels are within the advice; an unreadable size is not guessed at."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        submit(images=[picture(png(1024, 1024, 1 << 20)), picture(b"\xff\xd8\xff\xe0")])


def test_m10_the_prompt_and_labels_are_sent_untouched() -> None:
    """Labels are optional and the prompt is never rewritten, whatever brackets it uses."""
    body = sent(submit(" put [mug] by {mug} on <mug> ", images=[picture(JPEG, "mug"), picture(JPEG)]))
    assert body["prompt"] == " put [mug] by {mug} on <mug> "
    assert body["images"][0]["label"] == "mug"
    assert set(body["images"][1]) == {"data"}


@pytest.mark.parametrize("label", ["", "  ", "x" * 65])
def test_m10_a_label_has_1_to_64_characters(label: str) -> None:
    """A label that is given must be usable in a prompt."""
    with pytest.raises(InputError, match=r"images\[0\]\.label must be 1 to 64 characters of text"):
        submit(images=[picture(JPEG, label)])


def test_m11_an_avatar_is_chosen_by_its_id_in_the_prompt() -> None:
    """There is no avatar field on the wire."""
    assert sent(submit("portrait of 0d5d21a8")) == {"prompt": "portrait of 0d5d21a8", "aspect_ratio": "16:9"}


@pytest.mark.parametrize("prefix", ["", "data:image/jpeg;base64,", "data:image/jpg;base64,\\n"])
def test_m12_the_picture_is_decoded_with_and_without_a_prefix(prefix: str) -> None:
    """Base64 with an optional data-URL prefix becomes bytes, and `raw` keeps everything else."""
    text = prefix.encode() + base64.b64encode(JPEG)
    body = b'{"data":{"status":"COMPLETED","task_id":"x","image":"%s"},"trace":7}' % text
    report = mirako.read_status(answered(body))
    assert report.status is JobStatus.SUCCEEDED
    assert [piece.data for piece in report.pieces] == [JPEG]
    assert report.raw == {"data": {"status": "COMPLETED", "task_id": "x"}, "trace": 7}
    assert report.reason is None


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({}, "data.image is missing"),
        ({"image": None}, "data.image is no picture"),
        ({"image": ""}, "data.image is no picture"),
        ({"image": "@@@"}, "data.image is no picture"),
        ({"image": 5}, "data.image is no picture"),
        ({"image": base64.b64encode(b"<html>").decode()}, "data.image is no picture"),
        ({"error": "lost it"}, "lost it"),
    ],
)
def test_m12_completed_without_a_picture_is_hollow(data: dict[str, Any], reason: str) -> None:
    """The state is success, there is nothing to show for it, and the report says why."""
    report = mirako.read_status(answered({"data": {"status": "COMPLETED", **data}}))
    assert report.status is JobStatus.SUCCEEDED
    assert report.pieces == ()
    assert report.reason == reason


def test_m12_another_known_picture_type_is_accepted() -> None:
    """The guide says JPEG; a PNG that was paid for is not thrown away."""
    body = {"data": {"status": "COMPLETED", "image": base64.b64encode(png(8, 8)).decode()}}
    assert mirako.read_status(answered(body)).pieces[0].data == png(8, 8)


@pytest.mark.parametrize("status", [200, 201, 202])
def test_m13_any_2xx_is_success(status: int) -> None:
    """The guide's samples only know 200."""
    assert mirako.read_submitted(answered("mirako/task_created", status)).id == "xdac2o3c"


def test_m13_a_problem_document_becomes_a_bad_request() -> None:
    """The error shape is problem+json; the value that was sent is not repeated."""
    with pytest.raises(BadRequestError, match=r"validation failed .expected another prompt.") as caught:
        mirako.read_submitted(answered("mirako/problem_422", 422))
    assert "lighthouse" not in f"{caught.value!r} {caught.value.body} {caught.value.details}"


def test_m13_an_error_without_a_body_is_understood() -> None:
    """The vendor warns that some errors have no body at all."""
    with pytest.raises(BadRequestError, match="mirako answered 400: Bad Request, without an error text"):
        mirako.read_status(answered(b"", 400))


def test_m14_a_task_id_is_opaque_text() -> None:
    """A short id is as good as a UUID, and goes into the address as it is."""
    assert mirako.status_call("xdac2o3c").path == "/v1/image/async_generate/xdac2o3c/status"
    assert mirako.status_call("xdac2o3c").max_reply_bytes == PICTURE_LIMIT


@pytest.mark.parametrize("task_id", ["../avatar", "a/b", "", "-a", "x" * 129, "a b", "ä", "x\n"])
def test_m14_an_id_that_could_change_the_address_is_refused(task_id: str) -> None:
    """From the caller it is an input error, from the provider an unreadable answer."""
    with pytest.raises(InputError, match="job_id must be 1 to 128 letters"):
        mirako.status_call(task_id)
    with pytest.raises(ResponseError, match="mirako must send an id of 1 to 128 letters"):
        mirako.read_submitted(answered({"data": {"task_id": task_id}}))


def test_a_numeric_id_is_taken_as_text() -> None:
    """An accepted job is not lost over the type of its id."""
    assert mirako.read_submitted(answered({"data": {"task_id": 17}})).id == "17"


@pytest.mark.parametrize("task_id", [None, True, -1, [], 1.5])
def test_an_answer_without_a_usable_id_is_unreadable(task_id: object) -> None:
    """Without an id there is no job to wait for."""
    with pytest.raises(ResponseError, match="mirako must send an id"):
        mirako.read_submitted(answered({"data": {"task_id": task_id}}))


def test_the_state_in_the_create_answer_is_passed_on() -> None:
    """A state that comes along with the id saves a status call."""
    submitted = mirako.read_submitted(answered("mirako/task_created"))
    assert submitted.report is not None
    assert submitted.report.status is JobStatus.QUEUED
    assert mirako.read_submitted(answered("mirako/task_created_id_only")).report is None


def test_a_task_may_be_finished_when_it_is_announced() -> None:
    """The create answer is read like a status answer, picture included."""
    report = mirako.read_submitted(answered("mirako/task_completed")).report
    assert report is not None
    assert report.pieces[0].data == JPEG


def test_the_blocking_answer_holds_the_picture() -> None:
    """`data.image` is all the blocking endpoint promises."""
    report = mirako.read_generated(answered("mirako/generated"))
    assert report.status is JobStatus.SUCCEEDED
    assert report.pieces[0].data == JPEG
    assert report.raw == {"data": {}}


@pytest.mark.parametrize(
    ("data", "reason"), [({}, "data.image is missing"), ({"status": "FAILED", "error": "busy"}, "busy")]
)
def test_a_blocking_answer_without_a_picture_is_unreadable(data: dict[str, str], reason: str) -> None:
    """A success that brings nothing is reported as such."""
    with pytest.raises(ResponseError, match=f"mirako answered without a usable picture: {reason}"):
        mirako.read_generated(answered({"data": data}))


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"<html>", {}, {"data": None}, {"data": []}, b"\xff"])
def test_an_answer_of_another_shape_is_unreadable(body: object) -> None:
    """Whatever it is, it becomes our own error."""
    with pytest.raises(ResponseError, match=r"the answer (has no 'data'|is not the JSON)"):
        mirako.read_status(answered(body))


def test_a_status_answer_without_a_state_is_unreadable() -> None:
    """The wait goes on elsewhere; here nothing is made up."""
    with pytest.raises(ResponseError, match="mirako sent no task status"):
        mirako.read_status(answered({"data": {"status": 5}}))


def test_a_success_that_is_taken_back_is_a_refusal() -> None:
    """`success: false` in a 2xx means that nothing was bought."""
    with pytest.raises(BadRequestError, match="mirako answered 200: no such model") as caught:
        mirako.read_submitted(answered({"success": False, "message": "no such model"}))
    assert caught.value.billed == "no"


def test_an_odd_neighbour_does_not_cost_the_picture() -> None:
    """Fields that cannot be decoded, and fields too long to be anything but picture data, are left out of `raw`."""
    data = json.loads(sample("mirako/task_completed"))["data"]
    body = json.dumps({"data": {**data, "thumbnail": "A" * (1 << 19), "n": 1}}).encode()
    body = body.replace(b'"n": 1', b'"n": "\xff"')
    report = mirako.read_status(answered(body))
    assert report.pieces[0].data == JPEG
    assert set(report.raw["data"]) == {"task_id", "status"}


@pytest.mark.parametrize("prompt", ["", "  \n", None, 5])
def test_a_blank_prompt_is_refused(prompt: Any) -> None:
    """No provider draws nothing."""
    with pytest.raises(InputError, match="prompt must be non-blank text; got"):
        generate(prompt)


@pytest.mark.parametrize("prompt", ["secret\0", "secret\ud800"])
def test_a_prompt_that_cannot_be_sent_is_refused_without_repeating_it(prompt: str) -> None:
    """NUL and lone surrogates are refused at the door, and prompts reach no message."""
    with pytest.raises(InputError, match="prompt must be text") as caught:
        generate(prompt)
    assert "secret" not in str(caught.value)


def test_the_two_modes_have_their_own_paths() -> None:
    """Blocking and asynchronous requests differ in nothing but address and webhook."""
    assert (generate().method, generate().path) == ("POST", "/v1/image/generate")
    assert (submit().method, submit().path) == ("POST", "/v1/image/async_generate")
    assert generate().max_reply_bytes == PICTURE_LIMIT
    assert generate(seed=7).body == submit(seed=7).body


def test_the_key_travels_as_a_bearer_token() -> None:
    """The header is the one of the image guide."""
    assert mirako.credential("mi-key") == ("Authorization", "Bearer mi-key")


@pytest.mark.parametrize("key", ["", "a b", "key\r\nx: y", "schlüssel", None])
def test_a_key_that_cannot_travel_in_a_header_is_a_configuration_error(key: Any) -> None:
    """Line breaks would smuggle headers; the key itself is never repeated."""
    with pytest.raises(ConfigurationError, match="the mirako API key must be printable ASCII without spaces"):
        mirako.credential(key)
