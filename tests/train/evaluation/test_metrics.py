"""Accuracy measures against counting by hand, whichever way the samples are cut into batches."""

import math

import numpy as np
import pytest
import torch

from data.index.labels import MISSING
from data.loading.eval_loader import EvalBatch
from train.distributed.comm import SingleProcess
from train.evaluation.evaluation import Evaluation, _Unanswered, evaluate
from train.evaluation.metrics import TaskCounts

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
        "no_answer": 0,
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
    assert (report.pop("count"), report.pop("no_answer")) == (0, 0)
    assert sorted(report) == ["loss", "macro_f1", "majority", "top1", "top5"]
    assert all(math.isnan(value) for value in report.values())


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("num_classes", [3, 7])
def test_logits_that_are_not_finite_are_wrong_and_counted(broken: float, num_classes: int) -> None:
    """Also where argmax would have been right by luck: NaN and inf stand at the true class, -inf beside it."""
    logits, target = random_answers(num_classes)
    spoilt = torch.arange(len(target)) % 4 == 1
    answered, counts = TaskCounts(num_classes, CPU), TaskCounts(num_classes, CPU)
    answered.add(logits[~spoilt], target[~spoilt])
    places = target.clamp(min=0) if broken != -math.inf else (target + 1) % num_classes
    logits[spoilt, places[spoilt]] = broken
    for part in torch.arange(len(target)).split(37):
        counts.add(logits[part], target[part])
    known, report = target != MISSING, counts.report()
    assert report["count"] == known.sum()
    assert report["no_answer"] == (known & spoilt).sum() > 10
    assert math.isnan(report["loss"])
    right = answered.report()
    for name in ("top1", "top5") if num_classes > 5 else ("top1",):
        assert report[name] * report["count"] == pytest.approx(right[name] * right["count"])
    assert torch.equal(counts.confusion, answered.confusion)
    assert 0 < report["macro_f1"] < right["macro_f1"]
    assert report["majority"] == int(target[known].bincount().max()) / int(known.sum())


def test_the_answers_of_two_ranks_add_up_though_one_has_none() -> None:
    """As the ranks do, one of which saw nothing but NaN."""
    left, right = TaskCounts(3, CPU), TaskCounts(3, CPU)
    left.add(torch.eye(3).double(), torch.arange(3))
    right.add(torch.full((2, 3), math.nan), torch.tensor([0, 2]))
    left.flat = left.flat + right.flat
    report = left.report()
    assert (report["top1"], report["count"], report["no_answer"]) == (0.6, 5, 2)


def test_a_validation_with_a_single_nan_is_not_finite_and_names_the_sample() -> None:
    keys = [f"photo{number}" for number in range(6)]
    label = torch.tensor([0, 1, 0, 1, MISSING, 1])
    parts = [slice(0, 4), slice(4, 6)]
    batches = [batch_of(label[part], keys[part]) for part in parts]

    def evaluation(broken: int | None) -> Evaluation:
        logits = torch.tensor([[1.0, 0.0], [0.0, 1.0]])[label.clamp(min=0)]
        if broken is not None:
            logits[broken, 1] = math.nan
        given = iter([logits[part] for part in parts])
        options = {"num_samples": 6, "num_classes": {"a": 2}, "device": CPU}
        return evaluate(lambda batch: {"a": next(given)}, batches, SingleProcess(), **options)

    whole, spoilt, unlabelled = evaluation(None), evaluation(3), evaluation(4)
    assert (whole.is_finite, whole.mean_top1, whole.unanswered) == (True, 1.0, "")
    assert (spoilt.is_finite, spoilt.mean_top1) == (False, 0.8)
    assert spoilt.unanswered == "1 of 5 for task 'a' (such as photo3)"
    assert unlabelled.is_finite  # nobody asked
    assert not spoilt.answers_nothing


def test_the_first_samples_without_an_answer_are_named_however_many_batches_there_are() -> None:
    found = _Unanswered()
    for batch in range(150):
        logits = torch.zeros(2, 3)
        if batch in (3, 63, 64, 140) or batch >= 145:
            logits[1, 0] = math.inf
        found.add([torch.zeros(2, 2), logits], [f"{batch}a", f"{batch}b"])
    assert found.names() == ["3b", "63b", "64b", "140b", "145b"]
    assert found.names() == ["3b", "63b", "64b", "140b", "145b"]


def batch_of(label: torch.Tensor, keys: list[str]) -> EvalBatch:
    return EvalBatch(image={}, label={"a": label}, key=keys, row=list(range(len(keys))), bad=[])


def test_the_mean_absolute_error_of_an_ordered_task_is_what_counting_gives() -> None:
    """Labels 20, 21, 30, none, 30 answered with 30, 21, 20, 20, 21: errors 10, 0, 10, -, 9."""
    target = torch.tensor([0, 1, 2, MISSING, 2])
    logits = torch.eye(3)[[2, 1, 0, 0, 1]]
    counts = TaskCounts(3, CPU, class_values=(20, 21, 30))
    for part in torch.arange(5).split(2):
        counts.add(logits[part], target[part])
    assert counts.report()["mean_absolute_error"] == 29 / 4
    steps = TaskCounts(3, CPU, class_values=(1, 0, 2))  # the classes are not in label order
    steps.add(logits, target)
    assert steps.report()["mean_absolute_error"] == (1 + 0 + 1 + 2) / 4
    assert "mean_absolute_error" not in TaskCounts(3, CPU).report()


def test_the_mean_absolute_error_of_two_ranks_adds_up_to_the_last_bit() -> None:
    logits, target = random_answers(7)
    values = (0.1, 0.7, -2.5, 3.0, 1e6, 1e-3, 4.0)
    whole, left, right = (TaskCounts(7, CPU, class_values=values) for _ in range(3))
    whole.add(logits, target)
    left.add(logits[:50], target[:50])
    right.add(logits[50:], target[50:])
    left.flat = left.flat + right.flat
    known = target != MISSING
    scale = torch.tensor(values, dtype=torch.float64)
    by_hand = (scale[logits.argmax(dim=1)] - scale[target])[known].abs().mean()
    assert left.report()["mean_absolute_error"] == whole.report()["mean_absolute_error"]
    assert left.report()["mean_absolute_error"] == pytest.approx(float(by_hand), rel=1e-12)


def test_the_mean_absolute_error_is_nan_without_a_label_and_with_an_answer_that_is_no_number() -> None:
    unlabelled, spoilt, nobody_asked = (TaskCounts(2, CPU, class_values=(0, 1)) for _ in range(3))
    unlabelled.add(torch.randn(3, 2), torch.full((3,), MISSING))
    spoilt.add(torch.tensor([[0.0, 1.0], [math.nan, 0.0]]), torch.tensor([1, 0]))
    nobody_asked.add(torch.tensor([[0.0, 1.0], [math.nan, 0.0]]), torch.tensor([1, MISSING]))
    assert math.isnan(unlabelled.report()["mean_absolute_error"])
    assert math.isnan(spoilt.report()["mean_absolute_error"])
    assert nobody_asked.report()["mean_absolute_error"] == 0.0
