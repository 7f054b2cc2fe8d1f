"""What a competent programmer writes by hand for one generation with aiohttp: the floor that a library adds to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import aiohttp
import msgspec

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["RAW", "raw_session"]

_JSON = {"Content-Type": "application/json"}


def raw_session() -> aiohttp.ClientSession:
    """Return a session as one makes it for many requests at once, everything else by default."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), headers={"Authorization": "Bearer bench-key-not-secret"}
    )


class _MirakoTask(msgspec.Struct):
    task_id: str
    status: str
    image: bytes | None = None  # msgspec decodes base64 on the way


class _MirakoAnswer(msgspec.Struct):
    data: _MirakoTask


_mirako = msgspec.json.Decoder(_MirakoAnswer)


async def mirako(session: aiohttp.ClientSession, base: str, prompt: str) -> bytes:
    """Submit, look until it is finished, decode the picture."""
    body = msgspec.json.encode({"prompt": prompt, "aspect_ratio": "16:9"})
    async with session.post(f"{base}/v1/image/async_generate", data=body, headers=_JSON) as response:
        response.raise_for_status()
        task = _mirako.decode(await response.read()).data
    url = f"{base}/v1/image/async_generate/{task.task_id}/status"
    while task.status != "COMPLETED":
        async with session.get(url) as response:
            response.raise_for_status()
            task = _mirako.decode(await response.read()).data
    if task.image is None:
        msg = "a finished task without a picture"
        raise ValueError(msg)
    return task.image


class _MiragicJob(msgspec.Struct, rename="camel"):
    job_id: str
    status: str
    processed_image_url: str | None = None


class _MiragicAnswer(msgspec.Struct):
    data: _MiragicJob


_miragic = msgspec.json.Decoder(_MiragicAnswer)


async def miragic(session: aiohttp.ClientSession, base: str, prompt: str) -> bytes:
    """Submit a form, look until it is finished, fetch the picture."""
    form = aiohttp.FormData(default_to_multipart=True)
    for name, value in (("prompt", prompt), ("model", "flux"), ("width", "1024"), ("height", "1024")):
        form.add_field(name, value)
    async with session.post(f"{base}/api/v1/image/generate", data=form) as response:
        response.raise_for_status()
        job = _miragic.decode(await response.read()).data
    url = f"{base}/api/v1/image/jobs/{job.job_id}"
    while job.status != "COMPLETED":
        async with session.get(url) as response:
            response.raise_for_status()
            job = _miragic.decode(await response.read()).data
    async with session.get(job.processed_image_url or "") as response:
        response.raise_for_status()
        return await response.read()


class _Base64Picture(msgspec.Struct):
    b64_json: bytes


class _Pictures(msgspec.Struct):
    data: list[_Base64Picture]


_pictures = msgspec.json.Decoder(_Pictures)


async def openai(session: aiohttp.ClientSession, base: str, prompt: str) -> bytes:
    """Ask and get the picture in the answer."""
    body = msgspec.json.encode({"prompt": prompt, "model": "gpt-image-1"})
    async with session.post(f"{base}/v1/images/generations", data=body, headers=_JSON) as response:
        response.raise_for_status()
        return _pictures.decode(await response.read()).data[0].b64_json


class _FalRequest(msgspec.Struct):
    status_url: str
    response_url: str
    status: str


_fal = msgspec.json.Decoder(_FalRequest)


async def fal(session: aiohttp.ClientSession, base: str, prompt: str) -> object:
    """Submit, look until it is finished, fetch the result, which has a link."""
    body = msgspec.json.encode({"prompt": prompt})
    async with session.post(f"{base}/fal/fal-ai/any", data=body, headers=_JSON) as response:
        response.raise_for_status()
        request = _fal.decode(await response.read())
    while request.status != "COMPLETED":
        async with session.get(f"{request.status_url}?logs=false") as response:
            response.raise_for_status()
            request = _fal.decode(await response.read())
    async with session.get(request.response_url) as response:
        response.raise_for_status()
        return msgspec.json.decode(await response.read())


class _Prediction(msgspec.Struct):
    id: str
    status: str
    output: list[str] | None = None


_prediction = msgspec.json.Decoder(_Prediction)


async def replicate(session: aiohttp.ClientSession, base: str, prompt: str) -> object:
    """Submit and look until it is finished; the result is a link."""
    body = msgspec.json.encode({"input": {"prompt": prompt}})
    async with session.post(f"{base}/v1/models/owner/name/predictions", data=body, headers=_JSON) as response:
        response.raise_for_status()
        prediction = _prediction.decode(await response.read())
    url = f"{base}/v1/predictions/{prediction.id}"
    while prediction.status != "succeeded":
        async with session.get(url) as response:
            response.raise_for_status()
            prediction = _prediction.decode(await response.read())
    return prediction.output


class _Task(msgspec.Struct):
    id: str
    status: str = ""
    output: list[str] | None = None


_task = msgspec.json.Decoder(_Task)


async def runway(session: aiohttp.ClientSession, base: str, prompt: str) -> object:
    """Submit and look until it is finished; the result is a link."""
    body = msgspec.json.encode({"model": "gen4_image", "promptText": prompt, "ratio": "1920:1080"})
    async with session.post(f"{base}/v1/text_to_image", data=body, headers=_JSON) as response:
        response.raise_for_status()
        task = _task.decode(await response.read())
    url = f"{base}/v1/tasks/{task.id}"
    while task.status != "SUCCEEDED":
        async with session.get(url) as response:
            response.raise_for_status()
            task = _task.decode(await response.read())
    return task.output


RAW: dict[str, Callable[[aiohttp.ClientSession, str, str], Awaitable[object]]] = {
    "mirako": mirako,
    "miragic": miragic,
    "openai": openai,
    "fal": fal,
    "replicate": replicate,
    "runway": runway,
}
"""The exchanges by dialect."""
