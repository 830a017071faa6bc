"""Sets of one task that list its classes in another order, or lack some, matched by the names of the classes.

Use: `val = match_classes(load_index("shards/val"), train.tasks, of="shards/train")`
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from data.errors import DataError
from data.index.dataset import Index
from data.names import class_name

_SHOWN = 5


def match_classes(index: Index, classes: Mapping[str, tuple[str, ...]], *, of: str) -> Index:
    """The same data with the classes of each task numbered as in `classes`; tasks that are not named there stay.

    of: whose classes these are. A class that is not among them may be listed, but DataError names it when a sample has
    it: whoever learns from `of` has no answer for it.
    """
    tasks, renumbered = dict(index.tasks), dict(index.renumbered)
    for column, (task, names) in enumerate(index.tasks.items()):
        wanted = classes.get(task, names)
        if wanted == names:
            continue
        tasks[task] = wanted
        if column >= len(index.tasks) - index.num_unlabelled:
            continue
        number = {class_name(name): place for place, name in enumerate(wanted)}
        moved = [number.get(class_name(name), -1) for name in names]
        if -1 in moved:
            _refuse_samples(index, column, [place for place, to in enumerate(moved) if to < 0], of=of)
        in_files = index.renumbered.get(task, range(len(names)))
        renumbered[task] = tuple(moved[place] if place >= 0 else place for place in in_files)
    return replace(index, tasks=tasks, renumbered=renumbered)


def _refuse_samples(index: Index, column: int, unknown: Sequence[int], *, of: str) -> None:
    task = list(index.tasks)[column]
    names = index.tasks[task]
    counts = np.zeros(len(names), np.int64)
    for number in range(len(index.shards)):
        labels = index.load_shard(number).labels[:, column]
        counts += np.bincount(labels[labels >= 0], minlength=len(names))
    used = [place for place in unknown if counts[place]]
    if used:
        listed = ", ".join(f"{names[place]!r} ({counts[place]} samples)" for place in used[:_SHOWN])
        more = f" and {len(used) - _SHOWN} more" if len(used) > _SHOWN else ""
        raise DataError(
            f"task {task!r}: {index.root} has classes that {of} does not know: {listed}{more}; a network can only "
            "answer what it was trained on: add the classes there, or take these samples out"
        )
