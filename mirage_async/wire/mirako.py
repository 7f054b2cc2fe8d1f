"""Mirako: pictures by task id or at once, and avatars that are built for the better part of an hour.

The rules come from Mirako's image guide and its avatar guide. What the vendor's published API description adds is
marked as such where it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from mirage_async.exceptions import ResponseError
from mirage_async.models import Avatar, AvatarStatus, JobStatus, Pace
from mirage_async.wire._answers import accepted_fields
from mirage_async.wire._callbacks import callback_secrets
from mirage_async.wire._checks import (
    at_most,
    checked_id,
    choice,
    key_text,
    passed_id,
    prompt_text,
    refused,
    short_text,
    web_address,
    whole_number,
)
from mirage_async.wire._glimpse import glimpse
from mirage_async.wire._json import Fields, decode, encode, field, inner, plain
from mirage_async.wire._message import PICTURE_LIMIT, Call, Piece, Reply, Report, Submitted
from mirage_async.wire._pictures import accepted, as_base64, as_data_url, warn
from mirage_async.wire._results import picture_bytes
from mirage_async.wire._values import fields_of, is_array, items_of, moment, text
from mirage_async.wire._wording import one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mirage_async.media import Facts, Picture

__all__ = [
    "ASPECT_RATIOS",
    "AVATAR_PACE",
    "BASE_URL",
    "CALLBACK_TOKEN",
    "IMAGE_PACE",
    "MAX_IMAGES",
    "NAME",
    "avatar_call",
    "avatar_status_call",
    "avatars_call",
    "credential",
    "generate_call",
    "job_state",
    "read_avatar",
    "read_avatar_status",
    "read_avatar_submitted",
    "read_avatars",
    "read_generated",
    "read_status",
    "read_submitted",
    "status_call",
    "submit_call",
]

NAME = "mirako"
BASE_URL = "https://mirako.co"
CALLBACK_TOKEN = True
"""Beside an address to call back, a token may be given that is sent along as `Authorization: Bearer`."""

ASPECT_RATIOS = ("16:9", "1:1", "4:3", "3:2", "2:3", "3:4", "9:16")
MAX_IMAGES = 5

IMAGE_PACE = Pace(first=2, interval=5, maximum=15, max_wait=180, typical=15)
"""Mirako's image guide asks every 5 s and stops after 180 s.

It names no duration. 15 s, three of its intervals and a twelfth of its limit, are a guess.
"""

AVATAR_PACE = Pace(first=10, interval=10, maximum=60, max_wait=3600, typical=720)
"""Mirako's avatar guide asks every 10 s and speaks of about 45 minutes; its sample's limit of 600 s is too short.

