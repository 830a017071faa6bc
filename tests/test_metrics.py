"""Accuracy measures against counting by hand, whichever way the samples are cut into batches."""

import math

import numpy as np
import pytest
import torch

from train.losses import MISSING
from train.metrics import TaskCounts

CPU = torch.device("cpu")


def random_answers(num_classes: int, *, count: int = 200, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = np.random.default_rng(seed)
    target = generator.integers(0, num_classes - 1, count)  # the last class never occurs
    target[::9] = MISSING
    logits = generator.normal(size=(count, num_classes))
    known = np.flatnonzero(target >= 0)
    logits[known, target[known]] += 1.0
    return torch.from_numpy(logits), torch.from_numpy(target)


def by_hand(logits: torch.Tensor, target: torch.Tensor) -> dict[str, float]:
    num_classes = logits.shape[1]
    rows = [(row, label) for row, label in zip(logits.tolist(), target.tolist(), strict=True) if label != MISSING]
    ranked = [sorted(range(num_classes), key=lambda cls, row=row: -row[cls]) for row, _ in rows]
    labels = [label for _, label in rows]
    scores = []
    for cls in sorted(set(labels)):
        hits = sum(best[0] == cls == label for best, label in zip(ranked, labels, strict=True))
        wrong = sum((best[0] == cls) != (label == cls) for best, label in zip(ranked, labels, strict=True))
        scores.append(2 * hits / (2 * hits + wrong))
    losses = [math.log(sum(math.exp(value) for value in row)) - row[label] for row, label in rows]
    report = {
        "top1": sum(best[0] == label for best, label in zip(ranked, labels, strict=True)) / len(rows),
        "macro_f1": sum(scores) / len(scores),
        "loss": sum(losses) / len(rows),
        "majority": max(labels.count(cls) for cls in range(num_classes)) / len(rows),
        "count": len(rows),
    }
    if num_classes > 5:
        report["top5"] = sum(label in best[:5] for best, label in zip(ranked, labels, strict=True)) / len(rows)
    return report


@pytest.mark.parametrize("num_classes", [2, 5, 6, 11])
def test_every_measure_is_what_counting_gives(num_classes: int) -> None:
    logits, target = random_answers(num_classes)
    counts = TaskCounts(num_classes, CPU)
    for part in torch.arange(len(target)).split(37):
        counts.add(logits[part], target[part])
    assert counts.report() == pytest.approx(by_hand(logits, target), rel=1e-5)
    assert ("top5" in counts.report()) == (num_classes > 5)


def test_the_confusion_matrix_has_the_true_classes_in_its_rows() -> None:
    counts = TaskCounts(3, CPU)
    counts.add(torch.tensor([[0.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]), torch.tensor([0, 1, MISSING]))
    assert counts.confusion.tolist() == [[0, 1, 0], [0, 1, 0], [0, 0, 0]]


def test_the_counts_of_two_ranks_add_up() -> None:
    logits, target = random_answers(7)
    whole, left, right = (TaskCounts(7, CPU) for _ in range(3))
    whole.add(logits, target)
    left.add(logits[:50], target[:50])
    right.add(logits[50:], target[50:])
    left.flat = left.flat + right.flat
    assert left.report() == pytest.approx(whole.report())


def test_without_a_label_every_measure_is_nan() -> None:
    counts = TaskCounts(6, CPU)
    counts.add(torch.randn(4, 6), torch.full((4,), MISSING))
    report = counts.report()
    assert report.pop("count") == 0
    assert sorted(report) == ["loss", "macro_f1", "majority", "top1", "top5"]
    assert all(math.isnan(value) for value in report.values())
