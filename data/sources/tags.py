"""Tags: a column whose cells hold several words becomes a yes/no task for every word.

Use: `tasks = read_tags(table, "colour", missing=(), notes=notes)` is {"colour:red": [...], "colour:round": [...]}
"""

from collections import Counter

import numpy as np

from data.errors import DataError
from data.index.labels import MISSING
from data.names import class_name
from data.sources.cells import EMPTY
from data.tables import Column, Table

NO_YES = ("no", "yes")
_SEPARATORS = "|;,"
_MOST_TAGS = 500


def read_tags(table: Table, name: str, *, missing: tuple[str, ...], notes: list[str]) -> dict[str, np.ndarray]:
    """task -> int32 [rows]: 1 where a row has the tag, 0 where it has not, -1 where its tags are missing.

    A cell without a word has no tags; a `missing` word (or null in JSON) says that they are not known. Words are parted
    by the first of | ; , that occurs in the column. JSON lists hold one word an entry. Raises DataError."""
    column = table.columns[name]
    separator = next((mark for mark in _SEPARATORS if any(mark in str(cell) for cell in column.values)), "|")
    words = [_words(table, name, column, code, separator, missing) for code in range(len(column.values))]
    tags = sorted({word for found in words for word in found or ()})
    if not tags:
        raise DataError(f"{table.path}: column {name!r} has no tag in any row; leave it out of --tags")
    if len(tags) > _MOST_TAGS:
        raise DataError(
            f"{table.path}: column {name!r} has {len(tags):,} different tags, each would be a task; at most "
            f"{_MOST_TAGS} are taken: keep the commonest ones in the table"
        )
    counts = column.counts()
    rows: Counter[str] = Counter()
    for found, count in zip(words, counts, strict=True):
        rows[EMPTY if found == () else "missing" if found is None else ""] += int(count)
    notes.append(
        f"column {name!r}: {len(tags)} tags, each a yes/no task called {name}:TAG; {rows[EMPTY]:,} rows have none of "
        f"them, of {rows['missing']:,} they are missing"
    )
    tasks = {}
    for tag in tags:
        labels = [MISSING if found is None else int(tag in found) for found in words]
        tasks[f"{name}:{tag}"] = np.array(labels, np.int32)[column.codes]
    return tasks


def _words(
    table: Table, name: str, column: Column, code: int, separator: str, missing: tuple[str, ...]
) -> tuple[str, ...] | None:
    """The tags of a cell; None where they are missing."""
    cell = column.values[code]
    if cell is None or (not isinstance(cell, list) and str(cell).strip() in missing):
        return None
    parts = cell if isinstance(cell, list) else str(cell).split(separator)
    if not all(isinstance(part, str) for part in parts):
        raise DataError(f"{table.where(column.first_row(code))}, column {name!r}: tags must be words, this is {cell!r}")
    return tuple(filter(None, (class_name(part.strip()) for part in parts)))