Elsewhere the guide speaks of 2 to 5 minutes. 12 minutes are as many times longer than that as they are shorter than 45.
"""

_JSON = "application/json"
_PICTURES = ("image",)
_TYPES = ("image/jpeg", "image/png")
_SEED_LIMIT = 1 << 31  # the vendor's API description types it as int32
_LABEL_LIMIT = 64
_NAME_LIMIT = 200
_BEST_BYTES = 1 << 20
_BEST_SIDE = 1024
_PORTRAIT_SIDE = 512
_PORTRAIT_BYTES = 10 * 1024 * 1024
_PORTRAIT_RATIOS = (16 / 9, 1.0)
_RATIO_TOLERANCE = 0.02

# The image guide spells CANCELED; with two Ls it is as likely in a backend. Older guides said "succeeded".
_TASK_STATES = {
    "IN_QUEUE": JobStatus.QUEUED,
    "IN_PROGRESS": JobStatus.RUNNING,
    "COMPLETED": JobStatus.SUCCEEDED,
    "SUCCEEDED": JobStatus.SUCCEEDED,
    "FAILED": JobStatus.FAILED,
    "CANCELED": JobStatus.CANCELLED,
    "CANCELLED": JobStatus.CANCELLED,
    "TIMED_OUT": JobStatus.EXPIRED,
}
_GOING_ON = {word: Report(status=_TASK_STATES[word], word=word) for word in ("IN_QUEUE", "IN_PROGRESS")}
_AVATAR_STATES = {
    "PENDING": JobStatus.QUEUED,
    "BUILDING": JobStatus.RUNNING,
    "READY": JobStatus.SUCCEEDED,
    "ERROR": JobStatus.FAILED,
}


class _Image(msgspec.Struct, omit_defaults=True):
    data: msgspec.Raw
    label: str | msgspec.UnsetType = msgspec.UNSET


class _Webhook(msgspec.Struct, omit_defaults=True):
    url: str
    auth_token: str | msgspec.UnsetType = msgspec.UNSET


class _Generate(msgspec.Struct, omit_defaults=True):
    prompt: str
    aspect_ratio: str
    seed: int | msgspec.UnsetType = msgspec.UNSET
    images: list[_Image] | msgspec.UnsetType = msgspec.UNSET
    webhook: _Webhook | msgspec.UnsetType = msgspec.UNSET


class _Build(msgspec.Struct):
    name: str
    image: msgspec.Raw


def credential(key: str) -> tuple[str, str]:
    """Return name and value of the header that carries the key.

    Raises:
        ConfigurationError: the key cannot travel in a header.
    """
    return "Authorization", f"Bearer {key_text(key, provider=NAME)}"


# -- pictures ----------------------------------------------------------------------------------------------------------


def generate_call(prompt: str, *, aspect_ratio: str, seed: int | None, images: Sequence[Picture]) -> Call:
    """Return the blocking request, which answers with the picture itself.

    Args:
        prompt: what to draw, not blank; sent as it is. An avatar is drawn by writing its id into the prompt, a
            labelled picture is meant by `[label]`.
        aspect_ratio: one of `ASPECT_RATIOS`; always sent, the vendor's API description requires it.
        seed: -2147483648 to 2147483647; 0 is a seed like any other. None leaves it out.
        images: at most 5 JPEG or PNG pictures as bytes, best under 1 MiB and within 1024 x 1024 pixels (larger ones
            warn); a label has 1 to 64 characters.

    Raises:
        InputError: an argument Mirako's image guide does not allow.
    """
    body = _generate(prompt, aspect_ratio, seed, images)
    return Call(
        method="POST",
        private=(prompt,),
        path="/v1/image/generate",
        body=encode(body),
        content_type=_JSON,
        max_reply_bytes=PICTURE_LIMIT,
        picture_fields=_PICTURES,
    )


def submit_call(
    prompt: str,
    *,
    aspect_ratio: str,
    seed: int | None,
    images: Sequence[Picture],
    webhook: tuple[str, str | None] | None,
) -> Call:
    """Return the request that is answered with a task id.

    Args:
        prompt: as for `generate_call`.
        aspect_ratio: as for `generate_call`.
        seed: as for `generate_call`.
        images: as for `generate_call`.
        webhook: address and, optionally, the token that Mirako sends back as `Authorization: Bearer`. The image
            guide only hints at webhooks, the field is from the vendor's API description. None leaves it out.

    Raises:
        InputError: an argument Mirako's image guide does not allow.
    """
    body = _generate(prompt, aspect_ratio, seed, images)
    secrets: tuple[str, ...] = ()
    if webhook is not None:
        body.webhook = _webhook(webhook)
        secrets = callback_secrets(*webhook)
    # An id needs no room for a picture. But a task may be finished when it is announced, and an answer
    # that is cut off would leave a paid task unknown.
    return Call(
        method="POST",
        private=(prompt, *secrets),
        callback=secrets,
        path="/v1/image/async_generate",
        body=encode(body),
        content_type=_JSON,
        max_reply_bytes=PICTURE_LIMIT,
        picture_fields=_PICTURES,
    )


def status_call(job_id: str) -> Call:
    """Return the request for the state of a task.

    Raises:
        InputError: `job_id` is not what a task id looks like.
    """
    path = f"/v1/image/async_generate/{passed_id('job_id', job_id, provider=NAME)}/status"
    return Call(method="GET", path=path, max_reply_bytes=PICTURE_LIMIT, picture_fields=_PICTURES)


def read_generated(reply: Reply) -> Report:
    """Read the blocking answer; the picture is a JPEG as base64.

    Raises:
        APIError: Mirako refused or failed.
        ResponseError: a success without a usable picture.
    """
    answer, data = _opened(reply)
    pieces = _pieces(data, reply)
    if not pieces:
        reason = _reason(plain(data, without=("image",))) or _missing(data)
        raise ResponseError(f"{NAME} answered without a usable picture: {reason}", provider=NAME)
    return Report(status=JobStatus.SUCCEEDED, pieces=pieces, raw=_raw(answer, data))


def read_submitted(reply: Reply) -> Submitted:
    """Read the answer to `submit_call`: the task id, and the state where one comes along.

    Raises:
        APIError: Mirako refused.
        ResponseError: there is no usable task id.
    """
    task = glimpse(reply, NAME)
    if task is not None and task.task_id and task.status in _GOING_ON:
        return Submitted(id=checked_id(task.task_id, NAME), report=_GOING_ON[task.status])
    answer, data = _opened(reply)
    task_id = checked_id(field(data, "task_id"), NAME)
    return Submitted(id=task_id, report=_task_report(answer, data, reply))


def read_status(reply: Reply) -> Report:
    """Read the state of a task. A word this version does not know gives status None, so the wait goes on.

    Raises:
        APIError: Mirako answered with an error; it says nothing about the task itself.
        ResponseError: there is no state in the answer.
    """
    task = glimpse(reply, NAME)
    if task is not None and task.status in _GOING_ON:
        return _GOING_ON[task.status]
    report = _task_report(*_opened(reply), reply)
    if report is None:
        raise ResponseError(f"{NAME} sent no task status", provider=NAME)
    return report


# -- avatars -----------------------------------------------------------------------------------------------------------


def avatar_call(name: str, portrait: Picture) -> Call:
    """Return the request that starts building an avatar; the portrait travels as plain base64, not as a data URL.

    Args:
        name: 1 to 200 characters.
        portrait: JPEG or PNG as bytes, at least 512 x 512 pixels, at most 10 MiB before encoding. Mirako's avatar
            guide asks for 16:9 or square; more than 2 % beside both warns.

    Raises:
        InputError: an argument Mirako's avatar guide does not allow.
    """
    title = short_text("name", name, provider=NAME, maximum=_NAME_LIMIT)
    data, facts = accepted("image", portrait, _TYPES, provider=NAME)
    _check_portrait(data, facts)
    body = encode(_Build(name=title, image=as_base64(data)))
    return Call(
        method="POST", path="/v1/avatar/async_build", body=body, content_type=_JSON, private=(name,), label=name
    )


def avatar_status_call(avatar_id: str) -> Call:
    """Return the request for one avatar, which also tells how its build goes.

    Raises:
        InputError: `avatar_id` is not what an avatar id looks like.
    """
    return Call(method="GET", path=f"/v1/avatar/{passed_id('avatar_id', avatar_id, provider=NAME)}")


def avatars_call() -> Call:
    """Return the request for all avatars of the account."""
    return Call(method="GET", path="/v1/avatar/list")


def read_avatar_submitted(reply: Reply) -> Submitted:
    """Read the answer to `avatar_call`.

    Raises:
        APIError: Mirako refused.
        ResponseError: there is no usable avatar id.
    """
    answer, data = _opened(reply)
    fields = plain(data)
    avatar_id = checked_id(fields.get("avatar_id"), NAME)
    word = text(fields.get("status"))
    return Submitted(id=avatar_id, report=_avatar_report(word, _raw(answer, data)) if word else None)


def read_avatar_status(reply: Reply) -> Report:
    """Read an avatar as the state of its build; `report.avatar` is set whatever the state.

    Raises:
        APIError: Mirako answered with an error; it says nothing about the build itself.
        ResponseError: there is no state in the answer.
    """
    answer, data = _opened(reply)
    return _avatar_report(_avatar(plain(data)).status, _raw(answer, data))


def read_avatar(reply: Reply) -> Avatar:
    """Read one avatar. Its `id` is empty where the answer has none, as in the avatar guide's own sample.

    Raises:
        APIError: Mirako answered with an error.
        ResponseError: the answer is no avatar.
    """
    return _avatar(plain(_opened(reply)[1]))


def read_avatars(reply: Reply) -> tuple[Avatar, ...]:
    """Read the avatars of the account; `null` is none, and an entry without id or state is left out.

    Raises:
        APIError: Mirako answered with an error.
        ResponseError: the answer is no list.
    """
    answer = accepted_fields(reply, NAME)
    if "data" not in answer:
        raise ResponseError(f"{NAME} sent no list of avatars", provider=NAME)
    entries = decode(answer["data"], object, provider=NAME)
    if entries is not None and not is_array(entries):
        raise ResponseError(f"{NAME} sent something else than a list of avatars", provider=NAME)
    listed = (fields_of(entry) for entry in items_of(entries))
    return tuple(_avatar(entry) for entry in listed if text(entry.get("id")) and text(entry.get("status")))


# -- requests, in parts ------------------------------------------------------------------------------------------------


def _generate(prompt: str, aspect_ratio: str, seed: int | None, images: Sequence[Picture]) -> _Generate:
    body = _Generate(
        prompt=prompt_text(prompt, provider=NAME),
        aspect_ratio=choice("aspect_ratio", aspect_ratio, ASPECT_RATIOS, provider=NAME),
    )
    if seed is not None:
        body.seed = whole_number("seed", seed, -_SEED_LIMIT, _SEED_LIMIT - 1, provider=NAME)
    if at_most("images", images, MAX_IMAGES, provider=NAME):
        body.images = [_image(f"images[{index}]", picture) for index, picture in enumerate(images)]
    return body


def _image(name: str, picture: Picture) -> _Image:
    data, facts = accepted(name, picture, _TYPES, provider=NAME)
    if len(data) > _BEST_BYTES or max(facts.width or 0, facts.height or 0) > _BEST_SIDE:
        warn(f"{name} is best under 1 MiB and within 1024 x 1024 pixels; got {len(data)} bytes, {_size(facts)}")
    image = _Image(data=as_data_url(data, facts.mime_type))
    if picture.label is not None:
        image.label = short_text(f"{name}.label", picture.label, provider=NAME, maximum=_LABEL_LIMIT)
    return image


def _webhook(pair: tuple[str, str | None]) -> _Webhook:
    if not isinstance(pair, tuple) or len(pair) != 2:  # noqa: PLR2004 - address and token
        got = f"a {type(pair).__name__}"
        raise refused("webhook", "a pair of an address and a token or None", got, NAME)
    url, token = pair
    webhook = _Webhook(url=web_address("webhook url", url, provider=NAME))
    if token is not None:
        webhook.auth_token = short_text("webhook token", token, provider=NAME, maximum=1024, secret=True)
    return webhook


def _check_portrait(data: bytes, facts: Facts) -> None:
    if len(data) > _PORTRAIT_BYTES:
        raise refused("image", f"at most {_PORTRAIT_BYTES} bytes", f"{len(data)} bytes", NAME)
    if facts.width is None or facts.height is None or min(facts.width, facts.height) < _PORTRAIT_SIDE:
        raise refused("image", f"at least {_PORTRAIT_SIDE} x {_PORTRAIT_SIDE} pixels", _size(facts), NAME)
    ratio = facts.width / facts.height
    if all(abs(ratio / ideal - 1) > _RATIO_TOLERANCE for ideal in _PORTRAIT_RATIOS):
        warn(f"image is best 16:9 or square; got {_size(facts)}")


def _size(facts: Facts) -> str:
    return f"{facts.width} x {facts.height} pixels" if facts.width and facts.height else "a size its header hides"


# -- answers, in parts -------------------------------------------------------------------------------------------------


def _opened(reply: Reply) -> tuple[Fields, Fields]:
    """Return the answer and its `data`, both with undecoded fields."""
    answer = accepted_fields(reply, NAME)
    return answer, inner(answer, "data", provider=NAME)


def _raw(answer: Fields, data: Fields) -> dict[str, Any]:
    return {**plain(answer, without=("data",)), "data": plain(data, without=("image",))}


def _pieces(data: Fields, reply: Reply) -> tuple[Piece, ...]:
    found = picture_bytes(data.get("image"), reply.pictures)
    return (Piece(data=found),) if found is not None else ()


def _missing(data: Fields) -> str:
    return "data.image is no picture" if "image" in data else "data.image is missing"


def _reason(fields: dict[str, Any]) -> str | None:
    """Return `data.error`, which the vendor's page on tasks shows and the image guide does not mention."""
    error = fields.get("error")
    if error is None:
        return None
    said = text(error) or text(fields_of(error).get("message"))
    return one_line(said) or None if said else None


