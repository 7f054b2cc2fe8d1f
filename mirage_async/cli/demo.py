"""`mirage-async demo`: all providers at once, in a sandbox on this machine."""

from typing import Annotated

import typer

from mirage_async.cli._arguments import whole
from mirage_async.cli._exits import CommandError
from mirage_async.cli._running import run_in_loop
from mirage_async.cli._verbosity import Verbose

__all__ = ["demo"]

_MOST_PICTURES = 50


def demo(
    *,
    output: Annotated[
        str, typer.Option("-o", "--output", metavar="DIR", help="Folder for the pictures and their page.")
    ] = "demo",
    seed: Annotated[int, typer.Option(metavar="N", parser=whole, help="Another seed draws other pictures.")] = 0,
    pictures: Annotated[int, typer.Option(metavar="N", parser=whole, help="Pictures from each provider, 1 to 50.")] = 3,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a picture, then one for the page, instead of paths.")
    ] = False,
    verbose: Verbose = False,  # noqa: ARG001 - its callback does the work
) -> int:
    """Buy pictures from all four providers at once, from a sandbox: no key, no network, no cost.

    At the same time an avatar is built from one of the pictures and then drawn. The folder gets every picture and
    index.html, a page that shows them with what each job took.
    """
    if not 1 <= pictures <= _MOST_PICTURES:
        raise CommandError(f"--pictures must be from 1 to {_MOST_PICTURES}; got {pictures}")
    from mirage_async.cli._demo import give, prepare  # noqa: PLC0415 - loads the HTTP client, which help does without

    folder = prepare(output)
    return run_in_loop(give(folder, seed=seed, pictures=pictures, as_json=as_json))
