"""Temperatures and thresholds for the tasks of a model, from its answers to labelled photos.

answers = LabelledLogits(tasks); run_evaluation({"model": ensemble}, batches, [answers], ...)
found = calibrate_task(answers.of("age"), wanted, halves=True)
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from data.index.labels import MISSING
from data.loading.eval_loader import EvalBatch
from train.evaluation.answer import is_answer
from train.evaluation.evaluation_pass import Accumulator, Outputs
from train.evaluation.reliability import calibration_error, reliability
from train.evaluation.temperature import CalibratedAnswers, FittedTemperature, answers_at, fit_temperature
from train.evaluation.thresholds import ChosenThreshold, Wanted, choose_threshold, given_answers


@dataclass(frozen=True)
class TaskLogits:
    """Of the labelled samples of one task. logits: float32 [N, C], finite, or log-probabilities; label: int64 [N];
    num_without_answer: samples beside these, whose logits are not finite."""

    logits: np.ndarray
    label: np.ndarray
    num_without_answer: int = 0

    def __len__(self) -> int:
        return len(self.label)

    @property
    def num_samples(self) -> int:
        return len(self) + self.num_without_answer

    def part(self, rows: np.ndarray) -> "TaskLogits":
        return TaskLogits(self.logits[rows], self.label[rows])


class LabelledLogits(Accumulator):
    """Keeps what one model says of each labelled sample."""

    def __init__(self, tasks: Sequence[str]) -> None:
        self._parts: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {task: [] for task in tasks}
        self._num_without_answer = dict.fromkeys(tasks, 0)

    def add(self, batch: EvalBatch, outputs: Outputs) -> None:
        for values in outputs.values():
            for task, parts in self._parts.items():
                labelled, answered = batch.label[task] != MISSING, is_answer(values[task])
                self._num_without_answer[task] += int((labelled & ~answered).sum())
                kept = labelled & answered
                parts.append((values[task][kept].cpu().numpy(), batch.label[task][kept].cpu().numpy()))

    def of(self, task: str) -> TaskLogits:
        parts = self._parts[task]
        if not parts:
            return TaskLogits(np.empty((0, 1)), np.empty(0, np.int64))
        logits, label = (np.concatenate(column) for column in zip(*parts, strict=True))
        return TaskLogits(logits, label, self._num_without_answer[task])


@dataclass(frozen=True)
class Measured:
    """loss: mean negative log-likelihood. error: expected calibration error."""

    loss: float
    error: float


@dataclass(frozen=True)
class HeldOut:
    """Of a half of the samples, with what was fitted on the other half; both ways, as one set. coverage, precision:
    with thresholds of the other half, None where it has none that is good enough, or none was wanted."""

    before: Measured
    after: Measured
    temperatures: tuple[float, float]
    coverage: float | None
    precision: float | None


@dataclass(frozen=True)
class TaskCalibration:
    """num_samples: labelled ones. only_class: the one class that occurs, None where there are several. before: at
    temperature 1, after: at the fitted one, both on the samples that it was fitted on."""

    num_samples: int
    num_without_answer: int
    only_class: int | None
    fitted: FittedTemperature
    before: Measured
    after: Measured
    wanted: Wanted | None
    threshold: ChosenThreshold | None
    held_out: HeldOut | None

    def record(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**asdict(self), "wanted": None if self.wanted is None else str(self.wanted)}


def calibrate_task(task: TaskLogits, wanted: Wanted | None, *, halves: bool) -> TaskCalibration:
    """task: with at least one sample that has an answer. halves: also fit on either half and measure on the other,
    for which two such samples are needed."""
    fitted = fit_temperature(task.logits, task.label)
    after = answers_at(task.logits, task.label, fitted.temperature)
    return TaskCalibration(
        num_samples=task.num_samples,
        num_without_answer=task.num_without_answer,
        only_class=int(task.label[0]) if (task.label == task.label[0]).all() else None,
        fitted=fitted,
        before=_measured(answers_at(task.logits, task.label, 1.0)),
        after=_measured(after),
        wanted=wanted,
        threshold=_threshold(after, wanted, num_samples=task.num_samples),
        held_out=_held_out(task, wanted) if halves and len(task) > 1 else None,
    )


def _threshold(answers: CalibratedAnswers, wanted: Wanted | None, *, num_samples: int) -> ChosenThreshold | None:
    if wanted is None:
        return None
    return choose_threshold(answers.confidence, answers.correct, wanted, num_samples=num_samples)


def _measured(answers: CalibratedAnswers) -> Measured:
    return Measured(answers.loss, calibration_error(reliability(answers.confidence, answers.correct)))


def _held_out(task: TaskLogits, wanted: Wanted | None) -> HeldOut:
    """The halves are drawn by chance, the same ones every time: a set may be ordered by class."""
    rows = np.random.default_rng(0).permutation(len(task))
    first, second = (task.part(np.sort(part)) for part in np.array_split(rows, 2))
    before, after, temperatures = [], [], []
    given, is_chosen = np.zeros(2, np.int64), True
    for half, other in ((first, second), (second, first)):
        temperature = fit_temperature(half.logits, half.label).temperature
        temperatures.append(temperature)
        before.append(answers_at(other.logits, other.label, 1.0))
        after.append(answers_at(other.logits, other.label, temperature))
        chosen = _threshold(answers_at(half.logits, half.label, temperature), wanted, num_samples=len(half))
        if chosen is None or not chosen.reached:
            is_chosen = False
        else:
            given += given_answers(after[-1].confidence, after[-1].correct, chosen.probability)
    answers, right = given.tolist()
    return HeldOut(
        before=_measured(_together(before)),
        after=_measured(_together(after)),
        temperatures=(temperatures[0], temperatures[1]),
        coverage=answers / len(task) if is_chosen else None,
        precision=right / answers if is_chosen and answers else None,
    )


def _together(parts: Sequence[CalibratedAnswers]) -> CalibratedAnswers:
    sizes = [len(part.correct) for part in parts]
    return CalibratedAnswers(
        confidence=np.concatenate([part.confidence for part in parts]),
        correct=np.concatenate([part.correct for part in parts]),
        loss=math.fsum(size * part.loss for size, part in zip(sizes, parts, strict=True)) / sum(sizes),
    )
