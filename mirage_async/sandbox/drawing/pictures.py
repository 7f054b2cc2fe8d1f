"""What a picture is before it is drawn: everything that decides its bytes, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

__all__ = ["RATIO_SIZES", "Colour", "Picture", "PictureFormat"]

Colour: TypeAlias = tuple[int, int, int]
"""Red, green and blue, 0-255 each."""

PictureFormat: TypeAlias = Literal["JPEG", "PNG", "WEBP"]

_WIDE = {"16:9": (1024, 576), "4:3": (1024, 768), "3:2": (1008, 672), "21:9": (1008, 432)}

RATIO_SIZES: dict[str, tuple[int, int]] = {"1:1": (1024, 1024), **_WIDE} | {
    ":".join(reversed(ratio.split(":"))): (height, width) for ratio, (width, height) in _WIDE.items()
}
"""Width and height in pixels for each aspect ratio, exact to the pixel and about 1024 on the long side."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """The order for one picture. Equal orders give equal bytes.

    Attributes:
        prompt: decides the composition, together with the seed; the size does not.
        seed: any whole number.
        width: pixels.
        height: pixels.
        format: how it is encoded.
        tints: average colours of the reference pictures; they pull the palette towards themselves.
    """

    prompt: str
    seed: int
    width: int
    height: int
    format: PictureFormat
    tints: tuple[Colour, ...] = ()

    @property
    def mime_type(self) -> str:
        """The MIME type of the encoded bytes."""
        return f"image/{self.format.lower()}"

    def mislabelled(self) -> Picture:
        """Return the same picture encoded as something else than will be said of it."""
        return replace(self, format="JPEG" if self.format == "PNG" else "PNG")
