"""`mirage-async jobs`: what a journal knows of purchases, and what to do about those whose end is open."""

import os
import sys
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from mirage_async.cli._arguments import seconds
from mirage_async.cli._aside import run_with_stderr_aside
from mirage_async.cli._exits import EPILOG, CommandError
from mirage_async.cli._output import output_for
from mirage_async.cli._running import run_in_loop
from mirage_async.cli._verbosity import Verbose

__all__ = ["jobs"]

_VARIABLE = "MIRAGE_JOURNAL"

JournalFolder: TypeAlias = Annotated[
    str | None,
    typer.Option("--journal", metavar="DIR", help=f"Folder of the journal; without it, {_VARIABLE} names it."),
]
Key: TypeAlias = Annotated[
    str, typer.Argument(metavar="KEY", help="The key of a purchase, as `list` prints it; its first digits will do.")
]

jobs = typer.Typer(rich_markup_mode=None, epilog=EPILOG)


def _folder(named: str | None) -> Path:
    """Return the journal's folder.

    Raises:
        CommandError: nobody says which it is.
    """
    found = named or os.environ.get(_VARIABLE)
    if not found:
        raise CommandError(f"which journal? Name its folder with --journal DIR, or set {_VARIABLE}")
    return Path(found)


@jobs.callback(invoke_without_command=True)
def _main(  # pyright: ignore[reportUnusedFunction]
    context: typer.Context,
    *,
    verbose: Verbose = False,  # noqa: ARG001 - its callback does the work
) -> None:
    """Look into a journal, and collect what is owed.

    A journal knows what a program or a batch has bought, so that no end of it loses anything. A program has one where
    it says `Mirage(journal=Journal(DIR))`; that of a batch is in its folder, under .mirage/journal.
    """
    if context.invoked_subcommand is None:
        sys.stdout.write(f"{context.get_help()}\n")


@jobs.command("list", epilog=EPILOG)
def _list(  # pyright: ignore[reportUnusedFunction]
    *,
    journal: JournalFolder = None,
    every: Annotated[bool, typer.Option("--all", help="Also those that are over and collected.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    verbose: Verbose = False,  # noqa: ARG001 - its callback does the work
) -> int:
    """List the purchases that are open.

    Those are the ones whose end is unknown, or whose result nobody has collected yet.

    On a terminal that is a table. Elsewhere it is a line for each: key, provider, kind, state, id, seconds since it was
    sent, and attempts, with a tab between them. Programs that write to the journal are not disturbed.
    """
    folder = _folder(journal)
    from mirage_async.cli._jobs_show import list_all  # noqa: PLC0415 - loads the journal, which help does without

    return list_all(folder, every=every, as_json=as_json)


@jobs.command("show", epilog=EPILOG)
def _show(  # pyright: ignore[reportUnusedFunction]
    key: Key,
    *,
    journal: JournalFolder = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of lines.")] = False,
    verbose: Verbose = False,  # noqa: ARG001 - its callback does the work
) -> int:
    """Show all that is on record about one purchase."""
    folder = _folder(journal)
    from mirage_async.cli._jobs_show import show  # noqa: PLC0415 - loads the journal, which help does without

    return show(folder, key, as_json=as_json)


@jobs.command("wait", epilog=EPILOG)
def _wait(  # pyright: ignore[reportUnusedFunction]
    keys: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY]...", help="Keys of the purchases to wait for; without any, all that are owed."),
    ] = None,
    *,
    journal: JournalFolder = None,
    output: Annotated[
        str, typer.Option("-o", "--output", metavar="DIR", help="Folder for the pictures; made where it is missing.")
    ] = ".",
    max_wait: Annotated[
        float | None, typer.Option(metavar="S", parser=seconds, help="Seconds to wait for each job.")
    ] = None,
    any_account: Annotated[
        bool, typer.Option("--any-account", help="Also jobs bought with another key, as after a change of keys.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a picture instead of its path.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No progress.")] = False,
    verbose: Verbose = False,  # noqa: ARG001 - its callback does the work
) -> int:
    """Collect what is owed: wait for it, and save it.

    That is what programs have bought that ended before they had it. Nothing is bought. A job counts as collected once
    its pictures are saved. It takes the API keys of the providers concerned. What a program that still runs works on is
    left to it.
    """
    folder = _folder(journal)
    place = output_for(output if output.endswith("/") else f"{output}/", pictures=1, overwrite=overwrite, as_json=False)
    from mirage_async.cli._jobs_wait import Wish, wait  # noqa: PLC0415 - loads the HTTP client, which help does without

    wish = Wish(keys=tuple(keys or ()), max_wait=max_wait, any_account=any_account)
    return run_with_stderr_aside(wait(folder, wish, place, as_json=as_json, quiet=quiet))


@jobs.command("resolve", epilog=EPILOG)
def _resolve(  # pyright: ignore[reportUnusedFunction]
    key: Key,
    *,
    journal: JournalFolder = None,
    job_id: Annotated[
        str | None,
        typer.Option(
            "--id", metavar="ID", help="It was bought; this is the provider's id, by which `wait` collects it."
        ),
    ] = None,
    not_bought: Annotated[
        bool, typer.Option("--not-bought", help="It was certainly not bought, so it may be bought again.")
    ] = False,
    give_up: Annotated[
        bool, typer.Option("--give-up", help="It may have been bought; nothing more is to be done about it.")
    ] = False,
    verbose: Verbose = False,  # noqa: ARG001 - its callback does the work
) -> int:
    """Settle a purchase nobody knows the end of.

    Only the provider's dashboard can tell what became of it: look there first.
    """
    folder = _folder(journal)
    if (job_id is not None) + not_bought + give_up != 1:
        raise CommandError("say what became of it: one of --id ID, --not-bought and --give-up")
    from mirage_async.cli._jobs_settle import settle  # noqa: PLC0415 - loads the journal, which help does without

    return run_in_loop(settle(folder, key, job_id=job_id, not_bought=not_bought))
