"""What each column of a table is: the photos, the published splits, groups, tags, tasks, or nothing of these.

Use: `roles = choose_columns(table, TableOptions()); roles.image, roles.tasks, roles.notes`
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.errors import BadArgument, DataError
from data.index.labels import missing_names
from data.sources.cells import MISSING_WORDS
from data.sources.photo_paths import names_photos
from data.sources.source import SPLIT_NAMES
from data.tables import Column, Table
from data.walk import IMAGE_SUFFIXES

# What people call the column of photos, likeliest first; compared in lower case, without signs.
IMAGE_NAMES = (
    *(
        "image",
        "images",
        "imagepath",
        "imagefile",
        "imagefilename",
        "imagename",
        "img",
        "imgpath",
        "imgfile",
        "imgname",
    ),
    *("photo", "photos", "photopath", "photofile", "photoname", "picture", "pictures", "picturepath", "filename"),
    *(
        "filenames",
        "filepath",
        "file",
        "files",
        "path",
        "paths",
        "fname",
        "relativepath",
        "imageid",
        "imgid",
        "photoid",
    ),
    *("imageurl", "imgurl", "url", "jpg", "id"),
)
_SPLIT = "split"
_OTHER_SPLITS = (
    "subset",
    "set",
    "partition",
    "phase",
    "usage",
    "datasplit",
)  # where all their cells are names of splits
_SAMPLED = 1000  # different cells that decide what a column holds
_ALL_DIFFER_FROM = 21  # rows
_MOST_CLASSES, _FEWEST_PHOTOS = 100, 10  # more classes, and fewer photos in each, are doubtful
_LONG = 100  # characters
_KINDS = {
    "web addresses": re.compile(r"(https?|ftp|s3|gs)://\S+|www\.\S+"),
    "dates": re.compile(r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}([ T]\d.*)?|\d{1,2}[-/.]\d{1,2}[-/.](\d{4}|\d{2})( \d.*)?"),
    "times": re.compile(r"\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?( ?[AaPp][Mm])?"),
    "e-mail addresses": re.compile(r"\S+@\S+\.\S+"),
    "files": re.compile(rf".+({'|'.join(map(re.escape, IMAGE_SUFFIXES))})", re.IGNORECASE),
}


@dataclass(frozen=True)
class TableOptions:
    """How a table is read. missing: words that are no label. image: the column of the photos (None: found by name, then
    by content). images: the folder that their paths start from (None: the table's). tasks: the columns that are tasks
    (None: all that can be). tags: columns of which every tag becomes a yes/no task. group: the column whose rows are
    never parted. case: what becomes of classes that differ only in case, see `one_spelling`. drop_conflicts: labels of
    one photo that contradict each other are missing."""

    missing: tuple[str, ...] = MISSING_WORDS
    image: str | None = None
    images: Path | None = None
    tasks: tuple[str, ...] | None = None
    tags: tuple[str, ...] = ()
    group: str | None = None
    encoding: str | None = None
    delimiter: str | None = None
    case: str | None = None
    drop_conflicts: bool = False


@dataclass(frozen=True)
class ColumnRoles:
    """Names of columns; `notes` say what was guessed."""

    image: str
    split: str | None
    group: str | None
    tags: tuple[str, ...]
    tasks: tuple[str, ...]
    notes: tuple[str, ...]


def choose_columns(table: Table, options: TableOptions) -> ColumnRoles:
    """Raises BadArgument for an option that names no column, and DataError for a column that may or may not be a task,
    with the option that decides."""
    for option, names in (("tasks", options.tasks), ("tags", options.tags)):
        if unknown := missing_names(names or (), table.columns):
            raise BadArgument(f"--{option}: {table.path} has no column {unknown} (columns: {', '.join(table.columns)})")
    if options.group is not None and options.group not in table.columns:
        raise BadArgument(
            f"--group {options.group}: {table.path} has no such column (columns: {', '.join(table.columns)}); "
            "near-duplicates groups by what photos look like"
        )
    image = _image_column(table, options.image, options.images)
    split = _split_column(table)
    taken = {image, split, options.group, *options.tags, *(options.tasks or ())}
    notes, tasks = [], []
    if image != "image" and options.image is None:
        notes.append(f"{table.path}: photos are named by the column {image!r}; --image names another")
    if split not in (None, _SPLIT):
        notes.append(f"{table.path}: splits are those of the column {split!r}")
    for name in options.tasks or ():
        if name in (image, options.group) or name in options.tags:
            raise BadArgument(f"--tasks {name}: this column is used otherwise; leave it out")
    left_out = []
    for name, column in table.columns.items():
        if name in (options.tasks or ()):
            tasks.append(name)
        elif name not in taken and options.tasks is None:
            if reason := _why_no_task(table, column, options.missing):
                left_out.append(f"{name!r} ({reason})")
            else:
                _refuse_doubtful(table, name, column, options)
                tasks.append(name)
    if left_out:
        notes.append(f"{table.path}: no tasks: {', '.join(left_out)}; --tasks names the columns that are")
    return ColumnRoles(image, split, options.group, options.tags, tuple(tasks), tuple(notes))


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _sample(column: Column) -> list[Any]:
    step = max(1, len(column.values) // _SAMPLED)
    return [value for value in column.values[::step] if value is not None and str(value).strip()]


def _share(column: Column, kind: str) -> float:
    """Of the different cells, how many are of a kind, by a sample."""
    cells = _sample(column)
    return sum(bool(_KINDS[kind].fullmatch(str(cell).strip())) for cell in cells) / max(len(cells), 1)


def _image_column(table: Table, wanted: str | None, images: Path | None) -> str:
    if wanted is not None:
        if wanted not in table.columns:
            raise BadArgument(
                f"--image {wanted}: {table.path} has no such column (columns: {', '.join(table.columns)})"
            )
        return wanted
    named = sorted(
        (name for name in table.columns if _plain(name) in IMAGE_NAMES),
        key=lambda name: IMAGE_NAMES.index(_plain(name)),
    )
    if named and _plain(named[0]) == "image":
        return named[0]
    files = [name for name, column in table.columns.items() if _share(column, "files") > 0.9]
    by_both = [name for name in named if name in files]
    if by_both or len(files) == 1:
        return (by_both or files)[0]
    if len(files) > 1:
        listed = ", ".join(map(repr, files))
        raise DataError(f"{table.path}: columns {listed} all name photos; say which with --image COLUMN")
    if named:
        return named[0]
    there = [name for name in table.columns if names_photos(table, name, images=images)]
    if len(there) == 1:
        return there[0]
    listed = ", ".join(map(repr, table.columns))
    raise DataError(f"{table.path}: no column names photos (it has {listed}); say which does with --image COLUMN")


def _split_column(table: Table) -> str | None:
    for name in table.columns:
        if _plain(name) == _SPLIT:
            return name
    for name, column in table.columns.items():
        words = {str(value).strip().lower() for value in column.values}
        if _plain(name) in _OTHER_SPLITS and words <= SPLIT_NAMES.keys():
            return name
    return None


def _why_no_task(table: Table, column: Column, missing: Sequence[str]) -> str | None:
    """Why a column can be no task, for certain; None where it may be one."""
    cells = [cell for cell in _sample(column) if str(cell).strip() not in missing]
    if not cells:
        return None  # reading its labels says so
    if all(isinstance(cell, dict) for cell in cells):
        return "nested objects"
    for kind in _KINDS:
        if _share(column, kind) > 0.9:
            return kind
    labelled = table.num_rows - sum(
        int(count)
        for value, count in zip(column.values, column.counts(), strict=True)
        if value is None or not str(value).strip() or str(value).strip() in missing
    )
    texts = [str(cell) for cell in cells]
    decimals = all(re.fullmatch(r"[+-]?\d+[.,]\d+", text.strip()) for text in texts)
    if len(column.values) >= labelled >= _ALL_DIFFER_FROM and not decimals:
        return "its cells all differ"
    return "long texts" if sum(map(len, texts)) > _LONG * len(texts) else None


def _refuse_doubtful(table: Table, name: str, column: Column, options: TableOptions) -> None:
    num_classes = len(column.values)
    if num_classes > _MOST_CLASSES and table.num_rows < _FEWEST_PHOTOS * num_classes:
        raise DataError(
            f"{table.path}: column {name!r} has {num_classes:,} different cells in {table.num_rows:,} rows, which is "
            f"rarely a task; name the columns that are, as --tasks {','.join(_others(table, name, options))}, "
            f"with {name} among them if it is one"
        )


def _others(table: Table, name: str, options: TableOptions) -> list[str]:
    used = {
        name,
        _image_column(table, options.image, options.images),
        _split_column(table),
        options.group,
        *options.tags,
    }
    return [
        other
        for other, column in table.columns.items()
        if other not in used and _why_no_task(table, column, options.missing) is None
    ][:4] or ["gender"]
