"""Handing out results: which pictures of a job, and the bytes behind a link."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mirage_async.sandbox.answers import Answer

if TYPE_CHECKING:
    from mirage_async.sandbox.dialects.provider import Call
    from mirage_async.sandbox.drawing.pictures import Picture
    from mirage_async.sandbox.world import World

__all__ = ["delivered", "download"]


async def download(world: World, call: Call) -> Answer:
    """Return the picture the path names.

    Raises:
        RefusalError: 404 when there is no such link, 410 when it has expired.
    """
    link = world.links.open(call.path_values["file_name"], flaws=call.flaws)
    data = await world.encoded(link.picture, call.flaws | link.flaws)
    return Answer(body=data, content_type=link.picture.mime_type)


def delivered(pictures: tuple[Picture, ...], flaws: frozenset[str]) -> tuple[Picture, ...]:
    """Return the pictures that arrive: all of them, or one fewer where there is more than one."""
    return pictures[:-1] if "fewer" in flaws and len(pictures) > 1 else pictures
