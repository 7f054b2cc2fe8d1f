"""`mirage-async generate`: buy pictures from one provider."""

import asyncio
import pkgutil
from typing import Annotated

import typer

from mirage_async import wire
from mirage_async.cli._arguments import options_of, prompt_of, reference_of, seconds, whole
from mirage_async.cli._output import output_for
from mirage_async.cli._verbosity import Verbose
from mirage_async.models import ImageRequest

__all__ = ["PROVIDERS", "generate"]

# The codecs are one public module a provider; the registry itself would load the HTTP client.
PROVIDERS = ", ".join(module.name for module in pkgutil.iter_modules(wire.__path__) if module.name[0] != "_")
"""The names of all providers, as help texts list them."""


def generate(
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="What to draw; - reads it from stdin.")],
    *,
    provider: Annotated[str, typer.Option(metavar="NAME", help=f"Who draws: {PROVIDERS}.")],
    output: Annotated[
        str,
        typer.Option(
            "-o",
            "--output",
            metavar="PATH",
            help="A file (its suffix follows the picture), a folder (a new one ends in /), or - for stdout.",
        ),
    ] = ".",
    aspect_ratio: Annotated[str | None, typer.Option(metavar="R", help='Such as "16:9".')] = None,
    size: Annotated[str | None, typer.Option(metavar="WxH", help="Pixels, such as 1024x768.")] = None,
    number: Annotated[
        int | None, typer.Option("-n", "--number", metavar="N", parser=whole, help="How many pictures.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(metavar="N", parser=whole, help="For a repeatable picture (mirako).")
    ] = None,
    model: Annotated[str | None, typer.Option(metavar="M", help="The provider's name of a model.")] = None,
    reference: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE|URL", help="A picture to work from; may be given several times."),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="A parameter of the provider's own, such as quality=high (mira) or style_preset=origami (milady).",
        ),
    ] = None,
    max_wait: Annotated[
        float | None, typer.Option(metavar="S", parser=seconds, help="Seconds to wait for the job (mirako, miragic).")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a picture instead of its path.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No progress and no warnings.")] = False,
    sandbox: Annotated[
        bool,
        typer.Option("--sandbox", help="Draw in a sandbox on this machine: no key, no network, no cost."),
    ] = False,
    verbose: Verbose = False,  # noqa: ARG001 - its callback does the work
) -> int:
    """Buy pictures from one provider and print the paths of their files.

    Everything that can be wrong is checked before anything is bought: the arguments, the pictures to work from, and
    whether the files can be written.
    """
    request = ImageRequest(
        prompt=prompt_of(prompt),
        provider=provider,
        aspect_ratio=aspect_ratio,
        size=size,
        n=number,
        seed=seed,
        model=model,
        references=tuple(map(reference_of, reference or ())),
        options=options_of(option or ()),
        max_wait=max_wait,
    )
    place = output_for(output, pictures=number or 1, overwrite=overwrite, as_json=as_json)
    from mirage_async.cli._purchase import buy  # noqa: PLC0415 - loads the HTTP client, which help does without

    return asyncio.run(buy(request, place, sandbox=sandbox, as_json=as_json, quiet=quiet))
