"""Bytes in parts become one `bytes`, held once."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirage_async._growing import GrowingBytes


@given(parts=st.lists(st.binary(max_size=50)), expected=st.integers(-5, 400), begun=st.binary(max_size=100))
def test_what_was_added_comes_out_whatever_was_expected(parts: list[bytes], expected: int, begun: bytes) -> None:
    """The room made in advance is no part of the result, and neither is what was cut off."""
    growing = GrowingBytes(expected)
    growing.append(begun)
    left = begun[: len(begun) // 2]
    growing.cut(len(left))
    for part in parts:
        growing.append(part)
    assert len(growing) == len(left + b"".join(parts))
    assert growing.take() == left + b"".join(parts)


def test_taking_begins_again_with_nothing() -> None:
    """What was handed out is not written to any more."""
    growing = GrowingBytes(4)
    growing.append(b"abcd")
    taken = growing.take()
    growing.append(b"xy")
    assert (taken, growing.take(), growing.take()) == (b"abcd", b"xy", b"")


@pytest.mark.parametrize("expected", [0, 5 << 20, 6 << 20])
def test_the_bytes_are_held_once(expected: int) -> None:
    """Neither growing nor handing out makes a copy."""
    part = bytes(1 << 16)
    tracemalloc.start()
    try:
        growing = GrowingBytes(expected)
        for _ in range(80):
            growing.append(part)
        taken = growing.take()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(taken) == 80 << 16
    assert peak <= 1.25 * len(taken)
