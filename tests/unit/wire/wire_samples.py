"""Recorded-shape answers and tiny pictures for the codec tests."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from mirage_async.media import Picture, inspect
from mirage_async.wire import Call, Reply

FOLDER = Path(__file__).parent / "samples"
JPEG = base64.b64decode(json.loads((FOLDER / "mirako" / "generated.json").read_bytes())["data"]["image"])


def sample(name: str) -> bytes:
    """Return the bytes of `samples/<name>.json`."""
    return (FOLDER / f"{name}.json").read_bytes()


def names(folder: str) -> list[str]:
    """Return the names of all samples of one provider."""
    return sorted(f"{folder}/{path.stem}" for path in (FOLDER / folder).glob("*.json"))


def answered(body: bytes | str | object, status: int = 200, **headers: str) -> Reply:
    """Return a reply with this body: bytes as they are, text as the name of a sample, anything else as JSON."""
    if isinstance(body, str):
        body = sample(body)
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    lowered = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status=status, headers=lowered, body=raw, received_at=1_000_000_000.0)


def sent(call: Call) -> Any:
    """Return the JSON body of a call, decoded by another decoder than the one that the codecs use."""
    assert isinstance(call.body, bytes)
    assert call.content_type == "application/json"
    return json.loads(call.body)


def png(width: int, height: int, size: int = 0) -> bytes:
    """Return bytes that begin like a PNG of these dimensions, filled up to `size` bytes."""
    head = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big")
    return head.ljust(size, b"\0")


def picture(data: bytes, label: str | None = None) -> Picture:
    """Return loaded bytes as a client passes them to a codec."""
    return Picture(data=data, label=label, facts=inspect(data))
