"""Colours for a scene: moods that words in the prompt call up, hues from the seed for the rest, and tints."""

from __future__ import annotations

import colorsys
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable

    from mirage_async.sandbox.drawing.pictures import Colour

__all__ = ["Palette", "blend", "choose_palette"]

_TINT_STRENGTH = 0.6
_HUE_DRIFT = 0.035


@dataclass(frozen=True, slots=True, kw_only=True)
class Palette:
    """The colours of one scene, from the top of the sky down to the nearest ridge."""

    zenith: Colour
    middle: Colour
    horizon: Colour
    light: Colour
    far: Colour
    near: Colour
    stars: bool = False
    trees: bool = False

    def tinted(self, colour: Colour) -> Palette:
        """Return this palette pulled towards `colour`, light parts staying light and dark parts dark."""
        hue, lightness, saturation = colorsys.rgb_to_hls(*(part / 255 for part in colour))

        def pull(own: Colour) -> Colour:
            own_lightness = colorsys.rgb_to_hls(*(part / 255 for part in own))[1]
            goal = colorsys.hls_to_rgb(hue, 0.75 * own_lightness + 0.25 * lightness, saturation)
            return blend(own, _to_bytes(goal), _TINT_STRENGTH)

        return replace(
            self,
            zenith=pull(self.zenith),
            middle=pull(self.middle),
            horizon=pull(self.horizon),
            light=pull(self.light),
            far=pull(self.far),
            near=pull(self.near),
        )


def blend(one: Colour, other: Colour, share: float) -> Colour:
    """Return the colour `share` (0-1) of the way from `one` to `other`."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue


def choose_palette(prompt: str, random_source: random.Random, tints: Iterable[Colour]) -> Palette:
    """Return the palette for `prompt`: its mood if a word names one, otherwise one made from the random source."""
    words = set(re.findall(r"[a-z]+", prompt.lower()))
    made_up = _made_up(random_source)
    palette = next((mood for called_by, mood in _MOODS if called_by & words), made_up)
    palette = _drifted(palette, random_source.uniform(-_HUE_DRIFT, _HUE_DRIFT))
    for tint in tints:
        palette = palette.tinted(tint)
    return palette


def _made_up(random_source: random.Random) -> Palette:
    """Return a calm palette around one hue, its sky drifting to a neighbour and its light to the warm side."""
    hue = random_source.random()
    drift = random_source.uniform(0.06, 0.2) * random_source.choice((-1, 1))
    return Palette(
        zenith=_hls(hue, 0.38, 0.5),
        middle=_hls(hue + drift / 2, 0.62, 0.5),
        horizon=_hls(hue + drift, 0.84, 0.7),
        light=_hls(hue + drift, 0.95, 0.9),
        far=_hls(hue + drift / 3, 0.66, 0.35),
        near=_hls(hue - drift / 4, 0.14, 0.45),
        trees=random_source.random() < 0.3,  # noqa: PLR2004 - about one picture in three
    )


def _drifted(palette: Palette, shift: float) -> Palette:
    """Return `palette` with its hues turned a little, so two prompts of one mood differ."""

    def turn(colour: Colour) -> Colour:
        hue, lightness, saturation = colorsys.rgb_to_hls(*(part / 255 for part in colour))
        return _hls(hue + shift, lightness, saturation)

    return replace(
        palette,
        zenith=turn(palette.zenith),
        middle=turn(palette.middle),
        horizon=turn(palette.horizon),
        far=turn(palette.far),
        near=turn(palette.near),
    )


def _hls(hue: float, lightness: float, saturation: float) -> Colour:
    return _to_bytes(colorsys.hls_to_rgb(hue % 1.0, lightness, saturation))


def _to_bytes(parts: tuple[float, float, float]) -> Colour:
    red, green, blue = (round(255 * part) for part in parts)
    return red, green, blue


def _hex(colours: str, *, stars: bool = False, trees: bool = False) -> Palette:
    """Return a palette from six colours in hexadecimal, from the zenith to the nearest ridge."""
    zenith, middle, horizon, light, far, near = (_from_hex(colour) for colour in colours.split())
    return Palette(
        zenith=zenith, middle=middle, horizon=horizon, light=light, far=far, near=near, stars=stars, trees=trees
    )


def _from_hex(colour: str) -> Colour:
    red, green, blue = bytes.fromhex(colour)
    return red, green, blue


# The first mood that shares a word with the prompt wins; what sets the light of a scene comes before what stands in it.
_MOODS: tuple[tuple[frozenset[str], Palette], ...] = (
    (
        frozenset({"neon", "cyberpunk", "synthwave", "futuristic"}),
        _hex("120a3a 5b1a8b ff4fa3 ffe08a 8a2bc2 0b0622", stars=True),
    ),
    (
        frozenset({"night", "midnight", "stars", "starry", "moon", "moonlit", "galaxy", "space"}),
        _hex("060b26 14265a 4c5f9e f4f1dc 3a4c88 050914", stars=True, trees=True),
    ),
    (
        frozenset({"sunset", "dusk", "evening", "golden", "twilight"}),
        _hex("3b2a63 c8557a ffb36b fff0c2 c9728a 24132e"),
    ),
    (
        frozenset({"sunrise", "dawn", "morning"}),
        _hex("6e8fc9 f3b7b0 ffe3b5 fffbe8 c9a2b4 3b2f4a"),
    ),
    (
        frozenset({"snow", "winter", "ice", "frozen", "arctic"}),
        _hex("7fa6cf b9d3e8 eef4f8 ffffff a9c2d9 35506e", trees=True),
    ),
    (
        frozenset({"autumn", "fall", "october", "leaves"}),
        _hex("8a9bb0 e2c59a f8ddaa fff6dc d08a4e 4a1f12", trees=True),
    ),
    (
        frozenset({"desert", "dune", "dunes", "canyon", "sahara", "mars"}),
        _hex("5c9ac4 e9cfa6 fbe3bd fffae6 e0a56b 6b2f16"),
    ),
    (
        frozenset({"ocean", "sea", "lake", "beach", "water", "island", "lighthouse"}),
        _hex("1e6fa8 78c0d8 e8f3e4 fffceb 6fa9bc 0b3145"),
    ),
    (
        frozenset({"forest", "jungle", "woods", "tree", "trees", "garden", "meadow"}),
        _hex("6fa5b5 b7d6be f2f3d3 fffde8 7fae8e 0f2e22", trees=True),
    ),
)
