"""What may happen to a POST that arrived whole, as data that a server in another process can act out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal

__all__ = ["ALL", "FAULTS", "NO_FAULT", "REFUSALS", "STALL_TIMEOUT", "Act", "Fault"]

STALL_TIMEOUT = 1.0  # seconds; everybody's own is a minute to ten


@dataclass(frozen=True, kw_only=True)
class Act:
    """What follows one POST.

    Attributes:
        write: bytes to send; None for what the client calls a success.
        then: how the connection goes on.
    """

    write: bytes | None = b""
    then: Literal["open", "closed", "reset", "silent"] = "closed"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One row of the table.

    Attributes:
        name: what the server does, having read the POST; a number is the status of its answer.
        acts: one for each POST in its order, the last for all that follow.
        timeout: seconds everybody is told to wait for an answer; None leaves it to them.
        quick: whether it is among the few of the short form.
    """

    name: str
    acts: tuple[Act, ...]
    timeout: float | None = None
    quick: bool = False


def _answer(status: int, reason: str, *headers: str, body: bytes | None = None, kind: str = "application/json") -> Act:
    if body is None:
        body = json.dumps({"error": {"code": "trouble", "message": "no luck today"}}).encode()
    lines = (f"HTTP/1.1 {status} {reason}", f"Content-Type: {kind}", f"Content-Length: {len(body)}", *headers)
    return Act(write="\r\n".join(lines).encode() + b"\r\n\r\n" + body, then="open")


def _answers(status: int, reason: str, *, quick: bool = False) -> Fault:
    return Fault(name=str(status), acts=(_answer(status, reason),), quick=quick)


_SUCCESS = Act(write=None, then="open")
_CLOSE = Act()
_NGINX = b"""<html>\r
<head><title>504 Gateway Time-out</title></head>\r
<body>\r
<center><h1>504 Gateway Time-out</h1></center>\r
<hr><center>nginx</center>\r
</body>\r
</html>\r
"""
_CUT_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/js"
_CUT_BODY = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{"data": {'

NO_FAULT = Fault(name="200", acts=(_SUCCESS,), quick=True)
"""Nothing goes wrong: shows that a client is set up rightly."""

FAULTS = (
    Fault(name="closes", acts=(_CLOSE,), quick=True),
    Fault(name="resets", acts=(Act(then="reset"),)),
    Fault(name="stalls", acts=(Act(then="silent"),), timeout=STALL_TIMEOUT),
    Fault(name="cuts the head", acts=(Act(write=_CUT_HEAD),)),
    Fault(name="cuts the body", acts=(Act(write=_CUT_BODY),), quick=True),
    Fault(name="no HTTP", acts=(Act(write=b"SSH-2.0-OpenSSH_9.6\r\n"),)),
    _answers(408, "Request Timeout"),
    _answers(409, "Conflict"),
    _answers(500, "Internal Server Error", quick=True),
    _answers(502, "Bad Gateway"),
    _answers(503, "Service Unavailable"),
    _answers(504, "Gateway Timeout", quick=True),
    Fault(
        name="504 of nginx",
        acts=(_answer(504, "Gateway Time-out", "Server: nginx", body=_NGINX, kind="text/html"),),
    ),
    Fault(name="closes once", acts=(_CLOSE, _SUCCESS), quick=True),
    Fault(name="500 once", acts=(_answer(500, "Internal Server Error"), _SUCCESS)),
)
"""Nobody can tell from any of these whether the picture was bought."""

REFUSALS = (
    Fault(name="429, Retry-After: 1", acts=(_answer(429, "Too Many Requests", "Retry-After: 1"),)),
    Fault(name="503, Retry-After: 1", acts=(_answer(503, "Service Unavailable", "Retry-After: 1"),)),
    Fault(
        name="307, then 404", acts=(_answer(307, "Temporary Redirect", "Location: moved"), _answer(404, "Not Found"))
    ),
)
"""By these the server says that it did not take the request."""

ALL = (NO_FAULT, *FAULTS, *REFUSALS)
