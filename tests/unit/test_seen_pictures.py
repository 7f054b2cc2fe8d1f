"""What a download keeps of a picture to judge it by, in whatever pieces that comes. Nothing is fetched."""

from __future__ import annotations

import io
import random
import struct

from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mirage_async import _fetching, media

FEW, MANY = _fetching._HEAD, _fetching._LONGEST_HEAD


def encoded(kind: str) -> bytes:
    """Return a picture of noise that is longer than the beginning that is kept."""
    buffer = io.BytesIO()
    Image.frombytes("RGB", (90, 80), random.Random(3).randbytes(90 * 80 * 3)).save(buffer, kind, quality=95)
    return buffer.getvalue()


JPEG = encoded("JPEG")
PICTURES = [encoded(kind) for kind in ("PNG", "GIF", "WEBP", "AVIF")]
AROUND = [length + more for length in (FEW, MANY) for more in range(-9, 3)]


def jpeg(metadata: list[int]) -> bytes:
    """Return one with segments of these lengths before its size."""
    return JPEG[:2] + b"".join(b"\xff\xe1" + struct.pack(">H", 2 + size) + bytes(size) for size in metadata) + JPEG[2:]


def avif(boxes: list[int]) -> bytes:
    """Return what has boxes of such lengths between its first one and that of its data."""
    outer = b"".join(struct.pack(">I4s", 8 + size, b"meta") + bytes(size) for size in boxes)
    return struct.pack(">I4s4sI", 16, b"ftyp", b"avif", 0) + outer + struct.pack(">I4s", 16, b"mdat") + bytes(8)


def seen_in_pieces(data: bytes, sizes: list[int]) -> media.Facts | str:
    """Return the verdict on what comes in pieces of these sizes, and then all at once, in a room that is used again."""
    seen, room, start = _fetching._Seen(), bytearray(len(data)), 0
    for size in (*sizes, len(data)):
        piece = data[start : start + size]
        room[: len(piece)] = piece
        seen.add(memoryview(room)[: len(piece)])
        room[: len(piece)] = bytes(len(piece))
        start += len(piece)
    assert seen.length == len(data)
    try:
        return seen.facts()
    except _fetching.AgainError as error:
        return str(error)


@given(
    data=st.one_of(
        st.sampled_from([JPEG, *PICTURES, b"", b"<html>" + bytes(FEW)]),
        st.lists(st.sampled_from([0, 700, FEW - 30, FEW - 4, FEW, 30_000, 65_533]), max_size=6).map(jpeg),
        st.lists(st.sampled_from([0, 700, FEW - 30, FEW - 24, FEW, 30_000, MANY - 30]), max_size=4).map(avif),
    ),
    end=st.one_of(st.none(), st.sampled_from([-1, -40, *AROUND])),
    sizes=st.lists(
        st.sampled_from([0, 1, 7, 700, FEW - 1, FEW, FEW + 1, 100_000, MANY - 1, MANY, MANY + 1]), max_size=8
    ),
)
def test_the_verdict_is_the_same_as_on_a_long_beginning_however_it_is_cut(
    data: bytes, end: int | None, sizes: list[int]
) -> None:
    """Whether all of the picture comes or not: of what is kept no byte is missing, and none is there twice."""
    data = data[:end]
    facts = media.inspect(data[:MANY])
    reason = media.incomplete(data[:MANY], data[-64:], len(data), facts=facts)
    expected = facts if reason is None else reason if facts is not None else f"the answer is {reason}"
    assert seen_in_pieces(data, sizes) == expected
