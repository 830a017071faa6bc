"""A chart as an SVG file of its own, which no page gives a style.

path.write_text(svg_file([style(), *parts], width=500, height=300))
"""

from collections.abc import Sequence

from train.report_page.markup import Html, tag

STYLE = """
text { fill: #1c2733 }
.plot-title { font-size: 13px; font-weight: bold }
.grid { stroke: #e3e8ee }
.axis { stroke: #5b6b7c }
.line { fill: none; stroke-width: 2 }
"""


def svg_file(parts: Sequence[Html], *, width: int, height: int) -> str:
    """The parts, one a line, on a white ground; width and height in pixels."""
    ground = tag("rect", width="100%", height="100%", fill="white")
    return (
        tag(
            "svg",
            Html("\n" + "\n".join([ground, *parts]) + "\n"),
            xmlns="http://www.w3.org/2000/svg",
            width=width,
            height=height,
            viewBox=f"0 0 {width} {height}",
            font_family="sans-serif",
            font_size=11,
            fill="#1c2733",
        )
        + "\n"
    )


def style() -> Html:
    """What the classes of `charts.axis.frame` and of lines look like in a file."""
    return tag("style", Html(STYLE))
