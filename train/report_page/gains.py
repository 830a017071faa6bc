"""What was gained: the models in one table, and accuracy against size, MACs and latency with the Pareto front.

section = gains_section(stages)
"""

from collections.abc import Callable, Sequence

from train.report_page.markup import Html, table, tag
from train.report_page.numerals import NOTHING, megabytes, milliseconds, percent, short
from train.report_page.scatter_chart import Point, scatter_chart
from train.report_page.stage import Stage

_COSTS: tuple[tuple[str, str, Callable[[Stage], float | None], Callable[[float], str]], ...] = (
    ("Accuracy against size", "bytes of the file", lambda stage: stage.bytes, megabytes),
    ("Accuracy against work", "multiply-accumulates of one image", lambda stage: stage.macs, short),
    ("Accuracy against time", "one image on one thread", lambda stage: stage.milliseconds, milliseconds),
)


def gains_section(stages: Sequence[Stage]) -> Html:
    """One comparison for each set of photos: accuracies on different photos say nothing about each other."""
    parts = []
    for data, group in by_data(stages).items():
        said = f"Top-1 on {data}." if data else "Not measured."
        parts += [tag("h3", data), _table(group), tag("p", said, class_="note")]
        if data and len(group) > 1:
            parts.append(tag("div", *(_plot(group, *cost) for cost in _COSTS), class_="plots"))
    return tag("section", tag("h2", "What was gained", id="gains"), *parts)


def by_data(stages: Sequence[Stage]) -> dict[str, list[Stage]]:
    """Where measured -> the models, the largest group first; those that were not measured are last."""
    groups: dict[str, list[Stage]] = {}
    for stage in stages:
        groups.setdefault(stage.data if stage.mean_top1 is not None else "", []).append(stage)
    return dict(sorted(groups.items(), key=lambda entry: (not entry[0], -len(entry[1]))))


def _table(stages: Sequence[Stage]) -> Html:
    tasks = list(dict.fromkeys(task for stage in stages for task in stage.top1))
    headings = ["model", "what", "parameters", "MACs", "file", "time", *tasks, "mean top-1"]
    best = {task: max(stage.top1.get(task) or 0 for stage in stages) for task in tasks}
    rows = [
        [
            stage.name,
            tag("span", stage.role, class_="badge"),
            short(stage.parameters),
            f"{short(stage.macs)} at {stage.image_size} px",
            megabytes(stage.bytes),
            NOTHING if stage.milliseconds is None else milliseconds(stage.milliseconds),
            *(_best(percent(stage.top1.get(task)), is_best=stage.top1.get(task) == best[task]) for task in tasks),
            percent(stage.mean_top1),
        ]
        for stage in stages
    ]
    return table(headings, rows, numbers_from=2)


def _plot(
    stages: Sequence[Stage],
    title: str,
    label: str,
    cost: Callable[[Stage], float | None],
    form: Callable[[float], str],
) -> Html:
    points = [
        Point(stage.name, value, stage.mean_top1, place)
        for place, stage in enumerate(stages)
        if (value := cost(stage)) is not None and stage.mean_top1 is not None
    ]
    if not points:
        return tag("figure", tag("p", f"{title}: no model was timed; models.export measures latency.", class_="note"))
    return scatter_chart(points, title=title, x_label=label, x_format=form)


def _best(text: str, *, is_best: bool) -> Html | str:
    return tag("span", text, class_="best") if is_best else text
