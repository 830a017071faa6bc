"""How many samples each class has in a split, and the table that shows it.

Use: `print_summary(load_index("shards/train"))`
"""

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from data.index import Index

_NAMED = 20


def count_classes(index: Index) -> dict[str, np.ndarray]:
    """task -> int64 [num_classes + 1]; the last number counts the samples whose label is missing. Bad samples, which
    training leaves out, are not counted."""
    counts = {task: np.zeros(len(names) + 1, np.int64) for task, names in index.tasks.items()}
    for number in range(len(index.shards)):
        rows = index.load_shard(number)
        usable = np.ones(len(rows), bool)
        usable[list(rows.bad)] = False
        for column, task in enumerate(index.tasks):
            labels = rows.labels[usable, column]
            labels = np.where(labels < 0, len(index.tasks[task]), labels)
            counts[task] += np.bincount(labels, minlength=len(index.tasks[task]) + 1)
    return counts


def print_summary(index: Index, *, console: Console | None = None) -> None:
    """Samples, shards, bytes and class counts; classes and tasks without a sample are named."""
    console = console or Console()
    size = sum(shard.bytes for shard in index.shards)
    table = Table(title=f"{index.root}: {index.num_samples:,} samples, {len(index.shards):,} shards, {size:,} bytes")
    table.add_column("task")
    table.add_column("classes", justify="right")
    table.add_column("samples per class")
    table.add_column("missing", justify="right")
    empty = []
    for task, counts in count_classes(index).items():
        names = index.tasks[task]
        table.add_row(escape(task), str(len(names)), escape(describe_counts(names, counts[:-1])), f"{counts[-1]:,}")
        absent = [names[number] for number in np.flatnonzero(counts[:-1] == 0)]
        if len(absent) == len(names):
            empty.append(f"task {task!r} has no label at all")
        elif absent:
            more = f" and {len(absent) - _NAMED} more" if len(absent) > _NAMED else ""
            number = "1 class has" if len(absent) == 1 else f"{len(absent)} classes have"
            empty.append(f"task {task!r}: {number} no sample: {', '.join(absent[:_NAMED])}{more}")
    console.print(table)
    for line in empty:
        console.print(f"note: {line}", markup=False, highlight=False, soft_wrap=True)


def describe_counts(names: tuple[str, ...], counts: np.ndarray) -> str:
    """Names may be numbers, too, so each stands apart from its count."""
    if not counts.any():
        return "none"
    if len(names) <= 12:
        return ", ".join(f"{name}: {count:,}" for name, count in zip(names, counts, strict=True))
    most, least = int(counts.argmax()), int(counts.argmin())
    return f"from {counts[least]:,} (class {names[least]}) to {counts[most]:,} (class {names[most]})"
