"""Which addresses a download may dial, and which links it may follow. Pure: nothing is resolved here.

A result link is somebody else's text. Without rules it could make this machine ask its own network for something, so
by default only https to public addresses is followed. The table is our own: the standard library's idea of "global"
takes multicast, translation prefixes and retired ranges for public, and differs between Python versions.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
from typing import TYPE_CHECKING, Final, TypeAlias

from yarl import URL

from mirage_async.exceptions import DownloadError

if TYPE_CHECKING:
    from typing import NoReturn

__all__ = ["check_link", "is_public", "without_query"]

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

LONGEST_LINK = 2048  # characters; signed storage links stay below this
HTTPS_PORT = 443

_NOT_PUBLIC_4: Final = tuple(
    ipaddress.IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this network; reaches this host on Linux
        "10.0.0.0/8",
        "100.64.0.0/10",  # shared between carriers and their customers
        "127.0.0.0/8",
        "169.254.0.0/16",  # link-local, with the clouds' metadata services
        "172.16.0.0/12",
        "192.0.0.0/24",  # protocol assignments
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # retired 6to4 relays
        "192.168.0.0/16",
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
)
_PUBLIC_6: Final = ipaddress.IPv6Network("2000::/3")  # all that was ever given out; NAT64 and the rest lie outside
_NOT_PUBLIC_6: Final = tuple(
    ipaddress.IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments, with Teredo: tunnels that carry any IPv4 address
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4, a tunnel as well
        "3fff::/20",  # documentation
    )
)

_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*\.?", re.ASCII)
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)
_UNSAFE = re.compile(r"[\x00-\x20\x7f\\]")


def is_public(address: str | Address) -> bool:
    """Whether an IP address belongs to the public internet; text that is no IP address does not."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is None:
            return parsed in _PUBLIC_6 and not any(parsed in network for network in _NOT_PUBLIC_6)
        parsed = parsed.ipv4_mapped
    return not any(parsed in network for network in _NOT_PUBLIC_4)


def check_link(url: str, *, allow_private: bool) -> URL:
    """Return the link as a URL that may be dialled, its escapes left as they are: a signature may cover them.

    A host name says nothing about the address behind it, so the address has to be checked again when it is dialled.

    Args:
        url: the link as somebody gave it.
        allow_private: take http, any port and any host, too; for results of a provider on this very machine.

    Raises:
        DownloadError: the link is not followed; the message says why, without user, password and query.
    """
    if len(url) > LONGEST_LINK:
        _refuse(url, f"is longer than {LONGEST_LINK} characters")
    if _UNSAFE.search(url):
        _refuse(url, "holds blanks, control characters or backslashes")
    link, host, port = _parse(url)
    if link is None or not host:
        _refuse(url, "is not an absolute address with a host")
    if link.scheme != "https" and not (allow_private and link.scheme == "http"):
        _refuse(url, "is not https")
    if "@" in link.raw_authority:
        _refuse(url, "holds a user name")
    literal = _literal(host)
    if literal is None and not _NAME.fullmatch(host):
        _refuse(url, "has no proper host name")
    if not allow_private:
        if port != HTTPS_PORT:
            _refuse(url, f"uses a port other than {HTTPS_PORT}")
        if not (_public_name(host) if literal is None else is_public(literal)):
            _refuse(url, "does not lead to a public address")
    return link


def without_query(url: str) -> str:
    """Return a link fit for messages and logs: no user, password, query or fragment, at most 200 characters."""
    scheme, colon, rest = re.split(r"[?#]", url, maxsplit=1)[0].partition("://")
    if not colon:
        return scheme.partition(",")[0][:80]  # of a data URL the type, not the payload
    authority, slash, path = rest.partition("/")
    return f"{scheme}://{authority.rpartition('@')[2]}{slash}{path}"[:200]


def _refuse(url: str, reason: str) -> NoReturn:
    shown = without_query(url)
    raise DownloadError(f"link refused, it {reason}: {shown!r}", url=shown)


def _parse(url: str) -> tuple[URL | None, str, int | None]:
    """Split a link; (None, "", None) where it is none."""
    with contextlib.suppress(ValueError):
        link = URL(url, encoded=url.isascii()).with_fragment(None)
        return link, (link.raw_host or "").lower(), link.port
    return None, "", None


def _literal(host: str) -> Address | None:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host.removesuffix("."))
    return None


def _public_name(host: str) -> bool:
    """Whether a host name can be public: it has a dot, and no resolver could take it for a number."""
    labels = host.removesuffix(".").split(".")
    return len(labels) > 1 and labels[-1] != "localhost" and not _NUMBER.fullmatch(labels[-1])
