"""What the demo buys: a menu for each provider that shows off what it can do."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import cycle
from typing import TYPE_CHECKING, Literal, TypeAlias

from msgspec import structs

from mirage_async.models import ImageRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["AVATAR_NAME", "Order", "avatar_order", "plan"]

AVATAR_NAME = "Mira the lighthouse keeper"

Need: TypeAlias = Literal["portrait", "avatar"]

_SLUG_WORDS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One purchase of the demo.

    Attributes:
        request: what is bought.
        blocking: buy over the endpoint that answers with the picture, where the provider has both.
        gives_portrait: whether its picture is the portrait that others build on.
        needs: what must be there first, or None.
        number: the place of its first picture among all of the same provider, from 1.
        slug: what the file names say after the number; "" takes the first words of the prompt.
    """

    request: ImageRequest
    blocking: bool = False
    gives_portrait: bool = False
    needs: Need | None = None
    number: int = 1
    slug: str = ""

    @property
    def provider(self) -> str:
        """The provider's name."""
        return self.request.provider or ""

    def stem(self, index: int) -> str:
        """Return a file name without suffix for the picture at `index`: provider, number and the first words."""
        slug = self.slug or "-".join(re.findall(r"[a-z0-9]+", self.request.prompt.lower())[:_SLUG_WORDS])
        return f"{self.provider}-{self.number + index:02d}-{slug}"

    @property
    def look(self) -> str:
        """What was asked for beside the prompt, in a few words."""
        request = self.request
        options = [str(value) for value in (request.options or {}).values()]
        extras = {"portrait": "reference picture", "avatar": "avatar, reference picture"}
        asked = [request.model, request.aspect_ratio or request.size, *options, extras.get(self.needs or "")]
        return " · ".join(word for word in asked if word)


def _mirako(
    prompt: str,
    ratio: str,
    *,
    blocking: bool = False,
    gives_portrait: bool = False,
    needs: Need | None = None,
) -> Order:
    request = ImageRequest(prompt=prompt, provider="mirako", aspect_ratio=ratio)
    return Order(request=request, blocking=blocking, gives_portrait=gives_portrait, needs=needs)


def _miragic(prompt: str, model: str, size: str) -> Order:
    return Order(request=ImageRequest(prompt=prompt, provider="miragic", model=model, size=size))


def _mira(prompt: str, size: str, quality: str, n: int = 1) -> Order:
    return Order(request=ImageRequest(prompt=prompt, provider="mira", size=size, n=n, options={"quality": quality}))


def _milady(prompt: str, ratio: str, style: str, n: int = 1) -> Order:
    options = {"style_preset": style}
    return Order(request=ImageRequest(prompt=prompt, provider="milady", aspect_ratio=ratio, n=n, options=options))


_MENU: Mapping[str, tuple[Order, ...]] = {
    "mirako": (
        _mirako("Portrait of a lighthouse keeper in a red cap, soft window light", "1:1", gives_portrait=True),
        _mirako("Morning fog over terraced rice fields, a single heron lifting off", "16:9", blocking=True),
        _mirako("The keeper from [portrait] reading by a stove while snow falls outside", "3:4", needs="portrait"),
        _mirako("A tram climbing a steep street under blooming jacarandas", "2:3"),
        _mirako("Desert observatory at midnight, star trails turning above the dome", "3:2", blocking=True),
    ),
    "miragic": (
        _miragic("Paper lanterns drifting down a river between dark pines", "flux", "1024x768"),
        _miragic("A glass greenhouse glowing on a rainy rooftop at dusk", "turbo", "768x1024"),
        _miragic("Aerial view of a salt marsh braided with turquoise channels", "gptimage", "1280x720"),
        _miragic("Copper kettle and lemons on blue linen, painted in oil", "flux", "896x896"),
    ),
    "mira": (
        _mira("A cabin under northern lights, long exposure, snow up to the windows", "1024x1536", "high", n=2),
        _mira("Sailboats racing into a violet thunderstorm", "1536x1024", "medium"),
        _mira("Hummingbird at an orange trumpet flower, frozen in mid air", "1024x1024", "auto"),
    ),
    "milady": (
        _milady("A fox asleep among autumn leaves", "4:3", "origami", n=2),
        _milady("Night market in a harbour city, steam and neon", "21:9", "neon-punk"),
        _milady("A castle on the back of a swimming turtle", "3:4", "fantasy-art"),
        _milady("A cosy bookshop, seen from above", "1:1", "isometric", n=2),
    ),
}


def plan(pictures: int) -> list[Order]:
    """Return the orders for `pictures` pictures from each provider; a menu that is too short is gone through again."""
    orders: list[Order] = []
    for menu in _MENU.values():
        number = 1
        for order in cycle(menu):
            if number > pictures:
                break
            count = min(order.request.n or 1, pictures - number + 1)
            request = structs.replace(order.request, n=None if order.request.n is None else count)
            portrait = order.gives_portrait and number == 1
            orders.append(replace(order, request=request, number=number, gives_portrait=portrait))
            number += count
    return orders


def avatar_order(avatar_id: str, pictures: int) -> Order:
    """Return the order that draws a finished avatar, whose id stands in the prompt, after `pictures` other pictures."""
    prompt = f"Avatar {avatar_id} at the railing of the lighthouse at sunrise, in the red cap of [portrait]"
    order = _mirako(prompt, "16:9", needs="avatar")
    return replace(order, number=pictures + 1, slug="the-avatar-at-sunrise")
