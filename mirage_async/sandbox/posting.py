"""One POST to somebody on this machine or in its private network; nobody else is ever called."""

from __future__ import annotations

import asyncio
import io
import ipaddress
import socket

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

__all__ = ["RefusedError", "post"]

_PATIENCE = 10.0  # seconds of the machine's clock, since receivers are real programs
# Spelled out, since `is_private` also takes in link-local addresses, where clouds keep their secrets.
_NEAR = tuple(
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/32",
        "127.0.0.0/8",
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "::/128",
        "::1/128",
        "fc00::/7",
    )
)


class RefusedError(Exception):
    """Nothing will be sent there; the message says why."""


async def post(url: str, *, token: str | None, body: bytes) -> int:
    """Send JSON over a connection of its own, and return the status of the answer.

    Redirects are not followed, and neither the environment's proxies nor its passwords are used.

    Args:
        url: http or https address.
        token: sent as a bearer token; None sends none.
        body: encoded JSON.

    Raises:
        RefusedError: it must not be sent.
        ConnectionError: no answer came, at most 10 seconds of the machine's clock later.
    """
    try:
        async with asyncio.timeout(_PATIENCE):
            return await _send(_target(url, token), token, body)
    except TimeoutError:
        raise ConnectionError(f"no answer within {_PATIENCE:g} seconds") from None
    except (aiohttp.ClientError, OSError) as problem:
        raise ConnectionError(f"{type(problem).__name__}: {problem}") from problem


async def _send(target: URL, token: str | None, body: bytes) -> int:
    headers = {"Content-Type": "application/json", "User-Agent": "mirage-async-sandbox"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    resolver = _KnownAddresses(await _near_addresses(target))
    connector = aiohttp.TCPConnector(resolver=resolver, use_dns_cache=False, force_close=True)
    # The body is a stream, because the client warns of large bodies given as bytes.
    async with (
        aiohttp.ClientSession(connector=connector, trust_env=False) as session,
        session.post(target, data=io.BytesIO(body), headers=headers, allow_redirects=False) as response,
    ):
        return response.status


def _target(url: str, token: str | None) -> URL:
    """Return the address to send to; a token takes the place of a name and a password in it."""
    try:
        target = URL(url)
    except ValueError as problem:
        raise RefusedError(f"refused: {problem}") from None
    if not target.raw_host:
        raise RefusedError(f"refused: no host in {url!r}")
    if token is None:
        return target
    if not token.isprintable():
        raise RefusedError("refused: a header cannot hold what is in the auth_token")
    return target.with_user(None)


async def _near_addresses(target: URL) -> list[tuple[int, str]]:
    """Look a host up, once, and return what of it lies on this machine or in its private network."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(target.raw_host, target.port, type=socket.SOCK_STREAM)
    except UnicodeError as problem:
        raise RefusedError(f"refused: {problem}") from None
    near = [(int(family), str(address[0])) for family, _, _, _, address in found if _is_near(str(address[0]))]
    if not near:
        raise RefusedError("refused: not an address of this machine or its private network")
    return near


def _is_near(address: str) -> bool:
    ip = ipaddress.ip_address(address)
    # Connecting to a mapped address is connecting to the one inside it.
    plain = (ip.ipv4_mapped or ip) if isinstance(ip, ipaddress.IPv6Address) else ip
    return any(plain in network for network in _NEAR)


class _KnownAddresses(AbstractResolver):
    """Answers with addresses that have been looked up, and looked at, before."""

    def __init__(self, addresses: list[tuple[int, str]]) -> None:
        self._addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return them, whatever the host and the family."""
        del family
        flags = socket.AI_NUMERICHOST
        return [
            ResolveResult(hostname=host, host=address, port=port, family=kind, proto=0, flags=flags)
            for kind, address in self._addresses
        ]

    async def close(self) -> None:
        """Do nothing; there is nothing to close."""
