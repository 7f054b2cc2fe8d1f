"""Mirako's codec, avatars: every rule of the avatar guide."""

from __future__ import annotations

import base64
import warnings
from datetime import UTC, datetime

import pytest
from wire_samples import JPEG, answered, picture, png, sent

from mirage_async.exceptions import APIError, InputError, NotFoundError, ResponseError
from mirage_async.media import Picture
from mirage_async.models import AvatarStatus, JobStatus
from mirage_async.wire import mirako

AVATAR_ID = "0d5d21a8-6a0e-4a0e-9a9f-5c3b1f1f2c11"


def test_a2_the_portrait_travels_as_plain_base64() -> None:
    """Reference pictures are data URLs, the portrait is not; the caller cannot mix them up."""
    data = png(512, 512)
    call = mirako.avatar_call("Ada", picture(data))
    assert sent(call) == {"name": "Ada", "image": base64.b64encode(data).decode()}
    assert (call.method, call.path) == ("POST", "/v1/avatar/async_build")


@pytest.mark.parametrize("themes", [None, [], [None, 5], "none"])
def test_a4_themes_are_never_none(themes: object) -> None:
    """`null` and oddities become an empty tuple."""
    body = {"data": {"id": "a", "name": "Ada", "status": "READY", "themes": themes}}
    assert mirako.read_avatar(answered(body)).themes == ()


def test_a4_themes_are_kept_as_the_provider_lists_them() -> None:
    """A theme has a name and, maybe, links."""
    (theme,) = mirako.read_avatar(answered("mirako/avatar_ready")).themes
    assert theme["name"] == "office"


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("PENDING", JobStatus.QUEUED),
        ("BUILDING", JobStatus.RUNNING),
        ("READY", JobStatus.SUCCEEDED),
        ("ERROR", JobStatus.FAILED),
        ("ready", JobStatus.SUCCEEDED),
        ("REVIEW", None),
    ],
)
def test_a5_avatars_have_their_own_states(word: str, status: JobStatus | None) -> None:
    """The four words of the avatar guide; a new one stays text and the wait goes on."""
    report = mirako.read_avatar_status(answered({"data": {"id": "a", "name": "Ada", "status": word}}))
    assert report.status is status
    assert report.avatar is not None
    assert report.avatar.status == (AvatarStatus(word.upper()) if status else word)


def test_a5_the_handle_is_called_avatar_id() -> None:
    """The create answer has an id and, so far, no state."""
    submitted = mirako.read_avatar_submitted(answered("mirako/avatar_submitted"))
    assert submitted.id == AVATAR_ID
    assert submitted.report is None


def test_a_state_in_the_create_answer_is_passed_on() -> None:
    """Should Mirako announce one, it is read like any other."""
    body = {"data": {"avatar_id": AVATAR_ID, "status": "PENDING"}}
    report = mirako.read_avatar_submitted(answered(body)).report
    assert report is not None
    assert report.status is JobStatus.QUEUED
    assert report.avatar is not None
    assert report.avatar.id == AVATAR_ID


@pytest.mark.parametrize(("width", "height"), [(511, 512), (512, 511), (0, 0)])
def test_a7_a_portrait_below_512_pixels_is_refused(width: int, height: int) -> None:
    """The avatar guide's minimum; a size that cannot be read does not pass either."""
    with pytest.raises(InputError, match="image must be at least 512 x 512 pixels; got"):
        mirako.avatar_call("Ada", picture(png(width, height)))


def test_a7_a_portrait_above_10_mib_is_refused() -> None:
    """The limit is that of the file, before encoding."""
    limit = 10 * 1024 * 1024
    with pytest.raises(InputError, match="image must be at most 10485760 bytes; got 10485761 bytes"):
        mirako.avatar_call("Ada", picture(png(512, 512, limit + 1)))
    assert mirako.avatar_call("Ada", picture(png(512, 512, limit))).body


@pytest.mark.parametrize("portrait", [picture(b"GIF89a" + b"\xff" * 9), Picture(url="https://a.example/b.jpg")])
def test_a7_a_portrait_is_a_jpeg_or_png(portrait: Picture) -> None:
    """Other kinds, and links, are refused before sending."""
    with pytest.raises(InputError, match="image must be the bytes of a JPEG or PNG picture"):
        mirako.avatar_call("Ada", portrait)


