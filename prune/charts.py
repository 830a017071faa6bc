"""The pictures that pruning writes, as SVG: accuracy against a cost, and the widths of the layers.

path.write_text(curve_picture({"5 %": [(1e6, 0.8), (8e5, 0.79)]}, title="...", x_label="MACs", y_label="top-1"))
"""

from collections.abc import Mapping, Sequence
from typing import Any

from train.report_page.charts.axis import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, fitted, frame
from train.report_page.charts.palette import COLOURS, dash
from train.report_page.charts.standalone import style, svg_file
from train.report_page.charts.widths import Width, width_picture
from train.report_page.markup import tag
from train.report_page.numbers import short

_LEGEND_ROW = 18  # pixels
Points = Sequence[tuple[float, float]]


def curve_picture(lines: Mapping[str, Points], *, title: str, x_label: str, y_label: str) -> str:
    """lines: name -> points in drawing order. Both axes are linear and reach a little past the points."""
    x = fitted([across for points in lines.values() for across, _ in points], LEFT, RIGHT)
    y = fitted([up for points in lines.values() for _, up in points], BOTTOM, TOP)
    parts = [
        style(),
        frame(x, y, title=title, x_label=x_label, y_label=y_label, x_format=short, y_format="{:.4g}".format),
    ]
    for place, (name, points) in enumerate(lines.items()):
        stroke = {"class_": "line", "stroke": COLOURS[place % len(COLOURS)], "stroke_dasharray": dash(place)}
        spots = [(x.place(across), y.place(up)) for across, up in points]
        parts.append(tag("polyline", points=" ".join(f"{left:.1f},{top:.1f}" for left, top in spots), **stroke))
        parts += [tag("circle", cx=left, cy=top, r=3, fill=stroke["stroke"]) for left, top in spots]
        row = HEIGHT + _LEGEND_ROW * place
        parts.append(tag("line", x1=LEFT, x2=LEFT + 24, y1=row, y2=row, **stroke))
        parts.append(tag("text", name, x=LEFT + 30, y=row + 4))
    return svg_file(parts, width=WIDTH, height=HEIGHT + _LEGEND_ROW * len(lines))


def widths_picture(plan: Mapping[str, Any]) -> str:
    """Of all layers that a pruning could have narrowed. plan: the record of the pruning."""
    return width_picture(
        [Width(layer["name"], layer["before"], layer["after"]) for layer in plan["layers"]],
        title=f"{_share(plan['parameters'])} of the parameters, {_share(plan['macs'])} of the MACs",
    )


def _share(counts: Mapping[str, int]) -> str:
    return f"{100 * counts['after'] / counts['before']:.1f} %"
