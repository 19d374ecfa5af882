"""Curves as SVG, written by hand: no more than what a forge shows in a page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 480, 300
LEFT, RIGHT, TOP, BOTTOM = 36, 148, 28, 44

COLOURS = {
    "grey": "#999999",
    "orange": "#e69f00",
    "red": "#d55e00",
    "teal": "#009e73",
    "blue": "#0072b2",
    "black": "#333333",
}
"""Colours that those who see fewer of them can tell apart (Okabe and Ito)."""


@dataclass(frozen=True)
class Curve:
    """A named line through points, in one of the :data:`COLOURS`."""

    name: str
    colour: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Panel:
    """Curves over one pair of axes; what is above the range of ``y`` is cut off."""

    title: str
    below: str
    x: tuple[float, float]
    y: tuple[float, float]
    curves: Sequence[Curve]


def svg(panels: Sequence[Panel]) -> str:
    """The panels beside each other."""
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH * len(panels)} {HEIGHT}" '
        f'width="{WIDTH * len(panels)}" height="{HEIGHT}" font-family="sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for place, panel in enumerate(panels):
        lines += [f'<g transform="translate({WIDTH * place} 0)">', *_panel(panel, place), "</g>"]
    return "\n".join([*lines, "</svg>", ""])


def _panel(panel: Panel, place: int) -> Iterator[str]:
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    yield f'<text x="{LEFT}" y="16" font-weight="bold">{escape(panel.title)}</text>'
    yield f'<text x="{(LEFT + right) / 2:g}" y="{HEIGHT - 10}" text-anchor="middle">{escape(panel.below)}</text>'
    for value in _ticks(*panel.y):
        _, y = _at(panel, 0, value)
        yield f'<path d="M{LEFT} {y:.1f}H{right}" stroke="#dddddd"/>'
        yield f'<text x="{LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>'
    for value in _ticks(*panel.x):
        x, _ = _at(panel, value, 0)
        yield f'<text x="{x:.1f}" y="{bottom + 15}" text-anchor="middle">{value:g}</text>'
    yield f'<path d="M{LEFT} {TOP}V{bottom}H{right}" fill="none" stroke="#333333"/>'
    area = f'x="{LEFT}" y="{TOP}" width="{right - LEFT}" height="{bottom - TOP}"'
    yield f'<clipPath id="area{place}"><rect {area}/></clipPath>'
    for number, curve in enumerate(panel.curves):
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in (_at(panel, *point) for point in curve.points))
        colour = COLOURS[curve.colour]
        line = f'fill="none" stroke="{colour}" stroke-width="2"'
        yield f'<polyline clip-path="url(#area{place})" {line} points="{points}"/>'
        y = TOP + 12 + 17 * number
        yield f'<path d="M{right + 8} {y - 4}h16" {line}/>'
        yield f'<text x="{right + 29}" y="{y}">{escape(curve.name)}</text>'


def _at(panel: Panel, x: float, y: float) -> tuple[float, float]:
    """Where a point is in the panel; far above it just outside, as large numbers say nothing."""
    across = (x - panel.x[0]) / (panel.x[1] - panel.x[0])
    up = min((y - panel.y[0]) / (panel.y[1] - panel.y[0]), 3.0)
    return LEFT + across * (WIDTH - RIGHT - LEFT), HEIGHT - BOTTOM - up * (HEIGHT - BOTTOM - TOP)


def _ticks(low: float, high: float) -> list[float]:
    """Four to seven round numbers."""
    step = next(s for s in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50) if (high - low) / s <= 7)
    return [low + step * k for k in range(int((high - low) / step + 1e-9) + 1)]
