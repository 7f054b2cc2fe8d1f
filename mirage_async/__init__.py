"""Buy pictures from Mirako, Miragic, Mira and Milady from async Python.

The names below are loaded on first use: importing this package loads neither aiohttp nor asyncio, so a command line
answers at once.

How the parts depend on each other, each importing only from below::

    __main__
    cli/                    what a person types
    testing                 for a user's own test suite
    hub                     Mirage: all providers under one roof
    batch/ | _failover      many requests; several providers for one
    clients/                one typed client a provider          |  sandbox/   the providers' other side
    purchase                one submit, one outcome              |
    scheduler/ | webhooks/  ask about jobs; hear of them         |
    jobs/                   the handle, its states, its ports    |
    downloads               fetching finished pictures           |
    _fetching | _saving     one download attempt; files          |
    _transport | _retry     sockets; waiting and trying again    |
    wire/                   each provider's HTTP as pure functions
    models                  values
    media                   picture headers, data URLs
    exceptions | _clock | _tasks
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mirage_async.batch import Budget
    from mirage_async.clients import MiladyClient, MiraClient, MiragicClient, MirakoClient
    from mirage_async.hub import Mirage
    from mirage_async.jobs import Job
    from mirage_async.models import (
        Avatar,
        GeneratedImage,
        Generation,
        ImageRequest,
        JobStatus,
        JobUpdate,
        Outcome,
        Reference,
    )
    from mirage_async.scheduler import Limits

__all__ = [
    "Avatar",
    "Budget",
    "GeneratedImage",
    "Generation",
    "ImageRequest",
    "Job",
    "JobStatus",
    "JobUpdate",
    "Limits",
    "MiladyClient",
    "MiraClient",
    "Mirage",
    "MiragicClient",
    "MirakoClient",
    "Outcome",
    "Reference",
    "__version__",
]

__version__ = "0.1.0"

_HOMES = {
    "Avatar": "models",
    "Budget": "batch",
    "GeneratedImage": "models",
    "Generation": "models",
    "ImageRequest": "models",
    "Job": "jobs",
    "JobStatus": "models",
    "JobUpdate": "models",
    "Limits": "scheduler",
    "MiladyClient": "clients",
    "MiraClient": "clients",
    "Mirage": "hub",
    "MiragicClient": "clients",
    "MirakoClient": "clients",
    "Outcome": "models",
    "Reference": "models",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    value = globals()[name] = getattr(import_module(f"{__name__}.{home}"), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
