"""What the tests of `batch` share: files of lines, and a look at what is in the folder."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from PIL import Image

if TYPE_CHECKING:
    from pathlib import Path

    from mirage_async.sandbox import Sandbox

PROMPTS = ("a red fox", "a lighthouse at dusk", "paper lanterns", "a castle on a turtle", "a tram in the rain")


def write_prompts(folder: Path, *prompts: str, name: str = "prompts.txt") -> str:
    """Write a file of prompts and return its name."""
    (folder / name).write_text("".join(f"{prompt}\n" for prompt in prompts), encoding="utf-8")
    return name


def records_in(folder: Path) -> list[dict[str, Any]]:
    """Return the manifest's records."""
    return [json.loads(line) for line in (folder / "results.jsonl").read_text("utf-8").splitlines()]


def states_in(folder: Path) -> dict[str, int]:
    """Return how many records are in each state."""
    return dict(Counter(record["state"] for record in records_in(folder)))


def pictures_in(folder: Path) -> list[str]:
    """Return the names of the pictures in a folder, each of which can be opened whole."""
    names = sorted(path.name for path in folder.iterdir() if path.suffix in {".jpg", ".png", ".webp"})
    for name in names:
        with Image.open(folder / name) as picture:
            picture.load()
    return names


def drawn(sandbox: Sandbox) -> Counter[str]:
    """Return how often each prompt was bought."""
    return Counter(job.prompt for job in sandbox.jobs.values())
