"""The page of a batch: every picture with what was asked for. Pure text; one file, no scripts, nothing from outside."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, get_args
from urllib.parse import quote

from mirage_async.cli._batch.record import State
from mirage_async.cli._demo.style import STYLE
from mirage_async.cli._lines import counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mirage_async.cli._batch.record import Record

__all__ = ["MARK", "render"]

MARK = '<meta name="generator" content="mirage_async batch">'
"""What tells a page of ours from anybody else's."""

_POLICY = "default-src 'none'; img-src 'self'; style-src 'unsafe-inline'"
_HUES = (205, 24, 282, 150)  # of the providers' colours, in the order the providers appear
_NOTHING = "–"  # noqa: RUF001 - a dash is what a table shows for "none"


def render(records: Sequence[Record]) -> str:
    """Return the page; whatever comes from outside is escaped. Pictures are linked by name, beside the page."""
    providers = list(dict.fromkeys(record.provider for record in records))
    hues = {name: _HUES[place % len(_HUES)] for place, name in enumerate(providers)}
    pictures = sum(len(record.files) for record in records)
    cards = "".join(card for record in records for card in _cards(record, hues[record.provider]))
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n{MARK}\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>mirage_async: {counted(pictures, 'picture')}</title>\n"
        f"<style>{STYLE}</style>\n</head>\n<body>\n{_header(records, pictures)}\n<main>\n"
        f'<section style="margin-top:2.2rem">\n<div class=sheet>\n{cards}</div>\n</section>\n</main>\n'
        "<footer>What became of each request is in results.jsonl.</footer>\n</body>\n</html>\n"
    )


def _header(records: Sequence[Record], pictures: int) -> str:
    states = [record.state for record in records]
    credits_spent = [record.credits for record in records if record.credits is not None]
    totals: dict[str, str] = {
        "pictures": str(pictures),
        "requests": str(len(records)),
    }
    totals.update((state, str(states.count(state))) for state in get_args(State) if state in states)
    if credits_spent:
        totals["credits"] = f"{sum(credits_spent):g}"
    cells = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in totals.items())
    return f"<header>\n<h1>{counted(pictures, 'picture')}</h1>\n<dl class=totals>{cells}</dl>\n</header>"


def _cards(record: Record, hue: int) -> Iterator[str]:
    for place, name in enumerate(record.files, 1):
        link = escape(quote(name))
        size = f' width="{record.width}" height="{record.height}"' if record.width and record.height else ""
        picture = (
            f'<a class=mat href="{link}"><img src="{link}" alt="{escape(record.prompt)}"{size} loading="lazy"></a>'
        )
        yield _figure(picture, record, hue, f"{place} of {len(record.files)}" if len(record.files) > 1 else "")
    if not record.files and record.state != "unbought":
        reason = escape(record.error or "no reason is known")
        missing = f"<div class=mat><p class=none><b>{escape(record.state)}</b><br>{reason}</p></div>"
        yield _figure(missing, record, hue, "")


def _figure(top: str, record: Record, hue: int, place: str) -> str:
    part = f"part {record.part} of {record.parts}" if record.parts > 1 else ""
    line = "no line any more" if record.line is None else f"line {record.line}"
    tags = "".join(f"<li>{escape(tag)}</li>" for tag in (record.provider, record.model, line, part, place) if tag)
    return (
        f'<figure style="--hue:{hue}">\n{top}\n<figcaption>\n<p class=prompt>{escape(record.prompt)}</p>\n'
        f"<ul class=tags>{tags}</ul>\n{_facts(record)}\n</figcaption>\n</figure>\n"
    )


def _facts(record: Record) -> str:
    size = f"{record.width} × {record.height}" if record.width and record.height else _NOTHING  # noqa: RUF001 - pixels are multiplied
    seconds = _NOTHING if record.seconds is None else f"{record.seconds:.1f}"
    spent = _NOTHING if record.credits is None else f"{record.credits:g}"
    cells = (
        f"<div><dt>seconds</dt><dd>{seconds}</dd></div><div><dt>credits</dt><dd>{spent}</dd></div>"
        f'<div style="grid-column:span 2"><dt>picture</dt><dd>{size}</dd></div>'
    )
    for name, value in (("job", record.job_id), ("key", record.key)):
        if value:
            cells += f"<div class=wide><dt>{name}</dt><dd><code>{escape(value)}</code></dd></div>"
    return f"<dl class=facts>{cells}</dl>"
