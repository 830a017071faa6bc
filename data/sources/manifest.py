"""Importer for a table: CSV or JSON with a column of photos and one column per task.

Use: `source = read_manifest(Path("photos/labels.csv"), TableOptions())`

Without any task column the photos have no labels. A column named `split` (train, val, test) gives published splits.
Classes are sorted by name, by number where all are numbers. Which column is what: `data.sources.columns`. How cells are
read: `data.sources.cells`. Where photos are looked for: `data.sources.photo_paths`.
"""

from collections.abc import Sequence
from itertools import repeat
from pathlib import Path

import numpy as np

from data.errors import DataError
from data.index.labels import MISSING, order_classes
from data.sources.cells import BadCell, one_spelling, read_labels
from data.sources.columns import ColumnRoles, TableOptions, choose_columns
from data.sources.photo_paths import find_photos
from data.sources.repeats import merge_repeats, one_of_each
from data.sources.source import SPLIT_NAMES, Record, Source, make_keys
from data.sources.tags import NO_YES, read_tags
from data.tables import Table, read_table


def read_manifest(path: Path, options: TableOptions) -> Source:
    """Read a table of photos. DataError names the line of anything that is not one class per task."""
    table = read_table(path, encoding=options.encoding, delimiter=options.delimiter)
    if not table.num_rows:
        raise DataError(f"{path}: holds no rows")
    roles = choose_columns(table, options)
    notes = [*table.notes, *roles.notes]
    classes: dict[str, tuple[str, ...]] = {}
    labels: dict[str, np.ndarray] = {}
    for name in table.columns:
        if name in roles.tasks:
            classes[name], labels[name] = _read_task(table, name, options, notes)
        elif name in roles.tags:
            tags = read_tags(table, name, missing=options.missing, notes=notes)
            if taken := sorted(tags.keys() & table.columns.keys()):
                raise DataError(
                    f"{path}: column {name!r} and column {taken[0]!r} both make a task of that name; rename one"
                )
            classes.update(dict.fromkeys(tags, NO_YES))
            labels.update(tags)
    splits, split_codes = _read_splits(table, roles)
    groups, group_codes = _read_groups(table, roles, options.missing)
    paths, found = find_photos(table, roles.image, images=options.images)
    notes += found
    codes = table.columns[roles.image].codes
    photos = _number(paths)[codes]
    rows, labels, merged = merge_repeats(
        table,
        photos,
        labels,
        tags=set(classes) - set(roles.tasks),
        drop_conflicts=options.drop_conflicts,
        describe=lambda task, label: classes[task][label],
    )
    if merged:
        one_of_each(table, splits, split_codes, photos, what="split")
        one_of_each(table, groups, group_codes, photos, what="group")
    if not classes:
        notes.append("no column holds labels: these photos can only be learnt from a teacher")
    cells = table.columns[roles.image].values
    files = codes[rows].tolist()
    records = map(
        Record,
        make_keys([str(cells[code]) for code in files]),
        _label_tuples([column for column in labels.values()], len(rows)),
        map(splits.__getitem__, split_codes[rows].tolist()),
        map(paths.__getitem__, files),
        map(groups.__getitem__, group_codes[rows].tolist()),
    )
    return Source(classes, list(records), (*notes, *merged))


def _number(paths: Sequence[str]) -> np.ndarray:
    """int64 [paths], equal where two paths are."""
    if len(set(paths)) == len(paths):
        return np.arange(len(paths))
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(path, len(numbers)) for path in paths], np.int64)


def _read_task(table: Table, name: str, options: TableOptions, notes: list[str]) -> tuple[tuple[str, ...], np.ndarray]:
    """(classes, int32 [rows] class numbers); `notes` takes how many are missing, and how that was said."""
    column = table.columns[name]
    counts = column.counts().tolist()
    try:
        names, gaps = read_labels(column.values, counts, is_json=table.is_json, missing=options.missing)
    except BadCell as error:
        where = table.where(column.first_row(error.place))
        keep = "; --tasks names the columns that are tasks" if options.tasks is None else ""
        raise DataError(f"{where}, column {name!r}: {error.reason}{keep}") from error
    photos: dict[str, int] = {}
    for label, count in zip(names, counts, strict=True):
        if label:
            photos[label] = photos.get(label, 0) + count
    if not photos:
        raise DataError(f"{table.path}: column {name!r} has no label in any row; remove it")
    merged = one_spelling(photos, case=options.case, where=f"{table.path}: column {name!r}")
    names = [merged.get(label, label) for label in names]
    if merged:
        notes.append(f"column {name!r}: {len(merged)} spellings joined others: {', '.join(sorted(merged)[:5])}")
    if gaps:
        listed = ", ".join(f"{count:,} {gap}" for gap, count in gaps.most_common())
        how = "; --missing '' makes classes of words" if gaps.keys() & set(map(repr, options.missing)) else ""
        notes.append(f"column {name!r}: {gaps.total():,} of {table.num_rows:,} labels are missing ({listed}){how}")
    if set(names) - {""} == {"-1", "1"}:
        notes.append(f"column {name!r}: -1 and 1 are two classes; --missing=-1 would make -1 a missing label")
    classes = order_classes(set(names) - {""})
    numbers = {label: number for number, label in enumerate(classes)}
    return classes, np.array([numbers.get(label, MISSING) for label in names], np.int32)[column.codes]


def _read_splits(table: Table, roles: ColumnRoles) -> tuple[list[str], np.ndarray]:
    """(names, numbers of the rows' splits)."""
    if roles.split is None:
        return [""], np.zeros(table.num_rows, np.int32)
    column = table.columns[roles.split]
    words = ["" if value is None else str(value).strip() for value in column.values]
    for code, word in enumerate(words):
        if word.lower() not in SPLIT_NAMES:
            where = table.where(column.first_row(code))
            raise DataError(f"{where}, split {word!r} is not one of {', '.join(SPLIT_NAMES)}")
    return [SPLIT_NAMES[word.lower()] for word in words], column.codes


def _read_groups(table: Table, roles: ColumnRoles, missing: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """(names, numbers of the rows' groups); an empty cell, or a `missing` word, is no group."""
    if roles.group is None:
        return [""], np.zeros(table.num_rows, np.int32)
    column = table.columns[roles.group]
    names = ["" if value is None else str(value).strip() for value in column.values]
    return ["" if name in missing else name for name in names], column.codes


def _label_tuples(columns: Sequence[np.ndarray], num_rows: int) -> list[tuple[int, ...]]:
    """The labels of each row. Rows with the same labels share one tuple: a million rows have few different ones."""
    if not columns:
        return list(repeat((), num_rows))
    seen: dict[tuple[int, ...], tuple[int, ...]] = {}
    return [seen.setdefault(row, row) for row in zip(*(column.tolist() for column in columns), strict=True)]
