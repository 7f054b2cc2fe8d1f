"""Reading the documented examples, leading them to a sandbox, and running foreign programs against it."""

from __future__ import annotations

import io
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest
from PIL import Image

EXAMPLES = Path(__file__).parent / "documented"
PATIENCE = 30.0
"""Seconds any program may take before a test gives up on it."""

_HOSTS = {
    "mirako": "https://mirako.co",
    "miragic": "https://backend.miragic.ai",
    "mira": "https://api.vmira.ai",
    "milady": "https://cloud.milady.ai",
}


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended."""

    code: int
    stdout: str
    stderr: str


def quoted(name: str) -> str:
    """Return a file of the folder as it was printed."""
    return (EXAMPLES / name).read_text(encoding="utf-8")


def example(*names: str, at: str, host: str | None = None) -> str:
    """Return the examples of one page, one after the other, with the provider's host replaced by the sandbox's.

    Args:
        names: file names, which begin with the provider's.
        at: base URL of the sandbox.
        host: what is printed, where that is not the provider's usual base URL.

    Raises:
        ValueError: the host is in none of the examples, so that they would talk to the real one or to nobody.
    """
    text = "\n".join(map(quoted, names))
    printed = host or _HOSTS[names[0].partition("-")[0]]
    if printed not in text:
        raise ValueError(f"no {printed!r} to replace in {', '.join(names)}")
    return text.replace(printed, at)


def program(name: str) -> str:
    """Return the path of a system program; without it the test fails and says what to install."""
    path = shutil.which(name)
    if path is None:
        pytest.fail(f"the program {name!r} is missing; these tests need its system package")
    return path


def environment(home: Path, **further: str) -> dict[str, str]:
    """Return all a child gets to see: no keys, proxies or dot files of the developer's."""
    return {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONUTF8": "1", **further}


async def run(*words: str, folder: Path, **further: str) -> Ended:
    """Run a program to its end in a folder, with nothing but `further` in its environment; end it if it hangs."""
    with anyio.fail_after(PATIENCE):
        ended = await anyio.run_process(words, cwd=folder, env=environment(folder, **further), check=False)
    return Ended(ended.returncode, ended.stdout.decode(), ended.stderr.decode())


async def run_bash(command: str, folder: Path, **further: str) -> Ended:
    """Run a command line as somebody would who pasted it into a shell."""
    program("curl")
    return await run(program("bash"), "-c", command, folder=folder, **further)


async def run_python(text: str, folder: Path) -> list[str]:
    """Run a script with this Python and return the lines it printed; the test fails when it ends with an error."""
    script = anyio.Path(folder / "script.py")
    await script.write_text(text, encoding="utf-8")
    ended = await run(sys.executable, script.name, folder=folder)
    assert ended.code == 0, ended.stderr
    return ended.stdout.splitlines()


async def fetched(url: str, **headers: str) -> bytes:
    """Return what is behind a link; the test fails when it is not there."""
    async with aiohttp.ClientSession() as http, http.get(url, headers=headers) as response:
        assert response.status == 200, await response.text()
        return await response.read()


def look(data: bytes) -> tuple[str | None, tuple[int, int]]:
    """Return the format and the size of an encoded picture, after decoding all of it."""
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        return image.format, image.size


def save_picture(path: Path, *, width: int, height: int) -> None:
    """Write a plain picture in the format of the file's name."""
    Image.new("RGB", (width, height), "teal").save(path)


def shape(value: Any) -> Any:
    """Return decoded JSON with every value replaced by its type's name, and every list by its different shapes."""
    if isinstance(value, dict):
        return {name: shape(inner) for name, inner in value.items()}
    if isinstance(value, list):
        shapes = [shape(inner) for inner in value]
        return [inner for place, inner in enumerate(shapes) if inner not in shapes[:place]]
    return type(value).__name__
