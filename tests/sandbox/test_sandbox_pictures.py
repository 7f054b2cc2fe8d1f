"""The pictures: deterministic, well composed in every shape, drawn once and kept."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from calling import average, encoded, opened
from PIL import Image

import mirage_async.sandbox.drawing.gallery as gallery_module
from mirage_async.sandbox.drawing.gallery import Gallery
from mirage_async.sandbox.drawing.inspection import average_colour, probe
from mirage_async.sandbox.drawing.pictures import RATIO_SIZES, Picture
from mirage_async.sandbox.drawing.scene import draw
from mirage_async.sandbox.identifiers import Identifiers

pytestmark = pytest.mark.anyio


def ordered(**changes: Any) -> Picture:
    """Return an order for a small picture."""
    fields: dict[str, Any] = {"prompt": "hills", "seed": 1, "width": 64, "height": 64, "format": "PNG"}
    return Picture(**{**fields, **changes})


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("size", [(1, 1), (3, 500), (257, 255), (2048, 256)])
def test_every_size_and_format_is_drawn_exactly(kind: Any, size: tuple[int, int]) -> None:
    """The decoded picture has the format and the size that were ordered."""
    image = opened(draw(ordered(width=size[0], height=size[1], format=kind)))
    assert (image.format, image.size) == (kind, size)


@pytest.mark.parametrize("ratio", ["1:1", "16:9", "9:16", "4:3", "3:4", "3:2", "2:3", "21:9", "9:21"])
def test_ratios_are_exact(ratio: str) -> None:
    """A ratio's size in pixels has exactly that ratio."""
    wide, high = map(int, ratio.split(":"))
    width, height = RATIO_SIZES[ratio]
    assert width * high == height * wide


def test_one_prompt_has_one_composition_in_every_shape() -> None:
    """Squeezed to the same size, wide and tall versions of a prompt are nearly the same picture."""
    wide = opened(draw(ordered(width=320, height=180))).convert("RGB").resize((8, 8))
    tall = opened(draw(ordered(width=180, height=320))).convert("RGB").resize((8, 8))
    other = opened(draw(ordered(prompt="another", width=320, height=180))).convert("RGB").resize((8, 8))
    assert distance(wide, tall) < distance(wide, other) / 2


def distance(one: Image.Image, other: Image.Image) -> int:
    """Return how different two pictures of one size are."""
    return sum(abs(a - b) for a, b in zip(one.tobytes(), other.tobytes(), strict=True))


def test_words_set_the_mood() -> None:
    """Night is dark, snow is bright, and a sunset is warmer than the ocean."""
    night = average(draw(ordered(prompt="a starry night")))
    snow = average(draw(ordered(prompt="snow on the hills")))
    sunset = average(draw(ordered(prompt="a sunset")))
    ocean = average(draw(ordered(prompt="the ocean")))
    assert sum(night) < sum(snow) / 2
    assert sunset[0] - sunset[2] > ocean[0] - ocean[2] + 40


async def test_a_picture_is_drawn_once_however_many_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever comes while it is being drawn waits for it, and whoever comes later finds it."""
    drawn: list[Picture] = []

    def counted(picture: Picture) -> bytes:
        drawn.append(picture)
        return draw(picture)

    monkeypatch.setattr(gallery_module, "draw", counted)
    gallery = Gallery()
    results = await asyncio.gather(*(gallery.render(ordered()) for _ in range(5)))
    assert await gallery.render(ordered()) == results[0]
    assert (len(set(results)), len(drawn), len(gallery)) == (1, 1, 1)


async def test_the_gallery_forgets_what_was_not_asked_for_longest() -> None:
    """When room runs out the least recently used goes, but never the last one."""
    gallery = Gallery(max_bytes=len(draw(ordered(seed=1))) + len(draw(ordered(seed=2))))
    for seed in (1, 2, 1, 3):
        await gallery.render(ordered(seed=seed))
    assert len(gallery) < 3
    tiny = Gallery(max_bytes=1)
    await tiny.render(ordered(seed=1))
    await tiny.render(ordered(seed=2))
    assert len(tiny) == 1


def test_the_average_colour_is_read_from_the_picture() -> None:
    """Pictures give their own colour; other bytes give a colour that is always the same."""
    assert average_colour(encoded(colour="red")) == (255, 0, 0)
    assert average_colour(b"no picture") == average_colour(b"no picture") != average_colour(b"none either")


def test_a_picture_that_claims_to_be_enormous_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A decompression bomb counts as no picture and is not decoded."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    bomb = encoded((512, 512))
    assert probe(bomb) is None
    assert average_colour(bomb) != (255, 0, 0)


def test_short_names_never_repeat() -> None:
    """Ten thousand names are ten thousand different ones."""
    identifiers = Identifiers(0)
    assert len({identifiers.short("task") for _ in range(10_000)}) == 10_000
