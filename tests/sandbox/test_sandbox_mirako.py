"""Mirako's pictures: tasks, the blocking request, references and refusals."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from calling import API_KEY, Caller, average, calling, data_url, encoded, opened

pytestmark = pytest.mark.anyio

CREATE = "/v1/image/async_generate"
GENERATE = "/v1/image/generate"
AUTH = {"Authorization": "Bearer sk-test"}


async def finished_picture(caller: Caller, **fields: Any) -> bytes:
    """Buy a picture by task and return its bytes."""
    created = await caller.post(CREATE, {"aspect_ratio": "1:1", **fields})
    caller.clock.advance(8)
    status = await caller.get(f"{CREATE}/{created.json['data']['task_id']}/status", AUTH)
    return base64.b64decode(status.json["data"]["image"])


async def test_a_task_is_queued_then_in_progress_then_completed() -> None:
    """A task spends the first quarter of its time queued and carries its picture only when it is completed."""
    async with calling(durations=8.0) as caller:
        created = await caller.post(CREATE, {"prompt": "hills", "aspect_ratio": "16:9"})
        assert created.status == 200
        assert created.json["data"]["status"] == "IN_QUEUE"
        path = f"{CREATE}/{created.json['data']['task_id']}/status"
        seen = []
        for step in (0, 1.9, 0.2, 5.8, 0.2):
            caller.clock.advance(step)
            data = (await caller.get(path, AUTH)).json["data"]
            seen.append((data["status"], "image" in data))
        assert seen == [
            ("IN_QUEUE", False),
            ("IN_QUEUE", False),
            ("IN_PROGRESS", False),
            ("IN_PROGRESS", False),
            ("COMPLETED", True),
        ]


@pytest.mark.parametrize(
    ("ratio", "size"),
    [
        ("16:9", (1024, 576)),
        ("1:1", (1024, 1024)),
        ("4:3", (1024, 768)),
        ("3:2", (1008, 672)),
        ("2:3", (672, 1008)),
        ("3:4", (768, 1024)),
        ("9:16", (576, 1024)),
    ],
)
async def test_the_blocking_request_answers_with_a_jpeg_of_the_ratio(ratio: str, size: tuple[int, int]) -> None:
    """Every documented ratio gives a base64 JPEG of exactly that shape."""
    async with calling(durations=0.0) as caller:
        reply = await caller.post(GENERATE, {"prompt": "hills", "aspect_ratio": ratio})
        image = opened(base64.b64decode(reply.json["data"]["image"]))
        assert (image.format, image.size) == ("JPEG", size)
        assert caller.sandbox.statistics().purchases == {"mirako": 1}


async def test_the_blocking_request_is_no_task() -> None:
    """A blocking purchase is listed as a job but its id is not a task anyone can ask about."""
    async with calling(durations=0.0) as caller:
        await caller.post(GENERATE, {"prompt": "hills"})
        (job_id,) = caller.sandbox.jobs
        assert caller.sandbox.jobs[job_id].status == "COMPLETED"
        assert (await caller.get(f"{CREATE}/{job_id}/status", AUTH)).status == 404


async def test_the_same_prompt_and_seed_give_the_same_bytes() -> None:
    """Bytes depend on prompt and seed alone, and another seed gives another picture."""
    async with calling() as caller:
        first = await finished_picture(caller, prompt="hills", seed=7)
        assert first == await finished_picture(caller, prompt="hills", seed=7)
        assert first != await finished_picture(caller, prompt="hills", seed=0)
        assert first != await finished_picture(caller, prompt="hills")


async def test_a_reference_picture_tints_the_result() -> None:
    """A red reference makes the picture redder than a blue one does, whatever its label."""
    async with calling() as caller:
        red = {"label": "mood", "data": data_url(encoded(colour="red"))}
        blue = {"data": data_url(encoded(colour="blue", kind="JPEG"), "image/jpeg")}
        reddish = average(await finished_picture(caller, prompt="hills in [mood]", images=[red]))
        bluish = average(await finished_picture(caller, prompt="hills in [mood]", images=[blue]))
        assert reddish[0] > bluish[0] + 20
        assert bluish[2] > reddish[2] + 20


async def test_lenient_mode_takes_the_documented_cut_short_data_url() -> None:
    """The document's own truncated base64 is accepted as it stands."""
    async with calling() as caller:
        images = [{"label": "tshirt", "data": "data:image/jpeg;base64,/9j/4AAQSkZJRg..."}]
        assert (await caller.post(CREATE, {"prompt": "a [tshirt]", "images": images})).status == 200


