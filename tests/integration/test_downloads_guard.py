"""What a download may reach: redirects, private addresses in every spelling, proxies, certificates."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from picture_servers import PNG, QuickClock, linked, serving
from yarl import URL

from mirage_async import _addresses, _fetching
from mirage_async.downloads import Downloader
from mirage_async.exceptions import DownloadError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

pytestmark = pytest.mark.anyio


@pytest.fixture
def clock() -> QuickClock:
    """Return the clock the downloader of the test waits on."""
    return QuickClock()


@pytest.fixture
async def downloader(clock: QuickClock) -> AsyncIterator[Downloader]:
    """Return a downloader that is closed after the test."""
    downloader = Downloader(clock=clock, limit=4, max_bytes=8 << 20)
    yield downloader
    await downloader.aclose()


def moved(target: str, status: int = 302) -> tuple[int, bytes, dict[str, str]]:
    """Return a redirect."""
    return status, b"", {"Location": target}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_followed(downloader: Downloader, status: int) -> None:
    """A relative redirect leads to the picture."""
    async with serving(moved("/y.png", status), (200, PNG)) as server:
        assert await linked(downloader, server.url).read() == PNG
        assert server.requests[1].path == "/y.png"


async def test_five_redirects_are_the_most(downloader: Downloader, clock: QuickClock) -> None:
    """Five hops are followed, a sixth is not."""
    async with serving(*[moved("/y")] * 5, (200, PNG)) as server:
        assert await linked(downloader, server.url).read() == PNG
    async with serving(moved("/y")) as server:
        with pytest.raises(DownloadError, match="more than 5 redirects"):
            await linked(downloader, server.url).read()
        assert len(server.requests) == 6
    assert clock.slept == []


@pytest.fixture
def dialled(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Record every address a socket is connected to in this test."""
    addresses: list[Any] = []
    original = asyncio.SelectorEventLoop.sock_connect

    async def record(self: asyncio.SelectorEventLoop, sock: socket.socket, address: Any) -> None:
        addresses.append(address[0])
        await original(self, sock, address)

    monkeypatch.setattr(asyncio.SelectorEventLoop, "sock_connect", record)
    return addresses


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[tuple[str, int]]]:
    """Let host names resolve to the addresses (and ports) a test puts into this mapping."""
    table: dict[str, list[tuple[str, int]]] = {}

    async def look_up(_self: object, host: str, _port: object, **_options: object) -> list[Any]:
        if host not in table:
            raise socket.gaierror(socket.EAI_NONAME, "unknown name")
        return [
            (socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address, port in table[host]
        ]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", look_up)
    return table


PRIVATE_LINKS = [
    "http://127.0.0.1/x",
    "https://127.0.0.1/x",
    "https://127.0.0.1:8443/x",
    "https://127.1/x",
    "https://0/x",
    "https://0.0.0.0/x",
    "https://2130706433/x",
    "https://0x7f000001/x",
    "https://0x7f.0.0.1/x",
    "https://0177.0.0.1/x",
    "https://①②⑦.⓪.⓪.①/x",
    "https://127。0。0。1/x",
    "https://localhost/x",
    "https://localhost./x",
    "https://a.localhost/x",
    "https://metadata/x",
    "https://169.254.169.254/x",
    "https://10.0.0.1/x",
    "https://172.16.0.1/x",
    "https://192.168.0.1/x",
    "https://100.64.0.1/x",
    "https://192.0.0.8/x",
    "https://224.0.0.1/x",
    "https://[::1]/x",
    "https://[::]/x",
    "https://[::ffff:127.0.0.1]/x",
    "https://[fe80::1]/x",
    "https://[fc00::1]/x",
    "https://[fec0::1]/x",
    "https://[ff02::1]/x",
    "https://[64:ff9b::7f00:1]/x",
    "https://[2002:7f00:1::]/x",
    "https://1.2.3.4@127.0.0.1/x",
    "ftp://127.0.0.1/x",
    "file:///etc/passwd",
]


@pytest.mark.parametrize("url", PRIVATE_LINKS)
async def test_a_private_link_is_never_dialled(downloader: Downloader, dialled: list[Any], url: str) -> None:
    """A link to this machine or its network is refused without a connection."""
    image = linked(downloader, url, allow_private=False)
    with pytest.raises(DownloadError, match=r"^link refused") as caught:
        await image.read()
    assert caught.value.provider == "milady"
    assert dialled == []


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch, names: dict[str, list[tuple[str, int]]]) -> Callable[[str], str]:
    """Let one test server pass for a public host: return the function that gives it its public link."""

    def public(url: str) -> str:
        names["cdn.example"] = [("127.0.0.1", URL(url).port or 0)]
        link = "http://cdn.example/x.png"
        monkeypatch.setattr(
            _fetching,
            "check_link",
            lambda text, **rules: URL(text) if text == link else _addresses.check_link(text, **rules),
        )
        monkeypatch.setattr(
            _fetching, "is_public", lambda address: address == "127.0.0.1" or _addresses.is_public(address)
        )
        return link

    return public


@pytest.mark.parametrize("target", PRIVATE_LINKS)
async def test_a_redirect_to_a_private_link_is_never_dialled(
    downloader: Downloader, dialled: list[Any], trusted: Callable[[str], str], target: str
) -> None:
    """The second hop obeys the rules of the first."""
    async with serving(moved(target)) as server:
        image = linked(downloader, trusted(server.url), allow_private=False)
        with pytest.raises(DownloadError, match=r"^link refused"):
            await image.read()
        assert dialled == ["127.0.0.1"]
        assert len(server.requests) == 1


