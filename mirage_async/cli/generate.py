"""`mirage-async generate`: buy pictures from one provider."""

from typing import Annotated

import typer

from mirage_async.cli._arguments import options_of, prompt_of, reference_of, whole
from mirage_async.cli._aside import run_with_stderr_aside
from mirage_async.cli._output import output_for
from mirage_async.cli._requests import PROVIDERS, MaxWait, Model, Options, References, Sandboxed, Seed, Size
from mirage_async.cli._verbosity import Verbose
from mirage_async.models import ImageRequest

__all__ = ["generate"]


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
    size: Size = None,
    number: Annotated[
        int | None, typer.Option("-n", "--number", metavar="N", parser=whole, help="How many pictures.")
    ] = None,
    seed: Seed = None,
    model: Model = None,
    reference: References = None,
    option: Options = None,
    max_wait: MaxWait = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a picture instead of its path.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No progress and no warnings.")] = False,
    sandbox: Sandboxed = False,
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

    return run_with_stderr_aside(buy(request, place, sandbox=sandbox, as_json=as_json, quiet=quiet))
