"""Which cells of a confusion matrix are written: the right ones, and never the square of thousands of classes."""

import time

import numpy as np
import pytest
import torch

from train.evaluation.confusions import all_cells, filled_cells, worst_confusions
from train.evaluation.evaluation import Evaluation, evaluation_report
from train.evaluation.metrics import TaskCounts
from train.evaluation.reliability import ReliabilityCounts
from train.report_page.confusion import mistaken_pairs


@pytest.mark.parametrize("seed", range(20))
def test_the_worst_confusions_are_those_of_a_sort_of_all_cells(seed: int) -> None:
    chance = np.random.default_rng(seed)
    num_classes = int(chance.integers(1, 12))
    matrix = chance.integers(0, 4, (num_classes, num_classes)).astype(np.float64)
    wrong = [cell for cell in all_cells(matrix) if cell[0] != cell[1] and cell[2]]
    assert worst_confusions(matrix, 9) == sorted(wrong, key=lambda cell: -cell[2])[:9]
    assert filled_cells(matrix) == [cell for cell in all_cells(matrix) if cell[2]]


def test_an_evaluation_of_1500_classes_costs_what_its_photos_cost() -> None:
    num_classes, photos = 1500, 256
    counts = TaskCounts(num_classes, torch.device("cpu"))
    logits, target = torch.randn(photos, num_classes), torch.arange(photos)
    began = time.process_time()
    for _ in range(20):
        counts.add(logits, target)
    assert time.process_time() - began < 1.0
    assert counts.confusion.sum() == 20 * photos
    evaluation = Evaluation(
        {"item": counts.report()}, {"item": counts.confusion}, {"item": counts.support}, 0, bad=[], no_answer=[]
    )
    began = time.process_time()
    reliability = ReliabilityCounts(["item"], torch.device("cpu"), thresholds={})
    content = evaluation_report(
        evaluation,
        reliability,
        ensemble=_Ensemble(num_classes),  # type: ignore[arg-type]
        data="val",
        num_views=1,
        bad=[],
    )
    mistaken_pairs(counts.confusion.numpy().astype(int), _Ensemble(num_classes).tasks["item"])
    assert time.process_time() - began < 1.0
    cells = content["tasks"]["item"]["confusion_cells"]
    assert "confusion" not in content["tasks"]["item"]
    assert {true for true, _, _ in cells} == set(range(photos))
    assert sum(count for _, _, count in cells) == 20 * photos


class _Ensemble:
    members = ()

    def __init__(self, num_classes: int) -> None:
        self.tasks = {"item": tuple(map(str, range(num_classes)))}
        self.class_values: dict[str, tuple[float, ...]] = {}
