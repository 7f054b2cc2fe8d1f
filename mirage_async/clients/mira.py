"""Mira: pictures in one blocking, OpenAI-shaped request."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Self, Unpack

from mirage_async.clients._blocking import BlockingClient
from mirage_async.clients._desk import BlockingOrder
from mirage_async.clients._inputs import load_all
from mirage_async.clients._portable import nearest_ratios, one_of_two, ratio_of, refuse_unsupported, with_options
from mirage_async.exceptions import InputError
from mirage_async.wire import mira

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mirage_async.clients._base import ClientOptions, SharedOptions
    from mirage_async.jobs import Job
    from mirage_async.models import Generation, ImageInput, ImageRequest

__all__ = ["MiraClient"]

_SIZES_BY_RATIO = {"1:1": "1024x1024", "2:3": "1024x1536", "3:2": "1536x1024"}


class MiraClient(BlockingClient):
    """Client for Mira. Key: `MIRA_API_KEY`; other options: `ProviderClient`.

    Args:
        api_key: the key; None reads the environment.
        path: where the request goes. Mira's page shows two: the default in its curl samples, and, through the OpenAI
            package, "/v1/images/generations". It is never tried twice.
        options: as for `ProviderClient`.
    """

    provider = "mira"
    key_variables = ("MIRA_API_KEY",)
    codec = mira
    readers = MappingProxyType({("image", True): mira.read_generated})
    max_images = mira.MAX_IMAGES

    _path = mira.PATH

    def __init__(self, api_key: str | None = None, *, path: str = mira.PATH, **options: Unpack[ClientOptions]) -> None:
        super().__init__(api_key, **options)
        self._path = mira.checked_path(path)

    def with_options(  # pyright: ignore[reportIncompatibleMethodOverride] - one option more than the base has
        self, *, api_key: str | None = None, path: str | None = None, **options: Unpack[SharedOptions]
    ) -> Self:
        """Return a cheap copy with some options changed; see `ProviderClient.with_options`.

        Args:
            api_key: another key.
            path: another path for the request.
            options: as for `ProviderClient`.
        """
        twin = super().with_options(api_key=api_key, **options)
        if path is not None:
            twin._path = mira.checked_path(path)  # noqa: SLF001 - a copy under construction
        return twin

    async def generate(
        self,
        prompt: str,
        *,
        size: str | None = None,
        n: int | None = None,
        quality: str | None = None,
        reference_images: Sequence[ImageInput] = (),
        callback_parameter: str | None = None,
        resend_uncertain: bool | None = None,
    ) -> Generation:
        """Draw pictures and wait for them, up to 180 seconds. What is None is left to Mira.

        Cancelling before the request has left buys nothing; afterwards the request goes on in the background and the
        job stays in `jobs`.

        Args:
            prompt: 1 to 4000 characters. With references it says what to change or how to combine them.
            size: "1024x1024", "1024x1536", "1536x1024" or "auto".
            n: 1 to 4 pictures.
            quality: "low", "medium", "high" or "auto".
            reference_images: up to 4; http(s) URLs travel as they are, everything else as data URLs. Mira may refuse a
                request that grows too large (413), so URLs are the safer choice.
            callback_parameter: name of the field in which your account takes an address to call back; it is sent one of
                the hub's receiver. Mira documents none, so None sends none. The pictures come with the answer all
                the same: a delivery only tells of a purchase whose answer was lost.
            resend_uncertain: send again although it may have been bought; None takes the client's setting.

        Raises:
            InputError: an argument Mira's page does not allow; nothing was sent.
            ContentRejectedError: Mira's moderation refused the prompt.
            APIError: Mira refused for another reason.
            SubmissionUncertainError: no usable answer came; it may have been bought.
            ConnectionFailedError: nothing was sent.
            WaitTimeoutError: no place under `Limits.jobs` became free within an hour; nothing was sent.
        """
        order = await self._order(prompt, size, n, quality, reference_images, callback=callback_parameter)
        return await self._desk.generate_blocking(order, resend_uncertain=resend_uncertain)

    async def submit(
        self,
        prompt: str,
        *,
        size: str | None = None,
        n: int | None = None,
        quality: str | None = None,
        reference_images: Sequence[ImageInput] = (),
        callback_parameter: str | None = None,
        resend_uncertain: bool | None = None,
    ) -> Job[Generation]:
        """Check the arguments, start the request in the background and return its job; arguments as for `generate`.

        The job has no `id` and no token, since Mira has none; what goes wrong is raised by awaiting it.
        """
        order = await self._order(prompt, size, n, quality, reference_images, callback=callback_parameter)
        return await self._desk.submit_blocking(order, resend_uncertain=resend_uncertain)

    async def _order(
        self,
        prompt: str,
        size: str | None,
        n: int | None,
        quality: str | None,
        references: Sequence[ImageInput],
        *,
        callback: str | None,
    ) -> BlockingOrder:
        pictures = await load_all("reference_images", references, provider=self.provider, at_most=mira.MAX_REFERENCES)
        call = mira.generate_call(prompt, size=size, n=n, quality=quality, reference_images=pictures, path=self._path)
        key, call = self._desk.announced(call, callback)
        return BlockingOrder(call=call, read=mira.read_generated, requested=n or 1, key=key)

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
            arguments["size"],
            arguments["n"],
            arguments.get("quality"),
            arguments["reference_images"],
            callback=arguments.get("callback_parameter"),
        )
        return order, arguments.get("resend_uncertain")


def _arguments(request: ImageRequest) -> dict[str, Any]:
    """Translate portable parameters; Mira has three sizes, so three ratios."""
    one_of_two(request, "mira")
    refuse_unsupported(request, "mira", {"seed": "its page documents none", "model": "leave it out"})
    refuse_unsupported(request, "mira", {"max_wait": "it answers within its client's timeout"})
    size = request.size
    if request.aspect_ratio is not None:
        width, height = ratio_of(request.aspect_ratio, "mira")
        exact = [text for text, _ in _SIZES_BY_RATIO.items() if _same(text, width, height)]
        if not exact:
            near = nearest_ratios((width, height), _SIZES_BY_RATIO)
            named = " or ".join(f"{text} ({_SIZES_BY_RATIO[text]})" for text in near)
            msg = (
                f"aspect_ratio must be one of {', '.join(_SIZES_BY_RATIO)}; "
                f"got {request.aspect_ratio!r}, nearest {named}"
            )
            raise InputError(msg, provider="mira")
        size = _SIZES_BY_RATIO[exact[0]]
    arguments: dict[str, Any] = {"size": size, "n": request.n, "reference_images": request.references}
    return with_options(request, arguments, ("quality", "callback_parameter", "resend_uncertain"), "mira")


def _same(text: str, width: int, height: int) -> bool:
    left, right = (int(part) for part in text.split(":"))
    return left * height == right * width
