"""The command line as a whole: its commands, its global options, and how every error becomes a line and a code."""

import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated

import typer

import mirage_async
from mirage_async.cli import _lines
from mirage_async.cli._exits import EPILOG, CommandError, ExitCode, code_for
from mirage_async.cli._streams import bear_all_letters
from mirage_async.cli._verbosity import Verbose

__all__ = ["run"]

_PROGRAM = "mirage-async"
_EXTRAS = {"PIL": "sandbox", "rich": "cli"}  # by module; what the command line itself needs is met sooner

# Typer has moved its usage errors between releases; what they share is the base class of the one it exports.
_UsageError = typer.BadParameter.__bases__[0]

_COMMANDS = ("demo", "generate", "batch", "avatar", "jobs", "sandbox", "webhook")


def _show_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"{_PROGRAM} {mirage_async.__version__}\n")
        raise typer.Exit


def _main(
    context: typer.Context,
    *,
    verbose: Verbose = False,  # noqa: ARG001 - its callback does the work
    version: Annotated[  # noqa: ARG001 - its callback does the work
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Buy pictures from Mirako, Miragic, Mira and Milady: never pay twice, never lose what was paid for.

    Keys come from MIRAKO_API_KEY, MIRAGIC_API_KEY, MIRA_API_KEY and MILADY_API_KEY. To look around without any, start
    with `mirage-async demo`.
    """
    if context.invoked_subcommand is None:
        sys.stdout.write(f"{context.get_help()}\n")


def _app_for(words: Sequence[str]) -> typer.Typer:
    """Return the command line: with the command these words begin with alone, or else with all of them.

    Each costs time to load, and none shows in what another one does.
    """
    app = typer.Typer(
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        epilog=EPILOG,
        add_completion=False,
    )
    app.callback(invoke_without_command=True)(_main)
    for name in words[:1] if words and words[0] in _COMMANDS else _COMMANDS:
        command = getattr(import_module(f"mirage_async.cli.{name}"), name)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            app.command(name, epilog=EPILOG)(command)
    return app


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; only `SystemExit` is ever raised.

    Args:
        arguments: the words after the program's name; None takes the process's own.
    """
    _open_missing_streams()
    bear_all_letters()
    _lines.set_up()
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = typer.main.get_command(_app_for(words)).main(words, prog_name=_PROGRAM, standalone_mode=False)
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = ExitCode.INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has left; Python would complain about that once more when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.FAILURE
    except Exception as error:  # noqa: BLE001 - a person gets one line, whatever went wrong
        return _ended_by(error)
    if code == ExitCode.INTERRUPTED:
        _lines.tell("interrupted")
    return int(code or 0)


def _open_missing_streams() -> None:
    """Give the process streams where it was started with some of them closed."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115 - for the whole process


def _ended_by(error: Exception) -> int:
    if os.environ.get("MIRAGE_DEBUG"):
        traceback.print_exception(error)
    if isinstance(error, _UsageError):
        context = getattr(error, "ctx", None)
        path = _PROGRAM if context is None else context.command_path
        error = CommandError(f"{error.format_message().rstrip('.')} (see {path} --help)")  # type: ignore[attr-defined]
    elif isinstance(error, ModuleNotFoundError) and (extra := _EXTRAS.get((error.name or "").partition(".")[0])):
        error = CommandError(f'{error.name} is not installed, and this needs it: pip install "mirage_async[{extra}]"')
    _lines.complain(error)
    return code_for(error)
