"""Milady: pictures in one blocking request, several at once, in a choice of styles."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from mirage_async.clients._blocking import BlockingClient
from mirage_async.clients._desk import BlockingOrder
from mirage_async.clients._inputs import load
from mirage_async.clients._portable import (
    listed_ratio,
    one_of_two,
    refuse_unsupported,
    with_options,
)
from mirage_async.exceptions import InputError
from mirage_async.wire import milady

if TYPE_CHECKING:
    from mirage_async.jobs import Job
    from mirage_async.models import Generation, ImageInput, ImageRequest

__all__ = ["MiladyClient"]


class MiladyClient(BlockingClient):
    """Client for Milady. Key: `MILADY_API_KEY`; other options: `ProviderClient`."""

    provider = "milady"
    key_variables = ("MILADY_API_KEY",)
    codec = milady
    readers = MappingProxyType({("image", True): milady.read_generated})
    max_images = milady.MAX_IMAGES
    documents_failure = True  # "500: generation failed"
    answer_timeout = 210.0  # its server gives itself 180 seconds

    async def generate(
        self,
        prompt: str,
        *,
        model: str | None = None,
        aspect_ratio: str | None = None,
        num_images: int | None = None,
        style_preset: str | None = None,
        source_image: ImageInput | None = None,
        callback_parameter: str | None = None,
        resend_uncertain: bool | None = None,
    ) -> Generation:
        """Draw pictures and wait for them, up to 210 seconds. What is None is left to Milady.

        Milady may deliver fewer pictures than asked for: compare `len(generation.images)` with
        `generation.requested`. Cancelling before the request has left buys nothing; afterwards the request goes on in
        the background and the job stays in `jobs`.

        Args:
            prompt: 1 to 4000 characters.
            model: such as "google/gemini-2.5-flash-image"; any name is sent. Some of Milady's servers draw with their
                default model where they do not know the name, without saying so.
            aspect_ratio: "1:1", "16:9", "9:16", "4:3", "3:4", "21:9" or "9:21"; a hint to the model, not a promise.
            num_images: 1 to 4.
            style_preset: such as "photographic" or "origami"; `mirage_async.wire.milady.STYLE_PRESETS` has all 13.
            source_image: a picture to work from; a link is not accepted. About 10 MB at most.
            callback_parameter: name of the field in which your account takes an address to call back; it is sent one of
                the hub's receiver. Milady documents none, so None sends none. The pictures come with the answer all
                the same: a delivery only tells of a purchase whose answer was lost.
            resend_uncertain: send again although it may have been bought; None takes the client's setting.

        Raises:
            InputError: an argument Milady's page does not allow; nothing was sent.
            InsufficientCreditsError: the account cannot pay; `.required` says what it would have cost.
            APIError: Milady refused or failed.
            SubmissionUncertainError: no usable answer came; it may have been bought.
            ConnectionFailedError: nothing was sent.
            WaitTimeoutError: no place under `Limits.jobs` became free within an hour; nothing was sent.
        """
        order = await self._order(
            prompt,
            model=model,
            aspect_ratio=aspect_ratio,
            num_images=num_images,
            style_preset=style_preset,
            source_image=source_image,
            callback_parameter=callback_parameter,
        )
        return await self._desk.generate_blocking(order, resend_uncertain=resend_uncertain)

    async def submit(
        self,
        prompt: str,
        *,
        model: str | None = None,
        aspect_ratio: str | None = None,
        num_images: int | None = None,
        style_preset: str | None = None,
        source_image: ImageInput | None = None,
        callback_parameter: str | None = None,
        resend_uncertain: bool | None = None,
    ) -> Job[Generation]:
        """Check the arguments, start the request in the background and return its job; arguments as for `generate`.

        The job has no `id` and no token, since Milady has none; what goes wrong is raised by awaiting it.
        """
        order = await self._order(
            prompt,
            model=model,
            aspect_ratio=aspect_ratio,
            num_images=num_images,
            style_preset=style_preset,
            source_image=source_image,
            callback_parameter=callback_parameter,
        )
        return await self._desk.submit_blocking(order, resend_uncertain=resend_uncertain)

    async def _order(
        self,
        prompt: str,
        *,
        model: str | None,
        aspect_ratio: str | None,
        num_images: int | None,
        style_preset: str | None,
        source_image: ImageInput | None,
        callback_parameter: str | None,
    ) -> BlockingOrder:
        picture = None if source_image is None else await load("source_image", source_image, provider=self.provider)
        call = milady.generate_call(
            prompt,
            model=model,
            aspect_ratio=aspect_ratio,
            num_images=num_images,
            style_preset=style_preset,
            source_image=picture,
        )
        key, call = self._desk.announced(call, callback_parameter)
        return BlockingOrder(call=call, read=milady.read_generated, model=model, requested=num_images or 1, key=key)

    async def submit_request(self, request: ImageRequest) -> Job[Generation]:
        """Submit a portable request; raises as `submit` does."""
        return await self.submit(request.prompt, **_arguments(request))

    async def generate_request(self, request: ImageRequest) -> Generation:
        """Generate from a portable request; raises as `generate` does."""
        return await self.generate(request.prompt, **_arguments(request))

    async def _portable_order(self, request: ImageRequest) -> tuple[BlockingOrder, bool | None]:
        arguments = _arguments(request)
        order = await self._order(
            request.prompt,
            model=arguments["model"],
            aspect_ratio=arguments["aspect_ratio"],
            num_images=arguments["num_images"],
            style_preset=arguments.get("style_preset"),
            source_image=arguments["source_image"],
            callback_parameter=arguments.get("callback_parameter"),
        )
        return order, arguments.get("resend_uncertain")


def _arguments(request: ImageRequest) -> dict[str, Any]:
    """Translate portable parameters; Milady takes aspect ratios, several pictures and one source picture."""
    one_of_two(request, "milady")
    refuse_unsupported(
        request,
        "milady",
        {
            "size": f"use aspect_ratio, one of {', '.join(milady.ASPECT_RATIOS)}",
            "seed": "its page documents none",
            "max_wait": "it answers within its client's timeout",
        },
    )
    if len(request.references) > 1:
        msg = f"references must be at most 1 picture at milady; got {len(request.references)}"
        raise InputError(msg, provider="milady")
    if request.aspect_ratio is not None:
        listed_ratio(request.aspect_ratio, milady.ASPECT_RATIOS, "milady")
    arguments: dict[str, Any] = {
        "model": request.model,
        "aspect_ratio": request.aspect_ratio,
        "num_images": request.n,
        "source_image": request.references[0] if request.references else None,
    }
    return with_options(request, arguments, ("style_preset", "callback_parameter", "resend_uncertain"), "milady")
