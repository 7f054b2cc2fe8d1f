"""Draws a landscape: sky, a sun or moon, misty ridges one behind the other.

Speed decides how. Whatever is soft (sky, glow, mist, far ridges) is drawn at a quarter of the size and scaled up, which
also gives distance its haze; only the near ridges are drawn at full size. All places are fractions of the width and
height, so a prompt keeps its composition in every aspect ratio.
"""

from __future__ import annotations

import io
import math
import random
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageOps

from mirage_async.sandbox.drawing.palettes import Palette, blend, choose_palette
from mirage_async.sandbox.identifiers import number_from

if TYPE_CHECKING:
    from mirage_async.sandbox.drawing.pictures import Colour, Picture

__all__ = ["draw"]

_SOFT = 4
_FAR_RIDGES = 3
_NEAR_RIDGES = 2
_RIDGE_POINTS = 96
_PALETTE_COLOURS = 256
_STARS = 70
# Pillow's radial gradient counts 0 in the centre and this much in the middle of a side.
_RADIUS = 181


def draw(picture: Picture) -> bytes:
    """Return the encoded picture. Takes some 20 ms for a megapixel, so not on an event loop."""
    source = random.Random(number_from(picture.prompt, picture.seed))
    palette = choose_palette(picture.prompt, source, picture.tints)
    scene = _Scene(source, palette)
    soft_size = (max(1, math.ceil(picture.width / _SOFT)), max(1, math.ceil(picture.height / _SOFT)))
    image = _resized(scene.draw_soft(soft_size), (picture.width, picture.height))
    scene.draw_near(image)
    return _encode(image, picture.format)


class _Scene:
    """One composition. Everything random is drawn here, in one order, before any size is known."""

    def __init__(self, source: random.Random, palette: Palette) -> None:
        self._palette = palette
        self._sun = (source.uniform(0.2, 0.8), source.uniform(0.16, 0.4))
        self._sun_radius = source.uniform(0.05, 0.085)
        self._clouds = [(source.random(), source.uniform(0.08, 0.42), source.uniform(0.25, 0.6)) for _ in range(5)]
        self._stars = [(source.random(), source.random() ** 1.5 * 0.6, source.random()) for _ in range(_STARS)]
        top = source.uniform(0.46, 0.54)
        count = _FAR_RIDGES + _NEAR_RIDGES
        self._ridges = [_ridge(source, top + (0.95 - top) * index / count, index) for index in range(count)]
        self._trees = [(source.random(), source.uniform(0.03, 0.075), source.uniform(0.16, 0.22)) for _ in range(34)]

    def draw_soft(self, size: tuple[int, int]) -> Image.Image:
        """Return sky, light and far ridges at a quarter of the final size."""
        palette = self._palette
        gradient = _resized(_resized(Image.linear_gradient("L"), (1, 256)), size)
        image = ImageOps.colorize(
            gradient, palette.zenith, palette.horizon, palette.middle, midpoint=120, whitepoint=190
        )
        if palette.stars:
            self._draw_stars(image)
        self._draw_light(image)
        self._draw_clouds(image)
        for index in range(_FAR_RIDGES):
            self._draw_far_ridge(image, index)
        return image

    def draw_near(self, image: Image.Image) -> None:
        """Draw the near ridges, and trees on the nearest if there are any, onto the full-size picture."""
        pen = ImageDraw.Draw(image)
        for index in range(_FAR_RIDGES, _FAR_RIDGES + _NEAR_RIDGES):
            colour, behind = self._ridge_colour(index), self._ridge_colour(index - 1)
            outline = _outline(self._ridges[index], image.size)
            # A rim in between the two colours hides the steps of an edge drawn without smoothing.
            pen.line(outline[1:-1], fill=blend(behind, colour, 0.5), width=2)
            pen.polygon([(x, y + 1) for x, y in outline], fill=colour)
        if self._palette.trees:
            self._draw_trees(pen, image.size)

    def _ridge_colour(self, index: int) -> Colour:
        share = (index / (_FAR_RIDGES + _NEAR_RIDGES - 1)) ** 1.15
        return blend(self._palette.far, self._palette.near, share)

    def _draw_stars(self, image: Image.Image) -> None:
        pen = ImageDraw.Draw(image)
        for x, y, brightness in self._stars:
            colour = blend(self._palette.middle, self._palette.light, 0.2 + 0.6 * brightness)
            pen.point((int(x * image.width), int(y * image.height)), fill=colour)

    def _draw_light(self, image: Image.Image) -> None:
        """Draw the sun or moon with its glow; round in every aspect ratio."""
        short_side = min(image.size)
        centre = (self._sun[0] * image.width, self._sun[1] * image.height)
        radius = self._sun_radius * short_side
        _glow(image, self._palette.light, centre, (radius * 8, radius * 8), 0.8)
        side = max(1, round(radius * 2))
        spot = Image.new("L", (side * 4, side * 4))
        ImageDraw.Draw(spot).ellipse((0, 0, side * 4 - 1, side * 4 - 1), fill=255)
        disc = spot.reduce(4)
        image.paste(self._palette.light, (round(centre[0] - radius), round(centre[1] - radius)), disc)

    def _draw_clouds(self, image: Image.Image) -> None:
        colour = blend(self._palette.horizon, self._palette.light, 0.5)
        for x, y, length in self._clouds:
            reach = (length * image.width * 0.5, image.height * 0.035)
            _glow(image, colour, (x * image.width, y * image.height), reach, 0.45)

    def _draw_far_ridge(self, image: Image.Image, index: int) -> None:
        """Draw one ridge whose foot fades into mist; its mask is drawn at twice the size and smoothed down."""
        width, height = image.size
        mask = Image.new("L", (width * 2, height * 2))
        ImageDraw.Draw(mask).polygon(_outline(self._ridges[index], mask.size), fill=255)
        mask = mask.reduce(2)
        colour = self._ridge_colour(index)
        mist = blend(colour, self._palette.horizon, 0.6)
        top = round(min(y for _, y in self._ridges[index]) * height)
        depth = max(1, round(height * 0.3))
        fade = _resized(_resized(Image.linear_gradient("L"), (1, depth)), (width, depth))
        layer = Image.new("RGB", image.size, mist)
        layer.paste(ImageOps.colorize(fade, colour, mist), (0, top))
        image.paste(layer, (0, 0), mask)

    def _draw_trees(self, pen: ImageDraw.ImageDraw, size: tuple[int, int]) -> None:
        """Draw firs along the nearest ridge."""
        width, height = size
        ridge = self._ridges[-1]
        colour = self._ridge_colour(_FAR_RIDGES + _NEAR_RIDGES - 1)
        for x, tall, slim in self._trees:
            foot = ridge[round(x * (len(ridge) - 1))][1] * height + 3
            rise = tall * min(height, width) * 1.3
            for tier in (0.0, 0.28, 0.52):
                spread = rise * slim * (1 - tier * 0.9)
                base = foot - rise * tier
                pen.polygon(
                    [(x * width - spread, base), (x * width, base - rise * 0.48), (x * width + spread, base)],
                    fill=colour,
                )


