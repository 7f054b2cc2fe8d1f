"""Base64 both ways, with and without the fast library."""

from __future__ import annotations

import base64
import importlib.util
import sys
from typing import TYPE_CHECKING, Any, cast
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirage_async import _base64

if TYPE_CHECKING:
    from types import ModuleType


@given(st.binary(max_size=300))
def test_base64_goes_there_and_back(data: bytes) -> None:
    """What was encoded is decoded to the same bytes, in every tolerated form."""
    text = _base64.encode_base64(data).decode()
    broken = "\n".join(text[start : start + 5] for start in range(0, len(text), 5))
    for form in (text, text.encode(), text.rstrip("="), broken, f" {text}\r\n", f"data:image/png;base64,{text}"):
        assert _base64.decode_base64(form) == data


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "ab*=",
        "aGk_",
        "aGk-",
        "é",
        "aG=k",
        "aGk==",
        "aGk====",
        "=",
        "data:" + "x" * 400,
        "data:;base64,!",
        "aGVs\x00bG8=",
    ],
)
def test_what_is_not_base64_is_refused(text: str) -> None:
    """Characters outside the alphabet, wrong padding and impossible lengths raise, and the text is not repeated."""
    with pytest.raises(ValueError, match=r"^not base64: <") as caught:
        _base64.decode_base64(text)
    assert caught.value.__context__ is None


def without_the_fast_library() -> ModuleType:
    """Return the module as it is where the `speed` extra is not installed."""
    spec = importlib.util.find_spec("mirage_async._base64")
    assert spec is not None
    assert spec.loader is not None
    plain = importlib.util.module_from_spec(spec)
    with patch.dict(sys.modules, {"pybase64": None}):
        spec.loader.exec_module(plain)
    return plain


def decoded(module: ModuleType, text: bytes) -> bytes | None:
    """Return the bytes, or None where the text is refused."""
    try:
        return cast("bytes", module.decode_base64(text))
    except ValueError:
        return None


PLAIN = without_the_fast_library()
ALMOST_BASE64 = st.text(alphabet='QUJD09+/== \n-"\\é', max_size=14).map(str.encode)


@given(text=ALMOST_BASE64)
def test_every_text_is_taken_or_refused_alike_without_the_fast_library(text: bytes) -> None:
    """The extra makes it fast, not different; strictness about padding and alphabet included."""
    assert decoded(PLAIN, text) == decoded(_base64, text)


@given(
    text=st.one_of(ALMOST_BASE64, st.binary(max_size=600).map(_base64.encode_base64)),
    prefix=st.sampled_from([b"", b"data:image/png;base64,", b" DATA:,", b"data:", b"data:" + b"x" * 249 + b","]),
    sizes=st.lists(st.integers(0, 9), min_size=1) | st.just([300]),
    module=st.sampled_from(["fast", "plain"]),
    expected=st.integers(0, 500),
)
def test_base64_in_parts_is_taken_or_refused_like_the_whole(
    text: bytes, prefix: bytes, sizes: list[int], module: str, expected: int
) -> None:
    """Wherever it is cut: in the prefix, in the padding, inside of four characters."""
    chosen = _base64 if module == "fast" else PLAIN
    decoder = chosen.Base64Decoder(expected=expected)
    left = whole = prefix + text
    try:
        for size in (*sizes, *[max(sizes[-1], 1)] * len(whole)):
            decoder.feed(left[:size])
            left = left[size:]
        found: bytes | None = decoder.finish()
    except ValueError:
        found = None
    assert found == decoded(chosen, whole)


@pytest.mark.parametrize("chosen", [_base64, PLAIN], ids=["fast", "plain"])
def test_long_texts_in_lines_or_with_a_flaw_far_inside_are_taken_or_refused_like_the_whole(chosen: Any) -> None:
    """What was decoded before the flaw was met is forgotten again: the part can still be taken without it."""
    data = bytes(range(256)) * 1500
    text = base64.b64encode(data)
    lines = chosen.Base64Decoder()
    for start in range(0, 600_000, 1000):
        lines.feed(base64.encodebytes(data)[start : start + 1000])
    assert lines.finish() == data
    decoder = chosen.Base64Decoder()
    decoder.feed(text[:1002])
    assert not decoder.takes(text[1002:300_001] + b"-" + text[300_002:])
    assert decoder.takes(memoryview(text)[1002:])
    assert decoder.finish() == data


def test_the_standard_library_decodes_alike() -> None:
    """Without the fast library the same texts are taken and refused."""
    plain = PLAIN
    assert plain._decode_strictly is not _base64._decode_strictly
    assert plain.encode_base64(b"hello") == b"aGVsbG8="
    assert plain.decode_base64(" aGVs\nbG8 ") == b"hello"
    for wrong in ("a", "aG=k", "aGk_", "aGk====", "é"):
        with pytest.raises(ValueError, match=r"^not base64"):
            plain.decode_base64(wrong)
