"""Importer for a table: a CSV or JSONL file with an `image` column and one column per task.

Use: `source = read_manifest(Path("photos/labels.csv"))`

Image paths are relative to the manifest. Without any task column the images have no labels. A column named `split`
(train, val, test) gives published splits. Classes are sorted by name, by number where all are numbers. How cells are
read: `data.sources.cells`.
"""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

from data.errors import DataError
from data.index.labels import MISSING, order_classes
from data.names import class_name, on_disk
from data.sources.cells import MISSING_WORDS, BadCell, read_labels
from data.sources.source import SPLIT_NAMES, Record, Source, make_keys

IMAGE_COLUMN = "image"
SPLIT_COLUMN = "split"

Row = tuple[int, dict[str, object]]  # line number, column -> cell: text, or a JSON value


def read_manifest(path: Path, *, missing: Sequence[str] = MISSING_WORDS) -> Source:
    """Read a .csv or .jsonl file. missing: words that are no label. DataError names the line of anything that is not
    one class per task."""
    if not path.is_file():
        raise DataError(f"{path}: no such file (expected a .csv or .jsonl manifest)")
    try:
        if path.suffix.lower() == ".csv":
            columns, rows = _read_csv(path)
            is_json = False
        elif path.suffix.lower() in (".jsonl", ".ndjson"):
            columns, rows = _read_jsonl(path)
            is_json = True
        else:
            raise DataError(f"{path}: a manifest is a .csv or .jsonl file")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text ({error})") from error
    if IMAGE_COLUMN not in columns:
        raise DataError(f"{path}: has no {IMAGE_COLUMN!r} column (columns: {', '.join(columns)})")
    tasks = [column for column in columns if column not in (IMAGE_COLUMN, SPLIT_COLUMN)]
    if not rows:
        raise DataError(f"{path}: holds no rows")
    images = [_image(path, line, row) for line, row in rows]
    notes: list[str] = []
    labels = {task: _read_column(path, task, rows, is_json=is_json, missing=missing, notes=notes) for task in tasks}
    classes = {task: order_classes({name for name in names if name}) for task, names in labels.items()}
    numbers = {task: {name: number for number, name in enumerate(names)} for task, names in classes.items()}
    records = [
        Record(
            key,
            tuple(numbers[task].get(labels[task][place], MISSING) for task in tasks),
            _split(path, line, row),
            str(_image_path(path.parent, images[place])),
        )
        for place, (key, (line, row)) in enumerate(zip(make_keys(images), rows, strict=True))
    ]
    if twice := len(rows) - len(set(images)):
        notes.append(f"{twice} rows name an image that an earlier row names, too; both are kept")
    if not tasks:
        notes.append("no column holds labels: these images can only be learnt from a teacher")
    return Source(classes, records, tuple(notes))


def _read_csv(path: Path) -> tuple[list[str], list[Row]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        columns = [class_name(column.strip()) for column in next(reader, [])]
        if len(set(columns)) != len(columns) or "" in columns:
            raise DataError(f"{path}: line 1 must give every column its own name (it has: {', '.join(columns)})")
        rows: list[Row] = []
        for cells in reader:
            line = reader.line_num
            if not cells:
                continue
            if len(cells) != len(columns):
                raise DataError(f"{path}: line {line} has {len(cells)} cells, the header has {len(columns)}")
            rows.append((line, dict(zip(columns, cells, strict=True))))
    return columns, rows


def _read_jsonl(path: Path) -> tuple[list[str], list[Row]]:
    columns: dict[str, None] = {}
    rows: list[Row] = []
    with path.open(encoding="utf-8-sig") as file:
        for line, text in enumerate(file, start=1):
            if not text.strip():
                continue
            try:
                content = json.loads(text)
            except ValueError as error:
                raise DataError(f"{path}: line {line} is not JSON ({error})") from error
            if not isinstance(content, dict):
                raise DataError(f"{path}: line {line} is not an object")
            row = {class_name(column): value for column, value in content.items()}
            if len(row) < len(content):
                raise DataError(f"{path}: line {line} has two fields of one name (it has: {', '.join(content)})")
            columns.update(dict.fromkeys(row))
            rows.append((line, row))
    return list(columns), rows


def _image(path: Path, line: int, row: dict[str, object]) -> str:
    cell = row.get(IMAGE_COLUMN)
    if not isinstance(cell, str | int) or not str(cell).strip():
        raise DataError(f"{path}: line {line} names no image")
    return str(cell)


def _image_path(folder: Path, cell: str) -> Path:
    """The file of a cell: blanks around it count where a file is called like that, `\\` may part folders, and names
    that are no text may be written as `data.names` writes them."""
    plain = folder / cell.strip()
    if cell == cell.strip() and "\\" not in cell:
        return plain
    spellings = (cell, cell.replace("\\", "/"), on_disk(cell))
    return next((folder / name for name in spellings if (folder / name).exists()), plain)


def _read_column(
    path: Path, task: str, rows: Sequence[Row], *, is_json: bool, missing: Sequence[str], notes: list[str]
) -> list[str]:
    """The class name of every row, "" where the label is missing; `notes` takes how many are, and how it was said."""
    try:
        names, gaps = read_labels([row.get(task) for _, row in rows], is_json=is_json, missing=missing)
    except BadCell as error:
        raise DataError(f"{path}: line {rows[error.place][0]}, column {task!r}: {error.reason}") from error
    if not any(names):
        raise DataError(f"{path}: column {task!r} has no label in any row; remove it")
    if gaps:
        counts = ", ".join(f"{count:,} {gap}" for gap, count in gaps.most_common())
        how = "; --missing '' makes classes of words" if gaps.keys() & set(map(repr, missing)) else ""
        notes.append(f"column {task!r}: {gaps.total():,} of {len(rows):,} labels are missing ({counts}){how}")
    return names


def _split(path: Path, line: int, row: dict[str, object]) -> str:
    if SPLIT_COLUMN not in row:
        return ""
    name = str(row[SPLIT_COLUMN]).strip()
    if name not in SPLIT_NAMES:
        raise DataError(f"{path}: line {line}, split {name!r} is not one of {', '.join(SPLIT_NAMES)}")
    return SPLIT_NAMES[name]
