"""Scatter plots as SVG text, drawn by hand so that a page needs no other file and a report no plotting library."""

import math
from html import escape
from typing import NamedTuple

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 560, 340, 64, 48, 30, 24
COLOURS = ("#1f6f8b", "#c8553d", "#588157", "#7b4b94", "#b08900", "#444444", "#d16ba5", "#3a86ff")


class Point(NamedTuple):
    """One tokenizer in a plot.

    Attributes:
        label: its name.
        x: bits per image, on a logarithmic axis.
        y: the figure.
    """

    label: str
    x: float
    y: float


def scatter(title: str, y_title: str, points: list[Point]) -> str:
    """Points -> an <svg> with bits per image (logarithmic) to the right and the figure upwards.

    Raises:
        ValueError: no points, or bits that are not positive.
    """
    if not points or min(point.x for point in points) <= 0:
        raise ValueError(f"{title}: a plot needs points with positive bits per image, got {points}")
    low, high = _bounds([point.y for point in points])
    left, right = math.log10(min(p.x for p in points)) - 0.15, math.log10(max(p.x for p in points)) + 0.15

    def place(x: float, y: float) -> tuple[float, float]:
        across = (math.log10(x) - left) / (right - left) * (WIDTH - LEFT - RIGHT) + LEFT
        return across, HEIGHT - BOTTOM - (y - low) / (high - low) * (HEIGHT - BOTTOM - TOP)

    parts = [_text(WIDTH / 2, 18, title, "middle", 14), *_axes(place, (left, right), (low, high), y_title)]
    taken: list[float] = []
    for index, point in enumerate(sorted(points, key=lambda point: -point.y)):
        x, y = place(point.x, point.y)
        colour = COLOURS[index % len(COLOURS)]
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{colour}"/>')
        beside = x > WIDTH * 0.7
        line = y + 4
        while any(abs(line - other) < 12 for other in taken):
            line += 12
        taken.append(line)
        parts.append(_text(x - 9 if beside else x + 9, line, point.label, "end" if beside else "start", 11, colour))
    box = f'viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {box} font-family="sans-serif">{"".join(parts)}</svg>'


def _axes(place, across: tuple[float, float], up: tuple[float, float], y_title: str) -> list[str]:  # type: ignore[no-untyped-def]
    parts = []
    for power in range(math.floor(across[0]), math.ceil(across[1]) + 1):
        for step in (1, 2, 5):
            bits = step * 10.0**power
            if across[0] <= math.log10(bits) <= across[1]:
                x, y = place(bits, up[0])
                parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{y:.1f}" stroke="#eee"/>')
                parts.append(_text(x, y + 16, f"{bits:,.0f}", "middle", 11))
    for step in range(6):
        value = up[0] + (up[1] - up[0]) * step / 5
        _, y = place(10 ** across[0], value)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#eee"/>')
        parts.append(_text(LEFT - 6, y + 4, f"{value:.3g}", "end", 11))
    parts.append(_text(WIDTH / 2, HEIGHT - 10, "bits per image", "middle", 12))
    middle = HEIGHT / 2
    turned = f'<text x="14" y="{middle}" font-size="12" text-anchor="middle" transform="rotate(-90 14 {middle})">'
    return [*parts, f"{turned}{escape(y_title)}</text>"]


def _bounds(values: list[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = (high - low) * 0.12 or abs(high) * 0.1 or 1.0
    return low - margin, high + margin


def _text(x: float, y: float, text: str, anchor: str, size: int, colour: str = "#222") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{colour}"'
    return f"<text {place}>{escape(text)}</text>"