@pytest.mark.parametrize("location", ["https://[", "https://exa mple.com/", ""])
async def test_a_malformed_redirect_is_refused(
    downloader: Downloader, trusted: Callable[[str], str], location: str
) -> None:
    """Where the target cannot be understood or leads round in circles, the download ends."""
    async with serving(moved(location)) as server:
        image = linked(downloader, trusted(server.url), allow_private=False)
        with pytest.raises(DownloadError, match=r"^link refused|more than 5 redirects"):
            await image.read()


@pytest.mark.parametrize(
    "addresses", [["127.0.0.1"], ["10.0.0.1", "192.168.0.1"], ["::1", "127.0.0.1"], ["169.254.169.254"]]
)
async def test_a_name_of_a_private_address_is_never_dialled(
    downloader: Downloader,
    dialled: list[Any],
    names: dict[str, list[tuple[str, int]]],
    clock: QuickClock,
    addresses: list[str],
) -> None:
    """A public name does not help: every address is checked when it is dialled, and there is no second attempt."""
    names["rebind.example"] = [(address, 443) for address in addresses]
    with pytest.raises(DownloadError, match=r"does not lead to a public address: https://rebind.example/x"):
        await linked(downloader, "https://rebind.example/x?sig=1", allow_private=False).read()
    assert dialled == []
    assert clock.slept == []


async def test_a_redirect_to_a_name_of_a_private_address_is_never_dialled(
    downloader: Downloader,
    dialled: list[Any],
    names: dict[str, list[tuple[str, int]]],
    trusted: Callable[[str], str],
) -> None:
    """Neither do redirect and name together."""
    names["rebind.example"] = [("127.0.0.2", 443)]
    async with serving(moved("https://rebind.example/x")) as server:
        with pytest.raises(DownloadError, match="does not lead to a public address"):
            await linked(downloader, trusted(server.url), allow_private=False).read()
    assert dialled == ["127.0.0.1"]


async def test_a_name_with_one_public_address_is_reached_there(
    downloader: Downloader,
    dialled: list[Any],
    names: dict[str, list[tuple[str, int]]],
    trusted: Callable[[str], str],
) -> None:
    """The guard passes over the private address of a mixed record and goes on to the public one."""
    async with serving((200, PNG)) as server:
        link = trusted(server.url)
        names["cdn.example"].insert(0, ("10.0.0.1", 80))
        assert await linked(downloader, link, allow_private=False).read() == PNG
    assert dialled == ["127.0.0.1"]


async def test_an_unknown_name_is_trouble_with_the_connection(
    downloader: Downloader, names: dict[str, list[tuple[str, int]]], clock: QuickClock
) -> None:
    """Name servers have bad moments; the name is looked up again."""
    with pytest.raises(DownloadError, match="not fetched in 8 attempts, last: ClientConnectorDNSError"):
        await linked(downloader, "https://gone.example/x", allow_private=False).read()
    assert len(clock.slept) == 7


async def test_connections_to_private_addresses_are_kept_apart(
    downloader: Downloader, dialled: list[Any], names: dict[str, list[tuple[str, int]]]
) -> None:
    """A kept connection that was allowed to be private never serves a link that may not reach one."""
    async with serving((200, PNG)) as server:
        port = URL(server.url).port or 0
        names["cdn.example"] = [("127.0.0.1", port)]
        assert await linked(downloader, f"http://cdn.example:{port}/x").read() == PNG
        del dialled[:]
        with pytest.raises(DownloadError, match=r"^link refused"):
            await linked(downloader, f"http://cdn.example:{port}/x", allow_private=False).read()
        names["cdn.example"] = [("127.0.0.1", 443)]
        with pytest.raises(DownloadError, match="does not lead to a public address"):
            await linked(downloader, "https://cdn.example/x", allow_private=False).read()
    assert dialled == []


async def test_an_untrusted_certificate_ends_it_at_once(
    downloader: Downloader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A certificate does not get better by asking again."""
    key = aiohttp.client_reqrep.ConnectionKey("cdn.example", 443, True, True, None, None, None)  # noqa: FBT003
    error = aiohttp.ClientConnectorCertificateError(key, ValueError("expired"))

    def refuse(*_arguments: object, **_options: object) -> None:
        raise error

    monkeypatch.setattr(aiohttp.ClientSession, "get", refuse)
    with pytest.raises(DownloadError, match=r"certificate is not valid: https://cdn.example/x"):
        await linked(downloader, "https://cdn.example/x?sig=1", allow_private=False).read()


async def test_behind_a_proxy_the_proxy_dials(clock: QuickClock) -> None:
    """The proxy itself may be private; literal private links are refused all the same."""
    async with serving((200, PNG)) as proxy:
        downloader = Downloader(clock=clock, proxy=proxy.url.partition("/x.png")[0])
        assert await linked(downloader, "http://pictures.example/a.png").read() == PNG
        assert proxy.requests[0].headers["Host"] == "pictures.example"
        with pytest.raises(DownloadError, match="does not lead to a public address"):
            await linked(downloader, "https://10.0.0.1/x", allow_private=False).read()
        assert len(proxy.requests) == 1
        await downloader.aclose()
