"""Widths of layers as bars: a light one for the width before, a dark one for what stayed.

page.append(width_bars([Width("layer1.0", 64, 40)])); text = width_picture(widths, title="half of the parameters")
"""

from collections.abc import Sequence
from dataclasses import dataclass

from train.report_page.charts.standalone import svg_file
from train.report_page.markup import Html, tag

_ROW, _BAR, _LABEL, _BARS, _MARGIN = 20, 12, 330, 420, 16  # pixels of the picture
_BEFORE, _AFTER = "#cfd8e3", "#2f6db3"


@dataclass(frozen=True)
class Width:
    """Of one layer, in channels. reason: why it is as wide as it is, where there is something to say."""

    name: str
    before: int
    after: int
    reason: str | None = None

    def change(self, number: str = "{}") -> str:
        """As in "64 -> 40", with an arrow of one letter. number: how one is written."""
        before, after = number.format(self.before), number.format(self.after)
        return f"{before} → {after}" if self.after < self.before else before


def width_bars(widths: Sequence[Width]) -> Html:
    """For a page, where they follow its style and the width of the screen."""
    widest = max(width.before for width in widths)
    bars = []
    for width in widths:
        inner = tag("i", style=f"width:{100 * width.after / width.before:.1f}%", title=width.reason)
        bars.append(tag("span", width.name, class_="layer"))
        bars.append(tag("i", inner, class_="outer", style=f"width:{100 * width.before / widest:.1f}%"))
        bars.append(tag("span", width.change(), class_="number"))
    return tag("figure", tag("div", *bars, class_="widths"))


def width_picture(widths: Sequence[Width], *, title: str) -> str:
    """The content of an SVG file."""
    widest = max(width.before for width in widths)
    height = _MARGIN * 3 + _ROW * (len(widths) + 1)
    parts = [tag("text", title, x=_MARGIN, y=_MARGIN + 6, font_size=13, font_weight="bold")]
    for number, width in enumerate(widths):
        top = _MARGIN * 2 + _ROW * number
        for channels, colour in ((width.before, _BEFORE), (width.after, _AFTER)):
            length = f"{_BARS * channels / widest:.1f}"
            parts.append(tag("rect", x=_LABEL, y=top, width=length, height=_BAR, fill=colour, rx=2))
        parts.append(tag("text", width.name, x=_LABEL - 8, y=top + 10, text_anchor="end"))
        right = f"{_LABEL + _BARS * width.before / widest + 6:.1f}"
        parts.append(tag("text", width.change("{:,}"), x=right, y=top + 10))
    bottom = height - _MARGIN
    for place, (colour, text) in enumerate(((_BEFORE, "channels before"), (_AFTER, "after"))):
        left = _LABEL + 130 * place
        parts.append(tag("rect", x=left, y=bottom - 10, width=12, height=_BAR, fill=colour, rx=2))
        parts.append(tag("text", text, x=left + 18, y=bottom))
    return svg_file(parts, width=_LABEL + _BARS + 120, height=height)
