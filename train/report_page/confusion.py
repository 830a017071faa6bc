"""Which classes a model takes for which, a table where they are few, else a drawing; and how well it finds each.

figure = confusion_figure(matrix, classes, title="age")
"""

from collections.abc import Sequence

import numpy as np

from train.evaluation.class_scores import ClassScore, lowest_f1, without_photos
from train.evaluation.confusions import worst_confusions
from train.report_page.markup import Child, Html, table, tag
from train.report_page.numbers import percent

_MOST_IN_TABLE = 8
_WORST = 8
_SIDE = 300.0


def confusion_figure(matrix: np.ndarray, classes: Sequence[str], *, title: str) -> Html:
    """matrix: int [C, C], rows are the true classes."""
    shown = _table(matrix, classes) if len(classes) <= _MOST_IN_TABLE else _drawing(matrix, classes, title)
    caption = tag("figcaption", f"{title}: rows are the true classes, columns the answers.")
    return tag("figure", shown, caption)


def _table(matrix: np.ndarray, classes: Sequence[str]) -> Html:
    totals = np.maximum(matrix.sum(axis=1), 1)
    rows = []
    for place, name in enumerate(classes):
        shares = matrix[place] / totals[place]
        cells = [
            tag("td", count, class_="cell", style=f"--share:{share:.3f}")
            for count, share in zip(matrix[place].tolist(), shares.tolist(), strict=True)
        ]
        last = tag("td", int(matrix[place].sum()), class_="number")
        rows.append(tag("tr", tag("th", name, scope="row"), *cells, last))
    head = tag("tr", tag("th", "true"), *(tag("th", name, scope="col") for name in classes), tag("th", "photos"))
    return tag("div", tag("table", tag("thead", head), tag("tbody", *rows), class_="confusion"), class_="scroll")


def _drawing(matrix: np.ndarray, classes: Sequence[str], title: str) -> Html:
    """One square per pair that occurs, its darkness the share of the true class."""
    size = _SIDE / len(classes)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    squares = [
        tag(
            "rect",
            tag("title", f"{classes[true]} taken for {classes[answer]}: {matrix[true, answer]}"),
            x=float(answer * size),
            y=float(true * size),
            width=float(size),
            height=float(size),
            class_="hit" if true == answer else "miss",
            opacity=float(0.15 + 0.85 * shares[true, answer]),
        )
        for true, answer in np.argwhere(matrix > 0).tolist()
    ]
    border = tag("rect", x=0, y=0, width=_SIDE, height=_SIDE, class_="border")
    accuracy = matrix.trace() / max(1, matrix.sum())
    said = f"Confusion matrix of {title}, {len(classes)} classes, {percent(accuracy)} on the diagonal"
    return tag(
        "svg", tag("title", said), *squares, border, viewBox=f"-2 -2 {_SIDE + 4:g} {_SIDE + 4:g}", role="img",
        aria_label=said, class_="matrix",
    )  # fmt: skip


def mistaken_pairs(matrix: np.ndarray, classes: Sequence[str]) -> Html:
    """The pairs of classes that are mistaken most often, as a table."""
    pairs = worst_confusions(matrix, _WORST)
    if not pairs:
        return tag("figure", tag("p", "No photo was mistaken.", class_="note"))
    totals = matrix.sum(axis=1)
    rows: list[list[Child]] = [
        [
            classes[true],
            classes[answer],
            f"{number} ({percent(number / totals[true], digits=0)})",
        ]
        for true, answer, number in pairs
    ]
    pairs_table = table(["true class", "taken for", "photos"], rows, numbers_from=2)
    return tag(
        "figure", pairs_table, tag("figcaption", "The pairs that are mistaken most often (share of the true class).")
    )


def class_figure(scores: Sequence[ClassScore], *, title: str) -> Html:
    """Precision, recall and F1 of each class, the worst first; of many the others are folded away."""
    ordered = lowest_f1(scores)
    said = f"{title}, the lowest F1 first."
    if names := without_photos(scores):
        said += f" No photo of {', '.join(names)}, which have neither recall nor F1."
    rest = None
    if len(ordered) > _MOST_IN_TABLE:
        rest = tag("details", tag("summary", f"All {len(ordered)} classes"), _class_table(ordered))
    return tag("figure", _class_table(ordered[:_MOST_IN_TABLE]), rest, tag("figcaption", said))


def _class_table(scores: Sequence[ClassScore]) -> Html:
    rows: list[list[Child]] = [
        [score.name, *map(percent, (score.precision, score.recall, score.f1)), f"{score.support:,}"] for score in scores
    ]
    return table(["class", "precision", "recall", "F1", "photos"], rows)
