"""Miragic: pictures as jobs, with progress."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self, Unpack

from mirage_async.clients._base import ClientOptions, ProviderClient, SharedOptions
from mirage_async.clients._portable import one_of_two, only, ratio_of, refuse_unsupported, size_of, with_options
from mirage_async.exceptions import InputError
from mirage_async.models import Reference
from mirage_async.wire import miragic

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from mirage_async.clients._desk import Desk
    from mirage_async.jobs import Job, JobKind
    from mirage_async.models import Generation, ImageRequest
    from mirage_async.wire import Call, Report

__all__ = ["MiragicClient"]

USUAL_SIDE = 1024  # pixels; the long side of a picture asked for by aspect ratio


class MiragicClient(ProviderClient):
    """Client for Miragic. Key: `MIRAGIC_API_KEY`; other options: `ProviderClient`.

    Args:
        api_key: the key; None reads the environment.
        multipart: send form fields as multipart/form-data, as Miragic's curl and JavaScript samples do; False sends
            them urlencoded, as its Python sample does.
        options: as for `ProviderClient`.
    """

    provider = "miragic"
    key_variables = ("MIRAGIC_API_KEY",)
    codec = miragic
    readers = MappingProxyType({("image", False): miragic.read_submitted})

    def __init__(self, api_key: str | None = None, *, multipart: bool = True, **options: Unpack[ClientOptions]) -> None:
        super().__init__(api_key, **options)
        self._multipart = multipart

    _multipart = True  # for clients of a hub, which are made without the constructor

    def _make_kinds(self, desk: Desk) -> dict[str, JobKind[Any]]:
        self._images = desk.kind("image", miragic.PACE, self._look, desk.redeem)
        return {"image": self._images}

    def with_options(  # pyright: ignore[reportIncompatibleMethodOverride] - one option more than the base has
        self, *, api_key: str | None = None, multipart: bool | None = None, **options: Unpack[SharedOptions]
    ) -> Self:
        """Return a cheap copy with some options changed; see `ProviderClient.with_options`.

        Args:
            api_key: another key.
            multipart: another encoding of the form.
            options: as for `ProviderClient`.
        """
        twin = super().with_options(api_key=api_key, **options)
        if multipart is not None:
            twin._multipart = multipart  # noqa: SLF001 - a copy under construction
        return twin

    async def generate(
        self,
        prompt: str,
        *,
        model: str = "flux",
        width: int = 1024,
        height: int = 1024,
        image_url: str | None = None,
        callback_parameter: str | None = None,
        max_wait: float = miragic.PACE.max_wait,
        resend_uncertain: bool | None = None,
    ) -> Generation:
        """Draw one picture and wait for it; its link is short-lived, so the picture is read before this returns.

        Cancelling stops this wait; an accepted job is watched on and stays in `jobs`. Fetching the picture of a
        finished job may take up to a minute more than `max_wait`.

        Args:
            prompt: what to draw.
            model: "flux", "turbo", "gptimage" or "kontext".
            width: 256 to 2048 pixels. The picture may come back in another size.
            height: 256 to 2048 pixels.
            image_url: http(s) address of a picture to work from; only with the model "kontext".
            callback_parameter: name of the form field in which your account takes an address to call back; it is sent
                one of the hub's receiver. Miragic documents none, so None sends none.
            max_wait: seconds the job is watched, from now; at most 30 days.
            resend_uncertain: send again although it may have been bought; None takes the client's setting.

        Raises:
            InputError: an argument Miragic's reference does not allow; nothing was sent.
            APIError: Miragic refused.
            SubmissionUncertainError: no usable answer came; it may have been bought.
            ConnectionFailedError: nothing was sent.
            JobError: the job failed, or (`WaitTimeoutError`) was not finished in time and lives on.
        """
        call = self._call(prompt, model=model, width=width, height=height, image_url=image_url)
        key, call = self._desk.announced(call, callback_parameter)
        return await self._desk.generate_job(
            self._images,
            call,
            miragic.read_submitted,
            model=model,
            key=key,
            max_wait=max_wait,
            resend_uncertain=resend_uncertain,
        )

    async def submit(
        self,
        prompt: str,
        *,
        model: str = "flux",
        width: int = 1024,
        height: int = 1024,
        image_url: str | None = None,
        callback_parameter: str | None = None,
        max_wait: float = miragic.PACE.max_wait,
        resend_uncertain: bool | None = None,
    ) -> Job[Generation]:
        """Submit a picture as a job and return once Miragic has accepted it; arguments and errors as for `generate`."""
        call = self._call(prompt, model=model, width=width, height=height, image_url=image_url)
        key, call = self._desk.announced(call, callback_parameter)
        return await self._desk.submit_job(
            self._images,
            call,
            miragic.read_submitted,
            model=model,
            key=key,
            max_wait=max_wait,
            resend_uncertain=resend_uncertain,
        )

    def _call(
        self,
        prompt: str,
        *,
        model: str = "flux",
        width: int = USUAL_SIDE,
        height: int = USUAL_SIDE,
        image_url: str | None = None,
    ) -> Call:
        return miragic.generate_call(
            prompt, model=model, width=width, height=height, image_url=image_url, multipart=self._multipart
        )

    async def submit_request(self, request: ImageRequest) -> Job[Generation]:
        """Submit a portable request; raises as `submit` does."""
        return await self.submit(request.prompt, **_arguments(request))

    async def generate_request(self, request: ImageRequest) -> Generation:
        """Generate from a portable request; raises as `generate` does."""
        return await self.generate(request.prompt, **_arguments(request))

    async def check_request(self, request: ImageRequest) -> None:
        """Check a portable request; raises as `generate` does before it sends anything."""
        arguments = _arguments(request)
        fields = ("model", "width", "height", "image_url")
        self._call(request.prompt, **{name: arguments[name] for name in fields if name in arguments})

    def _look(self, job: Job[Generation]) -> Awaitable[Report]:
        return self._desk.ask_about(job, miragic.status_call(job.id or ""), miragic.read_status)


def _arguments(request: ImageRequest) -> dict[str, Any]:
    """Translate portable parameters; Miragic takes any width and height, so ratios are honoured to the pixel."""
    one_of_two(request, "miragic")
    refuse_unsupported(request, "miragic", {"seed": "its reference documents none"})
    only("n", request.n, (None, 1), provider="miragic", hint=": submit several requests")
    arguments: dict[str, Any] = {}
    if request.model is not None:
        arguments["model"] = request.model
    if request.size is not None:
        arguments["width"], arguments["height"] = size_of(request.size, "miragic")
    if request.aspect_ratio is not None:
        arguments["width"], arguments["height"] = _pixels(request.aspect_ratio)
    if request.references:
        arguments["image_url"] = _link(request.references)
    return with_options(
        request, arguments, ("width", "height", "image_url", "callback_parameter", "resend_uncertain"), "miragic"
    )


def _pixels(text: str) -> tuple[int, int]:
    """Return the size of exactly this ratio whose long side is nearest to the usual one, within Miragic's range."""
    width, height = ratio_of(text, "miragic")
    divisor = math.gcd(width, height)
    width, height = width // divisor, height // divisor
    steps = range(math.ceil(miragic.MIN_SIDE / min(width, height)), miragic.MAX_SIDE // max(width, height) + 1)
    if not steps:
        msg = (
            f"aspect_ratio must have an exact size between {miragic.MIN_SIDE} and {miragic.MAX_SIDE} pixels a side "
            f"at miragic, at most 8:1 or 1:8; got {text!r}"
        )
        raise InputError(msg, provider="miragic")
    step = min(steps, key=lambda step: abs(step * max(width, height) - USUAL_SIDE))
    return width * step, height * step


def _link(references: Sequence[Any]) -> str:
    first = references[0].data if isinstance(references[0], Reference) else references[0]
    if len(references) > 1 or not isinstance(first, str) or not first.startswith(("http://", "https://")):
        msg = (
            "references must be one http(s) URL at miragic, with model 'kontext'; "
            f"got {len(references)} of type {type(first).__name__}"
        )
        raise InputError(msg, provider="miragic")
    return first