async def test_lenient_mode_reads_null_as_absent_and_ignores_unknown_fields() -> None:
    """Fields that are null or unknown do no harm in lenient mode, and the ratio defaults to 16:9."""
    async with calling(durations=0.0) as caller:
        reply = await caller.post(GENERATE, {"prompt": "hills", "seed": None, "images": None, "mood": 3})
        assert opened(base64.b64decode(reply.json["data"]["image"])).size == (1024, 576)


LONG = "x" * 100
REFUSED_ALWAYS: list[tuple[Any, int, str]] = [
    ({"aspect_ratio": "1:1"}, 400, "'prompt' field is required"),
    ({"prompt": 5}, 400, "prompt must be text"),
    ({"prompt": " "}, 422, "prompt must not be empty"),
    ({"prompt": "p", "aspect_ratio": 5}, 400, "aspect_ratio must be one of 16:9"),
    ({"prompt": "p", "aspect_ratio": []}, 400, "aspect_ratio must be one of 16:9"),
    ({"prompt": "p", "aspect_ratio": "21:9"}, 422, "aspect_ratio must be one of 16:9"),
    ({"prompt": "p", "aspect_ratio": LONG}, 422, "xxx..."),
    ({"prompt": "p", "seed": True}, 400, "seed must be a whole number"),
    ({"prompt": "p", "seed": 10**30}, 422, "seed must be"),
    ({"prompt": "p", "seed": -(10**30)}, 422, "seed must be"),
    ({"prompt": "p", "seed": "1"}, 400, "seed must be a whole number"),
    ({"prompt": "p", "images": "no"}, 400, "images must be a list"),
    ({"prompt": "p", "images": [{"data": "x"}] * 6}, 422, "images must have at most 5 items"),
    ({"prompt": "p", "images": ["no"]}, 400, r"images[0] must be an object"),
    ({"prompt": "p", "images": [{"label": "a"}]}, 400, "'images[0].data' field is required"),
    ({"prompt": "p", "images": [{"data": 5}]}, 400, r"images[0].data must be text"),
    ({"prompt": "p", "images": [{"data": "AAAA"}]}, 422, "must be a base64 data URL"),
    ({"prompt": "p", "images": [{"data": "data:image/gif;base64,AAAA"}]}, 422, "must be one of image/jpeg"),
    ({"prompt": "p", "webhook": "no"}, 400, "webhook must be an object"),
    ({"prompt": "p", "webhook": {"url": "ftp://x"}}, 422, "webhook.url must be an http"),
    (["no object"], 400, "JSON object"),
]


@pytest.mark.parametrize(("fields", "status", "message"), REFUSED_ALWAYS)
async def test_a_broken_rule_is_refused_as_a_problem_document(fields: Any, status: int, message: str) -> None:
    """Wrong types are 400 and broken rules 422, both as application/problem+json that names field and value."""
    async with calling() as caller:
        reply = await caller.post(CREATE, fields)
        assert reply.status == status
        assert reply.headers["Content-Type"] == "application/problem+json"
        assert reply.json["status"] == status
        assert message in reply.json["detail"]
        assert reply.json["errors"][0]["location"].startswith("body")
        assert caller.sandbox.statistics().purchases == {}


GIF_CALLED_PNG = data_url(encoded(kind="GIF"))
REFUSED_STRICTLY: list[tuple[dict[str, Any], str]] = [
    ({"prompt": "p"}, "'aspect_ratio' field is required but was not provided"),
    ({"prompt": "p", "aspect_ratio": None}, "'aspect_ratio' field is required and must not be null"),
    ({"prompt": "p", "aspect_ratio": "1:1", "seed": None}, "seed must be left out rather than null"),
    ({"prompt": "p", "aspect_ratio": "1:1", "seed": 2**31}, "seed must be -2147483648 to 2147483647"),
    ({"prompt": "p", "aspect_ratio": "1:1", "mood": 1}, "mood is not a documented field"),
    ({"prompt": "p", "aspect_ratio": "1:1", LONG: 1}, "x" * 80 + "... is not a documented field"),
    ({"prompt": "p", "aspect_ratio": "1:1", "images": [{"data": GIF_CALLED_PNG}]}, "declared type image/png"),
    ({"prompt": "p", "aspect_ratio": "1:1", "images": [{"data": "data:image/png;base64,A..."}]}, "declared type"),
]


