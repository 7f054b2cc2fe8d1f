"""Miragic: forms in, progress, links that expire."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest
from calling import API_KEY, BEARER, Caller, calling, opened

pytestmark = pytest.mark.anyio

CREATE = "/api/v1/image/generate"
FORM = {"prompt": "A beautiful sunset", "model": "flux", "width": "512", "height": "256"}


async def create(caller: Caller, **changes: str) -> str:
    """Start a job and return its id."""
    reply = await caller.post(CREATE, data={**FORM, **changes}, headers=API_KEY)
    assert reply.status == 200, reply.body
    assert reply.json["success"] is True
    return str(reply.json["data"]["jobId"])


async def status(caller: Caller, job_id: str) -> Any:
    """Return the job's data."""
    return (await caller.get(f"/api/v1/image/jobs/{job_id}", API_KEY)).json["data"]


async def test_a_job_is_pending_with_progress_then_completed() -> None:
    """Progress follows the clock from 0 to 99 while pending and is gone when the job is completed."""
    async with calling(durations=8.0) as caller:
        job_id = await create(caller)
        seen = []
        for step in (0, 4, 3.99, 0.01):
            caller.clock.advance(step)
            data = await status(caller, job_id)
            seen.append((data["status"], data.get("progress")))
        assert seen == [("PENDING", 0), ("PENDING", 50), ("PENDING", 99), ("COMPLETED", None)]


async def test_a_completed_job_has_every_documented_field() -> None:
    """The answer has the fields of the documented example, with text for parameters and ISO timestamps."""
    async with calling() as caller:
        job_id = await create(caller)
        caller.clock.advance(8)
        data = await status(caller, job_id)
        assert data["parameters"]["width"] == "512"
        assert data["creditsUsed"] == 1
        assert (data["createdAt"], data["updatedAt"]) == ("2023-11-14T22:30:00.000Z", "2023-11-14T22:30:08.000Z")
        assert data["metadata"]["processingTimeMs"] == 8000
        assert data["imageUrl"] == data["processedImageUrl"]
        assert {"userId", "storagePath", "publicId", "resolution", "errorMessage"} <= data.keys()


async def test_the_link_serves_a_jpeg_of_the_exact_size() -> None:
    """The result is as wide and high as asked, and needs no key."""
    async with calling() as caller:
        job_id = await create(caller, width="300", height="700")
        caller.clock.advance(8)
        reply = await caller.get((await status(caller, job_id))["processedImageUrl"])
        image = opened(reply.body)
        assert (image.format, image.size, reply.headers["Content-Type"]) == ("JPEG", (300, 700), "image/jpeg")
        assert [seen.authorized for seen in caller.sandbox.requests] == [True, True, False]


async def test_a_link_expires_and_the_job_gives_a_fresh_one() -> None:
    """After its lifetime a link is 410; a new status brings a new link to the same bytes."""
    async with calling(link_lifetime=5.0) as caller:
        job_id = await create(caller)
        caller.clock.advance(8)
        first = (await status(caller, job_id))["processedImageUrl"]
        before = await caller.get(first)
        caller.clock.advance(5)
        gone = await caller.get(first)
        assert (gone.status, gone.json["error"]["code"]) == (410, "EXPIRED")
        second = (await status(caller, job_id))["processedImageUrl"]
        assert second != first
        assert (await caller.get(second)).body == before.body
        assert (await caller.get(second + ".jpg")).status == 404


async def test_a_link_works_only_as_a_whole() -> None:
    """The name of a picture below somebody else's folder leads nowhere."""
    async with calling() as caller:
        job_id = await create(caller)
        caller.clock.advance(8)
        data = await status(caller, job_id)
        foreign = await caller.get(data["processedImageUrl"].replace(data["userId"], "25331fb2"))
        assert (foreign.status, foreign.json["error"]["code"]) == (404, "NOT_FOUND")
        assert (await caller.get(data["processedImageUrl"])).status == 200


