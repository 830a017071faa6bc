"""Scales and round ticks of a plot, and its frame.

x = Axis(0, 30, first=50, last=460); x.place(12.5); x.ticks()
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from train.report_page.markup import Html, join, tag

WIDTH, HEIGHT = 500, 300  # so that a label at an end of an axis is inside, in the large letters of a phone, too
LEFT, RIGHT, TOP, BOTTOM = 80, 466, 36, 252


@dataclass(frozen=True)
class Axis:
    """Numbers from low to high on pixels from first to last; `log` for a logarithmic scale (low > 0)."""

    low: float
    high: float
    first: float
    last: float
    log: bool = False

    def place(self, value: float) -> float:
        """Its pixel."""
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        share = ((math.log(value) if self.log else value) - low) / (high - low)
        return self.first + share * (self.last - self.first)

    def ticks(self) -> list[float]:
        """Three to seven round numbers within the axis."""
        if self.log:
            found = _log_ticks(self.low, self.high)
            if len(found) >= 2:
                return found
        step = _round_step((self.high - self.low) / 7)
        count = math.floor(self.high / step + 1e-9) - math.ceil(self.low / step - 1e-9)
        return [(math.ceil(self.low / step - 1e-9) + number) * step for number in range(count + 1)]


def fitted(
    values: list[float], first: float, last: float, *, log: bool = False, margin: float = 0.06, least: float = 0.0
) -> Axis:
    """An axis around the values with some air, at least `least` long, so that noise is not drawn as a difference."""
    low, high = min(values), max(values)
    if high - low < least:
        low, high = (low + high - least) / 2, (low + high + least) / 2
    if log:
        factor = max((high / low) ** margin, 1.15)
        return Axis(low / factor, high * factor, first, last, log=True)
    air = (high - low) * margin or abs(high) * margin or 1.0
    return Axis(low - air, high + air, first, last)


def frame(
    x: Axis,
    y: Axis,
    *,
    title: str,
    x_label: str,
    y_label: str,
    x_format: Callable[[float], str],
    y_format: Callable[[float], str],
) -> Html:
    """Grid, tick labels, axis labels and title."""
    parts = [tag("text", title, x=14, y=19, class_="plot-title")]
    for value in y.ticks():
        at = y.place(value)
        parts.append(tag("line", x1=LEFT, x2=RIGHT, y1=at, y2=at, class_="grid"))
        parts.append(tag("text", y_format(value), x=LEFT - 7, y=at + 4, text_anchor="end"))
    for value in x.ticks():
        at = x.place(value)
        parts.append(tag("line", x1=at, x2=at, y1=BOTTOM, y2=BOTTOM + 4, class_="axis"))
        parts.append(tag("text", x_format(value), x=at, y=BOTTOM + 18, text_anchor="middle"))
    parts.append(tag("line", x1=LEFT, x2=RIGHT, y1=BOTTOM, y2=BOTTOM, class_="axis"))
    parts.append(tag("text", x_label, x=(LEFT + RIGHT) / 2, y=HEIGHT - 10, text_anchor="middle", class_="label"))
    parts.append(tag("text", y_label, x=RIGHT, y=19, text_anchor="end", class_="label"))
    return join(*parts)


def svg(*parts: Html | None, description: str) -> Html:
    """The SVG around a plot; `description` is what a screen reader says."""
    return tag(
        "svg", tag("title", description), *parts, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=description
    )


def _round_step(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step * 0.999)


def _log_ticks(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1,), (1, 3), (1, 2, 5)):
        found = [factor * 10.0**power for power in powers for factor in factors if low <= factor * 10.0**power <= high]
        if len(found) >= 3:
            return found
    return found
