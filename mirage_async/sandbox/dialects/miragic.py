"""Miragic: form posts, jobs with progress, links that expire."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from mirage_async.sandbox.answers import Answer, RefusalError, json_answer
from mirage_async.sandbox.dialects.downloads import download
from mirage_async.sandbox.dialects.fields import Fields
from mirage_async.sandbox.dialects.provider import Call, Operation, Provider, api_key_header
from mirage_async.sandbox.dialects.references import read_link
from mirage_async.sandbox.drawing.pictures import Picture
from mirage_async.sandbox.faults.catalogue import shortened
from mirage_async.sandbox.faults.flaws import ANSWER_FLAWS, JOB_FLAWS, LINK_FLAWS
from mirage_async.sandbox.honesty import documented, invented, observed
from mirage_async.sandbox.identifiers import Identifiers
from mirage_async.sandbox.jobs import Job, Words

if TYPE_CHECKING:
    from mirage_async.sandbox.honesty import Behaviour
    from mirage_async.sandbox.world import World

__all__ = ["PROVIDER"]

_NAME = "miragic"
_WORDS = Words("PENDING", "PENDING", "COMPLETED")
_MODELS = ("flux", "turbo", "gptimage", "kontext")
_LEAST_PIXELS = 256
_MOST_PIXELS = 2048
_LINK_PATH = "/uploads/image-generation/processed/{user_id}/{file_name}.jpg"
_CODES = {
    400: "VALIDATION_ERROR",
    401: "INVALID_API_KEY",
    402: "INSUFFICIENT_CREDITS",
    403: "FORBIDDEN",
    404: "NOT_FOUND",
    429: "RATE_LIMIT_EXCEEDED",
}


async def _create(world: World, call: Call) -> Answer:
    """Start one picture and answer with its job id."""
    fields = _read_fields(world, call)
    fields.only("prompt", "model", "width", "height", "image_url")
    prompt = fields.text("prompt")
    model = fields.choice("model", _MODELS)
    width = fields.integer("width", _LEAST_PIXELS, _MOST_PIXELS, from_text=True)
    height = fields.integer("height", _LEAST_PIXELS, _MOST_PIXELS, from_text=True)
    image_url = _read_image_url(fields, model)
    picture = Picture(
        prompt=shortened(prompt),
        seed=world.picture_seed(prompt),
        width=width,
        height=height,
        format="JPEG",
        tints=await world.gallery.tints([image_url.encode()] if image_url else ()),
    )
    notes = {"model": model, "image_url": image_url, "user_id": _user_id(world)}
    job_id = world.identifiers.uuid("miragic.create")
    world.start(
        _NAME, "image", job_id, call, prompt=prompt, model=model, words=_WORDS, pictures=(picture,), notes=notes
    )
    world.charge(_NAME)
    return json_answer(
        {
            "success": True,
            "data": {"jobId": job_id, "status": _WORDS.queued},
            "message": "Image generation job created successfully",
        }
    )


async def _status(world: World, call: Call) -> Answer:
    """Tell where a job stands; a finished one gets a fresh link every time."""
    job_id = call.path_values["job_id"]
    job = world.jobs.find(_NAME, "image", job_id)
    if job is None:
        raise RefusalError(404, f"No job {job_id!r}.", code="JOB_NOT_FOUND")
    sight = world.look_at(job, call)
    data = _describe(job)
    data["status"] = sight.word
    if sight.has_result:
        link = None if "no-image" in sight.flaws else _issue_link(world, job, sight.flaws)
        data |= {"imageUrl": link, "processedImageUrl": link, "creditsUsed": 1}
    elif sight.station.is_bad_end:
        data["errorMessage"] = job.reason
    else:
        data["progress"] = sight.progress
    if job.end is not None:
        took = job.ended_at - job.started_at
        data["metadata"]["processingTimeMs"] = round(took * 1000)
        data["updatedAt"] = _timestamp(job.created_at + took)
    return json_answer({"success": True, "data": data})


async def _download(world: World, call: Call) -> Answer:
    """Return the picture the path names, to whoever has the whole link."""
    if call.path_values["user_id"] != _user_id(world):
        raise RefusalError(404, "No such picture.")
    return await download(world, call)


def _user_id(world: World) -> str:
    return Identifiers(world.seed).uuid("account")


def _read_fields(world: World, call: Call) -> Fields:
    """Return the form's fields. JSON is not documented and taken in lenient mode only."""
    if call.body.kind not in (("form",) if world.strict else ("form", "json")):
        raise RefusalError(400, "The body must be multipart/form-data or application/x-www-form-urlencoded.")
    return Fields(call.body.fields, strict=world.strict)


def _read_image_url(fields: Fields, model: str) -> str:
    """Return the reference link or "". The document's examples send one with any model, against its own rule."""
    if not fields.has("image_url") or not str(fields.require("image_url")):
        return ""
    url = read_link(fields, "image_url", fields.require("image_url"))
    if fields.strict and model != "kontext":
        raise fields.invalid("image_url", "is only available when model is kontext", model)
    return url