def _ridge(source: random.Random, base: float, index: int) -> list[tuple[float, float]]:
    """Return a ridge as (x, y) fractions: a few waves, the nearer the calmer."""
    waves = [
        (source.uniform(0.6, 1.6) * 2**octave, source.random() * math.tau, 0.075 / 1.9**octave) for octave in range(5)
    ]
    calm = 1.0 - 0.1 * index
    points: list[tuple[float, float]] = []
    for step in range(_RIDGE_POINTS + 1):
        x = step / _RIDGE_POINTS
        rise = sum(height * math.sin(math.tau * pace * x + phase) for pace, phase, height in waves)
        # Folding the waves gives peaks above round valleys.
        points.append((x, base - calm * (abs(rise) * 1.1 - 0.05)))
    return points


def _outline(ridge: list[tuple[float, float]], size: tuple[int, int]) -> list[tuple[float, float]]:
    """Return `ridge` in pixels, closed along the bottom edge."""
    width, height = size
    line = [(x * width, y * height) for x, y in ridge]
    return [(0.0, float(height)), *line, (float(width), float(height))]


def _glow(
    image: Image.Image, colour: Colour, centre: tuple[float, float], reach: tuple[float, float], strength: float
) -> None:
    """Lay a soft spot of `colour` over `image`, fading out at `reach` pixels from the centre."""
    size = (max(2, round(reach[0] * 2)), max(2, round(reach[1] * 2)))
    spot = Image.radial_gradient("L").point(_fall_off(strength))  # pyright: ignore[reportUnknownMemberType]
    spot = _resized(spot, size)
    image.paste(colour, (round(centre[0] - reach[0]), round(centre[1] - reach[1])), spot)


def _fall_off(strength: float) -> list[int]:
    """Return the table from distance to opacity: full in the centre, nothing from the middle of each side outwards."""
    return [round(255 * strength * max(0.0, 1 - distance / _RADIUS) ** 2) for distance in range(256)]


def _resized(
    image: Image.Image, size: tuple[int, int], resampling: Image.Resampling = Image.Resampling.BILINEAR
) -> Image.Image:
    # Pillow's signature names a type of NumPy, which is not installed here.
    return image.resize(size, resampling)  # pyright: ignore[reportUnknownMemberType]


def _encode(image: Image.Image, format_name: str) -> bytes:
    """Encode with the cheapest settings that still look good: encoding costs more than drawing."""
    buffer = io.BytesIO()
    if format_name == "JPEG":
        image.save(buffer, "JPEG", quality=85)
    elif format_name == "WEBP":
        image.save(buffer, "WEBP", quality=75, method=0)
    else:
        sample = _resized(image, (128, 128), Image.Resampling.NEAREST)
        colours = sample.quantize(_PALETTE_COLOURS, method=Image.Quantize.MEDIANCUT)
        image.quantize(palette=colours, dither=Image.Dither.NONE).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
