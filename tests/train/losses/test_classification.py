"""Losses against the formulas in float64 NumPy, written out sample by sample."""

import math

import numpy as np
import pytest
import torch

from data.index.labels import MISSING
from train.losses.classification import cross_entropy, focal, sample_weights
from train.losses.objective import LOSSES

LOGITS = torch.from_numpy(np.random.default_rng(0).normal(scale=3, size=(7, 4))).float()
TARGET = torch.tensor([0, 3, MISSING, 1, 1, MISSING, 2])
CLASS_WEIGHTS = torch.tensor([1.0, 0.25, 3.0, 0.0])


def log_probabilities(logits: torch.Tensor) -> list[list[float]]:
    rows = []
    for row in logits.double().tolist():
        total = math.log(sum(math.exp(value - max(row)) for value in row)) + max(row)
        rows.append([value - total for value in row])
    return rows


def expected(
    *, class_weights: torch.Tensor | None = None, smoothing: float = 0.0, gamma: float = 0.0
) -> tuple[float, float]:
    loss_sum = weight_sum = 0.0
    for row, label in zip(log_probabilities(LOGITS), TARGET.tolist(), strict=True):
        if label == MISSING:
            continue
        weight = 1.0 if class_weights is None else float(class_weights[label])
        loss = -(1 - smoothing) * row[label] - smoothing * sum(row) / len(row)
        loss_sum += weight * (1 - math.exp(row[label])) ** gamma * loss
        weight_sum += weight
    return loss_sum, weight_sum


@pytest.mark.parametrize("class_weights", [None, CLASS_WEIGHTS])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
def test_cross_entropy_is_the_formula(class_weights: torch.Tensor | None, smoothing: float) -> None:
    sums = cross_entropy(LOGITS, TARGET, class_weights=class_weights, label_smoothing=smoothing)
    wanted = expected(class_weights=class_weights, smoothing=smoothing)
    assert [float(value) for value in sums] == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("class_weights", [None, CLASS_WEIGHTS])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 5.0])
def test_focal_is_the_formula(class_weights: torch.Tensor | None, gamma: float) -> None:
    sums = focal(LOGITS, TARGET, class_weights=class_weights, gamma=gamma)
    wanted = expected(class_weights=class_weights, gamma=gamma)
    assert [float(value) for value in sums] == pytest.approx(wanted, rel=1e-5)


def test_focal_without_focus_is_cross_entropy() -> None:
    torch.testing.assert_close(focal(LOGITS, TARGET, gamma=0.0), cross_entropy(LOGITS, TARGET))


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("class_weights", [None, CLASS_WEIGHTS])
def test_a_missing_label_has_no_part(loss, class_weights: torch.Tensor | None) -> None:
    logits = LOGITS.clone().requires_grad_()
    with_missing = loss(logits, TARGET, class_weights=class_weights)
    with_missing[0].backward()
    known = TARGET != MISSING
    torch.testing.assert_close(with_missing, loss(LOGITS[known], TARGET[known], class_weights=class_weights))
    assert logits.grad is not None
    assert torch.all(logits.grad[~known] == 0)
    assert torch.any(logits.grad[known] != 0)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("num_samples", [0, 3])
def test_without_a_labelled_sample_loss_weight_and_gradient_are_zero(loss, num_samples: int) -> None:
    logits = torch.randn(num_samples, 4, requires_grad=True)
    loss_sum, weight_sum = loss(logits, torch.full((num_samples,), MISSING), class_weights=CLASS_WEIGHTS)
    loss_sum.backward()
    assert loss_sum.item() == 0
    assert weight_sum.item() == 0
    assert logits.grad is not None
    assert torch.all(logits.grad == 0)


@pytest.mark.parametrize(("loss", "options"), [(cross_entropy, {}), (focal, {"gamma": 0.5}), (focal, {"gamma": 2.0})])
def test_a_certain_answer_keeps_finite_gradients(loss, options: dict[str, float]) -> None:
    logits = torch.tensor([[200.0, 0.0], [0.0, 200.0]], requires_grad=True)
    loss_sum, _ = loss(logits, torch.tensor([0, 0]), **options)
    loss_sum.backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert loss_sum.item() == pytest.approx(200.0)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_half_precision_logits_are_summed_in_single(loss) -> None:
    loss_sum, weight_sum = loss(LOGITS.bfloat16(), TARGET)
    assert loss_sum.dtype == weight_sum.dtype == torch.float32
    torch.testing.assert_close(loss_sum, loss(LOGITS.bfloat16().float(), TARGET)[0])


def test_sample_weights_are_those_of_the_classes() -> None:
    assert sample_weights(TARGET).tolist() == [1, 1, 0, 1, 1, 0, 1]
    assert sample_weights(TARGET, CLASS_WEIGHTS).tolist() == [1.0, 0.0, 0.0, 0.25, 0.25, 0.0, 3.0]
