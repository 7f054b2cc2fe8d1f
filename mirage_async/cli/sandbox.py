"""`mirage-async sandbox`: run a sandbox on this machine, and lead other programs to it."""

import gc
import sys
from typing import Annotated

import typer

from mirage_async.cli._arguments import whole
from mirage_async.cli._exits import EPILOG, CommandError
from mirage_async.cli._running import run_in_loop
from mirage_async.cli._sandbox_env import assignments, check_url, removals, warn_of_silence
from mirage_async.cli._verbosity import Verbose

__all__ = ["sandbox"]

_PORT = 8419  # any that is seldom in use; a fixed one lets `env` do without arguments
_MOST_PORTS = 65535
_HOST = "127.0.0.1"

sandbox = typer.Typer(rich_markup_mode=None, epilog=EPILOG)


@sandbox.callback(invoke_without_command=True)
def _main(  # pyright: ignore[reportUnusedFunction]
    context: typer.Context,
    *,
    port: Annotated[int, typer.Option(metavar="N", parser=whole, help="TCP port; 0 takes any free one.")] = _PORT,
    host: Annotated[
        str,
        typer.Option(metavar="H", help="Address to listen on; with any but this one others may reach it as well."),
    ] = _HOST,
    seed: Annotated[
        int, typer.Option(metavar="N", parser=whole, help="The same seed gives the same ids, times and pictures.")
    ] = 0,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse whatever the providers' documents do not allow.")
    ] = False,
    durations: Annotated[
        str | None,
        typer.Option(
            metavar="JSON",
            help='Seconds that work takes: 0.5, [1, 3], {"median": 8, "sigma": 0.5}, or these by name, as in '
            '{"mirako.avatar": 60, "mira": [1, 3]}.',
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(metavar="N", parser=whole, help="Jobs a provider works on at a time; without it, any number."),
    ] = None,
    auto_advance: Annotated[
        bool, typer.Option("--auto-advance", help="Skip the time in which nothing happens but waiting.")
    ] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Nothing on stderr but errors.")] = False,
    verbose: Verbose = False,  # noqa: ARG001 - its callback does the work
) -> int:
    """Run a sandbox until Ctrl-C: all four providers on one port of this machine, for any key and at no cost.

    When it listens it prints one line of JSON with its url. Other programs find it by the variables that `mirage-async
    sandbox env` prints. It ends with Ctrl-C, SIGTERM or SIGHUP, forgets everything, and its exit code is 0, since
    nobody's work is interrupted.
    """
    if context.invoked_subcommand is not None:
        context.obj = port
        return 0
    if not 0 <= port <= _MOST_PORTS:
        raise CommandError(f"--port must be from 0 to {_MOST_PORTS}; got {port}")
    if not host or ":" in host:
        raise CommandError(f"--host must be a name or an IPv4 address; got {host[:60]!r}")
    if workers is not None and workers < 1:
        raise CommandError(f"--workers must be 1 or more; got {workers}")
    gc.disable()  # loading leaves no garbage behind, and looking for some is a twentieth of the start
    try:
        from mirage_async.cli._sandbox_run import Settings, serve  # noqa: PLC0415 - the server, which help does without
    finally:
        gc.enable()
    settings = Settings(
        host=host,
        port=port,
        seed=seed,
        strict=strict,
        durations=durations,
        workers=workers,
        auto_advance=auto_advance,
    )
    return run_in_loop(serve(settings, quiet=quiet))


@sandbox.command("env", epilog=EPILOG)
def _env(  # pyright: ignore[reportUnusedFunction]
    context: typer.Context,
    *,
    port: Annotated[
        int | None,
        typer.Option(metavar="N", parser=whole, help=f"The sandbox's port on this machine; {_PORT} without it."),
    ] = None,
    url: Annotated[str | None, typer.Option(metavar="URL", help="Its address, where it is on another one.")] = None,
    unset: Annotated[
        bool, typer.Option("--unset", help="Print what takes the variables back; keys they replaced do not return.")
    ] = False,
    verbose: Verbose = False,  # noqa: ARG001 - its callback does the work
) -> None:
    """Print the variables that lead programs to a sandbox.

    \b
    They are lines for a POSIX shell:
      eval "$(mirage-async sandbox env)"

    Every provider's address becomes the sandbox's and every key "sandbox", so that no real key is sent there by
    accident.
    """  # noqa: D301 - the parser wants this character
    if port is not None and url is not None:
        raise CommandError(f"--port and --url exclude each other; got {port} and {url[:60]!r}")
    given: int = context.obj if port is None else port  # `sandbox --port N env` means the same
    if not 0 < given <= _MOST_PORTS:
        raise CommandError(f"--port must be from 1 to {_MOST_PORTS}; got {given}")
    address = f"http://{_HOST}:{given}" if url is None else check_url(url)
    if not unset:
        warn_of_silence(address)
    lines = removals() if unset else assignments(address)
    sys.stdout.write("\n".join([*lines, ""]))
