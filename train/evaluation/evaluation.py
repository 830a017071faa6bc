"""How good a model is on labelled photos, exact over any number of ranks.

result = evaluate(ensemble, batches, comm, num_samples=500, num_classes={"age": 5}, device=device)
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data.loading.batch import BadRecord
from data.loading.eval_loader import EvalBatch
from data.sealed_json import finite_or_null
from train.distributed.comm import Comm
from train.evaluation.answer import is_answer
from train.evaluation.class_scores import ClassScore, class_scores
from train.evaluation.confusions import MOST_CLASSES, filled_cells
from train.evaluation.ensemble import Ensemble
from train.evaluation.evaluation_pass import Accumulator, Outputs, Predict, SeenSamples, run_evaluation
from train.evaluation.metrics import TaskCounts
from train.evaluation.reliability import ReliabilityCounts

_NAMED = 5  # keys of samples without an answer, per rank
_LOOKED_AT_TOGETHER = 64  # batches


@dataclass(frozen=True)
class Evaluation:
    """The same on every rank, but for `bad`."""

    tasks: dict[str, dict[str, float]]  # task -> measure -> value
    confusion: dict[str, Tensor]  # task -> float64 [C, C], rows are the true classes
    support: dict[str, Tensor]  # task -> float64 [C], samples of each class, those without an answer among them
    num_bad: int  # over all ranks
    bad: list[BadRecord]  # of this rank
    no_answer: list[str]  # keys of some of the samples for which the model gave no number, of all ranks

    @property
    def is_finite(self) -> bool:
        """Every measure of the tasks that have a labelled sample is a number."""
        reports = [report for report in self.tasks.values() if report["count"]]
        return all(math.isfinite(value) for report in reports for value in report.values())

    @property
    def answers_nothing(self) -> bool:
        """For one task at least, no labelled sample has an answer."""
        return any(report["count"] and report["no_answer"] == report["count"] for report in self.tasks.values())

    @property
    def unanswered(self) -> str:
        """How many samples of which task have no answer, and some of them by name; empty where all have one."""
        parts = [
            f"{report['no_answer']:.0f} of {report['count']:.0f} for task {task!r}"
            for task, report in self.tasks.items()
            if report["no_answer"]
        ]
        if not parts:
            return ""
        return f"{', '.join(parts)} (such as {', '.join(self.no_answer[:_NAMED])})"

    @property
    def mean_top1(self) -> float:
        """Over the tasks that have a labelled sample."""
        values = [report["top1"] for report in self.tasks.values() if report["count"]]
        return sum(values) / len(values) if values else float("nan")

    def class_scores(self, task: str, classes: Sequence[str]) -> list[ClassScore]:
        """Of all classes, in their order."""
        return class_scores(self.confusion[task].numpy(), self.support[task].numpy(), classes)

    def flat(self) -> dict[str, float]:
        """`task.measure` -> value, and `mean_top1`."""
        flat = {f"{task}.{name}": value for task, report in self.tasks.items() for name, value in report.items()}
        return {**flat, "mean_top1": self.mean_top1}


def evaluate(
    predict: Predict,
    batches: Iterable[EvalBatch],
    comm: Comm,
    *,
    num_samples: int,
    num_classes: Mapping[str, int],
    device: torch.device,
    class_values: Mapping[str, Sequence[float]] | None = None,
    also: Sequence[Accumulator] = (),
    progress: Callable[[int], None] = lambda count: None,
) -> Evaluation:
    """Every rank evaluates its part of the samples; one sum over the ranks at the end.

    num_classes: by task, of those that are evaluated. class_values: of the ordered tasks among them. num_samples: of
    all ranks, good and bad; LoaderLost when another number came. also: what else is kept of the pass.
    """
    measures = _Measures(num_classes, class_values or {}, device)
    seen = run_evaluation(
        {"model": predict},
        batches,
        [measures, *also],
        num_samples=num_samples,
        what="measuring",
        device=device,
        comm=comm,
        progress=progress,
    )
    return measures.result(seen, comm)


class _Measures(Accumulator):
    """What one model's outputs add up to."""

    def __init__(
        self, num_classes: Mapping[str, int], class_values: Mapping[str, Sequence[float]], device: torch.device
    ) -> None:
        self._counts = {
            task: TaskCounts(classes, device, class_values=class_values.get(task))
            for task, classes in num_classes.items()
        }
        self._unanswered = _Unanswered()

    @property
    def sums(self) -> Sequence[Tensor]:
        return [count.flat for count in self._counts.values()]

    def add(self, batch: EvalBatch, outputs: Outputs) -> None:
        if not outputs:
            return
        (logits,) = outputs.values()
        for task, count in self._counts.items():
            count.add(logits[task], batch.label[task])
        self._unanswered.add([logits[task] for task in self._counts], batch.key)

    def result(self, seen: SeenSamples, comm: Comm) -> Evaluation:
        reports = {task: count.report() for task, count in self._counts.items()}
        no_answer: list[str] = []
        if any(report["no_answer"] for report in reports.values()):  # the same on every rank
            everyone = comm.allgather_object(self._unanswered.names(), name="evaluation.no_answer")
            no_answer = [key for rank in everyone for key in rank]
        return Evaluation(
            tasks=reports,
            confusion={task: count.confusion.cpu() for task, count in self._counts.items()},
            support={task: count.support.cpu() for task, count in self._counts.items()},
            num_bad=seen.num_bad,
            bad=seen.bad,
            no_answer=no_answer,
        )


