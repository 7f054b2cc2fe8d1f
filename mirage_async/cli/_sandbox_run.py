"""What `sandbox` does: listen, say so, wait for the end, and tell what there was."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from mirage_async.cli._exits import CommandError, ExitCode
from mirage_async.cli._lines import tell
from mirage_async.cli._record import write_json
from mirage_async.cli._serving import cannot_listen, counted
from mirage_async.sandbox import Sandbox
from mirage_async.sandbox.durations import durations_from_json

if TYPE_CHECKING:
    from typing import Any

    from mirage_async.sandbox import Statistics

__all__ = ["Settings", "serve"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to run a sandbox.

    Attributes:
        host: address to listen on.
        port: TCP port, 0 for any free one.
        seed: decides ids, durations and pictures.
        strict: whether every documented rule is enforced.
        durations: seconds that work takes, as JSON text; None for the sandbox's own.
        workers: jobs a provider works on at a time; None for any number.
        auto_advance: whether its clock jumps over the time in which nothing happens.
    """

    host: str
    port: int
    seed: int
    strict: bool
    durations: str | None
    workers: int | None
    auto_advance: bool


async def serve(settings: Settings, *, quiet: bool) -> ExitCode:
    """Run a sandbox until this task is cancelled, as Ctrl-C, SIGTERM and SIGHUP do.

    Returns:
        `DONE`: a server that is ended has done its work.

    Raises:
        CommandError: a setting is wrong, or it cannot listen.
    """
    sandbox = _sandbox_for(settings)
    listening = False
    try:
        async with contextlib.AsyncExitStack() as stack:
            await _listen(sandbox, settings, stack)
            listening = True
            _announce(sandbox, settings, quiet=quiet)
            try:
                await asyncio.Event().wait()
            finally:
                if not quiet:
                    _report(sandbox.statistics())
    except asyncio.CancelledError:
        if not listening:
            raise
    return ExitCode.DONE


def _sandbox_for(settings: Settings) -> Sandbox:
    try:
        return Sandbox(
            port=settings.port,
            seed=settings.seed,
            strict=settings.strict,
            durations=durations_from_json(_decoded(settings.durations)),
            host=settings.host,
            workers=settings.workers,
        )
    except (ValueError, OverflowError) as error:
        reason = str(error).removeprefix("durations: ")
        raise CommandError(f"--durations {(settings.durations or '')[:60]!r}: {reason}") from None


def _decoded(text: str | None) -> Any:
    if text is None:
        return None
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise CommandError(f"--durations must be JSON, such as 0.5 or [1, 3]; got {text[:60]!r}") from None


async def _listen(sandbox: Sandbox, settings: Settings, stack: contextlib.AsyncExitStack) -> None:
    try:
        await stack.enter_async_context(sandbox)
    except OSError as error:
        raise cannot_listen(settings.host, settings.port, error) from error
    if settings.auto_advance:
        sandbox.clock.auto_advance()


def _announce(sandbox: Sandbox, settings: Settings, *, quiet: bool) -> None:
    """Tell programs in one line of JSON that it listens, and people how to use it."""
    port = urlsplit(sandbox.url).port
    write_json(
        {
            "event": "ready",
            "url": sandbox.url,
            "port": port,
            "pid": os.getpid(),
            "seed": settings.seed,
            "strict": settings.strict,
        }
    )
    sys.stdout.flush()
    if not quiet:
        local = settings.host in {"127.0.0.1", "localhost"}
        words = f"--port {port}" if local else f"--url {sandbox.url}"
        tell(f"the sandbox listens at {sandbox.url}")
        tell(f'to use it, in another shell: eval "$(mirage-async sandbox env {words})"')
        tell("Ctrl-C ends it")


def _report(statistics: Statistics) -> None:
    if sys.stderr.isatty():
        sys.stderr.write("\r")  # over the "^C" that the terminal shows
    requests = counted(sum(statistics.requests.values()), "request")
    purchases = counted(sum(statistics.purchases.values()), "purchase")
    tell(f"the sandbox has ended: {requests}, {purchases}, {counted(statistics.open_jobs, 'open job')}")
