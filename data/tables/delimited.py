"""CSV as programs write it: the delimiter and the encoding are found, empty ends of lines are no cells.

Use: `columns, num_rows, layout, notes = read_delimited(Path("labels.csv"))`
"""

import contextlib
import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from data.errors import BadArgument, DataError
from data.names import class_name
from data.tables.column import CellEncoder, Column
from data.walk import IMAGE_SUFFIXES

_DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}
_BOMS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
# What spreadsheet programs save in, by the machine's language; charset-normalizer chooses among these.
_CODE_PAGES = [
    "cp1252",
    "cp1250",
    "cp1251",
    "cp1253",
    "cp1254",
    "cp1255",
    "cp1256",
    "gb18030",
    "big5",
    "cp932",
    "cp949",
]
_CHUNK = 1 << 16  # rows
_DECIDING_LINES = 50  # about the delimiter
_GUESSED_LINES = 2000  # about the encoding
_LARGEST_CELL = 1 << 20  # characters; a quote that is not closed would else swallow the file


@dataclass(frozen=True)
class Layout:
    """How the text of a file is read; `skipped` lines stand before the header."""

    encoding: str
    delimiter: str
    skipped: int = 0


def read_delimited(
    path: Path, *, encoding: str | None = None, delimiter: str | None = None
) -> tuple[dict[str, Column], int, Layout, list[str]]:
    """Columns by name, number of rows, how they were read, and notes about what was guessed.

    delimiter: a character, or comma, semicolon, tab, pipe. Raises DataError that names the line, BadArgument."""
    notes: list[str] = []
    known = encoding or _encoding_by_first_bytes(path)
    try:
        layout = _find_layout(path, known or "utf-8", delimiter)
        columns, num_rows = _read_rows(path, layout, notes)
    except UnicodeError as error:
        if known:
            raise DataError(f"{path}: is not {known} text ({error}); name its encoding with --encoding") from error
        layout = _find_layout(path, _guess_encoding(path, error), delimiter)
        notes = [f"{path}: read as {layout.encoding}; --encoding names another"]
        columns, num_rows = _read_rows(path, layout, notes)
    if layout.delimiter != "," and delimiter is None and len(columns) > 1:
        name = next((name for name, mark in _DELIMITERS.items() if mark == layout.delimiter), repr(layout.delimiter))
        notes.append(f"{path}: its columns are parted by {name}s; --delimiter names another")
    return columns, num_rows, layout, notes


def line_of(path: Path, layout: Layout, row: int) -> int:
    """Line number of a row counted from 0. The file is read again, so this is for messages."""
    with _open_rows(path, layout) as (reader, rows):
        next(rows, None)
        next(islice((cells for cells in rows if any(cells)), row, None), None)
        return int(reader.line_num) + layout.skipped


def _encoding_by_first_bytes(path: Path) -> str | None:
    with path.open("rb") as file:
        head = file.read(1 << 12)
    for mark, encoding in _BOMS:
        if head.startswith(mark):
            return encoding
    # Text of mostly Latin letters, two bytes each, without a mark: every other byte is zero.
    if head[1::2].count(0) > 0.8 * len(head) / 2:
        return "utf-16-le"
    return "utf-16-be" if head[::2].count(0) > 0.8 * len(head) / 2 else None


def _guess_encoding(path: Path, error: UnicodeError) -> str:
    import charset_normalizer  # 0.1 s that a table in UTF-8 need not wait for

    odd = [line for line in path.read_bytes().splitlines() if not line.isascii()]
    best = charset_normalizer.from_bytes(b"\n".join(odd[:_GUESSED_LINES]), cp_isolation=_CODE_PAGES).best()
    if best is None:
        raise DataError(f"{path}: is not UTF-8 text ({error}); name its encoding with --encoding") from error
    return best.encoding


def _find_layout(path: Path, encoding: str, delimiter: str | None) -> Layout:
    with path.open(newline="", encoding=encoding) as file:
        lines = [line for line in islice(file, _DECIDING_LINES) if line.strip()]
    skipped = 0
    if lines and (told := lines[0].strip().strip('"')).lower().startswith("sep=") and len(told) == 5:
        delimiter = delimiter or told[4]  # Excel's own way to say it
        lines, skipped = lines[1:], 1
    if delimiter is not None:
        mark = _DELIMITERS.get(delimiter, "\t" if delimiter == "\\t" else delimiter)
        if len(mark) != 1:
            raise BadArgument(f"--delimiter {delimiter}: must be one character, or {', '.join(_DELIMITERS)}")
        return Layout(encoding, mark, skipped)
    widths = {mark: _widths(lines, mark) for mark in _DELIMITERS.values()}
    # The header decides, its cells are words; of two marks that part it alike, the one that all lines agree on.
    best = max(widths, key=lambda mark: (widths[mark][:1], -len(set(widths[mark]))))
    return Layout(encoding, best, skipped)


