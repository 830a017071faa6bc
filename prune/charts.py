"""Lines in a coordinate system, as SVG: accuracy against what a network costs.

svg = curve_picture({"5 %": [(1e6, 0.8), ...]}, title="...", x_label="parameters", y_label="mean top-1")
"""

import math
from collections.abc import Mapping, Sequence
from html import escape

_LEFT, _TOP, _WIDTH, _HEIGHT = 64, 40, 520, 320
_COLOURS = ("#2f6db3", "#c8553d", "#3b8f5a", "#8a5fb0", "#b58a1b")
Points = Sequence[tuple[float, float]]


def curve_picture(lines: Mapping[str, Points], *, title: str, x_label: str, y_label: str) -> str:
    """lines: name -> points in drawing order. Both axes are linear and reach a little past the points."""
    xs = [x for points in lines.values() for x, _ in points]
    ys = [y for points in lines.values() for _, y in points]
    x_ticks, y_ticks = _ticks(min(xs), max(xs)), _ticks(min(ys), max(ys))

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - x_ticks[0]) / (x_ticks[-1] - x_ticks[0])
        up = (y - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
        return _LEFT + _WIDTH * across, _TOP + _HEIGHT * (1 - up)

    height = _TOP + _HEIGHT + 60 + 18 * len(lines)
    width = _LEFT + _WIDTH + 40
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11" fill="#1c2733">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{_LEFT}" y="22" font-size="13" font-weight="bold">{escape(title)}</text>',
    ]
    bottom = _TOP + _HEIGHT
    for x in x_ticks:
        left = place(x, y_ticks[0])[0]
        parts.append(f'<line x1="{left:.1f}" y1="{_TOP}" x2="{left:.1f}" y2="{bottom}" stroke="#e3e8ee"/>')
        parts.append(f'<text x="{left:.1f}" y="{bottom + 16}" text-anchor="middle">{_number(x)}</text>')
    for y in y_ticks:
        top = place(x_ticks[0], y)[1]
        parts.append(f'<line x1="{_LEFT}" y1="{top:.1f}" x2="{_LEFT + _WIDTH}" y2="{top:.1f}" stroke="#e3e8ee"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{top + 4:.1f}" text-anchor="end">{_number(y)}</text>')
    parts.append(f'<text x="{_LEFT + _WIDTH / 2}" y="{bottom + 34}" text-anchor="middle">{escape(x_label)}</text>')
    parts.append(f'<text x="8" y="{_TOP - 8}">{escape(y_label)}</text>')
    for number, (name, points) in enumerate(lines.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        places = [place(x, y) for x, y in points]
        path = " ".join(f"{left:.1f},{top:.1f}" for left, top in places)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{left:.1f}" cy="{top:.1f}" r="3" fill="{colour}"/>' for left, top in places]
        row = bottom + 56 + 18 * number
        parts.append(f'<rect x="{_LEFT}" y="{row - 9}" width="12" height="10" fill="{colour}"/>')
        parts.append(f'<text x="{_LEFT + 18}" y="{row}">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _ticks(low: float, high: float) -> list[float]:
    """Four to ten round numbers that enclose the range."""
    span = high - low or abs(high) or 1.0
    step = 10 ** math.floor(math.log10(span / 4))
    step *= next(factor for factor in (1, 2, 2.5, 5, 10) if span / (step * factor) <= 8)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [number * step for number in range(first, max(last, first + 1) + 1)]


def _number(value: float) -> str:
    for factor, suffix in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{value / factor:.4g}{suffix}"
    return f"{value:.4g}"


_ROW, _BAR, _LABEL, _BARS, _MARGIN = 20, 12, 330, 420, 16
_BEFORE, _AFTER, _TEXT = "#cfd8e3", "#2f6db3", "#1c2733"


def width_chart(rows: Sequence[tuple[str, int, int]], *, title: str) -> str:
    """rows: (name, channels before, channels after). The light bar is the width before, the dark one what stayed."""
    widest = max(before for _, before, _ in rows)
    width, height = _LABEL + _BARS + 120, _MARGIN * 3 + _ROW * (len(rows) + 1)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11" fill="{_TEXT}">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{_MARGIN}" y="{_MARGIN + 6}" font-size="13" font-weight="bold">{escape(title)}</text>',
    ]
    for number, (name, before, after) in enumerate(rows):
        top = _MARGIN * 2 + _ROW * number
        for channels, colour in ((before, _BEFORE), (after, _AFTER)):
            length = _BARS * channels / widest
            parts.append(f'<rect x="{_LABEL}" y="{top}" width="{length:.1f}" height="{_BAR}" fill="{colour}" rx="2"/>')
        parts.append(f'<text x="{_LABEL - 8}" y="{top + 10}" text-anchor="end">{escape(name)}</text>')
        change = f"{before:,} → {after:,}" if after < before else f"{before:,}"
        parts.append(f'<text x="{_LABEL + _BARS * before / widest + 6:.1f}" y="{top + 10}">{change}</text>')
    bottom = height - _MARGIN
    for place, (colour, text) in enumerate(((_BEFORE, "channels before"), (_AFTER, "after"))):
        left = _LABEL + 130 * place
        parts.append(f'<rect x="{left}" y="{bottom - 10}" width="12" height="{_BAR}" fill="{colour}" rx="2"/>')
        parts.append(f'<text x="{left + 18}" y="{bottom}">{text}</text>')
    return "\n".join([*parts, "</svg>", ""])