@pytest.mark.parametrize(("width", "height"), [(512, 512), (1024, 576), (1030, 576), (600, 610)])
def test_a7_a_ratio_within_two_percent_does_not_warn(width: int, height: int) -> None:
    """16:9 and square, with room for rounding."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mirako.avatar_call("Ada", picture(png(width, height)))


def test_a7_another_ratio_warns_and_is_sent() -> None:
    """The guide's rule is advice for what the avatar is used for later."""
    with pytest.warns(UserWarning, match="image is best 16:9 or square; got 768 x 1024 pixels"):
        assert mirako.avatar_call("Ada", picture(png(768, 1024))).body


def test_a9_all_avatars_can_be_listed() -> None:
    """The list is only mentioned as a command, its address is from the vendor's API description."""
    assert mirako.avatars_call().path == "/v1/avatar/list"
    avatars = mirako.read_avatars(answered("mirako/avatars"))
    assert [avatar.status for avatar in avatars] == ["READY", "BUILDING"]
    assert mirako.read_avatars(answered("mirako/avatars_null")) == ()


def test_a9_entries_without_id_or_state_are_left_out_of_the_list() -> None:
    """One odd entry does not hide the others."""
    listed = [None, {"id": "a"}, {"status": "READY"}, {"id": "b", "status": "NEW"}]
    assert [avatar.id for avatar in mirako.read_avatars(answered({"data": listed}))] == ["b"]


@pytest.mark.parametrize("body", [{}, {"data": {}}, {"data": 1}])
def test_a9_an_answer_that_is_no_list_is_unreadable(body: object) -> None:
    """Only `null` means that there are none."""
    with pytest.raises(ResponseError, match=r"mirako sent (no|something else than a) list of avatars"):
        mirako.read_avatars(answered(body))


def test_an_avatar_is_read_whole() -> None:
    """Name, state and moment come as the avatar guide prints them."""
    avatar = mirako.read_avatar(answered("mirako/avatar_ready"))
    assert (avatar.id, avatar.name, avatar.status) == (AVATAR_ID, "Ada", AvatarStatus.READY)
    assert avatar.created_at == datetime(2023, 10, 1, 12, tzinfo=UTC)


def test_an_avatar_without_id_and_name_is_still_read() -> None:
    """The avatar guide's own sample reads neither an id nor anything optional."""
    avatar = mirako.read_avatar(answered({"data": {"status": "READY", "created_at": False}}))
    assert (avatar.id, avatar.name, avatar.created_at) == ("", "", None)


def test_an_avatar_without_a_state_is_unreadable() -> None:
    """The state is the point of asking."""
    with pytest.raises(ResponseError, match="mirako sent no avatar status"):
        mirako.read_avatar_status(answered({"data": {"id": "a"}}))


def test_a_failed_build_carries_its_reason_where_there_is_one() -> None:
    """The guide promises none."""
    assert mirako.read_avatar_status(answered("mirako/avatar_error")).reason is None
    body = {"data": {"status": "ERROR", "error": "two faces"}}
    assert mirako.read_avatar_status(answered(body)).reason == "two faces"


def test_an_error_of_the_address_is_not_a_failed_build() -> None:
    """A 404 and a 500 are errors of the question, never a state of the avatar."""
    with pytest.raises(NotFoundError, match="mirako answered 404"):
        mirako.read_avatar_status(answered(b"", 404))
    with pytest.raises(APIError, match="mirako answered 500"):
        mirako.read_avatar(answered(b"", 500))


@pytest.mark.parametrize("name", ["", " ", "x" * 201, None])
def test_a_name_has_1_to_200_characters(name: str) -> None:
    """A blank name, or one that is no text, is refused."""
    with pytest.raises(InputError, match="name must be 1 to 200 characters of text"):
        mirako.avatar_call(name, picture(JPEG))


def test_an_avatar_is_asked_for_by_its_id() -> None:
    """The id becomes part of the address, so it is checked."""
    assert mirako.avatar_status_call(AVATAR_ID).path == f"/v1/avatar/{AVATAR_ID}"
    with pytest.raises(InputError, match="avatar_id must be 1 to 128 letters"):
        mirako.avatar_status_call("a/b")
