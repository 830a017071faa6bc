"""A column of a table, and what makes one of its cells.

Use: `encoder = CellEncoder(); encoder.add_text(["young", "old", "young"]); encoder.column().codes` is [0, 1, 0]

A column is kept as its different cells and a number for each row, so that a million rows fit into a small memory.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass
class Column:
    """One column: `values` are its different cells in order of first appearance, `codes` int32 [rows] their numbers."""

    values: list[Any]
    codes: np.ndarray

    def first_row(self, code: int) -> int:
        """The first row that holds the cell number `code`."""
        return int(np.argmax(self.codes == code))

    def counts(self) -> np.ndarray:
        """int64 [values]: rows of each cell."""
        return np.bincount(self.codes, minlength=len(self.values))


@dataclass
class CellEncoder:
    """Numbers cells in order of first appearance."""

    numbers: dict[Any, int] = field(default_factory=dict)
    values: list[Any] = field(default_factory=list)
    chunks: list[np.ndarray] = field(default_factory=list)

    def add_text(self, cells: Sequence[str]) -> None:
        """Cells that are text; they are their own keys."""
        numbers = self.numbers
        for cell in dict.fromkeys(cells):
            if cell not in numbers:
                numbers[cell] = len(numbers)
        self.chunks.append(np.fromiter(map(numbers.__getitem__, cells), np.int32, len(cells)))

    def add_json(self, cells: Sequence[Any]) -> None:
        """JSON values of any kind; true, 1 and 1.0 are three of them, though one key to Python."""
        codes = []
        for cell in cells:
            key = (type(cell).__name__, cell if isinstance(cell, str | int | None) else json.dumps(cell))
            if key not in self.numbers:
                self.numbers[key] = len(self.values)
                self.values.append(cell)
            codes.append(self.numbers[key])
        self.chunks.append(np.array(codes, np.int32))

    def column(self) -> Column:
        """All cells so far."""
        codes = np.concatenate(self.chunks) if self.chunks else np.empty(0, np.int32)
        return Column(self.values or list(self.numbers), codes)
