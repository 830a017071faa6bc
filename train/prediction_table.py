"""The CSV of predictions: one row per photo, also for those that could not be used.

with PredictionTable(Path("preds.csv"), tasks=tasks, all_probabilities=False) as table: table.add(prediction)
"""

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from data.staging import sweep, sync, temporary_beside
from train.prediction import Prediction


class PredictionTable:
    """Columns: key; per task its class name, `<task>_probability`, and `<task>=<class>` for each class if all
    probabilities are wanted; error. The file takes its name when it is complete, or not at all."""

    def __init__(self, path: Path, *, tasks: Mapping[str, Sequence[str]], all_probabilities: bool) -> None:
        self.path, self.tasks, self.all_probabilities = path, tasks, all_probabilities
        self._part = temporary_beside(path, "part")

    def __enter__(self) -> Self:
        sweep(self.path.parent, of=self.path.name)
        # surrogateescape: names of files are bytes, and not all of them are UTF-8.
        self._file = self._part.open("w", newline="", encoding="utf-8", errors="surrogateescape")
        self._writer = csv.writer(self._file)
        columns = ["key"]
        for task, names in self.tasks.items():
            columns += [task, f"{task}_probability"]
            columns += [f"{task}={name}" for name in names] if self.all_probabilities else []
        self._writer.writerow([*columns, "error"])
        self._num_cells = len(columns) - 1
        return self

    def add(self, prediction: Prediction) -> None:
        """A photo's row; without an answer its cells are empty."""
        cells = [""] * self._num_cells if prediction.error else self._cells(prediction.probabilities)
        self._writer.writerow([prediction.key, *cells, prediction.error])

    def _cells(self, probabilities: Mapping[str, Sequence[float]]) -> list[str]:
        cells: list[str] = []
        for task, names in self.tasks.items():
            values = probabilities[task]
            best = max(range(len(names)), key=values.__getitem__)
            cells += [names[best], f"{values[best]:.6f}"]
            cells += [f"{value:.6f}" for value in values] if self.all_probabilities else []
        return cells

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._file:
            if error is None:
                self._file.flush()
                os.fsync(self._file.fileno())
        if error is None:
            self._part.replace(self.path)
            sync(self.path.parent)
        else:
            self._part.unlink()
