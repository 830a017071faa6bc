"""Tables as people have them, read by column: CSV with any delimiter and encoding, JSON lines, a JSON list of objects.

Use: `table = read_table(Path("labels.csv")); table.columns["age"].values, table.columns["age"].codes`
"""

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from data.errors import BadArgument, DataError
from data.names import class_name
from data.tables.column import CellEncoder, Column
from data.tables.delimited import Layout, line_of, read_delimited

DELIMITED = (".csv", ".tsv", ".tab", ".txt")
JSON_LINES = (".jsonl", ".ndjson")
JSON_LIST = ".json"
_PANDAS = "python -c \"import pandas; pandas.read_{kind}('{path}').to_csv('photos.csv', index=False)\""
_SPREADSHEET = "in the spreadsheet program, File > Save as > CSV (UTF-8)"
_WAYS_OUT = {
    **dict.fromkeys((".xlsx", ".xls", ".xlsm", ".ods", ".numbers"), _SPREADSHEET),
    ".parquet": _PANDAS.replace("{kind}", "parquet"),
    ".feather": _PANDAS.replace("{kind}", "feather"),
    ".pkl": _PANDAS.replace("{kind}", "pickle"),
    ".dta": _PANDAS.replace("{kind}", "stata"),
    ".gz": "gunzip --keep {path}",
    ".zip": "unzip {path}",
}
_CHUNK = 1 << 16  # rows


@dataclass(frozen=True)
class Table:
    """A table by column. is_json: its cells are JSON values, else text. notes: what was guessed or passed over."""

    path: Path
    columns: dict[str, Column]
    num_rows: int
    is_json: bool
    layout: Layout
    notes: tuple[str, ...] = ()

    def where(self, row: int) -> str:
        """`labels.csv: line 17`, for a row counted from 0."""
        if not self.is_json:
            return f"{self.path}: line {line_of(self.path, self.layout, row)}"
        if self.path.suffix.lower() == JSON_LIST:
            return f"{self.path}: entry {row + 1}"
        with self.path.open(encoding=self.layout.encoding) as file:
            lines = (number for number, text in enumerate(file, start=1) if text.strip())
            return f"{self.path}: line {next(islice(lines, row, None))}"


def is_table(path: Path) -> bool:
    """Whether a file's name is one of a table, read here or not."""
    return path.suffix.lower() in (*DELIMITED, *JSON_LINES, JSON_LIST, *_WAYS_OUT)


def read_table(path: Path, *, encoding: str | None = None, delimiter: str | None = None) -> Table:
    """Read a whole table. encoding, delimiter (a character, or comma, semicolon, tab, pipe): None finds them.

    Raises DataError that names the line, or the way out for a kind of file that is not read here, and BadArgument for
    an encoding that does not exist."""
    suffix = path.suffix.lower()
    if not path.is_file():
        raise DataError(f"{path}: no such file (expected a table: .csv, .tsv, .jsonl or .json)")
    if suffix in _WAYS_OUT:
        raise DataError(f"{path}: make it a CSV first: {_WAYS_OUT[suffix].format(path=path)}")
    if encoding is not None:
        _check_encoding(encoding)
    if suffix in DELIMITED:
        columns, num_rows, layout, notes = read_delimited(path, encoding=encoding, delimiter=delimiter)
        return Table(path, columns, num_rows, is_json=False, layout=layout, notes=tuple(notes))
    if suffix not in (*JSON_LINES, JSON_LIST):
        raise DataError(f"{path}: a table is a .csv, .tsv, .jsonl or .json file; if this is one, rename it")
    if delimiter is not None:
        raise BadArgument(f"--delimiter {delimiter}: JSON has none; leave it out")
    return _read_json(path, encoding or "utf-8-sig")


def _check_encoding(encoding: str) -> None:
    try:
        "".encode(encoding)
    except LookupError as error:
        raise BadArgument(f"--encoding {encoding}: is none; for example utf-8, cp1252, utf-16") from error


def _read_json(path: Path, encoding: str) -> Table:
    encoders: dict[str, CellEncoder] = {}
    num_rows = 0
    try:
        with path.open(encoding=encoding) as file:
            objects = _json_list(path, file) if path.suffix.lower() == JSON_LIST else _json_lines(path, file)
            while chunk := list(islice(objects, _CHUNK)):
                for name in dict.fromkeys(name for row in chunk for name in row):
                    if name not in encoders:
                        encoders[name] = CellEncoder()
                        encoders[name].add_json([None] * num_rows)
                for name, encoder in encoders.items():
                    encoder.add_json([row.get(name) for row in chunk])
                num_rows += len(chunk)
    except UnicodeError as error:
        name = encoding.removesuffix("-sig")
        raise DataError(f"{path}: is not {name} text ({error}); name its encoding with --encoding") from error
    columns = {name: encoder.column() for name, encoder in encoders.items()}
    return Table(path, columns, num_rows, is_json=True, layout=Layout(encoding, ""))


def _json_lines(path: Path, file: io.TextIOBase) -> Iterator[dict[str, Any]]:
    for line, text in enumerate(file, start=1):
        if text.strip():
            try:
                content = json.loads(text)
            except ValueError as error:
                raise DataError(f"{path}: line {line} is not JSON ({error})") from error
            yield _row(content, f"{path}: line {line}")


def _json_list(path: Path, file: io.TextIOBase) -> Iterator[dict[str, Any]]:
    try:
        content = json.load(file)
    except ValueError as error:
        raise DataError(f"{path}: is not JSON ({error}); a file of one object a line is called .jsonl") from error
    if not isinstance(content, list):
        raise DataError(f"{path}: must be a list of objects, one for each photo")
    yield from (_row(one, f"{path}: entry {number}") for number, one in enumerate(content, start=1))


def _row(content: object, where: str) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise DataError(f"{where} is not an object")
    row = {class_name(name): value for name, value in content.items()}
    if len(row) < len(content):
        raise DataError(f"{where} has two fields of one name (it has: {', '.join(content)})")
    return row
