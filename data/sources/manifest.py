"""Importer for a table: a CSV or JSONL file with an `image` column and one column per task (empty = missing).

Use: `source = read_manifest(Path("photos/labels.csv"))`

Image paths are relative to the manifest. Without any task column the images have no labels. A column named `split`
(train, val, test) gives published splits. Classes are sorted by name, by number where all are whole numbers.
"""

import csv
import json
import re
from pathlib import Path

from data.errors import BadSample, DataError
from data.labels import check_json_label, parse_text_label
from data.sources.source import MISSING, SPLIT_NAMES, Record, Source, make_keys

IMAGE_COLUMN = "image"
SPLIT_COLUMN = "split"
_NUMBER = re.compile(r"\d+")

Row = tuple[int, dict[str, str]]  # line number, column -> text ("" = missing)


def read_manifest(path: Path) -> Source:
    """Read a .csv or .jsonl file. DataError names the line of anything that is not one class per task."""
    if not path.is_file():
        raise DataError(f"{path}: no such file (expected a .csv or .jsonl manifest)")
    try:
        if path.suffix.lower() == ".csv":
            columns, rows = _read_csv(path)
        elif path.suffix.lower() in (".jsonl", ".ndjson"):
            columns, rows = _read_jsonl(path)
        else:
            raise DataError(f"{path}: a manifest is a .csv or .jsonl file")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text ({error})") from error
    if IMAGE_COLUMN not in columns:
        raise DataError(f"{path}: has no {IMAGE_COLUMN!r} column (columns: {', '.join(columns)})")
    tasks = [column for column in columns if column not in (IMAGE_COLUMN, SPLIT_COLUMN)]
    if not rows:
        raise DataError(f"{path}: holds no rows")
    classes = {task: _class_names(path, task, rows) for task in tasks}
    numbers = {task: {name: number for number, name in enumerate(names)} for task, names in classes.items()}
    records = []
    for key, (line, row) in zip(make_keys([row[IMAGE_COLUMN] for _, row in rows]), rows, strict=True):
        labels = tuple(numbers[task][row[task]] if row[task] else MISSING for task in tasks)
        records.append(Record(key, labels, _split(path, line, row), path.parent / row[IMAGE_COLUMN]))
    twice = len(rows) - len({row[IMAGE_COLUMN] for _, row in rows})
    notes = [f"{twice} rows name an image that an earlier row names, too; both are kept"] if twice else []
    if not tasks:
        notes.append("no column holds labels: these images can only be learnt from a teacher")
    return Source(classes, records, tuple(notes))


def _read_csv(path: Path) -> tuple[list[str], list[Row]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        columns = [column.strip() for column in next(reader, [])]
        if len(set(columns)) != len(columns) or "" in columns:
            raise DataError(f"{path}: line 1 must give every column its own name (it has: {', '.join(columns)})")
        rows: list[Row] = []
        for cells in reader:
            line = reader.line_num
            if not cells:
                continue
            if len(cells) != len(columns):
                raise DataError(f"{path}: line {line} has {len(cells)} cells, the header has {len(columns)}")
            row = {column: cell.strip() for column, cell in zip(columns, cells, strict=True)}
            for task in row.keys() - {IMAGE_COLUMN, SPLIT_COLUMN}:
                _refuse_unless_class(path, line, task, row[task])
            rows.append((line, _with_image(path, line, row)))
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
            columns.update(dict.fromkeys(content))
            row = {}
            for column, value in content.items():
                try:
                    checked = check_json_label(column, value)
                except BadSample as error:
                    raise DataError(f"{path}: line {line}, {error.reason}") from error
                row[column] = "" if checked is None else str(checked).strip()
                if isinstance(checked, int):
                    _refuse_unless_class(path, line, column, row[column])
            rows.append((line, _with_image(path, line, row)))
    return list(columns), [(line, {column: row.get(column, "") for column in columns}) for line, row in rows]


def _with_image(path: Path, line: int, row: dict[str, str]) -> dict[str, str]:
    if IMAGE_COLUMN in row and not row[IMAGE_COLUMN]:
        raise DataError(f"{path}: line {line} names no image")
    return row


def _refuse_unless_class(path: Path, line: int, task: str, text: str) -> None:
    try:
        value = parse_text_label(text)
    except BadSample as error:
        raise DataError(f"{path}: line {line}, column {task!r}: {error.reason}") from error
    if isinstance(value, int) and value < 0:
        raise DataError(f"{path}: line {line}, column {task!r}: {value} is negative; leave a missing label empty")


def _class_names(path: Path, task: str, rows: list[Row]) -> tuple[str, ...]:
    names = {row[task] for _, row in rows if row[task]}
    if not names:
        raise DataError(f"{path}: column {task!r} has no label in any row; remove it")
    if all(_NUMBER.fullmatch(name) for name in names):
        return tuple(sorted(names, key=lambda name: (int(name), name)))
    return tuple(sorted(names))


def _split(path: Path, line: int, row: dict[str, str]) -> str:
    name = row.get(SPLIT_COLUMN)
    if name is None:
        return ""
    if name not in SPLIT_NAMES:
        raise DataError(f"{path}: line {line}, split {name!r} is not one of {', '.join(SPLIT_NAMES)}")
    return SPLIT_NAMES[name]
