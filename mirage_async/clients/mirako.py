"""Mirako: pictures, at once or as jobs, and avatars."""

from __future__ import annotations

from collections import Counter
from itertools import chain
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import msgspec

from mirage_async.clients._base import ProviderClient
from mirage_async.clients._desk import BlockingOrder
from mirage_async.clients._inputs import load, load_all
from mirage_async.clients._portable import (
    listed_ratio,
    one_of_two,
    only,
    refuse_unsupported,
    with_options,
)
from mirage_async.wire import mirako

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping, Sequence

    from mirage_async.clients._desk import Desk
    from mirage_async.jobs import Job, JobKind
    from mirage_async.journal import Entry
    from mirage_async.models import Avatar, Generation, ImageInput, ImageRequest
    from mirage_async.wire import Call, Report

__all__ = ["MirakoClient"]

CLOCKS_APART = 600.0  # seconds


class MirakoClient(ProviderClient):
    """Client for Mirako. Keys: `MIRAKO_API_KEY` or `MIRAKO_API_TOKEN`; other options: `ProviderClient`."""

    provider = "mirako"
    key_variables = ("MIRAKO_API_KEY", "MIRAKO_API_TOKEN")
    codec = mirako
    readers = MappingProxyType(
        {
            ("image", False): mirako.read_submitted,
            ("image", True): mirako.read_generated,
            ("avatar", False): mirako.read_avatar_submitted,
        }
    )

    def _make_kinds(self, desk: Desk) -> dict[str, JobKind[Any]]:
        self._images = desk.kind("image", mirako.IMAGE_PACE, self._look, desk.redeem)
        self._avatars = desk.kind("avatar", mirako.AVATAR_PACE, self._look_at_avatar, _avatar_of)
        return {"image": self._images, "avatar": self._avatars}

    async def generate(
        self,
        prompt: str,
        *,
        aspect_ratio: str = "16:9",
        seed: int | None = None,
        images: Sequence[ImageInput] = (),
        resend_uncertain: bool | None = None,
    ) -> Generation:
        """Draw one picture over Mirako's blocking endpoint and wait for it, up to 180 seconds.

        Cancelling before the request has left buys nothing; afterwards the request goes on in the background and the
        job stays in `jobs`.

        Args:
            prompt: what to draw; sent as it is. An avatar is drawn by writing its id into the prompt, a reference by
                writing its label as `[label]`.
            aspect_ratio: "16:9", "1:1", "4:3", "3:2", "2:3", "3:4" or "9:16".
            seed: -2147483648 to 2147483647 for a repeatable picture, or None.
            images: up to 5 references, JPEG or PNG; best below 1 MB and 1024 x 1024 pixels (a larger one warns).
            resend_uncertain: send again although it may have been bought; None takes the client's setting.

        Raises:
            InputError: an argument Mirako's image guide does not allow; nothing was sent.
            APIError: Mirako refused.
            SubmissionUncertainError: no usable answer came; it may have been bought.
            ConnectionFailedError: nothing was sent.
            WaitTimeoutError: no place under `Limits.jobs` became free within an hour; nothing was sent.
        """
        pictures = await load_all("images", images, provider=self.provider, at_most=mirako.MAX_IMAGES)
        call = mirako.generate_call(prompt, aspect_ratio=aspect_ratio, seed=seed, images=pictures)
        order = BlockingOrder(call=call, read=mirako.read_generated)
        return await self._desk.generate_blocking(order, resend_uncertain=resend_uncertain)

    async def submit(
        self,
        prompt: str,
        *,
        aspect_ratio: str = "16:9",
        seed: int | None = None,
        images: Sequence[ImageInput] = (),
        webhook: tuple[str, str | None] | None = None,
        max_wait: float = mirako.IMAGE_PACE.max_wait,
        resend_uncertain: bool | None = None,
    ) -> Job[Generation]:
        """Submit a picture as a job and return once Mirako has accepted it.

        Cancelling while the request is on the wire raises at once; an accepted job then appears in `jobs`.

        Args:
            prompt: as for `generate`.
            aspect_ratio: as for `generate`.
            seed: as for `generate`.
            images: as for `generate`.
            webhook: address and bearer token Mirako calls back with; None gives it one of the hub's receiver, if the
                hub has one. Not in Mirako's image guide; its API description has it for jobs.
            max_wait: seconds the job is watched, from now; at most 30 days.
            resend_uncertain: as for `generate`.

        Raises:
            InputError: as for `generate`.
            APIError: as for `generate`.
            SubmissionUncertainError: as for `generate`.
            ConnectionFailedError: as for `generate`.
            WaitTimeoutError: no place under `Limits.jobs` became free within `max_wait`; nothing was sent.
        """
        key, ours = self._desk.callback() if webhook is None else (None, None)
        call = await self._job_call(prompt, aspect_ratio, seed, images, ours if webhook is None else webhook)
        return await self._desk.submit_job(
            self._images, call, mirako.read_submitted, key=key, max_wait=max_wait, resend_uncertain=resend_uncertain
        )

    async def build_avatar(
        self,
        name: str,
        image: ImageInput,
        *,
        max_wait: float = mirako.AVATAR_PACE.max_wait,
        resend_uncertain: bool | None = None,
    ) -> Job[Avatar]:
        """Start building an avatar and return once Mirako has accepted it.

        Mirako's avatar guide says "around 45 minutes" and "2-5 minutes"; the default wait covers both. The build goes
        on at Mirako whatever happens here: attach again with the job's token, or look with `get_avatar`.

        Args:
            name: for your lists; 1 to 200 characters.
            image: a portrait, JPEG or PNG, at least 512 x 512 pixels, at most 10 MB; 16:9 or square (others warn).
            max_wait: seconds the build is watched, from now; at most 30 days.
            resend_uncertain: as for `generate`.

        Raises:
            InputError: an argument Mirako's avatar guide does not allow; nothing was sent.
            APIError: Mirako refused.
            SubmissionUncertainError: no usable answer came; see `list_avatars` for whether it was taken.
            ConnectionFailedError: nothing was sent.
        """
        portrait = await load("image", image, provider=self.provider)
        call = mirako.avatar_call(name, portrait)
        return await self._desk.submit_job(
            self._avatars,
            call,
            mirako.read_avatar_submitted,
            max_wait=max_wait,
            resend_uncertain=resend_uncertain,
        )

    async def get_avatar(self, avatar_id: str) -> Avatar:
        """Return an avatar as it is now; READY is not for ever, since Mirako reviews models.

        Raises:
            NotFoundError: there is none with this id, or no longer.
            APIError: Mirako refused or is in trouble, after several tries.
            ConnectionFailedError: Mirako could not be reached.
        """
        avatar = await self._desk.ask(mirako.avatar_status_call(avatar_id), mirako.read_avatar)
        return avatar if avatar.id else msgspec.structs.replace(avatar, id=avatar_id)

    async def list_avatars(self) -> tuple[Avatar, ...]:
        """Return all avatars of the account; raises as `get_avatar` does."""
        return await self._desk.ask(mirako.avatars_call(), mirako.read_avatars)

    async def listed_ids(self, entries: Sequence[Entry]) -> Mapping[str, str]:
        """Look for avatars in the list: of the name, made when it was sent; one for the purchase, and it for no other.

        Both clocks have a say in that, so ten minutes either way are allowed for. Raises as `list_avatars` does.
        """
        named = [entry for entry in entries if entry.label is not None]
        avatars = await self.list_avatars() if named else ()
        fitting = {entry.key: [avatar.id for avatar in avatars if _may_be_of(avatar, entry)] for entry in named}
        claims = Counter(chain.from_iterable(fitting.values()))
        return {key: ids[0] for key, ids in fitting.items() if len(ids) == 1 and claims[ids[0]] == 1}

    async def submit_request(self, request: ImageRequest) -> Job[Generation]:
        """Submit a portable request as a job; raises as `submit` does."""
        return await self.submit(request.prompt, **_arguments(request, ("webhook", "resend_uncertain")))

    async def generate_request(self, request: ImageRequest) -> Generation:
        """Generate from a portable request: over the blocking endpoint, or as a job where `max_wait` is given."""
        if request.max_wait is not None:
            return await self._generate_as_job(request.prompt, **_arguments(request, ("resend_uncertain",)))
        return await self.generate(request.prompt, **_arguments(request, ("resend_uncertain",)))

    async def check_request(self, request: ImageRequest) -> None:
        """Check a portable request; raises as `submit` does before it sends anything."""
        arguments = _arguments(request, ("webhook", "resend_uncertain"))
        ratio = arguments.get("aspect_ratio", "16:9")
        await self._job_call(request.prompt, ratio, arguments["seed"], arguments["images"], arguments.get("webhook"))

    async def _generate_as_job(
        self,
        prompt: str,
        *,
        aspect_ratio: str = "16:9",
        seed: int | None = None,
        images: Sequence[ImageInput] = (),
        max_wait: float,
        resend_uncertain: bool | None = None,
    ) -> Generation:
        key, ours = self._desk.callback()
        call = await self._job_call(prompt, aspect_ratio, seed, images, ours)
        return await self._desk.generate_job(
            self._images, call, mirako.read_submitted, key=key, max_wait=max_wait, resend_uncertain=resend_uncertain
        )

    async def _job_call(
        self,
        prompt: str,
        aspect_ratio: str,
        seed: int | None,
        images: Sequence[ImageInput],
        webhook: tuple[str, str | None] | None,
    ) -> Call:
        pictures = await load_all("images", images, provider=self.provider, at_most=mirako.MAX_IMAGES)
        return mirako.submit_call(prompt, aspect_ratio=aspect_ratio, seed=seed, images=pictures, webhook=webhook)

    def _look(self, job: Job[Generation]) -> Awaitable[Report]:
        return self._desk.ask_about(job, mirako.status_call(job.id or ""), mirako.read_status)

    def _look_at_avatar(self, job: Job[Avatar]) -> Awaitable[Report]:
        return self._desk.ask_about(job, mirako.avatar_status_call(job.id or ""), mirako.read_avatar_status)


