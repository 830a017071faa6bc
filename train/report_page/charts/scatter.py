"""Accuracy against a cost, one point a model, with the Pareto front.

figure = scatter_chart([Point("student int8", 0.9e6, 0.81, place=1)], title="...", x_label="bytes", x_format=megabytes)
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from train.report_page.charts.axis import BOTTOM, LEFT, RIGHT, TOP, Axis, fitted, frame, svg
from train.report_page.charts.palette import COLOURS, colour
from train.report_page.markup import Html, join, tag
from train.report_page.numbers import percent

_LETTER, _LINE = 6.4, 14.0  # pixels of a label's letter and line
_SHORTEST = 0.02  # of the gains' axis
_FOOT = 18.0  # pixels above the axis: room for the mark and its arrow
_ARROW = "M0 7v8m-3.5-3.5l3.5 3.5l3.5-3.5"
_NEARER = 4.0  # pixels by which a label is nearer to its own point than to any other
Spot = tuple[float, float]  # pixels from the left and the top
Box = tuple[float, float, float, float]  # left, top, right, bottom
_SHAPES = (
    "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0z",  # disc
    "M-4.5-4.5h9v9h-9z",  # square
    "M0-6l5.6 10h-11.2z",  # triangle
    "M0-6.5l6.5 6.5l-6.5 6.5l-6.5-6.5z",  # diamond
    "M-2-6h4v4h4v4h-4v4h-4v-4h-4v-4h4z",  # cross
    "M0 6l5.6-10h-11.2z",  # triangle, upside down
)


@dataclass(frozen=True)
class Point:
    """cost to the right, gain (0..1) upwards. place: its colour and shape, the same for one model in all plots.
    may_fall_off: where it is far below the others, it is marked at the axis's foot and does not stretch it."""

    name: str
    cost: float
    gain: float
    place: int = 0
    may_fall_off: bool = False


def scatter_chart(
    points: Sequence[Point], *, title: str, x_label: str, x_format: Callable[[float], str], y_label: str = "mean top-1"
) -> Html:
    """With a logarithmic cost, because models differ by factors."""
    x = fitted([point.cost for point in points], LEFT + 12, RIGHT - 12, log=True, margin=0.12)
    below = _below(points)
    y = fitted([point.gain for point in points if point not in below], BOTTOM, TOP, margin=0.15, least=_SHORTEST)
    front = [points[place] for place in pareto_front([(point.cost, point.gain) for point in points])]
    parts: list[Html | None] = [
        frame(x, y, title=title, x_label=x_label, y_label=y_label, x_format=x_format, y_format=_shares(y))
    ]
    # A staircase: between two models of the front, the cheaper one is what can be had.
    corners = [(x.place(front[0].cost), BOTTOM), *_stairs(front, x, y), (RIGHT, _height(front[-1], y))]
    parts.append(tag("polyline", points=" ".join(f"{left:.1f},{top:.1f}" for left, top in corners), class_="front"))
    taken: list[Box] = []
    spots = [(x.place(point.cost), _height(point, y)) for point in points]
    for point, (left, top) in zip(points, spots, strict=True):
        parts.append(
            tag("path", d=_shape(point.place), transform=f"translate({left:.1f} {top:.1f})", fill=colour(point.place))
        )
        if point in below:
            parts.append(tag("path", d=_ARROW, transform=f"translate({left:.1f} {top:.1f})", class_="below"))
        taken.append((left - 6, top - 6, left + 6, top + 6))
    for place, point in enumerate(points):
        label = f"{point.name} {percent(point.gain)}" if point in below else point.name
        parts.append(_label(label, spots[place], spots[:place] + spots[place + 1 :], taken))
    named = "; ".join(f"{point.name}: {x_format(point.cost)}, {percent(point.gain)}" for point in points)
    caption = tag("figcaption", "Pareto front (dotted): ", ", ".join(point.name for point in front), ".")
    legend = tag("figcaption", *map(_entry, points), class_="legend")
    off = ", ".join(f"{point.name} ({percent(point.gain)})" for point in below)
    cut = tag("figcaption", f"Below the axis, marked by an arrow at its foot: {off}.") if below else None
    return tag("figure", svg(*parts, description=f"{title}. {named}"), tag("div", legend, caption, cut))


def _below(points: Sequence[Point]) -> list[Point]:
    """Those that may fall off and are further below the others than these are apart."""
    others = [point.gain for point in points if not point.may_fall_off]
    if not others:
        return []
    lowest = min(others) - max(max(others) - min(others), _SHORTEST)
    return [point for point in points if point.may_fall_off and point.gain < lowest]


def _height(point: Point, y: Axis) -> float:
    """Its pixel, of those below the axis that of its foot."""
    return min(y.place(point.gain), BOTTOM - _FOOT)


def _shape(place: int) -> str:
    """Its path; every further round of the colours shifts it, as it shifts the dashes of lines."""
    return _SHAPES[(place + place // len(COLOURS)) % len(_SHAPES)]


def _entry(point: Point) -> Html:
    mark = tag("path", d=_shape(point.place), transform="translate(8 8)", fill=colour(point.place))
    icon = tag("svg", mark, viewBox="0 0 16 16", class_="mark", aria_hidden="true")
    return join(tag("span", icon, point.name), " ")


def _shares(y: Axis) -> Callable[[float], str]:
    """As many digits as tell neighbouring ticks apart."""
    digits = 0 if y.high - y.low > 0.06 else 1 if y.high - y.low > 0.006 else 2
    return lambda value: percent(value, digits=digits)


def _stairs(front: Sequence[Point], x: Axis, y: Axis) -> list[tuple[float, float]]:
    corners: list[tuple[float, float]] = []
    for point in front:
        if corners:
            corners.append((x.place(point.cost), corners[-1][1]))
        corners.append((x.place(point.cost), _height(point, y)))
    return corners


def _label(name: str, spot: Spot, others: Sequence[Spot], taken: list[Box]) -> Html | None:
    """At the first of eight places around the point where it covers nothing, stays inside and is nearer to its own
    point than to the others; the legend has the names that found none."""
    left, top = spot
    width = _LETTER * len(name)
    for at_x, at_y in (
        (left + 9, top + 4), (left - 9 - width, top + 4), (left - width / 2, top - 10), (left - width / 2, top + 20),
        (left + 7, top - 9), (left - 7 - width, top - 9), (left + 7, top + 18), (left - 7 - width, top + 18),
    ):  # fmt: skip
        box = (at_x, at_y - _LINE + 4, at_x + width, at_y + 4)
        inside = box[0] >= LEFT and box[2] <= RIGHT + 10 and box[1] >= TOP - 8 and box[3] <= BOTTOM
        is_own = all(_distance(box, other) >= _distance(box, spot) + _NEARER for other in others)
        if inside and is_own and not any(_overlap(box, other) for other in taken):
            taken.append(box)
            return tag("text", name, x=at_x, y=at_y, class_="name")
    return None


def _distance(box: Box, spot: Spot) -> float:
    """Pixels between them."""
    return math.hypot(max(box[0] - spot[0], spot[0] - box[2], 0), max(box[1] - spot[1], spot[1] - box[3], 0))


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Places of the points (cost, gain) that none beats with at most the cost and at least the gain (and one of them
    better), by rising cost. Of equal points the first."""
    front: list[int] = []
    for place in sorted(range(len(points)), key=lambda place: (points[place][0], -points[place][1], place)):
        if not front or points[place][1] > points[front[-1]][1]:
            front.append(place)
    return front
