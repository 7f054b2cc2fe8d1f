"""Every documented Python example that uses `requests`, run as a script."""

from __future__ import annotations

import ast
import base64
import json
from typing import TYPE_CHECKING

import pytest
from documented import EXAMPLES, example, fetched, look, quoted, run_python, save_picture, shape

from mirage_async.sandbox import Sandbox

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio

CREATE = ("miragic-create.py.txt", "miragic-create-from-image.py.txt")
POLL = ("miragic-poll.py.txt", "miragic-poll-from-image.py.txt")
STATUS = "miragic-status.py.txt"
IMAGE_ASYNC = "mirako-image-async.py.txt"
IMAGE_MONITOR = "mirako-image-monitor.py.txt"
IMAGE_SYNC = "mirako-image-sync.py.txt"
IMAGE_LABELED = "mirako-image-labeled.py.txt"
AVATAR = ("mirako-avatar-build.py.txt", "mirako-avatar-monitor.py.txt")
PORTRAIT = """\
import base64

import requests

with open("portrait.jpg", "rb") as file:
    image_data = base64.b64encode(file.read()).decode()
"""
"""What the guide leaves to its reader."""


def test_every_documented_requests_example_is_run_here() -> None:
    """An example added to the folder has to be tested, too."""
    ours = {*CREATE, *POLL, STATUS, IMAGE_ASYNC, IMAGE_MONITOR, IMAGE_SYNC, IMAGE_LABELED, *AVATAR}
    there = {path.name for path in EXAMPLES.glob("*.py.txt") if ".answer." not in path.name}
    assert there == {*ours, "mira-openai.py.txt"}


@pytest.mark.parametrize("name", CREATE)
async def test_a_miragic_order_sent_as_a_plain_form_is_accepted(name: str, tmp_path: Path) -> None:
    """`data=` without files is an urlencoded form, and as good as the multipart of the other examples."""
    async with Sandbox(durations=0.0) as sandbox:
        (line,) = await run_python(example(name, at=sandbox.url), tmp_path)
        assert shape(json.loads(line)) == shape(json.loads(quoted("miragic-create.answer.json")))
        assert list(sandbox.jobs) == [json.loads(line)["data"]["jobId"]]
        (seen,) = sandbox.requests
        assert (seen.status, seen.headers["content-type"]) == (200, "application/x-www-form-urlencoded")
        assert ("image_url" in seen.fields) == ("from-image" in name)
        assert sandbox.statistics().purchases == {"miragic": 1}


@pytest.mark.parametrize("name", POLL)
async def test_the_full_miragic_example_ends_with_the_picture(name: str, tmp_path: Path) -> None:
    """It prints the answer, the id and the result; a work that takes no time is done at the first look."""
    async with Sandbox(durations=0.0) as sandbox:
        created, told, result = await run_python(example(name, at=sandbox.url), tmp_path)
        assert told == f"Job ID: {json.loads(created)['data']['jobId']}"
        data = ast.literal_eval(result.removeprefix("Result: "))["data"]
        assert (data["status"], f"Job ID: {data['id']}") == ("COMPLETED", told)
        assert look(await fetched(data["processedImageUrl"])) == ("JPEG", (2048, 1024))
        assert sandbox.statistics().requests == {"miragic.create": 1, "miragic.status": 1, "miragic.download": 1}
        assert sandbox.statistics().purchases == {"miragic": 1}


async def test_the_miragic_status_example_prints_that_its_job_is_unknown(tmp_path: Path) -> None:
    """The sample id belongs to nobody, and the refusal is JSON, as the example takes for granted."""
    async with Sandbox(durations=0.0) as sandbox:
        code, told = await run_python(example(STATUS, at=sandbox.url), tmp_path)
        assert code == "Status Code: 404"
        refused = ast.literal_eval(told.removeprefix("Response: "))
        assert shape(refused) == {"success": "bool", "error": {"code": "str", "message": "str"}}
        assert sandbox.statistics().purchases == {}


