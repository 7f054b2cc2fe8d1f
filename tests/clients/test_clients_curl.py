"""Every documented `curl` command, pasted into a shell."""

from __future__ import annotations

import ast
import json
from typing import TYPE_CHECKING, Any

import pytest
from documented import EXAMPLES, Ended, example, fetched, look, quoted, run_bash, shape

from mirage_async.sandbox import Sandbox

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio

MIRAGIC = ("miragic-create.curl", "miragic-create-from-image.curl")
MIRAGIC_STATUS = "miragic-status.curl"
MIRA = ("mira-generate.curl", "mira-generate-from-image.curl")
MILADY = {"milady-generate.curl": (1, (1024, 1024)), "milady-batch.curl": (4, (1024, 576))}
SAMPLE_JOB = "25331fb2-d0b0-44f6fcc85e3e"


def answer(ended: Ended) -> Any:
    """Return the JSON a command printed."""
    assert ended.code == 0, ended.stderr
    return json.loads(ended.stdout)


def test_every_documented_command_is_run_here() -> None:
    """A command added to the folder has to be tested, too."""
    assert {path.name for path in EXAMPLES.glob("*.curl")} == {*MIRAGIC, MIRAGIC_STATUS, *MIRA, *MILADY}


@pytest.mark.parametrize("name", MIRAGIC)
async def test_a_miragic_order_is_followed_to_its_picture(name: str, tmp_path: Path) -> None:
    """The answers look as documented, and the last one leads to a JPEG of the size the command asks for."""
    async with Sandbox(durations=0.0) as sandbox:
        created = answer(await run_bash(example(name, at=sandbox.url), tmp_path))
        assert shape(created) == shape(json.loads(quoted("miragic-create.answer.json")))
        assert created["data"]["status"] == "PENDING"
        (seen,) = sandbox.requests
        assert (seen.status, seen.headers["content-type"].partition(";")[0]) == (200, "multipart/form-data")
        assert (seen.fields["width"], seen.fields["height"]) == ("2048", "1024")
        assert ("image_url" in seen.fields) == ("from-image" in name)
        asking = example(MIRAGIC_STATUS, at=sandbox.url).replace(SAMPLE_JOB, created["data"]["jobId"])
        data = check_completed(answer(await run_bash(asking, tmp_path)))
        assert look(await fetched(data["processedImageUrl"])) == ("JPEG", (2048, 1024))
        assert sandbox.statistics().requests == {"miragic.create": 1, "miragic.status": 1, "miragic.download": 1}
        assert sandbox.statistics().purchases == {"miragic": 1}


def check_completed(told: Any) -> Any:
    """Compare a finished job with the documented one, and return its data.

    Of the metadata, the document shows how its own back end fared; a sandbox has a part of that only.
    """
    shown = ast.literal_eval(quoted("miragic-status.answer.py.txt"))
    assert told["data"]["status"] == shown["data"]["status"] == "COMPLETED"
    metadata = shape(told["data"].pop("metadata"))
    assert metadata.items() <= shape(shown["data"].pop("metadata")).items()
    assert shape(told) == shape(shown)
    return told["data"]


async def test_the_miragic_sample_job_is_unknown(tmp_path: Path) -> None:
    """The sample id belongs to nobody: 404 in Miragic's error shape."""
    async with Sandbox(durations=0.0) as sandbox:
        refused = answer(await run_bash(example(MIRAGIC_STATUS, at=sandbox.url), tmp_path))
        assert shape(refused) == {"success": "bool", "error": {"code": "str", "message": "str"}}
        assert (refused["success"], SAMPLE_JOB in refused["error"]["message"]) == (False, True)
        assert [(seen.operation, seen.status) for seen in sandbox.requests] == [("miragic.status", 404)]


@pytest.mark.parametrize("name", MIRA)
async def test_a_mira_request_is_answered_with_a_link(name: str, tmp_path: Path) -> None:
    """The key comes from the variable the command names; the picture is as large as it asks for."""
    async with Sandbox(durations=0.0) as sandbox:
        made = answer(await run_bash(example(name, at=sandbox.url), tmp_path, MIRA_API_KEY="sk-mira-test"))
        assert shape(made) == shape(json.loads(quoted("mira-generate.answer.json")))
        assert look(await fetched(made["data"][0]["url"])) == ("PNG", (1024, 1024))
        assert [seen.status for seen in sandbox.requests] == [200, 200]
        assert sandbox.statistics().purchases == {"mira": 1}


async def test_a_mira_request_without_the_variable_is_refused(tmp_path: Path) -> None:
    """No key is known to the child, so the command sends an empty one."""
    async with Sandbox(durations=0.0) as sandbox:
        refused = answer(await run_bash(example(MIRA[0], at=sandbox.url), tmp_path))
        assert shape(refused) == {"detail": "str"}
        assert [(seen.status, seen.authorized) for seen in sandbox.requests] == [(401, False)]
        assert sandbox.statistics().purchases == {}


@pytest.mark.parametrize("name", MILADY)
async def test_a_milady_request_is_answered_with_as_many_pictures_as_asked_for(name: str, tmp_path: Path) -> None:
    """One request, one purchase, and every entry says what its link leads to."""
    count, size = MILADY[name]
    async with Sandbox(durations=0.0) as sandbox:
        made = answer(await run_bash(example(name, at=sandbox.url), tmp_path))
        assert shape(made) == shape(json.loads(quoted("milady-generate.answer.json")))
        assert made["numImages"] == len(made["images"]) == count
        for entry in made["images"]:
            data = await fetched(entry["url"])
            assert (look(data), entry["mimeType"], entry["fileSize"]) == (("WEBP", size), "image/webp", len(data))
        assert sandbox.requests[0].status == 200
        assert sandbox.statistics().purchases == {"milady": 1}
