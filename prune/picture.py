"""The widths before and after as a picture: one bar per layer, in SVG.

svg = width_picture([("blocks.1.0", 96, 48), ...], title="0.5 of the MACs")
"""

from collections.abc import Sequence
from html import escape

_ROW, _BAR, _LABEL, _BARS, _MARGIN = 20, 12, 330, 420, 16
_BEFORE, _AFTER, _TEXT = "#cfd8e3", "#2f6db3", "#1c2733"


def width_picture(rows: Sequence[tuple[str, int, int]], *, title: str) -> str:
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
