"""What `avatar view` and `avatar list` do: ask, and show avatars to people and to programs."""

from __future__ import annotations

import sys
from datetime import UTC
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from mirage_async.cli._exits import CommandError, ExitCode, code_for
from mirage_async.cli._hubs import check_key, ends_with_us, hub_on
from mirage_async.cli._lines import one_line, tell
from mirage_async.cli._record import write_json
from mirage_async.exceptions import NotFoundError
from mirage_async.models import AvatarStatus

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from mirage_async.models import Avatar

__all__ = ["PROVIDER", "avatar_record", "command_for", "list_all", "view"]

PROVIDER = "mirako"

_STYLES = {"PENDING": "yellow", "BUILDING": "cyan", "READY": "green", "ERROR": "bold red"}
_HEADINGS = ("ID", "STATUS", "CREATED", "NAME")
_NEW_SANDBOX = "a new sandbox has none; set MIRAGE_SANDBOX_URL to one that is running"


async def view(avatar_id: str, *, as_json: bool, sandbox: bool) -> ExitCode:
    """Print one avatar.

    Raises:
        CommandError: there is no such avatar, or no key.
        MirageError: it cannot be one, or the provider could not be asked.
    """
    async with hub_on(sandbox=sandbox) as hub, hub:
        check_key(hub, PROVIDER)
        try:
            avatar = await hub.mirako.get_avatar(avatar_id)
        except NotFoundError as error:
            reason = f": {_NEW_SANDBOX}" if ends_with_us(sandbox=sandbox) else ""
            raise CommandError(f"there is no avatar {avatar_id!r}{reason}", code=code_for(error)) from error
    if as_json:
        write_json(avatar_record(avatar))
    else:
        sys.stdout.writelines(f"{label:<7}  {value}\n" for label, value in _lines_of(avatar))
    sys.stdout.flush()
    if avatar.status == AvatarStatus.READY and not as_json:
        tell(f"to draw it, write its id into a prompt: {_drawing(avatar, sandbox=sandbox)}")
    return ExitCode.DONE


async def list_all(*, as_json: bool, sandbox: bool) -> ExitCode:
    """Print all avatars of the account.

    Raises:
        CommandError: there is no key.
        MirageError: the provider could not be asked.
    """
    async with hub_on(sandbox=sandbox) as hub, hub:
        check_key(hub, PROVIDER)
        avatars = await hub.mirako.list_avatars()
    if not avatars:
        tell(f"no avatars: {_NEW_SANDBOX}" if ends_with_us(sandbox=sandbox) else "no avatars")
    elif as_json:
        for avatar in avatars:
            write_json(avatar_record(avatar))
    elif sys.stdout.isatty():
        _print_table(avatars)
    else:
        sys.stdout.writelines("\t".join(_columns(avatar)) + "\n" for avatar in avatars)
    sys.stdout.flush()
    return ExitCode.DONE


def avatar_record(avatar: Avatar) -> dict[str, Any]:
    """Return what `--json` says about an avatar."""
    return {
        "id": avatar.id,
        "name": avatar.name,
        "status": avatar.status,
        "created_at": avatar.created_at,
        "themes": avatar.themes,
    }


def command_for(words: str, *, sandbox: bool) -> str:
    """Return a command line of this group that asks the same sandbox, where it is one."""
    return f"mirage-async avatar {words}{' --sandbox' if sandbox else ''}"


def _lines_of(avatar: Avatar) -> Sequence[tuple[str, str]]:
    names = [one_line(str(theme.get("name") or "unnamed")) for theme in avatar.themes]
    avatar_id, status, created, name = _columns(avatar)
    rows = {"id": avatar_id, "name": name, "status": status, "created": created, "themes": ", ".join(names)}
    return [(label, value or "-") for label, value in rows.items()]


def _columns(avatar: Avatar) -> tuple[str, str, str, str]:
    """Return id, status, moment and name, each on one line and without tabs."""
    return one_line(avatar.id), one_line(avatar.status), _moment(avatar.created_at), one_line(avatar.name)


def _moment(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _drawing(avatar: Avatar, *, sandbox: bool) -> str:
    return f'mirage-async generate "{avatar.id} at the sea" --provider {PROVIDER}{" --sandbox" if sandbox else ""}'


def _print_table(avatars: Sequence[Avatar]) -> None:
    """Print a table whose last column, the name, is as long as it is: an id that is cut is of no use."""
    rows = [_HEADINGS, *map(_columns, avatars)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    console = Console(highlight=False)
    for index, row in enumerate(rows):
        styles = ("", _STYLES.get(row[1], ""), "", "") if index else ("bold",) * len(row)
        cells = [(f"{cell:<{width}}", style) for cell, width, style in zip(row, widths, styles, strict=True)]
        line = Text("  ").join(Text(*cell) for cell in cells)
        line.rstrip()
        console.print(line, soft_wrap=True)
