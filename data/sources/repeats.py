"""Rows that name one photo: they become one sample, with the labels of all of them, and contradictions are found.

Use: `rows, labels, notes = merge_repeats(table, photos, labels, tags=set(), drop_conflicts=False, describe=...)`
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from data.errors import DataError
from data.index.labels import MISSING
from data.tables import Table


def merge_repeats(
    table: Table,
    photos: np.ndarray,
    labels: Mapping[str, np.ndarray],
    *,
    tags: set[str],
    drop_conflicts: bool,
    describe: Callable[[str, int], str],
) -> tuple[np.ndarray, dict[str, np.ndarray], list[str]]:
    """(the first row of each photo, in order; labels of those rows; notes).

    photos: int64 [rows], equal where two rows name one photo. labels: task -> int32 [rows], -1 = missing. In a task of
    `tags`, yes wins. DataError where rows of one photo say different classes, unless `drop_conflicts` makes such labels
    missing. describe(task, label): the class in words."""
    _, first, photo = np.unique(photos, return_index=True, return_inverse=True)
    repeated = len(photos) - len(first)
    if not repeated:
        return np.arange(len(photos)), dict(labels), []
    notes = [f"{repeated:,} rows name a photo that an earlier row names, too: each photo is one sample"]
    order = np.argsort(photo, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(photo[order]) > 0])
    rows = np.sort(first)
    merged, num_dropped = {}, 0
    for task, column in labels.items():
        sorted_labels = column[order]
        most = np.maximum.reduceat(sorted_labels, starts)
        least = np.minimum.reduceat(np.where(sorted_labels == MISSING, np.iinfo(np.int32).max, sorted_labels), starts)
        conflicts = np.flatnonzero((most != MISSING) & (least != most))
        if len(conflicts) and task not in tags:
            if not drop_conflicts:
                _refuse(table, task, column, photo, conflicts, describe)
            num_dropped += len(conflicts)
            most[conflicts] = MISSING
        merged[task] = most[photo[rows]]
    if num_dropped:
        notes.append(f"{num_dropped:,} labels are missing, because rows of one photo contradict each other")
    return rows, merged, notes


def one_of_each(table: Table, cells: Sequence[str], codes: np.ndarray, photos: np.ndarray, *, what: str) -> None:
    """DataError where two rows of one photo have different cells in a column (`what`: a split, a group)."""
    _, photo = np.unique(photos, return_inverse=True)
    order = np.argsort(photo, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(photo[order]) > 0])
    differing = np.flatnonzero(np.maximum.reduceat(codes[order], starts) != np.minimum.reduceat(codes[order], starts))
    if len(differing):
        rows = np.flatnonzero(photo == differing[0])
        other = rows[codes[rows] != codes[rows[0]]][0]
        raise DataError(
            f"{table.where(int(other))}: this photo is of the {what} {cells[codes[other]]!r}, but of "
            f"{cells[codes[rows[0]]]!r} in {table.where(int(rows[0]))}; a photo has one"
        )


def _refuse(
    table: Table,
    task: str,
    column: np.ndarray,
    photo: np.ndarray,
    conflicts: np.ndarray,
    describe: Callable[[str, int], str],
) -> None:
    rows = np.flatnonzero((photo == conflicts[0]) & (column != MISSING))
    other = rows[column[rows] != column[rows[0]]][0]
    more = f"; so do {len(conflicts) - 1:,} more photos" if len(conflicts) > 1 else ""
    raise DataError(
        f"{table.where(int(other))}: task {task!r} is {describe(task, int(column[other]))!r} here and "
        f"{describe(task, int(column[rows[0]]))!r} in {table.where(int(rows[0]))}, for one photo{more}; put them "
        "right, or say --drop-conflicts: then these labels are missing"
    )