async def test_multipart_and_lenient_json_are_understood() -> None:
    """The document's two form encodings work, and JSON does in lenient mode."""
    async with calling() as caller:
        writer = aiohttp.MultipartWriter("form-data")
        for name, value in {**FORM, "prompt": "Größe\r\nzwei"}.items():
            writer.append(value).set_content_disposition("form-data", name=name)
        reply = await caller.post(CREATE, data=writer, headers=API_KEY)
        assert reply.status == 200
        assert caller.sandbox.requests[-1].fields["prompt"] == "Größe\r\nzwei"
        assert (await caller.post(CREATE, {**FORM, "width": 512, "height": 512}, API_KEY)).status == 200


async def test_lenient_mode_takes_the_documented_reference_with_flux() -> None:
    """The document's image-to-image example sends image_url with flux; it is echoed and marks the job."""
    async with calling() as caller:
        job_id = await create(caller, image_url="https://example.com/a.jpg")
        data = await status(caller, job_id)
        assert data["parameters"]["image_url"] == "https://example.com/a.jpg"
        assert data["metadata"]["has_input_image"] is True
        assert (await status(caller, await create(caller, image_url="")))["metadata"]["has_input_image"] is False


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt": ""}, "prompt must not be empty"),
        ({"model": "dall-e"}, "model must be one of flux, turbo, gptimage, kontext (given: 'dall-e')"),
        ({"width": "255"}, "width must be 256 to 2048 (given: 255)"),
        ({"height": "2049"}, "height must be 256 to 2048"),
        ({"height": "-5"}, "height must be 256 to 2048 (given: -5)"),
        ({"height": "9" * 5000}, "height must be a whole number"),
        ({"height": "tall"}, "height must be a whole number"),
        ({"image_url": "file:///etc"}, "image_url must be an http or https URL"),
    ],
)
async def test_a_broken_rule_is_refused_in_miragics_shape(changes: dict[str, str], message: str) -> None:
    """Every broken rule is 400 with an error object of code and message."""
    async with calling() as caller:
        reply = await caller.post(CREATE, data={**FORM, **changes}, headers=API_KEY)
        assert reply.status == 400
        assert reply.json["success"] is False
        assert reply.json["error"]["code"] == "VALIDATION_ERROR"
        assert message in reply.json["error"]["message"]


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b"\xff", b'{"a":' * 10**5])
async def test_a_body_that_is_no_form_is_refused(body: bytes) -> None:
    """Neither nothing nor broken JSON counts as a form."""
    async with calling() as caller:
        reply = await caller.post(CREATE, data=body, headers=API_KEY)
        assert "multipart/form-data" in reply.json["error"]["message"]


async def test_a_multipart_body_without_fields_is_refused() -> None:
    """A multipart body that has no named part, or is none at all, cannot be read."""
    async with calling() as caller:
        headers = {**API_KEY, "Content-Type": "multipart/form-data; boundary=x"}
        for body in (b"nonsense", b"--x\r\nContent-Type: text/plain\r\n\r\nhello\r\n--x--\r\n"):
            assert (await caller.post(CREATE, data=body, headers=headers)).status == 400


async def test_strict_mode_names_miragics_rules() -> None:
    """Strict mode keeps image_url for kontext, wants a form, and knows no other fields."""
    async with calling(strict=True) as caller:
        link = {"image_url": "https://example.com/a.jpg"}
        reply = await caller.post(CREATE, data={**FORM, **link}, headers=API_KEY)
        assert "only available when model is kontext (given: 'flux')" in reply.json["error"]["message"]
        assert await create(caller, **link, model="kontext")
        assert (await caller.post(CREATE, FORM, API_KEY)).status == 400
        assert (await caller.post(CREATE, data={**FORM, "seed": "1"}, headers=API_KEY)).status == 400


async def test_miragic_refuses_without_its_own_key() -> None:
    """A missing X-API-Key, even beside a bearer key, is 401 with INVALID_API_KEY."""
    async with calling() as caller:
        reply = await caller.post(CREATE, data=FORM, headers=BEARER)
        assert (reply.status, reply.json["error"]["code"]) == (401, "INVALID_API_KEY")


async def test_an_unknown_job_is_not_found() -> None:
    """Asking for a job that does not exist is 404 in Miragic's shape."""
    async with calling() as caller:
        reply = await caller.get("/api/v1/image/jobs/25331fb2-d0b0-44f6fcc85e3e", API_KEY)
        assert (reply.status, reply.json["error"]["code"]) == (404, "JOB_NOT_FOUND")
