"""Buying everything at once: each order in a task of its own, some waiting for what another one makes."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from msgspec import structs

from mirage_async.cli._demo.exhibit import AvatarBuild, Exhibit, Exhibition, Print
from mirage_async.cli._demo.plan import AVATAR_NAME, avatar_order
from mirage_async.exceptions import MirageError
from mirage_async.models import Reference

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mirage_async.cli._board import Board, Row
    from mirage_async.cli._demo.plan import Order
    from mirage_async.hub import Mirage
    from mirage_async.models import Generation, ImageRequest

__all__ = ["perform"]


async def perform(
    hub: Mirage, orders: Sequence[Order], folder: Path, board: Board, *, pictures: int, seed: int
) -> Exhibition:
    """Buy all orders and an avatar at the same time, and save the pictures.

    A job that fails is told about in its `Exhibit` and takes no other with it, except those that need its picture.

    Args:
        hub: buys.
        orders: what to buy; one of them gives the portrait.
        folder: gets the pictures; those of the same name are overwritten.
        board: shows how it goes.
        pictures: pictures of each provider, the avatar's not counted.
        seed: for the record.
    """
    return await _Performance(hub, folder, board).run(orders, pictures=pictures, seed=seed)


class _MissingError(Exception):
    """What an order builds on was not made."""


class _Performance:
    def __init__(self, hub: Mirage, folder: Path, board: Board) -> None:
        self._hub = hub
        self._folder = folder
        self._board = board
        loop = asyncio.get_running_loop()
        self._portrait: asyncio.Future[bytes | None] = loop.create_future()

    async def run(self, orders: Sequence[Order], *, pictures: int, seed: int) -> Exhibition:
        rows = [self._board.add(order.provider, order.request.prompt) for order in orders]
        avatar_row = self._board.add("mirako", f"Avatar: {AVATAR_NAME}")
        avatar_picture_row = self._board.add("mirako", "The new avatar at sunrise")
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._fulfil(order, row)) for order, row in zip(orders, rows, strict=True)]
            building = group.create_task(self._build(avatar_row))
            last = group.create_task(self._draw_avatar(building, avatar_picture_row, pictures))
        exhibits = [*(task.result() for task in tasks), last.result()]
        avatar = building.result()
        ends = [avatar.began + avatar.seconds, *(exhibit.began + exhibit.seconds for exhibit in exhibits)]
        return Exhibition(exhibits=exhibits, avatar=avatar, seconds=max(ends), seed=seed)

    async def _fulfil(self, order: Order, row: Row) -> Exhibit:
        generation: Generation | None = None
        problem: str | None = None
        prints: list[Print] = []
        try:
            request = await self._with_needs(order)
            generation = await self._buy(request, row, blocking=order.blocking)
            if order.gives_portrait:
                self._portrait.set_result(await generation.image.read())
            row.state = "saving"
            for index, image in enumerate(generation.images):
                path = await image.save(self._folder / order.stem(index), overwrite=True)
                prints.append(Print(path=path, image=image))
        except (MirageError, OSError, _MissingError) as error:
            problem = str(error)
        if order.gives_portrait and not self._portrait.done():
            self._portrait.set_result(None)
        row.end("done" if problem is None else "failed", problem or "")
        return Exhibit(
            provider=order.provider,
            prompt=order.request.prompt,
            look=order.look,
            generation=generation,
            prints=prints,
            problem=problem,
            **self._times(row),
        )

    async def _with_needs(self, order: Order) -> ImageRequest:
        if order.needs is None:
            return order.request
        return structs.replace(order.request, references=(Reference(await self._the_portrait(), label="portrait"),))

    async def _the_portrait(self) -> bytes:
        portrait = await self._portrait
        if portrait is None:
            raise _MissingError("not ordered, because the portrait it builds on was not made")
        return portrait

    async def _buy(self, request: ImageRequest, row: Row, *, blocking: bool) -> Generation:
        row.begin()
        if not blocking:
            return await row.follow(await self._hub.submit(request))
        row.state = "running"
        return await self._hub.client(request.provider or "").generate_request(request)

    async def _build(self, row: Row) -> AvatarBuild:
        try:
            portrait = await self._the_portrait()
            row.begin()
            job = await self._hub.mirako.build_avatar(AVATAR_NAME, portrait)
            avatar = await row.follow(job)
        except (MirageError, _MissingError) as error:
            row.end("failed", str(error))
            return AvatarBuild(name=AVATAR_NAME, problem=str(error), **self._times(row))
        row.end("done")
        return AvatarBuild(name=AVATAR_NAME, avatar=avatar, polls=job.polls, **self._times(row))

    async def _draw_avatar(self, building: asyncio.Task[AvatarBuild], row: Row, pictures: int) -> Exhibit:
        avatar = (await building).avatar
        if avatar is not None:
            return await self._fulfil(avatar_order(avatar.id, pictures), row)
        problem = "not ordered, because the avatar it draws was not built"
        row.end("failed", problem)
        return Exhibit(provider="mirako", prompt=row.title, look="avatar", problem=problem, **self._times(row))

    def _times(self, row: Row) -> dict[str, Any]:
        began = self._board.began if row.began is None else row.began
        ended = time.monotonic() if row.ended is None else row.ended
        return {"began": began - self._board.began, "seconds": ended - began}
