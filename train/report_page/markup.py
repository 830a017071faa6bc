"""HTML and SVG from nested calls, everything escaped: `tag("p", "a < b", class_="note")`."""

from collections.abc import Sequence
from html import escape


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


Child = str | int | None  # Html is a str

_MOST_ON_A_PHONE = 3  # columns
_VOID = {"meta", "img", "br", "circle", "line", "rect", "path", "polyline", "use", "wbr"}


def tag(name: str, /, *children: Child, **attributes: object) -> Html:
    """One element. Strings are escaped, Html is not, None is left out; `class_` is `class`, `stroke_width` is
    `stroke-width`."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_number(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID and not children:
        return Html(f"<{name}{written}/>")
    return Html(f"<{name}{written}>{join(*children)}</{name}>")


def join(*children: Child) -> Html:
    """Neighbours without a parent."""
    shown = (child for child in children if child is not None)
    return Html("".join(child if isinstance(child, Html) else escape(str(child)) for child in shown))


def table(headings: Sequence[str], rows: Sequence[Sequence[Child]], *, numbers_from: int = 1) -> Html:
    """Columns from `numbers_from` on are aligned right. Where a phone is too narrow for many columns each row becomes a
    card, and each cell a line of it with its heading."""
    layout = "cards" if len(headings) > _MOST_ON_A_PHONE else None
    kinds = ["number" if place >= numbers_from else None for place in range(len(headings))]

    def cells(row: Sequence[Child]) -> list[Html]:
        placed = zip(row, headings, kinds, strict=True)
        return [tag("td", value, class_=kind, data_label=layout and heading) for value, heading, kind in placed]

    head = [tag("th", heading, class_=kind) for heading, kind in zip(headings, kinds, strict=True)]
    body = tag("tbody", *(tag("tr", *cells(row)) for row in rows))
    return tag("div", tag("table", tag("thead", tag("tr", *head)), body, class_=layout), class_="scroll")


def breakable(path: str) -> Html:
    """A path that a narrow column breaks after a slash."""
    first, *rest = path.split("/")
    return join(first, *(join("/", tag("wbr"), part) for part in rest))


def _number(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
