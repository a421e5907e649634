"""Scatter plots as SVG text, drawn by hand so that a page needs no other file and a report no plotting library."""

import math
from collections.abc import Callable
from html import escape
from typing import NamedTuple

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 560, 340, 64, 48, 30, 24
COLOURS = ("#1f6f8b", "#c8553d", "#588157", "#7b4b94", "#b08900", "#444444", "#d16ba5", "#3a86ff")

Box = tuple[float, float, float, float]
Place = Callable[[float, float], tuple[float, float]]


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
    low, high, step = _axis([point.y for point in points])
    left, right = math.log10(min(p.x for p in points)) - 0.15, math.log10(max(p.x for p in points)) + 0.15

    def place(x: float, y: float) -> tuple[float, float]:
        across = (math.log10(x) - left) / (right - left) * (WIDTH - LEFT - RIGHT) + LEFT
        return across, HEIGHT - BOTTOM - (y - low) / (high - low) * (HEIGHT - BOTTOM - TOP)

    parts = [_text(WIDTH / 2, 18, title, "middle", 14), *_axes(place, (left, right), (low, high, step), y_title)]
    placed = [place(point.x, point.y) for point in points]
    taken = [(x - 6, y - 6, x + 6, y + 6) for x, y in placed]
    for index, (point, (x, y)) in enumerate(sorted(zip(points, placed, strict=True), key=lambda pair: pair[1][1])):
        colour = COLOURS[index % len(COLOURS)]
        box = _free(x, y, 6.6 * len(point.label), taken)
        taken.append(box)
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{colour}"/>')
        parts.append(_text(box[0], box[3] - 3, point.label, "start", 11, colour))
    view = f'viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {view} font-family="sans-serif">{"".join(parts)}</svg>'


def _free(x: float, y: float, width: float, taken: list[Box]) -> Box:
    """Where a label stands beside its point: right, left, above or below, the first that meets nothing, or least."""
    sides = [(x + 9, y - 7), (x - 9 - width, y - 7)]
    sides += [(x - width / 2, y + shift) for shift in (-21, 8, -33, 20, -45, 32)]
    boxes = [(left, top, left + width, top + 14) for left, top in sides]

    def cost(box: Box) -> int:
        inside = box[0] >= LEFT and box[2] <= WIDTH - 4 and box[1] >= TOP - 8 and box[3] <= HEIGHT - BOTTOM
        met = sum(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in taken)
        return met + 100 * (not inside)

    return min(boxes, key=cost)


def _axes(place: Place, across: tuple[float, float], up: tuple[float, float, float], y_title: str) -> list[str]:
    parts = []
    for power in range(math.floor(across[0]), math.ceil(across[1]) + 1):
        for step in (1, 2, 5):
            bits = step * 10.0**power
            if across[0] <= math.log10(bits) <= across[1]:
                x, y = place(bits, up[0])
                parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{y:.1f}" stroke="#eee"/>')
                parts.append(_text(x, y + 16, f"{bits:,.0f}", "middle", 11))
    for number in range(round((up[1] - up[0]) / up[2]) + 1):
        value = up[0] + number * up[2]
        _, y = place(10 ** across[0], value)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#eee"/>')
        parts.append(_text(LEFT - 6, y + 4, f"{value:.4g}", "end", 11))
    parts.append(_text(WIDTH / 2, HEIGHT - 10, "bits per image", "middle", 12))
    middle = HEIGHT / 2
    turned = f'<text x="14" y="{middle}" font-size="12" text-anchor="middle" transform="rotate(-90 14 {middle})">'
    return [*parts, f"{turned}{escape(y_title)}</text>"]


def _axis(values: list[float]) -> tuple[float, float, float]:
    """Ends of an axis and the step of its ticks: round numbers around the values, never below zero without need."""
    low, high = min(values), max(values)
    rough = ((high - low) or abs(high) or 1.0) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    return math.floor(low / step) * step, math.ceil(high / step + 0.1) * step, step


def _text(x: float, y: float, text: str, anchor: str, size: int, colour: str = "#222") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{colour}"'
    return f"<text {place}>{escape(text)}</text>"
