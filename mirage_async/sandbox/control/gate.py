"""Who may give orders, and in what form: the way of one control request.

A sandbox has no keys of its own, and every web page a developer has open can make the browser send requests to this
machine. So orders must carry a content type that a browser does not send for a stranger without asking first, which is
never granted; and what they are addressed to must be an address or a name that no stranger can own, since a name of
one's own can be made to lead here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import msgspec
from aiohttp import web

from mirage_async.sandbox.answers import Answer, json_answer
from mirage_async.sandbox.control.views import plain

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["DeniedError", "Order", "check_host", "read_order", "respond", "whole"]

_T = TypeVar("_T", bound=msgspec.Struct)

_JSON = "application/json"
_WITH_BODY = ("POST", "PUT")
_LONGEST_MESSAGE = 1000
_BARE_NAME = re.compile(r"[a-z][a-z0-9_-]*")
# Nobody can register a name under one of these (RFC 6761, RFC 6762, and the root zone's own list).
_PRIVATE_DOMAINS = (".localhost", ".local", ".internal", ".test")


class DeniedError(Exception):
    """A control request that cannot be served.

    Attributes:
        status: HTTP status, 400-499.
        message: why, for a person.
        headers: further headers of the answer.
    """

    def __init__(self, status: int, message: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers or {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One control request that may pass.

    Attributes:
        names: the names in its path.
        query: its query fields.
        raw: its body.
    """

    names: Mapping[str, str]
    query: Mapping[str, str]
    raw: bytes = b""

    def body(self, kind: type[_T]) -> _T:
        """Return the body; an empty one counts as an object without fields.

        Raises:
            ValueError: it is none of that kind.
        """
        try:
            return msgspec.json.decode(self.raw or b"{}", type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ValueError(f"body: {error}") from None

    def filters(self, **readers: Callable[[str, str], Any]) -> dict[str, Any]:
        """Return the query fields that were given, each read by the function of its name.

        Raises:
            ValueError: there is no such filter, or a value that makes no sense.
        """
        for name in self.query:
            if name not in readers:
                raise ValueError(f"unknown filter {name!r}; known: {', '.join(readers) or 'none'}")
        return {name: readers[name](name, text) for name, text in self.query.items()}


def whole(name: str, text: str) -> int:
    """Return the whole number that stands in a path or a query.

    Raises:
        ValueError: there is none.
    """
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{name} must be a whole number, got {text!r}") from None


def check_host(request: web.Request, own: str) -> None:
    """Refuse a request that was addressed to a name that anybody could have registered.

    A web page of a stranger can have its own name lead to this machine, and then talk to it. It cannot do so with an
    address, a name without dots such as that of a container, or one under a domain that is not for sale.

    Raises:
        DeniedError: 403.
    """
    given = request.headers.get("Host", "")
    name = _host_name(given)
    private = _BARE_NAME.fullmatch(name) is not None or name.endswith(_PRIVATE_DOMAINS)
    if not private and name != own.lower() and not _is_address(name):
        raise DeniedError(403, f"the Host must be an IP address, a local name or {own}, got {given!r}")


async def read_order(request: web.Request) -> Order:
    """Return what is ordered.

    Raises:
        DeniedError: 415 for anything but JSON, 413 and 400 for a body that cannot be read.
    """
    raw = b""
    if request.method in _WITH_BODY:
        given = request.headers.get("Content-Type", "")
        if given.partition(";")[0].strip().lower() != _JSON:
            raise DeniedError(415, f"the Content-Type must be {_JSON}, even of an empty body; got {given!r}")
        raw = await _read(request)
    return Order(names=dict(request.match_info), query=dict(request.query), raw=raw)


def respond(value: object) -> web.Response:
    """Return the response that says `value`, which may also be an answer, or the error that forbids one."""
    if isinstance(value, DeniedError):
        # An error repeats what was given, and anything may have been.
        message = plain(value.message, longest=_LONGEST_MESSAGE)
        answer = json_answer({"error": message}, status=value.status).with_headers(value.headers)
    else:
        answer = value if isinstance(value, Answer) else json_answer(plain(value))
    headers = {"Content-Type": answer.content_type, **answer.headers}
    return web.Response(status=answer.status, body=answer.body, headers=headers)


async def _read(request: web.Request) -> bytes:
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise DeniedError(413, "the body is too large") from None
    except web.RequestPayloadError:
        raise DeniedError(400, "the body cannot be read") from None


def _host_name(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
