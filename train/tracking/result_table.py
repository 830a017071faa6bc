"""The table at the end of a run: validation results per task and where the model is.

print_result({"step": 90, "model": "runs/a/best", "metrics": {"age.top1": 0.8, ...}})
"""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from models.terminal import print_table

_COLUMNS = (
    ("top1", "top-1"),
    ("majority", "majority class"),
    ("top5", "top-5"),
    ("macro_f1", "macro F1"),
    ("mean_absolute_error", "mean abs. error"),
    ("loss", "loss"),
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
