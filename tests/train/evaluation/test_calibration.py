"""What is known of a task's probabilities: bins over batches and ranks, and what holds on a half not fitted on."""

import math

import numpy as np
import pytest
import torch

from data.index.labels import MISSING
from data.loading.eval_loader import EvalBatch
from train.evaluation.calibration import LabelledLogits, TaskLogits, calibrate_task
from train.evaluation.reliability import ReliabilityCounts, calibration_error, reliability
from train.evaluation.temperature import LOWEST, fit_temperature
from train.evaluation.thresholds import Wanted

CPU = torch.device("cpu")


def batch_of(label: torch.Tensor) -> EvalBatch:
    keys = [str(number) for number in range(len(label))]
    return EvalBatch(image={}, label={"a": label}, key=keys, row=list(range(len(label))), bad=[])


def random_answers(count: int = 400) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    label = torch.randint(0, 3, (count,), generator=draw)
    logits = 4 * torch.randn(count, 3, generator=draw)
    logits[torch.arange(count), label] += 4
    return logits.log_softmax(dim=1), label


def counted(parts: list[tuple[torch.Tensor, torch.Tensor]], *, threshold: float) -> ReliabilityCounts:
    counts = ReliabilityCounts(["a"], CPU, thresholds={"a": threshold})
    for logits, label in parts:
        counts.add(batch_of(label), {"model": {"a": logits}})
    return counts


def test_the_error_of_four_answers_is_what_counting_gives() -> None:
    """Two answers of 0.9, one right; two of 0.6, both right: (2 |0.5 - 0.9| + 2 |1 - 0.6|) / 4."""
    logits = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.4, 0.6], [0.5, 0.5], [math.nan, 1]]).log()
    label = torch.tensor([0, 1, 0, 1, MISSING, 0])
    counts = counted([(logits, label)], threshold=0.7)
    assert counts.calibration_error("a") == pytest.approx(0.4, abs=1e-6)
    given = counts.given("a")
    assert given is not None
    assert (given.coverage, given.precision) == (2 / 5, 1 / 2)  # the answer that is no number is not given
    assert str(given) == "40.0 % answered from a probability of 0.7000 on, 50.0 % of them right"
    nothing = counted([(logits[4:5], label[4:5])], threshold=0.7)
    assert math.isnan(nothing.calibration_error("a"))
    assert nothing.given("a") is None
    assert ReliabilityCounts(["a"], CPU, thresholds={}).given("a") is None


def test_bins_add_up_over_batches_and_ranks_to_those_of_all_at_once() -> None:
    logits, label = random_answers()
    whole = counted([(logits, label)], threshold=0.8)
    parts = [(logits[part], label[part]) for part in torch.arange(len(label)).split(37)]
    left, right = counted(parts[:4], threshold=0.8), counted(parts[4:], threshold=0.8)
    for mine, theirs in zip(left.sums, right.sums, strict=True):
        mine += theirs
    best = logits.double().max(dim=1)
    expected = reliability(best.values.exp().numpy(), (best.indices == label).numpy())
    for counts in (whole, left):
        assert counts.calibration_error("a") == pytest.approx(calibration_error(expected), rel=1e-9)
        assert counts.given("a") == whole.given("a")


def test_a_temperature_lowers_loss_and_error_also_on_the_half_that_it_was_not_fitted_on() -> None:
    logits, label = random_answers(4000)
    found = calibrate_task(TaskLogits(3 * logits.numpy(), label.numpy()), Wanted("precision", 0.9), halves=True)
    assert found.fitted.temperature == pytest.approx(3 * fit_temperature(logits.numpy(), label.numpy()).temperature)
    assert found.after.loss < found.before.loss
    assert found.after.error < found.before.error
    assert found.held_out is not None
    assert found.held_out.after.loss < found.held_out.before.loss
    assert found.held_out.before.loss == pytest.approx(found.before.loss)
    assert found.held_out.after.loss > found.after.loss
    assert found.held_out.temperatures[0] != found.held_out.temperatures[1]
    assert found.held_out.precision == pytest.approx(0.9, abs=0.05)
    assert found.threshold is not None
    assert found.threshold.precision >= 0.9
    assert found.held_out.coverage == pytest.approx(found.threshold.coverage, abs=0.1)


def test_answers_that_are_no_numbers_and_missing_labels_are_left_out_and_the_former_counted() -> None:
    logits, label = random_answers(20)
    spoilt = logits.clone()
    spoilt[3, 1], spoilt[5, 0] = math.nan, math.inf
    label[[5, 6]] = MISSING
    answers = LabelledLogits(["a", "b"])
    answers.add(batch_of(label[:0]), {})
    for part in torch.arange(20).split(7):
        batch = batch_of(label[part])
        batch.label["b"] = torch.full_like(label[part], MISSING)
        answers.add(batch, {"model": {"a": spoilt[part], "b": spoilt[part]}})
    found = answers.of("a")
    kept = [number for number in range(20) if number not in (3, 5, 6)]
    np.testing.assert_array_equal(found.logits, logits[kept].numpy())
    np.testing.assert_array_equal(found.label, label[kept].numpy())
    assert (len(found), found.num_without_answer, found.num_samples) == (17, 1, 18)
    assert answers.of("b").num_samples == 0
    assert LabelledLogits(["a"]).of("a").num_samples == 0


def test_a_single_photo_and_a_single_class_are_told() -> None:
    one = calibrate_task(TaskLogits(np.array([[1.0, 0.0]]), np.array([0])), None, halves=True)
    assert (one.fitted.temperature, one.fitted.limit) == (LOWEST, "lowest")
    assert (one.held_out, one.only_class) == (None, 0)
    several = calibrate_task(TaskLogits(np.eye(2), np.array([0, 1])), None, halves=False)
    assert several.only_class is None