async def test_the_mirako_guide_starts_a_picture_and_watches_it(tmp_path: Path) -> None:
    """Its first two examples make one script, which buys one picture and gets it at the first look."""
    async with Sandbox(durations=0.0) as sandbox:
        lines = await run_python(example(IMAGE_ASYNC, IMAGE_MONITOR, at=sandbox.url), tmp_path)
        (job,) = sandbox.jobs.values()
        assert lines == [
            "✅ Image generation started!",
            f"Task ID: {job.id}",
            "Status: COMPLETED",
            "🎉 Image generation completed!",
            "✅ Image generated successfully!",
        ]
        assert [(seen.operation, seen.status) for seen in sandbox.requests] == [
            ("mirako.create", 200),
            ("mirako.status", 200),
        ]
        assert sandbox.statistics().purchases == {"mirako": 1}


async def test_the_mirako_guide_saves_the_picture_of_a_blocking_request(tmp_path: Path) -> None:
    """generated_image.jpg is a square JPEG; the script starts the guide's first picture as well, so it buys two."""
    async with Sandbox(durations=0.0) as sandbox:
        lines = await run_python(example(IMAGE_ASYNC, IMAGE_SYNC, at=sandbox.url), tmp_path)
        assert lines[2:] == ["✅ Image generated successfully!", "Image saved to generated_image.jpg"]
        assert look((tmp_path / "generated_image.jpg").read_bytes()) == ("JPEG", (1024, 1024))
        assert [(seen.path, seen.status) for seen in sandbox.requests] == [
            ("/v1/image/async_generate", 200),
            ("/v1/image/generate", 200),
        ]
        assert sandbox.statistics().purchases == {"mirako": 2}


async def test_the_mirako_guide_sends_a_labeled_picture(tmp_path: Path) -> None:
    """The file arrives whole under its label, and the picture made with it has the ratio asked for."""
    save_picture(tmp_path / "tshirt_design.jpg", width=640, height=480)
    async with Sandbox(durations=0.0) as sandbox:
        lines = await run_python(example(IMAGE_ASYNC, IMAGE_LABELED, at=sandbox.url), tmp_path)
        assert lines[2:] == ["✅ Image generation started!"]
        first, second = sandbox.requests
        assert (first.status, second.status, "[tshirt]" in second.fields["prompt"]) == (200, 200, True)
        (image,) = second.fields["images"]
        head, _, payload = image["data"].partition(",")
        assert (image["label"], head) == ("tshirt", "data:image/jpeg;base64")
        assert base64.b64decode(payload) == (tmp_path / "tshirt_design.jpg").read_bytes()
        status = f"{sandbox.url}/v1/image/async_generate/{list(sandbox.jobs)[-1]}/status"
        data = json.loads(await fetched(status, Authorization="Bearer any"))["data"]
        assert look(base64.b64decode(data["image"])) == ("JPEG", (1024, 576))
        assert sandbox.statistics().purchases == {"mirako": 2}


async def test_the_mirako_guide_builds_an_avatar_and_watches_it(tmp_path: Path) -> None:
    """From a portrait of the least size allowed to READY, which is there at the first look."""
    save_picture(tmp_path / "portrait.jpg", width=512, height=512)
    async with Sandbox(durations=0.0) as sandbox:
        lines = await run_python(PORTRAIT + example(*AVATAR, at=sandbox.url), tmp_path)
        (avatar,) = sandbox.jobs.values()
        assert lines[:2] == ["✅ Avatar build started!", f"Avatar ID: {avatar.id}"]
        assert lines[2:5] == ["Avatar Status: READY", "🎉 Avatar is ready!", "Name: My Custom Avatar"]
        assert lines[6] == "Avatar built successfully!"
        assert lines[7].startswith("Themes available: ")
        assert [(seen.operation, seen.status) for seen in sandbox.requests] == [
            ("mirako.avatar_create", 200),
            ("mirako.avatar_status", 200),
        ]
        assert sandbox.statistics().purchases == {"mirako": 1}
