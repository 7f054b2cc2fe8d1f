"""Which addresses count as public, and which links are followed."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirage_async._addresses import check_link, is_public, without_query
from mirage_async.exceptions import DownloadError

PRIVATE_ADDRESSES = [
    "0.0.0.0",  # noqa: S104 - nothing is bound here
    "10.1.2.3",
    "100.64.0.1",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.8",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.0.1",
    "198.19.0.1",
    "198.51.100.7",
    "203.0.113.7",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::7f00:1",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:db8::1",
    "2002:7f00:1::",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
]

PRIVATE_LINKS = [
    "https://127.0.0.1/x.png",
    "https://127.0.0.1./x.png",
    "https://127.1/x.png",
    "https://127.0.1/x.png",
    "https://0/x.png",
    "https://0.0.0.0/x.png",
    "https://2130706433/x.png",
    "https://0x7f000001/x.png",
    "https://0x7f.0.0.1/x.png",
    "https://0177.0.0.1/x.png",
    "https://017700000001/x.png",
    "https://x.0x7f/x.png",
    "https://127.0.0.1%2f@example.com/x.png",
    "https://①②⑦.⓪.⓪.①/x.png",
    "https://127。0。0。1/x.png",
    "https://localhost/x.png",
    "https://LOCALHOST./x.png",
    "https://app.localhost/x.png",
    "https://metadata/x.png",
    "https://169.254.169.254/latest/meta-data/",
    "https://10.0.0.5/x.png",
    "https://172.20.0.1/x.png",
    "https://192.168.1.1/x.png",
    "https://100.100.100.200/x.png",
    "https://[::1]/x.png",
    "https://[::]/x.png",
    "https://[::ffff:127.0.0.1]/x.png",
    "https://[::ffff:7f00:1]/x.png",
    "https://[0:0:0:0:0:0:0:1]/x.png",
    "https://[fe80::1%25eth0]/x.png",
    "https://[fd00:ec2::254]/x.png",
    "https://[64:ff9b::7f00:1]/x.png",
    "https://[2002:7f00:1::]/x.png",
    "https://[2001:db8::1]/x.png",
    "https://1.2.3.4@127.0.0.1/x.png",
    "https://example.com:pw@127.0.0.1/x.png",
    "https://@127.0.0.1/x.png",
    "https://example.com\\@127.0.0.1/x.png",
    "https://127.0.0.1\\.example.com/x.png",
    "https://%31%32%37.0.0.1/x.png",
]


@pytest.mark.parametrize("address", PRIVATE_ADDRESSES)
def test_a_private_address_is_not_public(address: str) -> None:
    """Everything that is not given out on the public internet is refused, whatever it is for."""
    assert not is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "1.1.1.1",
        "8.8.8.8",
        "172.15.0.1",
        "172.32.0.1",
        "192.0.1.1",
        "2606:4700::1111",
        "2a00:1450::1",
        "::ffff:8.8.8.8",
    ],
)
def test_a_public_address_is_public(address: str) -> None:
    """Addresses in the wild pass, also as text mapped into IPv6 or as objects."""
    assert is_public(address)
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("text", ["", "localhost", "127.1", "2130706433", "1.2.3.4.5", "/var/run/socket"])
def test_what_is_no_address_is_not_public(text: str) -> None:
    """Text that is no IP address is never dialled."""
    assert not is_public(text)


@given(st.ip_addresses(v=4))
def test_nothing_passes_that_the_standard_library_calls_private(address: ipaddress.IPv4Address) -> None:
    """Our table is at least as strict as the one it replaces."""
    assert not is_public(address) or address.is_global


@pytest.mark.parametrize("link", PRIVATE_LINKS)
def test_a_private_link_is_refused(link: str) -> None:
    """No spelling of a private host is followed."""
    with pytest.raises(DownloadError, match=r"^link refused, it ") as caught:
        check_link(link, allow_private=False)
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize(
    ("link", "reason"),
    [
        ("http://example.com/x.png", "is not https"),
        ("ftp://example.com/x.png", "is not https"),
        ("data:image/png;base64,aGk=", "is not an absolute address"),
        ("file:///etc/passwd", "is not an absolute address"),
        ("//example.com/x.png", "is not https"),
        ("/x.png", "is not an absolute address"),
        ("", "is not an absolute address"),
        ("https:///x.png", "is not an absolute address"),
        ("https://example.com:99999/", "is not an absolute address"),
        ("https://example.com:8443/", "uses a port other than 443"),
        ("https://user@example.com/", "holds a user name"),
        ("https://exa mple.com/", "holds blanks"),
        ("https://example.com/\r\nHost: x", "holds blanks"),
        ("https://exa!mple.com/", "has no proper host name"),
        ("https://example..com/", "has no proper host name"),
        ("https://example.com/" + "x" * 2048, "is longer than 2048 characters"),
    ],
)
def test_an_improper_link_is_refused(link: str, reason: str) -> None:
    """The message says what is wrong with the link."""
    with pytest.raises(DownloadError, match=reason):
        check_link(link, allow_private=False)


@pytest.mark.parametrize(
    "link",
    [
        "https://example.com",
        "https://example.com/x.png?sig=a%2Bb%7e&x=1+2",
        "https://example.com/a%2Fb",
        "https://cdn.example.com./x.png",
        "https://8.8.8.8/x.png",
        "https://[2606:4700::1111]/x.png",
    ],
)
def test_a_public_link_passes_with_its_escapes(link: str) -> None:
    """Escapes are left as they are: the signature of a storage link covers them."""
    assert str(check_link(link, allow_private=False)).rstrip("/") == link


def test_the_usual_port_may_be_spelt_out() -> None:
    """Port 443 is what https means."""
    assert check_link("https://example.com:443/x", allow_private=False).port == 443


def test_letters_beyond_ascii_are_encoded() -> None:
    """A readable link becomes the one that goes over the wire."""
    url = check_link("https://bücher.example/ä?q=ü#part", allow_private=False)
    assert url.raw_host == "xn--bcher-kva.example"
    assert url.raw_path_qs == "/%C3%A4?q=%C3%BC"


@pytest.mark.parametrize(
    "link", ["http://127.0.0.1:8080/x.png", "https://localhost/x", "http://[::1]:1/", "http://box/x"]
)
def test_private_links_pass_where_they_are_allowed(link: str) -> None:
    """A provider on this machine may hand out links to this machine."""
    assert str(check_link(link, allow_private=True)) == link


@pytest.mark.parametrize(
    "link", ["ftp://127.0.0.1/", "http://user@127.0.0.1/", "http://127.0.0.1/" + "x" * 2048, "x.png"]
)
def test_allowing_private_links_allows_nothing_else(link: str) -> None:
    """Scheme, user names and length are checked all the same."""
    with pytest.raises(DownloadError, match=r"^link refused"):
        check_link(link, allow_private=True)


def test_refusals_show_no_secret() -> None:
    """Neither password nor query reach the message or the attribute."""
    with pytest.raises(DownloadError, match="holds a user name") as caught:
        check_link("https://me:secret@example.com/x.png?token=secret#secret", allow_private=False)
    assert "secret" not in str(caught.value)
    assert caught.value.url == "https://example.com/x.png"


@pytest.mark.parametrize(
    ("link", "shown"),
    [
        ("https://a.example/x?y=1#z", "https://a.example/x"),
        ("https://u:p@a.example", "https://a.example"),
        ("nonsense?token", "nonsense"),
        ("data:image/png;base64," + "A" * 500, "data:image/png;base64"),
    ],
)
def test_links_are_shown_without_their_secrets(link: str, shown: str) -> None:
    """What logs and messages get is short and has no user, query or fragment."""
    assert without_query(link) == shown
