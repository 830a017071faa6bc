"""What models say about each image, in the order of the images: as rows of a table, or as lines to be read.

with PredictionTable(path, tasks=ensemble.tasks, all_probabilities=False, thresholds={"age": 0.8}) as table:
    rows = PredictionRows(table.row, table.write, comm)
    run_evaluation({"ensemble": ensemble}, batches, [rows], num_samples=9, what="predicting", ...)
"""

import csv
import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self

import torch
from torch import Tensor

from data.files import publish, sweep, temporary_beside
from data.loading.eval_loader import EvalBatch
from train.distributed.comm import Comm
from train.evaluation.evaluation_pass import Accumulator, Outputs

UNSURE = "unsure"
NOT_A_NUMBER = "the model's answer is not a number; try --precision fp32"


@dataclass(frozen=True)
class Prediction:
    """Either probabilities (task -> one per class), or the error that explains their absence."""

    key: str
    probabilities: Mapping[str, Sequence[float]]
    error: str = ""


def predictions(batch: EvalBatch, log_probabilities: Mapping[str, Tensor]) -> Iterator[Prediction]:
    """One for every sample of the batch, also for those that could not be used. log_probabilities: task -> [N, C] of
    the others; empty where there are none."""
    all_probabilities = {task: values.exp().tolist() for task, values in log_probabilities.items()}
    by_row = {record.row: Prediction(record.key, {}, record.reason) for record in batch.bad}
    for at, (row, key) in enumerate(zip(batch.row, batch.key, strict=True)):
        probabilities = {task: values[at] for task, values in all_probabilities.items()}
        finite = all(math.isfinite(value) for values in probabilities.values() for value in values)
        by_row[row] = Prediction(key, probabilities) if finite else Prediction(key, {}, NOT_A_NUMBER)
    for row in sorted(by_row):
        yield by_row[row]


# What spreadsheets take for the start of a formula (the last four as wide letters), and our own mark.
_FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_MARK = "'"


def harmless(text: str) -> str:
    """A cell that a spreadsheet shows and does not compute; `bare` gives the text back."""
    return _MARK + text if text.startswith((*_FORMULAS, _MARK)) else text


def bare(cell: str) -> str:
    """The text that `harmless` was given."""
    return cell.removeprefix(_MARK)


def column_names(
    tasks: Mapping[str, Sequence[str]], *, all_probabilities: bool, thresholds: Collection[str] = ()
) -> list[str]:
    """key; per task its class name, `<task>_probability`, `<task>_unsure` of tasks with a threshold, and
    `<task>=<class>` for each class if all probabilities are wanted; error. Where two would be the same (a task `key`,
    or `a_probability` beside `a`), the tasks' columns say what they hold: `class "a"`, `probability "a"`,
    `unsure "a"`, `probability "a"="b"`."""
    plain: list[str] = []
    telling: list[str] = []
    for task, names in tasks.items():
        classes = names if all_probabilities else ()
        plain += [task, f"{task}_probability", *([f"{task}_unsure"] if task in thresholds else [])]
        plain += [f"{task}={name}" for name in classes]
        quoted = _quote(task)
        telling += [f"class {quoted}", f"probability {quoted}", *([f"unsure {quoted}"] if task in thresholds else [])]
        telling += [f"probability {quoted}={_quote(name)}" for name in classes]
    columns = ["key", *plain, "error"]
    return columns if len(set(columns)) == len(columns) else ["key", *telling, "error"]


def _quote(name: str) -> str:
    return json.dumps(name, ensure_ascii=False)