def _widths(lines: Sequence[str], delimiter: str) -> list[int]:
    try:
        return [len(cells) for cells in csv.reader(lines, delimiter=delimiter)]
    except csv.Error:
        return [0]


@contextlib.contextmanager
def _open_rows(path: Path, layout: Layout) -> Iterator[tuple[Any, Iterator[list[str]]]]:
    """The reader, which counts lines, and its rows less empty lines; the first one is the header."""
    csv.field_size_limit(_LARGEST_CELL)
    with path.open(newline="", encoding=layout.encoding) as file:
        for _ in range(layout.skipped):
            file.readline()
        reader = csv.reader(file, delimiter=layout.delimiter)
        yield reader, (cells for cells in reader if cells)


def _read_rows(path: Path, layout: Layout, notes: list[str]) -> tuple[dict[str, Column], int]:
    num_rows = num_empty = 0
    with _open_rows(path, layout) as (reader, rows):
        try:
            header = [class_name(cell.strip().lstrip("\ufeff")) for cell in next(rows, [])]
            while header.count("") > 1 and not header[-1]:
                header.pop()  # delimiters at the end of the line
            _check_header(path, header, layout)
            encoders = [CellEncoder() for _ in header]
            while chunk := list(islice(rows, _CHUNK)):
                if not all(map(any, chunk)):
                    num_empty += sum(not any(cells) for cells in chunk)
                    chunk = [cells for cells in chunk if any(cells)]
                if set(map(len, chunk)) - {len(header)}:
                    chunk = _cut(chunk, len(header), path, layout, num_rows)
                num_rows += len(chunk)
                for encoder, cells in zip(encoders, zip(*chunk, strict=True), strict=False):
                    encoder.add_text(cells)
        except csv.Error as error:
            where = f"{path}: line {reader.line_num + layout.skipped}"
            raise DataError(f'{where}: {error}; look for a quote (") that is not closed before it') from error
    if num_empty:
        notes.append(f"{path}: {num_empty} empty rows passed over")
    columns = dict(zip(header, (encoder.column() for encoder in encoders), strict=True))
    return _without_unnamed(path, columns, num_rows, notes), num_rows


def _check_header(path: Path, header: Sequence[str], layout: Layout) -> None:
    if any(cell.lower().endswith(IMAGE_SUFFIXES) for cell in header):
        example = layout.delimiter.join(["image", *(f"task{number}" for number in range(1, len(header)))])
        raise DataError(f"{path}: has no header, line 1 is a photo's; put a line of names before it, as {example}")
    names = [name for name in header if name]
    if len(set(names)) != len(names) or len(names) < len(header) - 1:
        raise DataError(f"{path}: line 1 must give every column its own name (it has: {', '.join(header)})")


def _cut(chunk: list[list[str]], width: int, path: Path, layout: Layout, rows_before: int) -> list[list[str]]:
    """Rows of `width` cells: a delimiter at the end of a line makes an empty cell, which is none. DataError for others
    beyond, or too few."""
    for number, cells in enumerate(chunk):
        if len(cells) < width or any(cell.strip() for cell in cells[width:]):
            where = f"{path}: line {line_of(path, layout, rows_before + number)}"
            hint = "; a cell that holds the delimiter is written in quotes" if len(cells) > width else ""
            raise DataError(f"{where} has {len(cells)} cells, the header has {width}{hint}")
    return [cells[:width] for cells in chunk]


def _without_unnamed(path: Path, columns: dict[str, Column], num_rows: int, notes: list[str]) -> dict[str, Column]:
    """The columns less those without a name that hold nothing, or the numbers of the rows, as pandas writes them."""
    kept = dict(columns)
    for name in columns:
        if name and not name.startswith("Unnamed: "):
            continue
        values = [value.strip() for value in columns[name].values]
        if len(values) == num_rows and all(value.isdecimal() for value in values):
            notes.append(f"{path}: a column without a name counts the rows, it is left out")
            del kept[name]
        elif not any(values):
            del kept[name]
        elif not name:
            raise DataError(f"{path}: a column without a name holds {values[0]!r}; name it in the header, or remove it")
    return kept
