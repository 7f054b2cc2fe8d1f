"""Portable parameters: read strictly, honoured exactly, refused with the nearest that is possible."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirage_async.clients import milady, mira, miragic, mirako
from mirage_async.clients._portable import (
    nearest_ratios,
    one_of_two,
    only,
    ratio_of,
    refuse_unsupported,
    size_of,
    with_options,
)
from mirage_async.exceptions import InputError
from mirage_async.models import ImageRequest, Reference

MIRAKO_RATIOS = ("16:9", "1:1", "4:3", "3:2", "2:3", "3:4", "9:16")


@given(st.integers(1, 9999), st.integers(1, 9999))
def test_a_ratio_reads_as_two_numbers(width: int, height: int) -> None:
    """Two whole numbers with a colon."""
    assert ratio_of(f"{width}:{height}", "mira") == (width, height)


@given(st.integers(1, 99999), st.integers(1, 99999))
def test_a_size_reads_as_two_numbers(width: int, height: int) -> None:
    """Two whole numbers with an x."""
    assert size_of(f"{width}x{height}", "mira") == (width, height)


ODD = [
    "",
    "1",
    "0:1",
    "1:0",
    "01:1",
    " 1:1",
    "1:1 ",
    "1:1\n",
    "1.5:1",
    "-1:1",
    "10000:1",
    "\u0661:\u0661",
    None,
    1.5,
    (1, 1),
]


@pytest.mark.parametrize("text", [*ODD, "1x1"])
def test_a_ratio_of_any_other_form_is_refused(text: Any) -> None:
    """The message shows the form and what was given."""
    with pytest.raises(InputError, match=re.escape(f'aspect_ratio must look like "16:9"; got {text!r}')):
        ratio_of(text, "mira")


@pytest.mark.parametrize("text", [*ODD, "1:1", "0x1", "1x", "100000x1", "1X1", "1x1x1"])
def test_a_size_of_any_other_form_is_refused(text: Any) -> None:
    """The message shows the form and what was given."""
    with pytest.raises(InputError, match=re.escape('size must look like "1024x768"')):
        size_of(text, "mira")


@pytest.mark.parametrize(
    ("asked", "nearest"),
    [
        ((21, 9), ["16:9", "3:2"]),
        ((5, 4), ["4:3", "3:2"]),
        ((1, 100), ["9:16", "2:3"]),
        ((32, 18), ["16:9", "3:2"]),
        ((7, 5), ["4:3", "3:2"]),
    ],
)
def test_the_nearest_ratios_come_first(asked: tuple[int, int], nearest: list[str]) -> None:
    """Nearness is by factor, so that wide and tall are treated alike."""
    assert nearest_ratios(asked, MIRAKO_RATIOS) == nearest
    mirrored = nearest_ratios((asked[1], asked[0]), MIRAKO_RATIOS)
    assert mirrored == [":".join(reversed(ratio.split(":"))) for ratio in nearest]


@given(st.integers(1, 9999), st.integers(1, 9999), st.integers(1, 7))
def test_nothing_left_out_is_nearer(width: int, height: int, most: int) -> None:
    """The ratios given are the best there are, in order."""

    def distance(text: str) -> float:
        left, right = map(int, text.split(":"))
        return abs(math.log(left * height / (right * width)))

    found = nearest_ratios((width, height), MIRAKO_RATIOS, most=most)
    distances = [distance(ratio) for ratio in found]
    assert len(found) == most
    assert distances == pytest.approx(sorted(map(distance, MIRAKO_RATIOS))[:most])


def test_a_value_outside_the_allowed_is_refused_with_a_hint() -> None:
    """The allowed values are listed."""
    only("n", 1, (None, 1), provider="mirako")
    message = "n must be None or 1 at mirako; got 2: submit several requests"
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        only("n", 2, (None, 1), provider="mirako", hint=": submit several requests")
    assert caught.value.provider == "mirako"


def test_what_a_provider_has_nothing_for_is_refused() -> None:
    """None and an empty sequence are no wishes; everything else is, 0 included."""
    refuse_unsupported(ImageRequest(prompt="x"), "mira", {"seed": "a", "references": "b"})
    with pytest.raises(InputError, match="mira has no seed; got 0: its page documents none"):
        refuse_unsupported(ImageRequest(prompt="x", seed=0), "mira", {"seed": "its page documents none"})
    with pytest.raises(InputError, match="mira has no size"):
        refuse_unsupported(ImageRequest(prompt="x", size=""), "mira", {"size": "a"})


def test_size_and_ratio_together_are_one_too_many() -> None:
    """One says everything."""
    one_of_two(ImageRequest(prompt="x", size="1x1"), "mira")
    one_of_two(ImageRequest(prompt="x", aspect_ratio="1:1"), "mira")
    with pytest.raises(InputError, match="give size or aspect_ratio, not both; got '1x1' and '1:1'"):
        one_of_two(ImageRequest(prompt="x", size="1x1", aspect_ratio="1:1"), "mira")


def test_options_add_the_providers_own_parameters() -> None:
    """What a provider has beyond the portable words goes through `options`, and `max_wait` along with it."""
    request = ImageRequest(prompt="x", options={"quality": "high"}, max_wait=5)
    assert with_options(request, {"size": None}, ("quality",), "mira") == {
        "size": None,
        "quality": "high",
        "max_wait": 5,
    }
    assert with_options(ImageRequest(prompt="x"), {}, (), "mira") == {}


def test_an_option_may_fill_what_was_left_open_and_no_more() -> None:
    """An option that says again what a portable parameter said is refused, never guessed about."""
    request = ImageRequest(prompt="x", options={"width": 512})
    assert with_options(request, {"width": None}, ("width",), "miragic") == {"width": 512}
    message = "options repeats width, which is already given as 256; got 512"
    with pytest.raises(InputError, match=message):
        with_options(request, {"width": 256}, ("width",), "miragic")


@pytest.mark.parametrize(("allowed", "listed"), [(("a", "b"), "'a', 'b'"), ((), "none")])
def test_an_option_nobody_knows_is_refused(allowed: tuple[str, ...], listed: str) -> None:
    """The message lists those there are."""
    request = ImageRequest(prompt="x", options={"colour": "green"})
    with pytest.raises(InputError, match=f"options must be among {listed} at mira; got 'colour'"):
        with_options(request, {}, allowed, "mira")


# --- one provider's translation each ---


@given(st.integers(1, 8), st.integers(1, 8))
def test_miragic_honours_a_ratio_to_the_pixel(width: int, height: int) -> None:
    """Any ratio up to 8:1 has an exact size in range, its long side near the usual one."""
    found = miragic._pixels(f"{width}:{height}")
    assert found[0] * height == found[1] * width
    assert all(256 <= side <= 2048 for side in found)
    assert max(found) <= 1024 + 8 or min(found) < 256 + 8


def test_miragic_takes_the_largest_ratio_that_fits() -> None:
    """A ratio that is its own size is taken as it is."""
    assert miragic._pixels("2047:2046") == (2047, 2046)
    assert miragic._pixels("8:1") == (2048, 256)


@pytest.mark.parametrize("text", ["9:1", "1:9", "9999:1", "2049:2048", "257:1"])
def test_miragic_refuses_a_ratio_without_an_exact_size(text: str) -> None:
    """Nothing is rounded in silence."""
    with pytest.raises(InputError, match=f"aspect_ratio must have an exact size between 256 and 2048 .*{text}"):
        miragic._pixels(text)


REFUSALS: list[tuple[Any, dict[str, Any], str]] = [
    (mirako, {"size": "1024x1024"}, "mirako has no size; got '1024x1024': use aspect_ratio, one of 16:9"),
    (mirako, {"model": "x"}, "mirako has no model"),
    (mirako, {"n": 2}, "n must be None or 1 at mirako; got 2: submit several requests"),
    (mirako, {"aspect_ratio": "21:9"}, "; got '21:9', nearest 16:9 or 3:2"),
    (mirako, {"aspect_ratio": "wide"}, "aspect_ratio must look like"),
    (miragic, {"seed": 1}, "miragic has no seed"),
    (miragic, {"n": 3}, "n must be None or 1 at miragic; got 3: submit several requests"),
    (miragic, {"size": "big"}, "size must look like"),
    (miragic, {"references": (b"x",)}, "references must be one http(s) URL at miragic"),
    (miragic, {"references": ("https://a.example/1", "https://a.example/2")}, "; got 2 of type str"),
    (miragic, {"references": (Reference(b"x"),)}, "; got 1 of type bytes"),
    (miragic, {"size": "512x512", "aspect_ratio": "1:1"}, "give size or aspect_ratio, not both"),
    (mira, {"seed": 1}, "mira has no seed"),
    (mira, {"model": "x"}, "mira has no model"),
    (mira, {"max_wait": 5}, "mira has no max_wait"),
    (mira, {"aspect_ratio": "16:9"}, "; got '16:9', nearest 3:2 (1536x1024) or 1:1 (1024x1024)"),
    (milady, {"size": "1024x1024"}, "milady has no size"),
    (milady, {"seed": 1}, "milady has no seed"),
    (milady, {"max_wait": 5}, "milady has no max_wait"),
    (milady, {"references": (b"1", b"2")}, "references must be at most 1 picture at milady; got 2"),
    (milady, {"aspect_ratio": "3:2"}, "; got '3:2', nearest 4:3 or 16:9"),
]


@pytest.mark.parametrize(
    ("module", "parameters", "message"), REFUSALS, ids=[f"{row[0].__name__[21:]} {row[1]}" for row in REFUSALS]
)
def test_what_a_provider_cannot_honour_is_refused(module: Any, parameters: dict[str, Any], message: str) -> None:
    """Each refusal names the parameter and what to use instead."""
    request = ImageRequest(prompt="x", **parameters)
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        module._arguments(request, ()) if module is mirako else module._arguments(request)
    assert caught.value.provider == module.__name__.rpartition(".")[2]
    assert caught.value.billed == "no"
