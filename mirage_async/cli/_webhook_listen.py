"""What `webhook listen` does: give out an address, listen there, and show what comes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mirage_async.cli._exits import ExitCode
from mirage_async.cli._lines import one_line, tell
from mirage_async.cli._record import write_json
from mirage_async.cli._serving import cannot_listen, counted
from mirage_async.jobs import new_key
from mirage_async.webhooks import WebhookReceiver, serving

if TYPE_CHECKING:
    from aiohttp import web

    from mirage_async.webhooks import ReceiverStatistics, WebhookReply

__all__ = ["Settings", "listen"]

_SECRET = "MIRAGE_WEBHOOK_SECRET"  # noqa: S105 - the name of a variable
_MEANINGS = {
    204: "taken",
    400: "malformed, or cut short",
    401: "bad or missing credential",
    404: "no address of ours",
    405: "not a POST",
    408: "its body took too long",
    413: "its body is too large",
    415: "its body is encoded",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to listen.

    Attributes:
        host: address to listen on.
        port: TCP port, 0 for any free one.
        public_url: where providers reach it; None for its own address.
        provider: whose deliveries the address is for.
        json: whether deliveries are shown as JSON.
    """

    host: str
    port: int
    public_url: str | None
    provider: str
    json: bool


async def listen(settings: Settings, *, quiet: bool) -> ExitCode:
    """Listen until this task is cancelled, as Ctrl-C, SIGTERM and SIGHUP do.

    Returns:
        `DONE`: a server that is ended has done its work.

    Raises:
        CommandError: it cannot listen.
        MirageError: the public address, the provider or the secret is none.
    """
    with _bound(settings) as listener:
        port: int = listener.getsockname()[1]
        public_url = settings.public_url or f"http://{settings.host}:{port}"
        secret = os.environ.get(_SECRET)
        receiver = WebhookReceiver(public_url=public_url, secret=secrets.token_hex(32) if secret is None else secret)
        url, auth_token = receiver.callback_for(settings.provider, new_key())
        async with serving(receiver, listener=listener, told=_show_json if settings.json else _show):
            _announce(url, auth_token, port, settings, quiet=quiet)
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            if not quiet:
                _report(receiver.statistics())
    return ExitCode.DONE


def _bound(settings: Settings) -> socket.socket:
    """Return a socket on the port: the address can only be given out once that is known."""
    try:
        return socket.create_server((settings.host, settings.port))
    except OSError as error:
        raise cannot_listen(settings.host, settings.port, error) from error


def _announce(url: str, auth_token: str | None, port: int, settings: Settings, *, quiet: bool) -> None:
    if settings.json:
        write_json({"event": "ready", "url": url, "auth_token": auth_token, "port": port, "pid": os.getpid()})
    else:
        sys.stdout.write(f"url         {url}\n" + ("" if auth_token is None else f"auth_token  {auth_token}\n"))
    sys.stdout.flush()
    if not quiet:
        tell(f"listening on {settings.host}:{port} for deliveries of {settings.provider}")
        tell("Ctrl-C ends it")


def _show_json(request: web.BaseRequest, reply: WebhookReply) -> None:
    hint = reply.hint
    write_json(
        {
            "event": "delivery",
            "at": round(time.time(), 3),
            "answer": reply.status,
            "bytes": request.content.total_bytes,
            "provider": None if hint is None else hint.provider,
            "key": None if hint is None else hint.key,
            "claimed_job_id": None if hint is None else hint.job_id,
            "claimed_status": None if hint is None else hint.status,
        }
    )
    sys.stdout.flush()


def _show(request: web.BaseRequest, reply: WebhookReply) -> None:
    parts = [time.strftime("%H:%M:%S"), str(reply.status), _MEANINGS[reply.status]]
    if reply.hint is not None:
        claims = (reply.hint.job_id or "of a job it does not name", reply.hint.status or "without a status")
        parts += [reply.hint.provider, *claims, counted(request.content.total_bytes, "byte")]
    sys.stdout.write(f"{one_line('  '.join(parts))}\n")
    sys.stdout.flush()


def _report(statistics: ReceiverStatistics) -> None:
    if sys.stderr.isatty():
        sys.stderr.write("\r")  # over the "^C" that the terminal shows
    taken = statistics.replies.get(204, 0)
    refused = sum(statistics.replies.values()) - taken
    tell(f"ended: {taken} taken, {refused} refused")
