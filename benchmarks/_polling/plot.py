"""Polls against delay as a picture: an SVG written by hand, for light and dark pages alike."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks._polling.figures import Place, Report, Row

__all__ = ["draw"]

WIDTH, HEIGHT = 960, 500
TOP, FLOOR = 92, 430
LEGEND, LEGEND_TOP, LINE = 722, 104, 21
_APART = 16.0  # pixels between the middles of two dots
_REACHES = (0.0, 20.0, 34.0, 48.0)
_TURNS = tuple(math.radians(angle) for angle in (-45, 135, 0, 180, -90, 90, 45, -135))

_STYLE = """
  svg { --ink: #1f2328; --soft: #59636e; --grid: #d8dee4; --page: #ffffff; --ours: #0969da; --them: #bc4c00 }
  @media (prefers-color-scheme: dark) {
    svg { --ink: #e6edf3; --soft: #9198a1; --grid: #30363d; --page: #0d1117; --ours: #4493f8; --them: #f0883e }
  }
  text { font: 12px system-ui, -apple-system, "Segoe UI", sans-serif; fill: var(--ink) }
  .title { font-size: 16px; font-weight: 600 }
  .head { font-size: 13px; font-weight: 600 }
  .soft { fill: var(--soft) }
  .page { fill: var(--page) }
  .grid { stroke: var(--grid) }
  .front { stroke: var(--ink); stroke-width: 1.5; stroke-dasharray: 5 4; fill: none }
  .ours { stroke: var(--ours); stroke-width: 2.5; fill: none }
  .ours-dot { fill: var(--ours) }
  .them { fill: var(--page); stroke: var(--them); stroke-width: 1.5 }
  .aside { stroke: var(--them) }
  .place { fill: var(--them) }
  .number { fill: var(--them); font-size: 10px; font-weight: 700; text-anchor: middle }
"""

_OPENING = f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"
  role="img" aria-labelledby="title">
<title id="title">Status calls per job against delay: AdaptiveInterval and the defaults of others</title>
<style>{_STYLE}</style>
<rect class="page" width="{WIDTH}" height="{HEIGHT}"/>
<text class="title" x="20" y="30">How often one asks, and how late one learns</text>
<text class="soft" x="20" y="50">A number is one schedule, the same in both panels; each dot of the line is
  another price of being late. Scales are logarithmic; lower left is better.</text>"""


class _Panel(NamedTuple):
    """One diagram and its scales."""

    name: str
    title: str
    left: float
    right: float
    polls: tuple[float, float]
    delay: tuple[float, float]
    poll_marks: tuple[float, ...]
    delay_marks: tuple[float, ...]

    def at(self, place: Place) -> tuple[float, float]:
        """Return where polls and delay lie, in pixels."""
        low, high = self.polls
        x = self.left + (self.right - self.left) * math.log(place[0] / low) / math.log(high / low)
        low, high = self.delay
        return x, FLOOR - (FLOOR - TOP) * math.log(place[1] / low) / math.log(high / low)


_PANELS = (
    _Panel(
        name="pictures",
        title="Pictures, 5 to 15 s on average",
        left=78,
        right=370,
        polls=(1, 60),
        delay=(0.009, 5),
        poll_marks=(1, 2, 5, 10, 20, 50),
        delay_marks=(0.01, 0.03, 0.1, 0.3, 1, 3),
    ),
    _Panel(
        name="avatars",
        title="Avatars, 10 min on average",
        left=438,
        right=694,
        polls=(1, 5000),
        delay=(0.0001, 1),
        poll_marks=(1, 10, 100, 1000),
        delay_marks=(0.0001, 0.001, 0.01, 0.1, 1),
    ),
)


def draw(report: Report) -> str:
    """Return the SVG: the front no schedule can pass, the policy along it, and everybody else."""
    rivals = [row for row in report.rows if row.places]
    parts = [_OPENING]
    for panel in _PANELS:
        parts += _scales(panel)
        parts += _curves(panel, [each[panel.name] for each in report.front], [each[panel.name] for each in report.ours])
        parts += _dots([panel.at(row.places[panel.name]) for row in rivals])
    middle = (TOP + FLOOR) / 2
    parts.append(
        f'<text class="soft" x="20" y="{middle:.0f}" text-anchor="middle" transform="rotate(-90 20 {middle:.0f})">'
        "mean delay, as a share of the mean duration</text>"
    )
    return "\n".join([*parts, *_legend(rivals), "</svg>", ""])


def _curves(panel: _Panel, front: Sequence[Place], ours: Sequence[Place]) -> list[str]:
    edge = [(x, y) for x, y in map(panel.at, front) if y <= FLOOR]
    line = [panel.at(place) for place in ours]
    return [
        f'<polyline class="front" points="{_points(edge)}"/>',
        f'<polyline class="ours" points="{_points(line)}"/>',
        *(f'<circle class="ours-dot" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in line),
    ]


def _points(places: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)


def _scales(panel: _Panel) -> list[str]:
    middle = (panel.left + panel.right) / 2
    parts = [
        f'<text class="head" x="{panel.left:.0f}" y="{TOP - 12}">{panel.title}</text>',
        f'<text class="soft" x="{middle:.0f}" y="{FLOOR + 42}" text-anchor="middle">status calls per job</text>',
    ]
    for polls in panel.poll_marks:
        x, _ = panel.at((polls, 1.0))
        parts.append(f'<line class="grid" x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{FLOOR}"/>')
        parts.append(f'<text class="soft" x="{x:.1f}" y="{FLOOR + 18}" text-anchor="middle">{polls:g}</text>')
    for delay in panel.delay_marks:
        _, y = panel.at((1.0, delay))
        parts.append(f'<line class="grid" x1="{panel.left}" y1="{y:.1f}" x2="{panel.right}" y2="{y:.1f}"/>')
        parts.append(
            f'<text class="soft" x="{panel.left - 7}" y="{y + 4:.1f}" text-anchor="end">{100 * delay:g} %</text>'
        )
    return parts


def _dots(places: Sequence[tuple[float, float]]) -> list[str]:
    """Return a numbered dot for each place; where it would cover another it steps aside, on a line to its place."""
    taken = list[tuple[float, float]]()
    lines, dots = list[str](), list[str]()
    for number, (x, y) in enumerate(places, 1):
        around = [(x + reach * math.cos(turn), y + reach * math.sin(turn)) for reach in _REACHES for turn in _TURNS]
        free = (spot for spot in around if all(math.dist(spot, other) >= _APART for other in taken))
        spot = next(free, (x, y))
        taken.append(spot)
        if spot != (x, y):
            lines.append(
                f'<line class="aside" x1="{x:.1f}" y1="{y:.1f}" x2="{spot[0]:.1f}" y2="{spot[1]:.1f}"/>'
                f'<circle class="place" cx="{x:.1f}" cy="{y:.1f}" r="2"/>'
            )
        dots.append(_dot(number, *spot))
    return [*lines, *dots]


def _dot(number: int, x: float, y: float) -> str:
    return (
        f'<circle class="them" cx="{x:.1f}" cy="{y:.1f}" r="7.5"/>'
        f'<text class="number" x="{x:.1f}" y="{y + 3.6:.1f}">{number}</text>'
    )


def _legend(rivals: Sequence[Row]) -> list[str]:
    x, y = LEGEND, LEGEND_TOP
    parts = [
        f'<line class="ours" x1="{x}" y1="{y - 4}" x2="{x + 22}" y2="{y - 4}"/>',
        f'<circle class="ours-dot" cx="{x + 11}" cy="{y - 4}" r="3"/>',
        f'<text class="head" x="{x + 30}" y="{y}">AdaptiveInterval</text>',
        f'<text class="soft" x="{x + 30}" y="{y + 16}">after 100 jobs</text>',
        f'<line class="front" x1="{x}" y1="{y + 33}" x2="{x + 22}" y2="{y + 33}"/>',
        f'<text x="{x + 30}" y="{y + 37}">best there is, knowing the law</text>',
    ]
    y += 37
    for number, row in enumerate(rivals, 1):
        y += LINE
        parts.append(_dot(number, x + 11, y - 4))
        parts.append(f'<text x="{x + 30}" y="{y}">{escape(row.name)}</text>')
    return parts
