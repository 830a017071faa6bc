"""Curves over epochs in one plot, with a legend of dashes and colours.

figure = line_chart([Line("student", [1, 2, 3], [0.2, 0.5, 0.6])], title="mean top-1", y_format=percent)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from train.evaluation.reliability import Bin, calibration_error
from train.report_page.charts.axis import BOTTOM, LEFT, RIGHT, TOP, Axis, fitted, frame, svg
from train.report_page.charts.palette import colour, dash
from train.report_page.markup import Html, join, tag
from train.report_page.numbers import percent

_MOST_POINTS = 300  # a line of 400 pixels shows no more


@dataclass(frozen=True)
class Line:
    """place: its colour and dash, the same for one model (or one term of the loss) in all plots."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    place: int = 0


def line_chart(
    lines: Sequence[Line],
    *,
    title: str,
    y_format: Callable[[float], str],
    x_label: str = "epoch",
    y_label: str = "",
    from_zero: bool = False,
    least: float = 0.0,
) -> Html:
    """least: the shortest y axis. Lines without a point are left out; with no line at all the figure says so."""
    drawn = [_thinned(line) for line in lines if line.x]
    if not drawn:
        return tag("figure", tag("p", f"{title}: nothing was recorded.", class_="note"))
    x = Axis(0, max(max(line.x) for line in drawn), LEFT, RIGHT)
    values = [value for line in drawn for value in line.y]
    y = fitted([*values, 0.0] if from_zero else values, BOTTOM, TOP, least=least)
    parts = [
        frame(x, y, title=title, x_label=x_label, y_label=y_label, x_format="{:g}".format, y_format=y_format),
    ]
    for line in drawn:
        points = [f"{x.place(at):.1f},{y.place(value):.1f}" for at, value in zip(line.x, line.y, strict=True)]
        style = {"stroke": colour(line.place), "stroke_dasharray": dash(line.place), "class_": "line"}
        if len(points) > 1:
            parts.append(tag("polyline", points=" ".join(points), **style))
        last_x, last_y = points[-1].split(",")
        parts.append(tag("circle", cx=last_x, cy=last_y, r=3.5, fill=colour(line.place)))
    ends = "; ".join(f"{line.name} ends at {y_format(line.y[-1])}" for line in drawn)
    return tag("figure", svg(*parts, description=f"{title} by {x_label}: {ends}"), legend(drawn))


def legend(lines: Sequence[Line]) -> Html:
    """Names beside a piece of their line."""
    return tag("figcaption", *(_entry(line) for line in lines), class_="legend")


def _entry(line: Line) -> Html:
    stroke = tag(
        "line", x1=0, x2=30, y1=6, y2=6, class_="line", stroke=colour(line.place), stroke_dasharray=dash(line.place)
    )
    return join(tag("span", tag("svg", stroke, viewBox="0 0 30 12", aria_hidden="true"), line.name), " ")


def _thinned(line: Line) -> Line:
    """Neighbours averaged down to as many points as can be seen; the last one stays."""
    size = -(-len(line.x) // _MOST_POINTS)
    if size == 1:
        return line
    starts = range(0, len(line.x) - 1, size)
    x = [line.x[min(start + size, len(line.x)) - 1] for start in starts]
    y = [sum(line.y[start : start + size]) / len(line.y[start : start + size]) for start in starts]
    return Line(line.name, [*x, line.x[-1]], [*y, line.y[-1]], line.place)


def reliability_chart(bins: Sequence[Bin], *, title: str) -> Html:
    """Bars are accuracies, the thin bar in each is its share of the answers; a calibrated model's bars reach the
    diagonal."""
    x, y = Axis(0, 1, LEFT, RIGHT), Axis(0, 1, BOTTOM, TOP)
    whole = lambda value: percent(value, digits=0)  # noqa: E731
    parts = [frame(x, y, title=title, x_label="confidence", y_label="accuracy", x_format=whole, y_format=whole)]
    total = sum(one.count for one in bins)
    for one in bins:
        left, right, top = x.place(one.low) + 2, x.place(one.high) - 2, y.place(one.accuracy)
        parts.append(tag("rect", x=left, y=top, width=right - left, height=BOTTOM - top, class_="bar"))
        share = y.place(one.count / total)
        parts.append(tag("rect", x=right - 7, y=share, width=6, height=BOTTOM - share, class_="thin"))
    parts.append(tag("line", x1=LEFT, y1=BOTTOM, x2=RIGHT, y2=TOP, class_="front"))
    error = f"expected calibration error {percent(calibration_error(bins))}"
    caption = tag("figcaption", f"{error}. Narrow bars: share of the answers; dotted: perfect calibration.")
    named = "; ".join(f"confidence {percent(one.confidence)}: accuracy {percent(one.accuracy)}" for one in bins)
    return tag("figure", svg(*parts, description=f"Reliability of {title}, {error}. {named}"), caption)
