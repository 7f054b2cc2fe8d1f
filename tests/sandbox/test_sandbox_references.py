"""References: which addresses and which base64 count as such."""

from __future__ import annotations

import base64

import pytest
from calling import data_url, encoded
from hypothesis import example, given
from hypothesis import strategies as st

from mirage_async.sandbox.answers import RefusalError
from mirage_async.sandbox.dialects.fields import Fields
from mirage_async.sandbox.dialects.references import (
    decode_base64,
    read_data_url,
    read_link,
    read_picture_or_link,
)

NOTHING = Fields({}, strict=True)


@pytest.mark.parametrize(
    "url",
    ["http://x/y", "https://example.com", "HTTPS://EXAMPLE.COM/A", "http://[::1]:8080/", "http://a:65535?b#c"],
)
def test_an_address_with_a_host_is_a_link(url: str) -> None:
    """The scheme may be written in capitals, and the port may be left out."""
    assert read_link(NOTHING, "url", url) == url
    assert read_picture_or_link(NOTHING, "url", url) == url.encode()


@pytest.mark.parametrize(
    "url",
    [
        "http://",
        "https:///a",
        "http://:80/",
        "http://user@/a",
        "http://exa mple.com",
        " http://example.com",
        "http://example.com/\n",
        "http://example.com/\x7f",
        "http://x:0/",
        "http://x:65536/",
        "http://x:y/",
        "http://[::1",
        "ftp://example.com/a",
        "example.com",
        "",
    ],
)
def test_an_address_nobody_could_call_is_no_link(url: str) -> None:
    """A host is wanted, a port there can be, and neither blanks nor control characters."""
    with pytest.raises(RefusalError, match=r"^url must be an http or https URL with a host, no spaces and no port"):
        read_link(NOTHING, "url", url)


def test_a_link_is_text() -> None:
    """A value of another type is refused as malformed."""
    with pytest.raises(RefusalError, match=r"^url must be text \(given: 5\)"):
        read_link(NOTHING, "url", 5)


@example(b"")
@given(st.binary(max_size=20))
def test_base64_is_whole_or_nothing(data: bytes) -> None:
    """What an encoder wrote is read; one sign more or fewer, or a sign of another kind, makes it unreadable."""
    text = base64.b64encode(data).decode()
    assert decode_base64(text) == data
    for spoilt in (text + "=", text + "A", text[:-1] or "A", text + "\n", text + "====", "é" + text):
        assert decode_base64(spoilt) is None


def test_only_strict_mode_minds_a_sign_too_many() -> None:
    """A picture with excess padding is refused in strict mode, and stands for itself in lenient mode."""
    url = data_url(encoded((8, 8))) + "="
    with pytest.raises(RefusalError, match="must hold a picture of the declared type image/png"):
        read_data_url(NOTHING, "source", url)
    assert read_data_url(Fields({}, strict=False), "source", url) == url.partition(",")[2].encode()
