"""The reliability diagram: accuracy of the answers over their confidence.

figure = reliability_chart(bins, title="age")
"""

from collections.abc import Sequence

from train.report_page.axis import BOTTOM, LEFT, RIGHT, TOP, Axis, frame, picture
from train.report_page.calibration import Bin, calibration_error
from train.report_page.markup import Html, tag
from train.report_page.numerals import percent


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
    return tag("figure", picture(*parts, description=f"Reliability of {title}, {error}. {named}"), caption)
