"""`mirage-async batch`: buy a file full of pictures, and go on where it was left, whatever ended it."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from mirage_async.cli._arguments import amount, options_of, reference_of, whole
from mirage_async.cli._exits import CommandError
from mirage_async.cli._lines import command_line
from mirage_async.cli._requests import PROVIDERS, MaxWait, Model, Options, References, Sandboxed, Seed, Size
from mirage_async.cli._running import run_in_loop
from mirage_async.cli._verbosity import Verbose

__all__ = ["batch"]


def batch(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE", help="Requests, one a line: .jsonl, .csv with a header, .txt with prompts; - reads stdin."
        ),
    ],
    *,
    output: Annotated[
        str,
        typer.Option("-o", "--output", metavar="DIR", help="Folder for the pictures, and for what is known of them."),
    ],
    form: Annotated[
        str | None, typer.Option("--format", metavar="F", help="jsonl, csv or txt, where the name does not tell.")
    ] = None,
    limit: Annotated[int, typer.Option(metavar="N", parser=whole, help="The most purchases under way.")] = 8,
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="N",
            help='Where the buying stops, over all runs: "100" purchases, "250 pictures" or "12.5 credits".',
        ),
    ] = None,
    price: Annotated[
        float | None,
        typer.Option(
            metavar="C", parser=amount, help="Credits a picture costs where the provider does not say; for --budget."
        ),
    ] = None,
    retry_failed: Annotated[
        bool,
        typer.Option(
            "--retry-failed",
            help="Buy what failed once more, but not what was given up; it may have cost money before.",
        ),
    ] = False,
    provider: Annotated[
        str | None, typer.Option(metavar="NAME", help=f"Who draws the lines that name nobody: {PROVIDERS}.")
    ] = None,
    aspect_ratio: Annotated[
        str | None, typer.Option(metavar="R", help='For lines without one, as all that follow; such as "16:9".')
    ] = None,
    size: Size = None,
    number: Annotated[
        int | None,
        typer.Option(
            "-n",
            "--number",
            metavar="N",
            parser=whole,
            help="How many pictures of each line; as many requests as it takes.",
        ),
    ] = None,
    seed: Seed = None,
    model: Model = None,
    reference: References = None,
    option: Options = None,
    max_wait: MaxWait = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="The record of each request as a JSON object instead of the pictures' paths.")
    ] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No progress; only what went wrong.")] = False,
    sandbox: Sandboxed = False,
    verbose: Verbose = False,  # noqa: ARG001 - its callback does the work
) -> int:
    """Buy a picture, or more, for each line of a file.

    Every line is checked before anything is bought. End the command at any time, in any way, and run it again: it goes
    on where it was, and buys nothing twice. Ctrl-C stops the buying and lets what is in flight come home; a second one
    leaves it to the next run, and a third ends the process in the middle of whatever it does.

    What was on its way without an answer when the command was killed, or the network failed, is called uncertain. It is
    never bought again, and settled with `mirage-async jobs resolve` once the provider's dashboard has told. At Mira and
    Milady, which answer with the pictures, that can be up to --limit lines each time.

    A line of .jsonl is an object with the keys prompt, provider, aspect_ratio, size, n, seed, model, references,
    options and max_wait; all but prompt may be missing. A .csv has them as columns, and options.NAME for a parameter of
    the provider's own. Relative references start at the file's folder. In .txt a line that begins with # is a comment.

    Lines may be added, removed and reordered between two runs. A line that is changed is bought anew; where an option
    such as -n or --model is changed, so are all lines that leave this to it.

    The folder gets a file for each picture, results.jsonl with a record for each request, and index.html, which shows
    them all. What it keeps under .mirage is what the next run goes by.
    """
    from mirage_async.cli._batch import BatchOrder, bound_of, fulfil, read_lines  # noqa: PLC0415 - loads the HTTP client, which help does without

    if not output:
        raise CommandError("-o must name a folder, such as . for this one; got ''")
    if limit < 1:
        raise CommandError(f"--limit must be at least 1; got {limit}")
    bound = None if budget is None else bound_of(budget)
    if price is not None and (bound is None or bound.unit != "credits"):
        got = "none" if budget is None else repr(budget)
        raise CommandError(f'--price is for a --budget of credits, such as "12.5 credits"; got {got}')
    lines, problems, comments = read_lines(file, form)
    defaults = {
        "provider": provider,
        "aspect_ratio": aspect_ratio,
        "size": size,
        "n": number,
        "seed": seed,
        "model": model,
        "references": [_absolute(text) for text in reference or ()] or None,
        "options": options_of(option or ()) or None,
        "max_wait": max_wait,
    }
    order = BatchOrder(
        source="stdin" if file == "-" else file,
        base=Path() if file == "-" else Path(file).parent,
        lines=lines,
        problems=problems,
        comments=comments,
        defaults=defaults,
        folder=Path(output),
        limit=limit,
        bound=bound,
        price=price,
        retry_failed=retry_failed,
        sandbox=sandbox,
        as_json=as_json,
        quiet=quiet,
        again=_again(from_stdin=file == "-"),
    )
    return run_in_loop(fulfil(order))


def _absolute(text: str) -> str:
    """Return a picture of the command line as it is named from anywhere."""
    found = reference_of(text)
    return str(found.absolute()) if isinstance(found, Path) else found


def _again(*, from_stdin: bool) -> str:
    """Return the command line that goes on with the batch: this one, which has bought once more what had failed."""
    line = command_line("mirage-async", *(word for word in sys.argv[1:] if word != "--retry-failed"))
    return f"{line} (with the same lines on stdin)" if from_stdin else line
