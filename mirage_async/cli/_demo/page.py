"""The demo's page: every picture with what it took. Pure text; one file, no scripts, nothing from elsewhere."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING
from urllib.parse import quote

from mirage_async.cli._demo.style import STYLE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mirage_async.cli._demo.exhibit import AvatarBuild, Exhibit, Exhibition, Print

__all__ = ["MARK", "render"]

MARK = '<meta name="generator" content="mirage_async demo">'
"""What tells a page of ours from anybody else's."""

_POLICY = "default-src 'none'; img-src 'self'; style-src 'unsafe-inline'"
_HUES = (205, 24, 282, 150)  # of the providers' colours, in the order the providers appear
_NOTHING = "–"  # noqa: RUF001 - a dash is what a table shows for "none"


def render(exhibition: Exhibition) -> str:
    """Return the page; whatever comes from outside is escaped. Pictures are linked by name, beside the page."""
    providers = list(dict.fromkeys(exhibit.provider for exhibit in exhibition.exhibits))
    sections = "".join(_section(exhibition, name, _HUES[place % len(_HUES)]) for place, name in enumerate(providers))
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n{MARK}\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>mirage_async: {exhibition.pictures} pictures from {len(providers)} providers</title>\n"
        f"<style>{STYLE}</style>\n</head>\n<body>\n{_header(exhibition, len(providers))}\n<main>\n{sections}</main>\n"
        "<footer>Drawn by the sandbox of mirage_async on this machine: no key, no network, no cost. Bars share one "
        "time axis: pale is queued, bright is running, grey is fetching and saving.</footer>\n</body>\n</html>\n"
    )


def _header(exhibition: Exhibition, providers: int) -> str:
    working = exhibition.avatar.seconds + sum(exhibit.seconds for exhibit in exhibition.exhibits)
    totals = {
        "pictures": str(exhibition.pictures),
        "jobs": str(len(exhibition.exhibits) + 1),
        "failed": str(exhibition.failures),
        "all at once": f"{exhibition.seconds:.1f} s",
        "one by one": f"{working:.1f} s",
        "status calls": str(exhibition.polls),
        "seed": str(exhibition.seed),
    }
    cells = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in totals.items())
    return (
        f"<header>\n<h1>{exhibition.pictures} pictures, {providers} providers, {exhibition.seconds:.1f} seconds</h1>\n"
        "<p class=lead>All bought at once through one hub: jobs that are asked about until they are done, and requests "
        f"that are answered with the picture.</p>\n<dl class=totals>{cells}</dl>\n"
        f"{_avatar(exhibition.avatar)}\n</header>"
    )


def _avatar(build: AvatarBuild) -> str:
    name = escape(build.name)
    if build.avatar is None:
        return f"<p class=avatar>Avatar <b>{name}</b> was not built: {escape(build.problem or 'no reason given')}</p>"
    return (
        f"<p class=avatar>Avatar <b>{name}</b> was built from the portrait in {build.seconds:.1f} s with {build.polls} "
        f"status calls, and its id <code>{escape(build.avatar.id)}</code> stands in the prompt of the last Mirako "
        "picture.</p>"
    )


def _section(exhibition: Exhibition, provider: str, hue: int) -> str:
    mine = [exhibit for exhibit in exhibition.exhibits if exhibit.provider == provider]
    cards = "".join(card for exhibit in mine for card in _cards(exhibit, exhibition.seconds))
    count = sum(len(exhibit.prints) for exhibit in mine)
    return (
        f'<section style="--hue:{hue}">\n<h2>{escape(provider)} <small>{_plural(count, "picture")}, '
        f"{_plural(len(mine), 'job')}</small></h2>\n<div class=sheet>\n{cards}</div>\n</section>\n"
    )


def _cards(exhibit: Exhibit, total: float) -> Iterator[str]:
    for number, one in enumerate(exhibit.prints, start=1):
        yield _figure(_picture(exhibit, one), _caption(exhibit, total, one, number))
    if exhibit.problem is not None:
        missing = f"<div class=mat><p class=none><b>failed</b><br>{escape(exhibit.problem)}</p></div>"
        yield _figure(missing, _caption(exhibit, total, None, 0))


def _figure(top: str, caption: str) -> str:
    return f"<figure>\n{top}\n{caption}\n</figure>\n"


def _picture(exhibit: Exhibit, one: Print) -> str:
    link = escape(quote(one.path.name))
    size = f' width="{one.image.width}" height="{one.image.height}"' if one.image.width and one.image.height else ""
    return f'<a class=mat href="{link}"><img src="{link}" alt="{escape(exhibit.prompt)}"{size} loading="lazy"></a>'


def _caption(exhibit: Exhibit, total: float, one: Print | None, number: int) -> str:
    tags = [exhibit.provider, *filter(None, exhibit.look.split(" · "))]
    if len(exhibit.prints) > 1 and one is not None:
        tags.append(f"{number} of {len(exhibit.prints)}")
    items = "".join(f"<li>{escape(tag)}</li>" for tag in tags)
    return (
        f"<figcaption>\n<p class=prompt>{escape(exhibit.prompt)}</p>\n<ul class=tags>{items}</ul>\n"
        f"{_time(exhibit, total)}\n{_facts(exhibit, one)}\n</figcaption>"
    )


def _facts(exhibit: Exhibit, one: Print | None) -> str:
    generation = exhibit.generation
    timings = generation.timings if generation is not None else None
    facts = {
        "queued": _seconds(timings.queued if timings else None),
        "running": _seconds(timings.running if timings else None),
        "detected": _seconds(timings.detected if timings else None),
        "downloaded": _seconds(timings.downloaded if timings else None),
        "polls": _NOTHING if generation is None else str(generation.polls),
    }
    cells = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts.items())
    job = _NOTHING if generation is None or generation.job_id is None else f"<code>{escape(generation.job_id)}</code>"
    cells += f"<div class=wide><dt>job</dt><dd>{job}</dd></div>"
    if one is not None:
        size = f"{one.image.width} × {one.image.height}"  # noqa: RUF001 - pixels are multiplied
        kind = (one.image.mime_type or "").removeprefix("image/").upper()
        model = _NOTHING if generation is None or generation.model is None else escape(generation.model)
        cells += (
            f"<div><dt>model</dt><dd>{model}</dd></div><div class=wide><dt>picture</dt><dd>{size} {kind}</dd></div>"
        )
    return f"<dl class=facts>{cells}</dl>"


def _time(exhibit: Exhibit, total: float) -> str:
    """Draw the job on the time axis all cards share."""
    timings = exhibit.generation.timings if exhibit.generation is not None else None
    queued = (timings.queued if timings is not None else None) or 0.0
    detected = (timings.detected if timings is not None else None) or exhibit.seconds
    parts = {"queued": (0.0, queued), "running": (queued, detected), "saved": (detected, exhibit.seconds)}
    bars = "".join(
        f'<i class={name} style="left:{_share(exhibit.began + start, total)};width:{_share(end - start, total)}"></i>'
        for name, (start, end) in parts.items()
        if end > start
    )
    return f"<div class=time>{bars}</div>"


def _share(seconds: float, total: float) -> str:
    return f"{100 * seconds / total if total > 0 else 0:.2f}%"


def _seconds(seconds: float | None) -> str:
    return _NOTHING if seconds is None else f"{seconds:.2f} s"


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
