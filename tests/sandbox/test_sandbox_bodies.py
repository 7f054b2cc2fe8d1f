"""Bodies: any bytes under any content type decode to something."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirage_async.sandbox.bodies import decode_body

TYPES = ["", "application/json", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]


@given(st.sampled_from(TYPES), st.binary() | st.text().map(lambda text: f"--x\r\n{text}\r\n--x--".encode()))
def test_no_bytes_upset_the_decoder(content_type: str, raw: bytes) -> None:
    """Whatever arrives is a form, a JSON object, empty or unreadable, and only the first two have fields."""
    body = decode_body(content_type, raw)
    assert body.kind in {"json", "form", "empty", "unreadable"}
    assert not body.fields or body.kind in {"json", "form"}


@pytest.mark.parametrize("content_type", ["multipart/form-data", "multipart/form-data; boundary=\udcff", "\udcff"])
def test_an_unusable_content_type_makes_a_body_unreadable(content_type: str) -> None:
    """A boundary that is missing or not text leaves nothing to read."""
    assert decode_body(content_type, b"--x\r\n\r\n--x--").kind == "unreadable"


def test_later_form_fields_win() -> None:
    """Of two fields with one name the last is kept, blank ones included."""
    assert decode_body("application/x-www-form-urlencoded; charset=utf-8", b"a=1&a=&b=%C3%BC").fields == {
        "a": "",
        "b": "ü",
    }


def test_parts_in_parts_without_end_are_unreadable() -> None:
    """A multipart body of thousands of multiparts ends no interpreter."""
    depth = 5000
    raw = b"".join(
        b"--b%d\r\nContent-Type: multipart/mixed; boundary=b%d\r\n\r\n" % (level, level + 1) for level in range(depth)
    )
    body = decode_body("multipart/form-data; boundary=b0", raw)
    assert (body.kind, body.fields) == ("unreadable", {})
