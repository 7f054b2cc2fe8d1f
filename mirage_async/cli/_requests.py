"""The options a request is made of, which `generate` has and, for all its lines, `batch`."""

from __future__ import annotations

import pkgutil
from typing import Annotated, TypeAlias

import typer

from mirage_async import wire
from mirage_async.cli._arguments import seconds, whole

__all__ = ["PROVIDERS", "MaxWait", "Model", "Options", "References", "Sandboxed", "Seed", "Size"]

# The codecs are one public module a provider; the registry itself would load the HTTP client.
PROVIDERS = ", ".join(module.name for module in pkgutil.iter_modules(wire.__path__) if module.name[0] != "_")
"""The names of all providers, as help texts list them."""

Size: TypeAlias = Annotated[str | None, typer.Option(metavar="WxH", help="Pixels, such as 1024x768.")]
Seed: TypeAlias = Annotated[
    int | None, typer.Option(metavar="N", parser=whole, help="For a repeatable picture (mirako).")
]
Model: TypeAlias = Annotated[str | None, typer.Option(metavar="M", help="The provider's name of a model.")]
References: TypeAlias = Annotated[
    list[str] | None, typer.Option(metavar="FILE|URL", help="A picture to work from; may be given several times.")
]
Options: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE",
        help="A parameter of the provider's own, such as quality=high (mira) or style_preset=origami (milady).",
    ),
]
MaxWait: TypeAlias = Annotated[
    float | None, typer.Option(metavar="S", parser=seconds, help="Seconds to wait for each job (mirako, miragic).")
]
Sandboxed: TypeAlias = Annotated[
    bool, typer.Option("--sandbox", help="Draw in a sandbox on this machine: no key, no network, no cost.")
]
