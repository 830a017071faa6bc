"""What was gained: the models in one table, and accuracy against size, MACs and latency with the Pareto front.

section = results_section(stages, places, remarks=[])
"""

from collections.abc import Callable, Mapping, Sequence

from launch.machine import processor
from train.report_page.charts.scatter import Point, scatter_chart
from train.report_page.markup import Html, join, table, tag
from train.report_page.model_entries import FROM_EXPORT, PRUNED, ModelEntry
from train.report_page.numbers import NOTHING, megabytes, milliseconds, percent, short

UNKNOWN, UNMEASURED = "On unknown photos", "Not measured"


def measured_time(stage: ModelEntry) -> float | None:
    """Milliseconds that were measured together with the others; times of another occasion are no comparison."""
    return None if stage.runtime == FROM_EXPORT else stage.milliseconds


_COSTS: tuple[tuple[str, str, Callable[[ModelEntry], float | None], Callable[[float], str]], ...] = (
    ("Accuracy against size", "bytes of the file", lambda stage: stage.bytes, megabytes),
    ("Accuracy against work", "multiply-accumulates of one image", lambda stage: stage.macs, short),
    ("Accuracy against time", "one image on one thread", measured_time, milliseconds),
)


def results_section(entries: Sequence[ModelEntry], places: Mapping[str, int], remarks: Sequence[str]) -> Html:
    """One comparison for each set of photos: accuracies on different photos say nothing about each other. places: name
    of a model -> its colour and shape. remarks: sentences on how some were measured."""
    parts = []
    for data, group in by_data(entries).items():
        said = {
            UNKNOWN: "Accuracy was measured, but no config says on which photos: it cannot be compared.",
            UNMEASURED: "Accuracy was not measured.",
        }.get(data, f"Top-1 on {data}.{_precisions(group)}")
        parts += [tag("h3", data), _table(group), tag("p", said, class_="note")]
        if data not in (UNKNOWN, UNMEASURED) and len(group) > 1:
            parts.append(tag("div", *(_plot(group, places, *cost) for cost in _COSTS), class_="plots"))
    return tag(
        "section",
        tag("h2", "What was gained", id="gains"),
        *parts,
        tag("p", " ".join([*remarks, _times(entries)]), class_="note"),
    )


def by_data(entries: Sequence[ModelEntry]) -> dict[str, list[ModelEntry]]:
    """Where measured -> the models, the largest group first; UNKNOWN and UNMEASURED are last."""
    groups: dict[str, list[ModelEntry]] = {}
    for stage in entries:
        groups.setdefault(UNMEASURED if stage.mean_top1 is None else stage.data or UNKNOWN, []).append(stage)
    last = (UNKNOWN, UNMEASURED)
    return dict(sorted(groups.items(), key=lambda entry: (entry[0] in last, entry[0] == UNMEASURED, -len(entry[1]))))


def _table(entries: Sequence[ModelEntry]) -> Html:
    tasks = list(dict.fromkeys(task for stage in entries for task in stage.top1))
    headings = ["model", "what", "parameters", "MACs", "file", "time", "precision", *tasks, "mean top-1"]
    best = {task: max(stage.top1.get(task) or 0 for stage in entries) for task in tasks}
    rows = [
        [
            stage.name,
            tag("span", stage.role, class_="badge"),
            short(stage.parameters),
            f"{short(stage.macs)} at {stage.image_size} px",
            megabytes(stage.bytes),
            _time(stage),
            NOTHING if stage.mean_top1 is None else stage.precision,
            *(_best(percent(stage.top1.get(task)), is_best=stage.top1.get(task) == best[task]) for task in tasks),
            join(percent(stage.mean_top1), tag("small", tag("br"), stage.part) if stage.part else None),
        ]
        for stage in entries
    ]
    return table(headings, rows, numbers_from=2)


def _precisions(entries: Sequence[ModelEntry]) -> str:
    """What the precisions mean, where they differ."""
    if len({stage.precision for stage in entries}) == 1:
        return ""
    return (
        " Precision is what a model computed in when it was asked: a run in that of its training, a pruned network and "
        "an export in fp32, or in int8 where its file does. Asked in another one, a model may answer some photos "
        "otherwise; python -m train.evaluate --precision fp32 asks a run as the others were."
    )


def _time(stage: ModelEntry) -> Html | str:
    if stage.milliseconds is None:
        return NOTHING
    mark = tag("small", f" by {FROM_EXPORT}") if stage.runtime == FROM_EXPORT else None
    return join(milliseconds(stage.milliseconds), mark)


def _times(entries: Sequence[ModelEntry]) -> str:
    runtimes = sorted({stage.runtime for stage in entries if measured_time(stage) is not None})
    said = (
        f"Times are of one image of the size beside the MACs, on one thread of {processor()}: all measured in turn on "
        f"{' and '.join(runtimes)} while this page was made, once for all networks of one shape."
    )
    if any(stage.runtime == FROM_EXPORT and stage.milliseconds is not None for stage in entries):
        said += (
            f" Files that cannot run here have the time that {FROM_EXPORT} gives, marked so: it was measured at "
            "another time, perhaps on another machine, and is not in the plots."
        )
    return said


def _plot(
    entries: Sequence[ModelEntry],
    places: Mapping[str, int],
    title: str,
    label: str,
    cost: Callable[[ModelEntry], float | None],
    form: Callable[[float], str],
) -> Html:
    points = [
        Point(stage.name, value, stage.mean_top1, places[stage.name], may_fall_off=stage.role == PRUNED)
        for stage in entries
        if (value := cost(stage)) is not None and stage.mean_top1 is not None
    ]
    return scatter_chart(points, title=title, x_label=label, x_format=form)


def _best(text: str, *, is_best: bool) -> Html | str:
    return tag("span", text, class_="best") if is_best else text
