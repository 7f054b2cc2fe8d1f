"""One picture as one line of JSON."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import msgspec

from mirage_async.cli._streams import fit_for_stdout

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mirage_async.models import GeneratedImage, Generation

__all__ = ["picture_record", "write_json"]


def picture_record(path: Path, generation: Generation, image: GeneratedImage) -> dict[str, Any]:
    """Return what `--json` says about a saved picture; durations are seconds."""
    timings = msgspec.structs.asdict(generation.timings)
    return {
        "path": str(path),
        "provider": generation.provider,
        "model": generation.model,
        "job_id": generation.job_id,
        "mime_type": image.mime_type,
        "width": image.width,
        "height": image.height,
        "credits": generation.credits,
        "timings": {part: None if spent is None else round(spent, 3) for part, spent in timings.items()},
        "polls": generation.polls,
        "revised_prompt": image.revised_prompt,
        "text": image.text,
    }


def write_json(record: Mapping[str, Any]) -> None:
    """Write one object and a line break to stdout."""
    sys.stdout.write(f"{fit_for_stdout(msgspec.json.encode(record).decode())}\n")