def _describe(job: Job) -> dict[str, Any]:
    """Return every field of the documented example, as it looks before the job is done."""
    picture = job.pictures[0]
    image_url = job.notes["image_url"]
    return {
        "id": job.id,
        "userId": job.notes["user_id"],
        "prompt": job.prompt,
        "parameters": {
            "safe": "false",
            "seed": "",
            "model": job.notes["model"],
            "width": str(picture.width),
            "height": str(picture.height),
            "nologo": "true",
            "prompt": job.prompt,
            "enhance": "false",
            "private": "false",
            "image_url": image_url,
            "uploaded_image_path": "",
        },
        "status": _WORDS.queued,
        "imageUrl": None,
        "processedImageUrl": None,
        "storagePath": None,
        "publicId": None,
        "metadata": {"has_input_image": bool(image_url), "uploaded_image_path": None},
        "resolution": None,
        "errorMessage": None,
        "creditsUsed": 0,
        "createdAt": _timestamp(job.created_at),
        "updatedAt": _timestamp(job.created_at),
    }


def _issue_link(world: World, job: Job, flaws: frozenset[str]) -> str:
    token = world.identifiers.uuid("miragic.link")
    world.links.add(token, job.pictures[0], job_id=job.id, lifetime=world.link_lifetime, flaws=flaws)
    return world.url + _LINK_PATH.format(user_id=job.notes["user_id"], file_name=token)


def _timestamp(seconds: float) -> str:
    # Rounded, since the format cuts digits off, and the last of them are noise.
    moment = datetime.fromtimestamp(round(seconds, 3), UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _refuse(refusal: RefusalError) -> Answer:
    code = refusal.code or _CODES.get(refusal.status, "INTERNAL_ERROR")
    body = {"success": False, "error": {"code": code, "message": refusal.message}}
    return json_answer(body, status=refusal.status)


_GUIDE = "Miragic docs: Image Generation API Reference"
_INTEGRATORS = "public integrations of Miragic's try-on API"

BEHAVIOURS: tuple[Behaviour, ...] = (
    *documented(
        _NAME,
        _GUIDE,
        "The key stands in the header X-API-Key, and a request without it is refused.",
        "miragic.create takes a form, multipart or urlencoded, and its numbers as text.",
        "miragic.create wants prompt, model, width and height; models are flux, turbo, gptimage and kontext.",
        "width and height are 256 to 2048 pixels.",
        "When the sandbox is strict, image_url goes with the model kontext alone.",
        "miragic.create answers with success, a message, and jobId and the status PENDING under data.",
        "miragic.status shows PENDING, COMPLETED or FAILED.",
        "miragic.status of a PENDING job has progress, 0 to 99.",
        "miragic.status of a COMPLETED job has the same link as imageUrl and processedImageUrl.",
        "miragic.status of a FAILED job has errorMessage.",
        "miragic.status has the fields of the documented example, the parameters all as text.",
        "createdAt and updatedAt are dates, as in the example, though the table speaks of a number.",
        "Links are temporary, and lead to a .jpg file below /uploads/image-generation/processed.",
        "creditsUsed is 1 for a COMPLETED job.",
        "Job ids are UUIDs.",
    ),
    *observed(
        _NAME,
        _INTEGRATORS,
        "A refusal has success false, and code and message under error.",
        "A missing key gets 401 and the code INVALID_API_KEY.",
        "A lack of credits gets 402 and the code INSUFFICIENT_CREDITS.",
    ),
    *invented(
        _NAME,
        "The other codes of refusals, such as VALIDATION_ERROR and JOB_NOT_FOUND, are named by the sandbox.",
        "Unless the sandbox is strict, miragic.create takes a JSON object, too, and image_url with any model.",
        "miragic.status gives out another link each time, and earlier ones go on working until they expire.",
        "miragic.download works for ten minutes after its link was given out, or as long as link_lifetime says.",
        "miragic.download through an expired link gets 410, and through one that never was 404.",
        "miragic.download of an hour after a link's end does not know the link any more.",
        "miragic.status repeats the first 4000 characters of a prompt, or a little less.",
        "The link to the upstream service, which the documented example has under metadata, is left out.",
    ),
)

PROVIDER = Provider(
    name=_NAME,
    operations=(
        Operation(
            name="miragic.create",
            method="POST",
            paths=("/api/v1/image/generate",),
            stage="submit",
            handle=_create,
            flaws=ANSWER_FLAWS | JOB_FLAWS | LINK_FLAWS | {"no-image"},
            leads_to=("miragic.status", "miragic.download"),
        ),
        Operation(
            name="miragic.status",
            method="GET",
            paths=("/api/v1/image/jobs/{job_id}",),
            stage="status",
            handle=_status,
            flaws=ANSWER_FLAWS | JOB_FLAWS | LINK_FLAWS | {"no-image"},
        ),
        Operation(
            name="miragic.download",
            method="GET",
            paths=(_LINK_PATH,),
            stage="picture",
            handle=_download,
            needs_key=False,
            flaws=ANSWER_FLAWS | LINK_FLAWS,
        ),
    ),
    find_key=api_key_header,
    refuse=_refuse,
    behaviours=BEHAVIOURS,
)