def _may_be_of(avatar: Avatar, entry: Entry) -> bool:
    made = avatar.created_at
    return (
        made is not None and abs(made.timestamp() - entry.intended_at) <= CLOCKS_APART and entry.is_called(avatar.name)
    )


async def _avatar_of(job: Job[Avatar], report: Report) -> Avatar:
    avatar = report.avatar
    assert avatar is not None  # noqa: S101 - a report without one is hollow and never gets here; for the type checker
    # The avatar guide's own sample answers without the id; it is the one that was asked for.
    return avatar if avatar.id else msgspec.structs.replace(avatar, id=job.id or "")


def _arguments(request: ImageRequest, options: Sequence[str]) -> dict[str, Any]:
    """Translate portable parameters; Mirako takes aspect ratios, one picture at a time."""
    one_of_two(request, "mirako")
    refuse_unsupported(request, "mirako", {"size": f"use aspect_ratio, one of {', '.join(mirako.ASPECT_RATIOS)}"})
    refuse_unsupported(request, "mirako", {"model": "leave it out"})
    only("n", request.n, (None, 1), provider="mirako", hint=": submit several requests")
    arguments: dict[str, Any] = {"seed": request.seed, "images": request.references}
    if request.aspect_ratio is not None:
        arguments["aspect_ratio"] = listed_ratio(request.aspect_ratio, mirako.ASPECT_RATIOS, "mirako")
    return with_options(request, arguments, options, "mirako")
