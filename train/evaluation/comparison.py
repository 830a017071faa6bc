"""Several models on the same images in one pass, each compared with the first.

results, bad = compare({"torch fp32": teacher, "onnx int8": small}, batches, num_samples=500)
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from data.loading.batch import BadRecord
from data.loading.eval_loader import EvalBatch
from train.evaluation.answer import NO_ANSWER, answer
from train.evaluation.ensemble import Ensemble
from train.evaluation.evaluation_pass import Accumulator, Outputs, run_evaluation
from train.evaluation.metrics import TaskCounts


@dataclass(frozen=True)
class Comparison:
    """tasks: task -> measure -> value. difference: task -> largest |log p - log p of the first model| over images and
    classes, infinite where only one of the two gave numbers. agreement: task -> share of images with the first model's
    answer. largest: task -> largest |log p|."""

    tasks: Mapping[str, Mapping[str, float]]
    difference: Mapping[str, float]
    agreement: Mapping[str, float]
    largest: Mapping[str, float]

    @property
    def mean_top1(self) -> float | None:
        """Over the tasks that have a labelled sample; None without any."""
        values = [report["top1"] for report in self.tasks.values() if report["count"]]
        return sum(values) / len(values) if values else None

    @property
    def num_without_answer(self) -> int:
        """Answers that are not numbers, over all tasks."""
        return sum(int(report["no_answer"]) for report in self.tasks.values())

    @property
    def mean_loss(self) -> float | None:
        """Over the same tasks."""
        values = [report["loss"] for report in self.tasks.values() if report["count"]]
        return sum(values) / len(values) if values else None


def compare(
    models: Mapping[str, Ensemble],
    batches: Iterable[EvalBatch],
    *,
    num_samples: int,
    progress: Callable[[int], None] = lambda count: None,
) -> tuple[dict[str, Comparison], list[BadRecord]]:
    """Results by name, and the samples that could not be used. The models answer the same tasks, on the CPU.
    LoaderLost when not just `num_samples` came."""
    cpu = torch.device("cpu")
    first = next(iter(models))
    sums = {name: _Sums(name, ensemble, first=first, device=cpu) for name, ensemble in models.items()}
    seen = run_evaluation(
        models,
        batches,
        list(sums.values()),
        num_samples=num_samples,
        what="comparing",
        device=cpu,
        progress=progress,
    )
    return {name: total.result() for name, total in sums.items()}, seen.bad


class _Sums(Accumulator):
    """What the model `name` adds up to, beside the model `first`."""

    def __init__(self, name: str, ensemble: Ensemble, *, first: str, device: torch.device) -> None:
        self._name, self._first = name, first
        tasks = ensemble.tasks
        self._counts = {
            task: TaskCounts(len(names), device, class_values=ensemble.class_values.get(task))
            for task, names in tasks.items()
        }
        self._difference = dict.fromkeys(tasks, 0.0)
        self._largest = dict.fromkeys(tasks, 0.0)
        self._agreed = dict.fromkeys(tasks, 0)
        self._num_samples = 0

    def add(self, batch: EvalBatch, outputs: Outputs) -> None:
        if not outputs:
            return
        first = outputs[self._first]
        self._num_samples += len(batch)
        for task, values in outputs[self._name].items():
            self._counts[task].add(values, batch.label[task])
            chosen, wanted = answer(values), answer(first[task])
            both, one = (chosen != NO_ANSWER) & (wanted != NO_ANSWER), (chosen == NO_ANSWER) != (wanted == NO_ANSWER)
            difference = math.inf if one.any() else _largest(values[both] - first[task][both])
            self._difference[task] = max(self._difference[task], difference)
            self._largest[task] = max(self._largest[task], _largest(values[chosen != NO_ANSWER]))
            self._agreed[task] += int((both & (chosen == wanted)).sum())

    def result(self) -> Comparison:
        return Comparison(
            tasks={task: count.report() for task, count in self._counts.items()},
            difference=self._difference,
            agreement={task: agreed / max(1, self._num_samples) for task, agreed in self._agreed.items()},
            largest=self._largest,
        )


def _largest(values: Tensor) -> float:
    return values.abs().max().item() if values.numel() else 0.0
