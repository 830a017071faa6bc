"""Precision, recall and F1 of each class, counted by hand."""

import numpy as np
import pytest
import torch

from train.evaluation.class_scores import ClassScore, class_scores, lowest_f1, without_photos
from train.evaluation.metrics import TaskCounts
from train.tracking.result_table import print_classes

# Rows are the true classes. Of cats 3 are found, 1 is taken for a dog and 1 has no answer; no photo shows a bird, which
# one dog is taken for; nothing is taken for a fish, of which there are 2; no photo and no answer is of a newt.
MATRIX = np.array([[3, 1, 0, 0, 0], [0, 4, 1, 0, 0], [0, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0]])
SUPPORT = np.array([5, 5, 0, 2, 0])
NAMES = ("cat", "dog", "bird", "fish", "newt")


def test_every_class_has_the_shares_that_counting_gives_and_none_is_nan() -> None:
    assert class_scores(MATRIX, SUPPORT, NAMES) == [
        ClassScore("cat", 5, 4, 3 / 4, 3 / 5, 6 / 9),
        ClassScore("dog", 5, 6, 4 / 6, 4 / 5, 8 / 11),
        ClassScore("bird", 0, 1, 0.0, None, None),
        ClassScore("fish", 2, 0, None, 0.0, 0.0),
        ClassScore("newt", 0, 0, None, None, None),
    ]


def test_the_worst_come_first_and_classes_without_photos_are_named_apart() -> None:
    scores = class_scores(MATRIX, SUPPORT, NAMES)
    assert [score.name for score in lowest_f1(scores)] == ["fish", "cat", "dog"]
    assert [score.name for score in lowest_f1(scores, 1)] == ["fish"]
    assert without_photos(scores) == ["bird", "newt"]


def test_the_mean_f1_is_the_macro_f1_of_the_task_also_with_answers_that_are_no_numbers() -> None:
    counts = TaskCounts(3, torch.device("cpu"))
    logits = torch.eye(3)[[0, 1, 1, 0, 0]]
    logits[4, 0] = torch.nan
    counts.add(logits, torch.tensor([0, 1, 0, 1, 1]))
    scores = class_scores(counts.confusion.numpy(), counts.support.numpy(), ("a", "b", "c"))
    assert [score.support for score in scores] == [2, 3, 0]
    known = [score.f1 for score in scores if score.f1 is not None]
    assert sum(known) / len(known) == pytest.approx(counts.report()["macro_f1"])


def test_few_classes_are_printed_and_of_many_the_worst_unless_all_are_wanted(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_classes("pet", class_scores(MATRIX, SUPPORT, NAMES), print_all=False)
    output = capsys.readouterr().out
    for word in ("classes of pet", "75.0 %", "60.0 %", "66.7 %", "no photo of bird, newt"):
        assert word in output
    matrix = np.diag(np.arange(30, 0, -1)) + 1  # the later the class, the fewer of its photos are found
    many = class_scores(matrix, matrix.sum(axis=1), [f"kind{number:02d}" for number in range(30)])
    print_classes("item", many, print_all=False)
    worst = capsys.readouterr().out
    assert "the 10 of 30 classes with the lowest F1 (--per-class all prints all)" in worst
    assert [f"kind{number:02d}" in worst for number in range(30)] == [False] * 20 + [True] * 10
    print_classes("item", many, print_all=True)
    everything = capsys.readouterr().out
    assert all(f"kind{number:02d}" in everything for number in range(30))
    print_classes("item", class_scores(0 * matrix, 0 * SUPPORT.repeat(6), ["x"] * 30), print_all=True)
    assert capsys.readouterr().out == ""
