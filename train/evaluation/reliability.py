"""How far a model's probabilities can be believed: answers by confidence, and the expected calibration error.

    bins = reliability(confidence, correct); error = calibration_error(bins)

The confidence of an answer is the probability of the class that it names.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from data.index.labels import MISSING
from data.loading.eval_loader import EvalBatch
from train.evaluation.answer import NO_ANSWER, answer
from train.evaluation.evaluation_pass import Accumulator, Outputs

NUM_BINS = 15


@dataclass(frozen=True)
class Bin:
    """Answers with a confidence from low to high; confidence and accuracy are their means."""

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


def reliability(confidence: np.ndarray, correct: np.ndarray) -> list[Bin]:
    """NUM_BINS bins of equal width over 0..1; empty ones are left out. Both arrays [N]."""
    place = np.minimum((confidence * NUM_BINS).astype(int), NUM_BINS - 1)
    columns = (np.bincount(place, values, minlength=NUM_BINS) for values in (None, confidence, correct))
    return _bins(zip(*(column.tolist() for column in columns), strict=True))


def _bins(sums: Iterable[Sequence[float]]) -> list[Bin]:
    """sums: of each of the NUM_BINS bins the number of answers, the sum of their confidences, the right ones."""
    return [
        Bin(number / NUM_BINS, (number + 1) / NUM_BINS, int(count), confidence / count, right / count)
        for number, (count, confidence, right) in enumerate(sums)
        if count
    ]


def calibration_error(bins: Sequence[Bin]) -> float:
    """Expected calibration error (Naeini et al. 2015): mean |accuracy - confidence|, weighted by answers."""
    total = sum(one.count for one in bins)
    return sum(one.count * abs(one.accuracy - one.confidence) for one in bins) / total if total else float("nan")


class ReliabilityCounts(Accumulator):
    """Adds up, over batches and ranks, the bins of each task, and what a threshold withholds. thresholds: task ->
    probability below which an answer is withheld."""

    def __init__(self, tasks: Sequence[str], device: torch.device, *, thresholds: Mapping[str, float]) -> None:
        self._thresholds = thresholds
        # Of each bin: answers, sum of their confidences, right ones; last: answers that are given, the right of these,
        # labelled samples.
        self._flat = {task: torch.zeros(NUM_BINS * 3 + 3, dtype=torch.float64, device=device) for task in tasks}

    @property
    def sums(self) -> Sequence[Tensor]:
        return list(self._flat.values())

    def add(self, batch: EvalBatch, outputs: Outputs) -> None:
        for log_probabilities in outputs.values():
            for task, flat in self._flat.items():
                self._add(flat, log_probabilities[task], batch.label[task], self._thresholds.get(task, 0.0))

    def _add(self, flat: Tensor, log_probabilities: Tensor, label: Tensor, threshold: float) -> None:
        chosen = answer(log_probabilities)
        labelled = label != MISSING
        known = labelled & (chosen != NO_ANSWER)
        confidence = log_probabilities[known].double().amax(dim=1).exp()
        correct = (chosen == label)[known].double()
        place = (confidence * NUM_BINS).long().clamp(max=NUM_BINS - 1)
        rows = torch.stack([torch.ones_like(confidence), confidence, correct], dim=1)
        flat[:-3].view(NUM_BINS, 3).index_add_(0, place, rows)
        given = confidence >= threshold
        flat[-3:] += torch.stack([given.double().sum(), correct[given].sum(), labelled.double().sum()])

    def calibration_error(self, task: str) -> float:
        """NaN without an answer to a labelled sample."""
        return calibration_error(_bins(self._flat[task][:-3].view(NUM_BINS, 3).tolist()))

    def given(self, task: str) -> "GivenAnswers | None":
        """Of a task with a threshold; None of others, and without a labelled sample."""
        answers, right, labelled = self._flat[task][-3:].tolist()
        if task not in self._thresholds or not labelled:
            return None
        return GivenAnswers(self._thresholds[task], answers / labelled, right / answers if answers else None)


@dataclass(frozen=True)
class GivenAnswers:
    """Of the labelled samples of a task. threshold: answers with a lower probability are withheld. coverage: the share
    of samples that have an answer. precision: the share of these answers that is right, None where none is given."""

    threshold: float
    coverage: float
    precision: float | None

    def __str__(self) -> str:
        right = "" if self.precision is None else f", {100 * self.precision:.1f} % of them right"
        return f"{100 * self.coverage:.1f} % answered from a probability of {self.threshold:.4f} on{right}"
