"""`mirage-async webhook listen`: see what a provider delivers."""

from typing import Annotated

import typer

from mirage_async.cli._arguments import whole
from mirage_async.cli._exits import EPILOG, CommandError
from mirage_async.cli._running import run_in_loop
from mirage_async.cli._verbosity import Verbose

__all__ = ["webhook"]

_PORT = 8420  # beside the sandbox's
_MOST_PORTS = 65535
_HOST = "127.0.0.1"

webhook = typer.Typer(
    rich_markup_mode=None, epilog=EPILOG, no_args_is_help=True, help="Hear from providers when jobs have ended."
)


@webhook.callback()
def _main() -> None:  # pyright: ignore[reportUnusedFunction]
    """Hear from providers when jobs have ended."""


@webhook.command("listen", epilog=EPILOG)
def _listen(  # pyright: ignore[reportUnusedFunction]
    *,
    port: Annotated[int, typer.Option(metavar="N", parser=whole, help="TCP port; 0 takes any free one.")] = _PORT,
    host: Annotated[
        str,
        typer.Option(metavar="H", help="Address to listen on; with any but this one others may reach it as well."),
    ] = _HOST,
    public_url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Where providers reach it, such as a tunnel's address; its own without it."),
    ] = None,
    provider: Annotated[str, typer.Option(metavar="NAME", help="Whose deliveries the address is for.")] = "mirako",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Nothing on stderr but errors.")] = False,
    verbose: Verbose = False,  # noqa: ARG001 - its callback does the work
) -> int:
    """Print an address, and its bearer token where the provider sends one; show what is delivered, until Ctrl-C.

    \b
    Give both to a job:  mirako.submit(..., webhook=(url, auth_token))

    A provider without auth_token calls the address alone. The address is good for a day. Its secret is
    MIRAGE_WEBHOOK_SECRET, so that it stays good when the command is started again; without that variable every start
    has one of its own. Nothing is woken by a delivery and nothing is bought. It ends with Ctrl-C, SIGTERM or SIGHUP,
    and its exit code is 0.
    """  # noqa: D301 - the parser wants this character
    if not 0 <= port <= _MOST_PORTS:
        raise CommandError(f"--port must be from 0 to {_MOST_PORTS}; got {port}")
    if not host or ":" in host:
        raise CommandError(f"--host must be a name or an IPv4 address; got {host[:60]!r}")
    from mirage_async.cli._webhook_listen import Settings, listen  # noqa: PLC0415 - the server, which help does without

    settings = Settings(host=host, port=port, public_url=public_url, provider=provider, json=json)
    return run_in_loop(listen(settings, quiet=quiet))
