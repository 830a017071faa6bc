"""Labels are ranked by what a model says of them, beside what it says of their class; worked out by hand."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from data.loading.batch import BadRecord
from data.loading.eval_loader import EvalBatch
from train.evaluation.label_confidence import FoldLabels, class_scores, rank_suspects


def batch_of(labels: dict[str, list[int]], *, rows: list[int], bad: Sequence[int] = ()) -> EvalBatch:
    return EvalBatch(
        image={},
        label={task: torch.tensor(values) for task, values in labels.items()},
        key=[str(row) for row in rows],
        row=rows,
        bad=[BadRecord("shard", str(row), "broken", (0, row), row) for row in bad],
    )


def judged(tasks, labels, probabilities, *, keys) -> FoldLabels:
    """One batch without bad photos."""
    fold = FoldLabels(tasks=tasks, keys=keys)
    outputs = {task: torch.tensor(values).log() for task, values in probabilities.items()}
    fold.add(batch_of(labels, rows=list(range(len(keys)))), {"model": outputs})
    return fold


def test_a_score_is_the_probability_divided_by_the_mean_of_the_class() -> None:
    scores = class_scores(np.array([0, 0, 1, 1, 3]), np.array([0.9, 0.5, 0.4, 0.2, 0.7]))
    np.testing.assert_allclose(scores, [9 / 7, 5 / 7, 4 / 3, 2 / 3, 1])


def test_a_hard_class_does_not_hide_the_errors_of_an_easy_one() -> None:
    """cat: 0.95, 0.95, 0.35 (mean 0.75). dog, hard throughout: 0.30 three times (mean 0.3)."""
    fold = judged(
        {"kind": ("cat", "dog")},
        {"kind": [0, 0, 0, 1, 1, 1]},
        {"kind": [[0.95, 0.05], [0.95, 0.05], [0.35, 0.65], [0.7, 0.3], [0.7, 0.3], [0.7, 0.3]]},
        keys=list("abcdef"),
    )
    ranked = list(rank_suspects([fold]))
    assert ranked[0].image == "c", "by the probability alone, all dogs would come before it"
    assert [one.image for one in ranked] == ["c", "d", "e", "f", "a", "b"]
    assert (ranked[0].label, ranked[0].answer) == ("cat", "dog")
    assert ranked[0].probability_of_label == pytest.approx(0.35)
    assert ranked[0].probability_of_answer == pytest.approx(0.65)
    assert [one.is_contradicted for one in ranked] == [True, True, True, True, False, False]


def test_an_error_in_a_hard_class_comes_before_a_doubtful_label_of_an_easy_one() -> None:
    """dog: 0.01, 0.30, 0.29 (mean 0.2), the first is 5 % of the mean. cat: 0.9, 0.9, 0.3 (mean 0.7), 43 %."""
    fold = judged(
        {"kind": ("cat", "dog")},
        {"kind": [1, 1, 1, 0, 0, 0]},
        {"kind": [[0.99, 0.01], [0.7, 0.3], [0.71, 0.29], [0.9, 0.1], [0.9, 0.1], [0.3, 0.7]]},
        keys=list("abcdef"),
    )
    assert [one.image for one in rank_suspects([fold])][:2] == ["a", "f"]


def test_a_class_that_no_answer_ever_finds_possible_is_no_division_by_zero() -> None:
    np.testing.assert_array_equal(class_scores(np.array([0, 0]), np.array([0.0, 0.0])), [0, 0])


def test_equal_ones_come_by_the_more_probable_answer() -> None:
    fold = judged(
        {"kind": ("a", "b", "c")},
        {"kind": [0, 0]},
        {"kind": [[0.2, 0.4, 0.4], [0.2, 0.1, 0.7]]},
        keys=["unsure", "sure"],
    )
    assert [one.image for one in rank_suspects([fold])] == ["sure", "unsure"]


def test_folds_that_number_their_classes_differently_are_ranked_together() -> None:
    """red: 0.9 in one fold, 0.1 in the other, one mean of 0.5; blue: 0.8 alone."""
    first = judged({"c": ("red", "blue")}, {"c": [0, 1]}, {"c": [[0.9, 0.1], [0.2, 0.8]]}, keys=["a", "b"])
    second = judged({"c": ("blue", "red")}, {"c": [1]}, {"c": [[0.9, 0.1]]}, keys=["d"])
    ranked = [(one.image, one.label, one.answer, one.fold, one.place) for one in rank_suspects([first, second])]
    assert ranked == [("d", "red", "blue", 1, 0), ("b", "blue", "blue", 0, 1), ("a", "red", "red", 0, 0)]


def test_a_class_of_two_tasks_is_two_classes() -> None:
    """`yes` of one task has the mean 0.2, of the other 0.8: all scores are 1."""
    tasks = {"hat": ("yes", "no"), "tie": ("yes", "no")}
    probabilities = {"hat": [[0.2, 0.8]] * 2, "tie": [[0.8, 0.2]] * 2}
    ranked = rank_suspects([judged(tasks, {"hat": [0, 0], "tie": [0, 0]}, probabilities, keys=["a", "b"])])
    assert [one.task for one in ranked] == ["hat", "hat", "tie", "tie"]


def test_photos_keep_their_places_around_missing_labels_bad_photos_and_answers_that_are_no_numbers() -> None:
    fold = FoldLabels(tasks={"c": ("x", "y")}, keys=[f"photo{number}" for number in range(7)])
    nan = float("nan")
    fold.add(batch_of({"c": [0, -1]}, rows=[0, 2], bad=[1]), {"model": {"c": torch.tensor([[0.6, 0.4]] * 2).log()}})
    fold.add(batch_of({"c": []}, rows=[], bad=[0]), {})
    outputs = torch.tensor([[0.6, 0.4], [nan, nan], [0.5, 0.5]]).log()
    fold.add(batch_of({"c": [1, 0, 0]}, rows=[0, 1, 2]), {"model": {"c": outputs}})
    assert {(one.image, one.label) for one in rank_suspects([fold])} == {
        ("photo0", "x"),
        ("photo4", "y"),
        ("photo6", "x"),
    }
    assert fold.num_unanswered == 1


def test_no_label_at_all_is_an_empty_list() -> None:
    assert list(rank_suspects([FoldLabels(tasks={"c": ("x", "y")}, keys=["a"])])) == []
