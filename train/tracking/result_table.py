"""Tables of results: per task, as at the end of a run, and per class.

print_result({"step": 90, "model": "runs/a/best", "metrics": {"age.top1": 0.8, ...}})
"""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from models.terminal import print_table
from train.evaluation.class_scores import ClassScore, lowest_f1, without_photos

MOST_CLASSES = 20  # of a task that are printed unasked
NUM_WORST = 10

_COLUMNS = (
    ("top1", "top-1"),
    ("majority", "majority class"),
    ("top5", "top-5"),
    ("macro_f1", "macro F1"),
    ("mean_absolute_error", "mean abs. error"),
    ("loss", "loss"),
    ("calibration_error", "calib. error"),
)


def print_result(result: Mapping[str, Any]) -> None:
    metrics: Mapping[str, float] = result["metrics"]
    if metrics:
        print_table(task_table(metrics, title="validation results of the best model"))
    Console().print(f"model saved in {result['model']}", soft_wrap=True, markup=False)


def task_table(metrics: Mapping[str, float], *, title: str) -> Table:
    """One row per task from `task.measure` -> value."""
    tasks = list(dict.fromkeys(name.rsplit(".", 1)[0] for name in metrics if "." in name))
    table = Table(title=title)
    table.add_column("task")
    shown = [(name, heading) for name, heading in _COLUMNS if any(f"{task}.{name}" in metrics for task in tasks)]
    for _, heading in shown:
        table.add_column(heading, justify="right")
    table.add_column("samples", justify="right")
    for task in tasks:
        cells = [_format(name, metrics.get(f"{task}.{name}")) for name, _ in shown]
        table.add_row(escape(task), *cells, f"{metrics[f'{task}.count']:.0f}")
    return table


def _format(name: str, value: float | None) -> str:
    if value is None or value != value:
        return "-"
    return f"{value:.3f}" if name in ("loss", "mean_absolute_error") else f"{100 * value:.1f} %"


def print_classes(task: str, scores: Sequence[ClassScore], *, print_all: bool) -> None:
    """Those with photos, in their order; of more than MOST_CLASSES the NUM_WORST with the lowest F1, unless all are
    wanted. Says which have no photo. Nothing for a task without a photo."""
    known = [score for score in scores if score.support]
    if not known:
        return
    are_many = len(scores) > MOST_CLASSES and not print_all
    shown = lowest_f1(scores, NUM_WORST) if are_many else known
    print_table(_class_table(shown, title=f"classes of {escape(task)}"))
    if are_many:
        print(f"these are the {len(shown)} of {len(scores)} classes with the lowest F1 (--per-class all prints all)")
    if names := without_photos(scores):
        listed = names if print_all else names[:MOST_CLASSES]
        more = f" and {len(names) - len(listed)} more" if len(names) > len(listed) else ""
        print(f"no photo of {', '.join(listed)}{more}: no recall and no F1")


def _class_table(scores: Sequence[ClassScore], *, title: str) -> Table:
    table = Table(title=title)
    table.add_column("class", overflow="fold")
    for heading in ("precision", "recall", "F1", "photos", "answered"):
        table.add_column(heading, justify="right")
    for score in scores:
        shares = ["-" if one is None else f"{100 * one:.1f} %" for one in (score.precision, score.recall, score.f1)]
        table.add_row(escape(score.name), *shares, f"{score.support:,}", f"{score.answered:,}")
    return table
