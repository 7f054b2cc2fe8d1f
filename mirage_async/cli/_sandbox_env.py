"""What `sandbox env` prints: variables that lead this library, and other clients of the providers, to a sandbox."""

from __future__ import annotations

import pkgutil
import shlex
import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from mirage_async import wire
from mirage_async.cli._exits import CommandError
from mirage_async.cli._lines import warn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["assignments", "check_url", "removals", "warn_of_silence"]

_KEY = "sandbox"  # any will do, but a real one must not be sent there
_PATIENCE = 0.5  # seconds; whoever waits is a shell
_HERE = ("127.0.0.1", "localhost")
_DEFAULT_PORTS = {"http": 80, "https": 443}


def assignments(url: str) -> Sequence[str]:
    """Return a shell's `export` line for each variable."""
    return [f"export {name}={shlex.quote(value)}" for name, value in _variables(url).items()]


def removals() -> Sequence[str]:
    """Return the `unset` line for each of the same variables."""
    return [f"unset {name}" for name in _variables("")]


def _variables(url: str) -> Mapping[str, str]:
    # The codecs are one public module a provider; the registry itself would load the HTTP client.
    names = [module.name.upper() for module in pkgutil.iter_modules(wire.__path__) if module.name[0] != "_"]
    addresses = {f"{name}_BASE_URL": url for name in names}
    keys = {f"{name}_API_KEY": _KEY for name in names}
    # The last two are what Mirako's own command line reads.
    return {"MIRAGE_SANDBOX_URL": url, **addresses, **keys, "MIRAKO_API_URL": url, "MIRAKO_API_TOKEN": _KEY}


def check_url(url: str) -> str:
    """Return the address of a server, without the slash at its end.

    Raises:
        CommandError: it is none.
    """
    if not _is_address(url):
        raise CommandError(f"--url must look like http://127.0.0.1:8419; got {url[:60]!r}")
    return url.rstrip("/")


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        whole = parts.scheme in _DEFAULT_PORTS and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is none, or a bracket that is never closed
        return False
    return whole and not (parts.query or parts.fragment or " " in url) and url.isprintable()


def warn_of_silence(url: str) -> None:
    """Warn if nothing listens at `url`; waits half a second at most for an answer."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or _DEFAULT_PORTS[parts.scheme]
    try:
        socket.create_connection((host, port), timeout=_PATIENCE).close()
    except (OSError, UnicodeError) as error:  # the latter for a name that can be none
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        start = f"; to start it: mirage-async sandbox --port {port}" if host in _HERE else ""
        warn(f"nothing listens at {url} ({reason}){start}")