class PredictionTable:
    """The columns are those of `column_names`. Keys and errors are `harmless`. The file takes its name when it is
    complete, or not at all.

    thresholds: task -> probability below which its answer is withheld: no class, its probability, and UNSURE.
    num_unsure: task -> answers that were.
    """

    def __init__(
        self,
        path: Path,
        *,
        tasks: Mapping[str, Sequence[str]],
        all_probabilities: bool,
        thresholds: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        self.path, self.tasks, self.all_probabilities, self.thresholds = path, tasks, all_probabilities, thresholds
        self.num_unsure = dict.fromkeys(thresholds, 0)
        self._columns = column_names(tasks, all_probabilities=all_probabilities, thresholds=thresholds)
        self._part = temporary_beside(path, "part")

    def __enter__(self) -> Self:
        sweep(self.path.parent, of=self.path.name)
        self._file = self._part.open("w", newline="", encoding="utf-8")
        self._writer = csv.writer(self._file)
        self.write(self._columns)
        return self

    def row(self, prediction: Prediction) -> list[str]:
        """An image's cells; those of an answer that is not there are empty. The file need not be open."""
        num_cells = len(self._columns) - 2  # but key and error
        cells = [""] * num_cells if prediction.error else self._cells(prediction.probabilities)
        return [harmless(prediction.key), *cells, harmless(prediction.error)]

    def write(self, row: Sequence[str]) -> None:
        self._writer.writerow(row)

    def _cells(self, probabilities: Mapping[str, Sequence[float]]) -> list[str]:
        cells: list[str] = []
        for task, names in self.tasks.items():
            values = probabilities[task]
            best = max(range(len(names)), key=values.__getitem__)
            is_unsure = task in self.thresholds and values[best] < self.thresholds[task]
            cells += ["" if is_unsure else names[best], f"{values[best]:.6f}"]
            if task in self.thresholds:
                self.num_unsure[task] += is_unsure
                cells.append(UNSURE if is_unsure else "")
            cells += [f"{value:.6f}" for value in values] if self.all_probabilities else []
        return cells

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()
        if error is None:
            publish(self._part, self.path)
        else:
            self._part.unlink()


def answer_lines(
    prediction: Prediction,
    tasks: Mapping[str, Sequence[str]],
    thresholds: Mapping[str, float] = MappingProxyType({}),
) -> list[str]:
    """An image's key, and below it a line for each task: the class, its probability and the runner-up, and whether the
    probability is below the task's threshold; or its key and why there is no answer."""
    if prediction.error:
        return [f"{prediction.key}: no prediction: {prediction.error}"]
    width = max(map(len, tasks), default=0)
    lines = [prediction.key]
    for task, names in tasks.items():
        values = prediction.probabilities[task]
        best, *others = sorted(range(len(names)), key=values.__getitem__, reverse=True)
        runner_up = f", then {names[others[0]]} {_percent(values[others[0]])}" if others else ""
        doubt = f" ({UNSURE})" if values[best] < thresholds.get(task, 0.0) else ""
        lines.append(f"  {task:<{width}}  {names[best]} {_percent(values[best])}{runner_up}{doubt}")
    return lines


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


class PredictionRows(Accumulator):
    """Hands what one model says of each sample to rank 0, in the order of the samples. Every rank holds the same
    `failed`: the predictions that have an error.

    row: what is kept of a prediction, made by the rank that has it. write: takes it; only rank 0 calls it. Every rank
    must see the same number of batches, which are whole ones of one process (see `eval_batches`).
    """

    def __init__(self, row: Callable[[Prediction], list[str]], write: Callable[[list[str]], None], comm: Comm) -> None:
        self._row, self._write, self._comm = row, write, comm
        self.failed: list[Prediction] = []

    def add(self, batch: EvalBatch, outputs: Outputs) -> None:
        mine = [
            (self._row(prediction), prediction.key, prediction.error)
            for prediction in predictions(batch, next(iter(outputs.values()), {}))
        ]
        with torch.inference_mode(False):  # Horovod's threads write into tensors that are made here
            ranks = self._comm.allgather_object(mine, name="predictions")
        for rank in ranks:  # their order is that of the samples
            for row, key, error in rank:
                if self._comm.rank == 0:
                    self._write(row)
                if error:
                    self.failed.append(Prediction(key, {}, error))