def job_state(word: str) -> JobStatus | None:
    """Return the state of a task that a word stands for, None for one this version does not know."""
    return _TASK_STATES.get(word.strip().upper())


def _task_report(answer: Fields, data: Fields, reply: Reply) -> Report | None:
    word = text(field(data, "status"))
    if word is None:
        return None
    status = job_state(word)
    if status is None or not status.terminal:
        return Report(status=status, word=word)
    raw = _raw(answer, data)
    reason = _reason(raw["data"])
    pieces = _pieces(data, reply) if status is JobStatus.SUCCEEDED else ()
    if status is JobStatus.SUCCEEDED and not pieces:
        reason = reason or _missing(data)
    return Report(status=status, word=word, pieces=pieces, reason=reason, raw=raw)


def _avatar(fields: dict[str, Any]) -> Avatar:
    word = text(fields.get("status"))
    if word is None:
        raise ResponseError(f"{NAME} sent no avatar status", provider=NAME)
    known = word.strip().upper()
    return Avatar(
        id=text(fields.get("id")) or text(fields.get("avatar_id")) or "",
        name=text(fields.get("name")) or "",
        status=AvatarStatus(known) if known in _AVATAR_STATES else word,
        created_at=moment(fields.get("created_at")),
        themes=tuple(theme for theme in map(fields_of, items_of(fields.get("themes"))) if theme),
    )


def _avatar_report(word: str, raw: dict[str, Any]) -> Report:
    return Report(
        status=_AVATAR_STATES.get(word.strip().upper()),
        word=word,
        avatar=_avatar(raw["data"]),
        reason=_reason(raw["data"]),
        raw=raw,
    )
