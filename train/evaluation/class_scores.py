"""Precision, recall and F1 of each class of a task, from its confusion matrix.

scores = class_scores(matrix, support, classes); worst = lowest_f1(scores, 10)
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ClassScore:
    """support: photos of the class. answered: photos that the model says are of it. None where there is nothing to
    divide by: precision of a class that no photo is taken for, recall and F1 of a class without photos."""

    name: str
    support: int
    answered: int
    precision: float | None
    recall: float | None
    f1: float | None


def class_scores(confusion: np.ndarray, support: np.ndarray, classes: Sequence[str]) -> list[ClassScore]:
    """In the order of the classes. confusion: [C, C], rows are the true classes. support: [C], photos of each class,
    those without an answer (which is wrong) among them.

    precision = TP / (TP + FP), recall = TP / (TP + FN), F1 = 2 TP / (2 TP + FP + FN). The mean of the F1 that are
    there is the task's macro F1.
    """
    hits, answered = confusion.diagonal(), confusion.sum(axis=0)
    columns = (column.astype(int).tolist() for column in (support, answered, hits))
    return [
        ClassScore(
            name=name,
            support=true,
            answered=predicted,
            precision=right / predicted if predicted else None,
            recall=right / true if true else None,
            f1=2 * right / (true + predicted) if true else None,
        )
        for name, true, predicted, right in zip(classes, *columns, strict=True)
    ]


def lowest_f1(scores: Sequence[ClassScore], count: int | None = None) -> list[ClassScore]:
    """At most `count` classes with photos, from the lowest F1 up; among equals those of more photos first."""
    known = [(score.f1, -score.support, score) for score in scores if score.f1 is not None]
    return [score for _, _, score in sorted(known, key=lambda entry: entry[:2])][:count]


def without_photos(scores: Sequence[ClassScore]) -> list[str]:
    """Names of the classes that nothing can be said about."""
    return [score.name for score in scores if not score.support]
