"""Which labels are contradicted most by models that have not seen their photos.

    folds = [FoldLabels(tasks=ensemble.tasks, keys=keys)]  # one for each model and the photos that it has not seen
    run_evaluation({"model": ensemble}, batches, [folds[0]], num_samples=90, what="judging", device=device)
    for suspect in rank_suspects(folds): ...  # the worst first

A label is judged by its self-confidence: the probability that the model gives to the class that the label says
(Northcutt, Jiang, Chuang: Confident learning, 2021), divided by the mean of this probability over all photos with the
same label of the same task. The mean tells a label that is doubtful in its class from a class that is hard throughout.
It divides and is not subtracted: the difference cannot be lower than the negative mean, so that no error in a hard
class would ever come before the doubtful labels of an easy one.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from data.index.labels import MISSING
from data.loading.eval_loader import EvalBatch
from train.evaluation.answer import NO_ANSWER, answer
from train.evaluation.evaluation_pass import Accumulator, Outputs


@dataclass(frozen=True, slots=True)
class Suspect:
    """One label of one photo. image: the photo's key. fold: which of the models judged it. place: the photo's number
    among the images of its fold."""

    image: str
    task: str
    label: str
    answer: str
    probability_of_label: float
    probability_of_answer: float
    fold: int
    place: int

    @property
    def is_contradicted(self) -> bool:
        """Another class is more probable than that of the label."""
        return self.answer != self.label


class FoldLabels(Accumulator):
    """What one model says of every label of its held-out photos, which come once and in order to this one process.

    tasks: task -> class names, those that are judged. keys: of all photos. num_unanswered: labels left out because the
    model gave no finite number."""

    def __init__(self, *, tasks: Mapping[str, Sequence[str]], keys: Sequence[str]) -> None:
        self.tasks, self.keys = tasks, keys
        self.num_unanswered = 0
        self._num_seen = 0
        self._parts: dict[str, list[np.ndarray]] = {task: [] for task in tasks}

    def add(self, batch: EvalBatch, outputs: Outputs) -> None:
        place = self._num_seen + np.array(batch.row, dtype=np.int64)
        self._num_seen += len(batch) + len(batch.bad)
        if not outputs:
            return
        (log_probabilities,) = outputs.values()
        for task, parts in self._parts.items():
            values = log_probabilities[task]
            label, chosen = batch.label[task].cpu().numpy(), answer(values).cpu().numpy()
            probability = values.exp().cpu().double().numpy()  # [N, C]
            is_labelled, is_answered = label != MISSING, chosen != NO_ANSWER
            self.num_unanswered += int((is_labelled & ~is_answered).sum())
            row = np.flatnonzero(is_labelled & is_answered)
            of_label, of_answer = probability[row, label[row]], probability[row, chosen[row]]
            parts.append(np.stack([place[row], label[row], chosen[row], of_label, of_answer]))

    def columns(self, task: str) -> np.ndarray:
        """float64 [5, M]: place, label, answer, probability of the label, probability of the answer."""
        return np.concatenate([np.empty((5, 0)), *self._parts[task]], axis=1)


def class_scores(label: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """float64 [M], the lowest is the most suspicious: the probability of the label, divided by its mean over the class.

    label: int [M], numbers of classes (of several tasks, if no number stands for two). probability: float [M]."""
    means = np.bincount(label, weights=probability) / np.maximum(np.bincount(label), 1)
    scores: np.ndarray = probability / np.maximum(means[label], np.finfo(float).tiny)
    return scores


def rank_suspects(folds: Sequence[FoldLabels]) -> Iterator[Suspect]:
    """Every judged label of all folds, the worst first; of equal ones that with the more probable answer first.

    Classes are matched by name, so the folds may number them differently."""
    classes: dict[tuple[str, str], int] = {}
    parts = [np.empty((6, 0))]
    for number, fold in enumerate(folds):
        for task, names in fold.tasks.items():
            shared = np.array([classes.setdefault((task, name), len(classes)) for name in names])
            place, label, chosen, *probabilities = fold.columns(task)
            named = (shared[column.astype(np.int64)] for column in (label, chosen))
            parts.append(np.stack([np.full(len(place), number), place, *named, *probabilities]))
    columns = np.concatenate(parts, axis=1)
    fold_of, place, label, chosen = columns[:4].astype(np.int64)
    of_label, of_answer = columns[4:]
    pairs = list(classes)
    for at in np.lexsort((-of_answer, class_scores(label, of_label))).tolist():
        task, label_name = pairs[label[at]]
        yield Suspect(
            image=folds[fold_of[at]].keys[place[at]],
            task=task,
            label=label_name,
            answer=pairs[chosen[at]][1],
            probability_of_label=float(of_label[at]),
            probability_of_answer=float(of_answer[at]),
            fold=int(fold_of[at]),
            place=int(place[at]),
        )
