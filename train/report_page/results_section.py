"""The results: the models in one table, and accuracy against size, MACs and latency with the Pareto front.

section = results_section(entries, places, sentences=[])
"""

from collections.abc import Callable, Mapping, Sequence

from launch.machine import processor
from train.report_page.charts.scatter import Point, scatter_chart
from train.report_page.markup import Html, join, table, tag
from train.report_page.model_entries import FROM_EXPORT, PRUNED, ModelEntry
from train.report_page.numbers import NOTHING, megabytes, milliseconds, percent, plain, short

MEAN_ABSOLUTE_ERROR = "mean absolute error"
MEAN_ABSOLUTE_ERROR_MEANS = (
    "The mean absolute error of an ordered task is between the most probable class and the label: in the unit of the "
    "class names where these are numbers, else in steps of the class order. Lower is better."
)
UNKNOWN, UNMEASURED = "On unknown photos", "Not measured"


def measured_time(entry: ModelEntry) -> float | None:
    """Milliseconds that were measured together with the others; times of another occasion are no comparison."""
    return None if entry.runtime == FROM_EXPORT else entry.milliseconds


_COSTS: tuple[tuple[str, str, Callable[[ModelEntry], float | None], Callable[[float], str]], ...] = (
    ("Accuracy against size", "bytes of the file", lambda entry: entry.bytes, megabytes),
    ("Accuracy against work", "multiply-accumulates of one image", lambda entry: entry.macs, short),
    ("Accuracy against time", "one image on one thread", measured_time, milliseconds),
)


def results_section(entries: Sequence[ModelEntry], places: Mapping[str, int], sentences: Sequence[str]) -> Html:
    """One comparison for each set of photos: accuracies on different photos say nothing about each other. places: name
    of a model -> its colour and shape. sentences: on how some were measured."""
    parts = []
    for data, group in by_data(entries).items():
        said = {
            UNKNOWN: "Accuracy was measured, but no config says on which photos: it cannot be compared.",
            UNMEASURED: "Accuracy was not measured.",
        }.get(data, f"Top-1 on {data}.{_ordered(group)}{_precisions(group)}")
        parts += [tag("h3", data), _table(group), tag("p", said, class_="note")]
        if data not in (UNKNOWN, UNMEASURED) and len(group) > 1:
            parts.append(tag("div", *(_plot(group, places, *cost) for cost in _COSTS), class_="plots"))
    return tag(
        "section",
        tag("h2", "What was gained", id="gains"),
        *parts,
        tag("p", " ".join([*sentences, _times(entries)]), class_="note"),
    )


def by_data(entries: Sequence[ModelEntry]) -> dict[str, list[ModelEntry]]:
    """Where measured -> the models, the largest group first; UNKNOWN and UNMEASURED are last."""
    groups: dict[str, list[ModelEntry]] = {}
    for entry in entries:
        groups.setdefault(UNMEASURED if entry.mean_top1 is None else entry.data or UNKNOWN, []).append(entry)
    last = (UNKNOWN, UNMEASURED)
    return dict(sorted(groups.items(), key=lambda item: (item[0] in last, item[0] == UNMEASURED, -len(item[1]))))


def _table(entries: Sequence[ModelEntry]) -> Html:
    tasks = list(dict.fromkeys(task for entry in entries for task in entry.top1))
    ordered = list(dict.fromkeys(task for entry in entries for task in entry.errors))
    headings = ["model", "what", "parameters", "MACs", "file", "time", "precision", *tasks, "mean top-1"]
    headings += [f"{task}, {MEAN_ABSOLUTE_ERROR}" for task in ordered]
    best = {task: max(entry.top1.get(task) or 0 for entry in entries) for task in tasks}
    least = {
        task: min((error for entry in entries if (error := entry.errors.get(task)) is not None), default=None)
        for task in ordered
    }
    rows = [
        [
            entry.name,
            tag("span", entry.role, class_="badge"),
            short(entry.parameters),
            f"{short(entry.macs)} at {entry.image_size} px",
            megabytes(entry.bytes),
            _time(entry),
            NOTHING if entry.mean_top1 is None else entry.precision,
            *(_best(percent(entry.top1.get(task)), is_best=entry.top1.get(task) == best[task]) for task in tasks),
            join(percent(entry.mean_top1), tag("small", tag("br"), entry.part) if entry.part else None),
            *(_best(plain(entry.errors.get(task)), is_best=entry.errors.get(task) == least[task]) for task in ordered),
        ]
        for entry in entries
    ]
    return table(headings, rows, numbers_from=2)


def _ordered(entries: Sequence[ModelEntry]) -> str:
    """What the errors mean, where there are any."""
    return f" {MEAN_ABSOLUTE_ERROR_MEANS}" if any(entry.errors for entry in entries) else ""


def _precisions(entries: Sequence[ModelEntry]) -> str:
    """What the precisions mean, where they differ."""
    if len({entry.precision for entry in entries}) == 1:
        return ""
    return (
        " Precision is what a model computed in when it was asked: a run in that of its training, a pruned network and "
        "an export in fp32, or in int8 where its file does. Asked in another one, a model may answer some photos "
        "otherwise; python -m train.evaluate --precision fp32 asks a run as the others were."
    )


def _time(entry: ModelEntry) -> Html | str:
    if entry.milliseconds is None:
        return NOTHING
    mark = tag("small", f" by {FROM_EXPORT}") if entry.runtime == FROM_EXPORT else None
    return join(milliseconds(entry.milliseconds), mark)


def _times(entries: Sequence[ModelEntry]) -> str:
    runtimes = sorted({entry.runtime for entry in entries if measured_time(entry) is not None})
    said = (
        f"Times are of one image of the size beside the MACs, on one thread of {processor()}: all measured in turn on "
        f"{' and '.join(runtimes)} while this page was made, once for all networks of one shape."
    )
    if any(entry.runtime == FROM_EXPORT and entry.milliseconds is not None for entry in entries):
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
        Point(entry.name, value, entry.mean_top1, places[entry.name], may_fall_off=entry.role == PRUNED)
        for entry in entries
        if (value := cost(entry)) is not None and entry.mean_top1 is not None
    ]
    return scatter_chart(points, title=title, x_label=label, x_format=form)


def _best(text: str, *, is_best: bool) -> Html | str:
    return tag("span", text, class_="best") if is_best else text
