"""`mirage-async avatar`: build Mirako's avatars, look at one, list them all."""

import sys
from typing import Annotated, TypeAlias

import typer

from mirage_async.cli._arguments import reference_of, seconds
from mirage_async.cli._aside import run_with_stderr_aside
from mirage_async.cli._exits import EPILOG, CommandError
from mirage_async.cli._running import run_in_loop
from mirage_async.cli._verbosity import Verbose

__all__ = ["avatar"]

_LONGEST_INTERVAL = 3600.0  # seconds
_RESERVED = ("list", "async_build")  # what the provider's addresses have where an id stands

Sandboxed: TypeAlias = Annotated[
    bool,
    typer.Option("--sandbox", help="Use a sandbox, the one of MIRAGE_SANDBOX_URL or a new one: no key, no cost."),
]

avatar = typer.Typer(rich_markup_mode=None, epilog=EPILOG)


@avatar.callback(invoke_without_command=True)
def _main(  # pyright: ignore[reportUnusedFunction]
    context: typer.Context,
    *,
    verbose: Verbose = False,  # noqa: ARG001 - its callback does the work
) -> None:
    """Build an avatar from a portrait at Mirako, look at one, or list them all.

    An avatar takes minutes to most of an hour to build. It is then drawn by writing its id into a prompt.
    """
    if context.invoked_subcommand is None:
        sys.stdout.write(f"{context.get_help()}\n")


@avatar.command("build", epilog=EPILOG)
def _build(  # pyright: ignore[reportUnusedFunction]
    *,
    image: Annotated[
        str,
        typer.Option(
            "-i",
            "--image",
            metavar="FILE",
            help="The portrait: JPEG or PNG, 512 x 512 pixels or more, at most 10 MB, 16:9 or square.",
        ),
    ],
    name: Annotated[str, typer.Option("-n", "--name", metavar="NAME", help="For your lists; 1 to 200 characters.")],
    poll_interval: Annotated[
        float,
        typer.Option("-p", "--poll-interval", metavar="S", parser=seconds, help="Seconds between two looks at it."),
    ] = 10.0,
    max_wait: Annotated[
        float, typer.Option(metavar="S", parser=seconds, help="Seconds to wait until it is ready.")
    ] = 3600.0,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Print the id at once and end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The avatar as one JSON object instead of its id.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No progress and no warnings.")] = False,
    sandbox: Sandboxed = False,
    verbose: Verbose = False,  # noqa: ARG001 - its callback does the work
) -> int:
    """Build an avatar from a portrait and print its id.

    The arguments and the portrait are checked before anything is sent. The build goes on at Mirako when this command
    ends before it.
    """
    if not 0 < poll_interval <= _LONGEST_INTERVAL:
        raise CommandError(
            f"--poll-interval must be above 0 and at most {_LONGEST_INTERVAL:g} seconds; got {poll_interval:g}"
        )
    # It loads the HTTP client, which help does without.
    from mirage_async.cli._avatar_build import Order, build  # noqa: PLC0415 - for the reason above

    order = Order(
        name=name,
        image=reference_of(image),
        poll_interval=poll_interval,
        max_wait=max_wait,
        wait=not no_wait,
        sandbox=sandbox,
    )
    return run_with_stderr_aside(build(order, as_json=as_json, quiet=quiet))


@avatar.command("view", epilog=EPILOG)
def _view(  # pyright: ignore[reportUnusedFunction]
    avatar_id: Annotated[str, typer.Argument(metavar="ID", help="The avatar's id, as `build` and `list` print it.")],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of lines.")] = False,
    sandbox: Sandboxed = False,
    verbose: Verbose = False,  # noqa: ARG001 - its callback does the work
) -> int:
    """Show one avatar, finished or not."""
    if avatar_id in _RESERVED:
        raise CommandError(f"ID must be the id of an avatar; got {avatar_id!r} (see mirage-async avatar list)")
    from mirage_async.cli._avatar_show import view  # noqa: PLC0415 - loads the HTTP client, which help does without

    return run_in_loop(view(avatar_id, as_json=as_json, sandbox=sandbox))


@avatar.command("list", epilog=EPILOG)
def _list(  # pyright: ignore[reportUnusedFunction]
    *,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    sandbox: Sandboxed = False,
    verbose: Verbose = False,  # noqa: ARG001 - its callback does the work
) -> int:
    """List all avatars of the account.

    On a terminal that is a table. Elsewhere it is a line for each: id, status, moment of creation and name, with a tab
    between them.
    """
    from mirage_async.cli._avatar_show import list_all  # noqa: PLC0415 - loads the HTTP client, which help does without

    return run_in_loop(list_all(as_json=as_json, sandbox=sandbox))
