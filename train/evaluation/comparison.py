"""Several models on the same photos in one pass, each compared with the first.

results = compare({"torch fp32": teacher, "onnx int8": small}, batches, progress=advance)
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from data.loading.batch import BadRecord, require_all
from data.loading.eval_loader import EvalBatch
from train.evaluation.answer import NO_ANSWER, answer
from train.evaluation.ensemble import Ensemble
from train.evaluation.metrics import TaskCounts


@dataclass(frozen=True)
class Comparison:
    """tasks: task -> measure -> value. difference: task -> largest |log p - log p of the first model| over photos and
    classes, infinite where only one of the two gave numbers. agreement: task -> share of photos with the first model's
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


@torch.inference_mode()
def compare(
    models: Mapping[str, Ensemble],
    batches: Iterable[EvalBatch],
    *,
    num_photos: int,
    progress: Callable[[int], None] = lambda count: None,
) -> tuple[dict[str, Comparison], list[BadRecord]]:
    """Results by name, and the photos that could not be used. The models answer the same tasks, on the CPU. LoaderLost
    when not just `num_photos` came."""
    sums = {name: _Sums(ensemble) for name, ensemble in models.items()}
    bad: list[BadRecord] = []
    num_good = 0
    for batch in batches:
        bad += batch.bad
        num_good += len(batch)
        if len(batch):
            everyones = {name: ensemble(batch) for name, ensemble in models.items()}
            first = next(iter(everyones.values()))
            for name, answers in everyones.items():
                sums[name].add(answers, first, batch.label)
        progress(len(batch) + len(batch.bad))
    require_all(num_good + len(bad), num_photos, what="comparing")
    return {name: total.result() for name, total in sums.items()}, bad


class _Sums:
    """What one model adds up over the batches."""

    def __init__(self, ensemble: Ensemble) -> None:
        self._counts = {task: TaskCounts(len(names), torch.device("cpu")) for task, names in ensemble.tasks.items()}
        self._difference = dict.fromkeys(ensemble.tasks, 0.0)
        self._largest = dict.fromkeys(ensemble.tasks, 0.0)
        self._agreed = dict.fromkeys(ensemble.tasks, 0)
        self._photos = 0

    def add(self, answers: Mapping[str, Tensor], first: Mapping[str, Tensor], label: Mapping[str, Tensor]) -> None:
        self._photos += len(next(iter(answers.values())))
        for task, values in answers.items():
            self._counts[task].add(values, label[task])
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
            agreement={task: agreed / max(1, self._photos) for task, agreed in self._agreed.items()},
            largest=self._largest,
        )


def _largest(values: Tensor) -> float:
    return values.abs().max().item() if values.numel() else 0.0
