"""A training curve as a small SVG file, written by hand: it is committed, so it must be small and need no browser."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import cycle

WIDTH, HEIGHT = 640, 360
LEFT, RIGHT, TOP, BOTTOM = 60, 150, 36, 48
COLOURS = ("#3b6fb6", "#c0504d", "#5b8c5a", "#7f6aa6")


def curve_svg(curves: Mapping[str, Sequence[tuple[float, float]]], title: str, x_label: str, y_label: str, top: float) -> str:
    """Curves over a common axis from 0; what lies above `top` is cut off.

    Args:
        curves: name -> (x, y) points.
        top: the end of the y axis, > 0.

    Returns: the text of the file.
    """
    right = max(x for points in curves.values() for x, _ in points)

    def place(x: float, y: float) -> tuple[float, float]:
        return (LEFT + x / right * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - min(y, top) / top * (HEIGHT - TOP - BOTTOM))

    parts = _frame(title, x_label, y_label, right, top, place)
    ends = []
    for (name, points), colour in zip(curves.items(), cycle(COLOURS)):
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in points if point[1] <= top))
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        ends.append((place(*points[-1])[1], f"{name} {points[-1][1]:.2f}", colour))
    parts += _names(ends)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        'font-family="sans-serif" font-size="12">\n<rect width="100%" height="100%" fill="white"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _frame(title: str, x_label: str, y_label: str, right: float, top: float, place) -> list[str]:
    """Title, labels and ticks."""
    (x0, y0), (x1, y1) = place(0, 0), place(right, top)
    parts = [
        _text((x0 + x1) / 2, 20, title, size=14),
        _text((x0 + x1) / 2, HEIGHT - 10, x_label),
        f'<g transform="rotate(-90 16 {(y0 + y1) / 2:.1f})">{_text(16, (y0 + y1) / 2, y_label)}</g>',
        f'<path d="M{x0:.1f},{y1:.1f}V{y0:.1f}H{x1:.1f}" fill="none" stroke="#333"/>',
    ]
    parts += [_text(place(x, 0)[0], y0 + 16, f"{x:g}") for x in _ticks(right)]
    parts += [_text(x0 - 6, place(0, y)[1] + 4, f"{y:g}", anchor="end") for y in _ticks(top)]
    return parts


def _ticks(end: float) -> list[float]:
    """Round numbers from 0 to at most `end`, three to six of them."""
    unit = 10 ** math.floor(math.log10(end))
    step = next(unit * share for share in (0.2, 0.5, 1, 2) if end / (unit * share) < 6)
    return [round(k * step, 10) for k in range(int(end / step + 1e-9) + 1)]


def _names(ends: list[tuple[float, str, str]]) -> list[str]:
    """The names of the lines beside their right ends, moved apart where they would touch."""
    parts, last = [], -100.0
    for y, name, colour in sorted(ends):
        last = max(y, last + 14)
        parts.append(_text(WIDTH - RIGHT + 6, last + 4, name, anchor="start", colour=colour))
    return parts


def _text(x: float, y: float, text: str, anchor: str = "middle", colour: str = "#333", size: int = 12) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}" font-size="{size}">{text}</text>'
