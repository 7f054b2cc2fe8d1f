"""Tokens: small, without secrets, and read back with care."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirage_async.exceptions import InputError
from mirage_async.jobs import Token, read_token

SAMPLE = Token(provider="miragic", kind="image", id="abc-1", key="0f" * 16, model="flux")


@given(st.tuples(st.text(), st.text(), st.text(), st.text()), st.none() | st.text())
def test_a_token_says_the_same_after_the_round_trip(words: tuple[str, str, str, str], model: str | None) -> None:
    """Writing and reading a token loses nothing, whatever the fields hold."""
    provider, kind, job_id, key = (word[:50] for word in words)
    token = Token(provider=provider, kind=kind, id=job_id, key=key, model=model and model[:50])
    assert read_token(token.text()) == token


def test_a_token_is_a_small_json_object_with_these_fields_only() -> None:
    """A token names the job and nothing else: no key of the provider, no prompt, no payload."""
    fields = json.loads(SAMPLE.text())
    assert fields == {
        "mirage": "job",
        "provider": "miragic",
        "kind": "image",
        "id": "abc-1",
        "key": "0f" * 16,
        "model": "flux",
    }
    assert len(SAMPLE.text()) < 300


@pytest.mark.parametrize("text", ["abc-1", "", "0", "  abc", '"{"', "[1]"])
def test_text_that_does_not_begin_like_a_token_may_be_a_bare_id(text: str) -> None:
    """Only an opening brace makes a text a token; anything else is left to whoever checks ids."""
    assert read_token(text) is None


def test_white_space_around_a_token_is_forgiven() -> None:
    """A token copied with a line break is still a token."""
    assert read_token(f"\n  {SAMPLE.text()}\n") == SAMPLE


def test_a_field_of_a_later_version_is_ignored() -> None:
    """A token written by a newer version can be read by an older one."""
    fields = json.loads(SAMPLE.text()) | {"colour": "green"}
    assert read_token(json.dumps(fields)) == SAMPLE


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "{}",
        '{"mirage": "job"}',
        '{"mirage": "avatar", "provider": "x", "kind": "image", "id": "1", "key": "k"}',
        '{"mirage": "job", "provider": 1, "kind": "image", "id": "1", "key": "k"}',
        '{"mirage": "job", "provider": "x", "kind": "image", "id": "1", "key": "k"} trailing',
        '{"a":' * 500,
        '{"mirage": "job", "provider": "x", "kind": "image", "id": "' + "1" * 3000 + '", "key": "k"}',
        '{"mirage": "job", "provider": "\ud800", "kind": "image", "id": "1", "key": "k"}',
    ],
    ids=["cut", "empty", "no fields", "other tag", "wrong type", "trailing", "deep", "huge", "surrogate"],
)
def test_text_that_begins_like_a_token_and_is_none_is_refused(text: str) -> None:
    """A damaged token is an input error that repeats at most its first 60 characters."""
    with pytest.raises(InputError, match=r"token must be what Job\.token\(\) returned") as caught:
        read_token(text)
    assert len(str(caught.value)) < 200
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@given(st.text(max_size=100).map(lambda text: "{" + text))
def test_no_text_makes_the_reader_raise_anything_else(text: str) -> None:
    """Whatever begins with a brace is a token or an `InputError`."""
    with contextlib.suppress(InputError):
        assert isinstance(read_token(text), Token)