class _Unanswered:
    """The first samples of a rank for which a task's logits are not finite. Most batches have none, and to ask the
    device in each of them would make it wait."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._flags: list[Tensor] = []
        self._keys: list[str] = []

    def add(self, logits: Sequence[Tensor], keys: Sequence[str]) -> None:
        self._flags.append(~torch.stack([is_answer(one) for one in logits]).all(dim=0))
        self._keys += keys
        if len(self._flags) == _LOOKED_AT_TOGETHER:
            self.names()

    def names(self) -> list[str]:
        """At most _NAMED. Waits for the device."""
        if self._flags:
            found = torch.cat(self._flags).nonzero().flatten().tolist()
            self._names += [self._keys[at] for at in found[: _NAMED - len(self._names)]]
            self._flags, self._keys = [], []
        return self._names


def evaluation_report(
    evaluation: Evaluation,
    reliability: ReliabilityCounts,
    *,
    ensemble: Ensemble,
    data: str,
    num_views: int,
    bad: Sequence[Sequence[str]],
) -> dict[str, Any]:
    """Measures with confusion matrices (rows are the true classes) and class names, and what was measured how.

    per_class: see ClassScore. given_answers, of tasks with a threshold: see GivenAnswers.

    Of more than MOST_CLASSES classes `confusion_cells`, the cells that are not 0, stand for the matrix. bad: (shard,
    key, reason). A measure without a labelled sample is null, and so are the loss and the mean absolute error where
    there is no_answer: samples whose logits are not finite, which count as wrong.
    """
    return {
        "data": data,
        "views": num_views,
        "models": [
            {
                "path": member.path,
                "sha256": member.meta.sha256,
                "num_parameters": member.meta.num_parameters,
                "image_size": member.predictor.image_size,
                "precision": member.predictor.precision,
                "tasks": list(member.predictor.order),
                "temperatures": dict(member.predictor.temperature),
            }
            for member in ensemble.members
        ],
        "mean_top1": finite_or_null(evaluation.mean_top1),
        "tasks": {
            task: {
                **{name: finite_or_null(value) for name, value in measures.items()},
                "calibration_error": finite_or_null(reliability.calibration_error(task)),
                **({"given_answers": asdict(given)} if (given := reliability.given(task)) else {}),
                "classes": list(ensemble.tasks[task]),
                **({"class_values": list(values)} if (values := ensemble.class_values.get(task)) else {}),
                "per_class": [asdict(score) for score in evaluation.class_scores(task, ensemble.tasks[task])],
                **_confusion(evaluation.confusion[task].numpy()),
            }
            for task, measures in evaluation.tasks.items()
        },
        "bad_samples": [{"shard": shard, "key": key, "reason": reason} for shard, key, reason in bad],
    }


def _confusion(matrix: np.ndarray) -> dict[str, Any]:
    if len(matrix) > MOST_CLASSES:
        return {"confusion_cells": [list(cell) for cell in filled_cells(matrix)]}
    return {"confusion": matrix.astype(int).tolist()}