@pytest.mark.parametrize(("fields", "message"), REFUSED_STRICTLY)
async def test_strict_mode_names_the_rule(fields: dict[str, Any], message: str) -> None:
    """Strict mode enforces what lenient mode lets pass, and says which rule it was."""
    async with calling(strict=True) as caller:
        reply = await caller.post(CREATE, fields)
        assert reply.status in {400, 422}
        assert message in reply.json["detail"]
    async with calling() as caller:
        assert (await caller.post(CREATE, fields)).status == 200


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"images": [{"label": "a"}]}, "images[0].data"),
        ({"images": [{"data": data_url(encoded())}, {"data": "no"}]}, "images[1].data"),
        ({"images": [{"data": data_url(encoded()), "z": 1}]}, "images[0].z"),
        ({"images": [{"data": data_url(encoded()), "label": 5}]}, "images[0].label"),
        ({"webhook": {}}, "webhook.url"),
        ({"webhook": {"url": "http://"}}, "webhook.url"),
        ({"webhook": {"url": "http://localhost/hook", "auth_token": 5}}, "webhook.auth_token"),
        ({"webhook": {"url": "http://localhost/hook", "z": 1}}, "webhook.z"),
    ],
)
async def test_a_refusal_names_the_whole_way_to_a_field(fields: dict[str, Any], place: str) -> None:
    """A field inside a list or an object is named from the outside in, in the location and in the text."""
    async with calling(strict=True) as caller:
        reply = await caller.post(CREATE, {"prompt": "p", "aspect_ratio": "1:1", **fields})
        (error,) = reply.json["errors"]
        assert error["location"] == f"body.{place}"
        assert place in reply.json["detail"]


async def test_strict_mode_takes_a_request_that_follows_every_rule() -> None:
    """All documented fields together pass strict mode; a webhook passes on tasks only."""
    async with calling(durations=0.0, strict=True) as caller:
        fields: dict[str, Any] = {"prompt": "p", "aspect_ratio": "1:1", "seed": 0}
        fields["images"] = [{"label": "a", "data": data_url(encoded())}]
        assert (await caller.post(GENERATE, fields)).status == 200
        fields["webhook"] = {"url": "http://localhost/hook", "auth_token": "t"}
        assert (await caller.post(CREATE, fields)).status == 200
        assert "webhook is not a documented field" in (await caller.post(GENERATE, fields)).json["detail"]
        del fields["webhook"]["auth_token"]
        assert (await caller.post(CREATE, fields)).status == 200


async def test_strict_mode_wants_the_json_content_type() -> None:
    """JSON under another content type is taken in lenient mode only."""
    body, headers = b'{"prompt": "p", "aspect_ratio": "1:1"}', {**AUTH, "Content-Type": "text/plain"}
    async with calling() as caller:
        assert (await caller.post(CREATE, data=body, headers=headers)).status == 200
    async with calling(strict=True) as caller:
        assert "Content-Type" in (await caller.post(CREATE, data=body, headers=headers)).json["detail"]


async def test_mirako_refuses_without_its_own_key() -> None:
    """A missing or empty bearer key, or another provider's header, is 401 as a problem document."""
    async with calling() as caller:
        for headers in ({}, {"Authorization": "Bearer "}, {"Authorization": "Basic abc"}, API_KEY):
            reply = await caller.post(CREATE, {"prompt": "p"}, headers)
            assert reply.status == 401
            assert reply.json["title"] == "Unauthorized"
            assert reply.json["errors"] is None
        assert [seen.authorized for seen in caller.sandbox.requests] == [False] * 4


async def test_an_unknown_task_is_not_found() -> None:
    """Asking for a task that does not exist is 404 as a problem document."""
    async with calling() as caller:
        reply = await caller.get(f"{CREATE}/nowhere/status", AUTH)
        assert (reply.status, reply.json["title"]) == (404, "Not Found")
        assert [(error["location"], error["value"]) for error in reply.json["errors"]] == [("path.task_id", "nowhere")]
